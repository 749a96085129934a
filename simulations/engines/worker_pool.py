"""Runs batched passes in worker processes; two with one thread beat one with two threads.

Which jobs share a pass is decided before, from the jobs alone, and every process uses the same
number of threads, so the number of workers never changes a result. A worker ends with the driver,
also with one that was killed.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread

import torch

from fleettune.cohort.execute import JobBatch, RunBatches, run_batch, run_batches_here
from fleettune.jobs.jobs import Result
from simulations.experiment.settings import EngineSettings


@contextmanager
def open_workers(workers: int, threads: int) -> Generator[RunBatches]:
    """Yields a function that runs parts, here with one worker and in a pool with several."""
    torch.set_num_threads(threads)
    if workers == 1:
        yield run_batches_here
        return
    with ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_begin_worker, initargs=(threads,)
    ) as pool:

        def run_batches(parts: Sequence[JobBatch]) -> Iterable[Sequence[Result]]:
            return pool.map(run_batch, parts)

        yield run_batches


def _begin_worker(threads: int) -> None:
    torch.set_num_threads(threads)
    follow_driver()


def follow_driver() -> None:
    """Lets this process end with the one that started it, also if that one is killed."""
    Thread(target=_end_with_driver, daemon=True).start()


def _end_with_driver() -> None:
    """Waits for the driver's end: a worker alone would wait for its next job forever."""
    driver = parent_process()
    if driver is not None:
        driver.join()
        os._exit(1)


def open_engine(engine: EngineSettings) -> AbstractContextManager[RunBatches]:
    """Opens what an engine's settings ask for: processes of our own, or Ray actors."""
    if engine.name == "ray":
        from simulations.engines.ray_workers import open_ray_workers  # noqa: PLC0415 - a second of import

        return open_ray_workers(engine.workers, engine.threads, engine.address)
    return open_workers(engine.workers, engine.threads)
