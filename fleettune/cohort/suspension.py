"""Straight-line device code, suspended at its compute calls by greenlets.

The hub starts every device, waits until all of them ask for something, runs all jobs together and
resumes the devices in order: no threads, no async colouring, deterministic. Torch's process state
(RNG) belongs to the hub and is saved and restored at every switch; a device that suspends inside
a ``no_grad``, ``inference_mode`` or ``autocast`` block of its own would leave that mode on for its
neighbours, so it gets an error instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import greenlet
import torch

from fleettune.cohort.execute import Execute, execute
from fleettune.jobs.jobs import Compute, Job, Result

T = TypeVar("T")


def current_compute() -> Compute:
    """Returns the processor of whoever asks: the cohort's where there is one, else its own."""
    return Compute(_suspend if greenlet.getcurrent().parent is not None else _run_alone)


def _run_alone(job: Job) -> Result:
    return execute([job])[0]


def _suspend(job: Job) -> Result:
    if (
        not torch.is_grad_enabled()
        or torch.is_inference_mode_enabled()
        or torch.is_autocast_enabled("cpu")
    ):
        raise RuntimeError(
            f"a device asked for {type(job).__name__} inside a no_grad, inference_mode or autocast "
            "block; leave the block before calling compute"
        )
    hub = greenlet.getcurrent().parent
    if hub is None:
        raise RuntimeError("a suspended device lost its hub")
    return hub.switch(job)


@dataclass(slots=True)
class _Device:
    """One suspended call and torch's RNG state as it left it."""

    thread: Any
    random: torch.Tensor


def run_cohort(calls: Sequence[Callable[[], T]], run: Execute = execute) -> list[T]:
    """Returns what every call returns; their compute jobs are run together.

    Raises:
        Exception: Whatever a call or the engine raises; the other calls are abandoned.
    """
    results: dict[int, T] = {}
    waiting: dict[int, Job] = {}
    devices: list[_Device] = []

    def resume(index: int, value: Result | None) -> None:
        device = devices[index]
        mine = torch.get_rng_state()
        torch.set_rng_state(device.random)
        try:
            answer: Any = device.thread.switch() if value is None else device.thread.switch(value)
        finally:
            device.random = torch.get_rng_state()
            torch.set_rng_state(mine)
        if device.thread.dead:
            results[index] = answer
        else:
            waiting[index] = answer

    for index, call in enumerate(calls):
        devices.append(_Device(greenlet.greenlet(call), torch.get_rng_state()))
        resume(index, None)
    while waiting:
        indices = sorted(waiting)
        jobs = [waiting.pop(index) for index in indices]
        for index, result in zip(indices, run(jobs), strict=True):
            resume(index, result)
    return [results[index] for index in range(len(calls))]
