"""Availability: when, on which night, a device charges, is on Wi-Fi and is not in use.

A round is one night: the 24 hours from one noon to the next, so that no night's sleep is cut in
two. An availability is a pure function of seed, device and night. All parameters of `Nightly` are
estimates (tier E): no measured distribution of charging windows may be shipped with this project.
Measured windows are read by `fleettune.fleet.recorded_traces.Trace` from files that the user
brings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from fleettune.seeds import Purpose, stream

NIGHT_S = 86_400.0
"""Length of a round: one simulated day, from noon to noon."""
HOUR_S = 3_600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The time of one night in which a device may work.

    Attributes:
        start_s: Opening, in seconds after the round's beginning.
        length_s: Seconds during which the device charges, is on Wi-Fi and is idle; 0: never
            tonight.
        soc: State of charge when the window opens, from 0 to 1.
        stops_s: Seconds after the opening at which the user takes the phone off, whatever it is
            doing; None: not tonight.
    """

    start_s: float
    length_s: float
    soc: float
    stops_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("start_s", "length_s"):
            _check(name, getattr(self, name), 0, math.inf, "s")
        _check("soc", self.soc, 0, 1)
        if self.stops_s is not None:
            _check("stops_s", self.stops_s, 0, self.length_s, "s")

    @property
    def usable_s(self) -> float:
        """Seconds of work that the window holds; the device foresees `length_s` at best."""
        return self.length_s if self.stops_s is None else self.stops_s


@runtime_checkable
class Availability(Protocol):
    """A rule for when devices may work."""

    def window(self, seed: int, device: int, night: int) -> Window:
        """Returns a device's window of one night.

        Args:
            seed: The experiment's seed.
            device: The device's number, 0 or more.
            night: The round, 0 or more.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Always:
    """Every device is on the charger all the time, with a full battery.

    Attributes:
        night_s: Length of a round.
    """

    night_s: float = NIGHT_S

    def __post_init__(self) -> None:
        if not 0 < self.night_s < math.inf:
            raise ValueError(f"night_s must be finite and > 0 s, got {self.night_s}")

    def window(self, seed: int, device: int, night: int) -> Window:
        """Returns the whole round; the same for every seed, device and night."""
        return Window(start_s=0.0, length_s=self.night_s, soc=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nightly:
    """Phones that charge at night, each with its habits; all parameters are estimates (tier E).

    A quantity of a night is mean + spread * (the device's draw) + jitter * (the night's draw),
    both draws standard normal, cut to what is possible. Every draw is made whether it is used or
    not, so a change of one parameter leaves all other quantities of all nights as they were.

    Attributes:
        charging: Share of nights on which a device is put on its charger.
        wifi: Share of nights on which it is on Wi-Fi.
        start_h: Mean opening, in hours after noon.
        start_spread_h: Standard deviation between devices.
        start_jitter_h: Standard deviation between nights of one device.
        length_h: Mean length.
        length_spread_h: Standard deviation between devices.
        length_jitter_h: Standard deviation between nights of one device.
        soc: Mean state of charge when the window opens.
        soc_spread: Standard deviation between devices.
        soc_jitter: Standard deviation between nights of one device.
        flaky: Share of devices that are taken off the charger while they work.
        interruption: Probability per night that this happens to one of them.
        interruption_h: Hours after the opening within which it does, at a uniform time.
        starved: Share of devices whose evening charge is low.
        starved_soc: Below which it is; uniform from 0.
    """

    charging: float
    wifi: float
    start_h: float
    start_spread_h: float
    start_jitter_h: float
    length_h: float
    length_spread_h: float
    length_jitter_h: float
    soc: float
    soc_spread: float
    soc_jitter: float
    flaky: float
    interruption: float
    interruption_h: float
    starved: float
    starved_soc: float

    def __post_init__(self) -> None:
        for name in ("charging", "wifi", "flaky", "interruption", "starved"):
            _check(name, getattr(self, name), 0, 1)
        for name in ("soc", "soc_spread", "soc_jitter", "starved_soc"):
            _check(name, getattr(self, name), 0, 1)
        for name in ("start_h", "length_h", "interruption_h"):
            _check(name, getattr(self, name), 0, 24, "h")
        for name in ("start_spread_h", "start_jitter_h", "length_spread_h", "length_jitter_h"):
            _check(name, getattr(self, name), 0, 24, "h")

    def window(self, seed: int, device: int, night: int) -> Window:
        """Returns the window that the device's habits and the night's accidents give."""
        habits = stream(seed, Purpose.AVAILABILITY, device)
        tonight = stream(seed, Purpose.AVAILABILITY, device, night)
        habit, now = habits.standard_normal(3).tolist(), tonight.standard_normal(3).tolist()
        is_flaky, is_starved = (habits.random(2) < (self.flaky, self.starved)).tolist()
        plugged, connected, taken, when, left = tonight.random(5).tolist()
        start_h = _cut(
            self.start_h + self.start_spread_h * habit[0] + self.start_jitter_h * now[0], 24
        )
        length_h = _cut(
            self.length_h + self.length_spread_h * habit[1] + self.length_jitter_h * now[1],
            24 - start_h,
        )
        soc = _cut(self.soc + self.soc_spread * habit[2] + self.soc_jitter * now[2], 1)
        is_there = plugged < self.charging and connected < self.wifi
        length_s = length_h * HOUR_S if is_there else 0.0
        stops = is_flaky and taken < self.interruption and length_s > 0
        return Window(
            start_s=start_h * HOUR_S,
            length_s=length_s,
            soc=left * self.starved_soc if is_starved else soc,
            stops_s=when * min(length_s, self.interruption_h * HOUR_S) if stops else None,
        )


def _cut(value: float, highest: float) -> float:
    return min(max(value, 0.0), highest)


def _check(name: str, value: float, low: float, high: float, unit: str = "") -> None:
    if not (math.isfinite(value) and low <= value <= high):
        space = f" {unit}" if unit else ""
        most = f" and <= {high}{space}" if math.isfinite(high) else ""
        raise ValueError(f"{name} must be finite, >= {low}{space}{most}, got {value}")
