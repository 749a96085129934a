"""What a run's Parquet tables say, as rows of the page's tables.

A function returns no row where there is nothing to tell; the page then leaves the table out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from simulations.report.figures import Arms
from simulations.report.formats import (
    UNKNOWN,
    format_interval,
    format_joules,
    format_number,
    format_share,
)
from simulations.report.page import Row
from simulations.report.release_marks import label_release
from simulations.results.derived_columns import PATCH_BYTES, STARTED_J, add_derived_columns
from simulations.results.device_means import Floats, estimate_mean

_REFUSED = "rejected_"
"""How columns of rounds begin that count refused replies by reason."""


def tabulate_releases(releases: pl.DataFrame) -> list[Row]:
    """Returns a row per release, from ``releases.parquet``."""
    return [
        {
            "release": label_release(one["version"], one["name"]),
            "kind": one["kind"] or "",
            "published in round": format_number(one["round"], "d"),
            "tokens": format_number(one["tokens"], ",d"),
            "steps": format_number(one["steps"], ",d"),
            "learning rate": format_number(one["learning_rate"], ".2g"),
            "drift (RMS)": format_number(one["drift_rms"], ".3g"),
            "loss before": format_number(one["loss_before"]),
            "loss after": format_number(one["loss_after"]),
            "MB": format_number(one["size_bytes"], ",.1f", per=1e6),
        }
        for one in releases.sort("round", "version").iter_rows(named=True)
    ]


def tabulate_sent(arms: Arms) -> list[Row]:
    """Returns a row per arm that sent deltas: their bytes, and those of whole releases instead.

    Federated averaging of whole models would send a release in full wherever a delta was sent. Both
    are counted at the bytes that are priced, so the ratio is that of the model that is priced.
    """
    sizes = size_releases(arms)
    rows: list[Row] = []
    for arm, part in arms.items():
        sent = add_derived_columns(part).filter(pl.col(PATCH_BYTES) > 0).join(sizes, on="release")
        if sent.is_empty():
            continue
        deltas, whole = float(sent[PATCH_BYTES].sum()), float(sent["whole_bytes"].sum())
        row = {"arm": arm, "deltas": f"{sent.height:,}"}
        row["sent"] = f"{format_number(deltas, ',.4g', per=1e6)} MB"
        row["as whole releases"] = f"{format_number(whole, ',.4g', per=1e6)} MB"
        rows.append(row | {"times fewer bytes": format_number(whole / deltas, ",.1f")})
    return rows


def size_releases(arms: Arms) -> pl.DataFrame:
    """Returns the bytes of a full download of every release, as ``release`` and ``whole_bytes``.

    That is the least of what any device received with it: some are sent a fleet patch as well. One
    that was only ever received as a delta counts as the largest of the others.
    """
    every = pl.concat([part.select("release", "payload", "down_bytes") for part in arms.values()])
    full = every.filter(pl.col("payload") == "full")
    least = full.group_by("release").agg(pl.col("down_bytes").min().alias("whole_bytes"))
    if least.is_empty():
        return least
    known = every.select("release").unique().join(least, on="release", how="left")
    return known.with_columns(pl.col("whole_bytes").fill_null(pl.col("whole_bytes").max()))


def tabulate_refused(rounds: pl.DataFrame) -> list[Row]:
    """Returns a row per arm and reason for which replies were refused, of ``rounds.parquet``."""
    reasons = [name for name in rounds.columns if name.startswith(_REFUSED)]
    sums = rounds.group_by("arm", maintain_order=True).agg(pl.col(reasons).sum())
    return [
        {"arm": arm["arm"], "reason": reason, "refused": f"{arm[name]:,}"}
        for arm in sums.iter_rows(named=True)
        for name in reasons
        for reason in [name.removeprefix(_REFUSED).replace("_", " ")]
        if arm[name]
    ]


def tabulate_intake(arms: Arms) -> list[Row]:
    """Returns a row per arm: what its buffer took in and what was made of it, in exchanges.

    No row where all arms held alike and none made pairs.
    """
    counted = ("arrived", "accepted", "asked", "synthesised", "synthetic_kept")
    sums = {arm: {name: int(part[name].sum()) for name in counted} for arm, part in arms.items()}
    alike = len({(one["accepted"], one["asked"]) for one in sums.values()}) < 2
    if alike and not any(one["synthesised"] for one in sums.values()):
        return []
    rows: list[Row] = []
    for arm, one in sums.items():
        first, last = (arms[arm].filter(pl.col("round") == end) for end in _find_ends(arms[arm]))
        asked = 1e3 * one["asked"] / one["arrived"] if one["arrived"] else None
        held = float(last["buffer_exchanges"].to_numpy().mean())
        rows.append(
            {
                "arm": arm,
                "arrived": f"{one['arrived']:,}",
                "accepted": format_share(one["accepted"], one["arrived"]),
                "first round": _share_accepted(first),
                "last round": _share_accepted(last),
                "asked per 1,000": format_number(asked, ".0f"),
                "held at the end": format_number(held, ".1f"),
                "pairs made": f"{one['synthesised']:,}",
                "pairs accepted": format_share(one["synthetic_kept"], one["synthesised"]),
            }
        )
    return rows


def _find_ends(rows: pl.DataFrame) -> tuple[int, int]:
    """Returns the first and the last round in which something arrived, if anything ever did."""
    known = rows.filter(pl.col("arrived") > 0) if rows["arrived"].sum() else rows
    rounds = known["round"].to_numpy()
    return int(rounds.min()), int(rounds.max())


def _share_accepted(rows: pl.DataFrame) -> str:
    return format_share(int(rows["accepted"].sum()), int(rows["arrived"].sum()))


def tabulate_starts(arms: Arms, reference: str) -> list[Row]:
    """Returns a row per arm and group of devices that found a start in a catalogue on offer.

    Args:
        arms: Rows by arm.
        reference: The arm that savings are measured against.
    """
    started = {arm: _take_first_tunes(part) for arm, part in arms.items()}
    if not any(part.height for part in started.values()):
        return []
    first = min(int(part["round"].to_numpy().min()) for part in arms.values() if part.height)
    rows: list[Row] = []
    for arm, part in started.items():
        there = arms[arm].filter(pl.col("round") == first)["device"].to_list()
        joined = part.filter(~pl.col("device").is_in(there))
        rows += [
            {"arm": arm, "devices": group, **_describe_starts(chosen, started[reference])}
            for group, chosen in (("all", part), ("joined", joined))
            if chosen.height
        ]
    return rows


def _take_first_tunes(rows: pl.DataFrame) -> pl.DataFrame:
    if "start_entries" not in rows.columns:
        return rows.head(0)
    return add_derived_columns(rows).filter(pl.col("start_entries").is_not_null())


def _describe_starts(part: pl.DataFrame, against: pl.DataFrame) -> Row:
    """Returns the cells of some first tunes, beside those of the same devices in the reference."""
    one, two = (int((part["start_entries"] == count).sum()) for count in (1, 2))
    both = part.join(against.unique("device", keep="first"), on="device", suffix="_reference")
    saved, nats = -_subtract(both, STARTED_J), _subtract(both, "nll")
    devices = both["device"].cast(pl.Int64).to_numpy()
    return {
        "first tunes": f"{part.height:,}",
        "one entry": format_share(one, part.height, digits=0),
        "two entries": format_share(two, part.height, digits=0),
        "steps": format_number(_average(part, "tune_steps"), ".1f"),
        "nats before any step": format_number(_average(part, "start_nll")),
        "nats after": format_number(_average(part, "nll")),
        "finding a start, per device": format_joules(_average(part, "start_j")),
        "joules saved per device [95 %]": format_interval(estimate_mean(saved, devices, 0), ".3g"),
        "nats against the reference [95 %]": format_interval(
            estimate_mean(nats, devices, 0), "+.3f"
        ),
    }


def _subtract(both: pl.DataFrame, column: str) -> Floats:
    """Returns a column minus the reference's, by device; NaN where one is unknown."""
    found = both.select((pl.col(column) - pl.col(f"{column}_reference")).alias("x"))["x"]
    return found.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _average(rows: pl.DataFrame, column: str) -> float | None:
    known = rows[column].drop_nulls().cast(pl.Float64).to_numpy()
    return float(np.mean(known)) if len(known) else None


def tabulate_catalogue(entries: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Returns a row per entry of the first catalogue on offer: the entry in words."""
    return [
        {"entry": entry["entry"], "from": entry["origin"], "reads": entry["reads"]}
        for entry in entries
        if entry["release"] == entries[0]["release"]
    ]


def tabulate_decisions(counted: pl.DataFrame) -> list[Row]:
    """Returns a row per arm and release of ``decisions.parquet``, over all device classes."""
    rows: list[Row] = []
    for one in counted.filter(pl.col("device_class") == "all").iter_rows(named=True):
        row = {"arm": one["arm"], "release": str(one["release"])}
        row |= {name: f"{one[name]:,}" for name in ("devices", "reused", "retuned", "explored")}
        row["retune rate"] = format_share(one["retune_rate"])
        row["joules per retune"] = format_joules(one["joules_per_retune"])
        middle, low, high = (format_number(one[f"gain_q{share}"]) for share in ("50", "05", "95"))
        gain = UNKNOWN if one["gain_q50"] is None else f"{middle} ({low} to {high})"
        rows.append(row | {"median gain (5 % to 95 %)": gain})
    return rows


def tabulate_guidance(guidance: pl.DataFrame) -> list[Row]:
    """Returns a row per release of ``guidance.parquet``, of the arms of which a gain is known."""
    known = guidance.filter((pl.col("devices") > 0) | (pl.col("judged_devices") > 0))
    return [
        {
            "arm": one["arm"],
            "release": str(one["release"]),
            "fitted from": f"{one['devices']:,}" if one["fitted"] else "too few",
            "explored": f"{one['explored']:,}",
            "log odds: 1": format_number(one["intercept"], ".3g"),
            "log_drift": format_number(one["log_drift"], ".3g"),
            "canary": format_number(one["canary"], ".3g"),
            "threshold": format_number(one["threshold"], ".2f"),
            "for everybody": one["decision"] or one["decision_reason"],
            "judged by": format_number(one["judged_devices"], "d"),
            "ROC-AUC": format_number(one["auc"], ".2f"),
            "false reuse": format_number(one["false_reuse"], ".2f"),
            "false retune": format_number(one["false_retune"], ".2f"),
        }
        for one in known.iter_rows(named=True)
    ]


def tabulate_forecasts(forecasts: pl.DataFrame) -> list[Row]:
    """Returns a row per quantity of ``forecast.parquet``: forecast beside outcome."""
    return [
        {
            "arm": one["arm"],
            "release": str(one["release"]),
            "night": str(one["round"]),
            "then": one["action"],
            "sampled": f"{one['sampled']:,} of {one['devices']:,}",
            "quantity": one["quantity"],
            "forecast [95 %]": f"{format_number(one['value'], '.4g')} "
            f"[{format_number(one['low'], '.4g')}, {format_number(one['high'], '.4g')}]",
            "outcome": format_number(one["outcome"], ".4g"),
            "covered": {None: UNKNOWN, True: "yes", False: "no"}[one["covered"]],
        }
        for one in forecasts.iter_rows(named=True)
    ]
