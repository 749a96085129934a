"""Deals real text of three corpora to made-up users, in bursts.

`python -m simulations.assets.real_streams --into FILE.parquet` reads ``dolly15k``, ``medquad`` and
``goemotions`` below the folder FLEETTUNE_DATA and writes rows in the schema of
`fleettune.data.row_file`. A user's past comes in bursts of one corpus after another, the corpora in
turn; the last rows of each user, which a run holds out, take the corpora one after the other. No
row is dealt twice. The users are nobody: only what is asked differs between them, and the wording
of the corpora.

With ``--apart`` FILE is a folder instead, and every corpus a file of its own in it, for releases
that a vendor trains on one of them (`strategies.releases.given_files`).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from fleettune.seeds import Purpose, stream

FEELING = "What feeling does this show? "
QUESTION_CHARS, RESPONSE_CHARS = 200, 240
_MIXTURE = 4


def corpora(folder: Path) -> dict[str, pl.DataFrame]:
    """Returns question, response and domain of every corpus, without rows too long to ask.

    Dolly without the rows that come with a text to read; GoEmotions without several labels.

    Raises:
        ValueError: If a corpus is not there.
    """
    files = {name: folder / name / "data.parquet" for name in ("dolly15k", "medquad", "goemotions")}
    for file in files.values():
        if not file.is_file():
            raise ValueError(f"FLEETTUNE_DATA must hold {file.parent.name}/{file.name}, not there")
    read = {name: pl.read_parquet(file) for name, file in files.items()}
    feelings = read["goemotions"].filter(~pl.col("response").str.contains(","))
    made = {
        "dolly15k": read["dolly15k"].filter(pl.col("context") == ""),
        "medquad": read["medquad"],
        "goemotions": feelings.with_columns(
            (pl.lit(FEELING) + pl.col("question")).alias("question")
        ),
    }
    return {
        name: rows.select(
            pl.col("question").str.strip_chars(),
            pl.col("response").map_elements(shorten, return_dtype=pl.String),
            pl.lit(name).alias("domain"),
        ).filter(
            (pl.col("question").str.len_chars() <= QUESTION_CHARS)
            & (pl.col("response").str.len_chars() > 0)
        )
        for name, rows in made.items()
    }


def shorten(text: str, longest: int = RESPONSE_CHARS) -> str:
    """Returns a text on one line, cut behind its last whole sentence or else word that fits."""
    text = " ".join(text.split())
    if len(text) <= longest:
        return text
    head = text[: longest + 1]
    end = max(head.rfind(mark) for mark in (". ", "! ", "? "))
    return head[: end + 1] if end > 0 else head.rpartition(" ")[0] or text[:longest]


def deal(
    sources: dict[str, pl.DataFrame], users: int, history: int, burst: int, held_out: int, seed: int
) -> pl.DataFrame:
    """Returns the users' rows: `history` in bursts, then `held_out` of all corpora in turn.

    Args:
        sources: Rows by corpus.
        users: Users to deal to.
        history: Rows of each user's past.
        burst: Rows of one corpus after another.
        held_out: Rows at the end of each stream.
        seed: Key of the draws.

    Raises:
        ValueError: If a number is below 1 or a corpus has too few rows.
    """
    for name, value in (("users", users), ("history", history), ("burst", burst)):
        if value < 1:
            raise ValueError(f"--{name} must be >= 1, got {value}")
    if held_out < 1:
        raise ValueError(f"--held-out must be >= 1, got {held_out}")
    names = list(sources)
    left = {
        name: stream(seed, Purpose.STREAM, 0, place, _MIXTURE).permutation(rows.height).tolist()
        for place, (name, rows) in enumerate(sources.items())
    }
    parts: list[pl.DataFrame] = []
    for user in range(users):
        rng = stream(seed, Purpose.STREAM, user, 0, _MIXTURE + 1)
        order = [names[int(place)] for place in rng.permutation(len(names))]
        domains = [order[place // burst % len(order)] for place in range(history)]
        domains += [order[place % len(order)] for place in range(held_out)]
        short = [name for name in names if len(left[name]) < domains.count(name)]
        if short:
            raise ValueError(
                f"{short[0]} has too few rows for {users} users of {history + held_out}: "
                "lower --users or --history"
            )
        rows = [sources[name].slice(left[name].pop(), 1) for name in domains]
        parts.append(
            pl.concat(rows).with_columns(
                pl.lit(f"user_{user:04d}").alias("user_id"),
                pl.Series("order", np.arange(history + held_out)),
            )
        )
    return pl.concat(parts).select("user_id", "order", "question", "response", "domain")


def _apart(sources: dict[str, pl.DataFrame], folder: Path) -> int:
    """Writes every corpus into a file of its own and says what they hold."""
    folder.mkdir(parents=True)
    for name, rows in sources.items():
        rows.write_parquet(folder / f"{name}.parquet")
        sys.stdout.write(f"{folder / name}.parquet: {rows.height:,} exchanges\n")
    return 0


def main(arguments: Sequence[str]) -> int:
    """Writes a mixture and says what to run; returns the exit code."""
    parser = argparse.ArgumentParser(description="Real text in bursts, as rows.")
    parser.add_argument(
        "--into", type=Path, required=True, help="Parquet file, or folder, to write"
    )
    for name, number in (("users", 60), ("history", 192), ("burst", 16), ("held-out", 24)):
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--apart", action="store_true", help="one file per corpus instead")
    asked = parser.parse_args(arguments)
    try:
        folder = os.environ.get("FLEETTUNE_DATA")
        if folder is None:
            raise ValueError("FLEETTUNE_DATA must name the folder that holds the corpora")
        if asked.into.exists():
            raise ValueError(f"--into must name a new file, {str(asked.into)!r} exists")
        if asked.held_out > 0 and asked.history % asked.held_out:
            raise ValueError("--history must be a multiple of --held-out, which is a run's day")
        sources = corpora(Path(folder))
        if asked.apart:
            return _apart(sources, asked.into)
        rows = deal(
            sources,
            *(asked.users, asked.history, asked.burst, asked.held_out, asked.seed),
        )
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    rows.write_parquet(asked.into)
    past = rows.filter(pl.col("order") < asked.history)
    size = sum(len((one + two).encode()) for one, two in past.select("question", "response").rows())
    sys.stdout.write(
        f"{asked.users} users, {size // asked.users:,} bytes of past each on average; "
        f"data.exchanges_per_day={asked.held_out} "
        f"data.history_days={asked.history // asked.held_out} "
        f"data.min_exchanges={asked.history + asked.held_out}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
