"""The search for canaries finds one in every form that it claims, and none where none is."""

from __future__ import annotations

import base64
import gzip
import io
import json
import sqlite3
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from simulations.checkpoint.store import to_blob
from tests.simulations.canary_search import CANARY, find_canary, search_folders, token_ids

TEXT = f"what should i eat with {CANARY}über tonight?"
IDS = token_ids(TEXT)
NOISE = np.random.default_rng(0).bytes(30_000)


def zipped(data: bytes) -> bytes:
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/b.txt", data)
    return into.getvalue()


def parquet(column: list[Any], compression: Literal["snappy", "zstd"] = "zstd") -> bytes:
    into = io.BytesIO()
    pl.DataFrame({"held": column}).write_parquet(into, compression=compression)
    return into.getvalue()


def database(value: object) -> bytes:
    """A value behind another one, so long that a page cuts it wherever it lies."""
    with sqlite3.connect(":memory:") as db:
        db.execute("PRAGMA page_size=512")
        db.execute("CREATE TABLE t (n INTEGER, held)")
        db.execute("INSERT INTO t VALUES (1, ?)", (value,))
        return db.serialize()


def on_the_wire(record: ArrayRecord | ConfigRecord | MetricRecord) -> bytes:
    return to_blob(RecordDict({"r": record}))


def npz(values: list[int]) -> bytes:
    into = io.BytesIO()
    np.savez_compressed(into, values=np.array(values))
    return into.getvalue()


def planted(text: str) -> dict[str, bytes]:
    """A text in everything that may hold it, by what that is."""
    plain, ids = text.encode(), token_ids(text)
    coded = base64.b64encode(plain)
    found = {
        "UTF-8": plain,
        "inside a word": f"xx{text}xx".encode(),
        "JSON": json.dumps({"a": text}).encode(),
        "JSON in JSON": json.dumps(json.dumps(json.dumps(text))).encode(),
        "Latin-1": text.encode("latin-1"),
        "UTF-16": text.encode("utf-16"),
        "base64": coded,
        "base64 within letters": b"data" + coded + b"more",
        "base64 for addresses": base64.urlsafe_b64encode(b"\xff\xfe" + plain),
        "gzip": gzip.compress(plain),
        "gzip in the middle": NOISE + gzip.compress(plain) + NOISE,
        "zlib": zlib.compress(plain, 9),
        "zstd": pa.compress(plain, codec="zstd", asbytes=True),
        "zip": zipped(plain),
        "gzip in base64 in JSON in zip": zipped(
            json.dumps([base64.b64encode(gzip.compress(plain)).decode()]).encode()
        ),
        "Parquet, text": parquet([text]),
        "Parquet, snappy": parquet([text], "snappy"),
        "Parquet, lists of text": parquet([[["a", text]]]),
        "Parquet, bytes": parquet([gzip.compress(plain)]),
        "Parquet, lists of ids": parquet([ids]),
        "Parquet, an id a row": parquet(ids),
        "SQLite, text": database("x" * 480 + text),
        "SQLite, JSON": database("x" * 470 + json.dumps({"ids": ids})),
        "SQLite, bytes": database(NOISE[:470] + np.array(ids, np.int32).tobytes()),
        "ids as JSON": json.dumps({"tokens": ids}).encode(),
        "ids as JSON with line ends": json.dumps(ids, indent=4).encode(),
        "ids as text": " ".join(map(str, ids)).encode(),
        "ids as numpy prints them": repr(np.array(ids)).encode(),
        "ids as numpy keeps them": npz(ids),
        "text in records": on_the_wire(ConfigRecord({"text": [text]})),
        "ids in records": on_the_wire(ConfigRecord({"ids": ids})),
        "ids as numbers in records": on_the_wire(MetricRecord({"ids": [*map(float, ids)]})),
        "ids as arrays in records": on_the_wire(ArrayRecord([np.array(ids)])),
    }
    kinds = ("<i2", "<i4", "<i8", ">i4", "<f4")
    return found | {f"ids as {kind}": np.array(ids).astype(kind).tobytes() for kind in kinds}


PLANTED, CLEAN = planted(TEXT), planted(TEXT.replace(CANARY, CANARY[::-1]))


@pytest.mark.parametrize("form", PLANTED)
def test_a_planted_canary_is_found(form: str) -> None:
    assert find_canary(PLANTED[form]) is not None


def test_ids_of_one_byte_are_found() -> None:
    assert find_canary(NOISE + np.array(token_ids(CANARY), np.int8).tobytes()) is not None


@pytest.mark.parametrize("form", CLEAN)
def test_another_word_of_the_same_letters_is_not_taken_for_it(form: str) -> None:
    assert find_canary(CLEAN[form]) is None


@settings(deadline=None, max_examples=50)
@given(before=st.binary(max_size=300), after=st.binary(max_size=300))
def test_what_stands_around_a_canary_hides_it_nowhere(before: bytes, after: bytes) -> None:
    assert find_canary(before + CANARY.encode() + after) is not None
    assert find_canary(before + np.array(IDS, np.int64).tobytes() + after) is not None
    assert find_canary(before + b" " + base64.b64encode(TEXT.encode()) + b" " + after) is not None


@settings(deadline=None, max_examples=50)
@given(before=st.text(max_size=40), after=st.text(max_size=40))
def test_a_canary_has_the_same_ids_in_every_text(before: str, after: str) -> None:
    own, ids = token_ids(CANARY), token_ids(before + CANARY + after)
    assert any(ids[place : place + len(own)] == own for place in range(len(ids)))


def test_folders_are_searched_to_the_bottom_and_by_name(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "rows.parquet").write_bytes(PLANTED["Parquet, text"])
    (tmp_path / "a" / f"patch_{CANARY}.bin").write_bytes(NOISE)
    (tmp_path / "clean.bin").write_bytes(NOISE)
    found = {Path(file).name for file in search_folders([tmp_path])}
    assert found == {"rows.parquet", f"patch_{CANARY}.bin"}
