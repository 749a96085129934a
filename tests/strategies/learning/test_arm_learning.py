"""Learning: reports alone make tables and guidance, in any order, split, and after a restart."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from flwr.app import Message, MessageType, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fleettune.cost.ledger import Cost, Ledger, Stage
from fleettune.messages.flower_records import OBSERVATION, encode_report
from fleettune.messages.report import Observation, Outcome, Report, Statistics
from fleettune.records import Types, from_record, to_record
from fleettune.releases.guidance import Guidance, features_of
from fleettune.seeds import Purpose, stream
from simulations.engines.flower_internals import take_identity
from strategies.learning.arm_learning import (
    ArmLearning,
    add_totals,
    decision_rows,
    follow_cohort,
    guidance_of,
    guidance_rows,
    guide_release,
)
from strategies.learning.calibration import CalibratedRule, ReleaseDecision, RetuneRule
from strategies.learning.decision_reports import DecisionReport, read_decision
from strategies.learning.decision_sums import (
    Counts,
    DecisionAccumulator,
    DecisionTotals,
    Evidence,
    ReuseStatistics,
    Tally,
    collect_evidence,
    collect_statistics,
)
from strategies.learning.guidance_rules import Fitted, GuidanceRule, ReleaseGuidance, Unguided
from strategies.learning.quantile_sketch import Sketch
from strategies.rounds.sums import sum_replies

FITTED = Fitted(
    margin=0.05,
    false_reuse_cost=3.0,
    explore=0.25,
    min_explored=10,
    max_weight=50.0,
    prior_kappa=0.1,
    prior_slope=2.0,
)


TYPES: Types = {
    cls.__name__: cls
    for cls in (
        *(ArmLearning, DecisionTotals, ReuseStatistics, Tally, Counts, Sketch, Evidence),
        *(DecisionReport, ReleaseGuidance, Guidance, CalibratedRule, RetuneRule, ReleaseDecision),
    )
}


def night(
    device: int = 0,
    release: int = 1,
    decision: str = "retune",
    profile: str = "phone",
    attendance: str = "present",
    **numbers: float | int | None,
) -> Statistics:
    serving = (Stage.SERVE, Cost(energy_j=1.0, down_bytes=5.0))
    probing, tuning = (Stage.PROBE, Cost(energy_j=2.0)), (Stage.TUNE, Cost(energy_j=8.0))
    ledger = Ledger(costs=(serving, probing, tuning))
    return Statistics(
        outcome=Outcome(
            device=device,
            round=release,
            release=release,
            profile=profile,
            attendance=attendance,
            decision=decision,
            reason="test",
        ),
        ledger=ledger,
        **numbers,  # pyright: ignore[reportArgumentType] - fields by name
    )


def fleet(release: int, devices: int, seed: int = 0) -> list[Statistics]:
    """Devices that look at drift and canaries; retuning helps those whose canaries got worse."""
    rng = stream(seed, Purpose.COEFFICIENTS, release)
    found: list[Statistics] = []
    for device in range(devices):
        worse = float(rng.normal(0.1, 0.1))
        drift = 1e-4 * (1 + release) * float(rng.uniform(0.9, 1.1))
        numbers = {"drift": drift, "strength": 1e-3, "canary_worse": worse, "canary_before": 3.0}
        profile = ("phone", "watch")[device % 2]
        if rng.random() < 0.25:
            after = 3.0 - worse + float(rng.normal(0, 0.05))
            lot = {"explored": 1, "propensity": 0.25, "canary_after": after}
            found.append(night(device, release, "retune", profile, **numbers, **lot))
        else:
            lot = {"explored": 0, "propensity": 0.25}
            found.append(night(device, release, "reuse", profile, **numbers, **lot))
    return found


def message(statistics: Statistics, observation: Observation | None = None) -> Message:
    take_identity(1)
    asked = Message(RecordDict(), statistics.outcome.device + 1, MessageType.TRAIN, group_id="a")
    report = Report(statistics=statistics, delta=None, observation=observation)
    return Message(encode_report(report), reply_to=asked)


def heard(learning: ArmLearning, nights: list[Statistics]) -> ArmLearning:
    """The same after a round in which these devices replied."""
    running = sum_replies(["a"], [message(one) for one in nights], keeps=True)
    return add_totals(learning, running["a"].reports.totals())


def told(
    learning: ArmLearning, version: int, rule: GuidanceRule = FITTED
) -> tuple[ArmLearning, Guidance | None]:
    """What devices are told with a release, made now unless it was before."""
    guided = guide_release(learning, rule, version)
    return guided, guidance_of(guided, rule, version)


def learned(replies: list[Message], version: int = 2) -> bytes:
    """What the server knows after one round, its tables and the next guidance, as bytes."""
    running = sum_replies(["a"], replies, keeps=True)
    learning, _ = told(add_totals(ArmLearning(), running["a"].reports.totals()), version)
    every = [to_record(learning), decision_rows(learning), guidance_rows(learning, FITTED)]
    return json.dumps(every).encode()


@pytest.mark.parametrize(
    "numbers",
    [
        {"drift": -1.0},
        {"drift": float("nan"), "strength": 1.0},
        {"drift": 1e301},
        {"canary_before": 1e308, "canary_after": -1e308},
        {"propensity": 0.0},
        {"propensity": 2.0},
    ],
)
def test_impossible_numbers_are_counted_and_change_nothing_else(
    numbers: dict[str, float],
) -> None:
    running = sum_replies(
        ["a"], [message(night(0)), message(replace(night(1), **numbers))], keeps=True
    )["a"]
    closed = running.close(0, 1)
    assert (closed.devices, closed.rejected) == (2, {"bad_decision": 1})
    alone = sum_replies(["a"], [message(night(0))], keeps=True)["a"]
    assert running.reports.totals() == alone.reports.totals()


def test_nothing_of_an_observation_is_needed() -> None:
    seen = Observation(exchanges=3, nll=2.0, exact_match=0.5, retune_gain=0.7)
    observed = [message(one, seen) for one in fleet(1, 40)]
    assert all(OBSERVATION in one.content for one in observed)
    assert learned(observed) == learned([message(one) for one in fleet(1, 40)])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_any_order_of_replies_gives_the_same_tables_to_the_last_byte(seed: int) -> None:
    replies = [message(one) for one in fleet(1, 60)]
    shuffled = [replies[i] for i in np.random.default_rng(seed).permutation(60)]
    assert learned(replies) == learned(shuffled)


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 300), max_size=4), backwards=st.booleans())
def test_any_split_over_servers_gives_what_one_server_has(cuts: list[int], backwards: bool) -> None:
    reports = [one for one in map(read_decision, fleet(1, 300)) if one is not None]
    edges = [0, *sorted(cuts), 300]
    parts: list[DecisionTotals] = []
    for start, end in pairwise(edges):
        server = DecisionAccumulator(keeps=True)
        for report in reports[start:end]:
            server.add(report)
        parts.append(server.totals())
    merged = sum(parts[::-1] if backwards else parts, DecisionTotals())
    assert merged == DecisionTotals(
        statistics=collect_statistics(reports), evidence=collect_evidence(reports)
    )


def test_a_restored_server_goes_on_with_the_same_bytes() -> None:
    def night_of(learning: ArmLearning, release: int) -> ArmLearning:
        return heard(told(learning, release)[0], fleet(release, 60))

    whole = night_of(night_of(ArmLearning(), 1), 2)
    plain = json.loads(json.dumps(to_record(whole)))
    restored = from_record(plain, TYPES, "learning")
    assert restored == whole
    whole, restored = (told(night_of(one, 3), 4)[0] for one in (whole, restored))
    assert json.dumps(to_record(whole)) == json.dumps(to_record(restored))
    assert guidance_rows(whole, FITTED) == guidance_rows(restored, FITTED)
    assert decision_rows(whole) == decision_rows(restored)


def test_the_next_release_comes_with_what_the_last_ones_reports_say() -> None:
    assert told(ArmLearning(), 0)[1] is None
    learning, first = told(ArmLearning(), 1)
    assert first is not None
    assert (first.intercept, first.decision, first.explore) == (None, "", 0.25)
    reports = fleet(1, 400)
    learning, fitted = told(heard(learning, reports), 2)
    assert fitted is not None
    assert fitted.threshold == 0.25  # a wrong reuse costs three retunes in vain
    # canaries say who is helped in this world, by more than the margin of 0.05
    low, high = (
        fitted.probability(features_of(2e-4, 1e-3, worse, 1.0))
        for worse in (0.05 - 0.1, 0.05 + 0.1)
    )
    assert low < 0.1
    assert high > 0.9
    # what comes later changes nothing of a release that is out
    assert told(heard(learning, reports), 2)[1] == fitted


@pytest.mark.parametrize(("gain", "decision"), [(0.2, "retune"), (0.0, "reuse")])
def test_a_cohorts_gains_decide_for_the_others_of_the_same_release(
    gain: float, decision: str
) -> None:
    learning, before = told(ArmLearning(), 3)
    nights = [night(n, 3, canary_before=3.0, canary_after=3.0 - gain) for n in range(12)]
    cohort = [one for one in map(read_decision, nights) if one is not None]
    few = follow_cohort(learning, FITTED, 3, cohort[:9])
    assert told(few, 3)[1] == before  # fewer than ten say nothing
    _, found = told(follow_cohort(learning, FITTED, 3, cohort), 3)
    assert found is not None
    assert found.decision == decision


def test_a_rule_is_judged_by_retunes_that_it_was_not_fitted_to() -> None:
    learning = ArmLearning()
    for release in (1, 2):
        learning = heard(told(learning, release)[0], fleet(release, 400))
    before, second = guidance_rows(learning, FITTED)
    retunes = sum(one.outcome.decision == "retune" for one in fleet(2, 400))
    assert (second["fitted"], second["judged_devices"]) == (True, retunes)
    assert second["auc"] > 0.9
    # a report of a later release is no part of what a rule is judged by
    assert before["judged_devices"] != second["judged_devices"]


def test_without_guidance_nothing_is_kept_of_a_single_device() -> None:
    running = sum_replies(["a"], [message(one) for one in fleet(1, 60)])
    learning = add_totals(ArmLearning(), running["a"].reports.totals())
    assert learning.totals.evidence == Evidence()
    assert told(learning, 2, Unguided()) == (learning, None)


def test_the_table_has_a_row_per_class_and_one_over_all() -> None:
    nights = [
        night(0, profile="phone", drift=1e-4, canary_before=3.0, canary_after=2.0),
        night(1, decision="reuse", profile="phone", drift=1e-4),
        night(2, decision="reuse", profile="watch", drift=4e-4),
    ]
    every, phone, watch = decision_rows(heard(ArmLearning(), nights))
    assert [row["device_class"] for row in (every, phone, watch)] == ["all", "phone", "watch"]
    assert [row["devices"] for row in (every, phone, watch)] == [3, 2, 1]
    assert (every["retune_rate"], phone["retune_rate"], watch["retune_rate"]) == (1 / 3, 0.5, 0.0)
    assert (every["retune_j"], watch["retune_j"], watch["joules_per_retune"]) == (10.0, 0.0, None)
    assert (every["drift_count"], every["gain_count"], watch["gain_q50"]) == (3, 1, None)
    assert every["drift_q95"] == pytest.approx(1e-4, rel=0.01)  # the second of three
    assert watch["drift_q50"] == pytest.approx(4e-4, rel=0.01)
