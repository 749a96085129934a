"""The tutorial, from an empty folder: every command and every line of Python on it runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from simulations.starter.folder import USERS, write_starter

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "tutorials" / "own-policy.md"


def script() -> str:
    """All blocks of the page in their order, as one shell script."""
    lines = ["set -eu"]
    for kind, block in re.findall(r"^```(sh|python)\n(.*?)^```$", PAGE.read_text(), re.M | re.S):
        lines.append(block if kind == "sh" else f"python - <<'END'\n{block}END\n")
    return "\n".join(lines)


def run(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    places = [str(Path(sys.executable).parent), os.environ["PATH"]]
    given = {**os.environ, "PATH": os.pathsep.join(places)}
    return subprocess.run(
        ["bash", "-c", text], cwd=folder, env=given, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_tutorial_runs_as_it_is_printed(tmp_path: Path) -> None:
    done = run(script(), tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    said = "error: arms.mine.adaptation: serves must be >= 1 release, got 0"
    assert [line for line in done.stderr.splitlines() if "error" in line] == [said]
    rows = pl.read_parquet(tmp_path / "mine" / "first" / "rows.parquet")
    mine = rows.filter(pl.col("arm") == "mine").sort("round")
    nights = mine.group_by("round", maintain_order=True).agg(pl.col("reason").unique())
    # what step 4 says: a first patch, then two nights by turns; serves is 2
    expected = [["first_patch"], ["still_serves"], ["has_served"], ["still_serves"]]
    assert nights["reason"].to_list() == expected
    assert sorted(path.name for path in (tmp_path / "mine" / "sweep").iterdir() if path.is_dir())


def test_a_folder_in_use_is_not_written_into(tmp_path: Path) -> None:
    write_starter(tmp_path / "new")
    rows = (tmp_path / "new" / "exchanges.jsonl").read_text(encoding="utf-8").splitlines()
    assert len({row.split(",")[0] for row in rows}) == USERS
    before = (tmp_path / "new" / "my_policy.py").read_bytes()
    (tmp_path / "new" / "my_policy.py").write_bytes(before + b"# mine\n")
    with pytest.raises(ValueError, match="init needs a new or an empty folder"):
        write_starter(tmp_path / "new")
    assert (tmp_path / "new" / "my_policy.py").read_bytes() == before + b"# mine\n"


def test_a_policy_that_only_a_file_chooses_is_refused(tmp_path: Path) -> None:
    options = write_starter(tmp_path / "new") / "conf" / "experiment"
    head = "# @package _global_\ndefaults:\n  - override /adaptation: periodic\n"
    (options / "silent.yaml").write_text(head)
    command = "fleettune run --config-dir conf +experiment=silent"
    done = run(command, tmp_path / "new")
    assert done.returncode == 2, done.stdout
    assert "adaptation is chosen in a file of options, where no arm gets it" in done.stderr
