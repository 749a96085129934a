"""The page holds every arm, agrees with the rows, loads nothing and draws all its charts."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import jinja2
import plotly.graph_objects as go
import polars as pl
import pytest

from simulations.report import figures
from simulations.report.page import split_bounds, write_page
from simulations.report.plots import REFERENCE_COLOUR
from simulations.report.run_page import write_report
from simulations.results.device_means import split_arms
from tests.simulations.browser import draw, find_violations, needs_chromium
from tests.simulations.page_text import read_page

MakeRun = Callable[..., Path]
EVIL = ("<script>alert(1)</script>", '<b>&"')
"""Names that would be read as HTML, were they not escaped."""


def bare(rows: pl.DataFrame) -> pl.DataFrame:
    """One round without a decision or an evaluation."""
    blind = [
        pl.lit(None).alias(name) for name in ("nll", "exact_match", "approval", "mae", "rouge1")
    ]
    return rows.filter(pl.col("round") == 1).with_columns(blind)


def test_the_page_holds_every_arm_and_its_joules(
    tmp_path: Path, make_run: MakeRun, rows: pl.DataFrame
) -> None:
    page = read_page(write_report(make_run(tmp_path / "run")))
    shown = {row["arm"]: row for row in page.table_with("simulated kJ (low to high)")}
    assert next(iter(shown)) == "always_retune"
    for arm, part in split_arms(rows).items():
        fold_j = math.fsum(part["energy_j"].to_list())
        # estimates decide it
        assert shown[arm]["simulated kJ (low to high)"].startswith(f"{fold_j / 1e3:#.3g} E (")


def test_the_joules_of_the_waterfall_equal_the_fold_of_the_rows(
    tmp_path: Path, make_run: MakeRun, rows: pl.DataFrame
) -> None:
    page = read_page(write_report(make_run(tmp_path / "run")))
    drawn = page.charts["waterfall"]["data"]
    per_night = math.fsum(sum(trace["x"]) for trace in drawn)
    # 24 devices, 12 nights; stages are rounded shares
    assert 24 * 12 * per_night == pytest.approx(rows["energy_j"].sum(), rel=1e-9)


def test_the_page_says_who_pays(tmp_path: Path, make_run: MakeRun, rows: pl.DataFrame) -> None:
    whole = rows.with_columns(pl.col("arm").replace("edgetune_released", "edgetune"))
    page = read_page(write_report(make_run(tmp_path / "run", frame=whole)))
    strata = page.table_with("what the user wrote")
    # everybody wrote 6 exchanges a night
    amounts = [f"{name} (72 to 72 exchanges)" for name in ("light", "middle", "heavy")]
    assert [row["what the user wrote"] for row in strata] == amounts
    (phones,) = page.table_with("device class", "retunes per device")
    retuned = whole.filter((pl.col("arm") == "edgetune") & (pl.col("decision") == "retune"))
    assert phones["devices"] == "24"
    assert phones["retunes per device"] == f"{retuned.height / 24:.1f}"
    headline = {row["arm"]: row for row in page.table_with("simulated kJ (low to high)")}
    assert phones["energy saved [95 %]"] == headline["edgetune"]["energy saved [95 %]"]


def test_the_page_says_what_deltas_are_beside_whole_releases(
    tmp_path: Path, make_run: MakeRun
) -> None:
    page = read_page(write_report(make_run(tmp_path / "run")))
    # 4 MB were received and 0.2 MB sent, 1,024 bytes of which are the report
    assert {row["times fewer bytes"] for row in page.table_with("as whole releases")} == {"20.1"}


def test_a_table_without_a_row_is_left_out_with_its_note(tmp_path: Path, make_run: MakeRun) -> None:
    page = read_page(write_report(make_run(tmp_path / "run")))
    assert "What the server refused of replies" not in page.text  # nothing was refused
    assert not page.cells("reason")
    assert "What the server learnt of decisions" not in page.headings  # it learnt nothing


def test_the_page_loads_nothing(tmp_path: Path, make_run: MakeRun) -> None:
    page = read_page(write_report(make_run(tmp_path / "run")))
    assert not re.findall(r"https?://|//cdn|@import|url\(", page.own)
    assert "src" not in {name for _, name, _ in page.attributes}
    assert {value[0] for _, name, value in page.attributes if name == "href"} == {"#"}


def test_every_link_of_the_page_leads_to_a_place_on_it(tmp_path: Path, make_run: MakeRun) -> None:
    page = read_page(write_report(make_run(tmp_path / "run")))
    places = [value for _, name, value in page.attributes if name == "id"]
    links = {value.removeprefix("#") for _, name, value in page.attributes if name == "href"}
    assert len(places) == len(set(places))
    assert links <= set(places)
    # the contents name every section, and all terms that are linked are explained
    assert {
        f"section-{place}" for place in range(1, page.own.count('<h2 id="section-') + 1)
    } < links
    assert {"term-ledger", "term-tier", "term-coefficient"} < links


def test_ledger_and_tiers_are_said_once(tmp_path: Path, make_run: MakeRun) -> None:
    page = read_page(write_report(make_run(tmp_path / "run")))
    assert page.text.count("draws of the coefficients, which weigh") == 1


def test_the_page_is_below_3_mb_and_does_not_grow_with_devices(
    tmp_path: Path, make_run: MakeRun, rows: pl.DataFrame
) -> None:
    more = [rows.with_columns(pl.col("device") + 24 * copy) for copy in range(10)]
    small, large = (
        write_report(make_run(tmp_path / name, frame=frame)).stat().st_size
        for name, frame in (("small", rows), ("large", pl.concat(more)))
    )
    assert large < 3e6
    # longer numbers alone
    assert large - small < 2_000


def test_equal_runs_give_equal_bytes(tmp_path: Path, make_run: MakeRun) -> None:
    first, second = (write_report(make_run(tmp_path / name)) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    assert write_report(first.parent).read_bytes() == second.read_bytes()


@pytest.mark.parametrize("evil", EVIL)
def test_what_a_user_named_is_read_as_text_wherever_it_stands(
    tmp_path: Path, make_run: MakeRun, rows: pl.DataFrame, evil: str
) -> None:
    renamed = rows.with_columns(pl.col("arm").replace("always_reuse", evil))
    run = make_run(tmp_path / "run", frame=renamed, config=f"note: {evil}\n")
    (run / "versions.json").write_text(json.dumps({evil: evil}))
    summary = json.loads((run / "summary.json").read_text())
    summary["run"]["data"] = evil
    (run / "summary.json").write_text(json.dumps(summary))
    page = read_page(write_report(run))
    assert page.table_with("package") == [{"package": evil, "version": evil}]
    assert evil in page.cells("arm")
    assert f"data {evil}, engine ray" in page.text
    assert f"note: {evil}" in page.text
    # Plotly reads labels as HTML
    labels = {trace["name"] for trace in page.charts["quality-against-energy"]["data"]}
    assert not labels & set(EVIL)
    assert len(labels) == 4


def test_a_template_that_names_an_unknown_value_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(jinja2.UndefinedError, match="'title' is undefined"):
        write_page("run.html", tmp_path / "page.html", {})


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("0.5 [0.4, 0.6]", ("0.5", "[0.4, 0.6]")),
        ("5 J E (4 to 6)", ("5 J E", "(4 to 6)")),
        ("drift (RMS)", ("drift (RMS)", "")),
        ("", ("", "")),
    ],
)
def test_bounds_stand_apart_from_their_value(text: str, parts: tuple[str, str]) -> None:
    assert split_bounds(text) == parts


@pytest.mark.parametrize("metric", ["exact_match", "neg_mae", "neg_nll"])
def test_every_figure_is_valid_plotly(tmp_path: Path, make_run: MakeRun, metric: str) -> None:
    page = read_page(write_report(make_run(tmp_path / "run", metric=metric)))
    assert len(page.charts) == 6
    for key, figure in page.charts.items():
        assert go.Figure(figure).data, key  # raises on any unknown attribute


def test_a_run_of_one_round_without_quality_still_has_a_page(
    tmp_path: Path, make_run: MakeRun, rows: pl.DataFrame
) -> None:
    page = read_page(write_report(make_run(tmp_path / "run", frame=bare(rows))))
    empty = [key for key, figure in page.charts.items() if not figure["data"]]
    assert empty == ["decisions-per-release", "quality-against-energy", "quality-over-rounds"]
    for key in empty:
        notes = page.charts[key]["layout"]["annotations"]
        assert [note["text"] for note in notes] == ["nothing to show for this run"]
    assert "NaN" not in page.own


def test_a_run_of_one_arm_says_that_there_is_nothing_to_compare(
    tmp_path: Path, make_run: MakeRun, rows: pl.DataFrame
) -> None:
    alone = rows.filter(pl.col("arm") == "always_retune")
    page = read_page(write_report(make_run(tmp_path / "run", frame=alone)))
    assert "No arm is shown to use less simulated energy than always_retune" in page.text


def test_an_unfinished_run_is_named(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "run")
    (run / "host.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"is not a finished run: it lacks host\.json"):
        write_report(run)


def test_arms_keep_their_colours_in_figures_and_tables(tmp_path: Path, make_run: MakeRun) -> None:
    page = read_page(write_report(make_run(tmp_path / "run")))
    points = page.charts["quality-against-energy"]["data"]
    colours = {point["name"]: point["marker"]["color"] for point in points}
    assert colours == figures.colour_arms(list(colours))
    assert colours["always_retune"] == REFERENCE_COLOUR
    assert len(set(colours.values())) == len(colours)
    swatches = [value for tag, name, value in page.attributes if (tag, name) == ("span", "style")]
    assert swatches == [f"background:{colour}" for colour in colours.values()]


@needs_chromium
@pytest.mark.parametrize(("width", "is_bare"), [(1200, False), (400, False), (1200, True)])
def test_a_browser_draws_every_chart_without_an_error(
    tmp_path: Path, make_run: MakeRun, rows: pl.DataFrame, width: int, is_bare: bool
) -> None:
    page = write_report(make_run(tmp_path / "run", frame=bare(rows) if is_bare else rows))
    found = draw(page, width, least_layers=15)
    assert found.complaints == []
    assert found.requests == [page.as_uri()]
    assert found.charts == 6
    assert found.overflow_px <= 0


@pytest.mark.slow
@needs_chromium
def test_a_checker_of_accessibility_finds_nothing_serious(
    tmp_path: Path, make_run: MakeRun
) -> None:
    assert find_violations(write_report(make_run(tmp_path / "run"))) == []


def test_a_round_has_a_whole_number_on_every_axis(tmp_path: Path, make_run: MakeRun) -> None:
    charts = read_page(write_report(make_run(tmp_path / "run"))).charts
    for key in ("quality-over-rounds", "device-life"):
        axis = charts[key]["layout"]["xaxis"]
        # 12 rounds: a tick at 0, 2, 4, ...
        assert (axis["tick0"], axis["dtick"]) == (0, 2), key
