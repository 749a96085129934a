"""Reports: what a night says of a decision, and which numbers make no sense."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleettune.messages.report import Statistics
from fleettune.releases.guidance import CANARY, CANARY_LEVEL, CANARY_MISSING, LOG_DRIFT
from strategies.learning.decision_reports import REUSE, DecisionReport, read_decision, sort_reports
from tests.strategies.learning.test_arm_learning import night
from tests.strategies.learning.test_decision_sums import many


def test_a_report_says_by_hand_what_the_server_learns() -> None:
    told = {"drift": 2e-4, "strength": 2e-3, "canary_worse": 0.5}
    seen = {"canary_before": 3.0, "canary_after": 2.25, "explored": 1, "propensity": 0.1}
    found = read_decision(night(7, 3, **told, **seen))
    assert found is not None
    assert (found.release, found.device_class, found.decision) == (3, "phone", "retune")
    assert dict(found.features) == {
        **{LOG_DRIFT: -1.0, CANARY: 0.5},
        **{CANARY_LEVEL: 3.0, CANARY_MISSING: 0.0},
    }
    assert (found.gain, found.propensity, found.explored) == (0.75, 0.1, True)
    assert (found.energy_j, found.retune_j, found.down_bytes) == (11.0, 10.0, 5.0)


def test_a_rule_that_never_explores_did_what_it_always_does() -> None:
    retuned, reused = read_decision(night()), read_decision(night(decision="reuse"))
    assert retuned is not None
    assert reused is not None
    assert (retuned.propensity, reused.propensity) == (1.0, 0.0)
    assert (retuned.retune_j, reused.retune_j) == (10.0, 0.0)
    assert retuned.features == () == reused.features


@pytest.mark.parametrize(
    "statistics",
    [night(decision="none"), night(attendance="late"), night(attendance="interrupted")],
)
def test_a_night_without_a_decision_or_a_report_in_time_teaches_nothing(
    statistics: Statistics,
) -> None:
    assert read_decision(statistics) is None


@settings(derandomize=True, deadline=None)
@given(many.flatmap(lambda reports: st.tuples(st.just(reports), st.permutations(reports))))
def test_reports_have_one_order_of_their_own(
    both: tuple[list[DecisionReport], list[DecisionReport]],
) -> None:
    assert sort_reports(both[0]) == sort_reports(both[1])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"propensity": 1.5}, "propensity must be from 0 to 1, got 1.5"),
        ({"decision": "retune", "propensity": 0.0}, "device that retuned must be > 0, got 0"),
        ({"explored": True}, "explored means a random retune, but the decision is reuse"),
        ({"gain": math.nan}, "gain must be finite, in nats per token, got nan"),
        ({"energy_j": -1.0}, "energy_j must be finite and >= 0 J, got -1.0"),
        ({"retune_j": 1.0}, r"retune_j must be <= energy_j, 0\.0 J, got 1\.0 J"),
        ({"down_bytes": math.inf}, "down_bytes must be finite and >= 0 bytes, got inf"),
        ({"drift": -0.1}, r"drift must be finite and >= 0, got -0\.1"),
        ({"features": (("canary", -math.inf),)}, "feature canary must be finite, got -inf"),
        ({"features": (("a", 1.0), ("a", 2.0))}, "a name each of their own"),
    ],
)
def test_a_report_that_makes_no_sense_is_refused(changed: dict[str, object], message: str) -> None:
    given_fields: dict[str, object] = {"release": 1, "device_class": "phone", "decision": REUSE}
    with pytest.raises(ValueError, match=message):
        DecisionReport(**(given_fields | changed))  # pyright: ignore[reportArgumentType] - bad on purpose


def test_features_are_found_by_name_in_any_order() -> None:
    made = DecisionReport(
        release=1, device_class="a", decision=REUSE, features=(("b", 2.0), ("a", 1.0))
    )
    assert made.features == (("a", 1.0), ("b", 2.0))
    assert made.feature("b") == 2.0
    with pytest.raises(ValueError, match="must have the feature canary"):
        made.feature("canary")
