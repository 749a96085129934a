"""A sweep or a search that cannot be is one sentence, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulations.cli import main


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["sweep", "seed=1,2", "-m"], "belong to `fleettune run`"),
        (["sweep", "seed=1,2", "--jobs", "0"], "--jobs must be at least 1"),
        (["sweep", "seed=interval(1,2)"], "an interval belongs to `fleettune search`"),
        (["sweep", "seed=1,2", "rounds=0"], "rounds must be"),
        (["sweep", "seed=1,2", "engine=flower"], "engine must keep checkpoints"),
        (["search", "seed=1,2", "--trials", "0"], "--trials must be at least 1, got 0"),
        (["search", "seed=1"], "at least one key with several values"),
        (["search", "seed=1,2"], "--arm must be one of always_retune, edgetune"),
        (["search", "seed=1,2", "adaptation=always_reuse", "rounds=range(0,3)"], "rounds must be"),
        (
            ["search", "seed=1,2", "adaptation=always_reuse", "rounds=3", "--first-rounds", "3"],
            "--first-rounds must be at least 1 and less than rounds=3, got 3",
        ),
    ],
)
def test_a_wrong_command_ends_in_a_sentence_before_anything_runs(
    given: list[str],
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(given) == 2
    printed = capsys.readouterr().err
    assert told in printed
    assert printed.count("\n") == 1
    assert not list(tmp_path.rglob("config.yaml"))
