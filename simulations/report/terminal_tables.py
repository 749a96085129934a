"""Tables for the terminal: the headline of a run, and device profiles with where they come from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from fleettune.cost.hardware import TIERS, DeviceProfile
from simulations.report.formats import TIER_WORDS
from simulations.report.page import Row
from simulations.report.summary_tables import Summary, describe_headline, tabulate_headline

WIDE = 130
"""Columns of a terminal from which on a number and its interval stand in one line."""


def make_table(
    rows: Sequence[Row], caption: str, title: str | None = None, width: int = WIDE
) -> Table:
    """Returns a table of plain text cells; nothing in a cell is read as markup.

    Args:
        rows: The rows; the first one names the columns.
        caption: What stands below.
        title: What stands above.
        width: Columns of the terminal. Below `WIDE` ranges and intervals get a line of their own.
    """
    narrow = width < WIDE
    table = Table(title=title, caption=Text(caption), caption_justify="left")
    if narrow:
        table.box, table.padding, table.pad_edge = None, (0, 0, 0, 2), False
    cells = [[_break_range(cell) if narrow else cell for cell in row.values()] for row in rows]
    for index, column in enumerate(rows[0] if rows else ()):
        # in a narrow terminal headings give way, names and numbers do not
        lines = [*column.split(), *(line for row in cells for line in row[index].splitlines())]
        table.add_column(
            Text(column),
            justify="right" if index else "left",
            overflow="fold",
            width=max(map(len, lines)) if narrow else None,
        )
    for row in cells:
        table.add_row(*map(Text, row))
    return table


def _break_range(cell: str) -> str:
    """Returns a cell with its range or interval, the brackets at its end, on a second line."""
    return re.sub(r" ([\[(][^\[(]+[\])])$", r"\n\1", cell)


def make_headline_table(summary: Summary, width: int = WIDE) -> Table:
    """Returns the arms of a summary side by side, as in the first table of its page."""
    return make_table(tabulate_headline(summary), describe_headline(summary), width=width)


def make_devices_table(profiles: Iterable[DeviceProfile]) -> Table:
    """Returns a row per coefficient of each profile, and a caption that counts the tiers."""
    shown = sorted(profiles, key=lambda profile: profile.name)
    table = Table(title="Device profiles", caption=_count_tiers(shown))
    for heading in ("device", "coefficient"):
        table.add_column(heading, no_wrap=True)
    for heading in ("value", "range"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("tier", justify="center")
    table.add_column("source", overflow="fold")
    for profile in shown:
        label = f"{profile.name} ({profile.power_scope} power)"
        for name, one in profile.coefficients():
            spread = f"{one.low:g} to {one.high:g}"
            table.add_row(label, name, f"{one.value:g}", spread, one.tier, one.source)
            label = ""
        table.add_section()
    return table


def make_training_table(profiles: Iterable[DeviceProfile]) -> Table:
    """Returns a row per profile, by what a FLOP of training costs it, and what runs on it.

    Energy is in pJ per FLOP above the idle draw (`DeviceProfile.training_pj_per_flop`). The tiers
    are those of power and rate.
    """
    table = Table(
        title="Energy of one FLOP of training above idle, least first",
        caption="Two profiles compare as phones only where the same runs on both.",
    )
    table.add_column("device", no_wrap=True)
    for heading in ("pJ/FLOP", "range"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("power, rate", justify="center", no_wrap=True)
    table.add_column("rate and power of one measurement", overflow="fold")
    table.add_column("what runs", overflow="fold")
    for profile in sorted(profiles, key=DeviceProfile.training_pj_per_flop):
        value, least, greatest = profile.training_pj_per_flop()
        table.add_row(
            profile.name,
            f"{value:.0f}",
            f"{least:.0f} to {greatest:.0f}",
            f"{profile.p_train_w.tier}, {profile.eff_forward_gflops.tier}",
            ", ".join(profile.measured_together()) or "no",
            Text(profile.runtime),
        )
    return table


def _count_tiers(profiles: Sequence[DeviceProfile]) -> str:
    """Returns the sentence that keeps a reader from taking joules for measurements."""
    counts = {tier: sum(profile.tiers()[tier] for profile in profiles) for tier in TIERS}
    parts = ", ".join(f"{counts[tier]} {TIER_WORDS[tier].lower()} ({tier})" for tier in TIERS)
    return (
        "Joules are simulated from these coefficients; none was measured by this project. "
        f"Of {sum(counts.values())} coefficients: {parts}."
    )
