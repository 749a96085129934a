"""The release store: writers never hurt each other, and nothing changed is served."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, load_backbone
from fleettune.data.personas import SyntheticData
from fleettune.data.real_users import TableData
from fleettune.data.style_corpora import Corpora, CorporaData, Corpus
from fleettune.data.tokens import open_encoder
from strategies.plan import Plan
from strategies.releases import training
from strategies.releases.publisher import SourceModel
from strategies.releases.schedule import ReleasePlan, Schedule
from strategies.releases.store import RECORD, find_release, make_release, write_model
from strategies.releases.training import Vendor, ship_unchanged, train_release
from strategies.rounds.sampling import Panel

PLAN = ReleasePlan(name="rounded", kind="quantised", bits=8)
ENCODER = open_encoder(POCKET_V1_FOLDER, "pocket", 128)


def write_pocket(folder: Path) -> Mapping[str, Any]:
    write_model(load_backbone(POCKET_V1_FOLDER).model, POCKET_V1_FOLDER, folder)
    return {"plan": "none"}


def make_it(store: str, start: Any, found: Any) -> None:  # noqa: ANN401 - multiprocessing's types
    start.wait()
    try:
        vendor = Vendor(store=Path(store), population=SyntheticData().open(), data="", seed=0)
        made = train_release(ship_unchanged(POCKET_V1_FOLDER), PLAN, vendor, ENCODER, 1)
        load_backbone(made.folder)
        found.put(made.digest)
    except BaseException as error:
        found.put(f"{type(error).__name__}: {error}")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "release"
    make_release(folder, write_pocket)
    return folder


@pytest.mark.slow
def test_two_processes_that_make_one_release_both_get_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, found = context.Barrier(2), context.Queue()
    workers = [context.Process(target=make_it, args=(str(tmp_path), start, found)) for _ in "ab"]
    for worker in workers:
        worker.start()
    digests = [found.get(timeout=100) for _ in workers]
    for worker in workers:
        worker.join(timeout=100)
    assert digests[0] == digests[1]
    assert len(digests[0]) == 64, digests
    (folder,) = tmp_path.iterdir()  # nothing unfinished is left
    assert find_release(folder) is not None


def test_a_writer_that_comes_second_leaves_the_finished_folder_alone(tmp_path: Path) -> None:
    folder = tmp_path / "release"

    def late(partial: Path) -> Mapping[str, Any]:
        make_release(folder, write_pocket)  # another one is done before us
        return {**write_pocket(partial), "plan": "late"}

    make_release(folder, late)
    assert json.loads((folder / RECORD).read_text())["record"]["plan"] == "none"
    assert [file.name for file in tmp_path.iterdir()] == ["release"]


def test_what_breaks_off_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken(partial: Path) -> Mapping[str, Any]:
        (partial / "config.json").write_text("{}")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        make_release(tmp_path / "release", broken)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "remove"])
@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "release.json"]
)
def test_a_damaged_file_of_a_cached_release_is_named(
    made: Path, tmp_path: Path, name: str, damage: str
) -> None:
    folder = tmp_path / "release"
    shutil.copytree(made, folder)
    file = folder / name
    content = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    else:
        content[len(content) // 2] ^= 2
        part = {"cut": content[: len(content) // 2], "flip": content, "empty": b""}[damage]
        file.write_bytes(part)
    with pytest.raises(ValueError, match=r"is damaged: .*delete that folder") as caught:
        make_release(folder, write_pocket)
    assert f"is damaged: {name} is" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_added_to_a_cached_release_is_named(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "release"
    shutil.copytree(made, folder)
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    with pytest.raises(ValueError, match="is damaged"):
        find_release(folder)


def test_every_input_of_a_release_makes_another_one(tmp_path: Path) -> None:
    vendor = Vendor(store=tmp_path, population=SyntheticData().open(), data="a", seed=0)
    parent = ship_unchanged(POCKET_V1_FOLDER)
    template = replace(ENCODER.template, after="<|end|>\n")
    folders = [
        train_release(parent, PLAN, vendor, ENCODER, 1).folder,
        train_release(parent, replace(PLAN, bits=4), vendor, ENCODER, 1).folder,
        train_release(parent, PLAN, replace(vendor, data="b"), ENCODER, 1).folder,
        train_release(parent, PLAN, replace(vendor, seed=1), ENCODER, 1).folder,
        train_release(parent, PLAN, vendor, ENCODER, 2).folder,
        train_release(parent, PLAN, vendor, replace(ENCODER, template=template), 1).folder,
        train_release(replace(parent, digest="0"), PLAN, vendor, ENCODER, 1).folder,
    ]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize("version", ["RECIPE_VERSION", "WORLD_VERSION", "MANNERS_VERSION"])
def test_our_own_versions_make_another_release(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor = Vendor(store=tmp_path, population=SyntheticData().open(), data="a", seed=0)
    before = train_release(ship_unchanged(POCKET_V1_FOLDER), PLAN, vendor, ENCODER, 1)
    monkeypatch.setattr(training, version, 99)
    assert train_release(ship_unchanged(POCKET_V1_FOLDER), PLAN, vendor, ENCODER, 1) != before


def test_one_byte_of_the_model_that_it_is_made_from_makes_another_release(tmp_path: Path) -> None:
    parent, folders = tmp_path / "parent", set[Path]()
    vendor = Vendor(store=tmp_path, population=SyntheticData().open(), data="a", seed=0)
    shutil.copytree(POCKET_V1_FOLDER, parent)
    folders.add(train_release(ship_unchanged(parent), PLAN, vendor, ENCODER, 1).folder)
    # a line's end within JSON, which then means the same, and a bit of the last weight
    for name, byte in (("config.json", -3), ("tokenizer.json", -2), ("model.safetensors", -1)):
        sound = (parent / name).read_bytes()
        changed = bytearray(sound)
        changed[byte] = {ord("\n"): ord(" ")}.get(changed[byte], changed[byte] ^ 1)
        (parent / name).write_bytes(changed)
        folders.add(train_release(ship_unchanged(parent), PLAN, vendor, ENCODER, 1).folder)
        (parent / name).write_bytes(sound)
    assert len(folders) == 4


@pytest.mark.parametrize("kind", ["table", "corpora"])
def test_one_byte_of_a_file_of_users_text_makes_another_key(kind: str, tmp_path: Path) -> None:
    file, other = tmp_path / "text.jsonl", tmp_path / "other.jsonl"
    file.write_text('{"question": "what?", "response": "that"}')
    other.write_text('{"question": "who?", "response": "they"}')
    given = {"exchanges_per_day": 2, "history_days": 4, "min_exchanges": 1, "max_chars": 9}
    data = {
        "table": TableData(path=str(file), format="jsonl", labels=(), outside_share=0.3, **given),
        "corpora": CorporaData(
            text=Corpora(
                files=(Corpus(name="b", path=str(other)), Corpus(name="a", path=str(file)))
            )
        ),
    }
    plan = Plan(
        **{"seed": 0, "rounds": 1, "devices": 1, "arms": (), "store": "", "observe": False},
        source=SourceModel(path="", template="pocket", max_tokens=128),
        schedule=Schedule(every=1, plans=(PLAN,)),
        sampling=Panel(),
        data=data[kind],
    )
    before = plan.data_key
    file.write_text(file.read_text().replace("that", "than"))
    assert plan.data_key != before
