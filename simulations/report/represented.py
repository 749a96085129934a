"""What the fleet that the devices stand for uses and saves, and how firmly that stands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fleettune.cost.carbon import INTENSITIES, JOULES_PER_KWH, WORLD, grams
from simulations.report.answer import choose_arm
from simulations.report.formats import format_joules
from simulations.report.summary_tables import Summary, get_reference
from simulations.results.extrapolation import SAVED

_DAYS = 365
_WANTED = 0.1
"""Error of a saving, as a share of it, that is small enough not to ask for more devices."""
_KWH = ((1e6, "GWh"), (1e3, "MWh"), (0.0, "kWh"))
_GRAMS = ((1e6, "t"), (1e3, "kg"), (0.0, "g"))


def describe_represented(summary: Summary) -> str | None:
    """Returns what that fleet would use and save, and on how many devices it stands; None without.

    Intervals cover the sampling of devices alone.
    """
    fleets: Mapping[str, Mapping[str, Any]] = summary.get("represents") or {}
    if not fleets:
        return None
    reference, chosen = get_reference(summary), choose_arm(summary)
    named = (reference, chosen) if chosen else (reference,)
    used = " and ".join(f"{_total(fleets[name]['energy_j'])} with {name}" for name in named)
    whole = fleets[reference]["energy_j"]
    text = (
        f"{whole['represents']:,} such devices use {used} in {summary['run']['rounds']} nights "
        "(simulated; 95 % over the devices drawn)"
    )
    if chosen is None:
        return f"{text}. {_describe_strata(whole)}"
    saved = fleets[chosen][SAVED]
    word = "less" if saved["total"] >= 0 else "more"
    sentences = [
        f"{text}: {_total(saved, sign=1 if saved['total'] >= 0 else -1)} {word}.",
        _describe_year(summary, fleets, reference, chosen),
        _describe_strata(whole),
        _describe_error(saved),
    ]
    return " ".join(filter(None, sentences))


def _describe_year(
    summary: Summary, fleets: Mapping[str, Mapping[str, Any]], reference: str, chosen: str
) -> str:
    """Returns what a year of such nights saves at the wall, in kWh and CO2e."""
    ratios: dict[str, float] = {}
    for name in (reference, chosen):
        ledgers = summary["arms"][name]["energy_j"]["ledgers"]
        wall, device = (ledgers[ledger]["joules"] for ledger in ("wall", "device_total"))
        if wall is None or not device:
            return "What that is at the wall is not known."
        ratios[name] = wall / device
    spent = {name: ratio * fleets[name]["energy_j"]["total"] for name, ratio in ratios.items()}
    year_j = (spent[reference] - spent[chosen]) * _DAYS / summary["run"]["rounds"]
    country = summary.get("country", WORLD)
    here = INTENSITIES[country]
    word = "less" if year_j >= 0 else "more"
    energy = _scale(abs(year_j) / JOULES_PER_KWH, _KWH)
    carbon = _scale(grams(abs(year_j), country), _GRAMS)
    return (
        f"A year of such nights is {energy} {word} at the wall, or {carbon} CO2e "
        f"({here.country}, {here.g_per_kwh:.0f} g/kWh)."
    )


def _describe_strata(found: Mapping[str, Any]) -> str:
    """Returns on how many devices of how many strata a total stands."""
    strata: Mapping[str, int] = found["strata"]
    smallest = min(strata, key=lambda name: (strata[name], name))
    if len(strata) == 1 and found["pooled"]:
        return (
            f"This stands on {found['simulated']:,} devices of all classes together, for none has "
            "enough to stand alone."
        )
    if len(strata) == 1:
        text = f"This stands on {found['simulated']:,} devices of one class"
    else:
        text = (
            f"This stands on {found['simulated']:,} devices in {len(strata)} strata, of which the "
            f"smallest ({smallest}) has {strata[smallest]:,}"
        )
    pooled = ", ".join(found["pooled"])
    return (
        f"{text}; too few to stand alone, and so taken together: {pooled}."
        if pooled
        else f"{text}."
    )


def _describe_error(saved: Mapping[str, Any]) -> str:
    """Returns how far off a saving may be, and how many devices would do where that is too far."""
    if saved["low"] is None:
        return "One device says nothing of the error; simulate at least 2."
    half, count = (saved["high"] - saved["low"]) / 2, saved["simulated"]
    if not saved["total"]:
        return ""
    error = half / abs(saved["total"])
    # the width of an interval falls with the root of the devices
    enough = _round_up(
        min(count * (error / (1 if error >= 1 else _WANTED)) ** 2, saved["represents"])
    )
    if error >= 1:
        return (
            "That so large a fleet saves anything is not shown by so few: about "
            f"{enough:,} devices would show a difference of this size."
        )
    told = f"What is saved is known to {100 * error:.0f} %"
    if error <= _WANTED:
        return f"{told}."
    return f"{told}; about {enough:,} devices would bring that to {100 * _WANTED:.0f} %."


def _round_up(count: float) -> int:
    """Returns a count in two digits, upwards: it is no more exact than that."""
    unit = 10 ** max(0, math.floor(math.log10(max(count, 1))) - 1)
    return math.ceil(count / unit) * unit


def _scale(value: float, units: Sequence[tuple[float, str]]) -> str:
    size, unit = next(pair for pair in units if value >= pair[0])
    shown = value / (size or 1)
    return f"{shown:,.0f} {unit}" if shown >= 100 else f"{shown:.3g} {unit}"


def _total(found: Mapping[str, Any], sign: int = 1) -> str:
    ends = sorted(sign * found[end] for end in ("low", "high") if found[end] is not None)
    interval = f" [{', '.join(map(format_joules, ends))}]" if ends else ""
    return format_joules(sign * found["total"]) + interval
