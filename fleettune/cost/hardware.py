"""Hardware: device profiles whose every coefficient carries a range, a tier and a source.

Tiers say where a number comes from: M measured on that device by its source, F fitted from such
measurements, S measured by others and quoted second-hand, V vendor table or datasheet, E estimate.
No number here was measured by this project.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

import yaml

TIERS = ("M", "F", "S", "V", "E")
"""Tiers of a coefficient, from the best founded to the least."""
MEASURED = ("M", "F")
"""Tiers that rest on a measurement of that device."""
_MOST_BYTES, _MOST_BRACKETS = 16_384, 400
"""Of a profile's file: many times ours; YAML takes time as the square of its open brackets."""
_UNREADABLE = (
    *(yaml.YAMLError, ValueError, RecursionError),
    # what PyYAML raises at "!!timestamp x", "!!bool x" and "!!int ''"
    *(AttributeError, KeyError, IndexError, TypeError),
)
POWER_SCOPES = ("total", "net", "unknown")
"""Whether phase powers include the idle draw; `unknown` sources are read as `total`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficient:
    """One number of a device: its value, the range it may lie in, and where it comes from."""

    value: float
    low: float
    high: float
    tier: str
    source: str

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.value <= self.high < math.inf:
            raise ValueError(
                "must be finite with 0 < low <= value <= high, got "
                f"value {self.value}, low {self.low}, high {self.high}"
            )
        if self.tier not in TIERS:
            raise ValueError(f"tier must be one of {', '.join(TIERS)}, got {self.tier!r}")
        if not self.source:
            raise ValueError("source must not be empty, got ''")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """One device model and what runs on it, as far as costs depend on them.

    Attributes:
        name: Short name, also the name of its configuration file.
        runtime: What runs, in words: the same chip differs tenfold between two engines.
        power_scope: Whether the phase powers below include the idle draw.
        eff_forward_gflops: Effective throughput of the forward pass of training: counted GFLOP over
            wall time, per s.
        backward_ratio: Throughput of the backward pass over that of the forward pass.
        eff_prefill_gops: Effective throughput while reading a prompt, GFLOP per s.
        bw_decode_gbs: Effective memory bandwidth, GB per s.
        flash_read_gbs: Rate of large reads from storage, GB per s.
        flash_write_gbs: Rate of large writes to storage, GB per s.
        p_train_w: Power while training.
        p_prefill_w: Power while reading a prompt or embedding text.
        p_decode_w: Power while writing tokens.
        p_storage_w: Power while reading from or writing to storage.
        p_idle_w: Power of the device when it does nothing.
        battery_wh: Capacity of the battery; None for a device on mains.
        p_charge_w: Power that the charger gives the device; None for a device on mains.
        charger_efficiency: Device energy over wall energy.
        ram_gb: Physical memory.
        usable_ram: Share of it that a background job may take.
        wifi_rx_w: Power of the radio above idle while it receives.
        wifi_tx_w: Power of the radio above idle while it sends.
        wifi_down_mbps: Rate of the link towards the device, Mbit per s.
        wifi_up_mbps: Rate of the link from the device, Mbit per s.
        r_th_k_per_w: Thermal resistance from the chip to the surroundings, K per W.
        tau_s: Time constant of its heating.
        t_cap_c: Temperature from which it throttles, in degrees Celsius.
        eta_min: Lowest share of full speed under throttling.
        t_ambient_c: Temperature of the surroundings, in degrees Celsius.
    """

    name: str
    runtime: str
    power_scope: str
    eff_forward_gflops: Coefficient
    backward_ratio: Coefficient
    eff_prefill_gops: Coefficient
    bw_decode_gbs: Coefficient
    flash_read_gbs: Coefficient
    flash_write_gbs: Coefficient
    p_train_w: Coefficient
    p_prefill_w: Coefficient
    p_decode_w: Coefficient
    p_storage_w: Coefficient
    p_idle_w: Coefficient
    battery_wh: Coefficient | None
    p_charge_w: Coefficient | None
    charger_efficiency: Coefficient
    ram_gb: Coefficient
    usable_ram: Coefficient
    wifi_rx_w: Coefficient
    wifi_tx_w: Coefficient
    wifi_down_mbps: Coefficient
    wifi_up_mbps: Coefficient
    r_th_k_per_w: Coefficient
    tau_s: Coefficient
    t_cap_c: Coefficient
    eta_min: Coefficient
    t_ambient_c: Coefficient

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name of a profile must not be empty, got ''")
        if not self.runtime:
            raise ValueError(f"{self.name}: runtime must say what runs on the device, got ''")
        if self.power_scope not in POWER_SCOPES:
            raise ValueError(
                f"{self.name}: power_scope must be one of {', '.join(POWER_SCOPES)}, "
                f"got {self.power_scope!r}"
            )

    def coefficients(self) -> tuple[tuple[str, Coefficient], ...]:
        """Returns (name, coefficient) of every coefficient that this device has, in order."""
        named = ((name, getattr(self, name)) for name in COEFFICIENTS)
        return tuple((name, found) for name, found in named if found is not None)

    def tiers(self) -> Mapping[str, int]:
        """Returns how many coefficients stand in each tier, all five tiers in order."""
        counts = Counter(coefficient.tier for _, coefficient in self.coefficients())
        return {tier: counts[tier] for tier in TIERS}

    @property
    def idle_included(self) -> bool:
        """Whether the idle draw is taken off the powers of the phases."""
        return self.power_scope != "net"

    def measured_together(self) -> tuple[str, ...]:
        """Returns the phases whose rate and power come from one measurement.

        That is so where both rest on a measurement of this device and name the same source.
        """
        pairs = ((phase, getattr(self, r), getattr(self, w)) for phase, r, w in RATE_AND_POWER)
        return tuple(
            phase
            for phase, rate, power in pairs
            if rate.source == power.source and {rate.tier, power.tier} <= set(MEASURED)
        )

    def training_pj_per_flop(self) -> tuple[float, float, float]:
        """Returns the pJ of one FLOP of training above the idle draw: central, least, greatest.

        Power over rate of the forward pass. Least and greatest take power and rate from opposite
        ends of their ranges, the idle draw at its central value.
        """
        idle_w = self.p_idle_w.value if self.idle_included else 0.0
        power, rate = self.p_train_w, self.eff_forward_gflops

        def price(power_w: float, gflops: float) -> float:
            return 1e3 * max(0.0, power_w - idle_w) / gflops

        least, greatest = price(power.low, rate.high), price(power.high, rate.low)
        return price(power.value, rate.value), least, greatest


WORDS: Mapping[str, str] = {
    "name": "its file's",
    "runtime": "what runs on the device",
    "power_scope": f"one of {', '.join(POWER_SCOPES)}",
}
"""What a profile says in words, and about what."""
COEFFICIENTS = tuple(f.name for f in fields(DeviceProfile) if f.name not in WORDS)
"""Names of the coefficients of a profile, in order."""
RATE_AND_POWER = (
    ("training", "eff_forward_gflops", "p_train_w"),
    ("prefill", "eff_prefill_gops", "p_prefill_w"),
    ("decode", "bw_decode_gbs", "p_decode_w"),
)
"""Phases of computing, each with the names of its rate and of its power."""
MAINS = ("battery_wh", "p_charge_w")
"""Coefficients that a device on mains has not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetMix:
    """Which profiles a fleet is made of.

    Attributes:
        name: Short name of the mix.
        parts: (profile, share) pairs; shares are relative and normalised on use.
    """

    name: str
    parts: tuple[tuple[DeviceProfile, float], ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError(f"mix {self.name} must hold at least one profile, got none")
        for profile, share in self.parts:
            if not 0 < share < math.inf:
                rule = "must be finite and > 0"
                raise ValueError(f"mix {self.name}: share of {profile.name} {rule}, got {share}")

    def profile_of(self, draw: float) -> DeviceProfile:
        """Returns the profile of a device that drew a number in [0, 1)."""
        if not 0 <= draw < 1:
            raise ValueError(f"draw must be in [0, 1), got {draw}")
        reach = draw * math.fsum(share for _, share in self.parts)
        passed = 0.0
        for profile, share in self.parts:
            passed += share
            if reach < passed:
                return profile
        return self.parts[-1][0]  # the last sum can round below the whole


def device_profile(
    name: object = None,
    runtime: object = None,
    power_scope: object = None,
    **coefficients: object,
) -> DeviceProfile:
    """Returns a profile from five-item lists, the form of a configuration file.

    Args:
        name: Short name of the profile.
        runtime: What runs on it, in words.
        power_scope: One of `POWER_SCOPES`.
        **coefficients: [value, low, high, tier, source] each; those of `MAINS` may be None.

    Raises:
        ValueError: If a coefficient is missing, unknown or breaks a rule; names all of them.
    """
    words = dict(zip(WORDS, (name, runtime, power_scope), strict=True))
    for key, text in words.items():
        if not isinstance(text, str):
            raise ValueError(f"{key} of a profile must be a text, {WORDS[key]}, got {text!r}")
    read = read_coefficients(f"profile {name}", coefficients, COEFFICIENTS, MAINS)
    # the constructor checks the words
    return DeviceProfile(**words, **read)  # pyright: ignore[reportArgumentType]


def load_hardware(folder: Path) -> Mapping[str, DeviceProfile]:
    """Returns the profiles of a folder of YAML files by name, in order of name.

    Raises:
        ValueError: If the folder holds none, or a file is not a profile named like itself.
    """
    profiles: dict[str, DeviceProfile] = {}
    for path in sorted(folder.glob("*.yaml")):
        plain = _read_yaml(path)
        profile = device_profile(**{k: item for k, item in plain.items() if k != "_target_"})
        if profile.name != path.stem:
            raise ValueError(f"{path.name} must define the profile {path.stem}, got {profile.name}")
        profiles[profile.name] = profile
    if not profiles:
        raise ValueError(f"the hardware folder must hold profiles, got none in {folder}")
    return profiles


def _read_yaml(path: Path) -> Mapping[str, object]:
    data = path.read_bytes()
    if len(data) > _MOST_BYTES or data.count(b"[") + data.count(b"{") > _MOST_BRACKETS:
        raise ValueError(
            f"{path.name} must be a profile of at most {_MOST_BYTES} bytes and {_MOST_BRACKETS} "
            "brackets, is larger"
        )
    try:
        content = yaml.safe_load(data.decode())
    except _UNREADABLE as error:
        told = " ".join(str(error).split())[:200]
        raise ValueError(f"{path.name} must be YAML in UTF-8, is not: {told}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} must be a mapping, got {type(content).__name__}")
    plain = cast("dict[object, object]", content)
    if not all(isinstance(key, str) for key in plain):
        raise ValueError(f"{path.name} must have names as its keys, got {list(plain)!r:.200}")
    return cast("dict[str, object]", plain)


def read_coefficients(
    owner: str, given: Mapping[str, object], names: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, Coefficient | None]:
    """Returns coefficients from five-item lists.

    Args:
        owner: Whose they are, for the errors.
        given: The lists by name.
        names: The names that must be there, and no others.
        optional: The names whose item may be None.

    Raises:
        ValueError: If a name is missing or unknown, or a list breaks a rule.
    """
    unknown = sorted(given.keys() - set(names))
    missing = [name for name in names if name not in given]
    if unknown or missing:
        rule = f"must have {', '.join(names)}"
        raise ValueError(f"{owner} {rule}; unknown {unknown}, missing {missing}")
    return {
        name: None if item is None and name in optional else _read_coefficient(owner, name, item)
        for name, item in given.items()
    }


def _read_coefficient(owner: str, name: str, item: object) -> Coefficient:
    """Returns one coefficient from its five-item list; errors name its owner and it."""
    is_list = isinstance(item, Sequence) and not isinstance(item, str)
    if not is_list or len(cast("list[object]", item)) != 5:
        form = "must be [value, low, high, tier, source]"
        raise ValueError(f"{owner}: {name} {form}, got {item!r}")
    *numbers, tier, source = cast("Sequence[object]", item)
    for number in numbers:
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        # a whole number of a thousand digits is none either
        if not is_number or abs(cast("float", number)) > sys.float_info.max:
            raise ValueError(f"{owner}: {name} must begin with numbers, got {number!r:.80}")
    value, low, high = (float(cast("float", number)) for number in numbers)
    try:
        return Coefficient(value=value, low=low, high=high, tier=str(tier), source=str(source))
    except ValueError as error:
        raise ValueError(f"{owner}: {name} {error}") from error
