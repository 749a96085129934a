"""The table of device profiles that a fleet may be made of, with where each number comes from."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from fleettune.cost.hardware import TIERS, Coefficient, DeviceProfile

MEANING = {"M": "measured", "F": "fitted", "S": "second-hand", "V": "vendor", "E": "estimate"}


def devices_table(profiles: Iterable[DeviceProfile]) -> Table:
    """Returns one row per coefficient of each profile, and a caption that counts the tiers."""
    shown = sorted(profiles, key=lambda profile: profile.name)
    table = Table(title="Device profiles", caption=_caption(shown))
    for heading in ("device", "coefficient"):
        table.add_column(heading, no_wrap=True)
    for heading in ("value", "range"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("tier", justify="center")
    table.add_column("source", overflow="fold")
    for profile in shown:
        label = f"{profile.name} ({profile.power_scope} power)"
        for name, coefficient in profile.coefficients():
            table.add_row(label, name, *_cells(coefficient))
            label = ""
        table.add_section()
    return table


def _cells(coefficient: Coefficient) -> tuple[str, str, str, str]:
    """Returns the texts of a coefficient: value, range, tier and source."""
    spread = f"{coefficient.low:g} to {coefficient.high:g}"
    return f"{coefficient.value:g}", spread, coefficient.tier, coefficient.source


def _caption(profiles: list[DeviceProfile]) -> str:
    """Returns the sentence that keeps a reader from taking joules for measurements."""
    counts = {tier: sum(profile.tiers()[tier] for profile in profiles) for tier in TIERS}
    parts = ", ".join(f"{counts[tier]} {MEANING[tier]} ({tier})" for tier in TIERS)
    return (
        "Joules are simulated from these coefficients; none was measured by this project. "
        f"Of {sum(counts.values())} coefficients: {parts}."
    )
