"""Numbers as TensorBoard's event files, in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulations.trackers.tracker import Track, check_installed

EVENTS = "tensorboard"
"""Folder of a run that holds the event files: `tensorboard --logdir outputs` finds it."""


@dataclass(frozen=True, slots=True)
class _Events:
    writer: Any

    def log(self, values: Mapping[str, float], night: int) -> None:
        for name, value in values.items():
            # the older kind of event holds single precision, which is not what summary.json says
            self.writer.add_scalar(name, value, night, new_style=True, double_precision=True)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorBoard:
    """Writes event files for TensorBoard."""

    def check(self) -> None:
        """Raises ValueError if TensorBoard is not installed."""
        check_installed("tensorboard", "tensorboard")

    def open(self, folder: Path, night: int) -> Track:
        """Returns a writer; what an interrupted run wrote of nights to come does not count."""
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - optional, seconds

        return _Events(SummaryWriter(str(folder / EVENTS), purge_step=night))
