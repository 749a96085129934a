"""The Flower Strategy: encode, send, sort, decode, delegate.

Every round sends one message per device and arm (`group_id` is the arm), so all arms live in
lockstep and identical work is computed once. Replies are sorted by arm and device before
anything is added: counts and joules are summed, never averaged, whatever the order of arrival.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fleettune.statistics import Report
from fleettune.typed import Record
from fleettune.wire import Request, decode_report, encode_request
from strategies.aggregation import FleetUpdate
from strategies.publisher import Publisher
from strategies.sampling import Sampling


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


@dataclass(kw_only=True)
class FleetStrategy(Strategy):
    """Emits releases, sums what devices report, averages their deltas.

    Attributes:
        arms: The policy of every arm as a record, by arm.
        publisher: Makes releases when they are due.
        sampling: Chooses devices.
        seed: Key of the sampling.
        observe: True in a simulation whose observer wants quality.
        sums: One entry per arm and round, in order.
        updates: The mean effective update of the newest deltas, by arm.
    """

    arms: Mapping[str, Record]
    publisher: Publisher
    sampling: Sampling
    seed: int
    observe: bool
    sums: list[RoundSum] = field(default_factory=list[RoundSum])
    updates: dict[str, FleetUpdate] = field(default_factory=dict[str, FleetUpdate])

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Yields one message per chosen device and arm, device by device."""
        night = server_round - 1
        release = self.publisher.newest(night)
        contents = {
            arm: encode_request(
                Request(arm=arm, round=night, release=release, policy=policy, observe=self.observe)
            )
            for arm, policy in self.arms.items()
        }
        nodes = list(grid.get_node_ids())
        for node in self.sampling.choose(nodes, night, self.seed):
            for arm, content in contents.items():
                yield Message(
                    content=_copy(content),
                    dst_node_id=node,
                    message_type=MessageType.TRAIN,
                    group_id=arm,
                )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Sums each arm's statistics and averages its deltas; returns the summed joules."""
        received: dict[str, list[Report]] = {arm: [] for arm in self.arms}
        failed = dict.fromkeys(self.arms, 0)
        for reply in replies:
            arm = reply.metadata.group_id
            if reply.has_error():
                failed[arm] += 1
            else:
                received[arm].append(decode_report(reply.content))
        totals: dict[str, int | float | list[int] | list[float]] = {}
        for arm, reports in received.items():
            ordered = sorted(reports, key=lambda report: report.statistics.outcome.device)
            self.sums.append(self._sum(arm, server_round - 1, ordered, failed[arm]))
            totals[f"{arm}.energy_j"] = self.sums[-1].energy_j
        return None, MetricRecord(totals)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sends nothing: quality is the observer's business."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Has nothing to sum."""
        return None

    def summary(self) -> None:
        """Says nothing: `simulations` prints the run's tables."""

    def _sum(self, arm: str, night: int, reports: list[Report], failed: int) -> RoundSum:
        update = FleetUpdate()
        decisions: dict[str, int] = {}
        energy_j = up_bytes = down_bytes = 0.0
        for report in reports:
            total = report.statistics.ledger.total()
            energy_j += total.energy_j
            up_bytes += total.up_bytes
            down_bytes += total.down_bytes
            action = report.statistics.outcome.decision
            decisions[action] = decisions.get(action, 0) + 1
            if report.delta is not None:
                update = update.with_patch(report.delta)
        if update.counts:
            self.updates[arm] = update
        return RoundSum(
            arm=arm,
            round=night,
            release=self.publisher.published[-1].manifest.version,
            devices=len(reports),
            decisions=decisions,
            energy_j=energy_j,
            up_bytes=up_bytes,
            down_bytes=down_bytes,
            failed=failed,
            update_norm=update.norm(),
        )


def await_devices(grid: Grid, devices: int, limit_s: float = 60.0) -> None:
    """Waits until all devices of a fleet are registered; engines start the server before them.

    Args:
        grid: Where they register.
        devices: How many there will be.
        limit_s: Longest wait.

    Raises:
        RuntimeError: If some are missing after the wait.
    """
    deadline = time.monotonic() + limit_s
    while (registered := sum(1 for _ in grid.get_node_ids())) < devices:
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"the plan is for {devices} devices, but after {limit_s:g} s only {registered} "
                "are registered; start the others or plan for fewer"
            )
        time.sleep(0.1)


def _copy(content: RecordDict) -> RecordDict:
    """Returns a record dict of its own that shares the (never changed) records."""
    return RecordDict(dict(content.items()))
