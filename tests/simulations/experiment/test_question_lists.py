"""Questions of a catalogue without text: read whole or refused, and carried in the plan."""

from __future__ import annotations

import json
from pathlib import Path

import hydra
import pytest

from simulations.experiment.build import build
from simulations.experiment.question_lists import list_questions

ASKED = "catalogue.explain.questions=3"


def plan_questions(folder: Path, *overrides: str) -> list[str]:
    """What the server of such a run is told to ask."""
    with hydra.initialize_config_module("conf", version_base="1.3"):
        cfg = hydra.compose("config", overrides=["catalogue=clusters", *overrides])
    build(cfg).plan().write(folder / "plan.json")
    return json.loads((folder / "plan.json").read_text())["catalogue"]["questions"]


def test_the_shipped_list_is_enough_for_the_shipped_catalogues(tmp_path: Path) -> None:
    told = plan_questions(tmp_path)
    assert tuple(told) == list_questions("everyday")
    assert len(set(told)) == len(told) == 120


def test_a_file_of_the_users_is_read_into_the_plan(tmp_path: Path) -> None:
    file = tmp_path / "own.txt"
    # as an editor of Windows writes it
    file.write_bytes("\ufeff# mine\r\nwhere?\r\n\r\n  wie spät?  \r\nwhy #1?".encode())
    told = plan_questions(tmp_path, ASKED, f"catalogue.questions={file}")
    assert told == ["where?", "wie spät?", "why #1?"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, r"questions must be one of \['everyday'\] or an existing file, got .*own\.txt"),
        (b"a\nb\n# c\n", r"explain\.questions must be at most .*, 2, got 3: lower it or list more"),
        ("a\nb\nspät".encode("latin-1"), r"questions must be a text file in UTF-8, .* byte 6 is"),
    ],
)
def test_a_list_that_cannot_be_asked_is_refused_before_anything_runs(
    text: bytes | None, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "own.txt"
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(ValueError, match=f"catalogue.{said}"):
        plan_questions(tmp_path, ASKED, f"catalogue.questions={file}")
