"""Rounds on the server: replies stream into sums, one arm at a time, in the order of devices.

Nothing of a reply stays but what was added, so a round of any size takes the memory of one reply
and of the sums. A delta that cannot be taken is counted by its reason, and the round goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message

from fleettune.adapters.patch import Patch
from fleettune.deltas.frames import ExpectedDelta
from fleettune.deltas.rejections import RejectedError, Rejection
from fleettune.messages.flower_records import decode_statistics, read_delta
from fleettune.messages.report import Statistics
from strategies.aggregation import Aggregate, Aggregation, ExactMean
from strategies.aggregation.aggregate import mean_norm
from strategies.learning.decision_reports import read_decision
from strategies.learning.decision_sums import DecisionAccumulator

log = logging.getLogger(__name__)

STACK = ExactMean()


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
        rejected: Replies, deltas and decisions that were not taken, by reason
            (`fleettune.deltas.rejections`).
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
    rejected: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the server reads of a reply: statistics, and the delta or why it is not taken."""

    statistics: Statistics
    delta: Patch | Rejection | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraCollection:
    """What is collected of an arm's replies beside its sums; nothing by default.

    Attributes:
        staged: Version of which all reports are kept, for its forecast.
        share: Called with a device's number and its delta, which becomes part of a catalogue.
    """

    staged: int | None = None
    share: Callable[[int, Patch], None] | None = None


NOTHING_EXTRA = ExtraCollection()


@dataclass(slots=True, kw_only=True)
class RunningSum:
    """One arm's sums while its replies come in, in the order of devices.

    Attributes:
        arm: The arm.
        weights: How a device counts (`strategies.aggregation.aggregate.WEIGHTS`).
        update: Aggregate of the deltas so far.
        last_device: The device that was added last; -1 before the first one.
        reports: What the devices decided about releases.
        share: As `ExtraCollection`.
    """

    arm: str
    weights: str = "uniform"
    update: Aggregate[Any] = field(default_factory=STACK.open)
    last_device: int = -1
    devices: int = 0
    failed: int = 0
    decisions: dict[str, int] = field(default_factory=dict[str, int])
    energy_j: float = 0.0
    up_bytes: float = 0.0
    down_bytes: float = 0.0
    rejected: dict[str, int] = field(default_factory=dict[str, int])
    reports: DecisionAccumulator = field(default_factory=DecisionAccumulator)
    share: Callable[[int, Patch], None] | None = None

    def add(self, reply: Reply) -> None:
        """Adds one device's reply; rejects it if its device does not come behind those before it.

        A reply out of that order names a device that has replied already.
        """
        statistics = reply.statistics
        outcome, total = statistics.outcome, statistics.ledger.total()
        if outcome.device <= self.last_device:
            log.warning(
                "reply of arm %s names device %d after device %d; it is not taken",
                self.arm,
                outcome.device,
                self.last_device,
            )
            self.reject(Rejection.DEVICE)
            return
        self.last_device = outcome.device
        self.devices += 1
        self.energy_j += total.energy_j
        self.up_bytes += total.up_bytes
        self.down_bytes += total.down_bytes
        self.decisions[outcome.decision] = self.decisions.get(outcome.decision, 0) + 1
        self._add_decision(statistics)
        if isinstance(reply.delta, Rejection):
            self.reject(reply.delta)
        elif reply.delta is not None:
            self._add_delta(reply.delta, statistics)

    def _add_delta(self, delta: Patch, statistics: Statistics) -> None:
        """Adds a delta, and keeps it where deltas are kept, unless the rule refuses it."""
        weight = 1.0 if self.weights == "uniform" else float(statistics.buffer_exchanges)
        try:
            self.update.add(delta, weight)
        except RejectedError as error:
            self.reject(error.reason)
            return
        if self.share is not None:
            self.share(statistics.outcome.device, delta)

    def _add_decision(self, statistics: Statistics) -> None:
        """Adds the decision; numbers that none can have are counted and change nothing else."""
        try:
            report = read_decision(statistics)
        except ValueError as error:
            device = statistics.outcome.device
            log.warning("decision of device %d in arm %s: %s", device, self.arm, error)
            self.reject(Rejection.DECISION)
            return
        if report is not None:
            self.reports.add(report)

    def reject(self, reason: Rejection) -> None:
        """Counts something that is not taken."""
        self.rejected[reason.value] = self.rejected.get(reason.value, 0) + 1

    def close(self, round_number: int, release: int) -> RoundSum:
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
            update_norm=mean_norm(self.update),
            rejected=self.rejected,
        )


def sum_replies(
    arms: Iterable[str],
    replies: Iterable[Message],
    rule: Aggregation = STACK,
    expected: ExpectedDelta | None = None,
    *,
    keeps: bool = False,
    collect: Mapping[str, ExtraCollection] | None = None,
) -> dict[str, RunningSum]:
    """Returns every arm's sums over the replies, which are read once, one by one.

    Args:
        arms: Names of all arms.
        replies: What the devices sent.
        rule: How deltas are aggregated.
        expected: What a delta must be to be taken; None where only its frame is checked.
        keeps: Whether retunes of known gain are kept for a fit
            (`strategies.learning.decision_sums`).
        collect: What else is kept of an arm's replies.
    """
    kept = {arm: (collect or {}).get(arm, NOTHING_EXTRA) for arm in arms}
    sums = {
        arm: RunningSum(
            arm=arm,
            weights=rule.weights,
            update=rule.open(),
            reports=DecisionAccumulator(keeps=keeps, staged=own.staged),
            share=own.share,
        )
        for arm, own in kept.items()
    }
    for arm, reply in _in_order(replies, expected):
        if arm not in sums:
            log.warning("a reply names the arm %.80r, which nobody was asked for", arm)
        elif reply is None:
            sums[arm].failed += 1
        elif isinstance(reply, Rejection):
            sums[arm].reject(reply)
        else:
            sums[arm].add(reply)
    return sums


def _in_order(
    replies: Iterable[Message], expected: ExpectedDelta | None
) -> Iterator[tuple[str, Reply | Rejection | None]]:
    """Yields replies in an order in which every arm's devices ascend; None for an error.

    A grid that streams yields them so, and its nodes are the devices' numbers plus 1: a reply that
    names another device is not taken. One that returns them all at once, as stock Flower does in
    the order of arrival, has them in memory anyway, so these are sorted: a sum of floats depends
    on its order, and then equal experiments would not give equal bytes.
    """
    if isinstance(replies, Iterator):
        for reply in _by_node(replies):
            yield _decode(reply, expected, reply.metadata.src_node_id - 1)
    else:
        yield from sorted((_decode(reply, expected) for reply in replies), key=_device)


def _by_node(replies: Iterator[Message]) -> Iterator[Message]:
    """Yields a stream of replies as it is.

    Raises:
        RuntimeError: If an arm's replies do not come in the order of nodes: a fault of the grid.
    """
    last: dict[str, int] = {}
    for reply in replies:
        arm, node = reply.metadata.group_id, reply.metadata.src_node_id
        if node <= last.get(arm, 0):
            raise RuntimeError(
                f"a grid that streams must yield an arm's replies in the order of nodes, got "
                f"node {node} after {last[arm]} in arm {arm}"
            )
        last[arm] = node
        yield reply


def _decode(
    reply: Message, expected: ExpectedDelta | None, device: int | None = None
) -> tuple[str, Reply | Rejection | None]:
    """Returns an arm and what its reply holds; `device` is whose it is, where the grid says so."""
    arm = reply.metadata.group_id
    if reply.has_error():
        return arm, None
    try:
        statistics = decode_statistics(reply.content)
    except ValueError as error:
        log.warning("reply of node %d in arm %s: %s", reply.metadata.src_node_id, arm, error)
        return arm, Rejection.STATISTICS
    if device is not None and statistics.outcome.device != device:
        named = statistics.outcome.device
        log.warning("reply of device %d in arm %s names device %d", device, arm, named)
        return arm, Rejection.DEVICE
    try:
        return arm, Reply(statistics=statistics, delta=read_delta(reply.content, expected))
    except RejectedError as error:
        log.warning("delta of device %d in arm %s: %s", statistics.outcome.device, arm, error)
        return arm, Reply(statistics=statistics, delta=error.reason)


def _device(entry: tuple[str, Reply | Rejection | None]) -> int:
    reply = entry[1]
    return reply.statistics.outcome.device if isinstance(reply, Reply) else -1
