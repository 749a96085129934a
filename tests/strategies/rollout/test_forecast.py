"""Forecasts: by hand on small cohorts, exact on a census, and honest on resampled cohorts."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleettune.seeds import Purpose, stream
from strategies.learning.decision_reports import DecisionReport
from strategies.learning.decision_sums import Tally, tally_reports
from strategies.rollout.forecast import (
    DeviceClass,
    FleetOutcome,
    Stratum,
    covers,
    forecast,
    forecast_rows,
    rate_interval,
    stratify,
    typical_retune_j,
)
from strategies.rollout.intervals import NORMAL, Interval, student_quantile, wilson
from strategies.rollout.rules import cohort_size
from tests.strategies.rollout.drawn_cohorts import (
    by_class,
    outcome_of,
    shuffle_classes,
    take_cohort,
)

CLASSES = {"flagship": 0.3, "middle": 0.5, "budget": 0.17, "rare": 0.03}
BASE_J = {"flagship": 20.0, "middle": 30.0, "budget": 60.0, "rare": 15.0}
RETUNE_J = {"flagship": 100.0, "middle": 200.0, "budget": 500.0, "rare": 80.0}


def report(
    device_class: str, retune_j: float | None = None, base_j: float = 1.0, down_bytes: float = 0.0
) -> DecisionReport:
    return DecisionReport(
        release=1,
        device_class=device_class,
        decision="reuse" if retune_j is None else "retune",
        energy_j=base_j + (retune_j or 0.0),
        retune_j=retune_j or 0.0,
        down_bytes=down_bytes,
    )


def table(seed: int, devices: int, rate: float) -> list[DecisionReport]:
    """Every device's outcome: retunes of skewed cost, half of the devices load the delta only."""
    rng = stream(seed, Purpose.COEFFICIENTS)
    return [
        report(
            name,
            float(RETUNE_J[name] * rng.lognormal(0, 0.5)) if rng.random() < rate else None,
            float(BASE_J[name] * rng.lognormal(0, 0.2)),
            1e7 if rng.random() < 0.5 else 1e6,
        )
        for name, share in CLASSES.items()
        for _ in range(round(devices * share))
    ]


def fleet_of(reports: list[DecisionReport]) -> dict[str, DeviceClass]:
    return {
        name: DeviceClass(devices=len(members), retune_j=RETUNE_J[name])
        for name, members in by_class(reports).items()
    }


def test_one_class_by_hand() -> None:
    # 5 of 20 of 1000 devices retuned: Wilson at 20 / (1 - 2 %) devices, but for the four pseudo-
    # devices, which change nothing where there is one class
    cohort = [report("a", 10.0)] * 5 + [report("a")] * 15
    found = forecast({"a": DeviceClass(devices=1000, retune_j=7.0)}, cohort)
    assert (found.devices, found.sampled) == (1000, 20)
    assert found.retune_rate.value == 0.25
    expected = wilson(0.25, 20 / 0.98)
    assert found.retune_rate.low == pytest.approx(expected.low)
    assert found.retune_rate.high == pytest.approx(expected.high)
    # 1000 of 1 J beside retuning, and 250 retunes of 10 J, not 7: the cohort settles the factor
    assert found.energy_j.value == pytest.approx(1000 + 250 * 10)
    assert found.down_bytes == Interval(value=0.0, low=0.0, high=0.0)


def test_two_classes_by_hand() -> None:
    # 2 of 4 and 0 of 6 in classes of 100 and 300: (100 * .5 + 300 * 0) / 400
    cohort = [report("a", 1.0)] * 2 + [report("a")] * 2 + [report("b", base_j=5.0)] * 6
    fleet = {
        "a": DeviceClass(devices=100, retune_j=1.0),
        "b": DeviceClass(devices=300, retune_j=4.0),
    }
    strata = stratify(fleet, cohort)
    assert [(one.devices, one.sampled, one.retuned) for one in strata] == [(100, 4, 2), (300, 6, 0)]
    found = forecast(fleet, cohort)
    assert found.retune_rate.value == 0.125
    # rates shrunk by four devices of .125: (2 + .5) / 8 and .5 / 10
    variance = 0.25**2 * 0.96 / 4 * 0.3125 * 0.6875 + 0.75**2 * 0.98 / 6 * 0.05 * 0.95
    expected = wilson(0.125, 0.125 * 0.875 / variance)
    assert found.retune_rate.low == pytest.approx(expected.low)
    assert found.retune_rate.high == pytest.approx(expected.high)
    # 100 of 1 J, 300 of 5 J, and 50 retunes of 1 J in a; of b's nobody retuned
    assert found.energy_j.value == pytest.approx(100 + 1500 + 50)
    # if everybody retuned: 100 of 1 J and 300 of 4 J, so Wilson's rate is of joules
    spent = rate_interval(strata, [100 / 1300, 1200 / 1300])
    assert spent.value == pytest.approx(50 / 1300)
    assert found.energy_j.high > found.energy_j.value + 1300 * (spent.high - spent.value)


def test_a_stratified_mean_by_hand() -> None:
    # bytes 1 to 4 and 10 four times in classes of 40 and 60: 40 * 2.5 + 60 * 10; variance of the
    # first 5/3, none in the second; eight reports less two classes leave 6 degrees of freedom
    cohort = [report("a", down_bytes=size) for size in (1.0, 2.0, 3.0, 4.0)]
    cohort += [report("b", down_bytes=10.0)] * 4
    fleet = {
        "a": DeviceClass(devices=40, retune_j=1.0),
        "b": DeviceClass(devices=60, retune_j=1.0),
    }
    found = forecast(fleet, cohort).down_bytes
    assert found.value == 700.0
    spread = student_quantile(6) * math.sqrt(40**2 * 0.9 * (5 / 3) / 4)
    assert (found.low, found.high) == pytest.approx((700 - spread, 700 + spread))


def test_a_cohort_in_which_nobody_retuned_still_doubts_its_joules() -> None:
    cohort = [report("a")] * 20
    found = forecast({"a": DeviceClass(devices=1000, retune_j=50.0)}, cohort)
    highest = wilson(0.0, 20 / 0.98).high
    assert highest == pytest.approx(NORMAL**2 / (20 / 0.98 + NORMAL**2))
    assert (found.retune_rate.low, found.retune_rate.high) == (0.0, pytest.approx(highest))
    assert found.energy_j.value == found.energy_j.low == pytest.approx(1000)
    assert found.energy_j.high == pytest.approx(1000 + 50_000 * highest)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(0, 99), st.integers(10, 60), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_a_census_forecasts_exactly_what_happens(seed: int, devices: int, rate: float) -> None:
    reports = table(seed, devices, rate)
    found = forecast(fleet_of(reports), reports)
    assert all(covers(found, outcome_of(reports)).values())
    assert found.retune_rate.half_width < 1e-12
    assert found.energy_j.half_width < 1e-6 * found.energy_j.value


@settings(derandomize=True, deadline=None, max_examples=20)
@given(st.integers(0, 99), st.data())
def test_the_order_of_reports_changes_no_bit(seed: int, data: st.DataObject) -> None:
    reports = table(seed, 400, 0.3)
    cohort = take_cohort(shuffle_classes(by_class(reports), stream(seed, Purpose.SAMPLING)), 30)
    mixed = data.draw(st.permutations(cohort))
    assert forecast(fleet_of(reports), cohort) == forecast(fleet_of(reports), mixed)


def test_classes_of_few_sampled_devices_are_put_together() -> None:
    fleet = {name: DeviceClass(devices=50, retune_j=2.0) for name in "abcd"}
    cohort = [report("a")] * 4 + [report("b")] * 4 + [report("c")]
    # c has one device and d none: together one, too few, so they join a, the first of the smallest
    assert [(one.devices, one.sampled) for one in stratify(fleet, cohort)] == [(150, 5), (50, 4)]
    both = stratify(fleet, [*cohort, report("d")])
    assert [(one.devices, one.sampled, one.retune_j) for one in both] == [
        (50, 4, 100.0),
        (50, 4, 100.0),
        (100, 2, 200.0),
    ]


def test_a_stratum_by_hand() -> None:
    one = Stratum(devices=10, retune_j=1.0, reports=(report("a", 1.0), report("a")))
    assert (one.sampled, one.retuned, one.unseen) == (2, 1, 0.8)
    assert one.shrunk_rate(0.25) == (1 + 4 * 0.25) / 6


def test_a_first_cohort_is_a_share_but_no_fewer_than_twenty() -> None:
    sizes = [cohort_size(devices) for devices in (5, 100, 1000, 1050, 5000, 10**6)]
    assert sizes == [5, 20, 20, 21, 100, 20_000]
    assert cohort_size(100, share=0.07, minimum=1) == 7


def test_forecasts_stand_beside_outcomes() -> None:
    reports = table(0, 1000, 0.4)
    outcome = outcome_of(reports)
    assert outcome.devices == 1000
    assert outcome.energy_j == math.fsum(one.energy_j for one in reports)
    found = forecast(
        fleet_of(reports),
        take_cohort(shuffle_classes(by_class(reports), stream(0, Purpose.SAMPLING)), 20),
    )
    assert covers(found, outcome)["retune_rate"]
    far = FleetOutcome(devices=1000, retune_rate=1.0, energy_j=0.0, down_bytes=1e12)
    assert not any(covers(found, far).values())
    rate = json.loads(json.dumps(forecast_rows(found, outcome)))[0]
    assert (rate["quantity"], rate["covered"]) == ("retune_rate", True)
    assert rate["low"] <= rate["value"] <= rate["high"]
    assert rate["outcome"] == outcome.retune_rate


def test_typical_joules_come_from_earlier_releases() -> None:
    tally = tally_reports([report("a", 10.0), report("a", 20.0), report("b", 60.0), report("c")])
    assert typical_retune_j(tally, "abcd") == {"a": 15.0, "b": 60.0, "c": 30.0, "d": 30.0}
    # nobody ever retuned: only ratios count, and all classes are alike
    assert typical_retune_j(Tally(), "ab") == {"a": 1.0, "b": 1.0}


def test_what_cannot_be_forecast_is_refused() -> None:
    fleet = {"a": DeviceClass(devices=9, retune_j=1.0)}
    cohort = [report("a")] * 8
    with pytest.raises(ValueError, match="a cohort must be >= 8 devices, got 7"):
        forecast(fleet, cohort[1:])
    with pytest.raises(ValueError, match=r"one of \['a'\], got b"):
        forecast(fleet, [*cohort, report("b")])
    with pytest.raises(ValueError, match=r"one release, got \[1, 2\]"):
        forecast(fleet, [*cohort, replace(cohort[0], release=2)])
    with pytest.raises(ValueError, match="a has 9 devices, got 10 reports"):
        forecast(fleet, [report("a")] * 10)
    with pytest.raises(ValueError, match="devices must be >= 1, got 0"):
        DeviceClass(devices=0, retune_j=1.0)
    with pytest.raises(ValueError, match="retune_j must be finite and > 0 J, got 0"):
        DeviceClass(devices=1, retune_j=0.0)
    with pytest.raises(ValueError, match="at least one device, got none"):
        outcome_of([])


def test_a_first_cohort_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="share of a first cohort must be > 0 and <= 1, got 0"):
        cohort_size(10, share=0.0)
    with pytest.raises(ValueError, match="devices must be >= 1, got 0"):
        cohort_size(0)
    with pytest.raises(ValueError, match="minimum of a first cohort must be >= 1 device, got 0"):
        cohort_size(10, minimum=0)
