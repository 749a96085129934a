"""Calibration: weighting undoes what a biased sample does, and too few explorers change nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from fleettune.seeds import Purpose, stream
from strategies.learning.calibration import (
    RetuneRule,
    RuleCalibration,
    known_retunes,
    retune_weight,
)
from strategies.learning.decision_reports import DecisionReport
from strategies.learning.logistic import probabilities
from strategies.learning.rule_accuracy import assess

MARGIN = 0.05
EXPLORE = 0.1
PRIOR = RetuneRule(intercept=0.0, weights=(("canary", 1.0),), threshold=0.5)
CALIBRATION = RuleCalibration(prior=PRIOR, margin=MARGIN)


def retuned(
    canary: float, gain: float | None, propensity: float = 1.0, release: int = 1
) -> DecisionReport:
    return DecisionReport(
        release=release,
        device_class="phone",
        decision="retune",
        features=(("canary", canary),),
        propensity=propensity,
        explored=propensity < 1,
        gain=gain,
    )


def reused(canary: float, propensity: float = EXPLORE) -> DecisionReport:
    return DecisionReport(
        release=1,
        device_class="phone",
        decision="reuse",
        features=(("canary", canary),),
        propensity=propensity,
    )


def world(seed: int, devices: int, explore: float) -> list[DecisionReport]:
    """A fleet whose rule saw something that the fit does not: the retuned are a biased sample.

    Help depends on the canary, which is fitted, and on how much the user changed, which is not; the
    rule in the field retunes those who changed most, and a share of the others at random.
    """
    rng = stream(seed, Purpose.COEFFICIENTS)
    canary, change = rng.normal(size=devices), rng.normal(size=devices)
    helped = rng.random(devices) < probabilities(2.0 * canary + 2.0 * change - 1.0)
    wanted = change > 0.3
    lucky = rng.random(devices) < explore
    return [
        retuned(c, MARGIN + (0.1 if h else -0.1), 1.0 if w else explore)
        if w or lot
        else reused(c, explore)
        for c, h, w, lot in zip(map(float, canary), helped, wanted, lucky, strict=True)
    ]


def coefficients(rule: RetuneRule) -> tuple[float, float]:
    return rule.intercept, rule.weights[0][1]


def test_weighting_recovers_what_a_biased_sample_hides() -> None:
    # the truth: the fit to a fleet of the same users in which everybody retunes
    truth = CALIBRATION.fit(world(0, 10_000, explore=1.0)).rule
    biased = world(1, 10_000, explore=EXPLORE)
    weighted = CALIBRATION.fit(biased)
    plain = CALIBRATION.fit([replace(one, propensity=1.0, explored=False) for one in biased])
    errors = np.abs(np.subtract(coefficients(weighted.rule), coefficients(truth)))
    # with 1,500 effective devices the standard errors are about 0.06
    assert weighted.effective_devices == pytest.approx(1_500, rel=0.1)
    assert errors.max() < 0.25
    # the unweighted intercept takes the retuned for everybody: more than one too high in log odds
    assert plain.rule.intercept - truth.intercept > 1.0


def test_weighting_recovers_the_error_rates_of_the_whole_fleet() -> None:
    everyone, biased = world(0, 10_000, explore=1.0), world(1, 10_000, explore=EXPLORE)
    rule = CALIBRATION.fit(biased).rule
    truth = assess(rule, everyone, MARGIN, CALIBRATION.max_weight)
    weighted = assess(rule, biased, MARGIN, CALIBRATION.max_weight)
    plain = assess(rule, biased, MARGIN, max_weight=1.0)
    assert truth.auc is not None
    assert truth.errors.false_retune is not None
    assert weighted.auc == pytest.approx(truth.auc, abs=0.03)
    assert weighted.errors.false_reuse == pytest.approx(truth.errors.false_reuse, abs=0.05)
    assert weighted.errors.false_retune == pytest.approx(truth.errors.false_retune, abs=0.05)
    assert abs((plain.errors.false_retune or 0.0) - truth.errors.false_retune) > 0.05


def test_one_release_with_random_retunes_mends_a_rule_that_fires_too_late() -> None:
    def night(seed: int, rule: RetuneRule) -> list[DecisionReport]:
        """2,000 devices under a rule; retuning gains what the canary lost, give or take."""
        rng = stream(seed, Purpose.COEFFICIENTS)
        canary = [float(value) for value in rng.uniform(0.0, 1.0, 2_000)]
        gains = [float(value) for value in canary + rng.normal(-0.3, 0.1, 2_000)]
        lots = rng.random(2_000) < EXPLORE
        made: list[DecisionReport] = []
        for seen, gain, lot in zip(canary, gains, lots, strict=True):
            wants = rule.probability(reused(seen)) > rule.threshold
            chance = 1.0 if wants else EXPLORE
            made.append(retuned(seen, gain, chance) if wants or lot else reused(seen))
        return made

    # asks for a canary above 0.8, where one above 0.35 means a gain above the margin
    late = RetuneRule(intercept=-8.0, weights=(("canary", 10.0),), threshold=0.5)
    mended = replace(CALIBRATION, prior=late).fit(night(0, late))
    everybody = night(1, replace(late, intercept=100.0))
    before = assess(late, everybody, MARGIN, CALIBRATION.max_weight).errors
    after = assess(mended.rule, everybody, MARGIN, CALIBRATION.max_weight).errors
    assert before.false_reuse is not None
    assert after.false_reuse is not None
    assert after.false_retune is not None
    assert before.false_reuse > 0.6
    # a canary within about 0.1 of the border says little, which is a fifth of all
    assert after.false_reuse < 0.15
    assert after.false_retune < 0.2
    assert -mended.rule.intercept / mended.rule.weights[0][1] == pytest.approx(0.35, abs=0.05)


def test_the_threshold_is_where_both_mistakes_are_expected_to_cost_the_same() -> None:
    for cost in (0.25, 1.0, 9.0):
        threshold = replace(CALIBRATION, false_reuse_cost=cost).threshold
        assert cost * threshold == pytest.approx(1 - threshold)
    assert replace(CALIBRATION, false_reuse_cost=4.0).fit(world(0, 500, 0.5)).rule.threshold == 0.2


def test_too_few_exploring_devices_leave_the_prior_rule() -> None:
    sure = [retuned(canary=1.0, gain=1.0)] * 500
    lucky = [retuned(canary=-1.0, gain=0.0, propensity=EXPLORE)] * 9
    calibrated = CALIBRATION.fit([*sure, *lucky, *[reused(-1.0)] * 90])
    assert (calibrated.rule, calibrated.fitted) == (PRIOR, False)
    assert (calibrated.devices, calibrated.explored) == (509, 9)
    assert CALIBRATION.fit([*sure, *lucky, lucky[0], *[reused(-1.0)] * 90]).fitted


def test_where_everybody_retunes_nobody_needs_to_explore() -> None:
    made = [retuned(canary=place / 10, gain=place / 10) for place in range(-5, 5)]
    assert CALIBRATION.fit(made).fitted
    assert not CALIBRATION.fit(made[:9]).fitted
    assert not CALIBRATION.fit([]).fitted


def test_separable_devices_give_finite_coefficients_that_separate_them() -> None:
    made = [retuned(canary=place / 10, gain=place / 10 + MARGIN) for place in range(-20, 21)]
    rule = CALIBRATION.fit(made).rule
    assert rule.weights[0][1] < 50
    found = assess(rule, made, MARGIN, CALIBRATION.max_weight)
    assert found.auc == 1.0


def test_reports_in_any_order_give_the_same_bits() -> None:
    made = world(3, 300, 0.3)
    shuffled = [made[place] for place in stream(0, Purpose.SAMPLING).permutation(len(made))]
    assert CALIBRATION.fit(made) == CALIBRATION.fit(shuffled)
    rule = CALIBRATION.fit(made).rule
    assert assess(rule, made, MARGIN, 50.0) == assess(rule, shuffled, MARGIN, 50.0)


def test_a_feature_that_does_not_vary_keeps_the_coefficient_of_the_prior() -> None:
    prior = RetuneRule(intercept=1.0, weights=(("canary", 1.0), ("log_drift", 0.7)), threshold=0.5)
    made = [
        replace(one, features=(*one.features, ("log_drift", -3.1))) for one in world(0, 2_000, 0.5)
    ]
    rule = replace(CALIBRATION, prior=prior).fit(made).rule
    without = CALIBRATION.fit(world(0, 2_000, 0.5)).rule
    assert dict(rule.weights)["log_drift"] == pytest.approx(0.7)
    # the intercept makes up for it: priors of the two differ, by little beside 2,000 devices
    assert rule.intercept - 0.7 * 3.1 == pytest.approx(without.intercept, abs=0.02)
    assert dict(rule.weights)["canary"] == pytest.approx(dict(without.weights)["canary"], abs=0.02)


def test_a_fit_does_not_depend_on_the_unit_of_a_feature() -> None:
    made = world(0, 1_000, 0.5)
    in_millinats = [
        replace(one, features=(("canary", 1e3 * one.feature("canary")),)) for one in made
    ]
    prior = replace(PRIOR, weights=(("canary", 1e-3),))
    one, other = CALIBRATION.fit(made), replace(CALIBRATION, prior=prior).fit(in_millinats)
    assert other.rule.weights[0][1] * 1e3 == pytest.approx(one.rule.weights[0][1])
    assert other.rule.intercept == pytest.approx(one.rule.intercept)


def test_the_area_is_over_pairs_of_all_releases() -> None:
    made = [
        retuned(0.0, 0.0, release=1),
        retuned(0.1, 1.0, release=1),
        retuned(2.0, 1.0, release=2),
        retuned(3.0, 0.0, release=2),
        retuned(9.0, 1.0, release=3),
    ]
    # helped .1, 2 and 9 against others 0 and 3: 1 + 1 + 2 of 6
    assert assess(PRIOR, made, MARGIN, 50.0).auc == pytest.approx(4 / 6)


def test_only_retunes_with_a_known_gain_are_judged_and_weights_are_cut() -> None:
    made = [retuned(1.0, 0.5), retuned(1.0, None), reused(1.0)]
    assert known_retunes(made) == [made[0]]
    assert retune_weight(retuned(0.0, 0.0, propensity=0.1), 50.0) == 10.0
    assert retune_weight(retuned(0.0, 0.0, propensity=0.001), 50.0) == 50.0


def test_a_probability_by_hand() -> None:
    rule = RetuneRule(intercept=-1.0, weights=(("canary", 2.0),), threshold=0.5)
    assert rule.probability(reused(0.5)) == 0.5
    assert rule.probability(reused(1.0)) == pytest.approx(1 / (1 + math.exp(-1)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"margin": math.inf}, "margin must be finite, in nats per token, got inf"),
        ({"false_reuse_cost": 0.0}, "false_reuse_cost must be finite and > 0, got 0"),
        ({"min_explored": 0}, "min_explored must be >= 1 device, got 0"),
        ({"max_weight": 0.5}, r"max_weight must be finite and >= 1, got 0\.5"),
    ],
)
def test_a_calibration_that_makes_no_sense_is_refused(
    changed: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CALIBRATION, **changed)  # pyright: ignore[reportArgumentType] - bad on purpose


def test_a_rule_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match=r"threshold must be > 0 and < 1, got 1\.5"):
        replace(PRIOR, threshold=1.5)
    with pytest.raises(ValueError, match="coefficients must be finite"):
        replace(PRIOR, intercept=math.nan)
    with pytest.raises(ValueError, match="must have the feature log_drift"):
        replace(PRIOR, weights=(("log_drift", 1.0),)).probability(reused(0.0))


def cohort_member(gain: float | None, propensity: float = 1.0) -> DecisionReport:
    return DecisionReport(
        release=3, device_class="a", decision="retune", gain=gain, propensity=propensity
    )


def test_everybody_retunes_iff_the_mean_gain_exceeds_the_margin() -> None:
    rule = replace(CALIBRATION, margin=0.25, min_explored=2)
    above = rule.decide_release([cohort_member(0.0), cohort_member(0.75), cohort_member(None)])
    assert (above.decision, above.reason) == ("retune", "mean_gain_above_margin")
    assert (above.devices, above.mean_gain) == (2, 0.375)
    within = rule.decide_release([cohort_member(0.0), cohort_member(0.5)])
    assert (within.decision, within.reason) == ("reuse", "mean_gain_within_margin")


def test_the_mean_stands_for_all_devices_of_the_cohort() -> None:
    # one that retuned by chance of a quarter stands for four: (1 + 4 * 0) / 5
    found = replace(CALIBRATION, margin=0.25, min_explored=2).decide_release(
        [cohort_member(1.0), cohort_member(0.0, 0.25)]
    )
    assert (found.decision, found.mean_gain) == ("reuse", 0.2)


def test_too_few_gains_leave_everybody_as_they_are() -> None:
    rule = replace(CALIBRATION, margin=0.0)
    few = rule.decide_release([cohort_member(1.0)] * 9)
    assert (few.decision, few.reason, few.mean_gain) == ("reuse", "too_few_gains", 1.0)
    assert rule.decide_release([cohort_member(1.0)] * 10).decision == "retune"
    assert rule.decide_release([]).mean_gain is None


def test_the_order_of_a_cohort_changes_no_bit() -> None:
    cohort = [cohort_member(place / 7, 1 / (1 + place % 3)) for place in range(20)]
    rule = replace(CALIBRATION, margin=0.5)
    assert rule.decide_release(cohort) == rule.decide_release(cohort[::-1])


def test_a_cohort_of_two_releases_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one release, got \[3, 4\]"):
        replace(CALIBRATION, margin=0.0).decide_release(
            [cohort_member(1.0), replace(cohort_member(1.0), release=4)]
        )
