"""Rounds on the server: replies stream into sums, one arm at a time, in the order of devices.

Nothing of a reply stays but what was added, so a round of any size takes the memory of one reply
and of the sums.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from flwr.app import Message

from fleettune.statistics import Report
from fleettune.wire import decode_report
from strategies.aggregation import FleetUpdate


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundSum:
    """What the server knows of one arm's round: sums over its devices.

    Attributes:
        arm: The arm.
        round: Number of the round, 0-based.
        release: Version that was out.
        devices: Devices that replied.
        decisions: How many decided what.
        energy_j: Joules of all devices (simulated).
        up_bytes: Bytes sent by all devices.
        down_bytes: Bytes received by all devices.
        failed: Devices whose reply was an error.
        update_norm: Frobenius norm of the mean effective update of this round's deltas.
    """

    arm: str
    round: int
    release: int
    devices: int
    decisions: Mapping[str, int]
    energy_j: float
    up_bytes: float
    down_bytes: float
    failed: int
    update_norm: float


@dataclass(slots=True, kw_only=True)
class RunningSum:
    """One arm's sums while its replies come in, in the order of devices.

    Attributes:
        arm: The arm.
        update: Sums of the deltas so far.
        last_device: The device that was added last; -1 before the first one.
    """

    arm: str
    update: FleetUpdate = field(default_factory=FleetUpdate)
    last_device: int = -1
    devices: int = 0
    failed: int = 0
    decisions: dict[str, int] = field(default_factory=dict[str, int])
    energy_j: float = 0.0
    up_bytes: float = 0.0
    down_bytes: float = 0.0

    def add(self, report: Report) -> None:
        """Adds one device's report.

        Raises:
            RuntimeError: If its device does not come behind those before it.
        """
        outcome, total = report.statistics.outcome, report.statistics.ledger.total()
        if outcome.device <= self.last_device:
            raise RuntimeError(
                f"a grid that streams must yield an arm's replies in the order of devices, got "
                f"device {outcome.device} after {self.last_device} in arm {self.arm}"
            )
        self.last_device = outcome.device
        self.devices += 1
        self.energy_j += total.energy_j
        self.up_bytes += total.up_bytes
        self.down_bytes += total.down_bytes
        self.decisions[outcome.decision] = self.decisions.get(outcome.decision, 0) + 1
        if report.delta is not None:
            self.update = self.update.with_patch(report.delta)

    def closed(self, round_number: int, release: int) -> RoundSum:
        """Returns the sums when all replies are in."""
        return RoundSum(
            arm=self.arm,
            round=round_number,
            release=release,
            devices=self.devices,
            decisions=self.decisions,
            energy_j=self.energy_j,
            up_bytes=self.up_bytes,
            down_bytes=self.down_bytes,
            failed=self.failed,
            update_norm=self.update.norm(),
        )


def add_up(arms: Iterable[str], replies: Iterable[Message]) -> dict[str, RunningSum]:
    """Returns every arm's sums over the replies, which are read once, one by one."""
    sums = {arm: RunningSum(arm=arm) for arm in arms}
    for arm, report in _in_order(replies):
        if report is None:
            sums[arm].failed += 1
        else:
            sums[arm].add(report)
    return sums


def _in_order(replies: Iterable[Message]) -> Iterator[tuple[str, Report | None]]:
    """Yields replies in an order in which every arm's devices ascend; None for an error.

    A grid that streams yields them so. One that returns them all at once, as stock Flower does in
    the order of arrival, has them in memory anyway, so these are sorted: a sum of floats depends
    on its order, and then equal experiments would not give equal bytes.
    """
    if isinstance(replies, Iterator):
        yield from map(_decoded, replies)
    else:
        yield from sorted(map(_decoded, replies), key=_device)


def _decoded(reply: Message) -> tuple[str, Report | None]:
    report = None if reply.has_error() else decode_report(reply.content)
    return reply.metadata.group_id, report


def _device(entry: tuple[str, Report | None]) -> int:
    report = entry[1]
    return -1 if report is None else report.statistics.outcome.device
