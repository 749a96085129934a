"""Sets what Flower, torch and oneDNN read from the environment when they are imported."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
REPRODUCIBLE = {"MKL_CBWR": "AUTO"}
"""Asks the matrix library for the same result run after run on one kind of processor."""
BOUNDED = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128", "LRU_CACHE_CAPACITY": "128"}
"""oneDNN and torch keep code for every shape of product, by default of a thousand: up to 700 MB."""


def set_environment() -> None:
    """Sets the environment; call before importing anything that reads it."""
    for name, value in {**QUIET, **REPRODUCIBLE, **BOUNDED}.items():
        os.environ.setdefault(name, value)
    # of use to those who change transformers' callers, not to those who run a simulation
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def quieten_flower() -> None:
    """Keeps Flower's own log lines out of ours; call after it was imported."""
    logger = logging.getLogger("flwr")
    logger.handlers.clear()
    logger.setLevel(logging.ERROR)


def warn_once() -> Callable[[logging.LogRecord], bool]:
    """Returns a filter of a log that lets every warning through once.

    A table is opened by each part of a run that reads it, and says every time what it is.
    """
    known: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        said = record.getMessage()
        new = said not in known
        known.add(said)
        return new

    return is_new
