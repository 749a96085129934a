"""A device profile from a user's own power log: fitted on two runs of three, tried on the third.

    rate  = least squares of time on work, through the origin, inverted
    power = least squares of energy on time, through the origin

Every third run of a phase is held out of both. A range runs from the least to the greatest value of
a single run, held out or not. Values are tier M: measured on that device by the log's owner.
`simulations.power_log` says what a log must hold.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.table import Table

from fleettune.backbone import read_shapes, resolve_folder
from fleettune.hardware import COEFFICIENTS, Coefficient, DeviceProfile, profile_to_json
from simulations.calibration.fits import Residual, max_error, mean_error, through_origin
from simulations.power_log import PowerLog, PowerRun

HELD_OUT_EVERY = 3
DIGITS = 4
"""Significant digits of a value in the profile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A coefficient that a log can determine.

    Attributes:
        name: The coefficient.
        unit: What it is: `power`, `power above idle`, or an amount per second: `gflop`, `gb`,
            `mbit`.
        sources: Groups of phases; the first group of which the log has any is fitted.
    """

    name: str
    unit: str
    sources: tuple[tuple[str, ...], ...]


_TABLE: Sequence[tuple[str, str, tuple[tuple[str, ...], ...]]] = (
    ("eff_train_gflops", "gflop", (("train",),)),
    ("eff_forward_gflops", "gflop", (("forward",), ("train",))),
    ("eff_backward_gflops", "gflop", (("backward",), ("train",))),
    ("eff_prefill_gops", "gflop", (("prefill",),)),
    ("bw_decode_gbs", "gb", (("decode",),)),
    ("flash_read_gbs", "gb", (("read",),)),
    ("wifi_down_mbps", "mbit", (("receive",),)),
    ("wifi_up_mbps", "mbit", (("send",),)),
    ("p_idle_w", "power", (("idle",),)),
    ("p_train_w", "power", (("train", "forward", "backward"),)),
    ("p_prefill_w", "power", (("prefill",),)),
    ("p_decode_w", "power", (("decode",),)),
    ("p_storage_w", "power", (("read",),)),
    ("wifi_rx_w", "power above idle", (("receive",),)),
    ("wifi_tx_w", "power above idle", (("send",),)),
)
TARGETS = tuple(
    Target(name=name, unit=unit, sources=sources)
    for name, unit, sources in _TABLE
    if name in COEFFICIENTS
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a log says of a device.

    Attributes:
        source: The log's name and its count of rows.
        coefficients: By name, in the order of a profile.
        residuals: Seconds and joules of the runs that were held out.
        absent: Coefficients of a profile that the log does not determine.
    """

    source: str
    coefficients: Mapping[str, Coefficient]
    residuals: tuple[Residual, ...]
    absent: tuple[str, ...]


def calibrate(log: PowerLog, bits_per_weight: float = 16.0) -> Calibration:
    """Returns the coefficients of a log's phases, and how they predict the runs held out.

    Tokens become work by the matrices alone: 2 FLOP per weight and pass, the head included where
    something trains; a decoded token reads every weight once. Attention, cache and adapters are
    left out, so a log with flop and bytes is the better one.

    Args:
        log: The runs.
        bits_per_weight: Stored size of a weight, for runs that decode tokens.

    Raises:
        ValueError: If a fit breaks a coefficient's rule, or a model cannot be read.
    """
    if not 0 < bits_per_weight < math.inf:
        raise ValueError(f"bits per weight must be finite and > 0, got {bits_per_weight}")
    amounts = {run.line: _amount(run, bits_per_weight) for run in log.runs}
    held_out = {run.line for phase in _phases(log.runs) for run in _third(log.runs, phase)}
    chosen = {target: runs for target in TARGETS if (runs := _runs_of(target, log.runs))}
    fits = _fits(log, chosen, amounts, held_out)
    residuals: list[Residual] = []
    for run in (run for run in log.runs if run.line in held_out):
        serving = [target for target in chosen if target.name in fits and run in chosen[target]]
        residuals += _residuals(run, amounts[run.line], fits, serving)
    return Calibration(
        source=f"{log.name}, {log.rows} rows",
        coefficients={name: fits[name] for name in COEFFICIENTS if name in fits},
        residuals=tuple(residuals),
        absent=tuple(name for name in COEFFICIENTS if name not in fits),
    )


def calibration_tables(calibration: Calibration) -> tuple[Table, Table]:
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


def profile_text(calibration: Calibration, name: str, like: DeviceProfile | None = None) -> str:
    """Returns the YAML text of a profile: a complete one with `like`, else with gaps as comments.

    Args:
        calibration: The coefficients.
        name: Name of the profile, also that of its file.
        like: A profile that fills what the log does not determine, tiers and sources kept.

    Raises:
        ValueError: If powers of `like` exclude the idle draw, which those of a log include.
    """
    if like is not None and like.power_scope == "net":
        raise ValueError(f"--like {like.name} states net power, the log that of the whole device")
    others: Mapping[str, object] = {} if like is None else profile_to_json(like)
    lines = [
        f"# Fitted from {calibration.source}.",
        "# Each coefficient: [value, low, high, tier, source]",
        "_target_: fleettune.hardware.device_profile",
        f"name: {name}",
        "power_scope: total",
    ]
    for coefficient in COEFFICIENTS:
        found = calibration.coefficients.get(coefficient)
        if found is not None:
            item: object = [found.value, found.low, found.high, found.tier, found.source]
        elif coefficient in others:
            item = others[coefficient]
        else:
            lines.append(f"# {coefficient}: not in the log, fill it in")
            continue
        lines.append(f"{coefficient}: {_inline(item)}")
    return "\n".join(lines) + "\n"


def _inline(item: object) -> str:
    text = yaml.safe_dump(item, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _phases(runs: Sequence[PowerRun]) -> list[str]:
    return list(dict.fromkeys(run.phase for run in runs))


def _third(runs: Sequence[PowerRun], phase: str) -> Sequence[PowerRun]:
    """Returns every third run of a phase."""
    return [run for run in runs if run.phase == phase][HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]


def _runs_of(target: Target, runs: Sequence[PowerRun]) -> list[PowerRun]:
    """Returns the runs of the first group of phases that occurs."""
    for group in target.sources:
        if found := [run for run in runs if run.phase in group]:
            return found
    return []


def _fits(
    log: PowerLog,
    chosen: Mapping[Target, Sequence[PowerRun]],
    amounts: Mapping[int, float],
    held_out: Collection[int],
) -> Mapping[str, Coefficient]:
    """Returns the coefficients by name; radio powers need the idle draw, so it comes first."""
    fits: dict[str, Coefficient] = {}
    for target, runs in sorted(chosen.items(), key=lambda item: item[0].name != "p_idle_w"):
        above_idle = target.unit == "power above idle"
        if above_idle and "p_idle_w" not in fits:
            continue
        idle_w = fits["p_idle_w"].value if above_idle else 0.0
        kept = [run for run in runs if run.line not in held_out]
        spread = [_fit(target, [run], amounts, idle_w) for run in runs]
        try:
            central = _fit(target, kept, amounts, idle_w)
            fits[target.name] = _rounded(central, spread, f"{log.name}, {log.rows} rows")
        except ValueError as error:
            raise ValueError(f"{log.name}: {target.name} {error}") from error
    return fits


def _fit(
    target: Target, runs: Sequence[PowerRun], amounts: Mapping[int, float], idle_w: float
) -> float:
    times = [run.time_s for run in runs]
    if target.unit.startswith("power"):
        return through_origin(times, [run.energy_j for run in runs]) - idle_w
    return 1 / through_origin([amounts[run.line] for run in runs], times)


def _amount(run: PowerRun, bits_per_weight: float) -> float:
    """Returns the work of a run in the unit of its rate: GFLOP, GB or Mbit; none when idle."""
    if run.phase in ("receive", "send"):
        return run.moved_bytes * 8e-6
    given = run.moved_bytes if run.phase in ("read", "decode") else run.flop
    if given or run.phase == "idle":
        return given / 1e9
    shapes = read_shapes(resolve_folder(run.model))
    weights = shapes.linear_parameters
    if run.phase != "prefill":
        weights += shapes.hidden * shapes.vocab
    per_weight = {"decode": bits_per_weight / 8, "train": 4.0}.get(run.phase, 2.0)
    return run.tokens * weights * per_weight / 1e9


def _rounded(central: float, spread: Sequence[float], source: str) -> Coefficient:
    """Returns a coefficient of so many digits; rounding keeps the order of its three numbers."""
    low, high = min(central, *spread), max(central, *spread)
    value, low, high = (float(f"{number:.{DIGITS}g}") for number in (central, low, high))
    return Coefficient(value=value, low=low, high=high, tier="M", source=source)


def _residuals(
    run: PowerRun, amount: float, fits: Mapping[str, Coefficient], serving: Sequence[Target]
) -> tuple[Residual, ...]:
    """Returns the seconds and joules of a run as its coefficients say; seconds only with a rate."""
    found: list[Residual] = []
    time_s = run.time_s
    rates = [target for target in serving if not target.unit.startswith("power")]
    powers = [target for target in serving if target.unit.startswith("power")]
    if rates:
        time_s = amount / fits[rates[0].name].value
        found.append(Residual(what=f"{run.phase}, s", measured=run.time_s, predicted=time_s))
    if powers:
        idle_w = fits["p_idle_w"].value if powers[0].unit == "power above idle" else 0.0
        joules = (fits[powers[0].name].value + idle_w) * time_s
        found.append(Residual(what=f"{run.phase}, J", measured=run.energy_j, predicted=joules))
    return tuple(found)


def save_profile(path: Path, text: str) -> None:
    """Writes a profile; refuses to overwrite one."""
    if path.exists():
        raise ValueError(f"{path} exists; choose another name or remove it")
    path.write_text(text, encoding="utf-8")
