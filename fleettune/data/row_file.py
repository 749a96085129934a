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
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import polars as pl

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
SUFFIXES = {"parquet": (".parquet", ".pq"), "jsonl": (".jsonl", ".ndjson")}
"""Formats and how the names of such files end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFile:
    """A file of exchanges.

    Attributes:
        path: Where it lies.
        format: ``parquet`` or ``jsonl``.
        labels: Columns that must be there and hold finite numbers, beside the documented ones.
        anonymous: True if it does not matter whose exchanges they are: ``user_id``, ``order`` and
            ``timestamp`` may be missing and are not checked.
    """

    path: str
    format: str
    labels: tuple[str, ...] = ()
    anonymous: bool = False

    def check(self) -> None:
        """Checks file and columns by the Parquet footer or the first line, not by the rows.

        Raises:
            ValueError: Saying which file or column breaks which rule, and what to do.
        """
        if self.format not in SUFFIXES:
            raise ValueError(f"format must be one of {list(SUFFIXES)}, got {self.format!r}")
        if Path(self.path).suffix not in SUFFIXES[self.format]:
            allowed = " or ".join(SUFFIXES[self.format])
            raise ValueError(
                f"path must end in {allowed} for format {self.format}, got {self.path!r}"
            )
        if not Path(self.path).is_file():
            raise ValueError(f"path must name a file that exists, got {self.path!r}: correct it")
        if self.format == "jsonl":
            schema = _jsonl(self, list(itertools.islice(_lines(self.path), 1))).schema
        else:
            schema = _parquet_schema(self.path)
        _check_columns(self, schema)

    def read(self) -> pl.DataFrame:
        """Returns the checked rows in the file's order.

        Columns: ``user_id``, ``question``, ``response``, ``domain`` as text, ``order`` as
        something to sort by, and every other numeric column as floats. Of an anonymous file
        ``question``, ``response`` and ``domain`` only.

        Raises:
            ValueError: As `check`, or naming the first row that breaks the schema.
        """
        self.check()
        frame = _jsonl(self, list(_lines(self.path))) if self.format == "jsonl" else _parquet(self)
        _check_columns(self, frame.schema)
        if frame.height == 0:
            raise ValueError(f"{self.path!r} must hold at least one exchange, got no row")
        if self.anonymous:
            return _anonymous(self, frame)
        numeric = dict.fromkeys([*_others(frame.schema), *self.labels])
        rows = pl.DataFrame(
            [
                *(_text(frame, name) for name in ("user_id", "question", "response", "domain")),
                _places(frame),
                *(frame[name].cast(pl.Float64) for name in numeric),
            ]
        )
        _check_rows(self, rows)
        return rows


def _check_columns(file: RowFile, schema: Mapping[str, pl.DataType]) -> None:
    clock = "order" if "order" in schema else "timestamp"
    whose = () if file.anonymous else ("user_id", clock)
    needed = (*whose, "question", "response", *file.labels)
    for name in needed:
        if name not in schema:
            wanted = "order or timestamp" if name == clock else name
            raise ValueError(
                f"{file.path!r} must have a column {wanted}, got {', '.join(schema) or 'none'}: "
                "rename or add the column"
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


def _parquet_schema(path: str) -> dict[str, pl.DataType]:
    try:
        return dict(pl.read_parquet_schema(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ValueError(f"path must name a Parquet file, got {path!r}: {error}") from error


def _parquet(file: RowFile) -> pl.DataFrame:
    schema = _parquet_schema(file.path)
    wanted = [*(schema.keys() & COLUMNS.keys()), *_others(schema)]
    try:
        return pl.read_parquet(file.path, columns=wanted)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ValueError(
            f"path must name a whole Parquet file, got {file.path!r}: {error}"
        ) from error


def _lines(path: str) -> Iterator[dict[str, object]]:
    with Path(path).open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row: object = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                shown = line[:60].decode(errors="replace")
                raise ValueError(
                    f"line {number} of {path!r} must be one JSON object in UTF-8, got {shown!r}"
                )
            yield cast(dict[str, object], row)


def _jsonl(file: RowFile, rows: Sequence[Mapping[str, object]]) -> pl.DataFrame:
    """Returns the documented and named columns, and all others that hold only numbers."""
    columns: list[pl.Series] = []
    for name in dict.fromkeys(itertools.chain.from_iterable(rows)):
        values = [row.get(name) for row in rows]
        kinds = {type(value) for value in values}
        if kinds == {int, float}:
            values = [float(cast(float, value)) for value in values]
        if name not in (*COLUMNS, *file.labels) and not kinds <= {int, float}:
            continue
        try:
            columns.append(pl.Series(name, values, strict=True))
        except (TypeError, OverflowError) as error:
            raise ValueError(
                f"column {name} of {file.path!r} must hold one type of value in all lines: {error}"
            ) from error
    return pl.DataFrame(columns)


def _anonymous(file: RowFile, frame: pl.DataFrame) -> pl.DataFrame:
    rows = pl.DataFrame([_text(frame, name) for name in ("question", "response", "domain")])
    _demand(file, _written(rows["response"]), "response must not be empty")
    return rows


def _text(frame: pl.DataFrame, name: str) -> pl.Series:
    if name not in frame.columns:
        return pl.Series(name, [""] * frame.height)
    return frame[name].cast(pl.String).fill_null("")


def _places(frame: pl.DataFrame) -> pl.Series:
    """Returns where each row stands in its user's stream; null where that cannot be read."""
    places = frame["order" if "order" in frame.columns else "timestamp"]
    if _kind(places.dtype) == "text":
        instants = [_instant(text) for text in places.cast(pl.String)]
        return pl.Series("order", instants, dtype=pl.Float64)
    return (
        places.fill_nan(None).alias("order") if places.dtype.is_float() else places.alias("order")
    )


def _instant(text: str | None) -> float | None:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _check_rows(file: RowFile, rows: pl.DataFrame) -> None:
    _demand(file, _written(rows["user_id"]), "user_id must not be empty")
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
