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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, cast

import numpy as np
import yaml
from numpy.typing import NDArray

from fleettune.cost.hardware import Coefficient, DeviceProfile, read_coefficient

Floats: TypeAlias = NDArray[np.float64]
"""One number, or one per device or draw."""

COEFFICIENTS = (
    "rx_w", "tx_w", "down_j_per_mb", "up_j_per_mb", "down_mbps", "up_mbps", "rtt_s", "tail_j",
)  # fmt: skip
"""Names of the coefficients of a link, in order."""


class Radio(Protocol):
    """How a device is connected."""

    def on(self, profile: DeviceProfile) -> Link:
        """Returns the link as a device of this profile has it."""
        ...


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


RadioChoice: TypeAlias = Link | Wifi
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
    _check_names(name, coefficients, COEFFICIENTS)
    optional = ("down_j_per_mb", "up_j_per_mb")
    read = {
        key: None
        if item is None and key in optional
        else read_coefficient(f"link {name}", key, item)
        for key, item in coefficients.items()
    }
    # keys were checked above, each value by its own constructor
    return Link(name=name, **read)  # pyright: ignore[reportArgumentType]


def wifi(name: str, **coefficients: object) -> Wifi:
    """Returns Wi-Fi from five-item lists for rtt_s and tail_j; errors as `cellular`."""
    own = ("rtt_s", "tail_j")
    _check_names(name, coefficients, own)
    return Wifi(
        name=name, **{key: read_coefficient(f"link {name}", key, coefficients[key]) for key in own}
    )


def load_links(folder: Path) -> Mapping[str, RadioChoice]:
    """Returns the links of a folder of YAML files by name, in order of name.

    Raises:
        ValueError: If the folder holds none, or a file is not a link named like itself.
    """
    links: dict[str, RadioChoice] = {}
    for path in sorted(folder.glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"{path.name} must be a mapping, got {type(content).__name__}")
        links[path.stem] = read_link(cast("dict[str, object]", content))
        if links[path.stem].name != path.stem:
            raise ValueError(f"{path.name} must define {path.stem}, got {links[path.stem].name}")
    if not links:
        raise ValueError(f"the folder of links must hold some, got none in {folder}")
    return links


def read_link(plain: Mapping[str, object]) -> RadioChoice:
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


def _check_names(name: str, given: Mapping[str, object], known: Sequence[str]) -> None:
    unknown = sorted(given.keys() - set(known))
    missing = [key for key in known if key not in given]
    if unknown or missing:
        rule = f"must have {', '.join(known)}"
        raise ValueError(f"link {name} {rule}; unknown {unknown}, missing {missing}")
