"""Parquet files as frames: read by Arrow, because Polars ends the process on some damaged files.

Only columns of plain texts, numbers and dates reach Polars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

import polars as pl
import pyarrow  # pyright: ignore[reportMissingTypeStubs] - it has none
from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs] - as above

_PARQUET: Any = parquet
_ARROW: Any = pyarrow
_FROM_ARROW: Any = cast(Any, pl).from_arrow
_UNREADABLE: tuple[type[Exception], ...] = (
    *(_ARROW.ArrowException, OSError, UnicodeDecodeError),
    pl.exceptions.PolarsError,
)

Known: TypeAlias = Mapping[str, tuple[str, ...]]
"""Documented columns and what each may hold."""


def read_parquet_schema(path: str, known: Known) -> dict[str, pl.DataType]:
    """Returns the columns that can be read of a file, by its footer alone.

    Raises:
        ValueError: If it is no Parquet file, names a column twice, or a known column holds neither
            text nor number nor date.
    """
    try:
        empty = _PARQUET.read_schema(path).empty_table()
        return dict(_frame_of(path, known, empty).schema)
    except _UNREADABLE as error:
        raise ValueError(
            f"path must name a Parquet file, got {path!r}: {_one_line(error)}"
        ) from error


def read_parquet(path: str, known: Known, wanted: Sequence[str]) -> pl.DataFrame:
    """Returns columns of a file.

    Raises:
        ValueError: As `read_parquet_schema`, or if a value is damaged.
    """
    try:
        table = _PARQUET.read_table(path, columns=list(wanted))
        # what is no UTF-8, or lies outside its column, would be found by nobody later
        table.validate(full=True)
        return _frame_of(path, known, table)
    except _UNREADABLE as error:
        raise ValueError(
            f"path must name a whole Parquet file, got {path!r}: {_one_line(error)}"
        ) from error


def _frame_of(path: str, known: Known, table: Any) -> pl.DataFrame:  # noqa: ANN401 - as above
    """Returns the columns of an Arrow table that may be read here.

    Polars panics at metadata that is no UTF-8 and at a time zone that it does not know. Neither
    reaches it: metadata is left behind, and an instant is the same in UTC.
    """
    if len(set(table.column_names)) < len(table.column_names):
        raise ValueError(f"{path!r} must name each column once, got {table.column_names}")
    kinds = {name: _plain_type(table.schema.field(name).type) for name in table.column_names}
    for name, kind in kinds.items():
        if kind is None and name in known:
            raise ValueError(
                f"column {name} of {path!r} must hold {' or '.join(known[name])}, got "
                f"{table.schema.field(name).type}: convert the column"
            )
    kept = {name: table[name].cast(kind) for name, kind in kinds.items() if kind is not None}
    return cast(pl.DataFrame, _FROM_ARROW(_ARROW.table(kept)))


def _plain_type(kind: Any) -> Any:  # noqa: ANN401 - as above
    """Returns the type as which a column is read; None where nothing of it could be."""
    types = _ARROW.types
    if types.is_timestamp(kind):
        return _ARROW.timestamp(kind.unit, None if kind.tz is None else "UTC")
    if types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    readable = (
        *(types.is_integer, types.is_floating, types.is_decimal, types.is_boolean),
        *(types.is_string, types.is_large_string, types.is_date, types.is_null),
    )
    return kind if any(is_one(kind) for is_one in readable) else None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
