"""The command ``fleettune search``."""

from __future__ import annotations

import argparse
import json
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import polars as pl
import yaml
from rich.console import Console

from fleettune.records import read_json
from fleettune.whole_files import write_whole
from simulations.report.terminal_tables import make_table
from simulations.sweeps.grid import digest_lines
from simulations.sweeps.kept_runs import check_run, hold_folder, read_own_overrides
from simulations.sweeps.search import Search, Trial, list_trials, search_front
from simulations.sweeps.search_space import Space, format_point, read_space
from simulations.sweeps.trials import RunTrials

SEARCH_FILE = "search.json"
"""File of a search's folder: what is searched, and how."""

STUDY_FILE = "search.sqlite"
FRONT_FILE = "front.csv"
WIDTH = 80

_EPILOG = """\
Optuna looks for settings with high quality and few joules. Ranges are written
as Hydra writes them: a,b  choice(a,b)  range(24,97,24)  interval(0.1,0.9)
int(interval(1,5))  tag(log,interval(1e-4,1e-2)). FILE.yaml holds lines
`key: value`.
The same command again goes on; more --trials go further.

Example:
  fleettune search adaptation=edgetune 'tuning.steps_first=range(24,97,24)' \\
      'tuning.steps_again=range(12,49,12)' --trials 12
"""


def make_search_parser() -> argparse.ArgumentParser:
    """Returns the parser of what is the search's own; all else on its line is Hydra's."""
    parser = argparse.ArgumentParser(
        prog="fleettune search",
        usage="fleettune search [FILE.yaml] key=a,b ... [--trials N] [--into FOLDER]",
        description="Searches settings for high quality and few joules.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--into", type=Path, metavar="FOLDER", help="outputs/search/DIGEST OF ALL THIS by default"
    )
    parser.add_argument("--trials", type=int, default=30, metavar="N", help="in all (30)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the sampler (0)")
    parser.add_argument("--arm", help="whose quality and joules; the one beside the reference")
    parser.add_argument(
        "--first-rounds",
        type=int,
        metavar="N",
        help="try N rounds first; stop a trial that a finished one beats by 5 %% in both",
    )
    return parser


def search(arguments: Sequence[str]) -> int:
    """Searches on to the number of trials and shows the Pareto front; returns 0, or 2 if stopped.

    Raises:
        ValueError: If the command line or the space breaks a rule; nothing runs then.
    """
    own, others = make_search_parser().parse_known_args(arguments)
    for name, least in (("trials", 1), ("seed", 0)):
        if getattr(own, name) < least:
            raise ValueError(f"--{name} must be at least {least}, got {getattr(own, name)}")
    overrides = read_own_overrides(expand_files(others))
    shared, space = read_space(overrides)
    asked = {
        "overrides": sorted(overrides),
        **{name: getattr(own, name) for name in ("seed", "arm", "first_rounds")},
    }
    digest = digest_lines([json.dumps(asked)])
    folder = cast("Path | None", own.into) or Path("outputs") / "search" / digest
    console = Console(soft_wrap=True, highlight=False, markup=False)
    trials = RunTrials(
        folder=folder,
        shared=tuple(shared),
        arm=own.arm,
        first_rounds=own.first_rounds,
        console=console,
    )
    how = Search(trials=own.trials, seed=own.seed, prunes=own.first_rounds is not None)
    with hold_folder(folder, SEARCH_FILE):
        trials.check_space(space)
        _keep(folder, asked)
        return _search(trials, space, how)


def expand_files(arguments: Sequence[str]) -> list[str]:
    """Returns arguments with every ``FILE.yaml`` replaced by its lines as overrides.

    Raises:
        ValueError: If a file is not a mapping of keys to single values.
    """
    expanded: list[str] = []
    for argument in arguments:
        if "=" in argument or not argument.endswith((".yaml", ".yml")):
            expanded.append(argument)
            continue
        try:
            read: object = yaml.safe_load(Path(argument).read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"{argument} must be YAML: {' '.join(str(error).split())}") from error
        lines = cast("dict[str, object]", read) if isinstance(read, dict) else None
        if not lines or any(isinstance(value, list | dict) for value in lines.values()):
            raise ValueError(
                f"{argument} must hold lines `key: value`, several values as choice(a,b) or "
                "range(1,5)"
            )
        expanded += [f"{key}={_plain(value)}" for key, value in lines.items()]
    return expanded


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _keep(folder: Path, asked: Mapping[str, Any]) -> None:
    """Writes down what is searched; ValueError if the folder's search is another one."""
    file = folder / SEARCH_FILE
    if not file.exists():
        write_whole(file, json.dumps(asked, indent=1).encode())
        return
    before: Mapping[str, Any] = read_json(file.read_bytes(), SEARCH_FILE)
    for name, value in asked.items():
        if before.get(name) != value:
            raise ValueError(
                f"{folder} holds another search, whose {name} is {before.get(name)} and not "
                f"{value}; choose another --into"
            )


def _search(trials: RunTrials, space: Space, how: Search) -> int:
    file = trials.folder / STUDY_FILE
    for tried in list_trials(file):
        for is_short in (True, False):
            run = trials.run_of(tried.number, tried.params, is_short=is_short)
            if run.is_begun:
                check_run(run)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        front = search_front(file, space, trials, how)
    except (KeyboardInterrupt, SystemExit):
        trials.console.print("The search was stopped; the same command goes on with it.")
        return 2
    states = Counter(one.state.name.lower() for one in list_trials(file))
    told = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    trials.console.print(f"{states.total()} trials: {told}")
    if not front:
        raise ValueError("no trial was a run; look at the sentences above and narrow the space")
    return _show(trials, front)


def _show(trials: RunTrials, front: Sequence[Trial]) -> int:
    """Writes the front as a file and prints it as a table."""
    file = trials.folder / FRONT_FILE
    scores = [{"quality": one.score.quality, "energy_j": one.score.energy_j} for one in front]
    pl.DataFrame(
        [
            {"trial": one.number, **score, **one.values}
            for one, score in zip(front, scores, strict=True)
        ]
    ).write_csv(file)
    table = make_table(
        [
            {
                "trial": str(one.number),
                "quality": f"{one.score.quality:.3f}",
                "simulated kJ": f"{one.score.energy_j / 1e3:,.1f}",
                "settings": "\n".join(format_point(one.values)),
            }
            for one in front
        ],
        "Pareto front: no trial has both more quality and fewer joules. Means of one run each.",
        width=WIDTH,
    )
    Console(width=WIDTH).print(table)
    trials.console.print(f"Front: {file}\nRuns: {trials.folder}/TRIAL")
    return 0
