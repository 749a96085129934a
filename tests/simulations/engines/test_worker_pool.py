"""Workers: more processes change the time a run takes and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from clients.placement.rules import TopLayers
from fleettune.adapters.patch import new_patch
from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, read_shapes
from fleettune.cohort.execute import LEAST_DEVICES, execute, run_batches_here
from fleettune.data.personas import SyntheticData
from fleettune.data.tokens import Example, open_encoder
from fleettune.jobs.jobs import ScoreJob, ScoreResult, TuneJob, TuneResult
from fleettune.seeds import Purpose, stream
from simulations.engines.worker_pool import open_workers

DEVICES = 2 * LEAST_DEVICES + 1


def examples(user: int) -> tuple[Example, ...]:
    encoder = open_encoder(POCKET_V1_FOLDER, "pocket", 128)
    return tuple(encoder.example(exchange) for exchange in SyntheticData().open().day(user, 1))


def tune_job(user: int) -> TuneJob:
    shapes = read_shapes(POCKET_V1_FOLDER)
    placement = TopLayers(layers=2, rank=4, alpha=8.0).on(shapes)
    own = examples(user)
    return TuneJob(
        release=str(POCKET_V1_FOLDER),
        start=new_patch(placement, shapes, 0, stream(0, Purpose.ADAPTER, user)),
        batches=(own[:4], own[4:]),
        learning_rate=5e-3,
        clip=1.0,
    )


@pytest.fixture(scope="module")
def alone() -> list[str]:
    torch.set_num_threads(1)
    return digests(execute([tune_job(user) for user in range(DEVICES)], run_batches_here))


def digests(results: Sequence[object]) -> list[str]:
    return [result.patch.digest() for result in results if isinstance(result, TuneResult)]


def test_two_workers_give_the_same_bytes_as_this_process(alone: list[str]) -> None:
    with open_workers(2, 1) as run_batches:
        jobs = [tune_job(user) for user in range(DEVICES)]
        assert digests(execute(jobs, run_batches)) == alone
        scored = execute(
            [ScoreJob(release=str(POCKET_V1_FOLDER), patch=None, examples=examples(0))], run_batches
        )
    here = execute([ScoreJob(release=str(POCKET_V1_FOLDER), patch=None, examples=examples(0))])
    assert isinstance(scored[0], ScoreResult)
    assert scored == here


def test_a_job_that_fails_in_a_worker_fails_the_run(tmp_path: Path) -> None:
    job = ScoreJob(release=str(tmp_path / "nothing"), patch=None, examples=examples(0))
    with open_workers(2, 1) as run_batches, pytest.raises(OSError, match="nothing"):
        execute([job], run_batches)


DRIVER = """
import os, signal
from multiprocessing import active_children
from simulations.engines.worker_pool import open_workers
if __name__ == "__main__":
    with open_workers(2, 1) as run_batches:
        run_batches([None] * 2)  # no parts, but a reason to start both workers
        print(len(active_children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_end_with_a_driver_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(DRIVER)
    driver = subprocess.run(
        [sys.executable, str(tmp_path / "driver.py")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=90,
    )
    # the pipe was closed by all who held it, the workers as well
    assert (driver.returncode, driver.stdout) == (-signal.SIGKILL, "2\n")
