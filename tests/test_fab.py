"""The apps as Flower ships them: packed, unpacked elsewhere, run by Flower's own simulation."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import pytest

from simulations.engines.environment import QUIET
from simulations.experiment.build import Experiment, build

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parent.parent
ROOMS = ("fleettune", "clients", "strategies", "simulations", "conf")
DEVICES, ROUNDS = 4, 2
ARMS = ("always_retune", "edgetune_released")
RELEASE = (
    "{name: tiny, kind: full, steps: 2, learning_rate: 3.0e-4, batch: 4, window: 32,"
    " conversations: 50}"
)

LOADED_FROM = """
import clients.app, strategies.app
for module in (clients.app, strategies.app):
    print(module.__file__, type(module.app).__name__)
"""
OURS = """
import sys
from flwr.app import Context, RecordDict
import clients.app, strategies.app
from simulations.engines.cohort_grid import RUN_ID, CohortGrid, Registry
devices, fleet, plan = sys.argv[1:]
grid = CohortGrid(
    client=clients.app.app,
    registry=Registry(devices=int(devices), fleet=fleet),
    cohort_size=int(devices),
    observer=lambda arm, content, device: None,
)
context = Context(
    run_id=RUN_ID, node_id=0, node_config={}, state=RecordDict(), run_config={"plan": plan}
)
strategies.app.app(grid=grid, context=context)
"""
STOCK = """
import os, sys
from flwr.simulation import run_simulation
import clients.app, strategies.app
devices, os.environ["FLEETTUNE_FLEET"], os.environ["FLEETTUNE_PLAN"] = sys.argv[1:]
# one actor: Flower may run two messages of one node at once, and would lose a state
run_simulation(
    server_app=strategies.app.app,
    client_app=clients.app.app,
    num_supernodes=int(devices),
    backend_config={
        "init_args": {"num_cpus": 1, "include_dashboard": False},
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
    },
)
"""


@pytest.fixture(scope="module")
def fab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The FAB, built in a copy so that nothing is left in the tree."""
    folder = tmp_path_factory.mktemp("app")
    for room in ROOMS:
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / room, folder / room, ignore=unwanted)
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copy(ROOT / "README.md", folder)
    flwr = Path(sys.executable).parent / "flwr"
    home = tmp_path_factory.mktemp("flwr_home")
    run([str(flwr), "build", "--app", str(folder)], folder, {"FLWR_HOME": str(home)})
    (built,) = folder.glob("*.fab")
    return built


@pytest.fixture(scope="module")
def unpacked(fab: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(fab) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    store = tmp_path_factory.mktemp("store")
    overrides = [
        f"fleet.devices={DEVICES}",
        f"rounds={ROUNDS}",
        "release.every=1",
        f"release.plans=[{RELEASE}]",
        "tuning.steps=2",
        f"adaptation={ARMS[1]}",
        f"store={store}",
    ]
    with hydra.initialize_config_module("conf", version_base="1.3"):
        cfg = hydra.compose("config", overrides=overrides)
    return build(cfg, {"adaptation": ARMS[1]})


def run(command: Sequence[str], folder: Path, settings: Mapping[str, str]) -> str:
    """Runs a command in a folder and returns what it printed."""
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": "local"}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **QUIET, **quiet, **settings},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_fab_holds_every_module_and_option_and_no_weights(fab: Path) -> None:
    with zipfile.ZipFile(fab) as archive:
        packed = set(archive.namelist())
    expected = {
        str(file.relative_to(ROOT))
        for room in ROOMS
        for pattern in ("*.py", "*.yaml")
        for file in (ROOT / room).rglob(pattern)
    }
    assert expected <= packed
    assert not [name for name in packed if name.endswith((".safetensors", ".bin", ".pt"))]
    assert not [name for name in packed if name.startswith(("tests/", ".venv/", "outputs/"))]


def test_both_apps_load_from_the_unpacked_fab(unpacked: Path, tmp_path: Path) -> None:
    # PYTHONPATH stands before the editable installation, as Flower's own app folder does
    command = [sys.executable, "-c", LOADED_FROM]
    printed = run(command, tmp_path, {"PYTHONPATH": str(unpacked)}).split()
    assert printed == [
        str(unpacked / "clients" / "app.py"),
        "ClientApp",
        str(unpacked / "strategies" / "app.py"),
        "ServerApp",
    ]


def test_stock_flower_spends_the_joules_and_decides_as_our_grid_does(
    unpacked: Path, experiment: Experiment, tmp_path: Path
) -> None:
    sums: list[list[dict[str, Any]]] = []
    for name, script, code in (("ours", OURS, ROOT), ("stock", STOCK, unpacked)):
        folder = tmp_path / name
        folder.mkdir()
        fleet, plan = folder / "fleet.json", folder / "plan.json"
        experiment.fleet.write(fleet)
        # nobody observes, as in a deployment
        replace(experiment.plan(), observe=False).write(plan)
        command = [sys.executable, "-c", script, str(DEVICES), str(fleet), str(plan)]
        run(command, folder, {"PYTHONPATH": str(code)})
        sums.append(json.loads((folder / "server_rounds.json").read_text()))
    expected, found = sums
    assert [(entry["arm"], entry["round"]) for entry in found] == [
        (arm, night) for night in range(ROUNDS) for arm in ARMS
    ]
    for mine, other in zip(expected, found, strict=True):
        assert (other["devices"], other["failed"]) == (DEVICES, 0)
        assert other["decisions"] == mine["decisions"]
        assert other["energy_j"] > 0
        # joules follow from token counts alone, so only the order of additions may differ
        assert other["energy_j"] == pytest.approx(mine["energy_j"], rel=1e-6)
        assert (other["up_bytes"], other["down_bytes"]) == (mine["up_bytes"], mine["down_bytes"])
