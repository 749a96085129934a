"""What a run's ``summary.json`` says, as sentences and rows of tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fleettune.cost.carbon import INTENSITIES, WORLD, grams
from fleettune.cost.hardware import TIERS
from simulations.experiment.headlines import HEADLINES
from simulations.report.formats import (
    TIER_WORDS,
    UNKNOWN,
    format_change,
    format_interval,
    format_joules,
    format_joules_range,
    format_kilojoules,
    format_number,
    format_share,
    format_share_interval,
    format_tiers,
    mark_estimates,
)
from simulations.report.page import Row
from simulations.results.device_means import DECISIONS
from simulations.results.extrapolation import SAVED
from simulations.results.summary import ATTENDANCE

Summary = Mapping[str, Any]
"""What ``summary.json`` holds."""

SCHEMA = 3
OWN = "own"
_DRAWN = ("coefficients", "both")
_LEDGERS: Mapping[str, str] = {
    "device_marginal": "device, marginal",
    "device_total": "device, total",
    "wall": "wall",
    "network": "network",
    "server": "server",
}
_QUANTITIES: Mapping[str, str] = {
    "energy_j": "simulated energy, device total",
    "energy_j_wasted": "simulated energy wasted",
    SAVED: "simulated energy saved",
    "down_bytes": "received",
    "up_bytes": "sent",
}


def check_schema(summary: Summary, run_dir: Path) -> None:
    """Raises ValueError if another version wrote the summary of a run."""
    if summary["schema"] != SCHEMA:
        raise ValueError(
            f"summary.json of {run_dir} must be of schema {SCHEMA}, got {summary['schema']}: "
            "it was written by another version; run the experiment again"
        )


def get_reference(summary: Summary) -> str:
    """Returns the name of the arm that the others are compared with."""
    return str(next(iter(summary["arms"].values()))["vs_reference"]["reference"])


def get_metric(summary: Summary) -> str:
    """Returns the name of the headline metric."""
    return str(next(iter(summary["arms"].values()))["quality"]["metric"])


def order_arms(summary: Summary) -> list[str]:
    """Returns the arms as they are shown: the reference first, the others as they were given."""
    return list(summary["arms"])


def describe_pricing(summary: Summary) -> str:
    """Returns whose shapes decided the costs."""
    model = summary["run"]["priced_as"]
    return "priced at the backbone's own shapes" if model == OWN else f"priced as {model}"


def describe_joules(summary: Summary, ledger: str = "device-total") -> str:
    """Returns ledger, pricing, range and tiers behind every number of joules, as a sentence."""
    draws, shares = summary["monte_carlo"]["draws"], summary["coefficient_shares"]
    return (
        f"Simulated joules, {ledger} ledger, {describe_pricing(summary)}; low to high hold 95 % of "
        f"{draws:,} draws of the coefficients, which weigh {format_tiers(shares)}."
    )


def describe_headline(summary: Summary) -> str:
    """Returns what the headline numbers are, which coefficients they rest on, the reference."""
    tiers = " ".join(f"{tier} {summary['coefficients'][tier]}" for tier in TIERS)
    return (
        f"{describe_joules(summary)} Coefficient tiers {tiers}. Savings and quality differences "
        f"are paired per device against {get_reference(summary)}; intervals are bootstrapped over "
        "devices, those over coefficients hold 95 % of common draws. E: rests mostly on estimates."
    )


def tabulate_headline(summary: Summary) -> list[Row]:
    """Returns a row per arm: quality, its change, simulated kJ, saving."""
    reference, head = get_reference(summary), HEADLINES[get_metric(summary)]
    unit = "points" if head.is_share else "change"
    format_quality = format_share_interval if head.is_share else format_interval
    rows: list[Row] = []
    for name in order_arms(summary):
        arm = summary["arms"][name]
        total, versus = arm["energy_j"]["ledgers"]["device_total"], arm["vs_reference"]
        joules = format_kilojoules(total["joules"], total["low"], total["high"])
        changes = [
            format_change(versus["quality_difference"], is_share=head.is_share),
            format_share_interval(versus["energy_saving"]),
        ]
        change, saving = ["reference", ""] if name == reference else changes
        row = {"arm": name, f"{head.words} [95 %]": format_quality(arm["quality"])}
        row[f"{unit} against {reference} [95 %]"] = change
        row["simulated kJ (low to high)"] = mark_estimates(joules, total["tiers"])
        rows.append(row | {"energy saved [95 %]": saving})
    return rows


def tabulate_details(summary: Summary) -> list[Row]:
    """Returns a row per arm: decisions, how sure its saving is, without serving, bytes."""
    rows: list[Row] = []
    for name in order_arms(summary):
        arm, versus = summary["arms"][name], summary["arms"][name]["vs_reference"]
        saving, unserved = versus["energy_saving"], versus["energy_saving_without_serving"]
        savings = [format_share_interval(saving, f"ci95_{kind}") for kind in _DRAWN]
        savings += ["scale-free" if saving["scale_free"] else "scale-bound"]
        savings += [format_share_interval(unserved)]
        if name == versus["reference"]:
            savings = ["reference", "", "", ""]
        columns = (*(f"saving [95 % {kind}]" for kind in _DRAWN), "scale")
        columns += ("saving without serving [95 % devices]",)
        received, sent = (format_number(arm["bytes"][way], ",.1f", 1e6) for way in ("down", "up"))
        row = {"arm": name, **{word: f"{arm['counts'][word]:,}" for word in DECISIONS}}
        row |= dict(zip(columns, savings, strict=True))
        rows.append(row | {"MB down / up": f"{received} / {sent}"})
    return rows


def tabulate_payers(summary: Summary, arm: str, kind: str) -> list[Row]:
    """Returns a row per group of devices: what an arm saves and changes there, and its retunes.

    Args:
        summary: That of a run.
        arm: Of whose devices.
        kind: ``by_class`` or ``by_data``.
    """
    head = HEADLINES[get_metric(summary)]
    heading = {"by_class": "device class", "by_data": "what the user wrote"}[kind]
    change = "change in points [95 %]" if head.is_share else "change [95 %]"
    return [
        {
            heading: f"{name} ({' to '.join(f'{end:,}' for end in one['exchanges'])} exchanges)"
            if "exchanges" in one
            else name,
            "devices": f"{one['devices']:,}",
            "energy saved [95 %]": format_share_interval(one["energy_saving"]),
            change: format_change(one["quality_difference"], is_share=head.is_share),
            "retunes per device": format_number(one["retunes_per_device"], ".1f"),
        }
        for name, one in summary["arms"][arm]["vs_reference"][kind].items()
    ]


def _format_ledger(ledger: Mapping[str, Any]) -> str:
    joules = format_joules_range(ledger["joules"], ledger["low"], ledger["high"])
    return mark_estimates(joules, ledger["tiers"])


def tabulate_attendance(summary: Summary) -> list[Row]:
    """Returns a row per arm: its device nights by how they ended, and what was wasted."""
    rows: list[Row] = []
    for name in order_arms(summary):
        arm = summary["arms"][name]
        wasted = arm["energy_j"]["wasted_j"]
        tiers: dict[str, float] = arm["energy_j"]["ledgers"]["device_marginal"]["tiers"]
        joules = format_joules_range(wasted["total"], wasted["low"], wasted["high"])
        late = arm["vs_reference"]["share_flipped"]
        full = summary.get("memory_flipped", {}).get(name)
        row = {"arm": name} | {word: f"{arm['attendance'][word]:,}" for word in ATTENDANCE}
        row["infeasible"] = f"{arm['counts']['infeasible']:,}"
        row["wasted energy (low to high)"] = mark_estimates(
            joules, tiers if wasted["total"] else {}
        )
        row["lateness flips under a draw"] = (
            "no deadline" if late is None else f"{format_share(late)} of nights"
        )
        row["memory flips under a draw"] = (
            UNKNOWN if full is None else f"{format_share(full)} of tunes"
        )
        rows.append(row)
    return rows


def tabulate_classes(summary: Summary) -> list[Row]:
    """Returns a row per arm and device class; wasted energy as a share of the arm's."""
    counted = ("devices", *ATTENDANCE, "infeasible")
    return [
        {"arm": name, "device class": profile}
        | {word: f"{part[word]:,}" for word in counted}
        | {"share of the waste": format_share(part["wasted_j"], whole or 0, digits=0)}
        for name in order_arms(summary)
        for whole in [summary["arms"][name]["energy_j"]["wasted_j"]["total"]]
        for profile, part in summary["arms"][name]["by_class"].items()
    ]


def tabulate_ledgers(summary: Summary) -> list[Row]:
    """Returns a row per arm and ledger; carbon as a view of the wall's, the host at the end."""
    lines: list[tuple[str, ...]] = []
    for name in order_arms(summary):
        ledgers = summary["arms"][name]["energy_j"]["ledgers"]
        for ledger, words in _LEDGERS.items():
            one = ledgers[ledger]
            tiers = format_tiers(one["tiers"]) if one["tiers"] else ""
            lines.append((name, words, _format_ledger(one), tiers, one["note"]))
        lines.append((name, "carbon", *_price_carbon(ledgers["wall"], summary)))
    host = summary["host"]
    seconds = f"{format_number(host['seconds'], ',.1f')} s measured; {host['note']}"
    lines.append(("all arms", "host", format_joules(host["joules"]), "", seconds))
    columns = ("arm", "ledger", "energy (low to high)", "tiers", "what is counted")
    return [dict(zip(columns, line, strict=True)) for line in lines]


def _price_carbon(wall: Mapping[str, Any], summary: Summary) -> tuple[str, str, str]:
    """Returns grams of a wall ledger's joules, the tiers behind them, and at which intensity."""
    country = summary.get("country", WORLD)
    here = INTENSITIES[country]
    source = f"wall at {here.g_per_kwh:.0f} g/kWh, {here.country} {here.year}: a view, no ledger"
    if wall["joules"] is None or wall["low"] is None:
        return UNKNOWN, "", source
    value, low, high = (grams(wall[end], country) for end in ("joules", "low", "high"))
    text = f"{value:,.3g} g CO2e ({low:,.3g} to {high:,.3g})"
    return mark_estimates(text, wall["tiers"]), format_tiers(wall["tiers"]), source


def tabulate_represented(summary: Summary) -> list[Row]:
    """Returns totals of the fleet that the devices stand for; none without such a fleet."""
    rows: list[Row] = []
    fleets: dict[str, dict[str, Any]] = summary.get("represents") or {}
    for name, quantities in fleets.items():
        for quantity, found in quantities.items():
            total, low, high = (
                format_joules(found[end])
                if quantity.startswith("energy_j")
                else f"{format_number(found[end], ',.3g', 1e9)} GB"
                for end in ("total", "low", "high")
            )
            bounds = "" if found["low"] is None else f" [{low}, {high}]"
            spread = _spread_total(summary["arms"][name]["energy_j"], quantity, found["total"])
            rows.append(
                {
                    "arm": name,
                    "quantity": _QUANTITIES[quantity],
                    "total [95 %, sampling of devices]": total + bounds,
                    "low to high": spread,
                    "strata": str(len(found["strata"])),
                    "devices of the smallest": f"{min(found['strata'].values()):,}",
                    "pooled classes": ", ".join(found["pooled"]) or "none",
                }
            )
    return rows


def _spread_total(joules: Mapping[str, Any], quantity: str, total: float) -> str:
    """Returns what the coefficients' ranges make of a total of joules; empty for bytes."""
    known = {"energy_j": joules, "energy_j_wasted": joules["wasted_j"]}
    if quantity not in known:
        return ""
    simulated = known[quantity]
    if not simulated["total"] or simulated["low"] is None:
        return UNKNOWN
    low, high = (total * simulated[end] / simulated["total"] for end in ("low", "high"))
    tiers = joules["ledgers"]["device_total"]["tiers"]
    return mark_estimates(f"{format_joules(low)} to {format_joules(high)}", tiers)


def tabulate_tiers(summary: Summary) -> list[Row]:
    """Returns a row per tier: how many coefficients, their share in what decides the joules."""
    return [
        {
            "tier": f"{tier}: {TIER_WORDS[tier]}",
            "coefficients": f"{summary['coefficients'][tier]}",
            "share in what decides the joules": format_share(summary["coefficient_shares"][tier]),
        }
        for tier in TIERS
    ]
