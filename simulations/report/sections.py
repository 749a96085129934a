"""The report's smaller tables as text cells: who took part, ledgers, tiers of coefficients."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from fleettune.cost.carbon import INTENSITIES, WORLD, grams
from simulations.report.html import details, plain, scrolled
from simulations.report.tables import (
    UNKNOWN,
    arm_order,
    energy,
    energy_range,
    marked,
    number,
    percent_with_interval,
    tier_mix,
)
from simulations.results.device_means import TIERS
from simulations.results.summary import ATTENDANCE

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

INTAKE_NOTE = (
    "Of the exchanges that arrived, those that the buffer still held when the night's selection "
    "was done: over all rounds, in the first and in the last one. Pairs made for tuning, and those "
    "that passed the checks."
)


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


def intake_cells(rows: Mapping[str, pl.DataFrame]) -> Cells:
    """What every arm's buffer took in and what was made of it, as counts of exchanges.

    No row where all arms held alike and none made pairs.

    Args:
        rows: Rows of every arm, as `simulations.results.device_means.split_arms` gives them.
    """
    counted = ("arrived", "accepted", "asked", "synthesised", "synthetic_kept")
    sums = {arm: {name: int(part[name].sum()) for name in counted} for arm, part in rows.items()}
    alike = len({(one["accepted"], one["asked"]) for one in sums.values()}) < 2
    columns = ["arm", "arrived", "accepted", "first round", "last round"]
    columns += ["asked per 1,000", "held at the end", "pairs made", "pairs accepted"]
    if alike and not any(one["synthesised"] for one in sums.values()):
        return columns, []
    found: list[list[str]] = []
    for arm, one in sums.items():
        ends = [rows[arm].filter(pl.col("round") == end) for end in _ends(rows[arm])]
        found.append(
            [
                arm,
                f"{one['arrived']:,}",
                _percent(one["accepted"], one["arrived"]),
                *(_percent(int(e["accepted"].sum()), int(e["arrived"].sum())) for e in ends),
                number(1e3 * one["asked"] / one["arrived"], ".0f") if one["arrived"] else UNKNOWN,
                number(float(ends[1]["buffer_exchanges"].to_numpy().mean()), ".1f"),
                f"{one['synthesised']:,}",
                _percent(one["synthetic_kept"], one["synthesised"]),
            ]
        )
    return columns, found


def _ends(rows: pl.DataFrame) -> tuple[int, int]:
    lived = rows.filter(pl.col("arrived") > 0)["round"] if rows["arrived"].sum() else rows["round"]
    return int(lived.to_numpy().min()), int(lived.to_numpy().max())


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else UNKNOWN


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


_NOTES = {
    "decisions": "What the server counted, from reports alone; a first tune counts as a retune. "
    "Gain: of retunes, on canaries, nats per token. Joules of retunes are simulated, above idle.",
    "guidance": "What came with a release, and how its score did on the retunes of that very "
    "release, weighted by one over their propensity. Until one was fitted, the prior is.",
    "forecast": "From a first cohort's reports, with 95 % intervals; the outcome where everybody "
    "got the release. Joules are simulated.",
}


def learned_section(run_dir: Path) -> str:
    """Returns the tables of a run's learned files; empty where there is none.

    Args:
        run_dir: A finished run.
    """
    made = {"decisions": decision_cells, "guidance": guidance_cells, "forecast": forecast_cells}
    shown: list[str] = []
    for name, cells in made.items():
        file = run_dir / f"{name}.parquet"
        if not file.is_file():
            continue
        columns, rows = cells(pl.read_parquet(file))
        if rows:
            note = f'<p class="note">{html.escape(_NOTES[name])}</p>'
            shown.append(f"<h3>{name.capitalize()}</h3>{note}{scrolled(plain(columns, rows))}")
    return details("What the server learnt of decisions", "\n".join(shown)) if shown else ""


def decision_cells(table: pl.DataFrame) -> Cells:
    """Reuses and retunes by arm and release, over all device classes."""
    columns = ["arm", "release", "devices", "reused", "retuned", "explored", "retune rate"]
    columns += ["joules per retune", "median gain (5 % to 95 %)"]
    rows = [
        [
            one["arm"],
            str(one["release"]),
            *(f"{one[name]:,}" for name in ("devices", "reused", "retuned", "explored")),
            UNKNOWN if one["retune_rate"] is None else f"{100 * one['retune_rate']:.1f} %",
            energy(one["joules_per_retune"]),
            _spread_sections_learned(one["gain_q50"], one["gain_q05"], one["gain_q95"]),
        ]
        for one in table.filter(pl.col("device_class") == "all").iter_rows(named=True)
    ]
    return columns, rows


def guidance_cells(table: pl.DataFrame) -> Cells:
    """What came with every release of the arms of which a gain is known."""
    columns = ["arm", "release", "fitted from", "explored", "log odds: 1", "log_drift", "canary"]
    columns += ["threshold", "for everybody", "judged by", "ROC-AUC", "false reuse", "false retune"]
    told = table.filter((pl.col("devices") > 0) | (pl.col("judged_devices") > 0))
    rows = [
        [
            one["arm"],
            str(one["release"]),
            f"{one['devices']:,}" if one["fitted"] else "too few",
            f"{one['explored']:,}",
            *(number(one[name], ".3g") for name in ("intercept", "log_drift", "canary")),
            number(one["threshold"], ".2f"),
            one["decision"] or one["decision_reason"],
            number(one["judged_devices"], "d"),
            *(number(one[name], ".2f") for name in ("auc", "false_reuse", "false_retune")),
        ]
        for one in told.iter_rows(named=True)
    ]
    return columns, rows


def forecast_cells(table: pl.DataFrame) -> Cells:
    """Forecast beside outcome, by arm, release, night and quantity."""
    columns = ["arm", "release", "night", "then", "sampled", "quantity", "forecast [95 %]"]
    columns += ["outcome", "covered"]
    rows = [
        [
            one["arm"],
            str(one["release"]),
            str(one["round"]),
            one["action"],
            f"{one['sampled']:,} of {one['devices']:,}",
            one["quantity"],
            f"{number(one['value'], '.4g')} [{number(one['low'], '.4g')}, "
            f"{number(one['high'], '.4g')}]",
            number(one["outcome"], ".4g"),
            UNKNOWN if one["covered"] is None else ("yes" if one["covered"] else "no"),
        ]
        for one in table.iter_rows(named=True)
    ]
    return columns, rows


def _spread_sections_learned(middle: float | None, low: float | None, high: float | None) -> str:
    if middle is None:
        return UNKNOWN
    return f"{number(middle)} ({number(low)} to {number(high)})"
