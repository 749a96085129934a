"""Composes and checks every job of a command line before the first one runs.

Hydra alone exits with 1 on an unknown key and lets wrong types pass, so composition errors are
caught here, the whole experiment is built and checked, and bad input ends with exit code 2 and one
sentence.
"""

from __future__ import annotations

import copy
import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.markup import escape

from simulations.checkpoint.resume import (
    begin_run,
    check_unchanged,
    find_resumed,
    restore_overrides,
)
from simulations.command_line import DEBUG, CommandLine, read_command_line
from simulations.engines.environment import quieten_flower
from simulations.experiment import lexicons
from simulations.experiment.arms import check_choices, read_choices
from simulations.experiment.build import Experiment, build
from simulations.experiment.option_groups import register_groups
from simulations.experiment.removed import explain_removal
from simulations.faults import OUTSIDE, explain_fault, explain_user_code

log = logging.getLogger(__name__)


CONFIG = {"config_path": "pkg://conf", "config_name": "config", "version_base": "1.3"}


def split_jobs(overrides: Sequence[str], *, sweep: bool) -> list[list[str]]:
    """Returns the overrides of every job of a command line, in order."""
    if not sweep:
        return [list(overrides)]
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # noqa: PLC0415

    # glob() asks the configuration for its options
    loader = GlobalHydra.instance().config_loader()
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
    return BasicSweeper.split_arguments(parsed, None)[0]


def check_all(overrides: Sequence[str], *, sweep: bool) -> list[Experiment]:
    """Returns every job's experiment, composed and checked.

    Raises:
        ValueError: For the first job that breaks a rule.
    """
    experiments: list[Experiment] = []
    with hydra.initialize_config_module("conf", version_base="1.3"):
        for job in split_jobs(overrides, sweep=sweep):
            try:
                cfg = hydra.compose("config", overrides=job)
                parts = expand_study(cfg, job)
            except (HydraException, OmegaConfBaseException, ValueError) as error:
                raise ValueError(_sentence(error, job)) from error
            check_unchanged(cfg, parts)
            try:
                for part in parts:
                    check_choices(part, read_choices(job))
                    experiments.append(build(part, read_choices(job)))
            except ValueError as error:
                raise ValueError(explain_removal(str(error)) or str(error)) from error
    return experiments


def expand_study(cfg: DictConfig, overrides: Sequence[str]) -> list[DictConfig]:
    """Returns the configuration once per world and seed of its study; itself for a plain run.

    Args:
        cfg: The composed configuration.
        overrides: What it was composed from; a world's own overrides stand above these.
    """
    seeds: Any = OmegaConf.select(cfg, "study.seeds") or []
    if not seeds:
        return [cfg]
    worlds: Any = OmegaConf.select(cfg, "study.worlds") or [{"name": "", "overrides": []}]
    return [
        _part(made, seed, world["name"])
        for world in worlds
        for made in [_in_world(cfg, overrides, list(world.get("overrides", ())))]
        for seed in seeds
    ]


def _part(cfg: DictConfig, seed: int, world: str) -> DictConfig:
    part = copy.deepcopy(cfg)
    OmegaConf.update(part, "seed", seed)
    OmegaConf.update(part, "study.world", world, force_add=True)
    return part


def _in_world(cfg: DictConfig, overrides: Sequence[str], own: Sequence[str]) -> DictConfig:
    if not own:
        return cfg
    keys = {_key(override) for override in own}
    kept = [override for override in overrides if _key(override) not in keys]
    return hydra.compose("config", overrides=[*kept, *own])


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _sentence(error: Exception, job: Sequence[str]) -> str:
    """Returns what Hydra says in one line, with what was asked for and without its internals."""
    if removed := explain_removal(str(error)):
        said = removed
    elif unknown := re.match("Could not override '([^']+)'", str(error)):
        key = unknown[1]
        near = f"; {key.rpartition('.')[0]} has other keys" if "." in key else ""
        said = f"{key} is not a known key of the configuration{near}, see --cfg job"
    else:
        lines = [
            line.strip() for line in str(error).partition("Config search path")[0].splitlines()
        ]
        kept = (line for line in lines if not line.startswith(("full_key", "object_type")))
        said = " ".join(filter(None, kept))
    return f"{said}; got {' '.join(job)}"


def _complain(error: Exception) -> None:
    line = " ".join(str(error).split())
    shown = f"[bold red]error[/]: {escape(line)}"
    Console(stderr=True).print(shown, soft_wrap=True, highlight=False)


def launch(arguments: list[str]) -> int:
    """Runs a command line and returns its exit code: 0 done, 2 bad input or a fault outside.

    Faults outside are a full disk, a folder that cannot be written, Ctrl-C, SIGTERM, and an
    exception in code of the user's. A fault of fleettune's own ends in its traceback.
    """
    lexicons.register_resolver()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints the error itself and exits
    logging.raiseExceptions = False  # a log on a full disk: the run ends in a sentence of its own
    try:
        asked = read_command_line(arguments)
        overrides, given = list(asked.overrides), list(asked.arguments)
        if asked.asks:
            return _answer(asked)
        if find_resumed(overrides) is not None:
            overrides = restore_overrides(overrides, sweep=asked.sweeps)
            given = [*(one for one in given if one.startswith("-")), *overrides]
        check_all(overrides, sweep=asked.sweeps)
    except (ValueError, HydraException) as error:
        _complain(error)
        return 2
    failures: list[int] = []
    sys.argv = ["fleettune", *given]
    signal.signal(signal.SIGTERM, _stop)
    try:
        hydra.main(**CONFIG)(lambda cfg: _job(cfg, failures, debug=asked.debug))()
    except (*OUTSIDE, ValueError) as error:
        # of a log that cannot be opened Hydra says ValueError, from the fault
        fault = error.__cause__ if isinstance(error, ValueError) else error
        if not isinstance(fault, OUTSIDE):
            raise
        _complain(explain_fault(fault, None))
        failures.append(2)
    return max(failures, default=0)


def _answer(asked: CommandLine) -> int:
    """Has Hydra answer a question about the configuration; returns the exit code.

    After a page of help Hydra exits by itself, with 0.
    """
    register_groups(_options_of)
    sys.argv = ["fleettune", *asked.arguments]
    try:
        hydra.main(**CONFIG)(lambda _: None)()
    except (ValueError, HydraException, OmegaConfBaseException) as error:
        _complain(ValueError(_sentence(error, asked.overrides)))
        return 2
    return 0


def _options_of(group: str) -> list[str]:
    """Returns the options of a group, those in a folder of the user's among them."""
    known = set(GlobalHydra.instance().config_loader().get_group_options(group))
    # Hydra's loader knows these folders only while it composes
    for place in HydraConfig.get().searchpath:
        folder = Path(place.removeprefix("file://")) / group
        known |= {file.stem for file in folder.glob("*.yaml")}
    return sorted(known)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def _job(cfg: DictConfig, failures: list[int], *, debug: bool) -> None:
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        _run(cfg, folder)
    except ValueError as error:
        _note(error)
        _complain(error)
        failures.append(2)
    except OUTSIDE as error:
        _note(error)
        _complain(explain_fault(error, folder))
        if isinstance(error, KeyboardInterrupt):
            raise SystemExit(2) from error
        failures.append(2)
    except Exception as error:
        told = explain_user_code(error)
        if told is None or debug:
            raise
        _note(error)
        _complain(ValueError(f"{told}; add {DEBUG} for the traceback"))
        failures.append(2)


def _run(cfg: DictConfig, folder: Path) -> None:
    from simulations.run import run_experiment  # noqa: PLC0415 - seconds of import
    from simulations.study import run_study  # noqa: PLC0415 - as above

    quieten_flower()
    # piped output has no width of its own; the tables need about this much
    console = Console(width=None if sys.stdout.isatty() else 150)
    given = HydraConfig.get().overrides
    chosen = read_choices(list(given.task))
    parts = expand_study(cfg, list(given.task))
    experiments = [build(part, chosen) for part in parts]
    if cfg.resume is None:
        installed = {path for one in experiments for path in one.fleet.installed}
        begin_run(cfg, list(given.task), list(given.hydra), folder, parts, installed)
    if OmegaConf.select(cfg, "study.seeds"):
        run_study(experiments, folder, console)
    else:
        run_experiment(experiments[0], folder, console)


def _note(error: BaseException) -> None:
    """Writes a traceback into the run's log, where there is room for it."""
    log.error("the run stopped", exc_info=error)
