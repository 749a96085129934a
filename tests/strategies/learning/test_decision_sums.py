"""Tallies and sketches are monoids to the last bit: any order, any split, one result."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleettune.records import from_record, to_record
from strategies.learning.decision_reports import DecisionReport
from strategies.learning.decision_sums import (
    Counts,
    ReuseStatistics,
    Tally,
    collect_statistics,
    tally_reports,
)
from strategies.learning.quantile_sketch import Sketch

amounts = st.floats(0, 1e6, allow_nan=False)


@st.composite
def decision_reports(draw: st.DrawFn) -> DecisionReport:
    decision = draw(st.sampled_from(["retune", "reuse", "infeasible"]))
    seen = decision == "retune"
    retune_j = draw(amounts) if seen else 0.0
    return DecisionReport(
        release=draw(st.integers(1, 3)),
        device_class=draw(st.sampled_from(["phone", "tablet", "watch"])),
        decision=decision,
        features=(("log_drift", draw(st.floats(-20, 5))), ("canary", draw(st.floats(-1, 3)))),
        drift=draw(st.none() | st.floats(0, 1)),
        propensity=draw(st.sampled_from([0.05, 1.0])),
        explored=seen and draw(st.booleans()),
        gain=draw(st.none() | st.floats(-2, 5)) if seen else None,
        energy_j=retune_j + draw(amounts),
        retune_j=retune_j,
        down_bytes=draw(amounts),
    )


many = st.lists(decision_reports(), max_size=20)


@st.composite
def splits(draw: st.DrawFn) -> tuple[list[DecisionReport], list[list[DecisionReport]]]:
    """Reports, and the same ones shuffled and cut into parts, some of them empty."""
    reports = draw(many)
    mixed = draw(st.permutations(reports))
    cuts = sorted(draw(st.lists(st.integers(0, len(mixed)), max_size=4)))
    bounds = [0, *cuts, len(mixed)]
    return reports, [mixed[a:b] for a, b in pairwise(bounds)]


def as_bytes(statistics: ReuseStatistics) -> bytes:
    return json.dumps(to_record(statistics)).encode()


@settings(derandomize=True, deadline=None)
@given(splits())
def test_any_order_and_any_split_of_reports_give_the_same_bytes(
    both: tuple[list[DecisionReport], list[list[DecisionReport]]],
) -> None:
    reports, parts = both
    merged = sum((collect_statistics(part) for part in parts), ReuseStatistics())
    backwards = sum((collect_statistics(part) for part in reversed(parts)), ReuseStatistics())
    one_by_one = sum((collect_statistics([report]) for report in reports), ReuseStatistics())
    assert as_bytes(collect_statistics(reports)) == as_bytes(merged) == as_bytes(backwards)
    assert merged == one_by_one


@settings(derandomize=True, deadline=None)
@given(many, many, many)
def test_reuse_statistics_are_a_commutative_monoid(
    a: list[DecisionReport], b: list[DecisionReport], c: list[DecisionReport]
) -> None:
    x, y, z = collect_statistics(a), collect_statistics(b), collect_statistics(c)
    assert x + y == y + x
    assert (x + y) + z == x + (y + z)
    assert x + ReuseStatistics() == ReuseStatistics() + x == x


@settings(derandomize=True, deadline=None)
@given(many)
def test_joules_are_those_of_all_reports_but_for_half_a_microjoule_each(
    reports: list[DecisionReport],
) -> None:
    exact = sum((Fraction(report.retune_j) for report in reports), Fraction())
    assert abs(Fraction(tally_reports(reports).of().retune_uj, 10**6) - exact) <= len(
        reports
    ) * Fraction(1, 2 * 10**6)


@settings(derandomize=True, deadline=None)
@given(many)
def test_statistics_come_back_from_json(reports: list[DecisionReport]) -> None:
    statistics = collect_statistics(reports)
    types = {cls.__name__: cls for cls in (ReuseStatistics, Tally, Counts, Sketch)}
    assert from_record(json.loads(as_bytes(statistics)), types, "statistics") == statistics


def report(release: int, device_class: str, decision: str, retune_j: float = 0.0) -> DecisionReport:
    return DecisionReport(
        release=release,
        device_class=device_class,
        decision=decision,
        energy_j=1.0 + retune_j,
        retune_j=retune_j,
    )


def test_a_tally_by_hand() -> None:
    tally = tally_reports(
        [
            report(1, "phone", "retune", 10.25),
            report(1, "phone", "reuse"),
            report(1, "watch", "infeasible"),
            report(1, "watch", "reuse"),
            report(2, "phone", "retune", 0.1),
            report(2, "phone", "retune", 0.2),
        ]
    )
    first, phones = tally.of(release=1), tally.of(device_class="phone")
    assert (first.devices, first.reused, first.retuned) == (4, 2, 1)
    assert (first.retune_rate, first.reuse_rate) == (0.25, 0.5)
    assert (first.retune_j, phones.retune_j) == (10.25, 10.55)
    # as floats 0.1 + 0.2 is 0.30000000000000004
    assert tally.by_release()[2] == Counts(
        devices=2, retuned=2, retune_uj=300_000, energy_uj=2_300_000
    )
    assert tally.by_release()[2].joules_per_retune == 0.15
    assert tally.by_class() == {
        "phone": Counts(devices=4, reused=1, retuned=3, retune_uj=10_550_000, energy_uj=14_550_000),
        "watch": Counts(devices=2, reused=1, energy_uj=2_000_000),
    }
    assert tally.of(release=2, device_class="watch") == Counts()


def test_drift_and_gain_are_sketched_by_release_and_class() -> None:
    def seen(release: int, drift: float | None, gain: float | None) -> DecisionReport:
        return DecisionReport(
            release=release, device_class="a", decision="retune", drift=drift, gain=gain
        )

    found = collect_statistics([seen(1, 1e-4, 0.5), seen(1, 4e-4, None), seen(2, None, -0.25)])
    assert [(key, sketch.count) for key, sketch in found.drift] == [((1, "a"), 2)]
    assert [(key, sketch.count) for key, sketch in found.gain] == [((1, "a"), 1), ((2, "a"), 1)]
    assert found.drift[0][1].quantile(1.0) == pytest.approx(4e-4, rel=0.01)
    assert found.gain[1][1].quantile(0.5) == pytest.approx(-0.25, rel=0.01)


def test_an_empty_tally_has_no_rates() -> None:
    nobody = Tally().of()
    assert (nobody.retune_rate, nobody.reuse_rate, nobody.joules_per_retune) == (None, None, None)


def test_a_cell_named_twice_is_refused() -> None:
    cell = ((1, "phone"), Counts(devices=1))
    with pytest.raises(ValueError, match="cells must name each release and class once"):
        Tally(cells=(cell, cell))
