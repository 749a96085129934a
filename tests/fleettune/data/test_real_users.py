"""Claims about tables: what is read, how it becomes a fleet, and what every error says."""

from __future__ import annotations

import json
import os
import random
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fleettune.data.real_users import TableData, TablePopulation

Row = dict[str, Any]
MOODS = {"good": (1, 0), "bad": (-1, 1), "awful": (-2, 1)}


def speech(user: object, order: object, response: object = "yes", **other: object) -> Row:
    return {"user_id": user, "order": order, "question": "q", "response": response, **other}


def streams(sizes: dict[str, int]) -> list[Row]:
    return [speech(user, at, f"{user} {at}") for user, size in sizes.items() for at in range(size)]


def moods(count: int = 12) -> list[Row]:
    """Rows of one user with two labels, a row number and a number that says nothing."""
    rows: list[Row] = []
    for at in range(count):
        wording = list(MOODS)[at % 3]
        valence, arousal = MOODS[wording]
        extra = {"row": at, "valence": valence, "arousal": arousal, "version": 7}
        rows.append(speech("u", at, wording, **extra))
    return rows


def saved(folder: Path, rows: list[Row], format_: str = "jsonl") -> TableData:
    path = folder / f"data.{format_}"
    if format_ == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        pl.DataFrame(rows).write_parquet(path)
    return TableData(
        path=str(path),
        format=format_,
        labels="auto",
        exchanges_per_day=2,
        history_days=3,
        min_exchanges=1,
        outside_share=0.0,
        max_chars=100,
    )


def lived(population: TablePopulation, user: int, days: int = 60) -> list[str]:
    return [item.response for day in range(days) for item in population.day(user, day)]


@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
def test_both_formats_give_the_same_population(tmp_path: Path, format_: str) -> None:
    population = saved(tmp_path, streams({"b": 9, "a": 7}), format_).open()
    assert population.user_ids == ("a", "b")
    # Day 0 holds 3 days x 2; then two a day, and what is left.
    assert [len(population.day(1, day)) for day in range(4)] == [6, 2, 1, 0]
    assert [len(population.day(0, day)) for day in range(3)] == [6, 1, 0]
    first, second = population.day(1, 1)
    assert (first.response, first.day, first.order) == ("b 6", 1, 6)
    assert (second.question, second.domain, second.order) == ("q", "", 7)


@settings(max_examples=40, deadline=None)  # each example writes a file
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    per_day=st.integers(1, 5),
    history=st.integers(1, 4),
    share=st.floats(0.0, 0.99),
    shuffle=st.randoms(use_true_random=False),
)
def test_days_part_each_stream_in_time_order_and_nobody_is_in_two_groups(
    sizes: list[int], per_day: int, history: int, share: float, shuffle: random.Random
) -> None:
    people = {f"u{index}": size for index, size in enumerate(sizes)}
    rows = streams(people)
    shuffle.shuffle(rows)
    with tempfile.TemporaryDirectory() as folder:
        data = replace(
            saved(Path(folder), rows, "parquet"),
            exchanges_per_day=per_day,
            history_days=history,
            outside_share=share,
            min_exchanges=min(4, max(sizes)),
        )
        population = data.open()
    for user, name in enumerate(population.user_ids):
        assert lived(population, user) == [f"{name} {at}" for at in range(people[name])]
        for day in range(14):
            assert {item.day for item in population.day(user, day)} <= {day}
    outside = population.outside(100, seed=0)
    names = {stream[0].response.split()[0] for stream in outside}
    assert names.isdisjoint(population.user_ids)
    assert names | set(population.user_ids) == set(people)


def test_short_streams_and_a_share_of_the_rest_are_outside(tmp_path: Path) -> None:
    rows = streams({f"u{index}": 10 for index in range(10)} | {"short": 9})
    data = replace(saved(tmp_path, rows), min_exchanges=10, outside_share=0.35)
    population = data.open()
    assert population.users == 7  # ten eligible; 0.35 x 10 rounded down = 3 outside
    assert len(population.outside(100, seed=1)) == 4
    assert "short" in population.outsiders


def test_who_is_outside_does_not_depend_on_the_rows_order(tmp_path: Path) -> None:
    rows = streams({f"u{index}": 3 for index in range(9)})
    data = replace(saved(tmp_path, rows), outside_share=0.5)
    before = data.open()
    saved(tmp_path, rows[::-1])
    assert data.open() == before


def test_the_seed_chooses_among_the_conversations_outside(tmp_path: Path) -> None:
    rows = streams({f"u{index}": 3 for index in range(30)})
    population = replace(saved(tmp_path, rows), outside_share=0.9).open()
    drawn = population.outside(5, seed=1)
    assert len(drawn) == 5
    assert drawn == population.outside(5, seed=1)
    assert drawn != population.outside(5, seed=2)
    assert all(len(stream) == 3 for stream in drawn)


def test_texts_keep_their_beginning(tmp_path: Path) -> None:
    data = replace(saved(tmp_path, [speech("u", 0, "abcdef", question="ärgerlich")]), max_chars=3)
    (exchange,) = data.open().day(0, 0)
    assert (exchange.question, exchange.response) == ("ärg", "abc")


def test_a_question_may_be_empty(tmp_path: Path) -> None:
    rows = [{"user_id": 5, "order": at, "question": None, "response": "yes"} for at in range(2)]
    population = saved(tmp_path, rows).open()
    assert population.user_ids == ("5",)
    assert population.day(0, 0)[0].question == ""


def test_labels_are_found_and_row_numbers_and_constants_are_not(tmp_path: Path) -> None:
    population = saved(tmp_path, moods()).open()
    assert population.labels == ("valence", "arousal")
    assert [(item.response, item.values) for item in population.answers] == [
        ("awful", (-2.0, 1.0)),
        ("bad", (-1.0, 1.0)),
        ("good", (1.0, 0.0)),
    ]


def test_named_labels_and_none_are_obeyed(tmp_path: Path) -> None:
    data = saved(tmp_path, moods(), "parquet")
    assert replace(data, labels=("arousal",)).open().labels == ("arousal",)
    free = replace(data, labels=()).open()
    assert (free.labels, free.answers) == ((), ())


def test_wordings_that_hardly_repeat_are_free_text(tmp_path: Path) -> None:
    # 3 wordings in 5 rows: fewer than two rows a wording, so a number per row proves nothing.
    assert saved(tmp_path, moods(5)).open().labels == ()
    many = [speech("u", at, f"wording {at % 33}", score=at % 33) for at in range(99)]
    assert saved(tmp_path, many).open().labels == ()


def test_a_list_of_labels_from_yaml_or_json_survives_the_journey(tmp_path: Path) -> None:
    data = replace(saved(tmp_path, moods()), labels=("valence",))
    assert TableData(**json.loads(json.dumps(asdict(data)))) == data


BROKEN_NUMBERS: list[tuple[Row, str]] = [
    ({"exchanges_per_day": 0}, "exchanges_per_day must be >= 1, got 0"),
    ({"history_days": 0}, "history_days must be >= 1, got 0"),
    ({"min_exchanges": 0}, "min_exchanges must be >= 1, got 0"),
    ({"max_chars": 0}, "max_chars must be >= 1, got 0"),
    ({"outside_share": 1.0}, r"outside_share must be >= 0 and < 1, got 1\.0"),
    ({"outside_share": float("nan")}, "outside_share must be >= 0 and < 1, got nan"),
    ({"labels": "valence"}, "labels must be 'auto' or a list of columns, got 'valence'"),
    ({"labels": ("order",)}, "labels must be distinct columns other than"),
    ({"labels": ("mood",)}, "must have a column mood"),
    ({"labels": ("question",)}, "labels must be distinct columns"),
    ({"path": "nowhere.jsonl"}, "path must name a file that exists, got 'nowhere.jsonl'"),
]


@pytest.mark.parametrize(("change", "sentence"), BROKEN_NUMBERS)
def test_the_configuration_is_checked_before_the_rows(
    tmp_path: Path, change: Row, sentence: str
) -> None:
    data = replace(saved(tmp_path, streams({"u": 3})), **change)
    with pytest.raises(ValueError, match=sentence):
        data.check()
    with pytest.raises(ValueError, match=sentence):
        data.open()


def test_more_than_32_wordings_cannot_be_labels(tmp_path: Path) -> None:
    rows = [speech("u", at, f"wording {at}", score=at) for at in range(33)]
    with pytest.raises(ValueError, match="at most 32 distinct wordings to be labels, got 33"):
        replace(saved(tmp_path, rows), labels=("score",)).open()


def test_a_wording_with_two_values_cannot_be_a_label(tmp_path: Path) -> None:
    rows = [speech("u", 0, "fine", score=1), speech("u", 1, "fine", score=2)]
    with pytest.raises(ValueError, match="label score must have one value per wording, but 'fine'"):
        replace(saved(tmp_path, rows), labels=("score",)).open()


def test_an_answer_is_never_cut(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"max_chars must be >= 5 .* got 4"):
        replace(saved(tmp_path, moods()), max_chars=4).open()


def test_a_fleet_without_users_is_an_error(tmp_path: Path) -> None:
    data = replace(saved(tmp_path, streams({"a": 3, "b": 5})), min_exchanges=6)
    with pytest.raises(ValueError, match=r"none of the 2 in .* has 6 exchanges \(the most is 5\)"):
        data.open()


def test_a_user_or_day_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    population = saved(tmp_path, streams({"a": 3})).open()
    for user in (-1, 1):
        with pytest.raises(ValueError, match=r"user must be 0\.\.0"):
            population.day(user, 0)
    with pytest.raises(ValueError, match="day must be >= 0, got -1"):
        population.day(0, -1)
    with pytest.raises(ValueError, match="count must be >= 0"):
        population.outside(-1, seed=0)


def preset(name: str, path: str) -> TableData:
    text = (Path(__file__).parents[3] / "conf" / "data" / f"{name}.yaml").read_text()
    fields = yaml.safe_load(text)
    assert fields.pop("_target_") == "fleettune.data.TableData"
    return TableData(**fields | {"path": path})


@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
def test_the_preset_of_each_format_reads_it(tmp_path: Path, format_: str) -> None:
    path = saved(tmp_path, streams({"a": 12}), format_).path
    population = preset(format_, path).open()
    assert [len(population.day(0, day)) for day in range(4)] == [8, 2, 2, 0]


def real(name: str) -> str:
    folder = os.environ.get("FLEETTUNE_DATA")
    if folder is None:
        pytest.skip("set FLEETTUNE_DATA to a folder that holds NAME/data.parquet of the real data")
    return str(Path(folder) / name / "data.parquet")


@pytest.mark.parametrize("option", ["parquet", "mood_journal"])
def test_the_mood_journal_is_read_as_labels(option: str) -> None:
    population = preset(option, real("mood_journal")).open()
    # 182 users, 135 with ten entries or more; 0.3 x 135 = 40 of them are outside.
    assert population.users == 95
    assert len(population.outside(1000, seed=0)) == 87
    assert population.labels == ("valence", "arousal")
    # Five valences x three arousals.
    values = [answer.values for answer in population.answers]
    assert values == [(float(v), float(a)) for v in range(-2, 3) for a in range(3)]


def test_the_study_of_releases_has_everybody_with_twenty_entries_in_its_fleet() -> None:
    data = preset("mood_journal", real("mood_journal"))
    data = replace(data, history_days=6, min_exchanges=20, outside_share=0.0)
    population = data.open()
    # what conf/study/reuse_smollm2.yaml and the Makefile say
    assert population.users == 83
    assert min(map(len, population.streams)) >= 20
    assert len(population.outside(1000, seed=0)) == 182 - 83


def test_shakespeares_roles_are_read_as_free_text() -> None:
    population = preset("parquet", real("shakespeare_roles")).open()
    # 622 roles, all with ten speeches or more; 0.3 x 622 = 186 of them are outside.
    assert (population.users, len(population.outside(1000, seed=0))) == (436, 186)
    assert (population.labels, population.answers) == ((), ())
    chosen = preset("shakespeare_roles", real("shakespeare_roles")).open()
    assert min(map(len, chosen.streams)) >= 30
    assert max(len(item.response) for stream in chosen.streams for item in stream) == 500
