"""JSON Lines files as rows: one object a line, plain or compressed, with every fault named.

Nothing is guessed. A row that can be read in two ways, such as one with a key twice, is refused
with its line, and so is a file in a chat format, with how it is converted.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow  # pyright: ignore[reportMissingTypeStubs] - it has none

ENDINGS = (".jsonl", ".ndjson")
COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
"""How the name of a compressed file ends, after one of `ENDINGS`, and what reads it."""
_MOST_LINE = 1 << 24
"""Bytes of a row; a file without a line end would be read into memory whole."""
_MOST_BLANK = 100_000
"""Blank lines that are passed over."""
_MOST_BLOWN_UP, _RATIO = 1 << 21, 100
"""Bytes from which on a compressed file may hold so many times what it takes."""
CHATS = {
    "messages": (
        'for m in row["messages"]: pair its "user" content (question) with the "assistant" content '
        "after it (response)",
        'write {"user_id": …, "order": …, "question": …, "response": …}, one line per pair',
    ),
    "conversations": (
        'for m in row["conversations"]: pair the "value" of "human" (question) with that of "gpt" '
        "after it (response)",
        'write {"user_id": …, "order": …, "question": …, "response": …}, one line per pair',
    ),
    "instruction": (
        'question = row["instruction"] + "\\n" + row.get("input", ""); response = row["output"]',
        'write {"user_id": …, "order": …, "question": question, "response": response} per row',
    ),
}
"""Chat formats by the key that tells them, and the two lines that convert them."""


def is_json_lines(path: str) -> bool:
    """Returns whether a file's name is one of a JSON Lines file."""
    suffixes = Path(path).suffixes
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes = suffixes[:-1]
    return bool(suffixes) and suffixes[-1] in ENDINGS


def read_lines(path: str) -> Iterator[tuple[int, dict[str, object]]]:
    """Yields every row with the number of its line, counted from 1; blank lines are passed over.

    Raises:
        ValueError: Naming the file and the line that is no JSON object in UTF-8, has a key twice,
            or holds half a character.
    """
    read = blank = 0
    with _open(path) as stream:
        try:
            lines = iter(partial(stream.readline, _MOST_LINE + 1), b"")
            for number, line in enumerate(lines, start=1):
                read += len(line)
                if len(line) > _MOST_LINE or read > _MOST_BLOWN_UP:
                    _check_size(path, number, line, read)
                if line.strip():
                    yield number, _row(path, number, line.removeprefix(b"\xef\xbb\xbf"))
                else:
                    blank += 1
                if blank > _MOST_BLANK:
                    raise ValueError(
                        f"{path!r} must hold at most {_MOST_BLANK} blank lines, holds more by line "
                        f"{number}: leave them out"
                    )
        except (OSError, EOFError) as error:
            raise ValueError(f"{path!r} cannot be read to its end: {error}") from error


def _check_size(path: str, number: int, line: bytes, read: int) -> None:
    """Raises ValueError if a row, or what a compressed file holds, is no text of anybody's."""
    if len(line) > _MOST_LINE:
        raise ValueError(
            f"line {number} of {path!r} must be at most {_MOST_LINE >> 20} MiB: end every row "
            "with a line end"
        )
    if read > _MOST_BLOWN_UP and Path(path).suffix in COMPRESSED:
        packed = Path(path).stat().st_size
        if read > _RATIO * packed:
            raise ValueError(
                f"{path!r} must hold at most {_RATIO} times the {packed} bytes that it takes, "
                "holds more: no text is packed that well; give the file uncompressed"
            )


def explain_keys(path: str, keys: Sequence[str]) -> str:
    """Returns how a file with these keys becomes one with the documented columns."""
    for key, (first, second) in CHATS.items():
        if key in keys:
            return f"it holds chats under {key!r}; convert it: {first}; {second}"
    return "rename or add the column"


def _open(path: str) -> BinaryIO:
    kind = COMPRESSED.get(Path(path).suffix)
    if kind is None:
        return Path(path).open("rb")
    packed = cast(Any, pyarrow).input_stream(path, compression=kind)
    return io.BufferedReader(packed, 1 << 20)


def _row(path: str, number: int, line: bytes) -> dict[str, object]:
    where = f"line {number} of {path!r}"
    try:
        row: object = json.loads(line, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, _Pairs):
        shown = line[:60].decode(errors="replace")
        hint = "; a JSON array is written out with one object a line" if shown[:1] == "[" else ""
        raise ValueError(f"{where} must be one JSON object in UTF-8, got {shown!r}{hint}")
    found: dict[str, object] = {}
    for key, value in row:
        if key in found:
            raise ValueError(f"{where} holds the key {key!r} twice: leave one of them out")
        if not _is_whole(key) or (isinstance(value, str) and not _is_whole(value)):
            shown = key if _is_whole(key) else ascii(key)
            raise ValueError(
                f"{where} holds half a character (a lone surrogate) in column {shown}: the text "
                "was cut within an emoji; correct the row or leave it out"
            )
        found[key] = value
    return found


class _Pairs(list[tuple[str, object]]):
    """An object's keys and values as they stand, so that a key which stands twice is seen."""


def _is_whole(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)
