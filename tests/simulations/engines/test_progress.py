"""What is said while a run goes on: counts are those of the rows, and a night has one line."""

from __future__ import annotations

import logging
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from simulations.engines.progress import NotedRows, RunProgress, describe_seconds
from simulations.results.recorder import MemoryRows
from strategies.releases.training import STEPS_LOG


def row(device: int, night: int, decision: str, energy_j: float) -> dict[str, Any]:
    return {
        **{"arm": "a", "device": device, "round": night, "release": night // 2},
        **{"decision": decision, "energy_j": energy_j},
    }


NIGHTS = (2, 2, 3)
"""A third device joins in the last night."""
ROWS = [
    [row(0, 0, "retune", 900.0), row(1, 0, "none", 100.0)],
    [row(0, 1, "none", 200.0), row(1, 1, "retune", 300.0)],
    [row(0, 2, "reuse", 250.0), row(1, 2, "retune", 50.0), row(2, 2, "retune", 1200.0)],
]


def said(text: StringIO) -> list[str]:
    return text.getvalue().splitlines()


def test_a_pipe_gets_one_line_a_night_with_what_the_rows_add_up_to() -> None:
    text, kept = StringIO(), MemoryRows()
    with RunProgress(Console(file=text), NIGHTS) as progress:
        rows = NotedRows(kept, progress.note_row)
        for night in ROWS:
            for one in night:
                rows.add_row(one)
                progress.devices_done(1)
    told = said(text)
    assert [line.partition(" device-nights")[0] for line in told] == [
        "night 1 of 3: 2 of 7",
        "night 2 of 3: 4 of 7",
        "night 3 of 3: 7 of 7",
    ]
    assert [line.partition("; ")[2] for line in told] == [
        "release 0, 1 tunes and 0 reuses, 1 kJ simulated so far",
        "release 0, 2 tunes and 0 reuses, 1.5 kJ simulated so far",
        "release 1, 4 tunes and 1 reuses, 3 kJ simulated so far",
    ]
    assert [" left" in line for line in told] == [True, True, False]
    assert list(rows.rows()) == kept.kept == [one for night in ROWS for one in night]


def test_a_resumed_run_goes_on_counting_behind_the_nights_that_are_there() -> None:
    text = StringIO()
    with RunProgress(Console(file=text), NIGHTS) as progress:
        progress.restore(2, [*ROWS[0], *ROWS[1]])
        for one in ROWS[2]:
            progress.note_row(one)
        progress.devices_done(3)
    (line,) = said(text)
    assert line.startswith("night 3 of 3: 7 of 7 device-nights")
    assert line.endswith("release 1, 4 tunes and 1 reuses, 3 kJ simulated so far")


def test_a_night_stands_in_the_log_and_the_steps_of_a_training_do_not() -> None:
    text, logged = StringIO(), StringIO()
    root, handler = logging.getLogger(), logging.StreamHandler(logged)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with RunProgress(Console(file=text), (1,)) as progress:
            for step in range(5):
                told = {"progress": step + 1, "total": 5}
                STEPS_LOG.debug("training release %d (%s)", 3, "severe", extra=told)
            progress.devices_done(1)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert said(logged) == said(text)
    assert said(text)[0] == "training release 3 (severe): 5 steps"
    assert len(said(text)) == 2


def test_a_terminal_shows_the_same_counts_in_lines_that_move() -> None:
    text = StringIO()
    console = Console(file=text, force_terminal=True, width=80)
    with RunProgress(console, NIGHTS) as progress:
        for one in ROWS[0]:
            progress.note_row(one)
        progress.devices_done(2)
    shown = text.getvalue()
    assert "2/7" in shown
    assert "night 2 of 3: release 0, 1 tunes and 0 reuses, 1 kJ simulated" in shown
    assert "night 1 of 3" not in shown.rpartition("2/7")[2]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (3599, "60 min"), (7200, "2.0 h")],
)
def test_a_length_of_time_is_said_in_the_unit_that_fits(seconds: float, words: str) -> None:
    assert describe_seconds(seconds) == words
