"""The report's smaller tables as text cells: who took part, ledgers, tiers of coefficients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleettune.carbon import INTENSITIES, WORLD, grams
from simulations.folds import TIERS
from simulations.summary import ATTENDANCE
from simulations.tables import (
    UNKNOWN,
    arm_order,
    energy,
    energy_range,
    marked,
    number,
    percent_with_interval,
    tier_mix,
)

TIER_NAMES: Mapping[str, str] = {
    "M": "Measured",
    "F": "Fitted to measurements",
    "S": "Second-hand",
    "V": "Vendor's claim",
    "E": "Estimate",
}
LEDGER_NAMES: Mapping[str, str] = {
    "device_marginal": "device, marginal",
    "device_total": "device, total",
    "wall": "wall",
    "network": "network",
    "server": "server",
}

Cells = tuple[list[str], list[list[str]]]
_OF_ARM: Mapping[str, str] = {"energy_j": "", "energy_j_wasted": "wasted_j"}
"""Where an arm's energies hold total, low and high of a represented quantity."""
QUANTITY_NAMES: Mapping[str, str] = {
    "energy_j": "simulated energy, device total",
    "energy_j_wasted": "simulated energy wasted",
    "down_bytes": "received",
    "up_bytes": "sent",
}


def attendance_cells(summary: Mapping[str, Any]) -> Cells:
    """Device nights of every arm by how they ended, and what was wasted."""
    columns = ["arm", *ATTENDANCE, "infeasible", "wasted energy (low to high)"]
    columns += ["lateness flips under a draw", "memory flips under a draw"]
    rows: list[list[str]] = []
    for name in arm_order(summary):
        arm = summary["arms"][name]
        wasted = arm["energy_j"]["wasted_j"]
        tiers = arm["energy_j"]["ledgers"]["device_marginal"]["tiers"]
        joules = energy_range(wasted["total"], wasted["low"], wasted["high"])
        flipped = arm["vs_reference"]["share_flipped"]
        rows.append(
            [
                name,
                *(f"{arm['attendance'][word]:,}" for word in ATTENDANCE),
                f"{arm['counts']['infeasible']:,}",
                marked(joules, tiers if wasted["total"] else {}),
                "no deadline" if flipped is None else f"{100 * flipped:.1f} % of nights",
                _memory(summary.get("memory_flipped", {}).get(name)),
            ]
        )
    return columns, rows


def class_cells(summary: Mapping[str, Any]) -> Cells:
    """The same by device class; wasted energy as a share of the arm's."""
    columns = ["arm", "device class", "devices", *ATTENDANCE, "infeasible", "share of the waste"]
    rows: list[list[str]] = []
    for name in arm_order(summary):
        arm = summary["arms"][name]
        whole = arm["energy_j"]["wasted_j"]["total"]
        for profile, part in arm["by_class"].items():
            counts = (part[word] for word in ("devices", *ATTENDANCE, "infeasible"))
            known = whole and part["wasted_j"] is not None
            share = f"{100 * part['wasted_j'] / whole:.0f} %" if known else UNKNOWN
            rows.append([name, profile, *(f"{count:,}" for count in counts), share])
    return columns, rows


def ledger_cells(summary: Mapping[str, Any]) -> Cells:
    """Every ledger of every arm with range and tiers; carbon as a view of the wall's."""
    columns = ["arm", "ledger", "energy (low to high)", "tiers", "what is counted"]
    rows: list[list[str]] = []
    for name in arm_order(summary):
        ledgers = summary["arms"][name]["energy_j"]["ledgers"]
        for ledger, title in LEDGER_NAMES.items():
            one = ledgers[ledger]
            joules = energy_range(one["joules"], one["low"], one["high"])
            tiers = tier_mix(one["tiers"]) if one["tiers"] else ""
            rows.append([name, title, marked(joules, one["tiers"]), tiers, one["note"]])
        rows.append(_carbon(name, ledgers["wall"], summary.get("country", WORLD)))
    host = summary["host"]
    seconds = f"{number(host['seconds'], ',.1f')} s measured"
    measured = energy(host["joules"])
    rows.append(["all arms", "host", measured, "", f"{seconds}; {host['note']}"])
    return columns, rows


def represented_cells(summary: Mapping[str, Any]) -> Cells:
    """Totals of the fleet that the simulated devices stand for; none without such a fleet."""
    columns = [
        "arm",
        "quantity",
        "total [95 %, sampling of devices]",
        "low to high",
        "pooled classes",
    ]
    rows: list[list[str]] = []
    fleets: dict[str, dict[str, Any]] = summary.get("represents") or {}
    for name, quantities in fleets.items():
        for quantity, found in quantities.items():
            shown = energy if quantity.startswith("energy_j") else _bytes
            bounds = (
                ""
                if found["low"] is None
                else (f" [{shown(found['low'])}, {shown(found['high'])}]")
            )
            spread = _spread(summary["arms"][name]["energy_j"], quantity, found["total"])
            pooled = ", ".join(found["pooled"]) or "none"
            total = shown(found["total"]) + bounds
            rows.append([name, QUANTITY_NAMES[quantity], total, spread, pooled])
    return columns, rows


def _spread(joules: Mapping[str, Any], quantity: str, total: float) -> str:
    """Returns what the coefficients' ranges make of a represented total of joules."""
    if quantity not in _OF_ARM:
        return ""
    part = _OF_ARM[quantity]
    simulated = joules[part] if part else joules
    if not simulated["total"] or simulated["low"] is None:
        return UNKNOWN
    low, high = (total * simulated[end] / simulated["total"] for end in ("low", "high"))
    tiers = joules["ledgers"]["device_total"]["tiers"]
    return marked(f"{energy(low)} to {energy(high)}", tiers)


def serving_cells(summary: Mapping[str, Any]) -> Cells:
    """Savings with the user's own use of the model counted, and with it left out."""
    columns = ["arm", "saving, serving included [95 %]", "saving, serving left out [95 %]"]
    rows = [
        [
            name,
            percent_with_interval(versus["energy_saving"]),
            percent_with_interval(versus["energy_saving_without_serving"]),
        ]
        for name in arm_order(summary)
        if name != (versus := summary["arms"][name]["vs_reference"])["reference"]
    ]
    return columns, rows


def tier_cells(summary: Mapping[str, Any]) -> Cells:
    """Coefficients by tier: how many, and their share in what decides the joules."""
    shares = summary["coefficient_shares"]
    rows = [
        [
            f"{tier}: {TIER_NAMES[tier]}",
            f"{summary['coefficients'][tier]}",
            f"{100 * shares[tier]:.1f} %",
        ]
        for tier in TIERS
    ]
    return ["tier", "coefficients", "share in what decides the joules"], rows


def _memory(flipped: float | None) -> str:
    return UNKNOWN if flipped is None else f"{100 * flipped:.1f} % of tunes"


def _bytes(value: float) -> str:
    return f"{value / 1e9:,.3g} GB"


def _carbon(arm: str, wall: Mapping[str, Any], country: str) -> list[str]:
    here = INTENSITIES[country]
    source = f"wall at {here.g_per_kwh:.0f} g/kWh, {here.country} {here.year}: a view, no ledger"
    if wall["joules"] is None or wall["low"] is None:
        return [arm, "carbon", UNKNOWN, "", source]
    value, low, high = (grams(wall[end], country) for end in ("joules", "low", "high"))
    text = f"{value:,.3g} g CO2e ({low:,.3g} to {high:,.3g})"
    return [arm, "carbon", marked(text, wall["tiers"]), tier_mix(wall["tiers"]), source]
