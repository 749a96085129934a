"""Fits a score for ``guidance=fixed`` to what devices of finished runs reported.

    python -m simulations.assets.fixed_guidance RUN [RUN ...] --arm edgetune

Prints the overrides that use it. Runs of several seeds are pooled: drift hardly differs within a
release, so more releases say more than more devices. Read are reported numbers alone, gains of
canaries among them; observations are not. Runs that explore (``guidance=fitted
guidance.explore=0.5``) know the gains of devices whose rule would have reused.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console

from fleettune.releases.guidance import features_of
from strategies.learning.calibration import CalibratedRule
from strategies.learning.decision_reports import PRESENT, RETUNE, REUSE, DecisionReport
from strategies.learning.guidance_rules import Fitted, with_features

DEFAULT = Fitted(
    margin=0.05,
    false_reuse_cost=1.0,
    explore=0.0,
    min_explored=10,
    max_weight=50.0,
    prior_kappa=0.05,
    prior_slope=2.0,
)
"""Margin, costs and prior as in conf/guidance/fitted.yaml."""


def fit_score(rows: pl.DataFrame, guiding: Fitted) -> CalibratedRule:
    """Returns the score that the reported decisions of an arm ask for.

    Args:
        rows: An arm's rows, of any number of runs.
        guiding: Margin, costs and prior of the fit.
    """
    reports = [_report(row) for row in rows.iter_rows(named=True) if _decided(row)]
    return guiding.calibration().fit(with_features(reports))


def overrides_of(found: CalibratedRule) -> list[str]:
    """Returns a command line that uses a score, to four digits."""
    named = {"intercept": found.rule.intercept, **dict(found.rule.weights)}
    named["threshold"] = found.rule.threshold
    return ["guidance=fixed", *(f"guidance.{name}={value:.4g}" for name, value in named.items())]


def read_rows(runs: Iterable[Path], arm: str) -> pl.DataFrame:
    """Returns an arm's rows of several finished runs.

    Raises:
        ValueError: If a folder holds no finished run, or none of this arm.
    """
    frames: list[pl.DataFrame] = []
    for run in runs:
        if not (run / "summary.json").is_file():
            raise ValueError(f"{run} must hold a finished run: it lacks summary.json")
        rows = pl.read_parquet(run / "rows.parquet")
        if arm not in rows["arm"]:
            known = ", ".join(sorted(rows["arm"].unique()))
            raise ValueError(f"--arm must be an arm of {run}, one of {known}, got {arm!r}")
        frames.append(rows.filter(pl.col("arm") == arm))
    return pl.concat(frames)


def _decided(row: Mapping[str, Any]) -> bool:
    return row["attendance"] == PRESENT and row["decision"] in (RETUNE, REUSE)


def _report(row: Mapping[str, Any]) -> DecisionReport:
    retuned = row["decision"] == RETUNE
    before, after, propensity = row["canary_before"], row["canary_after"], row["propensity"]
    drift, strength = row["drift"], row["strength"]
    seen: Mapping[str, float] = {}
    if drift is not None and strength is not None:
        seen = features_of(drift, strength, row["canary_worse"], row["canary_before"])
    gain = None
    if retuned and before is not None and after is not None:
        gain = before - after
    return DecisionReport(
        release=row["release"],
        device_class=row["profile"],
        decision=row["decision"],
        features=tuple(seen.items()),
        propensity=float(retuned) if propensity is None else propensity,
        explored=retuned and row["explored"] == 1,
        gain=gain,
    )


def main() -> None:
    """Prints the overrides of a score, and what it rests on."""
    parser = argparse.ArgumentParser(description="A score for guidance=fixed, from finished runs.")
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--arm", default="edgetune", help="whose decisions are read")
    parser.add_argument("--least", type=int, default=10, help="fewest explored retunes of a fit")
    parser.add_argument(
        "--false-reuse-cost",
        type=float,
        default=DEFAULT.false_reuse_cost,
        help="retunes in vain that one wrong reuse is worth",
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=DEFAULT.margin,
        help="nats per token that a retune has to gain to count as help",
    )
    asked = parser.parse_args()
    try:
        guiding = replace(
            DEFAULT,
            margin=asked.margin,
            min_explored=asked.least,
            false_reuse_cost=asked.false_reuse_cost,
        )
        found = fit_score(read_rows(asked.runs, asked.arm), guiding)
    except ValueError as error:
        parser.error(str(error))
    console = Console(soft_wrap=True, highlight=False)
    if not found.fitted:
        parser.error(
            f"too few retunes at random to fit: {found.explored} of {found.devices} of known gain"
        )
    console.print(" ".join(overrides_of(found)))
    rests = f"{found.devices} retunes of known gain, {found.explored} of them explored"
    console.print(f"# from {rests}, {found.effective_devices:.1f} effective")


if __name__ == "__main__":
    main()
