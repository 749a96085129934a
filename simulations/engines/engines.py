"""Engines: where the batched passes of a run are computed."""

from __future__ import annotations

from contextlib import AbstractContextManager

from fleettune.cohort.execute import RunParts
from simulations.engines.open import open_workers
from simulations.experiment.settings import EngineSettings


def open_engine(engine: EngineSettings) -> AbstractContextManager[RunParts]:
    """Returns a context that runs parts: in processes of our own or on Ray actors."""
    if engine.name == "ray":
        from simulations.engines.ray import open_ray_workers  # noqa: PLC0415 - a second of import

        return open_ray_workers(engine.workers, engine.threads, engine.address)
    return open_workers(engine.workers, engine.threads)
