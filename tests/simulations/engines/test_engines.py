"""Engines: processes, Ray actors and stock Flower compute the same rows.

Ray and Flower run in processes of their own here: they leave warnings, files and handlers behind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest

from simulations.engines.ray_workers import open_ray_workers

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).parents[3]
RELEASE = (
    "{name: mild, kind: full, steps: 2, learning_rate: 3.0e-4, batch: 2, window: 16, "
    "conversations: 50}"
)
TINY = [
    "fleet.devices=4",
    "rounds=2",
    "tuning.steps=4",
    "release.every=1",
    f"release.plans=[{RELEASE}]",
    "data.exchanges_per_day=2",
    "data.history_days=2",
    "adaptation=edgetune_released",
]
ONE_NIGHT = [*TINY[2:], "fleet.devices=1", "rounds=1", "engine.workers=1"]
MODEL_NUMBERS = ["nll", "drift", "strength"]

RUNS = """
import gc, io, json, sys, threading, time
from pathlib import Path
from simulations.engines.environment import set_environment
set_environment()
import hydra, psutil
from omegaconf import OmegaConf
from rich.console import Console
from simulations.experiment.build import build
from simulations.experiment.arms import read_choices
from simulations.run import run_experiment

def held():
    process = psutil.Process()
    kinds = ("gcs_server", "raylet", "ray::PassWorker")
    names = [child.name() for child in process.children(recursive=True)]
    return {
        "threads": threading.active_count(),
        "files": process.num_fds(),
        "processes": len(process.children()),
        **{kind: names.count(kind) for kind in kinds},
    }

for number, overrides in enumerate(json.loads(sys.argv[1])):
    folder = Path(f"run{number}")
    folder.mkdir()
    with hydra.initialize_config_module("conf", version_base="1.3"):
        cfg = hydra.compose("config", overrides=overrides)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    run_experiment(build(cfg, read_choices(overrides)), folder, Console(file=io.StringIO()))
    gc.collect()
    time.sleep(0.5)  # actors end after they were told to
    (folder / "held.json").write_text(json.dumps(held()))
"""

TWO_NODES = """
import json, logging, os, sys
from pathlib import Path
from simulations.engines.environment import set_environment
set_environment()
from ray.cluster_utils import Cluster
from fleettune.cohort.execute import execute
from fleettune.jobs.jobs import EmbedJob
import ray
from simulations.engines.ray_workers import open_ray_workers
from simulations.engines.ray_workers import RayWorkers

class Broken:
    def whereabouts(self):
        import a_module_that_no_node_has

logging.basicConfig(filename="log", level=logging.INFO)
home, cluster = Path.cwd(), Cluster()
for name in ("first", "second"):
    (home / name).mkdir()
    os.chdir(home / name)
    cluster.add_node(num_cpus=1, env_vars={"TMPDIR": str(home / name)})
os.chdir(home)
jobs = [
    EmbedJob(release="release", patch=None, prompts=((1, 2, 3 + number),) * (number + 1))
    for number in range(12)
]
with open_ray_workers(2, 1, cluster.address) as run_batches:
    found = execute(jobs, run_batches)
    there = [result.vectors.tobytes().hex() for result in found]
    broken = RayWorkers(ray.remote(Broken).options(num_cpus=0).remote)
    broken.add()
    try:
        execute(jobs, broken.run)
    except Exception as error:
        said = str(error)
here = [result.vectors.tobytes().hex() for result in execute(jobs)]
Path("answer.json").write_text(json.dumps({"there": there, "here": here, "said": said}))
"""

Runner = Callable[[Sequence[str], Path], None]


def start(command: Sequence[str], folder: Path, **settings: str) -> subprocess.Popen[str]:
    """Starts Python in a folder, with our code before any installed one."""
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MKL_CBWR": "AUTO", **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said


def run_all(runs: Sequence[Sequence[str]], folder: Path, store: Path) -> None:
    """Runs experiments one after the other in one process, into folders run0, run1, ..."""
    asked = json.dumps([[*overrides, f"store={store}"] for overrides in runs])
    finish(start(["-c", RUNS, asked], folder))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def engines(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The tiny fleet on every engine: its run folder by name."""
    runs = {
        "inprocess": ["engine.workers=1"],
        "ray_1": ["engine=ray", "engine.workers=1"],
        "ray_2": ["engine=ray", "engine.workers=2"],
        "flower": ["engine=flower"],
    }
    folder = tmp_path_factory.mktemp("engines")
    run_all([[*TINY, *overrides] for overrides in runs.values()], folder, store)
    return {name: folder / f"run{number}" for number, name in enumerate(runs)}


def test_ray_workers_give_the_same_bytes_as_this_process(engines: Mapping[str, Path]) -> None:
    assert pl.read_parquet(engines["inprocess"] / "rows.parquet").height == 2 * 4 * 2
    for file in ("rows.parquet", "work.parquet"):
        expected = (engines["inprocess"] / file).read_bytes()
        for name in ("ray_1", "ray_2"):
            assert (engines[name] / file).read_bytes() == expected, (name, file)


def test_stock_flower_gives_the_same_rows_but_for_rounding(engines: Mapping[str, Path]) -> None:
    ours = pl.read_parquet(engines["inprocess"] / "rows.parquet")
    stock = pl.read_parquet(engines["flower"] / "rows.parquet")
    assert stock.drop(MODEL_NUMBERS).equals(ours.drop(MODEL_NUMBERS))
    for name in MODEL_NUMBERS:
        # passes over one device instead of four add in another order: 1e-4 as in the cohort tests
        found, expected = (frame[name].fill_null(0).to_list() for frame in (stock, ours))
        assert found == pytest.approx(expected, rel=1e-4), name
    # work is counted from tokens and crosses the wire as it is: no rounding at all
    ours, stock = (
        pl.read_parquet(engines[name] / "work.parquet") for name in ("inprocess", "flower")
    )
    assert stock.equals(ours)


def test_stock_flower_leaves_no_file_behind(store: Path, tmp_path: Path) -> None:
    # a short name: Ray's sockets lie below it, and their paths must stay under 108 bytes
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        asked = json.dumps([[*ONE_NIGHT, "engine=flower", f"store={store}"]])
        finish(start(["-c", RUNS, asked], tmp_path, TMPDIR=home))
        assert list(Path(home).glob("ray*")) == []
    assert (tmp_path / "run0" / "rows.parquet").is_file()


def test_runs_leave_no_thread_file_or_process_behind(store: Path, tmp_path: Path) -> None:
    quick = [ONE_NIGHT] * 10
    run_all([*quick, *[[*ONE_NIGHT, "engine=ray"]] * 3], tmp_path, store)
    held = [json.loads((tmp_path / f"run{i}" / "held.json").read_text()) for i in range(13)]
    assert held[9] == held[1]
    # the first run with Ray starts this process's Ray; others find it and leave no more behind
    assert held[12] == held[11]
    assert held[12]["raylet"] == 1
    assert held[12]["ray::PassWorker"] == 0


def test_a_run_survives_the_death_of_a_worker(
    engines: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    settings = ["engine=ray", f"store={store}", "hydra.run.dir=."]
    process = start(["-m", "simulations", *TINY, *settings], tmp_path)
    killed = kill_busy_worker(psutil.Process(process.pid))
    finish(process)
    assert killed
    assert "a Ray worker died and is replaced" in (tmp_path / "run.log").read_text()
    rows = (tmp_path / "rows.parquet").read_bytes()
    assert rows == (engines["inprocess"] / "rows.parquet").read_bytes()


def kill_busy_worker(parent: psutil.Process, limit_s: float = 60.0) -> bool:
    """Kills the first descendant that runs a part; Ray shows the call in the process's title."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        for child in parent.children(recursive=True):
            try:
                if child.cmdline()[:1] == ["ray::PassWorker.run"]:
                    child.kill()
                    return True
            except psutil.Error:
                continue  # it ended while we looked
        time.sleep(0.005)
    return False


def test_code_and_model_reach_a_second_node(tmp_path: Path) -> None:
    release = ROOT / "fleettune" / "models" / "pocket"
    (tmp_path / "release").mkdir()
    for file in release.iterdir():
        (tmp_path / "release" / file.name).write_bytes(file.read_bytes())
    finish(start(["-c", TWO_NODES], tmp_path))
    answer: dict[str, Any] = json.loads((tmp_path / "answer.json").read_text())
    assert answer["there"] == answer["here"]
    workers = [line for line in (tmp_path / "log").read_text().splitlines() if "worker on" in line]
    nodes, codes = ({line.split()[at] for line in workers} for at in (-5, -1))
    assert len(nodes) == 2
    assert not [code for code in codes if code.startswith(str(ROOT))]
    for node in ("first", "second"):
        (weights,) = (tmp_path / node).glob("fleettune-releases/*/model.safetensors")
        assert weights.read_bytes() == (release / "model.safetensors").read_bytes()
    assert "No module named 'a_module_that_no_node_has'" in answer["said"]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "auto"])
def test_a_cluster_that_is_not_there_is_named(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    said = rf"engine.address must be .* got '{address}'.*refused.*ray start --head"
    with pytest.raises(ValueError, match=said), open_ray_workers(1, 1, address):
        pass
