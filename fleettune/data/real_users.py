"""Tables: real exchanges of real users, read from one Parquet or JSON Lines file.

`fleettune.data.row_file` documents the columns. Here rows become people: users in the fleet, whose
streams are cut into days, and users outside it, whose text a vendor may train on. Who is who
depends on the file and the configuration alone, so it is the same in every run and for every seed.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import polars as pl

from fleettune.data.exchanges import Answer, Exchange
from fleettune.data.row_file import COLUMNS, RowFile

log = logging.getLogger(__name__)

AUTO = "auto"
MAX_ANSWERS = 32
"""Most distinct wordings of a closed set of answers: each is scored at every evaluation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableData:
    """Where a table lies and how its rows become a fleet's days.

    Attributes:
        path: The file.
        format: ``parquet`` or ``jsonl``.
        labels: Names of the label columns: responses are then a closed set of at most 32
            wordings, each with one constant value per label. Empty: responses are free text.
            ``auto``: if there are at most 32 wordings, and at least twice as many rows, every
            numeric column that has one value per wording, and not the same for all, is a label.
        exchanges_per_day: Exchanges of one user on each day after day 0.
        history_days: Days' worth of exchanges that a user brings to day 0, which holds the
            first ``history_days * exchanges_per_day``.
        min_exchanges: Users with fewer are outside the fleet.
        outside_share: Share of the other users, rounded down and chosen by a hash of ``user_id``,
            that is outside the fleet as well: the vendor's text for training.
        max_chars: Characters kept of each text, from its beginning.
    """

    path: str
    format: str
    labels: tuple[str, ...] | str
    exchanges_per_day: int
    history_days: int
    min_exchanges: int
    outside_share: float
    max_chars: int

    def __post_init__(self) -> None:
        """Keeps a list of labels, as YAML and JSON give it, as a tuple."""
        if not isinstance(self.labels, str):
            object.__setattr__(self, "labels", tuple(self.labels))

    def check(self) -> None:
        """Checks numbers, file and columns without reading the rows.

        Raises:
            ValueError: Saying which field or column breaks which rule, and what to do.
        """
        _check_numbers(self)
        _check_labels(self.labels)
        _file(self).check()

    def open(self) -> TablePopulation:
        """Returns the population that the file describes.

        Raises:
            ValueError: As `check`, or for a row that breaks the documented schema.
        """
        self.check()
        rows = _file(self).read()
        labels = _labels(self, rows)
        streams = _streams(self, rows)
        fleet = _fleet(self, {user: len(stream) for user, stream in streams.items()})
        return TablePopulation(
            data=self,
            labels=labels,
            answers=_answers(self, rows, labels),
            user_ids=fleet,
            streams=tuple(streams[user] for user in fleet),
            outsiders={user: streams[user] for user in sorted(streams.keys() - set(fleet))},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePopulation:
    """The population of a table: users in the order of their ids, each a stream cut into days.

    Attributes:
        data: The configuration that it was read with.
        labels: Names of the label values; empty for free text.
        answers: The closed set of answers in the order of their values; empty for free text.
        user_ids: The fleet's users as the file names them.
        streams: All exchanges of each user of the fleet, in time order.
        outsiders: All exchanges of each user outside the fleet, by their id.
    """

    data: TableData
    labels: tuple[str, ...]
    answers: tuple[Answer, ...]
    user_ids: tuple[str, ...]
    streams: tuple[tuple[Exchange, ...], ...]
    outsiders: Mapping[str, tuple[Exchange, ...]]

    @property
    def users(self) -> int:
        """Number of users of the fleet."""
        return len(self.streams)

    def day(self, user: int, day: int) -> tuple[Exchange, ...]:
        """Returns one user's exchanges of one day; none once the stream has ended."""
        if not 0 <= user < self.users:
            raise ValueError(f"user must be 0..{self.users - 1}, got {user}")
        if day < 0:
            raise ValueError(f"day must be >= 0, got {day}")
        end = (self.data.history_days + day) * self.data.exchanges_per_day
        start = end - self.data.exchanges_per_day if day else 0
        return self.streams[user][start:end]

    def outside(self, count: int, seed: int) -> Sequence[tuple[Exchange, ...]]:
        """Returns whole streams of users outside the fleet: all of them if fewer than count."""
        if count < 0:
            raise ValueError(f"count must be >= 0 conversations, got {count}")
        chosen = _by_hash(self.outsiders, f"conversations of seed {seed}")[:count]
        return tuple(self.outsiders[user] for user in chosen)


def _check_numbers(data: TableData) -> None:
    for field in ("exchanges_per_day", "history_days", "min_exchanges", "max_chars"):
        value = cast(int, getattr(data, field))
        if value < 1:
            raise ValueError(f"{field} must be >= 1, got {value}")
    if not 0.0 <= data.outside_share < 1.0:
        raise ValueError(f"outside_share must be >= 0 and < 1, got {data.outside_share}")


def _check_labels(labels: tuple[str, ...] | str) -> None:
    if isinstance(labels, str):
        if labels != AUTO:
            raise ValueError(f"labels must be {AUTO!r} or a list of columns, got {labels!r}")
    elif len(set(labels)) < len(labels) or set(labels) & set(COLUMNS):
        raise ValueError(
            f"labels must be distinct columns other than {', '.join(COLUMNS)}, got {list(labels)}"
        )


def _file(data: TableData) -> RowFile:
    named = () if isinstance(data.labels, str) else data.labels
    return RowFile(
        path=data.path, format=data.format, labels=named, finds_labels=data.labels == AUTO
    )


def _labels(data: TableData, rows: pl.DataFrame) -> tuple[str, ...]:
    """Returns the label columns: the named ones, checked, or those that the rule finds."""
    numeric = [name for name in rows.columns if name not in COLUMNS]
    candidates = numeric if isinstance(data.labels, str) else data.labels
    if not candidates:
        return ()
    wordings = rows["response"].n_unique()
    values = rows.group_by("response", maintain_order=True).agg(pl.col(candidates).n_unique())
    if isinstance(data.labels, str):
        closed = wordings <= MAX_ANSWERS and 2 * wordings <= rows.height
        found = tuple(
            name for name in numeric if closed and _is_label(data, rows[name], values[name])
        )
        _tell_labels(data, numeric, found)
        return found
    if wordings > MAX_ANSWERS:
        raise ValueError(
            f"responses must have at most {MAX_ANSWERS} distinct wordings to be labels, got "
            f"{wordings} in {data.path!r}: set labels=[] to read them as free text"
        )
    for name in data.labels:
        loose = values.filter(pl.col(name) > 1)["response"].to_list()
        if loose:
            raise ValueError(
                f"label {name} must have one value per wording, but {loose[0]!r} in "
                f"{data.path!r} has several: correct the column or leave it out of labels"
            )
    return data.labels


def _is_label(data: TableData, column: pl.Series, values_by_wording: pl.Series) -> bool:
    """Returns whether a column has one value per wording, and not the same for all.

    Raises:
        ValueError: If it would, but for a value that is missing or not finite.
    """
    finite = column.is_finite().fill_null(value=False)
    if not finite.all():
        if 2 * finite.sum() > len(finite) and column.filter(finite).n_unique() > 1:
            row = cast(int, (~finite).arg_true()[0]) + 1
            raise ValueError(
                f"column {column.name} of {data.path!r} holds numbers, but none that is finite in "
                f"row {row} (counted from 1): correct it, or say what the labels are "
                "(data.labels=[] for none)"
            )
        return False
    return values_by_wording.eq(1).all() and column.n_unique() > 1


def _tell_labels(data: TableData, numeric: Sequence[str], found: Sequence[str]) -> None:
    """Says which numeric columns become labels: that decides what quality means."""
    if found:
        log.warning(
            "%s: column %s is read as a label of the response, so quality is an absolute error; "
            "data.labels=[] reads responses as free text",
            data.path,
            ", ".join(found),
        )
    for name in numeric:
        if name not in found:
            log.warning(
                "%s: column %s holds numbers but is no label; it is not used", data.path, name
            )


def _answers(data: TableData, rows: pl.DataFrame, labels: Sequence[str]) -> tuple[Answer, ...]:
    """Returns the closed set of answers, whole, in the order of their values."""
    if not labels:
        return ()
    distinct = rows.select("response", *labels).unique().iter_rows()
    answers = [Answer(response=response, values=tuple(values)) for response, *values in distinct]
    longest = max(len(answer.response) for answer in answers)
    if longest > data.max_chars:
        raise ValueError(
            f"max_chars must be >= {longest} to keep answers that are labels whole, "
            f"got {data.max_chars}"
        )
    return tuple(sorted(answers, key=lambda answer: (answer.values, answer.response)))


def _streams(data: TableData, rows: pl.DataFrame) -> dict[str, tuple[Exchange, ...]]:
    """Returns each user's exchanges in time order, cut into days."""
    streams: dict[str, list[Exchange]] = {}
    ordered = rows.sort("user_id", "order", maintain_order=True)
    _tell_streams(data, rows)
    texts = ordered.select("user_id", "question", "response", "domain").iter_rows()
    for user, question, response, domain in texts:
        stream = streams.setdefault(user, [])
        exchange = Exchange(
            question=question[: data.max_chars],
            response=response[: data.max_chars],
            day=max(0, len(stream) // data.exchanges_per_day - data.history_days + 1),
            order=len(stream),
            domain=domain,
        )
        stream.append(exchange)
    return {user: tuple(stream) for user, stream in streams.items()}


def _tell_streams(data: TableData, rows: pl.DataFrame) -> None:
    """Says what of the rows is cut, and where their order is the file's."""
    for name in ("question", "response"):
        long = (rows[name].str.len_chars() > data.max_chars).sum()
        if long:
            log.warning(
                "%s: %d of %d texts in column %s are cut to data.max_chars=%d characters",
                data.path,
                long,
                rows.height,
                name,
                data.max_chars,
            )
    ties = rows.select("user_id", "order").is_duplicated()
    if ties.any():
        log.warning(
            "%s: %d rows share user and time with another one, the first is row %d (counted from "
            "1); they stay in the file's order",
            data.path,
            ties.sum(),
            cast(int, ties.arg_true()[0]) + 1,
        )


def _fleet(data: TableData, sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Returns the users of the fleet in the order of their ids."""
    eligible = [user for user, size in sizes.items() if size >= data.min_exchanges]
    if not eligible:
        raise ValueError(
            f"min_exchanges must leave at least one user, but none of the {len(sizes)} in "
            f"{data.path!r} has {data.min_exchanges} exchanges (the most is "
            f"{max(sizes.values())}): lower min_exchanges"
        )
    outside = int(data.outside_share * len(eligible))
    return tuple(sorted(_by_hash(eligible, "outside the fleet")[outside:]))


def _by_hash(users: Iterable[str], purpose: str) -> list[str]:
    """Returns the users in an order that depends on the purpose and nothing else."""
    key = hashlib.blake2b(purpose.encode(), digest_size=32).digest()
    return sorted(users, key=lambda user: hashlib.blake2b(user.encode(), key=key).digest())
