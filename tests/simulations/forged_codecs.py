"""Codecs of devices that send what no server should take; a run of the tests installs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleettune.adapters.factors import Array
from fleettune.deltas.codecs import FP32


@dataclass(frozen=True, slots=True, kw_only=True)
class Poisoned:
    """Single precision with a NaN in it."""

    @property
    def name(self) -> str:
        """Returns ``fp32``."""
        return "fp32"

    def pack(self, arrays: Sequence[Array]) -> dict[str, NDArray[Any]]:
        """Returns all entries, the first of them no number."""
        values = FP32.pack(arrays)["values"].copy()
        values[0] = np.nan
        return {"values": values}


@dataclass(frozen=True, slots=True, kw_only=True)
class Padded:
    """Single precision, many times over."""

    @property
    def name(self) -> str:
        """Returns ``fp32``."""
        return "fp32"

    def pack(self, arrays: Sequence[Array]) -> dict[str, NDArray[Any]]:
        """Returns more bytes than the model has."""
        return {"values": np.zeros(2_000_000, dtype=np.float32)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """A codec that the server has never heard of."""

    @property
    def name(self) -> str:
        """Returns ``zip``."""
        return "zip"

    def pack(self, arrays: Sequence[Array]) -> dict[str, NDArray[Any]]:
        """Returns what single precision is."""
        return FP32.pack(arrays)
