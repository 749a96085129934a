"""Finds a canary, a word that stands in no text but users', in bytes of any kind.

A canary is found as text in any encoding that leaves its letters as they are (UTF-8, JSON, HTML,
inside words), as UTF-16 and base64, as its token ids (arrays, varints of protocol buffers, numbers
written out with anything between them), and within gzip, zlib, zstd, ZIP, SQLite and Parquet,
however deep they are packed into each other.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import json
import re
import sqlite3
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from fleettune.backbone.causal_lm import POCKET_V1_FOLDER
from fleettune.data.tokens import open_encoder

CANARY = "qzvxjkwqzxvj"
"""Twelve letters that the pocket tokenizer never joins, so its ids are the same in every text."""

_DEPTH = 4
_ARRAYS = ("u1", "<u2", "<u4", "<u8", ">u2", ">u4", "<f2", "<f4", "<f8")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{16,}")
_STREAMS = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]|\x28\xb5\x2f\xfd")
_MOST_BYTES = 1 << 26


def token_ids(text: str) -> list[int]:
    """The ids of a text in the pocket model's tokenizer."""
    return open_encoder(POCKET_V1_FOLDER, "pocket", 128).ids(text)


@dataclass(frozen=True, kw_only=True)
class Needles:
    """The forms of one canary.

    Attributes:
        forms: Bytes, by the name of their form.
        written: Its ids as decimal numbers with up to 16 other characters between two.
    """

    forms: dict[str, bytes]
    written: re.Pattern[bytes]

    @classmethod
    def of(cls, canary: str = CANARY) -> Needles:
        """All forms of a canary."""
        ids = token_ids(canary)
        forms = {"text": canary.encode(), "utf-16": canary.encode("utf-16-le")}
        forms |= {f"ids as {kind}": np.array(ids).astype(kind).tobytes() for kind in _ARRAYS}
        forms |= {
            "ids as varints": b"".join(map(_varint, ids)),
            "ids as zigzag varints": b"".join(_varint(2 * one) for one in ids),
        }
        numbers = rb"[^0-9]{1,16}".join(str(one).encode() for one in ids)
        return cls(forms=forms, written=re.compile(rb"(?<![0-9])" + numbers + rb"(?![0-9])"))


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


NEEDLES = Needles.of()


def find_canary(data: bytes, depth: int = _DEPTH) -> str | None:
    """How a canary stands in some bytes, outermost container first; None if it does not."""
    for name, form in NEEDLES.forms.items():
        if (place := data.find(form)) >= 0:
            return f"{name}: {data[max(0, place - 40) : place + 60]!r}"
    if (written := NEEDLES.written.search(data)) is not None:
        return f"ids written out: {written[0]!r}"
    if depth:
        for kind, inner in _unpacked(data):
            if (found := find_canary(inner, depth - 1)) is not None:
                return f"{kind} > {found}"
    return None


def _unpacked(data: bytes) -> Iterator[tuple[str, bytes]]:
    """What is packed into some bytes, by the kind of the container."""
    for run in _BASE64.finditer(data):
        # a run may begin with letters of its surroundings
        yield from (("base64", _from_base64(run[0][skip:])) for skip in range(4))
    for head in _STREAMS.finditer(data):
        yield from _stream(data[head.start() :])
    if data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            yield from (("zip", packed.read(name)) for name in packed.namelist())
    if data[:4] == b"PAR1":
        frame = pl.read_parquet(io.BytesIO(data))
        yield from (("parquet", part) for one in frame for part in _cells(one.to_list()))
    if data[:15] == b"SQLite format 3":
        yield from (("sqlite", part) for column in _columns(data) for part in _cells(column))


def _from_base64(run: bytes) -> bytes:
    plain = run.translate(bytes.maketrans(b"-_", b"+/"))
    try:
        return base64.b64decode(plain[: len(plain) // 4 * 4])
    except binascii.Error:
        return b""


def _stream(data: bytes) -> Iterator[tuple[str, bytes]]:
    """What a compressed stream holds, as far as it goes; nothing if it is none."""
    if data[0] == 0x28:
        with contextlib.suppress(OSError):
            yield "zstd", pa.CompressedInputStream(io.BytesIO(data), "zstd").read(_MOST_BYTES)
        return
    bits = 31 if data[0] == 0x1F else 15
    with contextlib.suppress(zlib.error):
        held = zlib.decompressobj(bits).decompress(data, _MOST_BYTES)
        yield "gzip" if bits == 31 else "zlib", held


def _columns(data: bytes) -> Iterator[list[object]]:
    """All columns of all tables of a database that lies in its main file."""
    rolled_back = data[:18] + b"\x01\x01" + data[20:]  # a write-ahead log would be looked for
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.deserialize(rolled_back)
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE sql != ''")]
        for table in tables:
            rows = db.execute(f'SELECT * FROM "{table}"').fetchall()
            yield from ([*column] for column in zip(*rows, strict=True))


def _cells(values: list[object]) -> Iterator[bytes]:
    """A column's cells of bytes, and the column as JSON: ids may stand in it one below another."""
    for value in values:
        if isinstance(value, bytes | str):
            yield value if isinstance(value, bytes) else value.encode()
    yield json.dumps(values, default=str).encode()


def search_folders(folders: Iterable[Path]) -> dict[str, str]:
    """Files with a canary in their bytes or name, each with how it stands there."""
    found: dict[str, str] = {}
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            named = find_canary(str(file.relative_to(folder)).encode(), 0)
            held = find_canary(file.read_bytes()) if file.is_file() else None
            if (told := named or held) is not None:
                found[str(file)] = told
    return found
