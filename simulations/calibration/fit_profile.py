"""Fits a device profile to a user's own power log: on two runs of three, tried on the third.

    rate  = least squares of time on work, through the origin, inverted
    power = least squares of energy on time, through the origin

Every third run of a phase is held out of both. A range runs from the least to the greatest value of
a single run, held out or not. Values are tier M: measured on that device by the log's owner. The
throughput of whole training steps stands for both passes; log them apart to tell them apart.
`simulations.calibration.power_log` says what a log must hold.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from statistics import mean

from fleettune.backbone.causal_lm import read_shapes, resolve_folder
from fleettune.cost.hardware import COEFFICIENTS, Coefficient
from simulations.calibration.power_log import PowerLog, PowerRun

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


BACKWARD = "backward_gflops"
"""Throughput of the backward pass; a profile states it over that of the forward pass."""

_TABLE: Sequence[tuple[str, str, tuple[tuple[str, ...], ...]]] = (
    ("eff_forward_gflops", "gflop", (("forward",), ("train",))),
    (BACKWARD, "gflop", (("backward",),)),
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
TARGETS = tuple(Target(name=name, unit=unit, sources=sources) for name, unit, sources in _TABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """A measured value and what a fit says of it, in one unit."""

    what: str
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """Returns predicted over measured, less one; infinite where nothing was measured."""
        return self.predicted / self.measured - 1 if self.measured else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedProfile:
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


def calibrate(log: PowerLog, bits_per_weight: float = 16.0) -> FittedProfile:
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
    source = f"{log.name}, {log.rows} rows"
    phases = {run.phase for run in log.runs}
    known = {**fits, **_backward_ratio(fits, phases, source)}
    return FittedProfile(
        source=source,
        coefficients={name: known[name] for name in COEFFICIENTS if name in known},
        residuals=tuple(residuals),
        absent=tuple(name for name in COEFFICIENTS if name not in known),
    )


def mean_error(residuals: Iterable[Residual]) -> float:
    """Returns the mean of the absolute relative errors."""
    return mean(abs(residual.error) for residual in residuals)


def max_error(residuals: Iterable[Residual]) -> float:
    """Returns the largest absolute relative error."""
    return max(abs(residual.error) for residual in residuals)


def fit_through_origin(x: Sequence[float], y: Sequence[float]) -> float:
    """Returns the slope of the line through the origin with the least squares of y on x.

    Raises:
        ValueError: If all x are 0, or too small or too large to be squared.
    """
    squares = math.fsum(map(mul, x, x))
    if not 0 < squares < math.inf:
        raise ValueError(f"needs amounts and seconds that can be squared, got {max(x)}")
    return math.fsum(map(mul, x, y)) / squares


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
        try:
            spread = [_fit(target, [run], amounts, idle_w) for run in runs]
            central = _fit(target, kept, amounts, idle_w)
            fits[target.name] = _rounded(central, spread, f"{log.name}, {log.rows} rows")
        except ValueError as error:
            raise ValueError(f"{log.name}: {target.name} {error}") from error
    return fits


def _backward_ratio(
    fits: Mapping[str, Coefficient], phases: Collection[str], source: str
) -> Mapping[str, Coefficient]:
    """Returns backward over forward throughput, where both or whole steps were timed.

    Whole steps do not tell one pass from the other: both get the rate of the step, so the ratio is
    one by convention, and an estimate.
    """
    if "forward" in phases and BACKWARD in fits:
        forward, backward = fits["eff_forward_gflops"], fits[BACKWARD]
        ratios = (
            backward.value / forward.value,
            backward.low / forward.high,
            backward.high / forward.low,
        )
        return {"backward_ratio": _rounded(ratios[0], ratios[1:], source)}
    if "forward" not in phases and "train" in phases:
        told = f"convention: whole steps were timed, both passes at their rate ({source})"
        one = Coefficient(value=1.0, low=1.0, high=1.0, tier="E", source=told)
        return {"backward_ratio": one}
    return {}


def _fit(
    target: Target, runs: Sequence[PowerRun], amounts: Mapping[int, float], idle_w: float
) -> float:
    times = [run.time_s for run in runs]
    if target.unit.startswith("power"):
        return fit_through_origin(times, [run.energy_j for run in runs]) - idle_w
    slope = fit_through_origin([amounts[run.line] for run in runs], times)
    return 1 / slope if slope else math.inf


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
