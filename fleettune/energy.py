"""Energy: work on a device profile becomes seconds and joules. Simulated, never measured.

    t = max(FLOP / throughput of the phase, bytes / bandwidth)        E = P_phase * t

P_phase is the power of the whole device while the phase runs (idle is added where a profile
states net power; an unknown scope is read as total). Radio powers are above idle: what the device
draws besides, while it transfers, is its `idle_cost`. The interval of the joules moves every
coefficient to the end of its range that lowers, or raises, them. Ranges are treated as fully
dependent, so intervals of costs add; they bound the error, they are no standard deviation.

Left out: heating and throttling, the fixed cost per step (about 0 on phones), promotion and tail
of a radio, losses of a charger. Sources stand with each coefficient of the profile.
"""

from __future__ import annotations

from typing import TypeAlias

from fleettune.cost import Cost
from fleettune.hardware import Coefficient, DeviceProfile
from fleettune.work import Work

FLASH_READ_GBS = Coefficient(
    value=1.5, low=0.8, high=3.0, tier="E", source="estimate: large reads from UFS 3.1 or 4.0"
)
"""Rate at which a check reads weights or statistics from storage, GB per s, on any device."""

Span: TypeAlias = tuple[float, float, float]
"""A quantity where joules are low, central and high."""


def train_cost(profile: DeviceProfile, work: Work) -> Cost:
    """Returns the cost of training work: throughput and power of training."""
    time_s = _roofline_s(work.flop, profile.eff_train_gflops, work.traffic_bytes, profile)
    return _cost(time_s, _power_w(profile, profile.p_train_w), work.flop)


def prefill_cost(profile: DeviceProfile, work: Work) -> Cost:
    """Returns the cost of a forward pass that reads text: a prompt, an embedding, a probe."""
    time_s = _roofline_s(work.flop, profile.eff_prefill_gops, work.traffic_bytes, profile)
    return _cost(time_s, _power_w(profile, profile.p_prefill_w), work.flop)


def decode_cost(profile: DeviceProfile, work: Work, traffic_bytes: float | None = None) -> Cost:
    """Returns the cost of writing tokens, which memory traffic bounds on phones.

    Args:
        profile: The device.
        work: FLOP and traffic of all tokens written.
        traffic_bytes: Bytes read instead of the work's own, for weights stored in another size.
    """
    moved_bytes = work.traffic_bytes if traffic_bytes is None else traffic_bytes
    time_s = _roofline_s(work.flop, profile.eff_prefill_gops, moved_bytes, profile)
    return _cost(time_s, _power_w(profile, profile.p_decode_w), work.flop)


def check_cost(profile: DeviceProfile, read_bytes: float) -> Cost:
    """Returns the cost of reading weights or statistics from storage to compare releases.

    An estimate: storage bounds the time and the device draws its prefill power. Reading both
    half-precision releases of a 1B model (5 GB) takes 3.3 s (1.7 to 6.3), 21 J on a OnePlus 12R.
    """
    time_s = _transfer_s(read_bytes, FLASH_READ_GBS)
    return _cost(time_s, _power_w(profile, profile.p_prefill_w))


def download_cost(profile: DeviceProfile, size_bytes: float) -> Cost:
    """Returns what the radio takes to receive bytes over Wi-Fi, above the idle draw."""
    time_s = _transfer_s(size_bytes * 8e3, profile.wifi_down_mbps)  # Mbit/s, not GB/s
    return _cost(time_s, _span(profile.wifi_rx_w)) + Cost(down_bytes=size_bytes)


def upload_cost(profile: DeviceProfile, size_bytes: float) -> Cost:
    """Returns what the radio takes to send bytes over Wi-Fi, above the idle draw."""
    time_s = _transfer_s(size_bytes * 8e3, profile.wifi_up_mbps)  # Mbit/s, not GB/s
    return _cost(time_s, _span(profile.wifi_tx_w)) + Cost(up_bytes=size_bytes)


def idle_cost(profile: DeviceProfile, time_s: float) -> Cost:
    """Returns the cost of a device that waits for some seconds."""
    return _cost((time_s, time_s, time_s), _span(profile.p_idle_w))


def _span(coefficient: Coefficient) -> Span:
    """Returns a coefficient that raises joules when it rises."""
    return coefficient.low, coefficient.value, coefficient.high


def _power_w(profile: DeviceProfile, power: Coefficient) -> Span:
    """Returns the power of the whole device during a phase."""
    if profile.power_scope != "net":
        return _span(power)
    (low, value, high), idle = _span(power), _span(profile.p_idle_w)
    return low + idle[0], value + idle[1], high + idle[2]


def _transfer_s(amount: float, rate_giga: Coefficient) -> Span:
    """Returns the time for an amount at a rate in 1e9 per s; joules are low at the high rate."""
    return (
        amount / (rate_giga.high * 1e9),
        amount / (rate_giga.value * 1e9),
        amount / (rate_giga.low * 1e9),
    )


def _roofline_s(
    flop: float, throughput: Coefficient, moved_bytes: float, profile: DeviceProfile
) -> Span:
    """Returns the longer of computing and moving bytes, at each end and at the centre."""
    compute_s = _transfer_s(flop, throughput)
    memory_s = _transfer_s(moved_bytes, profile.bw_decode_gbs)
    return (
        max(compute_s[0], memory_s[0]),
        max(compute_s[1], memory_s[1]),
        max(compute_s[2], memory_s[2]),
    )


def _cost(time_s: Span, power_w: Span, work_flop: float = 0.0) -> Cost:
    """Returns power times time at each end and at the centre."""
    return Cost(
        time_s=time_s[1],
        energy_j=power_w[1] * time_s[1],
        energy_low_j=power_w[0] * time_s[0],
        energy_high_j=power_w[2] * time_s[2],
        work_flop=work_flop,
    )
