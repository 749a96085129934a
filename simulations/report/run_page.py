"""The report of a run: one page made from the files of its directory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from simulations.experiment.headlines import HEADLINES
from simulations.report.answer import choose_arm, conclude
from simulations.report.figures import colour_arms, draw_figures
from simulations.report.formats import format_number
from simulations.report.page import Row, write_page
from simulations.report.represented import describe_represented
from simulations.report.row_tables import (
    tabulate_catalogue,
    tabulate_decisions,
    tabulate_forecasts,
    tabulate_guidance,
    tabulate_intake,
    tabulate_refused,
    tabulate_releases,
    tabulate_sent,
    tabulate_starts,
)
from simulations.report.summary_tables import (
    Summary,
    check_schema,
    describe_headline,
    describe_pricing,
    get_metric,
    get_reference,
    order_arms,
    tabulate_attendance,
    tabulate_classes,
    tabulate_details,
    tabulate_headline,
    tabulate_ledgers,
    tabulate_payers,
    tabulate_represented,
    tabulate_tiers,
)
from simulations.results.device_means import split_arms
from simulations.results.summary import LABEL, NOT_COVERED
from strategies.app import CATALOGUE_FILE

GROUPS = ("by_data", "by_class")
_FILES = (
    *("config.yaml", "versions.json", "rows.parquet", "rounds.parquet", "releases.parquet"),
    *("host.json", "summary.json"),
)


def write_report(run_dir: Path) -> Path:
    """Writes `report.html` from the other files of a finished run and returns its path.

    Raises:
        FileNotFoundError: If a file of the run is missing.
        ValueError: If another version wrote it.
    """
    missing = [name for name in _FILES if not (run_dir / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{run_dir} is not a finished run: it lacks {', '.join(missing)}")
    summary = _read_json(run_dir / "summary.json")
    check_schema(summary, run_dir)
    values = _describe_run(summary) | _tabulate_files(run_dir, summary)
    return write_page("run.html", run_dir / "report.html", values)


def _describe_run(summary: Summary) -> dict[str, object]:
    """Returns the values of the page that follow from the summary."""
    fleets: dict[str, Any] = summary.get("represents") or {}
    chosen, head = choose_arm(summary), HEADLINES[get_metric(summary)]
    stands_for = [one["energy_j"]["represents"] for one in fleets.values()]
    return {
        "title": "Personalising a simulated fleet",
        "run": summary["run"],
        "priced_as": describe_pricing(summary),
        "answer": conclude(summary),
        "reference": get_reference(summary),
        "change": f"{'points' if head.is_share else 'change'} of {head.words}",
        "chosen": chosen,
        "payers": [tabulate_payers(summary, chosen, kind) for kind in GROUPS] if chosen else [],
        "headline": tabulate_headline(summary),
        "details": tabulate_details(summary),
        "colours": colour_arms(order_arms(summary)),
        "headline_caption": describe_headline(summary),
        "attendance": tabulate_attendance(summary),
        "classes": tabulate_classes(summary),
        "ledgers": tabulate_ledgers(summary),
        "represents": stands_for[0] if stands_for else 0,
        "represented_told": describe_represented(summary),
        "represented": tabulate_represented(summary),
        "tiers": tabulate_tiers(summary),
        "monte_carlo": summary["monte_carlo"],
        "label": LABEL[0].upper() + LABEL[1:],
        "not_covered": NOT_COVERED,
        "peak_mb": format_number(summary["run"]["peak_rss_mb"], ",.0f"),
    }


def _tabulate_files(run_dir: Path, summary: Summary) -> dict[str, object]:
    """Returns the values of the page that follow from the other files of a run."""
    rows = split_arms(pl.read_parquet(run_dir / "rows.parquet"))
    releases = pl.read_parquet(run_dir / "releases.parquet")
    host = _read_json(run_dir / "host.json")
    seconds = {"all": host["host_seconds"], **host.get("seconds_by_phase", {})}
    catalogue = run_dir / CATALOGUE_FILE
    return {
        "figures": draw_figures(rows, releases, summary),
        "releases": tabulate_releases(releases),
        "sent": tabulate_sent(rows),
        "refused": tabulate_refused(pl.read_parquet(run_dir / "rounds.parquet")),
        "intake": tabulate_intake(rows),
        "starts": tabulate_starts(rows, get_reference(summary)),
        "catalogue": tabulate_catalogue(_read_json(catalogue)) if catalogue.is_file() else [],
        **tabulate_learned(run_dir),
        "config": (run_dir / "config.yaml").read_text(encoding="utf-8"),
        "versions": [
            {"package": name, "version": str(one)}
            for name, one in _read_json(run_dir / "versions.json").items()
        ],
        "host_seconds": [
            {"phase": phase, "host seconds (measured)": format_number(value, ",.1f")}
            for phase, value in seconds.items()
        ],
    }


def tabulate_learned(run_dir: Path) -> dict[str, list[Row]]:
    """Returns the tables of what the server learnt of decisions; without rows where it did not."""
    tables: dict[str, tuple[str, Callable[[pl.DataFrame], list[Row]]]] = {
        "decisions": ("decisions.parquet", tabulate_decisions),
        "guidance": ("guidance.parquet", tabulate_guidance),
        "forecasts": ("forecast.parquet", tabulate_forecasts),
    }
    files = {name: (run_dir / file, tabulate) for name, (file, tabulate) in tables.items()}
    return {
        name: tabulate(pl.read_parquet(file)) if file.is_file() else []
        for name, (file, tabulate) in files.items()
    }


def _read_json(path: Path) -> Any:  # noqa: ANN401 - JSON
    return json.loads(path.read_text(encoding="utf-8"))
