"""The answer is about the whole system where it ran, and hides neither a loss nor a doubt."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from simulations.report.answer import choose_arm, conclude

Summary = dict[str, Any]
Ends = tuple[float | None, float | None]


def compared(
    saving: float, change: float | None, *, sure: bool = True, ends: Ends = (-0.021, 0.014)
) -> Summary:
    """An arm whose saving is known to 4 points over devices and to 1 over coefficients."""
    both = [saving - 0.05 if sure else -0.1, saving + 0.05]
    energy = {"mean": saving, "ci95": [saving - 0.04, saving + 0.04], "ci95_both": both}
    energy["ci95_coefficients"] = [saving - 0.01, saving + 0.01]
    quality = {"mean": change, "ci95": list(ends)}
    versus = {"reference": "always_retune", "energy_saving": energy, "quality_difference": quality}
    return {"quality": {"metric": "exact_match_unseen"}, "vs_reference": versus}


def of(metric: str = "exact_match_unseen", **arms: Summary) -> Summary:
    """A summary of a reference and arms."""
    every = copy.deepcopy({"always_retune": compared(0.0, 0.0, sure=False), **arms})
    for arm in every.values():
        arm["quality"]["metric"] = metric
    return {"arms": every}


def test_the_whole_system_is_the_answer_even_where_another_arm_saves_more() -> None:
    summary = of(never=compared(0.9, 0.0), edgetune=compared(0.712, -0.003))
    assert choose_arm(summary) == "edgetune"
    assert conclude(summary) == (
        "edgetune used 71.2 % less device energy than always_retune (simulated; 95 % interval "
        "67.2 to 75.2 % over devices, 70.2 to 72.2 % over coefficients) at a change of -0.3 points "
        "of exact match of unseen answers [-2.1, +1.4]."
    )


@pytest.mark.parametrize(("change", "warned"), [(-0.0101, True), (-0.0099, False)])
def test_a_loss_of_more_than_a_point_is_said_whatever_its_interval(
    change: float, warned: bool
) -> None:
    sentence = conclude(of(edgetune=compared(0.7, change)))
    assert sentence.endswith("This loses more than one point of quality.") is warned


def test_a_small_loss_that_is_sure_is_said() -> None:
    sentence = conclude(of(edgetune=compared(0.7, -0.005, ends=(-0.008, -0.002))))
    assert sentence.endswith("[-0.8, -0.2]. This loss of quality is significant.")


def test_a_metric_that_is_no_share_has_no_points() -> None:
    sentence = conclude(of("neg_nll", edgetune=compared(0.7, -0.5, ends=(-0.6, -0.4))))
    assert "at a change of -0.500 in log-likelihood, nats per token [-0.600, -0.400]" in sentence
    assert "point" not in sentence
    assert sentence.endswith("This loss of quality is significant.")


def test_a_whole_system_that_spends_more_says_so() -> None:
    sentence = conclude(of(edgetune=compared(-0.1, 0.0, sure=False)))
    assert sentence.startswith(
        "edgetune used 10.0 % more device energy than always_retune (simulated; 95 % interval "
        "6.0 to 14.0 % over devices, 9.0 to 11.0 % over coefficients) at"
    )


def test_a_saving_that_is_not_sure_is_no_promise() -> None:
    sentence = conclude(of(edgetune=compared(0.03, 0.0, sure=False)))
    assert sentence.endswith("That it saves at all is not sure.")


def test_without_quality_the_change_is_unknown() -> None:
    sentence = conclude(of(edgetune=compared(0.7, None, ends=(None, None))))
    assert "at an unknown change of exact match of unseen answers" in sentence


def test_without_the_whole_system_the_largest_saving_without_a_loss_is_the_answer() -> None:
    lossy = compared(0.9, -0.3, ends=(-0.4, -0.2))
    summary = of(lossy=lossy, small=compared(0.2, 0.0), large=compared(0.5, 0.0))
    assert choose_arm(summary) == "large"
    assert conclude(summary).startswith("large used 50.0 % less device energy")


def test_without_an_arm_that_qualifies_the_sentence_says_why() -> None:
    lossy = compared(0.9, -0.3, ends=(-0.4, -0.2))
    found = {
        "No arm is shown to use less": of(doubtful=compared(0.5, 0.0, sure=False)),
        "Too few devices were evaluated": of(blind=compared(0.5, 0.0, ends=(None, None))),
        "No arm saved simulated energy over always_retune without a significant loss": of(
            lossy=lossy
        ),
    }
    for start, summary in found.items():
        assert choose_arm(summary) is None
        assert conclude(summary).startswith(start)
    assert conclude(of(lossy=lossy)).endswith(
        "saved 90.0 % [86.0, 94.0] at a change of -30.0 points of exact match of unseen answers "
        "[-40.0, -20.0]."
    )
