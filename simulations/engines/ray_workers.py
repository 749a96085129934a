"""Actors that run parts, and the order in which they are given them.

Parts go to free actors in order and results are put back in order. An actor holds no device's
state, so the part of one that died is run again by another.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# Ray leaves some of its own types out.

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError

import fleettune
from fleettune.cohort.execute import JobBatch, run_batch
from fleettune.jobs.jobs import Result
from simulations.engines.release_parcels import Parcel, find, parcel_of, unpack

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often a part is tried, or a worker started, before the run gives up."""
START_LIMIT_S = 120.0
"""Longest wait for the first worker of a cluster."""


class PassWorker:
    """An actor: one process, one backbone, a fixed number of threads."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def whereabouts(self) -> str:
        """Returns node, process and code of this worker, for the log."""
        node = ray.get_runtime_context().get_node_id()
        return f"node {node} process {os.getpid()} code {fleettune.__path__[0]}"

    def run(
        self, part: JobBatch, parcel: Parcel, content: Sequence[Any] = ()
    ) -> Sequence[Result] | None:
        """Returns the results of a part; None if its release has to be sent first.

        Args:
            part: What to run.
            parcel: Its release.
            content: Reference to the parcel's content, in a list so that Ray does not fetch it
                where it is not needed.
        """
        folder = find(parcel)
        if folder is None and content:
            folder = unpack(parcel, ray.get(content[0]))
        if folder is None:
            return None
        here = str(folder)
        jobs = tuple(replace(job, release=here) for job in part.jobs)
        return run_batch(replace(part, release=here, jobs=jobs))


@dataclass(slots=True)
class RayWorkers:
    """The actors of a run.

    Attributes:
        start: Starts one more actor.
        arriving: Actors that have not answered yet, by the reference to their first answer.
        free: Actors that wait for a part.
        failed_starts: Actors that died before their first answer.
        parcels: What every release's folder holds, by release.
        sent: Digest and content of the release that was sent last.
    """

    start: Any
    arriving: dict[Any, Any] = field(default_factory=dict[Any, Any])
    free: list[Any] = field(default_factory=list[Any])
    failed_starts: int = 0
    parcels: dict[str, Parcel] = field(default_factory=dict[str, Parcel])
    sent: tuple[str, Any] = ("", None)

    def add(self) -> None:
        """Starts one more actor; it is given parts once it has answered."""
        actor = self.start()
        self.arriving[actor.whereabouts.remote()] = actor

    def run(self, parts: Sequence[JobBatch]) -> list[Sequence[Result]]:
        """Returns the results of all parts, in their order."""
        waiting = deque(range(len(parts)))
        found: dict[int, Sequence[Result]] = {}
        running: dict[Any, tuple[Any, int]] = {}
        deaths: Counter[int] = Counter()
        try:
            while len(found) < len(parts):
                while waiting and self.free:
                    actor, index = self.free.pop(0), waiting.popleft()
                    running[self._ask(actor, parts[index])] = (actor, index)
                ref = self._next(running)
                if ref in self.arriving:
                    self._welcome(ref)
                    continue
                actor, index = running.pop(ref)
                try:
                    answer = _answer(ref)
                except RayError as error:
                    deaths[index] += 1
                    self._mourn(actor, error, deaths[index])
                    waiting.appendleft(index)
                    continue
                if answer is None:
                    running[self._ask(actor, parts[index], send=True)] = (actor, index)
                else:
                    found[index] = answer
                    self.free.append(actor)
        finally:
            self.free += [actor for actor, _ in running.values()]
        return [found[index] for index in range(len(parts))]

    def close(self) -> None:
        """Ends all actors."""
        for actor in (*self.free, *self.arriving.values()):
            ray.kill(actor)

    def _ask(self, actor: Any, part: JobBatch, *, send: bool = False) -> Any:  # noqa: ANN401 - Ray
        if part.release not in self.parcels:
            self.parcels[part.release] = parcel_of(part.release)
        parcel = self.parcels[part.release]
        if not send:
            return actor.run.remote(part, parcel)
        if self.sent[0] != parcel.digest:
            log.info("sending release %s to other machines", part.release)
            self.sent = (parcel.digest, ray.put(parcel.content()))
        return actor.run.remote(part, parcel, [self.sent[1]])

    def _next(self, running: Mapping[Any, object]) -> Any:  # noqa: ANN401 - Ray
        """Returns the first reference that has an answer."""
        limit_s = None if running else START_LIMIT_S
        ready, _ = ray.wait([*running, *self.arriving], num_returns=1, timeout=limit_s)
        if not ready:
            raise RuntimeError(
                f"no Ray worker started within {START_LIMIT_S:g} s; the cluster offers "
                f"{ray.cluster_resources().get('CPU', 0):g} CPUs in all and has "
                f"{ray.available_resources().get('CPU', 0):g} free; lower engine.workers or "
                "engine.threads, or add nodes"
            )
        return ready[0]

    def _welcome(self, ref: Any) -> None:  # noqa: ANN401 - Ray
        actor = self.arriving.pop(ref)
        try:
            log.info("Ray worker on %s", _answer(ref))
            self.free.append(actor)
        except RayError as error:
            self.failed_starts += 1
            self._mourn(actor, error, self.failed_starts)

    def _mourn(self, actor: Any, error: RayError, attempt: int) -> None:  # noqa: ANN401 - Ray
        """Replaces an actor that died.

        Raises:
            RuntimeError: If this was the last attempt; says what Ray says, which names a module
                or a package that a machine lacks.
        """
        ray.kill(actor)
        if attempt >= ATTEMPTS:
            raise RuntimeError(
                f"a Ray worker died {attempt} times at the same work: {error}"
            ) from error
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        log.warning("a Ray worker died and is replaced, its part is run again: %s", reason)
        self.add()


def _answer(ref: Any) -> Any:  # noqa: ANN401 - Ray
    """Returns what a call returned, or raises what it raised."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        raise error.cause from error
