"""Runs batched passes on Ray actors of our own, on this machine or on a cluster.

Each actor is one process with one backbone. Parts go to free actors in order, and results are put
back in order. Which jobs share a pass was decided before, and an actor holds no device's state: the
part of one that died is run again by another. So the number of actors, their machines and their
deaths change no result.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# Ray leaves some of its own types out.

from __future__ import annotations

import logging
import os
import socket
from collections import Counter, deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import ray
import torch
from ray._private.services import canonicalize_bootstrap_address  # the only name for "auto"
from ray.exceptions import RayError, RayTaskError

import fleettune
import simulations
from fleettune.cohort.execute import JobBatch, RunBatches, run_batch
from fleettune.jobs.jobs import Result
from simulations.engines.environment import QUIET, REPRODUCIBLE
from simulations.engines.release_parcels import Parcel, find_unpacked, parcel_of, unpack_parcel

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
        folder = find_unpacked(parcel)
        if folder is None and content:
            folder = unpack_parcel(parcel, ray.get(content[0]))
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


@contextmanager
def open_ray_workers(workers: int, threads: int, address: str | None) -> Generator[RunBatches]:
    """Yields what runs parts on Ray actors that live as long as the context.

    Args:
        workers: Number of actors.
        threads: Threads of the matrix library per actor; on a cluster also the CPUs it takes.
        address: ``host:port`` of a cluster to join, ``auto`` for the one of this host, None for
            a Ray of this process. A cluster is left as it was found.

    Raises:
        ValueError: If no cluster answers at the address.
    """
    torch.set_num_threads(threads)
    if address is None:
        _start()
    else:
        _join(address)
    actor_type: Any = ray.remote(PassWorker)
    options = actor_type.options(
        num_cpus=0 if address is None else threads,
        scheduling_strategy="SPREAD",
        runtime_env={"env_vars": _environment(shared=address is None)},
    )
    pool = RayWorkers(lambda: options.remote(threads))
    try:
        for _ in range(workers):
            pool.add()
        yield pool.run
    finally:
        pool.close()
        if address is not None:
            ray.shutdown()  # leaves the cluster; does not stop it


def _room(package: ModuleType) -> Path:
    """Returns the folder of a package of ours."""
    return Path(package.__path__[0])


def _environment(*, shared: bool) -> dict[str, str]:
    """Returns the workers' environment: the driver's, as far as it decides results or noise.

    Args:
        shared: True if the workers see this machine's folders and take their code from there.
    """
    named = {name: os.environ[name] for name in (*QUIET, *REPRODUCIBLE) if name in os.environ}
    if shared:
        parts = (str(_room(simulations).parent), os.environ.get("PYTHONPATH", ""))
        named["PYTHONPATH"] = os.pathsep.join(filter(None, parts))
    return named


def _start() -> None:
    """Starts this process's Ray unless it has one; it ends with the process.

    Every stop of a Ray leaves a dead socket and a zombie behind (seen with 2.55), and every start
    takes seconds, so the runs of a sweep share one.
    """
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            address="local",  # without it Ray joins any cluster of this host, in silence
            num_cpus=0,  # our actors take none; more would start idle processes
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )


def _join(address: str) -> None:
    if ray.is_initialized():
        raise ValueError(
            f"engine.address {address!r} can be joined only by a process without a Ray of its "
            "own; start this run in another process"
        )
    try:
        ray.init(
            address=_reach(address),
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"py_modules": [str(_room(fleettune)), str(_room(simulations))]},
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"engine.address must be 'auto' or host:port of a running Ray cluster, got "
            f"{address!r}: {error}; start one with `ray start --head`, or leave engine.address "
            "out to start a Ray of this machine's own"
        ) from error


def _reach(address: str) -> str:
    """Returns the host:port that an address stands for; fails at once, Ray waits for minutes."""
    found = canonicalize_bootstrap_address(address)
    host, _, port = (found or address).rpartition(":")
    socket.create_connection((host, int(port)), timeout=5.0).close()
    return f"{host}:{port}"
