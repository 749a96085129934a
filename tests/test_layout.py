import hashlib
import importlib.metadata
import importlib.util
import tomllib
from pathlib import Path
from typing import Any, cast

import hydra
import pytest
from omegaconf import DictConfig, OmegaConf

from fleettune.backbone.causal_lm import POCKET
from fleettune.cost.hardware import load_hardware
from simulations.experiment.arms import POLICY_KEYS
from simulations.experiment.build import Experiment, build
from simulations.experiment.targets import configured

ROOT = Path(__file__).parent.parent
SCHEDULE_DIGESTS = {
    1: "4ad34349396f95b1c5762ea66d7ce23d032f65efa142f3f44d55162320aa0427",
    2: "b969b41564ec325fe9a2c8a7edee593b2a0d5870336347c7007b70665728d1cf",
}
LATER_KEYS = ("epochs: null", "holdout: 0.0", "patience: null", "personal: 1.0")
"""Came after version 2 and change nothing at these values."""
ROOMS = ("fleettune", "clients", "strategies", "simulations", "conf")
OURS = [file for room in (*ROOMS, "benchmarks", "docs") for file in (ROOT / room).rglob("*.py")]
OPTIONS = [
    (file.parent.name, file.stem)
    for file in sorted((ROOT / "conf").glob("*/*.yaml"))
    if file.parent.name != "hardware"
]


STARTS = ("warm_start", "xpert", "xpert_cost", "xpert_merge", "xpert_null", "xpert_optuna")
NEEDED = {
    ("aggregation", "ffa"): ["+tuning.frozen_a=true"],
    ("release", "merged"): ["fleet_patch=start"],
    ("guidance", "fitted"): ["arms=reuse_thresholds"],
    ("arms", "xpert_corpora"): ["catalogue=styles"],
    ("catalogue", "corpora"): ["data=corpora"],
} | {("arms", name): ["catalogue=styles"] for name in STARTS}
"""What an option asks for beside itself."""


def composed(group: str, option: str) -> DictConfig:
    beside = NEEDED.get((group, option), [])
    with hydra.initialize_config_module("conf", version_base="1.3"):
        return hydra.compose("config", overrides=[f"{group}={option}", *beside])


def needs_a_file(cfg: DictConfig) -> bool:
    """Whether the option is about a model, a table or a corpus that the user brings."""
    brought = cfg.model.path if not OmegaConf.is_missing(cfg.model, "path") else None
    is_there = brought == POCKET or (brought is not None and Path(brought).is_dir())
    texts = OmegaConf.select(cfg, "data.text.files", throw_on_missing=False) or []
    files = [text.path for text in texts]
    files += [plan.corpus for plan in cfg.release.plans if "corpus" in plan]
    have_text = all(Path(file).is_file() for file in files)
    return bool(OmegaConf.missing_keys(cfg)) or not (is_there and have_text)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_imported_from_the_repository(room: str) -> None:
    spec = importlib.util.find_spec(room)
    assert spec is not None
    assert Path(spec.origin or "").parent == ROOT / room


@pytest.mark.parametrize("room", [*ROOMS, "tests", "benchmarks"])
def test_no_other_distribution_provides_a_room(room: str) -> None:
    providers = set(importlib.metadata.packages_distributions().get(room, []))
    assert providers <= {"fleettune"}


def test_the_wheel_holds_the_rooms_and_no_tests() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = settings["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == list(ROOMS)


def test_no_package_hides_a_room_from_the_tests() -> None:
    # tests/clients/__init__.py would make pytest import tests/clients as clients
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("file", OURS, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_has_at_most_400_lines(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 400


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_of_the_configuration_builds(group: str, option: str) -> None:
    if option in ("xpert_optuna", "xpert_search"):
        pytest.importorskip("optuna")
    cfg = composed(group, option)
    if needs_a_file(cfg):
        with pytest.raises(ValueError, match=r"path|folder|files|adapters|\?\?\?"):
            build(cfg)
        return
    assert isinstance(build(cfg), Experiment)
    if group in POLICY_KEYS:
        # without a choice of the user's, `build` makes the standard arms only
        node = cast(dict[str, Any], OmegaConf.to_container(cfg[group], resolve=True))
        assert type(configured(node, group)).__name__ == str(node["_target_"]).rpartition(".")[2]


def test_every_hardware_file_is_a_profile() -> None:
    files = {file.stem for file in (ROOT / "conf" / "hardware").glob("*.yaml")}
    assert set(load_hardware(ROOT / "conf" / "hardware")) == files


def test_the_default_schedule_is_the_one_whose_figures_stand_in_the_readme() -> None:
    """Version 2: changing it changes every published figure, so raise the version and rerun.

    Since version 2 the choice of what is priced belongs to it.
    """
    files = ("release/pocket", "tuning/pocket", "data/synthetic", "cost/pocket")
    paths = [ROOT / "conf" / f"{file}.yaml" for file in files]
    lines = "".join(path.read_text(encoding="utf-8") for path in paths).splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith(LATER_KEYS))
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert digest == SCHEDULE_DIGESTS[2]
