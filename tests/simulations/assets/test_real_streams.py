"""Real text in bursts: nothing dealt twice, corpora in turn, rows in the documented schema."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from fleettune.data.real_users import TableData
from simulations.assets.real_streams import corpora, deal, main, shorten


def source(name: str, rows: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "question": [f"{name} question {row}" for row in range(rows)],
            "response": [f"{name} answer {row}" for row in range(rows)],
            "domain": [name] * rows,
        }
    )


SOURCES = {name: source(name, 40) for name in ("a", "b", "c")}


def test_a_mixture_comes_in_bursts_and_deals_no_row_twice(tmp_path: Path) -> None:
    rows = deal(SOURCES, users=4, history=12, burst=4, held_out=6, seed=1)
    assert rows.equals(deal(SOURCES, users=4, history=12, burst=4, held_out=6, seed=1))
    assert rows["question"].n_unique() == rows.height == 4 * 18
    for user in rows["user_id"].unique():
        domains = rows.filter(pl.col("user_id") == user).sort("order")["domain"].to_list()
        bursts = [domains[start : start + 4] for start in (0, 4, 8)]
        assert [len(set(burst)) for burst in bursts] == [1, 1, 1]
        assert {burst[0] for burst in bursts} == {"a", "b", "c"}
        assert sorted(domains[12:]) == ["a", "a", "b", "b", "c", "c"]
    file = tmp_path / "mixture.parquet"
    rows.write_parquet(file)
    data = TableData(
        path=str(file),
        format="parquet",
        labels=(),
        exchanges_per_day=6,
        history_days=2,
        min_exchanges=18,
        outside_share=0.25,
        max_chars=1000,
    )
    data.check()
    population = data.open()
    assert population.users == 3
    assert [len(population.day(0, day)) for day in (0, 1)] == [12, 6]


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="has too few rows for 9 users of 18"):
        deal(SOURCES, users=9, history=12, burst=4, held_out=6, seed=1)
    with pytest.raises(ValueError, match="--burst must be >= 1, got 0"):
        deal(SOURCES, users=1, history=12, burst=0, held_out=6, seed=1)


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("one  two\nthree", "one two three"),
        ("It is. So it was then", "It is."),
        ("no sentence ends here", "no sentence"),
        ("x" * 30, "x" * 14),
    ],
)
def test_long_answers_end_with_a_sentence_or_a_word(text: str, short: str) -> None:
    assert shorten(text, 14) == short


def test_corpora_are_filtered_and_feelings_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="FLEETTUNE_DATA must hold dolly15k"):
        corpora(tmp_path)
    rows = source("x", 2).drop("domain")
    made = {
        "dolly15k": rows.with_columns(pl.Series("context", ["", "a text to read"])),
        "medquad": rows,
        "goemotions": rows.with_columns(pl.Series("response", ["joy", "joy,fear"])),
    }
    for name, frame in made.items():
        (tmp_path / name).mkdir()
        frame.write_parquet(tmp_path / name / "data.parquet")
    found = corpora(tmp_path)
    assert {name: frame.height for name, frame in found.items()} == {
        "dolly15k": 1,
        "medquad": 2,
        "goemotions": 1,
    }
    assert found["goemotions"].row(0) == (
        "What feeling does this show? x question 0",
        "joy",
        "goemotions",
    )


def test_corpora_may_be_written_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dolly15k", "medquad", "goemotions"):
        (tmp_path / name).mkdir()
        rows = source(name, 3).with_columns(context=pl.lit(""))
        rows.write_parquet(tmp_path / name / "data.parquet")
    monkeypatch.setenv("FLEETTUNE_DATA", str(tmp_path))
    into = tmp_path / "apart"
    assert main(["--apart", "--into", str(into)]) == 0
    assert {file.stem: pl.read_parquet(file).height for file in into.iterdir()} == {
        "dolly15k": 3,
        "medquad": 3,
        "goemotions": 3,
    }
    assert main(["--apart", "--into", str(into)]) == 2


def test_without_a_folder_of_data_the_tool_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FLEETTUNE_DATA", raising=False)
    assert main(["--into", str(tmp_path / "new.parquet")]) == 2
    assert "FLEETTUNE_DATA must name the folder" in capsys.readouterr().err
