"""Costs and ledgers add like amounts: in any order, with nothing lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleettune.cost import Cost, Ledger, Stage

# Whole numbers below 2^40 add without rounding, so the laws hold exactly.
amounts = st.integers(0, 2**40).map(float)


@st.composite
def any_cost(draw: st.DrawFn) -> Cost:
    low, mid, high = sorted(draw(st.tuples(amounts, amounts, amounts)))
    time_s, work_flop, down_bytes, up_bytes = draw(st.tuples(amounts, amounts, amounts, amounts))
    return Cost(
        time_s=time_s,
        energy_j=mid,
        energy_low_j=low,
        energy_high_j=high,
        work_flop=work_flop,
        down_bytes=down_bytes,
        up_bytes=up_bytes,
    )


costs = any_cost()
charges = st.lists(st.tuples(st.sampled_from(Stage), costs), max_size=8)


def ledger_of(entries: list[tuple[Stage, Cost]]) -> Ledger:
    ledger = Ledger()
    for stage, cost in entries:
        ledger = ledger.charge(stage, cost)
    return ledger


ledgers = charges.map(ledger_of)


def joules(energy_j: float) -> Cost:
    return Cost(energy_j=energy_j, energy_low_j=energy_j, energy_high_j=energy_j)


@given(costs, costs, costs)
def test_costs_are_a_commutative_monoid(a: Cost, b: Cost, c: Cost) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Cost() == a


@given(ledgers, ledgers, ledgers)
def test_ledgers_are_a_commutative_monoid(a: Ledger, b: Ledger, c: Ledger) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Ledger() == a


@given(ledgers, ledgers)
def test_total_of_a_sum_is_the_sum_of_totals(a: Ledger, b: Ledger) -> None:
    assert (a + b).total() == a.total() + b.total()


@given(charges.flatmap(lambda entries: st.tuples(st.just(entries), st.permutations(entries))))
def test_order_of_charges_changes_nothing(
    both: tuple[list[tuple[Stage, Cost]], list[tuple[Stage, Cost]]],
) -> None:
    assert ledger_of(both[0]) == ledger_of(both[1])
    assert hash(ledger_of(both[0])) == hash(ledger_of(both[1]))


fractions = st.floats(0, 1e9)


@given(st.permutations(list(Stage)), st.lists(fractions, min_size=10, max_size=10))
def test_total_does_not_depend_on_the_order_of_stages_even_with_rounding(
    order: list[Stage], values: list[float]
) -> None:
    amount = dict(zip(Stage, values, strict=True))
    straight = ledger_of([(stage, joules(amount[stage])) for stage in Stage])
    shuffled = ledger_of([(stage, joules(amount[stage])) for stage in order])
    assert straight.total() == shuffled.total()


def test_a_night_by_hand() -> None:
    night = (
        Ledger()
        .charge(Stage.TUNE, Cost(time_s=10, energy_j=27, energy_low_j=20, energy_high_j=30))
        .charge(Stage.DOWNLOAD, Cost(time_s=4, down_bytes=8))
        .charge(Stage.TUNE, Cost(time_s=5, energy_j=13, energy_low_j=10, energy_high_j=15))
        .charge(Stage.OBSERVE, Cost(time_s=100, energy_j=900, energy_high_j=1000))
    )
    tuned = Cost(time_s=15, energy_j=40, energy_low_j=30, energy_high_j=45)
    assert night.of(Stage.TUNE) == tuned
    assert night.of(Stage.UPLOAD) == Cost()
    assert [stage for stage, _ in night.costs] == [Stage.DOWNLOAD, Stage.TUNE, Stage.OBSERVE]
    # 10 + 4 + 5 s; the observer's 100 s and 900 J are not the device's.
    assert night.total() == tuned + Cost(time_s=4, down_bytes=8)


def test_a_stage_that_cost_nothing_leaves_no_trace() -> None:
    assert Ledger().charge(Stage.CHECK, Cost()) == Ledger()


def test_impossible_costs_are_refused() -> None:
    with pytest.raises(ValueError, match="time_s must be finite and >= 0, got -1"):
        Cost(time_s=-1)
    with pytest.raises(ValueError, match="work_flop must be finite and >= 0, got inf"):
        Cost(work_flop=float("inf"))
    with pytest.raises(ValueError, match="between energy_low_j and energy_high_j, got 5 J"):
        Cost(energy_j=5)
    with pytest.raises(ValueError, match="each stage once, got tune, tune"):
        Ledger(costs=((Stage.TUNE, joules(1)), (Stage.TUNE, joules(1))))
