"""The table of docs/reliability.md: what was done, how often, and what came of it."""

from __future__ import annotations

import fcntl
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.faults.forked_runs import BAD

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
HEAD = ("fault", "tried", "outcome", *BAD)

ROWS = {
    "kill -9 while a run begins": 20,
    "kill -9 while rounds are computed and committed": 25,
    "kill -9 while releases and fleet patches enter the store": 20,
    "kill -9 while tables and patches are written": 25,
    "kill -9 while the summary appears, texts go and the page is written": 8,
    "kill -9 while a study is judged and its page is written": 4,
    "kill -9 at a seeded moment, one process": 10,
    "kill -9 at a seeded moment, two workers": 10,
    "kill -9 at a seeded moment, Ray": 10,
    "two writers of one cold store": 100,
    "two runs that begin at once in one folder": 20,
    "a full disk (a small file system in memory)": 10,
    "a file that may not grow (RLIMIT_FSIZE)": 8,
    "a read-only folder": 2,
    "a damaged file of a cached release": 24,
    "a damaged file of a cached catalogue": 16,
    "a damaged file of an interrupted run": 28,
    "a damaged checkpoint": 8,
    "a hostile reply to the server": 100,
    "a whole run with a hostile device": 10,
    "SIGINT at a seeded moment": 8,
    "SIGTERM at a seeded moment": 8,
    "a clock that jumps by 4000 days": 1,
    "a clock that jumps by -400 days": 1,
}
"""Every row of the table, with how many trials it takes at least."""


def read_table() -> dict[str, list[str]]:
    """Returns the cells of every row by its first one."""
    inside = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    lines = [line.strip("| ").split(" | ") for line in inside.strip().splitlines()[2:]]
    return {cells[0]: cells[1:] for cells in lines}


def settle(fault: str, outcomes: Mapping[object, str], note: str = "") -> None:
    """Writes what came of every trial of a fault into the page, and fails if any of it is bad."""
    found = Counter(outcomes.values())
    good = [f"{count} {outcome}" for outcome, count in found.most_common() if outcome not in BAD]
    told = "; ".join([*good, note] if note else good)
    _write(fault, [str(found.total()), told, *(str(found[name]) for name in BAD)])
    bad = {str(trial): one for trial, one in outcomes.items() if one in BAD}
    if bad or found.total() < ROWS[fault]:
        pytest.fail(f"{fault}: {found.total()} tried, {ROWS[fault]} asked for; bad: {bad}")


def _write(fault: str, cells: list[str]) -> None:
    """Replaces a row; rows stand in the order of `ROWS`. Two processes may do so at once."""
    with PAGE.open("r+", encoding="utf-8") as page:
        fcntl.flock(page, fcntl.LOCK_EX)
        table = {**read_table(), fault: cells}
        lines = [HEAD, ("---",) * len(HEAD), *((n, *table[n]) for n in ROWS if n in table)]
        body = "\n".join(f"| {' | '.join(one)} |" for one in lines)
        before, _, rest = page.read().partition(BEGIN)
        page.seek(0)
        page.write(f"{before}{BEGIN}\n{body}\n{END}{rest.partition(END)[2]}")
        page.truncate()
