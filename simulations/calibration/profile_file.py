"""Shows a calibration as two tables and writes it as the file of a device profile."""

from __future__ import annotations

from pathlib import Path

import yaml
from rich.table import Table

from fleettune.cost.hardware import COEFFICIENTS, DeviceProfile
from simulations.calibration.fit_profile import HELD_OUT_EVERY, FittedProfile, max_error, mean_error


def tabulate_calibration(calibration: FittedProfile) -> tuple[Table, Table]:
    """Returns the coefficients with their ranges, and the errors on runs that were held out."""
    fitted = Table(title=f"Fitted from {calibration.source}")
    fitted.add_column("coefficient", no_wrap=True)
    for heading in ("value", "range of single runs"):
        fitted.add_column(heading, justify="right", no_wrap=True)
    for name, found in calibration.coefficients.items():
        fitted.add_row(name, f"{found.value:g}", f"{found.low:g} to {found.high:g}")
    tried = Table(title=f"Every run whose number is a multiple of {HELD_OUT_EVERY}, held out")
    tried.add_column("of", no_wrap=True)
    for heading in ("runs", "mean error", "worst"):
        tried.add_column(heading, justify="right", no_wrap=True)
    for what in dict.fromkeys(residual.what for residual in calibration.residuals):
        found = [residual for residual in calibration.residuals if residual.what == what]
        errors = (f"{mean_error(found):.1%}", f"{max_error(found):.1%}")
        tried.add_row(what, str(len(found)), *errors)
    return fitted, tried


def format_profile(calibration: FittedProfile, name: str, like: DeviceProfile | None = None) -> str:
    """Returns the YAML text of a profile: a complete one with `like`, else with gaps as comments.

    Args:
        calibration: The coefficients.
        name: Name of the profile, also that of its file.
        like: A profile that fills what the log does not determine, tiers and sources kept.

    Raises:
        ValueError: If powers of `like` exclude the idle draw, which those of a log include.
    """
    if like is not None and not like.idle_included:
        raise ValueError(f"--like {like.name} states net power, the log that of the whole device")
    lines = [
        f"# Fitted from {calibration.source}.",
        "# Each coefficient: [value, low, high, tier, source]",
        "_target_: fleettune.cost.device_profile",
        f"name: {name}",
        f"runtime: {_inline(_runtime(calibration, like))}",
        "power_scope: total",
    ]
    for coefficient in COEFFICIENTS:
        found = calibration.coefficients.get(coefficient)
        if found is None and like is None:
            lines.append(f"# {coefficient}: not in the log, fill it in")
            continue
        found = found or getattr(like, coefficient)
        item = found and [found.value, found.low, found.high, found.tier, found.source]
        lines.append(f"{coefficient}: {_inline(item)}")
    return "\n".join(lines) + "\n"


def save_profile(path: Path, text: str) -> None:
    """Writes a profile; refuses to overwrite one."""
    if path.exists():
        raise ValueError(f"{path} exists; choose another name or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _runtime(calibration: FittedProfile, like: DeviceProfile | None) -> str:
    ran = f"what ran in {calibration.source}"
    return ran if like is None else f"{ran}; what it lacks, as {like.name}: {like.runtime}"


def _inline(item: object) -> str:
    text = yaml.safe_dump(item, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()
