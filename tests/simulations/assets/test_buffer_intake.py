"""Intake: what a rule took in as it came, by hand; and a study's arms replayed."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from clients.selection.buffer import Reading
from clients.selection.rules import Fifo, Reservoir
from fleettune.data.exchanges import Exchange
from simulations.assets.buffer_intake import main, taken_in
from simulations.report.row_tables import tabulate_intake

STREAM = [
    Reading(exchange=Exchange(question="q" * 9, response="a", day=0, order=order))
    for order in range(400)
]


def random(exchange: Exchange) -> float:
    return float(np.random.default_rng(exchange.order).random())


def test_the_newest_are_always_taken_in_and_a_sample_ever_less() -> None:
    assert taken_in(Fifo(), STREAM, 200, random).tolist() == [1.0] * 10
    shares = taken_in(Reservoir(), STREAM, 200, random, parts=4)
    # 20 places: the first 20 of 100, then 20 of n with n up to 400
    expected = [
        sum(min(1, 20 / n) for n in range(a + 1, a + 101)) / 100 for a in (0, 100, 200, 300)
    ]
    assert shares == pytest.approx(expected, abs=0.1)
    with pytest.raises(ValueError, match="at least 10 exchanges, got 3"):
        taken_in(Fifo(), STREAM[:3], 200, random)


def test_the_tool_prints_every_rule_once(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["study=selection", "study.seeds=[1]", "arms=rivals", "fleet.devices=1"]
    given += ["data.history=30", "data.burst=10", "storage.buffer_bytes=300", "study.claims=[]"]
    given += ["study.worlds=[{name: short, overrides: []}]"]
    assert main(given) == 0
    told = capsys.readouterr().out
    assert "taken in as it came, short" in told
    # never_personalise keeps the newest as the reference does, retrieve what quality keeps
    assert [told.count(name) for name in ("always_retune", "reservoir", "never", "retrieve")] == [
        1,
        1,
        0,
        0,
    ]
    assert main(["study=selection", "data.order=sideways"]) == 2
    assert "data.order must be one of" in capsys.readouterr().err


def test_the_reports_table_by_hand() -> None:
    rows = pl.DataFrame(
        {
            "round": [0, 1],
            "arrived": [40, 10],
            "accepted": [20, 5],
            "asked": [20, 0],
            "buffer_exchanges": [20, 22],
            "synthesised": [30, 10],
            "synthetic_kept": [3, 1],
        }
    )
    none = pl.lit(0).alias("synthesised")
    assert tabulate_intake({"one": rows.with_columns(none), "two": rows.with_columns(none)}) == []
    (shown,) = tabulate_intake({"one": rows})
    assert shown == {
        "arm": "one",
        "arrived": "50",
        "accepted": "50.0 %",
        "first round": "50.0 %",
        "last round": "50.0 %",
        "asked per 1,000": "400",
        "held at the end": "22.0",
        "pairs made": "40",
        "pairs accepted": "10.0 %",
    }
