"""Examines what this machine has of what a run needs, and of what it may use besides."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import cast

import yaml
from rich.table import Table

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Processor features that the matrix library makes use of, as Linux names them."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

_ROOT = Path(__file__).parent.parent
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)[^;]*(;.*\bextra\b)?")
_PIN = re.compile(r"([A-Za-z0-9._-]+)==(\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        what: Its name.
        found: What was found, in words.
        is_fault: True if nothing runs without it.
    """

    what: str
    found: str
    is_fault: bool = False


def examine() -> list[Finding]:
    """Returns all findings, required things first."""
    return [*_packages(), *_machine(), *_optional()]


def tabulate_findings(findings: list[Finding]) -> Table:
    """Returns the findings as a table for the terminal."""
    table = Table(title="What this machine has")
    for heading in ("what", "found"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        table.add_row(finding.what, finding.found, style="bold red" if finding.is_fault else None)
    return table


def list_required(distribution: str = "fleettune") -> list[str]:
    """Returns the names of the packages that a distribution cannot do without.

    Raises:
        PackageNotFoundError: If the distribution itself is not installed.
    """
    found: list[str] = []
    for line in importlib.metadata.requires(distribution) or []:
        matched = _REQUIREMENT.match(line)
        if matched and not matched[2]:
            found.append(_normal(matched[1]))
    return sorted(found)


def _packages() -> Iterator[Finding]:
    yield Finding(what="Python", found=platform.python_version())
    try:
        names = list_required()
    except importlib.metadata.PackageNotFoundError:
        fault = "missing: install it with `make .venv/.ready` or `pip install -e .`"
        yield Finding(what="fleettune", found=fault, is_fault=True)
        return
    pins = _pins(_ROOT / "constraints.txt")
    for name in names:
        yield _package(name, pins.get(name))


def _package(name: str, pinned: str | None) -> Finding:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        fault = "missing: install it with `make .venv/.ready` or `pip install -e .`"
        return Finding(what=name, found=fault, is_fault=True)
    # a build tag such as +cpu does not make another version
    if pinned is None or version.partition("+")[0] == pinned:
        return Finding(what=name, found=version)
    return Finding(what=name, found=f"{version}; constraints.txt was tested with {pinned}")


def examine_model(path: str, template: str, max_tokens: int) -> list[Finding]:
    """Returns what a check of a user's model found.

    Raises:
        ValueError: If the model cannot run here, in one sentence.
    """
    from fleettune.backbone.causal_lm import resolve_folder  # noqa: PLC0415 - seconds of import
    from fleettune.cohort.model_check import check_model  # noqa: PLC0415 - as above

    checked = check_model(resolve_folder(path), template, max_tokens)
    shapes = checked.shapes
    return [
        Finding(what="family", found=checked.family),
        Finding(what="layers", found=f"{shapes.layers} of width {shapes.hidden}"),
        Finding(what="parameters", found=f"{shapes.parameters / 1e6:,.1f} million"),
        Finding(
            what="logits",
            found=f"as transformers' own to {checked.difference:.0e} of the largest, over "
            f"{checked.layers} layers and {checked.tokens} tokens",
        ),
        Finding(what="runs with", found=f"model=hf model.path={path} model.template={template}"),
    ]


def _pins(file: Path) -> Mapping[str, str]:
    if not file.is_file():
        return {}
    pairs = (_PIN.fullmatch(line.strip()) for line in file.read_text().splitlines())
    return {_normal(pair[1]): pair[2] for pair in pairs if pair}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _machine() -> Iterator[Finding]:
    yield Finding(what="cores", found=str(os.cpu_count() or "unknown"))
    yield Finding(what="free memory", found=_free_memory(Path("/proc/meminfo")))
    yield Finding(what="processor", found=_flags(Path("/proc/cpuinfo")))


def _free_memory(file: Path) -> str:
    text = file.read_text() if file.is_file() else ""
    matched = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return f"{int(matched[1]) * 1024 / 1e9:.1f} GB" if matched else "unknown on this system"


def _flags(file: Path) -> str:
    text = file.read_text() if file.is_file() else ""
    matched = re.search(r"^flags\s*:\s*(.*)$", text, re.MULTILINE)
    if not matched:
        return "features unknown on this system"
    present = set(matched[1].split())
    return ", ".join(f"{flag} {'yes' if flag in present else 'no'}" for flag in FLAGS)


def _optional() -> Iterator[Finding]:
    pocket = Path(str(files("fleettune") / "models" / "pocket"))
    yield _folder("pocket model", pocket, "`make pocket` trains it")
    settings = yaml.safe_load((files("conf") / "model" / "smollm2_135m.yaml").read_text())
    smollm2 = Path(cast(str, settings["path"]))
    yield _folder("SmolLM2-135M", smollm2, "`make smollm2` fetches it")
    data = os.environ.get("FLEETTUNE_DATA")
    if not data:
        found = "not set: tests on real data are skipped"
    else:
        found = data if Path(data).is_dir() else f"{data} is no folder"
    yield Finding(what="FLEETTUNE_DATA", found=found)
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    absent = "not found: the test that draws a report in a browser is skipped"
    yield Finding(what="chromium", found=browser or absent)


def _folder(what: str, folder: Path, remedy: str) -> Finding:
    is_there = (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
    return Finding(what=what, found=str(folder) if is_there else f"not in {folder}: {remedy}")
