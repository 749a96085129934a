"""Workloads add like amounts: in any order, with nothing lost, and equal ones compare equal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleettune.cost.ledger import Stage
from fleettune.cost.work import Work
from fleettune.cost.workload import (
    COMPUTING,
    Amount,
    Entry,
    Phase,
    Workload,
    computing,
    moving,
    transferring,
)

# Whole numbers below 2^40 add without rounding, so the laws hold exactly.
numbers = st.integers(0, 2**40).map(float)
amounts = st.builds(Amount, flop=numbers, moved_bytes=numbers, bursts=numbers)
entries = st.lists(st.tuples(st.sampled_from(Stage), st.sampled_from(Phase), amounts), max_size=10)


def workload_of(charged: list[Entry]) -> Workload:
    workload = Workload()
    for entry in charged:
        workload = workload.plus(*entry)
    return workload


workloads = entries.map(workload_of)


@given(amounts, amounts, amounts)
def test_amounts_are_a_commutative_monoid(a: Amount, b: Amount, c: Amount) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Amount() == a


@given(workloads, workloads, workloads)
def test_workloads_are_a_commutative_monoid(a: Workload, b: Workload, c: Workload) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Workload() == a == Workload() + a


@given(amounts, st.integers(0, 8))
def test_a_share_of_an_amount_and_the_rest_are_the_amount(amount: Amount, eighths: int) -> None:
    # Eighths of whole numbers below 2^40 are exact.
    assert amount * (eighths / 8) + amount * (1 - eighths / 8) == amount
    assert amount * 0 == Amount()
    assert amount * 1 == amount


@given(entries.flatmap(lambda given: st.tuples(st.just(given), st.permutations(given))))
def test_the_order_of_charges_changes_nothing(both: tuple[list[Entry], list[Entry]]) -> None:
    one, other = workload_of(both[0]), workload_of(both[1])
    assert one == other
    assert hash(one) == hash(other)


@given(workloads.flatmap(lambda w: st.tuples(st.just(w), st.permutations(list(w.entries)))))
def test_entries_given_in_any_order_are_sorted(both: tuple[Workload, list[Entry]]) -> None:
    assert Workload(entries=tuple(both[1])) == both[0]


@given(workloads, workloads, st.sampled_from(Stage), st.sampled_from(Phase))
def test_a_sum_holds_of_every_phase_what_its_parts_hold(
    a: Workload, b: Workload, stage: Stage, phase: Phase
) -> None:
    assert (a + b).of(stage, phase) == a.of(stage, phase) + b.of(stage, phase)


def test_entries_stand_in_the_order_of_a_night_by_hand() -> None:
    one = Amount(flop=1.0)
    workload = Workload(
        entries=(
            (Stage.UPLOAD, Phase.SEND, one),
            (Stage.TUNE, Phase.BACKWARD, one),
            (Stage.DOWNLOAD, Phase.WRITE, one),
            (Stage.TUNE, Phase.FORWARD, one),
            (Stage.DOWNLOAD, Phase.RECEIVE, one),
        )
    )
    assert [(stage.value, phase.value) for stage, phase, _ in workload.entries] == [
        ("download", "receive"),
        ("download", "write"),
        ("tune", "forward"),
        ("tune", "backward"),
        ("upload", "send"),
    ]


def test_empty_amounts_leave_no_trace() -> None:
    assert Workload().plus(Stage.CHECK, Phase.READ, Amount()) == Workload()
    empty = (Stage.CHECK, Phase.READ, Amount())
    full = (Stage.TUNE, Phase.FORWARD, Amount(flop=2.0))
    assert Workload(entries=(empty, full)).entries == (full,)
    assert Workload().of(Stage.CHECK, Phase.READ) == Amount()


def test_amounts_by_hand() -> None:
    assert computing(Work(flop=3.0, traffic_bytes=5.0)) == Amount(flop=3.0, moved_bytes=5.0)
    assert moving(7.0) == Amount(moved_bytes=7.0)
    # one transfer is one burst of the radio, two are two
    assert transferring(7.0) + transferring(1.0) == Amount(moved_bytes=8.0, bursts=2.0)


def test_radio_and_storage_are_not_among_the_computing_phases() -> None:
    others = {Phase.RECEIVE, Phase.SEND, Phase.READ, Phase.WRITE}
    assert set(COMPUTING) == set(Phase) - others


@pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["flop", "moved_bytes", "bursts"])
def test_impossible_amounts_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be finite and >= 0, got {value}"):
        Amount(**{name: value})


def test_a_phase_of_a_stage_named_twice_is_refused() -> None:
    twice = (Stage.TUNE, Phase.FORWARD, Amount(flop=1.0))
    with pytest.raises(ValueError, match="each stage and phase once"):
        Workload(entries=(twice, twice))
    # the same phase of another stage, and another phase of the same stage, are other entries
    other = (Stage.CHECK, Phase.FORWARD, Amount(flop=1.0))
    third = (Stage.TUNE, Phase.BACKWARD, Amount(flop=1.0))
    assert len(Workload(entries=(twice, other, third)).entries) == 3
