"""Says what one run of a sweep or search still needs, and holds their folder for one command."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from simulations.checkpoint.resume import finish_interrupted, is_finished, quote_path
from simulations.command_line import read_command_line
from simulations.experiment.build import Experiment
from simulations.launch import check_all
from simulations.report.run_page import write_report

CONFIG = "config.yaml"
ENGINE_WITHOUT_CHECKPOINT = "flower"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRun:
    """A run that a folder is to hold: ``folder`` and the ``overrides`` that begin it."""

    folder: Path
    overrides: tuple[str, ...]

    @property
    def is_begun(self) -> bool:
        """Whether the folder holds a configuration, so that the run can be resumed."""
        return (self.folder / CONFIG).exists()

    @property
    def is_over(self) -> bool:
        """Whether nothing of the run is missing, but perhaps its page."""
        return is_finished(self.folder)


def read_own_overrides(arguments: Sequence[str]) -> list[str]:
    """Returns the overrides of a command line whose runs are placed by us.

    Args:
        arguments: Hydra's command line; ``--config-dir`` may stand in it.

    Raises:
        ValueError: If a switch or a key asks for what a sweep does itself.
    """
    asked = read_command_line(arguments)
    if asked.sweeps or asked.asks or asked.debug:
        raise ValueError("-m, --cfg, --info and --debug belong to `fleettune run`; leave them away")
    for override in asked.overrides:
        key = override.lstrip("+~").partition("=")[0]
        placed = key.startswith(("hydra.", "hydra/")) and key != "hydra.searchpath"
        if placed or key == "resume":
            raise ValueError(
                f"{key} must not be given here, where --into says where the runs are; leave it away"
            )
    return list(asked.overrides)


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Returns overrides as Hydra reads them; ``glob()`` finds the options of its group."""
    from hydra.core.global_hydra import GlobalHydra  # noqa: PLC0415

    with hydra.initialize_config_module("conf", version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        return OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))


def check_run(run: KeptRun) -> list[Experiment]:
    """Returns the experiments of a run after every check that `fleettune run` makes.

    Raises:
        ValueError: If it breaks a rule, or its folder holds a run of another time.
    """
    resumed = [f"resume={quote_path(run.folder)}"] if run.is_begun else []
    try:
        experiments = check_all([*run.overrides, *resumed], sweep=False)
    except (ValueError, HydraException) as error:
        told = " ".join(str(error).split())
        hint = "; choose another --into to begin anew" if resumed else ""
        raise ValueError(f"{told}{hint}") from error
    if any(one.engine.name == ENGINE_WITHOUT_CHECKPOINT for one in experiments):
        raise ValueError(
            "engine must keep checkpoints, and engine=flower keeps none; choose "
            "engine=inprocess or engine=ray"
        )
    return experiments


def list_missing_steps(run: KeptRun) -> list[str]:
    """Returns the command line that does what is missing of a run; an empty one if it is over.

    A run that was stopped before it could be resumed is taken away, and begun anew.
    """
    if finish_interrupted(run.folder) or run.is_over:
        if (run.folder / "summary.json").exists() and not (run.folder / "report.html").exists():
            write_report(run.folder)
        return []
    where = quote_path(run.folder)
    if run.is_begun:
        return [f"resume={where}"]
    if run.folder.exists():
        shutil.rmtree(run.folder)
    return [*run.overrides, f"hydra.run.dir={where}"]


@contextmanager
def hold_folder(folder: Path, mark: str) -> Generator[None]:
    """Makes a folder and keeps other commands out of it while the block runs.

    Args:
        folder: The folder of a sweep or search.
        mark: The file that tells it from any other folder.

    Raises:
        ValueError: If another command has it, or it holds something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / mark).exists() and any(folder.iterdir()):
        raise ValueError(
            f"--into must be a new folder or one that this command made before, got {folder}"
        )
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ValueError(f"{folder} is in use by another command; wait for its end") from error
    finally:
        os.close(handle)


def count_states(runs: Iterable[KeptRun]) -> str:
    """Returns in words how many runs are finished, stopped on their way, and not begun."""
    listed = list(runs)
    over = sum(run.is_over for run in listed)
    begun = sum(run.is_begun for run in listed) - over
    return f"{over} finished, {begun} to resume, {len(listed) - over - begun} to begin"
