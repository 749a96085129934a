"""The page holds every arm, agrees with the rows, loads nothing and draws all its charts."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import plotly.graph_objects as go
import polars as pl
import pytest
from plotly.offline import get_plotlyjs

from simulations.report import figures
from simulations.report.run_page import charts, write_report
from simulations.report.tables import energy
from simulations.results.device_means import split_arms
from tests.simulations.browser import draw, needs_chromium

MakeRun = Callable[..., Path]


def own_text(page: Path) -> str:
    """The page without the Plotly library that stands in it."""
    text = page.read_text(encoding="utf-8")
    assert text.count(get_plotlyjs()) == 1
    return text.replace(get_plotlyjs(), "")


def bare(rows: pl.DataFrame) -> pl.DataFrame:
    """One round without a decision or an evaluation."""
    blind = [
        pl.lit(None).alias(name) for name in ("nll", "exact_match", "approval", "mae", "rouge1")
    ]
    return rows.filter(pl.col("round") == 1).with_columns(blind)


def test_the_page_holds_every_arm_and_its_joules(
    tmp_path: Path, make_run: MakeRun, rows: pl.DataFrame
) -> None:
    text = own_text(write_report(make_run(tmp_path / "run")))
    for arm, part in split_arms(rows).items():
        fold_j = math.fsum(part["energy_j"].to_list())
        assert f"{arm}</td>" in text
        assert f"<td>{energy(fold_j)} E<br><small>(" in text  # estimates decide it


def test_the_joules_of_the_stage_chart_equal_the_fold_of_the_rows(
    tmp_path: Path, make_run: MakeRun, rows: pl.DataFrame
) -> None:
    summary = json.loads((make_run(tmp_path / "run") / "summary.json").read_text())
    figure = figures.energy_by_stage(summary)
    drawn = math.fsum(sum(trace["x"]) for trace in figure["data"] if trace["type"] == "bar")
    assert drawn == pytest.approx(rows["energy_j"].sum(), rel=1e-9)  # stages are rounded shares


def test_the_page_says_what_deltas_are_beside_whole_releases(
    tmp_path: Path, make_run: MakeRun
) -> None:
    text = own_text(write_report(make_run(tmp_path / "run")))
    # 4 MB were received and 0.2 MB sent, 1,024 bytes of which are the report
    assert "as whole releases" in text
    assert "<td>20.1</td>" in text


def test_the_page_loads_nothing(tmp_path: Path, make_run: MakeRun) -> None:
    text = own_text(write_report(make_run(tmp_path / "run")))
    assert not re.findall(r"https?://|//cdn|@import|url\(|<link|<iframe|<img|\ssrc=", text)


def test_equal_runs_give_equal_bytes(tmp_path: Path, make_run: MakeRun) -> None:
    first, second = (write_report(make_run(tmp_path / name)) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    assert write_report(first.parent).read_bytes() == second.read_bytes()


def test_every_string_is_escaped(tmp_path: Path, make_run: MakeRun, rows: pl.DataFrame) -> None:
    evil = "<script>alert(1)</script>"
    renamed = rows.with_columns(pl.col("arm").replace("always_reuse", evil))
    run = make_run(tmp_path / "run", frame=renamed, config=f"note: {evil}\n")
    (run / "versions.json").write_text(json.dumps({evil: evil}))
    text = own_text(write_report(run))
    assert "alert(1)" in text
    assert "<script>alert" not in text


@pytest.mark.parametrize("metric", ["exact_match", "neg_mae", "neg_nll"])
def test_every_figure_is_valid_plotly(tmp_path: Path, make_run: MakeRun, metric: str) -> None:
    run = make_run(tmp_path / "run", metric=metric)
    rows = split_arms(pl.read_parquet(run / "rows.parquet"))
    releases = pl.read_parquet(run / "releases.parquet")
    summary = json.loads((run / "summary.json").read_text())
    for chart in charts(rows, releases, summary):
        assert go.Figure(chart.figure).data, chart.key  # raises on any unknown attribute


def test_a_run_of_one_round_without_quality_still_has_a_page(
    tmp_path: Path, make_run: MakeRun, rows: pl.DataFrame
) -> None:
    text = own_text(write_report(make_run(tmp_path / "run", frame=bare(rows))))
    assert text.count("nothing to show for this run") == 3  # two of quality, one of decisions
    assert "NaN" not in text


def test_a_run_of_one_arm_says_that_there_is_nothing_to_compare(
    tmp_path: Path, make_run: MakeRun, rows: pl.DataFrame
) -> None:
    alone = rows.filter(pl.col("arm") == "always_retune")
    text = own_text(write_report(make_run(tmp_path / "run", frame=alone)))
    assert "No arm is shown to use less simulated energy than always_retune" in text


def test_an_unfinished_run_is_named(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "run")
    (run / "host.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"is not a finished run: it lacks host\.json"):
        write_report(run)


def test_arms_keep_their_colours_in_all_figures(tmp_path: Path, make_run: MakeRun) -> None:
    summary = json.loads((make_run(tmp_path / "run") / "summary.json").read_text())
    points = figures.quality_against_energy(summary)["data"]
    colours = {point["name"]: point["marker"]["color"] for point in points}
    assert colours == figures.arm_colours(list(colours))
    assert colours["always_retune"] == figures.REFERENCE_COLOUR
    assert len(set(colours.values())) == len(colours)


@needs_chromium
@pytest.mark.parametrize(("width", "is_bare"), [(1200, False), (400, False), (1200, True)])
def test_a_browser_draws_every_chart_without_an_error(
    tmp_path: Path, make_run: MakeRun, rows: pl.DataFrame, width: int, is_bare: bool
) -> None:
    page = write_report(make_run(tmp_path / "run", frame=bare(rows) if is_bare else rows))
    found = draw(page, width, least_layers=15)
    assert found.complaints == []
    assert found.requests == [page.as_uri()]
    assert found.charts == 5
    assert found.overflow_px <= 0
