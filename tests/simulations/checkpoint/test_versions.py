"""A checkpoint of an earlier version is refused before anything runs, in one sentence."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from simulations.checkpoint.resume import STATE_FILE
from simulations.checkpoint.store import Store
from simulations.checkpoint.versions import write_versions
from simulations.launch import launch


def test_a_run_that_an_earlier_version_began_is_not_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Store(tmp_path / STATE_FILE).close()
    with sqlite3.connect(tmp_path / STATE_FILE) as db:
        db.execute("UPDATE meta SET value = '1' WHERE key = 'schema'")
    db.close()
    (tmp_path / "checkpoint" / "command.json").write_text('["rounds=1"]')
    (tmp_path / "config.yaml").write_text("rounds: 1\n")
    write_versions(tmp_path)
    file = tmp_path / "versions.json"
    named = json.loads(file.read_text())
    del named["checkpoint"]  # which earlier versions did not write
    file.write_text(json.dumps(named))
    assert launch([f"resume={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "its checkpoint has format 1, and this version of fleettune reads format 3" in said
    assert said.rstrip().endswith("start the run anew in another folder")
    with pytest.raises(ValueError, match=r"must have schema 3, got 1; start the run anew"):
        Store(tmp_path / STATE_FILE)
