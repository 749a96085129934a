"""Numbers as metrics of MLflow, in a file of the run's folder or where the user's MLflow is."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from simulations.trackers.tracker import Track, check_installed

MLFLOW_FILE = "mlflow.db"
"""MLflow's own database in a run's folder, where no other place is given."""
_FOLDER = "fleettune.folder"
"""Tag by which a resumed run finds its own."""


@dataclass(frozen=True, slots=True)
class _Metrics:
    client: Any
    run: str

    def log(self, values: Mapping[str, float], night: int) -> None:
        for name, value in values.items():
            self.client.log_metric(self.run, name, value, step=night)

    def close(self) -> None:
        self.client.set_terminated(self.run)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlflow:
    """Logs metrics to MLflow.

    Attributes:
        uri: MLflow's tracking URI; None: `MLFLOW_FILE` in the run's folder.
        experiment: Name of the experiment that runs belong to.
    """

    uri: str | None
    experiment: str

    def check(self) -> None:
        """Raises ValueError if MLflow, or what its own file needs, is not installed."""
        check_installed("mlflow", "mlflow")
        if self.uri is None:
            for module in ("sqlalchemy", "alembic"):
                check_installed("mlflow", module)

    def open(self, folder: Path, night: int) -> Track:
        """Returns the run of this folder: a new one, or that of an interrupted run."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient  # noqa: PLC0415 - optional, seconds

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        place = str(folder.resolve())
        uri = self.uri or f"sqlite:///{place}/{MLFLOW_FILE}"
        client = cast(Any, MlflowClient(tracking_uri=uri))
        known = client.get_experiment_by_name(self.experiment)
        number = known.experiment_id if known else client.create_experiment(self.experiment)
        tag = place.replace("'", "''")
        own = f"tags.`{_FOLDER}` = '{tag}'"
        found: list[Any] = list(client.search_runs([number], own)) if night else []
        if found:
            return _Metrics(client, found[0].info.run_id)
        made = client.create_run(number, run_name=folder.name, tags={_FOLDER: place})
        return _Metrics(client, made.info.run_id)
