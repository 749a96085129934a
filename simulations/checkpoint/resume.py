"""Continues an interrupted run where its checkpoint ends, as ``resume=RUN`` asks.

A run writes down the command line that began it. To resume it means to compose that again, with
whatever is given besides ``resume``, and to refuse if the configuration, the policies or the
versions are others than the run's: the rounds to come would not fit those that are there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fleettune.records import read_json
from fleettune.whole_files import write_whole
from simulations.checkpoint.inputs import find_changed, write_inputs
from simulations.checkpoint.versions import (
    check_format,
    read_own_file,
    read_versions,
    versions,
    write_versions,
)
from simulations.experiment.arms import read_choices

CHECKPOINT = "checkpoint"
"""Folder of a run that holds what a resumed run needs."""

STATE_FILE = f"{CHECKPOINT}/state.sqlite"
FREE_KEYS = frozenset({"resume", "engine.workers", "tracker"})
"""Keys that change no result, so that a resumed run may have others, with all below them."""

_COMMAND = f"{CHECKPOINT}/command.json"
_CONFIG = "config.yaml"
_FINISHED = ("summary.json", "study.json")
_PENDING = "summary.pending.json"
"""A summary that is whole, while the devices' texts are being deleted."""
_KEPT_OF_HYDRA = "hydra.searchpath"


def begin_run(
    cfg: DictConfig,
    overrides: Sequence[str],
    hydra: Sequence[str],
    folder: Path,
    parts: Sequence[DictConfig],
    installed: Iterable[str] = (),
) -> None:
    """Writes down how a run was begun.

    Args:
        cfg: Its configuration.
        overrides: What was given for it.
        hydra: What was given for Hydra itself.
        folder: The run's folder.
        parts: The configuration of each part of a study; itself for a plain run.
        installed: Dotted paths of the classes of the user's own policies.

    Raises:
        ValueError: If the folder holds a run already.
    """
    config = folder / _CONFIG
    command = folder / _COMMAND
    if config.exists():
        hint = "" if is_finished(folder) else f", or resume={folder} to continue it"
        raise ValueError(f"{folder} holds a run already; choose another hydra.run.dir{hint}")
    command.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        # the folder is the run's that makes this file: of two that begin at once, one is refused
        owned = command.open("x")
    except FileExistsError as error:
        raise ValueError(
            f"{folder} was taken by another run a moment ago; choose another hydra.run.dir"
        ) from error
    places = [given for given in hydra if given.partition("=")[0].endswith(_KEPT_OF_HYDRA)]
    with owned:
        owned.write(json.dumps([*places, *overrides]))
    write_versions(folder)
    write_inputs(folder, [_plain(part) for part in parts], installed)
    # last: a folder with a configuration can be resumed
    write_whole(config, OmegaConf.to_yaml(cfg, resolve=True).encode())


def delete_checkpoint(folder: Path) -> None:
    """Drops what only a resumed run would need, the devices' states with their texts among it."""
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)


def finish_run(folder: Path, summary: Mapping[str, Any]) -> None:
    """Marks a run as finished: its devices' texts go before its summary is there.

    Killed in between, `finish_interrupted` does the rest.
    """
    write_whole(folder / _PENDING, json.dumps(summary, indent=1).encode())
    finish_interrupted(folder)


def finish_interrupted(folder: Path) -> bool:
    """Ends a clean-up that was cut off, and returns whether there was one."""
    pending = folder / _PENDING
    if not pending.exists():
        return False
    delete_checkpoint(folder)
    pending.replace(folder / "summary.json")
    return True


def is_finished(folder: Path) -> bool:
    """Returns whether a folder holds a run or a study that is over."""
    return any((folder / name).exists() for name in _FINISHED)


def find_resumed(overrides: Sequence[str]) -> Path | None:
    """Returns the run that a command line resumes; None for a new run.

    Raises:
        ValueError: If it names several.
    """
    given = [override for override in overrides if _key(override) == "resume"]
    if not given:
        return None
    parsed = OverridesParser.create().parse_override(given[-1])
    if parsed.is_sweep_override():
        raise ValueError(f"resume must name one run, got {given[-1]}")
    value = parsed.value()
    return None if value is None else Path(str(value))


def restore_overrides(overrides: Sequence[str], *, sweep: bool) -> list[str]:
    """Returns all overrides that a command line with ``resume`` stands for, the run's own first.

    Raises:
        ValueError: If what it resumes is no run that can be resumed, or has other policies.
    """
    folder = find_resumed(overrides)
    if folder is None:
        return list(overrides)
    if sweep:
        raise ValueError("resume continues one run; leave -m away")
    own = _own(folder)
    keys = {_key(override) for override in overrides}
    if "hydra.run.dir" in keys:
        raise ValueError("hydra.run.dir must not be given with resume, which says where the run is")
    merged = [override for override in own if _key(override) not in keys] + list(overrides)
    before, now = read_choices(own), read_choices(merged)
    if before != now:
        raise ValueError(_differ(folder, _differences(before, now, "not chosen")))
    return [*merged, f"hydra.run.dir={quote_path(folder)}", "hydra.output_subdir=null"]


def quote_path(folder: Path) -> str:
    """Returns a folder's absolute path, quoted as the value of an override."""
    where = str(folder.resolve()).replace("'", r"\'")
    return f"'{where}'"


def check_unchanged(cfg: DictConfig, parts: Sequence[DictConfig]) -> None:
    """Checks that a resumed run's inputs, configuration and versions are what they were.

    Args:
        cfg: Its configuration.
        parts: That of each part of a study; itself for a plain run.

    Raises:
        ValueError: Naming everything that is not, settings and versions with both values.
    """
    if OmegaConf.select(cfg, "resume") is None:
        return
    folder = Path(str(cfg.resume))
    config: DictConfig = read_own_file(folder / _CONFIG, OmegaConf.create, DictConfig)
    before = _flat(OmegaConf.to_container(config))
    changed, moved = find_changed(folder, [_plain(part) for part in parts])
    # a file comes first: words of a lexicon stand in the configuration as well
    found = changed or [
        *_differences(before, _flat(_plain(cfg))),
        *_differences(read_versions(folder), versions()),
    ]
    if found or moved:
        raise ValueError(_differ(folder, found or moved))


def _plain(cfg: DictConfig) -> object:
    try:
        return OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ValueError(f"{error.full_key}: {str(error).splitlines()[0]}") from error


def _own(folder: Path) -> list[str]:
    """Returns the overrides that a run was begun with."""
    if not (folder / _CONFIG).exists():
        raise ValueError(f"resume must name the folder of a run, with its {_CONFIG}, got {folder}")
    if finish_interrupted(folder):
        raise ValueError(
            f"{folder} holds a complete run whose clean-up was cut off; that is done now, and "
            f"`fleettune report {folder}` writes its page"
        )
    if is_finished(folder):
        page = f"; `fleettune report {folder}` writes its page again"
        told = "" if (folder / "study.json").exists() else page
        raise ValueError(f"{folder} holds a finished run; there is nothing to resume{told}")
    check_format(folder)
    own = read_own_file(folder / _COMMAND, partial(read_json, where=_COMMAND), list)
    if not all(isinstance(one, str) for one in own):
        raise ValueError(f"{folder / _COMMAND} must be a list of overrides; start the run anew")
    return cast(list[str], own)


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _flat(value: Any, at: str = "") -> dict[str, Any]:  # noqa: ANN401 - any configuration
    """Returns a nested configuration by dotted keys."""
    if isinstance(value, list):
        value = {str(place): item for place, item in enumerate(cast(list[Any], value))}
    if not isinstance(value, dict) or not value:
        return {at: value}
    flat: dict[str, Any] = {}
    for key, item in cast(dict[str, Any], value).items():
        flat |= _flat(item, f"{at}.{key}" if at else str(key))
    return flat


def _differences(
    before: Mapping[str, Any], now: Mapping[str, Any], absent: str = "not there"
) -> list[str]:
    """Returns a phrase for every key whose values differ."""
    return [
        f"{key} is {before.get(key, absent)} in the run and {now.get(key, absent)} now"
        for key in sorted({*before, *now})
        if key not in FREE_KEYS
        and key.partition(".")[0] not in FREE_KEYS
        and before.get(key, _Absent) != now.get(key, _Absent)
    ]


class _Absent:
    """What no configuration holds."""


def _differ(folder: Path, differences: Sequence[str]) -> str:
    told = "; ".join(differences)
    return f"{folder} can only be resumed as it was begun ({_CONFIG} says how): {told}"
