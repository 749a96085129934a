"""Rows: the documented schema of a file of exchanges, and its reader.

One row is one exchange. The columns that are read, all others being ignored:

- ``user_id`` (text or whole number, never empty): whose exchange it is.
- ``order`` (number) or ``timestamp`` (date, number, or ISO 8601 text; no zone reads as UTC): its
  place in the user's stream. With both, ``order`` counts; equal places keep the file's order.
- ``question`` (text, may be empty) and ``response`` (text, never empty).
- ``domain`` (text; optional): what it is about.
- label columns (finite numbers; optional): what the response stands for.

Parquet, or JSON Lines: one object per line, blank lines skipped. Nothing is ever unpickled.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import polars as pl

from fleettune.data.json_lines import ENDINGS, explain_keys, is_json_lines, read_lines
from fleettune.data.parquet_files import read_parquet, read_parquet_schema

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "user_id": ("text", "whole number"),
    "order": ("whole number", "number"),
    "timestamp": ("date", "whole number", "number", "text"),
    "question": ("text",),
    "response": ("text",),
    "domain": ("text",),
}
"""The documented columns and what each may hold; any other numeric column may be a label."""

_LABEL = ("whole number", "number")
SUFFIXES = {"parquet": (".parquet", ".pq"), "jsonl": ENDINGS}
"""Formats and how the names of such files end; JSON Lines may be compressed (.gz, .zst)."""
_PLAIN = {str, int, float, bool, type(None)}
"""What a value of JSON may be in a column that is read."""
_EPOCH, _RATIO = 1e8, 100.0
"""A clock that begins after 1973 in seconds, and may not hold other units beside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFile:
    """A file of exchanges.

    Attributes:
        path: Where it lies.
        format: ``parquet`` or ``jsonl``.
        labels: Columns that must be there and hold finite numbers, beside the documented ones.
        anonymous: True if it does not matter whose exchanges they are: ``user_id``, ``order`` and
            ``timestamp`` may be missing and are not checked.
        finds_labels: True if numeric columns beside the documented ones may become labels: then a
            column of numbers may hold nothing else, for that would change what is measured.
    """

    path: str
    format: str
    labels: tuple[str, ...] = ()
    anonymous: bool = False
    finds_labels: bool = False

    def check(self) -> None:
        """Checks file and columns by the Parquet footer or the first line, not by the rows.

        Raises:
            ValueError: Saying which file or column breaks which rule, and what to do.
        """
        if self.format not in SUFFIXES:
            raise ValueError(f"format must be one of {list(SUFFIXES)}, got {self.format!r}")
        if not _ends_well(self.path, self.format):
            allowed = " or ".join(SUFFIXES[self.format])
            raise ValueError(
                f"path must end in {allowed} for format {self.format}, got {self.path!r}"
            )
        if not Path(self.path).is_file():
            raise ValueError(f"path must name a file that exists, got {self.path!r}: correct it")
        if self.format == "jsonl":
            first = list(itertools.islice(read_lines(self.path), 1))
            _check_keys(self, first)
            schema = _jsonl(self, first).schema
        else:
            schema = read_parquet_schema(self.path, COLUMNS)
        _check_columns(self, schema)

    def read(self) -> pl.DataFrame:
        """Returns the checked rows in the file's order.

        Columns: ``user_id``, ``question``, ``response``, ``domain`` as text, ``order`` as
        something to sort by, and every other numeric column as floats. Of an anonymous file
        ``question``, ``response`` and ``domain`` only.

        Raises:
            ValueError: As `check`, or naming the first row that breaks the schema.
        """
        frame = _frame(self)
        if self.anonymous:
            return _anonymous(self, frame)
        numeric = dict.fromkeys([*_others(frame.schema), *self.labels])
        rows = pl.DataFrame(
            [
                *(_text(frame, name) for name in ("user_id", "question", "response", "domain")),
                _places(self, frame),
                *(frame[name].cast(pl.Float64) for name in numeric),
            ]
        )
        _check_rows(self, rows)
        return rows

    def texts(self) -> pl.DataFrame:
        """Returns ``question``, ``response`` and, where it is there, ``domain`` as text.

        Nothing else is read and no row is checked; what is missing is an empty text.

        Raises:
            ValueError: As `check`, or if there is no row.
        """
        frame = _frame(self)
        wanted = ("question", "response", *({"domain"} & set(frame.columns)))
        return pl.DataFrame([_text(frame, name) for name in wanted])


def _frame(file: RowFile) -> pl.DataFrame:
    file.check()
    is_lines = file.format == "jsonl"
    frame = _jsonl(file, list(read_lines(file.path))) if is_lines else _parquet(file)
    _check_columns(file, frame.schema)
    if frame.height == 0:
        raise ValueError(f"{file.path!r} must hold at least one exchange, got no row")
    return frame


def _ends_well(path: str, format_: str) -> bool:
    if format_ == "jsonl":
        return is_json_lines(path)
    return Path(path).suffix in SUFFIXES[format_]


def _check_keys(file: RowFile, first: Sequence[tuple[int, Mapping[str, object]]]) -> None:
    """Checks the keys of the first row, so that the message lists all that the file has."""
    if not first:
        raise ValueError(f"{file.path!r} must hold at least one exchange, got no row")
    keys = list(first[0][1])
    whose = () if file.anonymous else ("user_id",)
    for name in (*whose, "question", "response"):
        if name not in keys:
            raise ValueError(
                f"{file.path!r} must have a column {name}, got {', '.join(keys) or 'none'}: "
                f"{explain_keys(file.path, keys)}"
            )


def _check_columns(file: RowFile, schema: Mapping[str, pl.DataType]) -> None:
    clock = "order" if "order" in schema else "timestamp"
    whose = () if file.anonymous else ("user_id", clock)
    needed = (*whose, "question", "response", *file.labels)
    for name in needed:
        if name not in schema:
            wanted = "order or timestamp" if name == clock else name
            raise ValueError(
                f"{file.path!r} must have a column {wanted}, got {', '.join(schema) or 'none'}: "
                f"{explain_keys(file.path, list(schema))}"
            )
    for name in (*needed, *({"domain"} & schema.keys())):
        kind, allowed = _kind(schema[name]), COLUMNS.get(name, _LABEL)
        if kind not in (*allowed, "nothing"):
            raise ValueError(
                f"column {name} of {file.path!r} must hold {' or '.join(allowed)}, got {kind}: "
                "convert the column"
            )


def _kind(dtype: pl.DataType) -> str:
    if dtype.is_integer():
        return "whole number"
    if dtype.is_numeric():
        return "number"
    if dtype.base_type() in (pl.String, pl.Categorical, pl.Enum):
        return "text"
    if dtype.base_type() in (pl.Date, pl.Datetime):
        return "date"
    return "nothing" if dtype == pl.Null else str(dtype)


def _others(schema: Mapping[str, pl.DataType]) -> list[str]:
    """Returns the numeric columns beside the documented ones, in the file's order."""
    return [name for name, dtype in schema.items() if name not in COLUMNS and dtype.is_numeric()]


def _parquet(file: RowFile) -> pl.DataFrame:
    """Returns the columns that are read."""
    schema = read_parquet_schema(file.path, COLUMNS)
    wanted = [name for name in schema if name in COLUMNS or name in _others(schema)]
    return read_parquet(file.path, COLUMNS, wanted)


def _jsonl(file: RowFile, rows: Sequence[tuple[int, Mapping[str, object]]]) -> pl.DataFrame:
    """Returns the documented and named columns, and all others that hold only numbers."""
    columns: list[pl.Series] = []
    for name in dict.fromkeys(itertools.chain.from_iterable(row for _, row in rows)):
        values = [row.get(name) for _, row in rows]
        kinds = {type(value) for value in values}
        if name not in (*COLUMNS, *file.labels) and not kinds <= {int, float}:
            _check_gaps(file, name, rows)
            continue
        if not kinds <= _PLAIN:
            odd = next(number for number, row in rows if type(row.get(name)) not in _PLAIN)
            raise ValueError(
                f"column {name} of {file.path!r} must hold texts or numbers, line {odd} holds a "
                "list or an object: convert the column"
            )
        try:
            if kinds == {int, float}:
                values = [float(cast(float, value)) for value in values]
            columns.append(pl.Series(name, values, strict=True))
        except (TypeError, OverflowError) as error:
            raise ValueError(
                f"column {name} of {file.path!r} must hold one type of value in all lines, line "
                f"{_odd_line(name, rows)} does not: {error}"
            ) from error
    return pl.DataFrame(columns)


def _check_gaps(file: RowFile, name: str, rows: Sequence[tuple[int, Mapping[str, object]]]) -> None:
    """Checks that a column of numbers holds nothing else where labels are looked for."""
    numbers = [type(row.get(name)) in (int, float) for _, row in rows]
    if file.finds_labels and sum(numbers) > len(numbers) / 2:
        number, row = rows[numbers.index(False)]
        raise ValueError(
            f"column {name} of {file.path!r} holds numbers, but line {number} holds "
            f"{str(row.get(name))[:40]!r}: correct it, or say what the labels are "
            "(data.labels=[] for none)"
        )


def _odd_line(name: str, rows: Sequence[tuple[int, Mapping[str, object]]]) -> int:
    """Returns the first line whose value is of another type than the first one that is given."""
    given = [(number, type(row[name])) for number, row in rows if row.get(name) is not None]
    return next((number for number, kind in given if kind is not given[0][1]), given[0][0])


def _anonymous(file: RowFile, frame: pl.DataFrame) -> pl.DataFrame:
    rows = pl.DataFrame([_text(frame, name) for name in ("question", "response", "domain")])
    _demand(file, _written(rows["response"]), "response must not be empty")
    return rows


def _text(frame: pl.DataFrame, name: str) -> pl.Series:
    if name not in frame.columns:
        return pl.Series(name, [""] * frame.height)
    return frame[name].cast(pl.String).fill_null("")


def _places(file: RowFile, frame: pl.DataFrame) -> pl.Series:
    """Returns where each row stands in its user's stream; null where that cannot be read.

    Raises:
        ValueError: If order and timestamp disagree, or a clock mixes time zones or units.
    """
    clocks = [_clock(file, frame, name) for name in ("order", "timestamp") if name in frame.columns]
    if len(clocks) > 1:
        _check_agreement(file, frame["user_id"], *clocks)
    return clocks[0].alias("order")


def _clock(file: RowFile, frame: pl.DataFrame, name: str) -> pl.Series:
    places = frame[name]
    if _kind(places.dtype) == "text":
        instants = [_instant(text) for text in places.cast(pl.String)]
        aware = [zone for _, zone in instants]
        if True in aware and False in aware:
            raise ValueError(
                f"column {name} of {file.path!r} must give a time zone in all rows or in none, but "
                f"rows {aware.index(True) + 1} and {aware.index(False) + 1} (counted from 1) differ"
            )
        return pl.Series(name, [instant for instant, _ in instants], dtype=pl.Float64)
    if places.dtype.is_float():
        places = places.fill_nan(None)
    if places.dtype.is_numeric() and places.null_count() < places.len():
        low, high = cast(float, places.min()), cast(float, places.max())
        if low > _EPOCH and high > _RATIO * low:
            rows = [cast(int, places.arg_min()) + 1, cast(int, places.arg_max()) + 1]
            raise ValueError(
                f"column {name} of {file.path!r} must be in one unit, but rows {rows[0]} and "
                f"{rows[1]} (counted from 1) hold {low:g} and {high:g}, as seconds beside "
                "milliseconds do: convert them"
            )
    return places


def _check_agreement(
    file: RowFile, users: pl.Series, order: pl.Series, timestamp: pl.Series
) -> None:
    """Checks that two clocks put each user's rows into one order."""
    rows = pl.DataFrame([users.alias("user"), order.alias("a"), timestamp.alias("b")])
    rows = rows.with_row_index("row", offset=1).sort("user", "a", maintain_order=True)
    back = (pl.col("b") < pl.col("b").shift(1)) & (pl.col("user") == pl.col("user").shift(1))
    against = rows.filter(back.fill_null(value=False))
    if against.height:
        raise ValueError(
            f"order and timestamp of {file.path!r} must put a user's rows into one order, but do "
            f"not at row {against['row'][0]} (counted from 1): leave one of the columns out"
        )


def _instant(text: str | None) -> tuple[float | None, bool | None]:
    """Returns an instant in seconds, UTC where no zone is given, and whether one is."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None, None
    zoned = moment.tzinfo is not None
    return (moment if zoned else moment.replace(tzinfo=UTC)).timestamp(), zoned


def _check_users(file: RowFile, users: pl.Series) -> None:
    """Checks that no two users differ in blanks or in how a letter is composed only."""
    seen: dict[str, str] = {}
    for user in users.unique(maintain_order=True):
        plain = unicodedata.normalize("NFC", user).strip()
        other = seen.setdefault(plain, user)
        if other != user:
            raise ValueError(
                f"users {other!r} and {user!r} of {file.path!r} differ only in blanks or in how a "
                "letter is written: give one person one user_id"
            )


def _check_rows(file: RowFile, rows: pl.DataFrame) -> None:
    _demand(file, _written(rows["user_id"]), "user_id must not be empty")
    _check_users(file, rows["user_id"])
    answered = _written(rows["response"])
    silent = set(rows["user_id"].filter(~answered)) - set(rows["user_id"].filter(answered))
    if silent:
        raise ValueError(
            f"every user of {file.path!r} must have at least one exchange, but user "
            f"{min(silent)!r} has none with a response: leave this user out"
        )
    _demand(file, answered, "response must not be empty")
    _demand(file, rows["order"].is_not_null(), "order must be a number, or timestamp a date")
    for name in file.labels:
        _demand(file, rows[name].is_finite().fill_null(False), f"{name} must be a finite number")


def _written(texts: pl.Series) -> pl.Series:
    return texts.str.strip_chars() != ""


def _demand(file: RowFile, kept: pl.Series, rule: str) -> None:
    broken = (~kept).arg_true()
    if len(broken) > 0:
        row = cast(int, broken[0]) + 1
        raise ValueError(
            f"{rule}, but row {row} of {file.path!r} (counted from 1) breaks this: "
            "correct the row or leave it out"
        )
