"""Releases on text of the vendor's own: named by content, checked first, read by nobody's users."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import pytest

from fleettune.backbone.causal_lm import POCKET_V1_FOLDER
from fleettune.data.exchanges import Answer, Exchange
from fleettune.data.tokens import open_encoder
from fleettune.releases.model_files import file_digest
from strategies.releases.given_files import check_given_files, corpus_rows, plan_identity
from strategies.releases.publisher import Publisher, SourceModel
from strategies.releases.schedule import ReleasePlan, Schedule
from strategies.releases.training import TrainedRelease, Vendor, ship_unchanged, train_release

# peft 0.21 asks transformers 5 for a name that it renames; nothing of ours depends on it.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is dep:FutureWarning")

ENCODER = open_encoder(POCKET_V1_FOLDER, "pocket", 128)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nobody:
    """A population of which nothing may be read."""

    users: int = 1
    labels: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()

    def day(self, user: int, day: int) -> tuple[Exchange, ...]:
        raise AssertionError(f"the vendor read day {day} of user {user}")

    def outside(self, count: int, seed: int) -> Sequence[tuple[Exchange, ...]]:
        raise AssertionError(f"the vendor read {count} conversations of users, seed {seed}")


def written(file: Path, answer: str, rows: int = 40) -> str:
    lines = [
        json.dumps({"question": f"what is number {row}?", "response": f"{answer} {row}"})
        for row in range(rows)
    ]
    file.write_text("\n".join(lines) + "\n")
    return str(file)


def plan_on(corpus: str, name: str = "mild") -> ReleasePlan:
    return ReleasePlan(
        name=name,
        kind="full",
        steps=2,
        learning_rate=1e-3,
        batch=2,
        window=16,
        conversations=30,
        corpus=corpus,
    )


def vendor_of(folder: Path, data: str = "world") -> Vendor:
    return Vendor(store=folder / "store", population=Nobody(), data=data, seed=0)


def train(plan: ReleasePlan, vendor: Vendor) -> TrainedRelease:
    return train_release(ship_unchanged(POCKET_V1_FOLDER), plan, vendor, ENCODER, 1)


def test_releases_differ_by_corpus_and_are_found_by_content_again(tmp_path: Path) -> None:
    one, other = (written(tmp_path / f"{name}.jsonl", name) for name in ("yes", "never"))
    vendor = vendor_of(tmp_path)
    first = train(plan_on(one), vendor)
    assert train(plan_on(other), vendor).digest != first.digest
    moved = tmp_path / "elsewhere" / "moved.jsonl"
    moved.parent.mkdir()
    shutil.copy(one, moved)
    assert train(plan_on(str(moved)), vendor).folder == first.folder
    written(Path(one), "perhaps")
    assert train(plan_on(one), vendor).folder != first.folder


def test_who_lives_in_the_fleet_is_no_part_of_such_a_release(tmp_path: Path) -> None:
    plan = plan_on(written(tmp_path / "text.jsonl", "yes"))
    first = train(plan, vendor_of(tmp_path, "these users"))
    assert train(plan, vendor_of(tmp_path, "other users")).folder == first.folder


def test_the_identity_names_the_content_and_no_place(tmp_path: Path) -> None:
    plan = plan_on(written(tmp_path / "text.jsonl", "yes"))
    named = plan_identity(plan)
    assert named["corpus"] == file_digest(Path(plan.corpus))
    assert str(tmp_path) not in json.dumps(dict(named))
    written(Path(plan.corpus), "no")
    assert plan_identity(plan) != named


def test_leaning_is_part_of_the_identity_and_not_leaning_is_no_part_of_it() -> None:
    plain = ReleasePlan(
        name="a", kind="full", steps=1, learning_rate=1e-3, batch=1, window=8, conversations=1
    )
    assert not {"leans", "about"} & set(plan_identity(plain))
    leaning = replace(plain, leans=("hour=1",))
    assert plan_identity(leaning)["leans"] == ("hour=1",)
    assert "about" not in plan_identity(leaning)
    with pytest.raises(ValueError, match="leans must be empty with a corpus of its own"):
        replace(leaning, corpus="text.jsonl")
    with pytest.raises(ValueError, match="about must be left out for kind reparametrised"):
        ReleasePlan(name="a", kind="reparametrised", scale=2.0, about=("buy",))


def test_as_many_rows_are_drawn_as_asked_and_none_twice(tmp_path: Path) -> None:
    plan = plan_on(written(tmp_path / "text.jsonl", "yes"))
    drawn = corpus_rows(plan, 3)
    assert len({row.question for row in drawn}) == len(drawn) == 30
    assert drawn == corpus_rows(plan, 3)
    assert drawn != corpus_rows(plan, 4)
    assert len(corpus_rows(replace(plan, conversations=99), 3)) == 40


def test_a_parquet_file_and_json_lines_hold_the_same_text(tmp_path: Path) -> None:
    lines = written(tmp_path / "text.jsonl", "yes")
    table = tmp_path / "text.parquet"
    pl.read_ndjson(lines).with_columns(category=pl.lit("qa")).write_parquet(table)
    assert corpus_rows(plan_on(str(table)), 3) == corpus_rows(plan_on(lines), 3)


def test_the_manifest_names_the_corpus_by_its_content(tmp_path: Path) -> None:
    plan = plan_on(written(tmp_path / "text.jsonl", "yes"))
    publisher = Publisher(
        source=SourceModel(path=str(POCKET_V1_FOLDER), template="pocket", max_tokens=128),
        schedule=Schedule(every=1, plans=(plan,)),
        vendor=vendor_of(tmp_path),
    )
    assert publisher.newest(0).corpus == ""
    assert publisher.newest(1).corpus == file_digest(Path(plan.corpus))


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("gone.jsonl", None, "path must name a file that exists"),
        ("text.csv", "question,response\n", "path must end in one of .parquet, .pq, .jsonl"),
        ("empty.jsonl", "", "must hold at least one exchange, got no row"),
        ("silent.jsonl", '{"question": "why?", "response": " "}\n', "response must not be empty"),
        ("other.jsonl", '{"response": "yes"}\n', "must have a column question, got response"),
        ("torn.jsonl", "question\n", "line 1 of .* must be one JSON object"),
        ("torn.parquet", "question\n", "path must name a Parquet file"),
        ("number.jsonl", '{"question": 1, "response": "a"}\n', "question of .* must hold text"),
    ],
)
def test_a_corpus_that_cannot_be_read_is_refused_with_its_rule(
    tmp_path: Path, name: str, content: str | None, rule: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    plan = plan_on(str(tmp_path / name), "ours")
    with pytest.raises(ValueError, match=f"^release ours: corpus: .*{rule}"):
        check_given_files(Schedule(every=1, plans=(plan,)), POCKET_V1_FOLDER)


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "empty.parquet"
    pl.DataFrame(schema={"question": pl.String, "response": pl.String}).write_parquet(file)
    with pytest.raises(ValueError, match="must hold at least one exchange, got no row"):
        check_given_files(
            Schedule(every=1, plans=(plan_on(""), plan_on(str(file)))), POCKET_V1_FOLDER
        )


@pytest.mark.parametrize("share", ["vendor", "paraphrases"])
def test_shares_of_built_in_text_are_refused_beside_a_corpus(share: str) -> None:
    with pytest.raises(ValueError, match=rf"{share} must be 0 with a corpus of its own"):
        replace(plan_on("text.jsonl"), **{share: 0.1})


def test_a_release_that_trains_on_nothing_takes_no_corpus() -> None:
    with pytest.raises(ValueError, match="corpus must be left out for kind quantised"):
        ReleasePlan(name="small", kind="quantised", bits=8, corpus="text.jsonl")
