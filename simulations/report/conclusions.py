"""Conclusions: which signs of savings and quality differences hold in all compared runs.

A sign is + or - where the 95 % interval over devices lies on one side of zero, and 0 where it holds
zero. Besides each arm against its reference, arms are compared with each other by their joules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

from simulations.report.compare import CompareRow, Estimate

MEASURES: Mapping[str, Callable[[CompareRow], Estimate]] = {
    "saves energy": lambda row: row.saving,
    "saves energy, serving left out": lambda row: row.saving_without_serving,
    "differs in quality": lambda row: row.quality_difference,
}


def changed_conclusions(rows: Sequence[CompareRow]) -> list[str]:
    """Returns one sentence per conclusion whose sign is not the same in every run."""
    runs = list(dict.fromkeys(row.run for row in rows))
    by_run = {run: {row.arm: row for row in rows if row.run == run} for run in runs}
    shared = [arm for arm in by_run[runs[0]] if all(arm in arms for arms in by_run.values())]
    found: list[str] = []
    for measure, of in MEASURES.items():
        for arm in shared:
            signs = {run: sign(of(by_run[run][arm])) for run in runs}
            found += _told(f"{arm} {measure}", signs)
    for one, other in combinations(shared, 2):
        signs = {run: _cheaper(by_run[run][one], by_run[run][other]) for run in runs}
        found += _told(f"{one} uses more energy than {other}", signs)
    return found


def sign(estimate: Estimate) -> str:
    """Returns the sign of an estimate: +, - or 0; ? where it is unknown."""
    if estimate.low is None or estimate.high is None:
        return "?"
    if estimate.low > 0:
        return "+"
    return "-" if estimate.high < 0 else "0"


def _cheaper(one: CompareRow, other: CompareRow) -> str:
    if one.energy_j is None or other.energy_j is None:
        return "?"
    return "+" if one.energy_j > other.energy_j else "-" if one.energy_j < other.energy_j else "0"


def _told(conclusion: str, signs: Mapping[str, str]) -> list[str]:
    if len(set(signs.values())) == 1:
        return []
    return [f"{conclusion}: {', '.join(f'{run} {found}' for run, found in signs.items())}"]
