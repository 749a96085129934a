"""Corpora: files of text that differ in style, for entries of a catalogue and for users like them.

A corpus is a Parquet or JSON Lines file with text columns ``question`` and ``response``; one whose
rows are of several kinds may be taken in parts by its column ``domain``. Rows are parted once, by
a hash of their question: a server tunes and explains an entry on one part, users say the other.
A user is mixed with one corpus: an exchange is from there with probability `similarity`, and
otherwise from any of the corpora (`fleettune.data.styles` does the same with generated styles).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import polars as pl

from fleettune.data.exchanges import Answer, Exchange, join_days
from fleettune.data.row_file import RowFile
from fleettune.seeds import Purpose, stream

_FORMATS = {".parquet": "parquet", ".pq": "parquet", ".jsonl": "jsonl"}
_PARTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """One corpus.

    Attributes:
        name: Short name, that of its entry.
        path: Its file.
        domain: Only rows with this ``domain``; None takes all.
        ask: Put before every question, where a row's question does not say what is asked.
    """

    name: str
    path: str
    domain: str | None = None
    ask: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpora:
    """Corpora with what is read of them.

    Attributes:
        files: The corpora, two or more.
        users_share: Share of every corpus that users say; the rest is the server's.
        question_chars: Characters kept of a question, from its beginning.
        response_chars: Characters kept of a response.
    """

    files: tuple[Corpus, ...]
    users_share: float = 0.5
    question_chars: int = 200
    response_chars: int = 240

    def __post_init__(self) -> None:
        names = [corpus.name for corpus in self.files]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"corpora must be two or more of different names, got {names}")
        if not 0 < self.users_share < 1:
            raise ValueError(f"users_share must be > 0 and < 1, got {self.users_share}")
        for name in ("question_chars", "response_chars"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1 character, got {getattr(self, name)}")

    def read(self, name: str, *, users: bool) -> tuple[tuple[str, str], ...]:
        """Returns a corpus' questions and responses, those of users or the server's.

        Raises:
            ValueError: If the file is missing, lacks a column or leaves nothing.
        """
        corpus = next(one for one in self.files if one.name == name)
        return _read(self, corpus)[int(users)]


@lru_cache(maxsize=64)
def _read(how: Corpora, corpus: Corpus) -> tuple[tuple[tuple[str, str], ...], ...]:
    """Returns the server's rows and those of users, each question once."""
    path = Path(corpus.path)
    if not path.is_file() or path.suffix not in _FORMATS:
        raise ValueError(
            f"corpus {corpus.name}: path must name a file that ends in {sorted(_FORMATS)}, "
            f"got {corpus.path!r}"
        )
    try:
        rows = RowFile(path=corpus.path, format=_FORMATS[path.suffix], anonymous=True).texts()
    except ValueError as error:
        raise ValueError(f"corpus {corpus.name}: {error}") from error
    if corpus.domain is not None:
        if "domain" not in rows.columns:
            raise ValueError(f"corpus {corpus.name}: {corpus.path!r} must have a column 'domain'")
        rows = rows.filter(pl.col("domain") == corpus.domain)
    parts: tuple[list[tuple[str, str]], ...] = ([], [])
    seen: set[str] = set()
    for question, response in rows.select("question", "response").iter_rows():
        asked = (corpus.ask + question)[: how.question_chars].strip()
        if not asked or not response.strip() or asked in seen:
            continue
        seen.add(asked)
        drawn = int.from_bytes(hashlib.blake2b(asked.encode(), digest_size=8).digest()) % _PARTS
        parts[drawn < how.users_share * _PARTS].append(
            (asked, response[: how.response_chars].strip())
        )
    if not all(parts):
        raise ValueError(f"corpus {corpus.name}: {corpus.path!r} leaves no row for server or users")
    return tuple(tuple(part) for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class CorporaData:
    """Users who are mixed with one corpus each.

    Attributes:
        text: The corpora.
        similarity: Share of a user's exchanges from the user's corpus, 0 to 1.
        exchanges_per_day: Exchanges of a user on a day.
        history_days: Days of exchanges that a user brings to the first night.
        users: Users; number ``u`` has corpus ``u mod len(text.files)``.
        seed: Key of who says what.
    """

    text: Corpora
    similarity: float = 0.9
    exchanges_per_day: int = 10
    history_days: int = 3
    users: int = 1_000_000
    seed: int = 0

    def check(self) -> None:
        """Raises ValueError if a value cannot describe such users or a corpus cannot be read."""
        if not 0 <= self.similarity <= 1:
            raise ValueError(f"data.similarity must be a share from 0 to 1, got {self.similarity}")
        for name in ("exchanges_per_day", "history_days", "users"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} must be >= 1, got {getattr(self, name)}")
        for corpus in self.text.files:
            self.text.read(corpus.name, users=True)

    def open(self) -> CorporaPopulation:
        """Returns the population that this configuration describes."""
        return CorporaPopulation(config=self)


@dataclass(frozen=True, slots=True, kw_only=True)
class CorporaPopulation:
    """Users mixed with corpora; implements `fleettune.data.exchanges.Population`."""

    config: CorporaData
    labels: tuple[str, ...] = field(default=(), init=False)
    answers: tuple[Answer, ...] = field(default=(), init=False)

    @property
    def users(self) -> int:
        """Number of users that the fleet may hold."""
        return self.config.users

    def corpus_of(self, user: int) -> str:
        """Returns the name of the corpus that a user is mixed with."""
        files = self.config.text.files
        return files[user % len(files)].name

    def day(self, user: int, day: int) -> tuple[Exchange, ...]:
        """Returns one user's exchanges of one day; day 0 holds the history as well."""
        return join_days(partial(self._draw_day, user), day, self.config.history_days)

    def _draw_day(self, user: int, calendar: int) -> list[Exchange]:
        config, names = self.config, [corpus.name for corpus in self.config.text.files]
        rng = stream(config.seed, Purpose.STYLE, 4, user, calendar)
        found: list[Exchange] = []
        for index in range(config.exchanges_per_day):
            order = calendar * config.exchanges_per_day + index
            other = names[int(rng.integers(len(names)))]
            name = self.corpus_of(user) if rng.random() < config.similarity else other
            rows = config.text.read(name, users=True)
            # a walk through the rows from a place of the user's own: no row comes twice before all
            first = int(stream(config.seed, Purpose.STYLE, 5, user).integers(0x80000000))
            question, response = rows[_shuffled(len(rows))[(first + order) % len(rows)]]
            found.append(
                Exchange(
                    question=question, response=response, day=calendar, order=order, domain=name
                )
            )
        return found

    def outside(self, count: int, seed: int) -> Sequence[tuple[Exchange, ...]]:
        """Returns conversations of the server's text, one corpus each, in turn."""
        files, size = self.config.text.files, self.config.exchanges_per_day
        found: list[tuple[Exchange, ...]] = []
        for number in range(count):
            name = files[number % len(files)].name
            rng = stream(seed, Purpose.OUTSIDE, 1, number)
            found.append(draw_exchanges(self.config.text, name, size, rng))
        return tuple(found)


def draw_exchanges(
    text: Corpora, name: str, count: int, rng: np.random.Generator
) -> tuple[Exchange, ...]:
    """Returns drawn rows of the server's part of a corpus; all of them where there are fewer."""
    rows = text.read(name, users=False)
    places: list[int] = rng.permutation(len(rows))[:count].tolist()
    return tuple(
        Exchange(question=rows[place][0], response=rows[place][1], day=0, order=order, domain=name)
        for order, place in enumerate(places)
    )


def corpus_name(population: object, user: int) -> str | None:
    """Returns the name of the corpus that a user is mixed with; None without one."""
    return population.corpus_of(user) if isinstance(population, CorporaPopulation) else None


@lru_cache(maxsize=64)
def _shuffled(count: int) -> tuple[int, ...]:
    rng = np.random.default_rng(count)
    return tuple(int(place) for place in rng.permutation(count))
