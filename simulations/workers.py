"""Worker processes that run batched passes: two with one thread each beat one with two threads.

Which jobs share a pass is decided before, from the jobs alone, and every process uses the same
number of threads, so the number of workers never changes a result.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import torch

from fleettune.cohort import Part, RunParts, run_here, run_part
from fleettune.compute import Result


@contextmanager
def open_workers(workers: int, threads: int) -> Generator[RunParts]:
    """Yields what runs parts: this process where there is one worker, else a pool of others."""
    torch.set_num_threads(threads)
    if workers == 1:
        yield run_here
        return
    with ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(threads,)
    ) as pool:

        def run_parts(parts: Sequence[Part]) -> Iterable[Sequence[Result]]:
            return pool.map(run_part, parts)

        yield run_parts
