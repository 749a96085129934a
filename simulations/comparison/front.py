"""Which lines are worth having: the front over quality and energy, its ends, and what they win."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from simulations.comparison.contrasts import Contrast, contrast_lines
from simulations.comparison.fold import Line, fold_arms, fold_seeds, get_runs_metric
from simulations.comparison.found_runs import WORLD, FoundRun
from simulations.experiment.headlines import HEADLINES

BUDGET, TARGET = "energy_j", "quality"
"""What ``--budget`` and ``--target`` are about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunComparison:
    """What runs say of their settings.

    Attributes:
        lines: Every arm of every setting, references first.
        obstacle: Why the lines cannot be compared with each other; None where they can.
        dominated: By the name of a line, the line that is no worse in both and better in one; of
            a line on the front it is None. Lines without quality or energy are not in it.
        best: The line of highest quality; None where there is none or an obstacle.
        cheapest: The line of the front that uses least energy.
        winner: The cheapest line of the front of which no loss of quality is shown.
        contrasts: By the name of a line, how it compares with the best one.
    """

    lines: Sequence[Line]
    obstacle: str | None = None
    dominated: Mapping[str, Line | None] = field(default_factory=dict[str, Line | None])
    best: Line | None = None
    cheapest: Line | None = None
    winner: Line | None = None
    contrasts: Mapping[str, Contrast] = field(default_factory=dict[str, Contrast])

    @property
    def front(self) -> list[Line]:
        """The lines that no other one dominates, the cheapest first."""
        kept = [line for line in self.lines if self.dominated.get(line.name, line) is None]
        return sorted(kept, key=get_joules)


def compare_settings(runs: Sequence[FoundRun]) -> RunComparison:
    """Folds runs, compares their lines with the best one and names the winner.

    Raises:
        ValueError: If two runs of one setting and seed did not do the same.
    """
    lines = fold_arms(fold_seeds(runs))
    obstacle = find_obstacle(runs)
    ranked = [line for line in lines if is_ranked(line)]
    if obstacle or not ranked:
        return RunComparison(lines=lines, obstacle=obstacle)
    dominated = {line.name: find_dominator(line, ranked) for line in ranked}
    front = sorted((line for line in ranked if dominated[line.name] is None), key=get_joules)
    best = front[-1]
    found = contrast_lines(lines, best)
    contrasts = {line.name: one for line, one in zip(lines, found, strict=True) if one is not None}
    return RunComparison(
        lines=lines,
        dominated=dominated,
        best=best,
        cheapest=front[0],
        winner=next(line for line in front if line is best or _may_win(contrasts[line.name])),
        contrasts=contrasts,
    )


def find_obstacle(runs: Sequence[FoundRun]) -> str | None:
    """Returns why runs' settings cannot be compared, as a sentence; None where they can.

    Devices are paired by seed and number, so all runs need the same metric, price, rounds, world
    and text, and runs of one seed the same devices.
    """
    facts: Mapping[str, Callable[[FoundRun], str]] = {
        "their quality is not the same metric": lambda run: next(
            iter(run.summary["arms"].values())
        )["quality"]["metric"],
        "their joules are priced as different models": lambda run: run.summary["run"]["priced_as"],
        "they last for different numbers of rounds": lambda run: str(run.summary["run"]["rounds"]),
        "they are of different worlds of a study": lambda run: run.settings.get(WORLD, ""),
        "their users do not write the same (data)": _describe_text,
    }
    for told, of in facts.items():
        values = list(dict.fromkeys(of(run) for run in runs))
        if len(values) > 1:
            shown = f": {' or '.join(values)}" if max(map(len, values)) < 40 else ""
            return _refuse(f"{told}{shown}")
    fleets: dict[int, tuple[tuple[int, str], ...]] = {}
    for run in runs:
        if fleets.setdefault(run.seed, run.fleet) != run.fleet:
            return _refuse("their fleets are not the same devices")
    return None


def _refuse(reason: str) -> str:
    return f"These settings are not compared with each other, because {reason}."


def _describe_text(run: FoundRun) -> str:
    parts = [f"{key}={value}" for key, value in run.settings.items() if key.startswith("data.")]
    return f"{run.summary['run']['data']} {' '.join(parts)}"


def is_ranked(line: Line) -> bool:
    """Returns whether a line has both quality and energy."""
    return line.quality["mean"] is not None and line.energy_j[0] is not None


def get_joules(line: Line) -> float:
    """Returns the simulated joules of a run of the line, a mean over seeds; infinite if unknown."""
    return math.inf if line.energy_j[0] is None else line.energy_j[0]


def get_quality(line: Line) -> float:
    """Returns the mean quality of the line; minus infinity if unknown."""
    mean = line.quality["mean"]
    return -math.inf if mean is None else float(mean)


def find_dominator(line: Line, others: Sequence[Line]) -> Line | None:
    """Returns the best line that needs no more energy, has no less quality, and is not equal."""
    quality, joules = get_quality(line), get_joules(line)
    over = [
        other
        for other in others
        if get_quality(other) >= quality
        and get_joules(other) <= joules
        and (get_quality(other) > quality or get_joules(other) < joules)
    ]
    return max(over, key=lambda other: (get_quality(other), -get_joules(other)), default=None)


def find_within_budget(lines: Sequence[Line], budget_j: float) -> Line | None:
    """Returns the line of highest quality among those at or under a budget; the cheaper of equals.

    Args:
        lines: What there is to choose from.
        budget_j: Simulated joules of all devices of a run, as `get_joules` returns them.
    """
    fitting = [line for line in lines if is_ranked(line) and get_joules(line) <= budget_j]
    return max(fitting, key=lambda line: (get_quality(line), -get_joules(line)), default=None)


def find_for_target(lines: Sequence[Line], quality: float) -> Line | None:
    """Returns the cheapest line that reaches a quality; the better of equals."""
    reaching = [line for line in lines if is_ranked(line) and get_quality(line) >= quality]
    return min(reaching, key=lambda line: (get_joules(line), -get_quality(line)), default=None)


def read_limit(text: str | None, name: str, comparison: RunComparison) -> float | None:
    """Returns the number of ``energy_j=VALUE`` or ``quality=VALUE``; None where none was asked.

    Args:
        text: What was typed behind the switch.
        name: `BUDGET` or `TARGET`.
        comparison: What it will be asked of.

    Raises:
        ValueError: If it is not of this form, is out of range, or lines cannot be compared.
    """
    if text is None:
        return None
    switch = {BUDGET: "--budget", TARGET: "--target"}[name]
    unit = {BUDGET: "simulated joules of a run above 0", TARGET: "a number"}[name]
    key, _, value = text.partition("=")
    try:
        limit = float(value)
    except ValueError:
        limit = math.nan
    if key != name or not math.isfinite(limit) or (name == BUDGET and limit <= 0):
        raise ValueError(f"{switch} must be {name}=VALUE with {unit}, got {text!r}")
    if comparison.obstacle:
        raise ValueError(f"{switch} has no answer. {comparison.obstacle}")
    head = HEADLINES[get_runs_metric(comparison.lines[0])]
    if name == TARGET and head.is_share and not 0 <= limit <= 1:
        raise ValueError(f"--target of {head.words} must be a share from 0 to 1, got {value}")
    return limit


def _may_win(contrast: Contrast) -> bool:
    return contrast.is_judged and not contrast.shows_loss
