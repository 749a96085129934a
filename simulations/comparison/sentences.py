"""What a comparison says, in sentences: the winner, the front, a budget, a target, what is open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from simulations.comparison.contrasts import RESAMPLES, Contrast, can_show, count_comparisons
from simulations.comparison.fold import Estimate, Line, get_runs_metric
from simulations.comparison.front import (
    RunComparison,
    find_for_target,
    find_within_budget,
    is_ranked,
)
from simulations.experiment.headlines import HEADLINES, Headline
from simulations.report.formats import (
    format_change,
    format_interval,
    format_joules,
    format_joules_range,
    format_number,
    format_share,
    format_share_interval,
    mark_estimates,
)

_POINT = 0.01


def conclude_comparison(comparison: RunComparison) -> str:
    """Returns who wins and by how much; else why nobody does."""
    if comparison.obstacle:
        return f"{comparison.obstacle} Each is compared with the reference of its own runs."
    winner, best = comparison.winner, comparison.best
    if winner is None or best is None:
        return "Nothing wins: no setting has both a known quality and a known energy."
    if winner is not best:
        return _tell_cheaper(winner, best, comparison.contrasts[winner.name])
    quality, joules = describe_quality(best), _describe_energy(best)
    if best is comparison.cheapest:
        return (
            f"{best.name} wins on both counts: no setting has a better quality, {quality}, or "
            f"needs less device energy, {joules} (simulated)."
        )
    cheaper = comparison.front[:-1]
    open_ = [line.name for line in cheaper if not comparison.contrasts[line.name].is_judged]
    told = (
        f"too few devices in common tell whether {' and '.join(open_)} would lose quality"
        if open_
        else "each cheaper one on the front is shown to lose quality"
    )
    return (
        f"{best.name} wins: it has the best quality, {quality}, for a simulated device energy of "
        f"{joules}; {told}."
    )


def _tell_cheaper(winner: Line, best: Line, contrast: Contrast) -> str:
    head = get_headline(winner)
    saving, low, high = contrast.saving["mean"], *contrast.saving["ci95"]
    ends = "" if low is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    change = format_change(contrast.quality_change, is_share=head.is_share)
    value, _, bounds = change.partition(" ")
    unit = "points of" if head.is_share else "in"
    doubt = "" if contrast.shows_saving else " That it needs less is not shown."
    least = contrast.quality_change["ci95"][0]
    lost = "A loss of quality is not shown"
    if head.is_share and least is not None and least < -_POINT:
        lost += f", one of up to {-100 * least:.1f} points is not ruled out"
    return (
        f"{winner.name} wins: it needs {100 * saving:.1f} %{ends} less simulated device energy "
        f"than {best.name}, the best in quality, at a change of "
        f"{f'{value} {unit} {head.words} {bounds}'.rstrip()}. {lost}.{doubt}"
    )


def describe_front(comparison: RunComparison) -> list[str]:
    """Returns which settings are on the front and which are dominated, as sentences."""
    front = comparison.front
    if not front:
        return []
    ends = {front[0].name: "least energy", front[-1].name: "best quality"}
    if len(front) == 1:
        ends = {front[0].name: "least energy and best quality"}
    shown = [
        f"{line.name} ({ends[line.name]})" if line.name in ends else line.name for line in front
    ]
    found = [f"On the front of quality and energy: {', '.join(shown)}."]
    beaten = [
        f"{name} by {other.name}"
        for name, other in comparison.dominated.items()
        if other is not None
    ]
    if beaten:
        found.append(f"Dominated, of no better quality for no less energy: {'; '.join(beaten)}.")
    if unranked := [line.name for line in comparison.lines if not is_ranked(line)]:
        found.append(f"Without a known quality or energy, and so left out: {', '.join(unranked)}.")
    return found


def answer_budget(comparison: RunComparison, budget_j: float) -> str:
    """Returns which setting has the best quality at or under some joules; else that none has."""
    found = find_within_budget(comparison.lines, budget_j)
    limit = format_joules(budget_j)
    if found is not None:
        return (
            f"At or under {limit}, {found.name} has the best quality: {describe_quality(found)}, "
            f"for {_describe_energy(found)} (simulated)."
        )
    least = comparison.cheapest
    told = "" if least is None else f": the cheapest, {least.name}, needs {_describe_energy(least)}"
    return f"No setting stays at or under {limit}{told}."


def answer_target(comparison: RunComparison, quality: float) -> str:
    """Returns which is the cheapest setting that reaches a quality; else that none does."""
    found, best = find_for_target(comparison.lines, quality), comparison.best
    head = get_headline(comparison.lines[0])
    limit = format_share(quality) if head.is_share else format_number(quality)
    if found is not None:
        return (
            f"The cheapest setting that reaches {limit} is {found.name}: it needs "
            f"{_describe_energy(found)} (simulated) for {describe_quality(found)}."
        )
    told = "" if best is None else f": the best, {best.name}, has {describe_quality(best)}"
    return f"No setting reaches {limit}{told}."


def list_notes(comparison: RunComparison) -> list[str]:
    """Returns what the numbers alone might let a reader overlook, as sentences; often nothing."""
    found: list[str] = []
    seeds = {tuple(line.runs) for line in comparison.lines}
    if len(seeds) > 1:
        told = (f"{line.name} {_list(line.runs)}" for line in comparison.lines)
        found.append(
            f"Not all settings ran with the same seeds ({'; '.join(told)}): each has the mean of "
            "its own, and two are compared on the seeds that both have."
        )
    if all(len(one) == 1 for one in seeds):
        found.append(
            "Each setting ran with one seed: the intervals are over its devices, and say nothing "
            "of other users and releases."
        )
    comparisons = count_comparisons(list(comparison.contrasts.values()))
    if not can_show(comparisons):
        found.append(
            f"{comparisons} comparisons are too many for {RESAMPLES:,} resamples: after Holm's "
            "correction none can be shown; compare fewer settings."
        )
    return found


def describe_shown(line: Line, comparison: RunComparison) -> str:
    """Returns what is shown of a line against the best one after Holm's correction."""
    contrast = comparison.contrasts.get(line.name)
    if contrast is None:
        return ""
    claims = {
        "less energy": contrast.shows_saving,
        "more energy": contrast.shows_extra,
        "lower quality": contrast.shows_loss,
    }
    shown = [claim for claim, is_shown in claims.items() if is_shown]
    if not contrast.is_judged:
        return "too few devices in common"
    return ", ".join(shown) or "no difference"


def describe_place(line: Line, comparison: RunComparison) -> str:
    """Returns whether a line wins, is on the front, or is dominated."""
    if line.name not in comparison.dominated:
        return "" if comparison.obstacle else "not known"
    if comparison.dominated[line.name] is not None:
        return "dominated"
    return "winner" if line is comparison.winner else "front"


def get_headline(line: Line) -> Headline:
    """Returns the headline metric of a line."""
    return HEADLINES[get_runs_metric(line)]


def format_quality(line: Line) -> str:
    """Returns a line's quality with its interval, in percent where it is a share."""
    is_share = get_headline(line).is_share
    return format_share_interval(line.quality) if is_share else format_interval(line.quality)


def describe_quality(line: Line) -> str:
    """Returns a line's quality with its interval and the words for it."""
    value, _, bounds = format_quality(line).partition(" [")
    return f"{value} {get_headline(line).words}" + (f" [{bounds}" if bounds else "")


def _describe_energy(line: Line) -> str:
    return mark_estimates(format_joules_range(*line.energy_j), line.tiers)


def find_changed_conclusions(lines: Sequence[Line]) -> list[str] | None:
    """Returns one sentence per conclusion whose sign is not the same in every setting.

    A conclusion is about an arm against the reference of its own runs. None where no arm but the
    reference is in several settings, so that nothing could change.
    """
    named: dict[str, dict[str, Line]] = {}
    for line in lines:
        if not line.is_reference:
            named.setdefault(line.arm, {}).update(dict.fromkeys(line.settings, line))
    several = {arm: places for arm, places in named.items() if len(places) > 1}
    if not several:
        return None
    found: list[str] = []
    for conclusion, of in _CONCLUSIONS.items():
        for arm, places in several.items():
            signs = {setting: get_sign(of(line)) for setting, line in places.items()}
            if len(set(signs.values())) > 1:
                told = "; ".join(f"{setting} {sign}" for setting, sign in signs.items())
                found.append(f"{arm} {conclusion}: {told}")
    return found


_CONCLUSIONS: Mapping[str, Callable[[Line], Estimate]] = {
    "saves energy": lambda line: line.saving,
    "saves energy, serving left out": lambda line: line.saving_unserved,
    "differs in quality": lambda line: line.quality_change,
}


def get_sign(estimate: Estimate) -> str:
    """Returns the sign of an estimate: +, - or 0; ? where it is unknown."""
    low, high = estimate["ci95"]
    if low is None or high is None:
        return "?"
    if low > 0:
        return "+"
    return "-" if high < 0 else "0"


def _list(seeds: Mapping[int, object]) -> str:
    return ", ".join(map(str, seeds))
