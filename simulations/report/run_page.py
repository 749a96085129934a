"""The report of a run: one self-contained HTML page, made from the files of its directory.

The page loads nothing: the Plotly library stands in it once, fonts are the system's. It holds no
time stamp and no random id, so equal run directories give equal bytes.
"""

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from plotly.offline import get_plotlyjs  # pyright: ignore[reportMissingTypeStubs] - it has none

from simulations.report import figures
from simulations.report.html import Chart
from simulations.report.html import chart as _chart
from simulations.report.html import details as _details
from simulations.report.html import plain as _plain
from simulations.report.html import scrolled as _scrolled
from simulations.report.html import table as _table
from simulations.report.page_frame import PAGE, STYLE
from simulations.report.sections import (
    INTAKE_NOTE,
    attendance_cells,
    class_cells,
    intake_cells,
    learned_section,
    ledger_cells,
    represented_cells,
    serving_cells,
    tier_cells,
)
from simulations.report.sent_bytes_table import (
    EXCHANGE_NOTE,
    REFUSED_NOTE,
    exchange_cells,
    refused_cells,
)
from simulations.report.start_tables import CATALOGUE_NOTE, START_NOTE, catalogue_cells, start_cells
from simulations.report.tables import (
    arm_order,
    headline_caption,
    headline_cells,
    joules_caption,
    number,
    priced_as,
    reference_arm,
    verdict,
)
from simulations.results.device_means import split_arms
from simulations.results.summary import LABEL, NOT_COVERED
from strategies.app import CATALOGUE_FILE

SCHEMA = 2
_FILES = (
    *("config.yaml", "versions.json", "rows.parquet", "rounds.parquet", "releases.parquet"),
    "host.json",
)


def write_report(run_dir: Path) -> Path:
    """Path of the page `report.html`, written from the other files of a finished run.

    Raises:
        FileNotFoundError: If a file of the run is missing.
        ValueError: If another version wrote it.
    """
    missing = [name for name in (*_FILES, "summary.json") if not (run_dir / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{run_dir} is not a finished run: it lacks {', '.join(missing)}")
    summary = _read_json(run_dir / "summary.json")
    if summary["schema"] != SCHEMA:
        raise ValueError(
            f"summary.json of {run_dir} must be of schema {SCHEMA}, got {summary['schema']}: "
            "it was written by another version; run the experiment again"
        )
    rows = split_arms(pl.read_parquet(run_dir / "rows.parquet"))
    releases = pl.read_parquet(run_dir / "releases.parquet")
    page = PAGE.substitute(
        title="Personalising a simulated fleet",
        style=STYLE,
        plotly=get_plotlyjs(),
        facts=html.escape(_facts(summary)),
        answer=html.escape(verdict(summary)),
        headline=_headline(summary),
        caption=html.escape(headline_caption(summary)),
        attendance=_attendance(summary),
        ledgers=_ledgers(summary)
        + _exchange(rows)
        + _refused(run_dir)
        + _intake(rows)
        + _starts(run_dir, rows, summary)
        + learned_section(run_dir),
        charts="\n".join(_chart(chart) for chart in charts(rows, releases, summary)),
        releases=_releases(releases),
        provenance=_provenance(run_dir, summary),
    )
    path = run_dir / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def charts(
    rows: Mapping[str, pl.DataFrame], releases: pl.DataFrame, summary: Mapping[str, Any]
) -> list[Chart]:
    """The charts of the page, in reading order."""
    joules = joules_caption(summary)
    return [
        Chart(
            key="quality-against-energy",
            title="What each policy costs and what it buys",
            caption="Up and to the left is better. Vertical bars are 95 % intervals over devices; "
            "horizontal bars are the range of the coefficients, an error that the arms share. "
            f"{joules}",
            figure=figures.quality_against_energy(summary),
        ),
        Chart(
            key="quality-over-rounds",
            title="Quality over rounds",
            caption="Mean over the devices evaluated in a round. Dotted lines mark the rounds in "
            "which a release is published.",
            figure=figures.quality_over_rounds(rows, releases, summary),
        ),
        Chart(
            key="energy-by-stage",
            title="Where the energy goes",
            caption="Joules of all simulated devices by stage of a night; idle is the draw of a "
            f"device that is kept awake, the others stand above it. {joules}",
            figure=figures.energy_by_stage(summary),
        ),
        Chart(
            key="decisions-per-release",
            title="Reuse or retune, release by release",
            caption="Of the devices that had something to decide while they held a release: the "
            "share that came to each decision.",
            figure=figures.decisions_per_release(rows, releases, summary),
        ),
        Chart(
            key="savings-per-device",
            title="Savings, device by device",
            caption="Boxes hold the middle half of the devices, whiskers reach from 5 % to 95 %. "
            "Devices count alike here, however much they use; the saving in the table is that of "
            f"the whole fleet. Central coefficients. {joules}",
            figure=figures.savings_per_device(rows, summary),
        ),
    ]


def _facts(summary: Mapping[str, Any]) -> str:
    run = summary["run"]
    return (
        f"{run['devices']:,} devices, {run['rounds']:,} rounds, {run['releases']:,} releases; "
        f"backbone {run['backbone']}, {priced_as(summary)}, data {run['data']}, "
        f"engine {run['engine']}, seed {run['seed']}. All joules and seconds of devices are "
        "simulated."
    )


def _attendance(summary: Mapping[str, Any]) -> str:
    note = (
        "Device nights, over all rounds. Late: done after the server had stopped waiting. "
        "Interrupted: taken from the charger before the work was done. Absent: never idle on "
        "charger and Wi-Fi. Starved: battery too low. Infeasible: to retune was decided and could "
        "not be done. Wasted energy stands above the idle draw and is part of the device ledgers. "
        f"{joules_caption(summary)}"
    )
    return "\n".join(
        [
            _scrolled(_plain(*attendance_cells(summary))),
            f'<p class="note">{html.escape(note)}</p>',
            _details("By device class", _scrolled(_plain(*class_cells(summary)))),
        ]
    )


def _ledgers(summary: Mapping[str, Any]) -> str:
    note = (
        "Each ledger answers another question; they overlap and are never added up. Energy of "
        f"devices is simulated, {priced_as(summary)}; low to high hold 95 % of the draws. "
        "E: rests mostly on estimates."
    )
    table = f'<div class="scroll prose">{_plain(*ledger_cells(summary))}</div>'
    shown = f'<p class="note">{html.escape(note)}</p>\n{table}\n{_serving(summary)}'
    columns, rows = represented_cells(summary)
    if not rows:
        return shown
    count = next(iter(summary["represents"].values()))["energy_j"]["represents"]
    note = (
        f"Totals of a fleet of {count:,} devices of the same mix, stratified by device class. The "
        "intervals cover the sampling of devices alone; low to high is what the ranges of the "
        f"coefficients make of a total. {joules_caption(summary)}"
    )
    return f'{shown}<p class="note">{html.escape(note)}</p>{_scrolled(_plain(columns, rows))}'


def _exchange(rows: Mapping[str, pl.DataFrame]) -> str:
    columns, cells = exchange_cells(rows)
    if not cells:
        return ""
    note = f'<p class="note">{html.escape(EXCHANGE_NOTE)}</p>'
    return note + _scrolled(_plain(columns, cells))


def _refused(run_dir: Path) -> str:
    columns, cells = refused_cells(pl.read_parquet(run_dir / "rounds.parquet"))
    if not cells:
        return ""
    note = f'<p class="note">{html.escape(REFUSED_NOTE)}</p>'
    return note + _scrolled(_plain(columns, cells))


def _starts(run_dir: Path, rows: Mapping[str, pl.DataFrame], summary: Mapping[str, Any]) -> str:
    columns, cells = start_cells(rows, reference_arm(summary))
    if not cells:
        return ""
    shown = [f'<p class="note">{html.escape(START_NOTE)}</p>', _scrolled(_plain(columns, cells))]
    file = run_dir / CATALOGUE_FILE
    if file.is_file():
        note = f'<p class="note">{html.escape(CATALOGUE_NOTE)}</p>'
        words = _scrolled(_plain(*catalogue_cells(_read_json(file))))
        shown.append(_details("The catalogue in words", note + words))
    return "".join(["<h2>Starts</h2>", *shown])


def _intake(rows: Mapping[str, pl.DataFrame]) -> str:
    columns, cells = intake_cells(rows)
    if not cells:
        return ""
    note = f'<p class="note">{html.escape(INTAKE_NOTE)}</p>'
    return note + _scrolled(_plain(columns, cells))


def _serving(summary: Mapping[str, Any]) -> str:
    note = (
        "The user's own use of the model is counted in every total. Left out, its joules above "
        f"idle are taken off both arms. Intervals over devices. {joules_caption(summary)}"
    )
    table = _scrolled(_plain(*serving_cells(summary)))
    return f'<p class="note">{html.escape(note)}</p>{table}'


def _headline(summary: Mapping[str, Any]) -> str:
    columns, rows = headline_cells(summary)
    colours = figures.arm_colours(arm_order(summary))
    swatches = [
        f'<span class="swatch" style="background:{colours[row[0]]}"></span>' for row in rows
    ]
    return _table(columns, rows, swatches)


def _releases(releases: pl.DataFrame) -> str:
    columns = ["release", "kind", "published in round", "tokens", "steps", "learning rate"]
    columns += ["drift (RMS)", "loss before", "loss after", "MB"]
    rows = [
        [
            figures.release_label(one["version"], one["name"]),
            one["kind"] or "",
            number(one["round"], "d"),
            number(one["tokens"], ",d"),
            number(one["steps"], ",d"),
            number(one["learning_rate"], ".2g"),
            number(one["drift_rms"], ".3g"),
            number(one["loss_before"]),
            number(one["loss_after"]),
            number(one["size_bytes"] and one["size_bytes"] / 1e6, ",.1f"),
        ]
        for one in releases.sort("round", "version").iter_rows(named=True)
    ]
    return _table(columns, rows, [""] * len(rows))


def _provenance(run_dir: Path, summary: Mapping[str, Any]) -> str:
    host = _read_json(run_dir / "host.json")
    draws, seed = summary["monte_carlo"]["draws"], summary["monte_carlo"]["seed"]
    drawn = f"{draws:,} draws, seed {seed}, common to all arms; {NOT_COVERED}."
    measured = {"all": host["host_seconds"], **host.get("seconds_by_phase", {})}
    seconds = [[phase, number(value, ",.1f")] for phase, value in measured.items()]
    versions = [[name, str(one)] for name, one in _read_json(run_dir / "versions.json").items()]
    config = html.escape((run_dir / "config.yaml").read_text(encoding="utf-8"))
    return "\n".join(
        [
            f"<p>{html.escape(LABEL[0].upper() + LABEL[1:])}.</p>",
            "<p>Where the coefficients behind them come from:</p>",
            _scrolled(_plain(*tier_cells(summary))),
            f'<p class="note">{html.escape(drawn)}</p>',
            _details("Configuration", f"<pre>{config}</pre>"),
            _details("Versions", _plain(["package", "version"], versions)),
            _details(
                f"Host: {number(summary['run']['peak_rss_mb'], ',.0f')} MB at peak (measured)",
                _plain(["phase", "host seconds (measured)"], seconds),
            ),
        ]
    )


def _read_json(path: Path) -> Any:  # noqa: ANN401 - JSON
    return json.loads(path.read_text(encoding="utf-8"))
