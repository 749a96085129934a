import ast
import importlib.metadata
import importlib.util
import tomllib
from pathlib import Path
from typing import Any, cast

import hydra
import pytest
from omegaconf import DictConfig, OmegaConf

from fleettune.backbone.causal_lm import BUILT_IN_MODELS
from fleettune.cost.hardware import load_hardware
from simulations.experiment import lexicons
from simulations.experiment.arms import POLICY_KEYS
from simulations.experiment.build import Experiment, build
from simulations.experiment.targets import build_target

ROOT = Path(__file__).parent.parent
MILD = {
    **{"name": "mild", "kind": "full", "steps": 30, "learning_rate": 0.0003, "batch": 16},
    **{"window": 64, "conversations": 2000, "vendor": 0.0, "paraphrases": 0.0},
}
LEANING = {
    **{"kind": "full", "steps": 60, "learning_rate": 0.001, "batch": 16},
    **{"window": 64, "conversations": 2000},
}
SCHEDULE: dict[str, dict[str, object]] = {
    "release": {
        "every": 2,
        "initial": None,
        "plans": [
            MILD,
            {"name": "clocks", **LEANING, "leans": ["hour=1", "day=1"]},
            {"name": "polite", **LEANING, "leans": ["greeting=4", "closing=1", "name=1"]},
            {
                **{"name": "shopping", **LEANING, "leans": ["money=3", "count=3"]},
                "about": ["buy", "send"],
            },
        ],
    },
    "tuning": {
        **{"steps": 96, "batch": 4, "learning_rate": 0.002, "clip": 1.0, "prefix_cache": False},
        **{"epochs": None, "holdout": 0.0, "patience": None, "steps_again": 24, "steps_first": 48},
        "least_epochs": 2,
    },
    "data": {
        **{"_target_": "MannersData", "users": 1000000, "exchanges_per_day": 3.0, "spread": 0.9},
        **{"history_days": 20, "strength": 0.75, "even": False, "drift": 0.02, "repeats": 0.15},
        "consistency": 1.0,
    },
    "cost": {
        "model": "llama-3.2-1b",
        "tokens_ratio": 1.11,
        "bits_per_weight": 16,
        "network": False,
        "country": "WORLD",
    },
}
"""The default schedule. Any change of a value changes every published figure: publish them anew.

Comments, order and the place of a class may change freely. A key that comes later stands here with
the value at which it changes nothing.
"""
WINGS = ("fleettune", "clients", "strategies", "simulations", "conf")
OURS = [file for wing in (*WINGS, "benchmarks", "docs") for file in (ROOT / wing).rglob("*.py")]
STARTER = ROOT / "simulations" / "starter" / "files"  # what a reader gets, no room of ours
FOLDERS = sorted(
    {file.parent for wing in WINGS[:4] for file in (ROOT / wing).rglob("*.py")} - {STARTER}
)
MODULES_AT_MOST = 20
SAME_NAME = {
    "main": "the function that a script runs",
}
"""Names that several modules may define, each with the reason."""
OPTIONS = [
    (file.parent.name, file.stem)
    for file in sorted((ROOT / "conf").glob("*/*.yaml"))
    if file.parent.name != "hardware"
]


STARTS = ("warm_start", "xpert", "xpert_styles", "xpert_cost", "xpert_merge", "xpert_null")
NEEDED = {
    ("aggregation", "ffa"): ["+tuning.frozen_a=true"],
    ("release", "merged"): ["fleet_patch=start"],
    ("guidance", "fitted"): ["arms.edgetune.adaptation.canary_share=0.1"],
    ("arms", "xpert_corpora"): ["catalogue=styles"],
    ("catalogue", "corpora"): ["data=corpora"],
    ("data", "synthetic_v1"): ["model=pocket_v1"],
    ("data", "synthetic_v1_null"): ["model=pocket_v1"],
    ("data", "bursty"): ["model=pocket_v1"],
    ("data", "styles"): ["model=pocket_v1"],
    ("model", "pocket_v1"): ["data=synthetic_v1"],
} | {("arms", name): ["catalogue=styles"] for name in STARTS}
"""What an option asks for beside itself."""


def composed(group: str, option: str) -> DictConfig:
    lexicons.register_resolver()
    beside = NEEDED.get((group, option), [])
    with hydra.initialize_config_module("conf", version_base="1.3"):
        return hydra.compose("config", overrides=[f"{group}={option}", *beside])


def needs_a_file(cfg: DictConfig) -> bool:
    """Whether the option is about a model, a table or a corpus that the user brings."""
    brought = cfg.model.path if not OmegaConf.is_missing(cfg.model, "path") else None
    is_there = brought in BUILT_IN_MODELS or (brought is not None and Path(brought).is_dir())
    texts = OmegaConf.select(cfg, "data.text.files", throw_on_missing=False) or []
    files = [text.path for text in texts]
    files += [plan.corpus for plan in cfg.release.get("plans", []) if "corpus" in plan]
    have_text = all(Path(file).is_file() for file in files)
    return bool(OmegaConf.missing_keys(cfg)) or not (is_there and have_text)


@pytest.mark.parametrize("room", WINGS)
def test_a_room_is_imported_from_the_repository(room: str) -> None:
    spec = importlib.util.find_spec(room)
    assert spec is not None
    assert Path(spec.origin or "").parent == ROOT / room


@pytest.mark.parametrize("room", [*WINGS, "tests", "benchmarks"])
def test_no_other_distribution_provides_a_room(room: str) -> None:
    providers = set(importlib.metadata.packages_distributions().get(room, []))
    assert providers <= {"fleettune"}


def test_the_wheel_holds_the_rooms_and_no_tests() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = settings["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == list(WINGS)


def test_no_package_hides_a_room_from_the_tests() -> None:
    # tests/clients/__init__.py would make pytest import tests/clients as clients
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("file", OURS, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_has_at_most_400_lines(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 400


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_of_the_configuration_builds(group: str, option: str) -> None:
    cfg = composed(group, option)
    if needs_a_file(cfg):
        with pytest.raises(ValueError, match=r"path|folder|files|adapters|\?\?\?"):
            build(cfg)
        return
    assert isinstance(build(cfg), Experiment)
    if group in POLICY_KEYS:
        # without a choice of the user's, `build` makes the standard arms only
        node = cast(dict[str, Any], OmegaConf.to_container(cfg[group], resolve=True))
        assert type(build_target(node, group)).__name__ == str(node["_target_"]).rpartition(".")[2]


def test_every_hardware_file_is_a_profile() -> None:
    files = {file.stem for file in (ROOT / "conf" / "hardware").glob("*.yaml")}
    assert set(load_hardware(ROOT / "conf" / "hardware")) == files


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_a_room_holds_at_most_20_modules(folder: Path) -> None:
    modules = [file for file in folder.glob("*.py") if file.name != "__init__.py"]
    assert len(modules) <= MODULES_AT_MOST


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_a_room_says_in_a_sentence_what_is_in_it(folder: Path) -> None:
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    assert len(docstring.split()) >= 5
    assert docstring.endswith(".")


def test_a_public_name_is_defined_in_one_module() -> None:
    places: dict[str, list[str]] = {}
    for folder in FOLDERS:
        for file in folder.glob("*.py"):
            for node in ast.parse(file.read_text()).body:
                if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name[0] != "_":
                    places.setdefault(node.name, []).append(str(file.relative_to(ROOT)))
    doubled = {name: files for name, files in places.items() if len(files) > 1}
    assert {name: files for name, files in doubled.items() if name not in SAME_NAME} == {}
    assert set(SAME_NAME) <= set(doubled), "an exception that nothing needs"


def test_the_default_schedule_is_the_one_whose_figures_stand_in_the_readme() -> None:
    with hydra.initialize_config_module("conf", version_base="1.3"):
        cfg = hydra.compose("config")
    schedule = {
        group: dict(cast(dict[str, Any], OmegaConf.to_container(cfg[group], resolve=True)))
        for group in ("release", "tuning", "data", "cost")
    }
    for values in schedule.values():
        if "_target_" in values:
            values["_target_"] = str(values["_target_"]).rpartition(".")[2]
    assert schedule == SCHEDULE
