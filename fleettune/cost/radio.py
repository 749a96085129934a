"""Radio: what a transfer over a link takes, in seconds and in joules above the idle draw.

    t = 8 bytes / rate + RTT          E = P_on t + marginal J/MB * MB + tail        once per burst

P_on is the draw of a radio that is on, above the idle of the device; the tail is the energy after
the last byte until the radio sleeps, and takes no time of the device. Cellular coefficients are
fits of the raw logs of SIGCOMM21-5G/artifact at 35aaf28 (Galaxy S20 Ultra, Verizon, total power
less a baseline of 2.35 W); power and marginal energy were fitted together, so use them together.
Wi-Fi takes power and rates from a device's profile and has no marginal energy of its own.

Left out: promotion (0.7 to 1.5 W on 5G, duration unknown), signal strength, retransmission, the
network behind the radio. The intercepts are differences of large numbers: +-0.3 W.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fleettune.cost.hardware import Coefficient, DeviceProfile, read_coefficients

Floats: TypeAlias = NDArray[np.float64]
"""One number, or one per device or draw."""

COEFFICIENTS = (
    "rx_w", "tx_w", "down_j_per_mb", "up_j_per_mb", "down_mbps", "up_mbps", "rtt_s", "tail_j",
)  # fmt: skip
"""Names of the coefficients of a link, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A connection, as far as costs depend on it. Powers and energies are above idle.

    Attributes:
        name: Short name, also the name of its configuration file.
        rx_w: Power of the radio while it receives, at no rate.
        tx_w: Power of the radio while it sends, at no rate.
        down_j_per_mb: Energy of each megabyte received beyond that power; None if in it.
        up_j_per_mb: The same for each megabyte sent.
        down_mbps: Rate towards the device, Mbit per s.
        up_mbps: Rate from the device, Mbit per s.
        rtt_s: Time of one round trip.
        tail_j: Energy from the last byte until the radio sleeps, once per burst.
    """

    name: str
    rx_w: Coefficient
    tx_w: Coefficient
    down_j_per_mb: Coefficient | None
    up_j_per_mb: Coefficient | None
    down_mbps: Coefficient
    up_mbps: Coefficient
    rtt_s: Coefficient
    tail_j: Coefficient

    def on(self, profile: DeviceProfile) -> Link:
        """Returns itself: a cellular link is the same on every device."""
        del profile
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Wifi:
    """Wi-Fi, whose power and rates stand in the profile of a device."""

    name: str
    rtt_s: Coefficient
    tail_j: Coefficient

    def on(self, profile: DeviceProfile) -> Link:
        """Returns the link of a device: its own power and rates, no marginal energy."""
        return Link(
            name=self.name,
            rx_w=profile.wifi_rx_w,
            tx_w=profile.wifi_tx_w,
            down_j_per_mb=None,
            up_j_per_mb=None,
            down_mbps=profile.wifi_down_mbps,
            up_mbps=profile.wifi_up_mbps,
            rtt_s=self.rtt_s,
            tail_j=self.tail_j,
        )


Radio: TypeAlias = Link | Wifi
"""How a device is connected."""
WIFI = Wifi(
    name="wifi",
    rtt_s=Coefficient(value=0.02, low=0.005, high=0.1, tier="E", source="our estimate, no source"),
    tail_j=Coefficient(
        value=0.03,
        low=0.01,
        high=0.3,
        tier="E",
        source="our estimate: 0.2 s at 0.15 W, the lowest receiving power of three phones, to "
        "0.5 s at 0.6 W",
    ),
)
"""Home Wi-Fi, as conf/link/wifi.yaml has it."""


def transfer_s(size_bytes: Floats, bursts: Floats, rate_mbps: Floats, rtt_s: Floats) -> Floats:
    """Returns the seconds of some bytes in some bursts."""
    return size_bytes * 8e-6 / rate_mbps + bursts * rtt_s


def transfer_j(
    size_bytes: Floats,
    bursts: Floats,
    time_s: Floats,
    power_w: Floats,
    j_per_mb: Floats,
    tail_j: Floats,
) -> Floats:
    """Returns the joules above idle of some bytes in some bursts that take `time_s`."""
    return power_w * time_s + j_per_mb * size_bytes * 1e-6 + bursts * tail_j


def cellular(name: str, **coefficients: object) -> Link:
    """Returns a link from five-item lists, the form of a configuration file.

    Args:
        name: Short name of the link.
        **coefficients: [value, low, high, tier, source] each; the two marginal energies may be
            None.

    Raises:
        ValueError: If a coefficient is missing, unknown or breaks a rule.
    """
    read = read_coefficients(
        f"link {name}", coefficients, COEFFICIENTS, ("down_j_per_mb", "up_j_per_mb")
    )
    return Link(name=name, **read)  # pyright: ignore[reportArgumentType] - only those two are None


def wifi(name: str, **coefficients: object) -> Wifi:
    """Returns Wi-Fi from five-item lists for rtt_s and tail_j; errors as `cellular`."""
    read = read_coefficients(f"link {name}", coefficients, ("rtt_s", "tail_j"))
    return Wifi(name=name, **read)  # pyright: ignore[reportArgumentType] - none of them is None


def read_link(plain: Mapping[str, object]) -> Radio:
    """Returns the link of a configuration file's content.

    Raises:
        ValueError: If it is not one.
    """
    makers = {f"{__package__}.{make.__name__}": make for make in (cellular, wifi)}
    target, name = str(plain.get("_target_")), plain.get("name")
    if target not in makers or not isinstance(name, str):
        rule = f"must have a name and a _target_ in {sorted(makers)}"
        raise ValueError(f"link {rule}, got {name!r} and {target!r}")
    rest = {key: item for key, item in plain.items() if key not in ("_target_", "name")}
    return makers[target](name, **rest)
