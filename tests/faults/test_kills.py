"""A run killed at any change of the disk goes on to the bytes of one that nobody killed."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from tests.faults.forked_runs import WITH_FLEET, go_on, last_round, ran, results_of
from tests.faults.moments import Moment, Watch, read_moments
from tests.faults.table import settle

pytestmark = pytest.mark.faults

BEGINS = ("run/.hydra", "run/run.log", "command.json", "versions", "config", "fleet.json", "plan")
ENDS = ("summary", "remove run/checkpoint", "rmdir", "report.html")


def part_of(moment: Moment) -> str:
    """Returns the row of the table that a moment belongs to."""
    what = moment.what
    if " store" in what:
        return "kill -9 while releases and fleet patches enter the store"
    if any(name in what for name in ENDS):
        return "kill -9 while the summary appears, texts go and the page is written"
    if what.startswith(("database", "open run/checkpoint/state")) or "fleet_" in what:
        return "kill -9 while rounds are computed and committed"
    if what.startswith("mkdir run") and "patches" not in what:
        return "kill -9 while a run begins"
    if any(name in what for name in BEGINS):
        return "kill -9 while a run begins"
    return "kill -9 while tables and patches are written"


def test_every_change_of_the_disk_is_a_good_moment_to_die(
    whole: dict[str, str], tmp_path: Path
) -> None:
    notes = tmp_path / "moments"
    listed = Watch(tmp_path / "listed", notes=notes)
    assert ran(tmp_path / "listed", WITH_FLEET, listed.start)[0] == 0
    assert results_of(tmp_path / "listed") == whole
    rows: dict[str, dict[object, str]] = {}
    committed = 0
    for moment in read_moments(notes):
        folder = tmp_path / f"{moment.number}_{moment.form}"
        code, _ = ran(folder, WITH_FLEET, Watch(folder, last=moment).start)
        assert code == -signal.SIGKILL, moment
        committed += "behind commit_round" in moment.what
        found = go_on(folder, WITH_FLEET, whole) if has_kept(folder, committed) else "lost"
        rows.setdefault(part_of(moment), {})[moment] = found
        shutil.rmtree(folder)
    for fault, outcomes in rows.items():
        settle(fault, outcomes)


def has_kept(folder: Path, committed: int) -> bool:
    """Whether a run that was killed still holds every round that it had committed."""
    if not (folder / "run" / "checkpoint" / "state.sqlite").exists():
        return committed in {0, 3}  # before its first round, or behind its last one
    return last_round(folder) == committed - 1
