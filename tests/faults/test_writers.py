"""Two runs that write at once, into one cold store or into one folder, never hurt each other."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from tests.faults.forked_runs import FLEET, MILD, fork, is_one_sentence, ran, results_of
from tests.faults.table import settle

pytestmark = pytest.mark.faults

SHORT = [*FLEET, "rounds=1", f"release.initial={MILD}"]
"""One round, whose release has to be made first."""


def test_two_writers_of_one_cold_store_both_end_with_the_same_bytes(
    undisturbed: Path, tmp_path: Path
) -> None:
    assert undisturbed.exists()
    assert ran(tmp_path / "alone", SHORT)[0] == 0
    alone = results_of(tmp_path / "alone")
    rng = np.random.default_rng(3)
    outcomes: dict[object, str] = {}
    together = 0
    for trial in range(100):
        folder = tmp_path / str(trial)
        runs = []
        for name in ("one", "other"):
            runs.append(fork(folder, [*SHORT, f"hydra.run.dir={name}"]))
            time.sleep(float(rng.uniform(0.0, 0.1)))
        codes = [run.wait() for run in runs]
        logs = [(folder / name / "run.log").read_text() for name in ("one", "other")]
        together += not any("is in the store" in log for log in logs)
        found = [results_of(folder, name) for name in ("one", "other")]
        clean = len(list((folder / "store").iterdir())) == 1
        outcomes[trial] = judge_pair(codes, found, alone, clean=clean)
        shutil.rmtree(folder)
    told = f"in {together} trials both made the release"
    settle("two writers of one cold store", outcomes, told)
    assert together >= 50, "the trials must make both write at once"


def judge_pair(
    codes: list[int], found: list[dict[str, str]], alone: dict[str, str], *, clean: bool
) -> str:
    if codes != [0, 0] or not clean:
        return "wrong"
    return "both ended with equal bytes" if found == [alone, alone] else "silent"


def test_two_runs_that_begin_at_once_in_one_folder_are_one_run_and_one_refusal(
    undisturbed: Path, tmp_path: Path
) -> None:
    assert undisturbed.exists()
    alone: dict[int, dict[str, str]] = {}
    for seed in (1, 2):
        folder = tmp_path / f"alone_{seed}"
        shutil.copytree(undisturbed / "store", folder / "store")
        assert ran(folder, [*SHORT, f"seed={seed}"])[0] == 0
        alone[seed] = results_of(folder)
    outcomes: dict[object, str] = {}
    for trial in range(20):
        folder = tmp_path / str(trial)
        runs = {seed: fork(folder, [*SHORT, f"seed={seed}"]) for seed in (1, 2)}
        codes = {seed: run.wait() for seed, run in runs.items()}
        told = {seed: run.told.read_text() for seed, run in runs.items()}
        won = [seed for seed, code in codes.items() if code == 0]
        refused = [seed for seed in codes if is_one_sentence(codes[seed], told[seed])]
        if len(won) != 1 or len(refused) != 1:
            outcomes[trial] = "wrong"
        else:
            named = f"seed: {won[0]}\n" in (folder / "run" / "config.yaml").read_text()
            own = results_of(folder) == alone[won[0]]
            outcomes[trial] = "one run, one refusal in one sentence" if named and own else "silent"
        shutil.rmtree(folder)
    settle("two runs that begin at once in one folder", outcomes)
