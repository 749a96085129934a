"""Codecs write the numbers of a delta; `fleettune.deltas.frames` adds names, shapes and checks.

A codec packs arrays of single precision into a few flat ones; reading them back needs the codec's
name and the arrays' shapes only. All of them round to nearest, so equal deltas give equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fleettune.adapters.factors import Array
from fleettune.deltas.rejections import RejectedError, Rejection

Parts = Mapping[str, NDArray[Any]]
Shape = tuple[int, ...]

LEVELS = 127
"""Largest magnitude of an int8 that has its opposite."""


@runtime_checkable
class Codec(Protocol):
    """A way to write arrays; frames know it by its name."""

    name: ClassVar[str]

    def pack(self, arrays: Sequence[Array]) -> dict[str, NDArray[Any]]:
        """Returns the arrays as a few flat ones, under short names."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fp32:
    """Single precision, as it was trained."""

    name: ClassVar[str] = "fp32"

    def pack(self, arrays: Sequence[Array]) -> dict[str, NDArray[Any]]:
        """Returns all entries, one array behind the other."""
        return {"values": _flat(arrays)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fp16:
    """Half precision."""

    name: ClassVar[str] = "fp16"

    def pack(self, arrays: Sequence[Array]) -> dict[str, NDArray[Any]]:
        """Returns all entries in half precision.

        Raises:
            ValueError: If an entry is too large for it.
        """
        return {"values": _half(_flat(arrays))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8:
    """Eight bits per entry and a scale per channel.

    A channel is one component of a pair of factors: a row of A, a column of B. Its scale is its
    largest magnitude over 127. A vector is one channel.
    """

    name: ClassVar[str] = "int8"

    def pack(self, arrays: Sequence[Array]) -> dict[str, NDArray[Any]]:
        """Returns the rounded entries, channel by channel, and the scales in single precision."""
        values: list[NDArray[np.int8]] = []
        scales: list[NDArray[np.float32]] = []
        for array in arrays:
            channels = _channels(array)
            scale = np.abs(channels).max(axis=1) / np.float32(LEVELS)
            safe = np.where(scale > 0, scale, np.float32(1))
            rounded = np.rint(channels / safe[:, None]).clip(-LEVELS, LEVELS)
            values.append(rounded.astype(np.int8).ravel())
            scales.append(scale.astype(np.float32))
        return {"scales": np.concatenate(scales), "values": np.concatenate(values)}


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK:
    """The entries of largest magnitude in half precision, and where they stand.

    The sender keeps what is left out (`fleettune.deltas.error_feedback`). Places take a bit per
    entry or four bytes per kept entry, whichever is smaller.

    Attributes:
        fraction: Share of the entries that is kept, over 0 and at most 1.
        feedback: Whether the device keeps what it left out and adds it to its next delta.
    """

    name: ClassVar[str] = "top_k"
    fraction: float
    feedback: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"codec.fraction must be > 0 and <= 1, got {self.fraction}")

    def pack(self, arrays: Sequence[Array]) -> dict[str, NDArray[Any]]:
        """Returns the kept entries in the order of their places, and these."""
        flat = _flat(arrays)
        count = max(1, round(self.fraction * flat.size))
        # stable: of equal magnitudes the first are kept, on every machine
        places = np.sort(np.argsort(-np.abs(flat), kind="stable")[:count])
        return {**_written(places, flat.size), "values": _half(flat[places])}


FP32 = Fp32()


def unpack(name: str, parts: Parts, shapes: Sequence[Shape]) -> list[Array]:
    """Returns the arrays that a codec packed.

    Args:
        name: The codec's.
        parts: What it made.
        shapes: Of the arrays, in their order.

    Raises:
        RejectedError: If the codec is unknown, or its parts do not fill these shapes exactly.
    """
    if name not in _UNPACK:
        raise RejectedError(Rejection.CODEC, f"codec must be one of {sorted(_UNPACK)}, got {name}")
    try:
        flat = _UNPACK[name](parts, shapes)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise RejectedError(
            Rejection.SHAPE, f"parts of {name} do not fill the shapes: {error}"
        ) from error
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    return [
        np.ascontiguousarray(part.reshape(shape))
        for part, shape in zip(np.split(flat, ends), shapes, strict=True)
    ]


def _flat(arrays: Sequence[Array]) -> Array:
    return np.concatenate([array.ravel() for array in arrays])


def _half(values: Array) -> NDArray[np.float16]:
    largest = float(np.abs(values).max(initial=0))
    if not largest <= float(np.finfo(np.float16).max):
        raise ValueError(f"entries of a delta must be <= 65504 for half precision, got {largest}")
    return values.astype(np.float16)


def _channels(array: Array) -> Array:
    """Returns an array as ``(channels, entries)``; components are the shorter side of a factor."""
    if array.ndim == 1:
        return array[None]
    return array if array.shape[0] <= array.shape[1] else array.T


def _written(places: NDArray[np.intp], size: int) -> dict[str, NDArray[Any]]:
    if 4 * places.size < -(-size // 8):
        return {"places": places.astype(np.uint32)}
    mask = np.zeros(size, dtype=bool)
    mask[places] = True
    return {"mask": np.packbits(mask)}


def _floats(parts: Parts, shapes: Sequence[Shape]) -> Array:
    return _sized(parts["values"], sum(map(math.prod, shapes))).astype(np.float32)


def _from_int8(parts: Parts, shapes: Sequence[Shape]) -> Array:
    values = _sized(parts["values"], sum(map(math.prod, shapes))).astype(np.float32)
    _sized(parts["scales"], sum(1 if len(shape) == 1 else min(shape) for shape in shapes))
    found: list[Array] = []
    entry = channel = 0
    for shape in shapes:
        turned = len(shape) == 2 and shape[0] > shape[1]
        rows = 1 if len(shape) == 1 else min(shape)
        size = math.prod(shape)
        scale = parts["scales"][channel : channel + rows].astype(np.float32)
        block = values[entry : entry + size].reshape(rows, -1) * scale[:, None]
        found.append((block.T if turned else block).ravel())
        entry, channel = entry + size, channel + rows
    return np.concatenate(found)


def _from_top_k(parts: Parts, shapes: Sequence[Shape]) -> Array:
    size = sum(map(math.prod, shapes))
    if "mask" in parts:
        mask = _sized(parts["mask"], -(-size // 8))
        places = np.flatnonzero(np.unpackbits(mask, count=size))
    else:
        places = parts["places"].astype(np.int64)
        if places.size and (np.diff(places) <= 0).any():
            raise ValueError("places must ascend")
    flat = np.zeros(size, dtype=np.float32)
    flat[places] = _sized(parts["values"], places.size)
    return flat


def _sized(values: NDArray[Any], size: int) -> NDArray[Any]:
    if values.shape != (size,):
        raise ValueError(f"expected {size} entries, got {values.shape}")
    return values


_UNPACK: Mapping[str, Callable[[Parts, Sequence[Shape]], Array]] = {
    "fp32": _floats,
    "fp16": _floats,
    "int8": _from_int8,
    "top_k": _from_top_k,
}
CODECS: tuple[type, ...] = (Fp32, Fp16, Int8, TopK)
"""All codecs, as a policy may name them."""
