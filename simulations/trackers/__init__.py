"""Trackers: where a run's numbers go besides its own folder, night by night and at its end.

A tracker only reads: it changes no other file and no result. A stranger may add one: a frozen
dataclass that follows `tracker.Tracker`, and a YAML file that names it.
"""

from simulations.trackers.mlflow_store import Mlflow
from simulations.trackers.tensorboard_events import TensorBoard
from simulations.trackers.tracker import NoTracker, Track, Tracker

__all__ = ["Mlflow", "NoTracker", "TensorBoard", "Track", "Tracker"]
