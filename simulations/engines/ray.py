"""Ray: batched passes on actors of our own, on this machine or on a cluster.

Each actor is one process with one backbone. Which jobs share a pass was decided before, so the
number of actors, their machines and their deaths change no result.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# Ray leaves some of its own types out.

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import ray
import torch
from ray._private.services import canonicalize_bootstrap_address  # the only name for "auto"

import fleettune
import simulations
from fleettune.cohort.execute import RunBatches
from simulations.engines.environment import QUIET, REPRODUCIBLE
from simulations.engines.ray_workers import PassWorker, RayWorkers


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
