"""What is written is what was summed up: tables, numbers, the page and its picture."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import plotly.graph_objects as go
import polars as pl
import pytest
from rich.console import Console

from simulations.cli import main
from simulations.comparison.comparison_page import write_comparison
from simulations.comparison.comparison_tables import make_comparison_table, tabulate_comparison
from simulations.comparison.found_runs import read_runs
from simulations.comparison.front import compare_settings
from simulations.report.text_tables import format_latex, format_markdown
from tests.simulations.browser import draw, needs_chromium
from tests.simulations.page_text import read_page

MakeRun = Callable[..., Path]
Capture = pytest.CaptureFixture[str]
CHOSEN = ("edgetune_released", "always_reuse")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, make_run: MakeRun, rows: pl.DataFrame) -> Path:
    """Two rules with two seeds each; phones of the second seed use half as much again."""
    folder = tmp_path_factory.mktemp("sweep")
    for seed in (1, 2):
        more = rows.with_columns(pl.col("^energy_j.*$") * (1 + 0.5 * (seed - 1)))
        for arm in CHOSEN:
            make_run(
                folder / f"{arm}_{seed}",
                frame=more.filter(pl.col("arm").is_in(["always_retune", arm])),
                config=f"seed: {seed}\nadaptation: {{_target_: clients.adaptation.Any.{arm}}}\n",
                seed=seed,
                typed=[f"seed={seed}", f"adaptation={arm}", "rounds=12"],
            )
    return folder


def write(folder: Path, *paths: Path) -> dict[str, Path]:
    runs = read_runs(paths)
    found = write_comparison(folder, compare_settings(runs), runs, [], (None, 0.5))
    return {path.suffix: path for path in found}


def test_numbers_of_a_single_run_equal_its_summary(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text())
    frame = pl.read_parquet(write(tmp_path / "out", run)[".parquet"])
    assert set(frame["arm"]) == set(summary["arms"])
    for row in frame.iter_rows(named=True):
        arm = summary["arms"][row["arm"]]
        told = {
            "quality": arm["quality"],
            "saving": arm["vs_reference"]["energy_saving"],
            "saving_without_serving": arm["vs_reference"]["energy_saving_without_serving"],
            "quality_change": arm["vs_reference"]["quality_difference"],
        }
        for name, estimate in told.items():
            ends = [row[f"{name}_low"], row[f"{name}_high"]]
            assert [row[name], *ends] == [estimate["mean"], *estimate["ci95"]]
        joules = [row["energy_j"], row["energy_j_low"], row["energy_j_high"]]
        assert joules == [arm["energy_j"][end] for end in ("total", "low", "high")]
        assert row["quality_worst_seed"] == row["quality_best_seed"] == row["quality"]


def test_numbers_of_a_sweep_are_means_over_its_seeds(sweep: Path, tmp_path: Path) -> None:
    frame = pl.read_parquet(write(tmp_path / "out", sweep)[".parquet"])
    names = ["adaptation=always_reuse", "adaptation=edgetune_released", "always_retune"]
    assert sorted(frame["setting"]) == names
    assert frame["seeds"].to_list() == ["1,2"] * 3
    for row in frame.iter_rows(named=True):
        parts = [json.loads(file.read_text()) for file in sorted(sweep.rglob("summary.json"))]
        held = {
            part["run"]["seed"]: part["arms"][row["arm"]]
            for part in parts
            if row["arm"] in part["arms"]
        }
        totals = [arm["energy_j"]["total"] for arm in held.values()]
        assert row["energy_j"] == pytest.approx(sum(totals) / 2)
        assert row["energy_j_worst_seed"] == max(totals)
        assert row["quality_worst_seed"] == min(arm["quality"]["mean"] for arm in held.values())


def test_every_form_of_the_table_holds_the_same(sweep: Path, tmp_path: Path) -> None:
    files = write(tmp_path / "out", sweep)
    assert sorted(files) == [".csv", ".html", ".md", ".parquet", ".tex"]
    frame = pl.read_parquet(files[".parquet"])
    assert pl.read_csv(files[".csv"], schema=frame.schema).equals(frame)
    rows = tabulate_comparison(compare_settings(read_runs([sweep])))
    assert "\n".join(format_markdown(rows)) in files[".md"].read_text()
    assert files[".tex"].read_text() == "\n".join(format_latex(rows)) + "\n"
    page = read_page(files[".html"])
    assert page.table_with("setting", "worst seed") == rows


def test_latex_and_markdown_escape_what_they_would_read() -> None:
    rows = [{"a_b": "5 % & {x}", "c|d": "^~\\"}]
    assert format_markdown(rows)[0] == "| a_b | c\\|d |"
    assert format_latex(rows) == [
        r"\begin{tabular}{lr}",
        r"a\_b & c\textbar{}d \\",
        r"\hline",
        r"5 \% \& \{x\} & \textasciicircum{}\textasciitilde{}\textbackslash{} \\",
        r"\end{tabular}",
    ]


def test_a_terminal_of_80_columns_shows_five_columns(sweep: Path) -> None:
    console = Console(width=80)
    table = make_comparison_table(compare_settings(read_runs([sweep])), console.width)
    assert len(table.columns) == 5
    with console.capture() as capture:
        console.print(table)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    assert max(map(len, lines)) <= 80
    assert "…" not in capture.get()
    for word in ("adaptation=", "edgetune_released", "always_retune", "(2 seeds)", "(low to high)"):
        assert any(word in line for line in lines)


def test_the_page_names_the_winner_first_and_draws_the_front(sweep: Path, tmp_path: Path) -> None:
    page = read_page(write(tmp_path / "out", sweep)[".html"])
    # the others are shown to have less exact match: 0.12 or, on every device alike, 0.002
    assert page.text.index("always_retune wins: it has the best quality") < page.text.index(
        "What each"
    )
    assert "adaptation=always_reuse (least energy)" in page.text
    figure = page.charts["front"]
    assert go.Figure(figure).data
    points = {trace["name"].replace("<br>", " "): trace for trace in figure["data"]}
    frame = pl.read_parquet(tmp_path / "out" / "compare.parquet")
    for row in frame.iter_rows(named=True):
        assert (points[row["setting"]]["x"], points[row["setting"]]["y"]) == (
            [row["energy_j"]],
            [row["quality"]],
        )
    assert len(points["front"]["x"]) == frame["on_front"].sum()
    assert [shape["y0"] for shape in figure["layout"]["shapes"]] == [0.5]  # the target
    (typed,) = {
        row["what was typed"] for row in page.table_with("run") if row["run"] == "always_reuse_1"
    }
    assert typed == "adaptation=always_reuse"
    assert "Typed for every run: rounds=12." in page.text
    assert "clients.adaptation" not in page.text


def test_the_page_loads_nothing_and_equal_runs_give_equal_bytes(
    sweep: Path, tmp_path: Path
) -> None:
    first, second = (write(tmp_path / name, sweep)[".html"] for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    page = read_page(first)
    assert not re.findall(r"https?://|//cdn|@import|url\(", page.own)
    assert len(page.own) < 100_000  # beside the Plotly library
    assert first.stat().st_size < 3e6


def test_what_a_user_named_is_read_as_text(
    tmp_path: Path, make_run: MakeRun, rows: pl.DataFrame
) -> None:
    evil = "<script>alert(1)</script>"
    renamed = rows.with_columns(pl.col("arm").replace("always_reuse", evil))
    page = read_page(write(tmp_path / "out", make_run(tmp_path / "run", frame=renamed))[".html"])
    assert evil in page.cells("setting")
    assert evil not in {trace["name"] for trace in page.charts["front"]["data"]}


@needs_chromium
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_draws_the_page_without_an_error(sweep: Path, tmp_path: Path, width: int) -> None:
    page = write(tmp_path / "out", sweep)[".html"]
    found = draw(page, width, least_layers=3)
    assert found.complaints == []
    assert found.requests == [page.as_uri()]
    assert found.charts == 1
    assert found.overflow_px <= 0


def test_the_command_answers_and_writes_where_it_is_asked(
    sweep: Path, tmp_path: Path, capsys: Capture
) -> None:
    asked = ["--budget", "energy_j=1", "--target", "quality=0.45", "--into", str(tmp_path / "out")]
    assert main(["compare", str(sweep), *asked]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith("always_retune wins: it has the best quality")
    assert "No setting stays at or under 1.00 J: the cheapest, adaptation=always_reuse" in told
    assert "The cheapest setting that reaches 45.0 % is adaptation=always_reuse" in told
    assert told.endswith(str(tmp_path / "out" / "compare.html"))
    assert "The cheapest setting that reaches" in read_page(tmp_path / "out" / "compare.html").text
    assert main(["compare", str(sweep), "--budget", "joules=1"]) == 2
    assert "--budget must be energy_j=VALUE" in capsys.readouterr().err
