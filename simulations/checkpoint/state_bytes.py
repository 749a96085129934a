"""Device states as bytes: Flower's records to one blob and back, without pickle.

A blob is ``FTS1``, the length of its header, the header as JSON and then every array's bytes as
Flower's `Array` holds them already (NumPy's own format, read with ``allow_pickle=False``). So
nothing is encoded a second time, what comes back is exactly what was kept, and reading a blob runs
no code that stands in it.
"""

from __future__ import annotations

import base64
import json
from typing import Any, cast

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

MAGIC = b"FTS1"
"""First bytes of a blob; the digit is the number of its schema."""

_START = len(MAGIC) + 8


def to_blob(state: RecordDict) -> bytes:
    """Returns a device's records as bytes."""
    header: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for name, record in state.items():
        entry: dict[str, Any] = {"name": name, "kind": type(record).__name__}
        if isinstance(record, ArrayRecord):
            entry["arrays"] = [_described(key, array) for key, array in record.items()]
            parts += [array.data for array in record.values()]
        else:
            entry["values"] = {key: _plain(value) for key, value in record.items()}
        header.append(entry)
    encoded = json.dumps(header).encode()
    return b"".join([MAGIC, len(encoded).to_bytes(8, "little"), encoded, *parts])


def from_blob(blob: bytes) -> RecordDict:
    """Returns the records that `to_blob` wrote.

    Raises:
        ValueError: If the bytes were not written by this schema.
    """
    if blob[: len(MAGIC)] != MAGIC:
        raise ValueError(f"a device state must begin with {MAGIC!r}, got {blob[: len(MAGIC)]!r}")
    place = _START + int.from_bytes(blob[len(MAGIC) : _START], "little")
    state = RecordDict()
    for entry in cast(list[dict[str, Any]], json.loads(blob[_START:place])):
        if entry["kind"] == ArrayRecord.__name__:
            arrays: dict[str, Array] = {}
            for item in entry["arrays"]:
                key, end = item.pop("key"), place + item.pop("size_bytes")
                item["shape"] = tuple(item["shape"])
                arrays[key] = Array(**item, data=blob[place:end])
                place = end
            state[entry["name"]] = ArrayRecord(arrays)
        else:
            values = {key: _unplain(value) for key, value in entry["values"].items()}
            kind = ConfigRecord if entry["kind"] == ConfigRecord.__name__ else MetricRecord
            state[entry["name"]] = kind(values)
    return state


def _described(key: str, array: Array) -> dict[str, Any]:
    return {
        "key": key,
        "dtype": array.dtype,
        "shape": list(array.shape),
        "stype": array.stype,
        "size_bytes": len(array.data),
    }


def _plain(value: Any) -> Any:  # noqa: ANN401 - a value of a Flower record
    """Returns a record's value as JSON can hold it; bytes become a dict, which no record holds."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, list):
        return [_plain(item) for item in cast(list[Any], value)]
    return value


def _unplain(value: Any) -> Any:  # noqa: ANN401 - what JSON held
    if isinstance(value, dict):
        return base64.b64decode(cast(dict[str, str], value)["base64"])
    if isinstance(value, list):
        return [_unplain(item) for item in cast(list[Any], value)]
    return value
