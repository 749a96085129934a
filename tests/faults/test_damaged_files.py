"""A damaged file is refused by its name or made anew; it never gives other results in silence."""

from __future__ import annotations

import logging
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.forked_runs import (
    BAD,
    EQUAL,
    FLEET,
    REFUSED,
    WITH_FLEET,
    errors,
    judge,
    ran,
    results_of,
)
from tests.faults.moments import BEFORE, Moment, Watch, read_moments
from tests.faults.table import settle

pytestmark = pytest.mark.faults
log = logging.getLogger(__name__)

CATALOGUE = [
    *FLEET,
    "rounds=1",
    "catalogue=styles",
    "start=nearest",
    "catalogue.entries=4",
    "catalogue.corpus=8",
    "catalogue.steps=1",
    "catalogue.explain.questions=4",
    "catalogue.explain.new_tokens=4",
]
DELETED = "refused in one sentence; equal bytes once that was deleted, as it says"


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 2
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "cut": cut,
    "one bit flipped": flip,
    "emptied": empty,
    "missing": Path.unlink,
}


def refused_by_name(folder: Path, arguments: list[str], name: str, whole: dict[str, str]) -> str:
    """Returns what came of a run with a damaged file, whose name must stand in a refusal."""
    code, told = ran(folder, arguments)
    found = judge(folder, code, told, whole)
    if found == REFUSED and name not in errors(told)[0]:
        found = "wrong"
    if found in BAD:
        log.warning("%s %s: %s", folder.name, found, told[-1500:])
    return found


def test_a_damaged_file_of_a_release_is_refused_by_its_name(
    undisturbed: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    outcomes: dict[object, str] = {}
    (mild,) = (
        file.parent
        for file in undisturbed.glob("store/*/release.json")
        if '"mild"' in file.read_text()
    )
    for name in sorted(file.name for file in mild.iterdir()):
        for damage, do in DAMAGES.items():
            folder = tmp_path / f"{name}_{damage}"
            shutil.copytree(undisturbed / "store", folder / "store")
            do(folder / "store" / mild.name / name)
            found = refused_by_name(folder, WITH_FLEET, name, whole)
            if found == REFUSED and damage == "cut":
                shutil.rmtree(folder / "store" / mild.name)
                code, _ = ran(folder, [*WITH_FLEET, "hydra.run.dir=run/again"])
                again = results_of(folder, "run/again")
                found = DELETED if code == 0 and again == whole else "wrong"
            outcomes[f"{name} {damage}"] = found
            shutil.rmtree(folder)
    settle("a damaged file of a cached release", outcomes)


def test_a_damaged_file_of_a_catalogue_is_refused_by_its_name_or_made_anew(
    undisturbed: Path, tmp_path: Path
) -> None:
    assert undisturbed.exists()
    made = tmp_path / "made"
    assert ran(made, CATALOGUE)[0] == 0
    whole = results_of(made)
    outcomes: dict[object, str] = {}
    for kind in ("tuned", "safetensors", "explained", "catalogue"):
        name = min(made.glob(f"store/catalogues/*.{kind}")).name
        for damage, do in DAMAGES.items():
            folder = tmp_path / f"{kind}_{damage}"
            shutil.copytree(made / "store", folder / "store")
            do(folder / "store" / "catalogues" / name)
            outcomes[f"{kind} {damage}"] = refused_by_name(folder, CATALOGUE, name, whole)
            shutil.rmtree(folder)
    settle("a damaged file of a cached catalogue", outcomes)


@pytest.fixture(scope="module")
def interrupted(undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed behind its second round; its third release holds a fleet patch."""
    assert undisturbed.exists()
    top = tmp_path_factory.mktemp("interrupted")
    notes = top / "moments"
    assert ran(top / "listed", WITH_FLEET, Watch(top / "listed", notes=notes).start)[0] == 0
    commits = [one for one in read_moments(notes) if one.what == "database: commit_round"]
    folder = top / "killed"
    last = Moment(commits[2].number - 1, "", BEFORE)
    code, _ = ran(folder, WITH_FLEET, Watch(folder, last=last).start)
    assert code == -signal.SIGKILL
    return folder


def test_a_damaged_file_of_an_interrupted_run_never_gives_other_results(
    interrupted: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    outcomes: dict[object, str] = {}
    patch = next(interrupted.glob("store/fleet_patches/*.safetensors")).relative_to(interrupted)
    names = (
        "config.yaml",
        "versions.json",
        "inputs.json",
        "fleet.json",
        "plan.json",
        "checkpoint/command.json",
    )
    for file in (*(Path("run") / name for name in names), patch):
        for damage, do in DAMAGES.items():
            folder = tmp_path / f"{file.name}_{damage}"
            shutil.copytree(interrupted, folder)
            do(folder / file)
            # another letter in a key or a number is told as what it makes of the command line
            named = "" if damage == "one bit flipped" else file.name
            outcomes[f"{file} {damage}"] = refused_by_name(folder, ["resume=run"], named, whole)
            shutil.rmtree(folder)
    settle("a damaged file of an interrupted run", outcomes)


def test_a_damaged_checkpoint_never_gives_other_results(
    interrupted: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    outcomes: dict[object, str] = {}
    for name in ("state.sqlite", "state.sqlite-wal"):
        for damage, do in DAMAGES.items():
            folder = tmp_path / f"{name}_{damage}"
            shutil.copytree(interrupted, folder)
            do(folder / "run" / "checkpoint" / name)
            found = refused_by_name(folder, ["resume=run"], "state.sqlite", whole)
            outcomes[f"{name} {damage}"] = found
            shutil.rmtree(folder)
    assert EQUAL in outcomes.values()
    settle("a damaged checkpoint", outcomes)
