"""Straight-line device code, suspended at its compute calls by greenlets.

The hub starts every device, waits until all of them ask for something, runs all jobs together and
resumes the devices in order: no threads, no async colouring, deterministic. Several cohorts may be
under way, so that devices of one go on while jobs of another run in other processes. Torch's
process state (RNG) belongs to the hub and is saved and restored at every switch; a device that
suspends inside a ``no_grad``, ``inference_mode`` or ``autocast`` block of its own would leave that
mode on for its neighbours, so it gets an error instead.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, Generic, TypeAlias, TypeVar

import greenlet
import torch

from fleettune.cohort.execute import Execute, execute
from fleettune.jobs.jobs import Compute, Job, Result

T = TypeVar("T")
Submit: TypeAlias = Callable[[Sequence[Job]], Callable[[], Sequence[Result]]]
"""Begins jobs and returns what waits for their results."""
_Cohort: TypeAlias = Generator[list[Job], Sequence[Result], list[T]]


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
    return next(run_cohorts([calls], lambda jobs: partial(run, jobs)))


def run_cohorts(
    cohorts: Iterable[Sequence[Callable[[], T]]], submit: Submit, together: int = 1
) -> Iterator[list[T]]:
    """Yields what the calls of every cohort return, in the order of the cohorts.

    While the jobs of one cohort run elsewhere, the devices of another one go on here. Only jobs of
    one cohort are run together, so `together` changes no result.

    Args:
        cohorts: The calls of every cohort; each cohort is asked for when it begins.
        submit: Begins jobs and returns what waits for their results.
        together: Most cohorts that have begun and are not yielded yet.

    Raises:
        Exception: Whatever a call or the engine raises; the other calls are abandoned.
    """
    upcoming = enumerate(map(_suspend_cohort, cohorts))
    turns: _Turns[T] = _Turns(submit=submit)
    for due in count():
        while due not in turns.finished:
            if turns.under_way < together and (begun := next(upcoming, None)):
                turns.go_on(*begun, None)
            elif turns.waiting:
                turns.take()
            else:
                return
        yield turns.finished.pop(due)


@dataclass(slots=True, kw_only=True)
class _Turns(Generic[T]):
    """Cohorts that take turns, so that one's jobs run while the devices of the others go on."""

    submit: Submit
    waiting: dict[int, tuple[_Cohort[T], Callable[[], Sequence[Result]]]] = field(
        default_factory=dict[int, tuple[Any, Any]]
    )
    finished: dict[int, list[T]] = field(default_factory=dict[int, list[T]])

    @property
    def under_way(self) -> int:
        """Number of cohorts that have begun and are not taken out."""
        return len(self.waiting) + len(self.finished)

    def take(self) -> None:
        """Waits for the jobs of the cohort that has waited longest, and lets it go on."""
        number = next(iter(self.waiting))
        cohort, collect = self.waiting.pop(number)
        self.go_on(number, cohort, collect())

    def go_on(self, number: int, cohort: _Cohort[T], results: Sequence[Result] | None) -> None:
        """Lets a cohort go on to its next jobs, or to its end."""
        try:
            jobs = next(cohort) if results is None else cohort.send(results)
        except StopIteration as end:
            self.finished[number] = end.value
        else:
            self.waiting[number] = cohort, self.submit(jobs)


def _suspend_cohort(calls: Sequence[Callable[[], T]]) -> _Cohort[T]:
    """Yields the jobs that all devices wait for and is sent their results, to the last return."""
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
        found = yield [waiting.pop(index) for index in indices]
        for index, result in zip(indices, found, strict=True):
            resume(index, result)
    return [results[index] for index in range(len(calls))]
