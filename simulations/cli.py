"""The command ``fleettune``: init, run, sweep, search, report, compare, devices and more.

``python -m simulations`` is the same command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from rich.console import Console

TABLE_WIDTH = 150
"""Columns of a table whose output is piped: a pipe has no width of its own."""

RUN = "run"
OWN_SWITCHES = ("-h", "--help", "--version")
"""Switches that may stand before a command; all others are Hydra's and belong to a run."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 unfit for a run (doctor), 2 bad input."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and _is_of_a_run(arguments[0]):
        arguments.insert(0, RUN)
    if not arguments:
        _parser().print_help(sys.stderr)
        return 2
    if arguments[0] == RUN:
        # everything behind belongs to Hydra, options as well
        return _run(arguments[1:])
    try:
        if arguments[0] in _WITH_OVERRIDES:
            return _WITH_OVERRIDES[arguments[0]](arguments[1:])
        parsed = _parser().parse_args(arguments)
        return _COMMANDS[cast(str, parsed.command)](parsed)
    except KeyError as error:
        if arguments[0] in _WITH_OVERRIDES:
            raise  # a fault of ours in one of its runs
        _complain(f"a file of the run lacks {error}; was it written by another version?")
    except (ValueError, OSError) as error:
        _complain(str(error))
    return 2


def _is_of_a_run(first: str) -> bool:
    """Whether a command line that begins like this is a run without the word ``run``."""
    return "=" in first or (first.startswith(("-", "+", "~")) and first not in OWN_SWITCHES)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fleettune", description="Simulated fleets that personalise a small language model."
    )
    parser.add_argument("--version", action="version", version=f"fleettune {version('fleettune')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    init = commands.add_parser("init", help="write a folder with a first experiment of your own")
    init.add_argument("folder", type=Path, metavar="FOLDER", help="a new folder")
    for name, told in _WITH_OVERRIDES_HELP.items():
        commands.add_parser(name, help=told)
    report = commands.add_parser("report", help="write report.html of a run again")
    report.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    _compare_parser(commands.add_parser("compare", help="name the best setting of several runs"))
    devices = commands.add_parser(
        "devices", help="list device profiles: sources, pJ per FLOP of training"
    )
    devices.add_argument("names", nargs="*", metavar="NAME", help="profiles to list; all if none")
    calibrate = commands.add_parser("calibrate", help="make a device profile from your power log")
    calibrate.add_argument(
        "log", type=Path, metavar="LOG.csv", help="columns: time_s power_w phase [flop ...]"
    )
    calibrate.add_argument("--name", help="name of the profile; the log's by default")
    calibrate.add_argument("--like", help="a known profile that fills what the log lacks")
    calibrate.add_argument("--bits", type=float, default=16.0, help="bits per weight decoded (16)")
    calibrate.add_argument(
        "--into", type=Path, default=Path(), metavar="FOLDER", help="where NAME.yaml is written"
    )
    _patch_parsers(commands.add_parser)
    lexicon = commands.add_parser("lexicon", help="derive a lexicon from a labelled corpus")
    lexicon.add_argument("corpus", type=Path, metavar="CORPUS.jsonl", help="one object per line")
    lexicon.add_argument("--label", required=True, help="field of the label")
    lexicon.add_argument(
        "--text", required=True, action="append", help="field of the text; may be given again"
    )
    lexicon.add_argument("--words", type=int, default=40, help="words per label at most (40)")
    lexicon.add_argument("-o", dest="into", type=Path, required=True, metavar="FILE")
    doctor = commands.add_parser("doctor", help="say what this machine has of what a run needs")
    doctor.add_argument("--model", metavar="FOLDER", help="say whether model=hf can run this model")
    doctor.add_argument("--template", default="chatml", help="text around question and answer")
    doctor.add_argument("--max-tokens", type=int, default=256, help="longest example, in tokens")
    return parser


def _compare_parser(compare: argparse.ArgumentParser) -> None:
    compare.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="folders at or above finished runs"
    )
    compare.add_argument(
        "--budget", metavar="energy_j=J", help="ask for the best quality at or under J joules"
    )
    compare.add_argument(
        "--target", metavar="quality=Q", help="ask for the cheapest setting that reaches Q"
    )
    compare.add_argument(
        "--into", type=Path, metavar="FOLDER", help="write compare.html, .csv, .parquet, .md, .tex"
    )


def _patch_parsers(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the commands about patches of other libraries."""
    export = add_parser("export", help="write a patch as a PEFT LoRA folder")
    export.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    whose = export.add_mutually_exclusive_group(required=True)
    whose.add_argument("--device", type=int, help="number of the device, from 0")
    whose.add_argument("--fleet", action="store_true", help="the fleet patch instead")
    export.add_argument("--arm", help="whose patch, where several arms have one")
    export.add_argument(
        "--into", type=Path, metavar="FOLDER", help="where to write; adapter_DEVICE by default"
    )
    base = export.add_mutually_exclusive_group()
    base.add_argument(
        "--with-base", action="store_true", help="copy the release into the folder as well"
    )
    base.add_argument(
        "--merge", action="store_true", help="write the release with the patch in its weights"
    )
    read = add_parser("import", help="read a PEFT adapter as a device's patch")
    read.add_argument("adapter", type=Path, metavar="ADAPTER", help="folder of a PEFT LoRA")
    read.add_argument("--base", help="its release: folder or pocket; what it names by default")
    read.add_argument("--release", type=int, default=0, help="version of that release (0)")
    read.add_argument("--device", type=int, default=0, help="whose patch it becomes (0)")
    read.add_argument("--arm", default="imported", help="under which arm (imported)")
    read.add_argument(
        "--into", type=Path, required=True, metavar="FOLDER", help="folder for patches/ARM/DEVICE"
    )


def _run(arguments: list[str]) -> int:
    from simulations.engines.environment import set_environment  # noqa: PLC0415

    set_environment()
    from simulations.launch import launch  # noqa: PLC0415 - seconds of import

    return launch(arguments)


def _sweep(arguments: list[str]) -> int:
    from simulations.engines.environment import set_environment  # noqa: PLC0415

    set_environment()
    from simulations.sweeps.sweep_command import sweep  # noqa: PLC0415 - seconds of import

    return sweep(arguments)


def _search(arguments: list[str]) -> int:
    from simulations.engines.environment import set_environment  # noqa: PLC0415

    set_environment()
    if find_spec("optuna") is None:
        raise ValueError(
            "search needs Optuna, which is not installed; pip install 'fleettune[search]'"
        )
    from simulations.sweeps.search_command import search  # noqa: PLC0415 - seconds of import

    return search(arguments)


def _init(parsed: argparse.Namespace) -> int:
    from simulations.starter.folder import write_starter  # noqa: PLC0415

    folder = write_starter(cast(Path, parsed.folder))
    told = [
        f"written to {folder}; run it with",
        f"  cd {folder}",
        "  PYTHONPATH=. fleettune run --config-dir conf +experiment=mine",
    ]
    _console().print("\n".join(told), soft_wrap=True, highlight=False, markup=False)
    return 0


def _report(parsed: argparse.Namespace) -> int:
    from simulations.checkpoint.resume import finish_interrupted  # noqa: PLC0415
    from simulations.report.run_page import write_report  # noqa: PLC0415

    run = cast(Path, parsed.run)
    finish_interrupted(run)
    page = write_report(run)
    _console().print(str(page.resolve()), soft_wrap=True, highlight=False, markup=False)
    return 0


def _compare(parsed: argparse.Namespace) -> int:
    from simulations.comparison.command import compare  # noqa: PLC0415 - seconds of import

    limits = cast(str | None, parsed.budget), cast(str | None, parsed.target)
    compare(cast(list[Path], parsed.runs), *limits, cast(Path | None, parsed.into), _console())
    return 0


def _devices(parsed: argparse.Namespace) -> int:
    from fleettune.cost.hardware import load_hardware  # noqa: PLC0415
    from simulations.report.terminal_tables import (  # noqa: PLC0415
        make_devices_table,
        make_training_table,
    )

    known = load_hardware(Path(str(files("conf") / "hardware")))
    names = cast(list[str], parsed.names) or list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        told = f"got {', '.join(unknown)}"
        raise ValueError(f"a device profile must be one of {', '.join(sorted(known))}; {told}")
    profiles = [known[name] for name in dict.fromkeys(names)]
    for table in (make_devices_table(profiles), make_training_table(profiles)):
        _console().print(table)
    return 0


def _calibrate(parsed: argparse.Namespace) -> int:
    from fleettune.cost.hardware import load_hardware  # noqa: PLC0415
    from simulations.calibration import profile_file as calibrated  # noqa: PLC0415
    from simulations.calibration.fit_profile import calibrate  # noqa: PLC0415
    from simulations.calibration.power_log import read_power_log  # noqa: PLC0415

    known = load_hardware(Path(str(files("conf") / "hardware")))
    if parsed.like is not None and parsed.like not in known:
        raise ValueError(f"--like must be one of {', '.join(known)}, got {parsed.like!r}")
    log = cast(Path, parsed.log)
    found = calibrate(read_power_log(log), cast(float, parsed.bits))
    name = cast(str, parsed.name or log.stem)
    target = cast(Path, parsed.into) / f"{name}.yaml"
    like = None if parsed.like is None else known[cast(str, parsed.like)]
    calibrated.save_profile(target, calibrated.format_profile(found, name, like))
    console = _console()
    console.print(*calibrated.tabulate_calibration(found), sep="\n")
    told = f"taken from {parsed.like}" if like else "to be filled in from elsewhere"
    console.print(f"{told}: {', '.join(found.absent) or 'nothing'}", highlight=False)
    console.print(str(target.resolve()), soft_wrap=True, highlight=False, markup=False)
    return 0


def _export(parsed: argparse.Namespace) -> int:
    from simulations.engines.environment import set_environment  # noqa: PLC0415

    set_environment()
    from simulations.adapter_formats.peft import (  # noqa: PLC0415
        export_merged,
        export_with_base,
        read_fleet_patch,
        read_patch,
    )

    run, arm = cast(Path, parsed.run), cast(str | None, parsed.arm)
    if parsed.fleet:
        kept, name = read_fleet_patch(run, arm), "adapter_fleet"
    else:
        device = cast(int, parsed.device)
        kept, name = read_patch(run, device, arm), f"adapter_{device}"
    into = cast(Path | None, parsed.into) or Path(name)
    if parsed.merge:
        export_merged(kept, into)
    else:
        export_with_base(kept, into, with_base=cast(bool, parsed.with_base))
    _console().print(str(into.resolve()), soft_wrap=True, highlight=False, markup=False)
    return 0


def _import(parsed: argparse.Namespace) -> int:
    from simulations.adapter_formats.peft import import_peft, save_patch  # noqa: PLC0415

    base = cast(str | None, parsed.base)
    found = import_peft(cast(Path, parsed.adapter), cast(int, parsed.release), base)
    into, arm = cast(Path, parsed.into), cast(str, parsed.arm)
    file = save_patch(found, arm, cast(int, parsed.device), into)
    _console().print(str(file.resolve()), soft_wrap=True, highlight=False, markup=False)
    return 0


def _lexicon(parsed: argparse.Namespace) -> int:
    from simulations.experiment.lexicons import write_lexicons  # noqa: PLC0415

    into, texts = cast(Path, parsed.into), cast(list[str], parsed.text)
    write_lexicons(
        cast(Path, parsed.corpus), cast(str, parsed.label), texts, cast(int, parsed.words), into
    )
    _console().print(str(into.resolve()), soft_wrap=True, highlight=False, markup=False)
    return 0


def _doctor(asked: argparse.Namespace) -> int:
    from simulations.doctor import examine, examine_model, tabulate_findings  # noqa: PLC0415

    if asked.model is not None:
        found = examine_model(asked.model, asked.template, asked.max_tokens)
        _console().print(tabulate_findings(found))
        return 0

    findings = examine()
    _console().print(tabulate_findings(findings))
    faults = [finding.what for finding in findings if finding.is_fault]
    if faults:
        _complain(f"required and missing: {', '.join(faults)}")
    return 1 if faults else 0


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)


def _complain(sentence: str) -> None:
    console = Console(stderr=True)
    console.print("[bold red]error[/]:", end=" ")
    console.print(sentence, soft_wrap=True, highlight=False, markup=False)


_WITH_OVERRIDES_HELP = {
    RUN: "run a simulation: key=value ... (Hydra)",
    "sweep": "run a grid of values; the same command again goes on",
    "search": "search settings for high quality and few joules (Optuna)",
}
_WITH_OVERRIDES: Mapping[str, Callable[[list[str]], int]] = {
    "sweep": _sweep,
    "search": _search,
}
_COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "init": _init,
    "report": _report,
    "compare": _compare,
    "devices": _devices,
    "calibrate": _calibrate,
    "export": _export,
    "import": _import,
    "lexicon": _lexicon,
    "doctor": _doctor,
}


if __name__ == "__main__":
    sys.exit(main())
