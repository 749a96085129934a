"""Costs and ledgers add like amounts: in any order, with nothing lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleettune.cost.ledger import Cost, Ledger, Stage

# Whole numbers below 2^40 add without rounding, so the laws hold exactly.
amounts = st.integers(0, 2**40).map(float)


costs = st.builds(
    Cost,
    time_s=amounts,
    energy_j=amounts,
    work_flop=amounts,
    down_bytes=amounts,
    up_bytes=amounts,
)
entries = st.lists(st.tuples(st.sampled_from(Stage), costs), max_size=8)


def ledger_of(entries: list[tuple[Stage, Cost]]) -> Ledger:
    found: dict[Stage, Cost] = {}
    for stage, cost in entries:
        found[stage] = found.get(stage, Cost()) + cost
    return Ledger(costs=tuple(found.items()))


@given(costs, costs, costs)
def test_costs_are_a_commutative_monoid(a: Cost, b: Cost, c: Cost) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Cost() == a


@given(entries.flatmap(lambda entries: st.tuples(st.just(entries), st.permutations(entries))))
def test_order_of_entries_changes_nothing(
    both: tuple[list[tuple[Stage, Cost]], list[tuple[Stage, Cost]]],
) -> None:
    assert ledger_of(both[0]) == ledger_of(both[1])
    assert hash(ledger_of(both[0])) == hash(ledger_of(both[1]))


fractions = st.floats(0, 1e9)


@given(st.permutations(list(Stage)), st.lists(fractions, min_size=len(Stage), max_size=len(Stage)))
def test_total_does_not_depend_on_the_order_of_stages_even_with_rounding(
    order: list[Stage], values: list[float]
) -> None:
    amount = dict(zip(Stage, values, strict=True))
    straight = ledger_of([(stage, Cost(energy_j=amount[stage])) for stage in Stage])
    shuffled = ledger_of([(stage, Cost(energy_j=amount[stage])) for stage in order])
    assert straight.total() == shuffled.total()


def test_a_night_by_hand() -> None:
    night = ledger_of(
        [
            (Stage.TUNE, Cost(time_s=10, energy_j=27)),
            (Stage.DOWNLOAD, Cost(time_s=4, down_bytes=8)),
            (Stage.TUNE, Cost(time_s=5, energy_j=13)),
            (Stage.WASTED, Cost(time_s=2, energy_j=6)),
            (Stage.IDLE, Cost(energy_j=10)),
            (Stage.OBSERVE, Cost(time_s=100, energy_j=900)),
        ]
    )
    tuned = Cost(time_s=15, energy_j=40)
    assert night.of(Stage.TUNE) == tuned
    assert night.of(Stage.UPLOAD) == Cost()
    in_order = [Stage.IDLE, Stage.DOWNLOAD, Stage.TUNE, Stage.WASTED, Stage.OBSERVE]
    assert [stage for stage, _ in night.costs] == in_order
    # 10 + 4 + 5 + 2 s and 27 + 13 + 6 + 10 J: what was wasted and the idle draw are the device's,
    # the observer's 100 s and 900 J are not.
    assert night.total() == Cost(time_s=21, energy_j=56, down_bytes=8)


def test_a_stage_that_cost_nothing_leaves_no_trace() -> None:
    assert Ledger(costs=((Stage.CHECK, Cost()),)) == Ledger()


def test_impossible_costs_are_refused() -> None:
    with pytest.raises(ValueError, match="time_s must be finite and >= 0, got -1"):
        Cost(time_s=-1)
    with pytest.raises(ValueError, match="work_flop must be finite and >= 0, got inf"):
        Cost(work_flop=float("inf"))
    with pytest.raises(ValueError, match="energy_j must be finite and >= 0, got nan"):
        Cost(energy_j=float("nan"))
    with pytest.raises(ValueError, match="each stage once, got tune, tune"):
        Ledger(costs=((Stage.TUNE, Cost(energy_j=1)), (Stage.TUNE, Cost(energy_j=1))))
