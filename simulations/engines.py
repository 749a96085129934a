"""Engines: where the batched passes of a run are computed."""

from __future__ import annotations

from contextlib import AbstractContextManager

from fleettune.cohort import RunParts
from simulations.settings import EngineSettings
from simulations.workers import open_workers


def open_engine(engine: EngineSettings) -> AbstractContextManager[RunParts]:
    """Returns a context that runs parts: in processes of our own or on Ray actors."""
    if engine.name == "ray":
        from simulations.engine_ray import open_ray_workers  # noqa: PLC0415 - a second of import

        return open_ray_workers(engine.workers, engine.threads, engine.address)
    return open_workers(engine.workers, engine.threads)
