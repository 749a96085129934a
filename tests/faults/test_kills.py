"""A run killed at any change of the disk goes on to the bytes of one that nobody killed."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from tests.faults.forked_runs import (
    EQUAL,
    FINISHED,
    FLEET,
    WITH_FLEET,
    go_on,
    is_one_sentence,
    last_round,
    ran,
    results_of,
)
from tests.faults.moments import Moment, Watch, read_moments
from tests.faults.table import settle

pytestmark = pytest.mark.faults

BEGINS = (
    *("run/.hydra", "run/run.log", "command.json", "versions", "inputs", "config"),
    *("fleet.json", "plan"),
)
ENDS = ("summary", "remove run/checkpoint", "rmdir", "report.html")


PARTS = BEGIN, COMMIT, STORE, WRITE, END = (
    "kill -9 while a run begins",
    "kill -9 while rounds are computed and committed",
    "kill -9 while releases and fleet patches enter the store",
    "kill -9 while tables and patches are written",
    "kill -9 while the summary appears, texts go and the page is written",
)
"""The rows of the table that the moments of a run belong to."""


def part_of(moment: Moment) -> str:
    """Returns the row of a moment."""
    what = moment.what
    if " store" in what:
        return STORE
    if any(name in what for name in ENDS):
        return END
    if what.startswith(("database", "open run/checkpoint/state")) or "fleet_" in what:
        return COMMIT
    begins = what.startswith("mkdir run") and "patches" not in what
    return BEGIN if begins or any(name in what for name in BEGINS) else WRITE


@pytest.fixture(scope="module")
def moments(whole: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> list[Moment]:
    """All moments of the run."""
    top = tmp_path_factory.mktemp("moments")
    listed = Watch(top / "listed", notes=top / "notes")
    assert ran(top / "listed", WITH_FLEET, listed.start)[0] == 0
    assert results_of(top / "listed") == whole
    return read_moments(top / "notes")


@pytest.mark.parametrize("fault", PARTS)
def test_every_change_of_the_disk_is_a_good_moment_to_die(
    fault: str, moments: list[Moment], whole: dict[str, str], tmp_path: Path
) -> None:
    commits = [one.number for one in moments if "behind commit_round" in one.what]
    outcomes: dict[object, str] = {}
    for moment in moments:
        if part_of(moment) != fault:
            continue
        folder = tmp_path / f"{moment.number}_{moment.form}"
        code, _ = ran(folder, WITH_FLEET, Watch(folder, last=moment).start)
        assert code == -signal.SIGKILL, moment
        committed = sum(number <= moment.number for number in commits)
        kept = has_kept(folder, committed)
        outcomes[moment] = go_on(folder, WITH_FLEET, whole) if kept else "lost"
        shutil.rmtree(folder)
    settle(fault, outcomes)


def test_a_study_that_is_killed_behind_its_last_part_is_still_judged(
    undisturbed: Path, tmp_path: Path
) -> None:
    assert undisturbed.exists()
    study = [*FLEET, "rounds=1", "study.seeds=[0,1]"]
    notes, listed = tmp_path / "moments", tmp_path / "listed"
    assert ran(listed, study, Watch(listed, notes=notes).start)[0] == 0
    whole = results_of(listed) | told_by_study(listed)
    moments = read_moments(notes)
    last = next(n for n, one in enumerate(moments) if "seed_1/summary.pending" in one.what)
    outcomes: dict[object, str] = {}
    for moment in moments[last:]:
        folder = tmp_path / f"{moment.number}_{moment.form}"
        code, _ = ran(folder, study, Watch(folder, last=moment).start)
        assert code == -signal.SIGKILL, moment
        code, told = ran(folder, ["resume=run"])
        is_whole = results_of(folder) | told_by_study(folder) == whole
        if is_one_sentence(code, told) and "finished run" in told:
            outcomes[moment] = FINISHED if is_whole else "lost"
        else:
            outcomes[moment] = ("wrong", "silent", EQUAL)[(code == 0) + (code == 0 and is_whole)]
    settle("kill -9 while a study is judged and its page is written", outcomes)


def told_by_study(folder: Path) -> dict[str, str]:
    """Returns what a study concludes, and which of its pages are whole."""
    run = folder / "run"
    ends = {str(page.relative_to(run)): page.read_text()[-8:] for page in run.rglob("*.html")}
    return ends | {file.name: file.read_text() for file in run.glob("study.json")}


def has_kept(folder: Path, committed: int) -> bool:
    """Whether a run that was killed still holds every round that it had committed."""
    if not (folder / "run" / "checkpoint" / "state.sqlite").exists():
        return committed in {0, 3}  # before its first round, or behind its last one
    return last_round(folder) == committed - 1
