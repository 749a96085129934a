"""A study's page: every claim and arm, joules as in the summaries, one self-contained file."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import plotly.graph_objects as go
import polars as pl
import pytest

from simulations.experiment.study_settings import (
    COLUMN_MEASURES,
    MEASURES,
    SINGLE_MEASURES,
    Claim,
    StudySettings,
    World,
)
from simulations.report.formats import format_joules
from simulations.results.derived_columns import PATCH_BYTES, TUNING_J, add_derived_columns
from simulations.studies.judge import explain_verdict, judge_claims
from simulations.studies.study_figures import draw_pareto, group_arms
from simulations.studies.study_page import write_study_page
from simulations.studies.study_tables import describe_comparison, summarise_arms
from tests.simulations.browser import draw, find_violations, needs_chromium
from tests.simulations.page_text import Page, read_page

MakeRun = Callable[..., Path]
SEEDS = (1, 2)
SAVES = Claim(
    claim="saves_tuning",
    measure="saving",
    column=TUNING_J,
    arm="edgetune_released",
    against="always_retune",
    threshold=0.2,
    direction="above",
)
CLAIMS = (
    SAVES,
    Claim(
        claim="gains_quality",
        measure="quality_difference",
        arm="always_reuse",
        against="always_retune",
        threshold=0.0,
        direction="above",
    ),
)
HTML = str.maketrans({"<": "&lt;", ">": "&gt;", "&": "&amp;", '"': "&#34;"})
FAMILIES = {"always": ("always_retune", "always_reuse", "an_arm_that_does_not_run")}


@pytest.fixture
def tuned(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with what a study tells of tunes: every release night of a retuning arm has one."""
    tunes = (pl.col("decision") == "retune").cast(pl.Int64)
    columns = {"tune_steps": 24, "peak_bytes": 2_000_000_000, "cache_bytes": 150_000}
    return rows.with_columns(**{name: tunes * value for name, value in columns.items()})


def decided(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows with decisions that the observer labels: every night's, and nobody is helped."""
    choice = pl.col("decision").is_in(["reuse", "retune"]).cast(pl.Int64)
    return frame.with_columns(
        decided=choice,
        retuned=(pl.col("decision") == "retune").cast(pl.Int64),
        release_name=pl.format("r{}", "release"),
        retune_gain=pl.lit(0.0),
        retune_score=pl.lit(0.5),
        energy_j_retuning=pl.col("energy_j_tune"),
    )


def write(
    path: Path, make_run: MakeRun, frame: pl.DataFrame, worlds: tuple[str, ...] = ("even", "odd")
) -> Path:
    study = StudySettings(
        name="made_up",
        seeds=SEEDS,
        claims=CLAIMS,
        worlds=tuple(World(name=world) for world in worlds),
        families=FAMILIES,
        note="A cache costs a pass.",
    )
    found: Mapping[str, pl.DataFrame] = {}
    for world in worlds or ("",):
        for seed in SEEDS:
            make_run(path / world / f"seed_{seed}", frame=frame)
        doubled = [frame.with_columns(pl.col("device") + 1000 * seed) for seed in SEEDS]
        found = {**found, world: add_derived_columns(pl.concat(doubled))}
    (path / "config.yaml").write_text("seed: 7\n")
    return write_study_page(path, study, found, judge_claims(found, CLAIMS, "exact_match"))


def arms_of(page: Page, world: int = 0) -> dict[str, dict[str, str]]:
    """The table of a world's arms, by arm."""
    tables = [table for table in page.tables if "tunes per device" in table[0]]
    return {row["arm"]: row for row in tables[world]}


def test_the_page_holds_every_claim_arm_and_world(
    tmp_path: Path, make_run: MakeRun, tuned: pl.DataFrame
) -> None:
    page = read_page(write(tmp_path, make_run, tuned))
    for world in (0, 1):
        assert set(arms_of(page, world)) == set(tuned["arm"].unique())
    verdicts = {row["claim"]: row["verdict"] for row in page.table_with("verdict")}
    assert verdicts == {"saves_tuning": "holds", "gains_quality": "does not hold"}
    assert {"World even", "World odd"} <= set(page.headings)
    assert "1 of 2 claims hold; not gains_quality." in page.text
    assert "A cache costs a pass. Arms are compared" in page.text


def test_the_text_holds_the_claims_and_a_table_of_every_world(
    tmp_path: Path, make_run: MakeRun, tuned: pl.DataFrame
) -> None:
    page = read_page(write(tmp_path, make_run, tuned))
    text = (tmp_path / "study.md").read_text(encoding="utf-8")
    assert "1 of 2 claims hold" in text
    for row in page.table_with("verdict"):
        assert f"| {row['claim']} | {row['estimate [95 %]']} | " in text
    cells = [line[2:-2].split(" | ") for line in text.splitlines() if line[:3] == "| `"]
    assert len(cells) == 2 * tuned["arm"].n_unique()
    shown = {line[0].split("`")[1]: line for line in cells}
    assert shown["always_retune"][2:] == ["", shown["always_retune"][3], ""]
    saved, all_of_it = (
        float(tuned.filter(pl.col("arm") == arm)["energy_j"].sum())
        for arm in ("always_reuse", "always_retune")
    )
    assert shown["always_reuse"][4].startswith(f"{100 * (1 - saved / all_of_it):.1f} % [")


def test_joules_of_tuning_are_those_of_probe_and_tune_per_device(
    tmp_path: Path, make_run: MakeRun, tuned: pl.DataFrame
) -> None:
    page = read_page(write(tmp_path, make_run, tuned, ()))
    part = tuned.filter(pl.col("arm") == "always_retune")
    # both seeds hold the same rows, so a device's mean over both is that over one
    per_device = part.select(pl.col("energy_j_tune") + pl.col("energy_j_probe")).sum().item() / 24
    shown = arms_of(page)["always_retune"]["simulated energy of tuning, per device (low to high)"]
    assert shown.startswith(f"{format_joules(per_device)} E (")  # estimates decide it


def test_derived_columns_by_hand() -> None:
    frame = pl.DataFrame(
        {
            "energy_j_tune": [3.0, 0.0],
            "energy_j_probe": [0.5, 0.0],
            "up_bytes": [5024.0, 1024.0],  # 1,024 bytes of statistics in both
            "tune_steps": [24, 0],
        }
    )
    found = add_derived_columns(frame)
    assert found[TUNING_J].to_list() == [3.5, 0.0]
    assert found[PATCH_BYTES].to_list() == [4000.0, 0.0]


@pytest.mark.parametrize(
    ("direction", "ci95", "said"),
    [
        ("above", [0.3, 0.5], "holds"),
        ("above", [0.1, 0.5], "not shown: the interval holds the threshold"),
        ("above", [0.1, 0.15], "does not hold"),
        ("above", [None, None], "not shown: unknown"),
        ("below", [0.3, 0.5], "does not hold"),
        ("at_most", [0.1, 0.3], "not shown: the interval holds the threshold"),
        ("at_most", [0.3, 0.5], "does not hold"),
        ("not_above", [0.3, 0.5], "does not hold"),
        ("within", [0.1, 0.3], "not shown: the interval holds the threshold"),
        ("within", [0.3, 0.5], "does not hold"),
    ],
)
def test_a_verdict_tells_refuted_from_open(
    direction: str, ci95: list[float | None], said: str
) -> None:
    outcome = {"ci95": ci95, "threshold": 0.2, "direction": direction, "holds": said == "holds"}
    assert explain_verdict(outcome) == said


def test_a_line_joins_a_family_and_other_arms_stand_alone(
    tmp_path: Path, make_run: MakeRun, tuned: pl.DataFrame
) -> None:
    summary = json.loads((make_run(tmp_path / "run", frame=tuned) / "summary.json").read_text())
    arms = summarise_arms(add_derived_columns(tuned), [summary], "exact_match")
    assert next(iter(arms)) == "always_retune"
    assert group_arms(list(arms), FAMILIES) == {
        "always": ["always_retune", "always_reuse"],
        "edgetune_released": ["edgetune_released"],
        "never_personalise": ["never_personalise"],
    }
    figure = draw_pareto(arms, FAMILIES, "exact_match")
    assert [len(trace["x"]) for trace in figure["data"]] == [2, 1, 1]
    assert go.Figure(figure).data  # raises on any unknown attribute


def test_the_page_loads_nothing(tmp_path: Path, make_run: MakeRun, tuned: pl.DataFrame) -> None:
    page = read_page(write(tmp_path, make_run, tuned))
    assert not re.findall(r"https?://|//cdn|@import|url\(", page.own)
    assert "src" not in {name for _, name, _ in page.attributes}
    assert {value[0] for _, name, value in page.attributes if name == "href"} == {"#"}


def test_equal_studies_give_equal_bytes(
    tmp_path: Path, make_run: MakeRun, tuned: pl.DataFrame
) -> None:
    first, second = (write(tmp_path / name, make_run, tuned) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("evil", ["<script>alert(1)<script>", '<b>&"'])
def test_what_a_user_named_is_read_as_text_wherever_it_stands(
    tmp_path: Path, make_run: MakeRun, tuned: pl.DataFrame, evil: str
) -> None:
    renamed = decided(tuned).with_columns(pl.col("arm").replace("never_personalise", evil))
    page = read_page(write(tmp_path, make_run, renamed, (evil,)))
    assert evil in arms_of(page)
    assert f"World {evil}" in page.headings
    assert f"worlds {evil}; seeds 1, 2" in page.text
    assert ("div", "id", f"chord-{evil}") in page.attributes
    # Plotly reads labels as HTML
    labels = {trace["name"] for trace in page.charts["pareto-0"]["data"]}
    assert labels == {"always", "edgetune_released", evil.translate(HTML)}


def test_arms_without_quality_or_tunes_still_have_a_page(
    tmp_path: Path, make_run: MakeRun, tuned: pl.DataFrame
) -> None:
    blind = [pl.lit(None).alias(name) for name in ("nll", "exact_match", "approval", "mae")]
    bare = tuned.with_columns(*blind, tune_steps=0, peak_bytes=0, cache_bytes=0)
    page = read_page(write(tmp_path, make_run, bare, ()))
    (note,) = page.charts["pareto-0"]["layout"]["annotations"]
    assert note["text"] == "nothing to show for this run"
    assert "NaN" not in page.own


@needs_chromium
@pytest.mark.parametrize("width", [1200, 400])
def test_a_browser_draws_every_chart_without_an_error(
    tmp_path: Path, make_run: MakeRun, tuned: pl.DataFrame, width: int
) -> None:
    page = write(tmp_path, make_run, tuned)
    found = draw(page, width, least_layers=6)
    assert found.complaints == []
    assert found.requests == [page.as_uri()]
    assert found.charts == 2
    assert found.overflow_px <= 0


@pytest.mark.slow
@needs_chromium
def test_a_checker_of_accessibility_finds_nothing_serious(
    tmp_path: Path, make_run: MakeRun, tuned: pl.DataFrame
) -> None:
    assert find_violations(write(tmp_path, make_run, decided(tuned))) == []


@pytest.mark.parametrize("measure", MEASURES)
def test_every_measure_is_said_in_words(measure: str) -> None:
    claim = Claim(
        claim="it",
        measure=measure,
        arm="ours",
        against="" if measure in SINGLE_MEASURES else "theirs",
        against_rungs=("none",) if measure == "retained" else (),
        column="nll" if measure in COLUMN_MEASURES else "",
        threshold=0.0,
        direction="above",
    )
    assert len(describe_comparison(claim, "exact_match").split()) > 3
