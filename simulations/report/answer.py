"""The sentence with which the page of a run and its lines in the terminal open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simulations.experiment.headlines import HEADLINES, Headline
from simulations.report.formats import format_change, format_share_interval
from simulations.report.summary_tables import Summary, get_metric, get_reference, order_arms

WHOLE = "edgetune"
"""The arm that is the whole system, where a run has it."""
_POINT = 0.01


def choose_arm(summary: Summary) -> str | None:
    """Returns the arm that the answer is about; None where none qualifies.

    It is the whole system where that ran, else the arm that saves most at no significant loss of
    quality. A saving counts where it is sure over devices and coefficients together, a loss where
    the whole interval of the difference is below zero.
    """
    versus = _compare(summary)
    if WHOLE in versus and versus[WHOLE]["energy_saving"]["mean"] is not None:
        return WHOLE
    kept = (name for name in _list_judged(versus) if not _is_loss(versus[name]))
    return next(kept, None)


def conclude(summary: Summary) -> str:
    """Returns what the arm of `choose_arm` saves and changes; else why there is no such arm."""
    reference, head = get_reference(summary), HEADLINES[get_metric(summary)]
    versus, chosen = _compare(summary), choose_arm(summary)
    if chosen is not None:
        return _answer(chosen, versus[chosen], head)
    savers, judged = _list_savers(versus), _list_judged(versus)
    if not savers:
        return f"No arm is shown to use less simulated energy than {reference}."
    if not judged:
        saving = format_share_interval(versus[savers[0]]["energy_saving"])
        return (
            f"Too few devices were evaluated to tell whether any arm keeps the quality of "
            f"{reference}; the largest saving of simulated energy is {saving}, by {savers[0]}."
        )
    least = max(judged, key=lambda name: versus[name]["quality_difference"]["mean"])
    return (
        f"No arm saved simulated energy over {reference} without a significant loss of quality; "
        f"the one that lost least, {least}, saved "
        f"{format_share_interval(versus[least]['energy_saving'])} "
        f"{_describe_change(versus[least]['quality_difference'], head)}."
    )


def _compare(summary: Summary) -> dict[str, Mapping[str, Any]]:
    """Returns by arm, in order, how it compares with the reference, which is left out."""
    _, *others = order_arms(summary)
    return {name: summary["arms"][name]["vs_reference"] for name in others}


def _list_savers(versus: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the arms whose saving is sure, the largest first."""
    savers = [name for name in versus if (versus[name]["energy_saving"]["ci95_both"][0] or 0) > 0]
    return sorted(savers, key=lambda name: -versus[name]["energy_saving"]["mean"])


def _list_judged(versus: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns those savers whose change of quality has an interval."""
    savers = _list_savers(versus)
    return [name for name in savers if versus[name]["quality_difference"]["ci95"][1] is not None]


def _is_loss(versus: Mapping[str, Any]) -> bool:
    highest = versus["quality_difference"]["ci95"][1]
    return highest is not None and highest < 0


def _answer(name: str, versus: Mapping[str, Any], head: Headline) -> str:
    saving, change = versus["energy_saving"], versus["quality_difference"]
    sign, word = (1, "less") if saving["mean"] >= 0 else (-1, "more")
    ends = {
        kind: " to ".join(f"{100 * end:.1f}" for end in sorted((sign * low, sign * high)))
        for kind in ("ci95", "ci95_coefficients")
        for low, high in [saving[kind]]
        if low is not None and high is not None
    }
    over = {"ci95": "% over devices", "ci95_coefficients": "% over coefficients"}
    bounds = ", ".join(f"{text} {over[kind]}" for kind, text in ends.items())
    interval = f"; 95 % interval {bounds}" if bounds else ""
    return (
        f"{name} used {100 * abs(saving['mean']):.1f} % {word} device energy than "
        f"{versus['reference']} (simulated{interval}) {_describe_change(change, head)}."
        f"{_warn(versus, head)}"
    )


def _describe_change(change: Mapping[str, Any], head: Headline) -> str:
    if change["mean"] is None:
        return f"at an unknown change of {head.words}, for no device was evaluated in both"
    value, bracket, bounds = format_change(change, is_share=head.is_share).partition(" [")
    unit = "points of" if head.is_share else "in"
    return f"at a change of {value} {unit} {head.words}{bracket}{bounds}"


def _warn(versus: Mapping[str, Any], head: Headline) -> str:
    """Returns what the numbers alone might let a reader overlook, as sentences; often nothing."""
    saving, change = versus["energy_saving"], versus["quality_difference"]["mean"]
    sure = (saving["ci95_both"][0] or 0) > 0
    doubt = "" if sure or saving["mean"] < 0 else " That it saves at all is not sure."
    if head.is_share and change is not None and change < -_POINT:
        return f"{doubt} This loses more than one point of quality."
    return f"{doubt} This loss of quality is significant." if _is_loss(versus) else doubt
