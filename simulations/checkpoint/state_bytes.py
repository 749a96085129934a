"""Device states as bytes: Flower's records in the protocol buffers that Flower itself sends.

They hold numbers, text and bytes only, so reading a blob runs no code that stands in it.
"""

from __future__ import annotations

from flwr.app import RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecords
from google.protobuf.message import DecodeError


def to_blob(state: RecordDict) -> bytes:
    """Returns a device's records as bytes."""
    return recorddict_to_proto(state).SerializeToString()


def from_blob(blob: bytes) -> RecordDict:
    """Returns the records that `to_blob` wrote.

    Raises:
        ValueError: If the bytes are no records.
    """
    try:
        return recorddict_from_proto(ProtoRecords.FromString(blob))
    except DecodeError as error:
        raise ValueError(f"a device state must hold Flower's records: {error}") from error
