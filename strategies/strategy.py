"""The Flower Strategy: restore, publish, send, add up, commit.

Every round sends one message per device and arm (`group_id` is the arm), so all arms live in
lockstep and identical work is computed once. Replies stream into sums in the order of devices.
After each round the server's state can be made to last, and a run can go on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fleettune.adapters.patch import Patch
from fleettune.deltas.frames import ExpectedDelta
from fleettune.fleet.joining import FROM_THE_START, Joining
from fleettune.messages.flower_records import Request, encode_request
from fleettune.records import Record
from fleettune.releases.manifest import Manifest
from strategies.aggregation import Aggregate, Aggregation
from strategies.aggregation.fleet_patch import NONE, START, grow_fleet_patch
from strategies.catalogue.cataloguer import Cataloguer
from strategies.learning.arm_learning import Learning
from strategies.learning.decision_reports import RETUNE
from strategies.releases.publisher import Publisher, ReleaseRecord
from strategies.rollout.stages import Rollouts
from strategies.rounds.checkpoint import Checkpoint, ServerState, kept_fleet, read_server_state
from strategies.rounds.sampling import Sampling
from strategies.rounds.sums import STACK, ExtraCollection, RoundSum, sum_replies


@dataclass(kw_only=True)
class FleetStrategy(Strategy):
    """Emits releases, sums what devices report, averages their deltas.

    Attributes:
        arms: The policy of every arm as a record, by arm.
        publisher: Makes releases when they are due.
        sampling: Chooses devices.
        seed: Key of the sampling.
        observe: True in a simulation whose observer wants quality.
        checkpoint: Makes rounds last; a run goes on behind the last one that did.
        on_round: Called after every round, before it is made to last.
        sums: One entry per arm and round, in order.
        aggregation: How deltas are aggregated.
        fleet_patch: Whether devices get the fleet patch
            (`strategies.aggregation.fleet_patch.USES`).
        fleet_rank: Its largest rank.
        updates: The aggregate of the last round's deltas, by arms that sent any.
        fleets: The fleet patch by arms that have one.
        learning: What the devices decided, and the guidance that comes of it.
        rollouts: Which release every device is told of.
        cataloguer: Makes what first tunes may start from.
        joining: Which devices have joined.
    """

    arms: Mapping[str, Record]
    publisher: Publisher
    sampling: Sampling
    seed: int
    observe: bool
    checkpoint: Checkpoint | None = None
    on_round: Callable[[], None] = lambda: None
    sums: list[RoundSum] = field(default_factory=list[RoundSum])
    aggregation: Aggregation = STACK
    fleet_patch: str = NONE
    fleet_rank: int = 8
    updates: dict[str, Aggregate[Any]] = field(default_factory=dict[str, Aggregate[Any]])
    fleets: dict[str, Patch] = field(default_factory=dict[str, Patch])
    learning: Learning = field(default_factory=Learning)
    rollouts: Rollouts = field(default_factory=Rollouts)
    cataloguer: Cataloguer = field(default_factory=Cataloguer)
    joining: Joining = FROM_THE_START

    def start(  # noqa: PLR0913, PLR0917 - Flower's signature
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Runs the rounds that are still to be run, each of them training only.

        Flower's own loop begins at round 1 and says nothing when a round is over.

        Raises:
            ValueError: If asked to evaluate, or if the checkpoint is of another run.
        """
        if evaluate_fn is not None:
            raise ValueError("evaluate_fn must be None: this strategy holds no global arrays")
        result = Result()
        first = self._restore(self.checkpoint.restored_state() if self.checkpoint else None)
        for night in range(first, num_rounds):
            config = train_config or ConfigRecord()
            messages = self.configure_train(night + 1, initial_arrays, config, grid)
            replies = grid.send_and_receive(messages, timeout=timeout)
            _, metrics = self.aggregate_train(night + 1, replies)
            if metrics is not None:
                result.train_metrics_clientapp[night + 1] = metrics
            self.on_round()
            if self.checkpoint is not None:
                self.checkpoint.commit_round(night, self._state(night).plain())
        return result

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Yields one message per chosen device and arm, device by device."""
        night = server_round - 1
        newest = self._publish(night).version
        ids = grid.get_node_ids()
        # a registry that is a sequence is not listed: a round costs what its sample costs
        nodes = ids if isinstance(ids, Sequence) else list(ids)
        nodes = nodes[: self.joining.count_joined(night)] if self.joining.parts else nodes
        told = {
            arm: self.rollouts.told(arm, nodes, (newest, night), self.learning.tally(arm))
            for arm in self.arms
        }
        for arm, tonight in told.items():
            if tonight.settled and self.rollouts.cohort_retunes:
                self.learning.decide(arm, tonight.rollout.base, tonight.settled)
        contents = {
            (arm, version): self._request(arm, version, night, first=version in told[arm].members)
            for arm in self.arms
            for version in told[arm].versions
        }
        for node in self.sampling.choose(nodes, night, self.seed):
            for arm in self.arms:
                yield Message(
                    content=_copy(contents[arm, told[arm].of(node)]),
                    dst_node_id=node,
                    message_type=MessageType.TRAIN,
                    group_id=arm,
                )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Sums each arm's statistics and averages its deltas; returns the summed joules."""
        # messages are made while replies come in, so nothing may be published before the first one
        manifest = self._publish(server_round - 1)
        release = manifest.version
        expected = ExpectedDelta(
            release=release,
            shapes=manifest.shapes,
            # a delta as large as the model is none
            limit_bytes=manifest.size_bytes,
        )
        # all reports of a cohort's release are kept, for a forecast
        extra = ExtraCollection(staged=release if self.rollouts.is_staged else None)
        kept = dict.fromkeys(self.arms, extra)
        # the catalogue is of the first arm's world, as the fleet patch in a release is
        kept[self._first] = replace(extra, share=self.cataloguer.share(release))
        running = sum_replies(
            self.arms, replies, self.aggregation, expected, keeps=self.learning.keeps, collect=kept
        )
        for arm, entry in running.items():
            self.learning.take(arm, entry.decided.closed())
            self.rollouts.take(arm, entry.decided.cohort)
        closed = [entry.closed(server_round - 1, release) for entry in running.values()]
        self.sums += closed
        self.updates = {arm: entry.update for arm, entry in running.items() if entry.update.counts}
        if self.fleet_patch == START:
            self._grow(release)
        totals: dict[str, int | float | list[int] | list[float]] = {
            f"{entry.arm}.energy_j": entry.energy_j for entry in closed
        }
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

    def _request(self, arm: str, version: int, night: int, *, first: bool) -> RecordDict:
        """Returns what an arm's devices are asked, with what they are told of a release.

        Args:
            arm: The arm.
            version: Version of the release.
            night: The round, 0-based.
            first: Whether this is for a first cohort.
        """
        release = self.publisher.published[version].manifest
        guidance = self.learning.guidance(arm, version)
        if guidance is not None and first and self.rollouts.cohort_retunes:
            guidance = replace(guidance, decision=RETUNE)
        return encode_request(
            Request(
                arm=arm,
                round=night,
                release=release if guidance is None else replace(release, guidance=guidance),
                policy=self.arms[arm],
                observe=self.observe,
                fleet=self._fleet(arm),
                catalogue=self.cataloguer.offer(
                    [entry.manifest for entry in self.publisher.published[: version + 1]]
                ),
            )
        )

    @property
    def _first(self) -> str:
        """Name of the first arm, whose world decides where all arms share something."""
        return next(iter(self.arms))

    def _fleet(self, arm: str) -> Patch | None:
        """Returns an arm's fleet patch; the first arm's for one whose devices never tune."""
        return self.fleets.get(arm) or self.fleets.get(self._first)

    def _publish(self, night: int) -> Manifest:
        """Returns the newest release of a night; what the fleet learned may be in its weights.

        That is the first arm's, for all arms live with the same releases. From then on the fleet
        learns beyond them, so every arm begins anew.
        """
        before = len(self.publisher.published)
        newest = self.publisher.newest(night, self.fleets.get(self._first))
        if any(release.fleet for release in self.publisher.published[before:]):
            self.fleets.clear()
        return newest

    def _grow(self, release: int) -> None:
        sent = {arm: self._fleet(arm) for arm in self.updates}
        for arm, update in self.updates.items():
            fleet = grow_fleet_patch(sent[arm], update.updates(), self.fleet_rank, release)
            if fleet is not None:
                self.fleets[arm] = fleet

    def _restore(self, plain: Mapping[str, Any] | None) -> int:
        """Takes over the state of an earlier process; returns the first round to run."""
        if plain is None:
            return 0
        state = read_server_state(plain)
        if state.seed != self.seed:
            raise ValueError(f"the checkpoint is of seed {state.seed}, the plan of {self.seed}")
        self.publisher.restore(state.releases)
        self.sums = list(state.sums)
        self.fleets = state.patches()
        if state.learned:
            self.learning.restore(state.learned)
            self.rollouts.restore(state.rollouts)
        self.cataloguer.restore(state.catalogue)
        return state.round + 1

    def _state(self, night: int) -> ServerState:
        return ServerState(
            seed=self.seed,
            round=night,
            sums=tuple(self.sums),
            releases=tuple(
                ReleaseRecord(round=entry.round, digest=entry.manifest.digest, fleet=entry.fleet)
                for entry in self.publisher.published
            ),
            fleets=tuple(map(kept_fleet, self.fleets.items())),
            learned=self.learning.plain(),
            rollouts=self.rollouts.plain(),
            catalogue=self.cataloguer.plain(),
        )


def _copy(content: RecordDict) -> RecordDict:
    """Returns a record dict of its own that shares the (never changed) records."""
    return RecordDict(dict(content.items()))
