"""Safetensors in memory: arrays with a header of texts, every fault told as one error."""

from __future__ import annotations

import json
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

_MOST_HEADER = 1 << 24


def read_tensors(
    data: bytes, where: str, most_header: int = _MOST_HEADER
) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """Returns the texts of the header, and the arrays by name.

    Args:
        data: The bytes.
        where: What they are, for the error.
        most_header: Bytes that a header may have.

    Raises:
        ValueError: If they are no safetensors with such a header, or an array is of a type that
            numpy has not.
    """
    size = int.from_bytes(data[:8], "little")
    try:
        if size > min(most_header, len(data) - 8):
            raise ValueError(f"header of {size} bytes")
        header: dict[str, str] = dict(json.loads(data[8 : 8 + size])["__metadata__"])
        return header, load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{where} must be safetensors, is not: {str(error)[:200]}") from error
