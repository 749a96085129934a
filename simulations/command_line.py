"""Hydra's command line, read as Hydra reads it, before anything is composed.

What Hydra documents works or is refused by name: its switches are parsed by its own parser, a
``--config-dir`` becomes the search path that a resumed run finds again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEBUG = "--debug"
_REFUSED = {
    "config_path": "--config-path replaces the whole configuration; add yours with --config-dir",
    "config_name": "--config-name names another configuration; add options with --config-dir",
    "experimental_rerun": "--experimental-rerun reads a pickle; use resume=RUN",
    "package": "--package shows a part of --cfg only; leave it away",
}
_QUESTIONS = ("help", "hydra_help", "version", "cfg", "info", "shell_completion")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """What a command line asks for.

    Attributes:
        arguments: All of it as Hydra is given it, switches first.
        overrides: What is not a switch.
        sweeps: True with ``-m``.
        asks: True if it is a question to Hydra that runs nothing.
        debug: True if a traceback is wanted.
    """

    arguments: tuple[str, ...]
    overrides: tuple[str, ...]
    sweeps: bool
    asks: bool
    debug: bool


def read_command_line(arguments: Sequence[str]) -> CommandLine:
    """Returns what a command line asks for.

    Raises:
        ValueError: If a switch is refused, naming it and what to use.
    """
    from hydra._internal.utils import get_args_parser  # noqa: PLC0415 - seconds of import

    plain = [argument for argument in arguments if argument != DEBUG]
    asked: Any = get_args_parser().parse_intermixed_args(plain)
    for name, told in _REFUSED.items():
        if getattr(asked, name, None) is not None and not (name == "package" and asked.cfg):
            raise ValueError(told)
    overrides = list(asked.overrides)
    switches = _without_config_dir([one for one in plain if one not in asked.overrides])
    if asked.config_dir is not None:
        overrides.append(_search_path(asked.config_dir, overrides))
    return CommandLine(
        arguments=(*switches, *overrides),  # Hydra wants its switches together
        overrides=tuple(overrides),
        sweeps=bool(asked.multirun),
        asks=any(getattr(asked, name, None) for name in _QUESTIONS),
        debug=DEBUG in arguments,
    )


def _search_path(folder: str, overrides: Sequence[str]) -> str:
    if not Path(folder).is_dir():
        raise ValueError(f"--config-dir must name a folder, got {folder!r}")
    if any(override.lstrip("+").startswith("hydra.searchpath=") for override in overrides):
        raise ValueError("--config-dir and hydra.searchpath both add configuration; give one")
    where = str(Path(folder).resolve()).replace("'", r"\'")
    return f"hydra.searchpath=['file://{where}']"


def _without_config_dir(arguments: Sequence[str]) -> list[str]:
    kept: list[str] = []
    skips = False
    for argument in arguments:
        if skips:
            skips = False
        elif argument in ("--config-dir", "-cd"):
            skips = True
        elif not argument.startswith(("--config-dir=", "-cd=")):
            kept.append(argument)
    return kept
