"""Users' text stays on their devices: no byte of it is in messages, run folder, store or elsewhere.

Every question, answer, domain and user id of the data has a canary, of users outside the fleet too.
The runs cover every option of ``conf/catalogue``, ``conf/synthesis`` and ``conf/codec``.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pytest
import torch
from flwr.app import Message

from fleettune.data.personas import SyntheticData
from fleettune.data.style_corpora import Corpora, Corpus
from simulations.adapter_formats.peft import KeptPatch, export_peft
from simulations.checkpoint.store import to_blob
from simulations.engines.cohort_grid import CohortGrid
from simulations.launch import launch
from tests.simulations.canary_search import CANARY, find_canary, search_folders
from tests.strategies.catalogue.test_cluster_source import drawn

ROOT = Path(__file__).parents[2]
DRIVER = Path(__file__).parent / "killed_driver.py"
RELEASE = (
    "{name: mild, kind: full, steps: 2, learning_rate: 3.0e-4, batch: 2, window: 16, "
    "conversations: 8}"
)
TINY = [
    *("fleet.devices=2", "rounds=2", "release.every=1", f"release.plans=[{RELEASE}]"),
    *("model=pocket_v1", "tuning.steps=2", "tuning.learning_rate=4.0e-3"),
    *("engine.workers=1", "engine.threads=1"),
]
WARM = ["start=nearest", "start.single_within=2.0", "start.exchanges=4"]
FEW = ["catalogue.explain.questions=6", "catalogue.explain.new_tokens=8"]
TUNED = ["catalogue.corpus=16", "catalogue.steps=2", "catalogue.layers=1", *FEW]
CLUSTERED = ["catalogue.clusters=2", "catalogue.members=2", "catalogue.least=4", *FEW]
FAITHFUL = ["synthesis=self_paraphrase", "synthesis.new_tokens=8"]
RUNS = {
    "none": ["selection=quality", "adaptation=edgetune", *FAITHFUL, "codec=top_k"],
    "labels": [],
    "styles": [
        *("selection=herding", "synthesis=template", "codec=int8", "catalogue.entries=2"),
        *("quality.generate=1", "quality.new_tokens=8", *TUNED, *WARM),
    ],
    "clusters": [
        *("selection=balanced_quality", "synthesis=none", "codec=fp32", *CLUSTERED, *WARM),
        *("fleet.devices=6", "fleet.join=[{round: 1, share: 0.34}]", "tuning.steps=4"),
        "placement@reference.placement=top_layers",
    ],
    "imported": ["selection=k_center", "fleet_patch=start", *FAITHFUL, "codec=fp16", *FEW, *WARM],
    "corpora": [
        *("selection=newest", "synthesis=template", "codec=int8", *TUNED, *WARM),
        "catalogue.learning_rate=2.0e-2",
    ],
}
"""A run for every catalogue, and the standard arms where answers are labels."""

MOMENTS = dict.fromkeys(RUNS, 9) | {"labels": 20, "clusters": 15}
"""Writes before which a driver dies: in the second round, with the first one committed."""


def text_rows(*, labels: bool) -> list[dict[str, object]]:
    """Exchanges of the built-in world; every text holds the canary, and whose it is."""
    world = SyntheticData(exchanges_per_day=2).open()
    rows: list[dict[str, object]] = []
    for user in range(8):
        said = [exchange for day in range(6) for exchange in world.day(user, day)]
        for order, one in enumerate(said):
            row: dict[str, object] = {"user_id": f"{CANARY}u{user}", "order": order}
            row |= {"question": f"{one.question} {CANARY}q{user}", "domain": f"{CANARY}d{user}"}
            # two groups, for clusters
            row["response"] = f"{CANARY}a{user} {one.response}{' yes' * 6 * (user % 2)}"
            if labels:
                word = order % 3
                row |= {"response": f"{CANARY}a{word}", "valence": word / 2}
            rows.append(row)
    return rows


def write_rows(file: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


def write_corpora(folder: Path) -> list[str]:
    """Two corpora of which users' rows have the canary and the server's have none."""
    world = SyntheticData().open()
    kept: list[str] = []
    for number in range(2):
        said = [one for user in range(12) for one in world.day(10 * number + user, 0)]
        own = {f"{CANARY} {one.question} {place}" for place, one in enumerate(said)}
        all_rows = [
            {"question": asked, "response": f"{mark} {one.response}"}
            for place, one in enumerate(said)
            for asked, mark in (
                (f"{CANARY} {one.question} {place}", CANARY),
                (f"{one.question} {place}", "so"),
            )
        ]
        both = write_rows(folder / f"both{number}.jsonl", all_rows)
        text = Corpora(files=(Corpus(name="a", path=str(both)), Corpus(name="b", path=str(both))))
        of_users = {asked for asked, _ in text.read("a", users=True)}
        rows = (
            row for row in all_rows if (row["question"] in own) == (row["question"] in of_users)
        )
        file = write_rows(folder / f"corpus{number}.jsonl", rows)
        kept.append(f"{{name: c{number}, path: {file}}}")
        both.unlink()
    return ["data=corpora", f"data.text.files=[{','.join(kept)}]", "data.exchanges_per_day=2"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run may leave bytes, and what went over its wire.

    Attributes:
        folder: Holds run, store, temporary files and the working directory.
        wire: What messages held, requests and replies as the server sees them.
    """

    folder: Path
    wire: list[bytes] = field(default_factory=list)

    def launch(self, *overrides: str) -> int:
        """Runs a command line in this process."""
        given = [f"store={self.folder / 'store'}", *overrides]
        if not any(one.startswith("resume=") for one in given):
            given.append(f"hydra.run.dir={self.folder / 'run'}")
        return launch(given)

    def found(self) -> dict[str, str]:
        """Every place outside the devices where a canary stands."""
        messages = {
            f"message {number}": told
            for number, data in enumerate(self.wire)
            if (told := find_canary(data)) is not None
        }
        return messages | search_folders([self.folder])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """An empty place that a run cannot but write into, with a listener at its wire."""
    here = Place(folder=tmp_path / "here")
    for name in ("run", "store", "tmp", "cwd", "home"):
        (here.folder / name).mkdir(parents=True)
    monkeypatch.chdir(here.folder / "cwd")
    monkeypatch.setenv("TMPDIR", str(here.folder / "tmp"))
    monkeypatch.setenv("HOME", str(here.folder / "home"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    send = CohortGrid.send_and_receive

    def listened(
        grid: CohortGrid, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        yield from heard(send(grid, heard(messages), timeout=timeout))

    def heard(messages: Iterable[Message]) -> Iterator[Message]:
        for message in messages:
            here.wire.append(to_blob(message.content))
            yield message

    monkeypatch.setattr(CohortGrid, "send_and_receive", listened)
    threads, arguments = torch.get_num_threads(), sys.argv
    yield here
    torch.set_num_threads(threads)
    sys.argv = arguments


def data_of(run: str, folder: Path) -> list[str]:
    """The data of a run, fleet and others, and what else its catalogue needs."""
    if run == "corpora":
        return ["catalogue=corpora", *write_corpora(folder)]
    labels = run == "labels"
    file = write_rows(folder / "rows.jsonl", text_rows(labels=labels))
    shape = ["data.history_days=4", "data.exchanges_per_day=1", "data.min_exchanges=8"]
    rows = ["data=jsonl", f"data.path={file}", *shape]
    if labels:
        return rows
    if run != "imported":
        return [*rows, f"catalogue={run}"]
    named: list[str] = []
    for group in range(2):
        into = folder / f"adapter{group}"
        export_peft(KeptPatch(patch=drawn(group), base="elsewhere"), into)
        named.append(f"{{name: own{group}, path: {into}}}")
    return [*rows, "catalogue=imported", f"catalogue.adapters=[{','.join(named)}]"]


def test_the_runs_cover_every_catalogue_synthesis_and_codec() -> None:
    chosen = {f"catalogue={name}" for name in RUNS} | {one for run in RUNS.values() for one in run}
    groups = ("catalogue", "synthesis", "codec")
    files = [file for group in groups for file in (ROOT / "conf" / group).glob("*.yaml")]
    assert {f"{file.parent.name}={file.stem}" for file in files} <= chosen


@pytest.mark.parametrize("run", RUNS)
def test_a_finished_run_leaves_no_text_outside_the_devices(
    run: str, place: Place, tmp_path: Path
) -> None:
    assert place.launch(*TINY, *data_of(run, tmp_path), *RUNS[run]) == 0
    rows = pl.read_parquet(place.folder / "run" / "rows.parquet")
    # text was trained on, and a catalogue was made and taken from
    assert rows["train_tokens"].sum() > 0
    if run not in ("none", "labels"):
        assert rows["start_entries"].sum() > 0
    assert len(place.wire) == 2 * len(rows)
    assert place.found() == {}


def test_questions_of_a_file_are_found_where_a_catalogue_takes_them(
    place: Place, tmp_path: Path
) -> None:
    # a user names this file for every phone to see; it shows that the search reaches these places
    asked = tmp_path / "asked.txt"
    asked.write_text("".join(f"what about {CANARY} {number}?\n" for number in range(6)))
    given = [*TINY, *data_of("imported", tmp_path), *FEW, "start=nearest", "rounds=1"]
    assert place.launch(*given, f"catalogue.questions={asked}") == 0
    found = place.found()
    places = {Path(name).suffix or name.partition(" ")[0] for name in found}
    assert places == {".json", ".catalogue", "message"}
    assert [Path(name).name for name in found if name.endswith(".json")] == ["plan.json"]


def kill(place: Place, folder: Path, names: Iterable[str], *more: str) -> dict[str, Path]:
    """Begins runs that die in their second round, and returns their folders."""
    folders = {name: place.folder / name for name in names}
    listed: list[tuple[int, list[str]]] = []
    for name, into in folders.items():
        (folder / name).mkdir()
        own = [*data_of(name, folder / name), *RUNS[name], f"hydra.run.dir={into}"]
        listed.append((MOMENTS[name], [*own, f"store={place.folder / 'store'}", *more]))
    start([str(DRIVER), json.dumps(listed), *TINY], {})
    return folders


def start(arguments: list[str], variables: Mapping[str, str]) -> None:
    """Runs Python in a process of its own."""
    subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        check=True,
        timeout=500,
    )


def check_killed(found: Mapping[str, str], folders: Iterable[Path]) -> None:
    """Text stands in every run's checkpoint, which only its owner may read, and nowhere else."""
    states = {folder: sorted((folder / "checkpoint").glob("state.sqlite*")) for folder in folders}
    assert set(found) <= {str(file) for files in states.values() for file in files}
    for folder, files in states.items():
        assert set(found) & set(map(str, files)), folder
        assert stat.S_IMODE((folder / "checkpoint").stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


@pytest.mark.slow
def test_a_killed_run_holds_text_in_its_checkpoint_alone_and_a_resumed_one_holds_none(
    place: Place, tmp_path: Path
) -> None:
    folders = kill(place, tmp_path, RUNS)
    check_killed(place.found(), folders.values())
    for folder in folders.values():
        assert place.launch(f"resume={folder}") == 0
        assert (folder / "summary.json").exists()
    assert place.wire
    assert place.found() == {}


@pytest.fixture
def ray_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where Ray keeps its files; a short name, for sockets lie below it."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as home:
        monkeypatch.setenv("RAY_TMPDIR", home)
        yield Path(home)


@pytest.mark.slow
@pytest.mark.ray
def test_ray_keeps_no_text_in_its_folders_whether_a_run_ends_or_is_killed(
    place: Place, tmp_path: Path, ray_home: Path
) -> None:
    folders = kill(place, tmp_path, ("none", "clusters"), "engine=ray")
    assert list(ray_home.rglob("*.log")), "Ray wrote its files elsewhere"
    check_killed(place.found() | search_folders([ray_home]), folders.values())
    for folder in folders.values():
        start(["-m", "simulations", f"resume={folder}"], {})
    assert place.found() | search_folders([ray_home]) == {}


@pytest.mark.slow
@pytest.mark.ray
def test_stock_flower_keeps_no_text_in_any_file(
    place: Place, tmp_path: Path, ray_home: Path
) -> None:
    given = [*TINY[:-2], *data_of("none", tmp_path), *RUNS["none"], "engine=flower"]
    into = [f"hydra.run.dir={place.folder / 'run'}", f"store={place.folder / 'store'}"]
    start(["-m", "simulations", *given, *into], {})
    assert (place.folder / "run" / "summary.json").exists()
    assert place.found() | search_folders([ray_home]) == {}
