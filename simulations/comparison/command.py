"""The command ``fleettune compare``: runs are read, compared, told and written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from simulations.comparison.comparison_page import write_comparison
from simulations.comparison.comparison_tables import describe_correction, make_comparison_table
from simulations.comparison.found_runs import read_runs
from simulations.comparison.front import BUDGET, TARGET, compare_settings, read_limit
from simulations.comparison.sentences import (
    answer_budget,
    answer_target,
    conclude_comparison,
    describe_front,
    find_changed_conclusions,
    list_notes,
)


def compare(
    paths: Sequence[Path],
    budget: str | None,
    target: str | None,
    into: Path | None,
    console: Console,
) -> None:
    """Prints what runs say of their settings, the answer first, and writes it where asked.

    Args:
        paths: Folders at or above finished runs.
        budget: ``energy_j=VALUE``, in simulated joules; None where not asked.
        target: ``quality=VALUE``, in the metric's own unit; None where not asked.
        into: Where files are written; None for none.
        console: Where it is printed.

    Raises:
        ValueError: If there is no run, a limit is not of its form, or runs contradict each other.
    """
    runs = read_runs(paths)
    comparison = compare_settings(runs)
    budget_j, quality = (
        read_limit(text, name, comparison) for text, name in ((budget, BUDGET), (target, TARGET))
    )
    answers = [] if budget_j is None else [answer_budget(comparison, budget_j)]
    answers += [] if quality is None else [answer_target(comparison, quality)]
    _say(console, [conclude_comparison(comparison), *answers])
    console.print(make_comparison_table(comparison, console.width))
    more = [describe_correction(comparison), *describe_front(comparison), *list_notes(comparison)]
    changed = find_changed_conclusions(comparison.lines)
    if changed is not None:
        told = "Conclusions against the own reference whose sign differs between settings"
        more.append(f"{told}: {'none' if not changed else ''}".rstrip())
        more += changed
    _say(console, [line for line in more if line])
    if into is not None:
        found = write_comparison(into, comparison, runs, answers, (budget_j, quality))
        for path in found:
            console.print(str(path.resolve()), soft_wrap=True, highlight=False, markup=False)


def _say(console: Console, lines: Sequence[str]) -> None:
    console.print("\n".join(lines), highlight=False, markup=False)
