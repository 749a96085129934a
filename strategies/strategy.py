"""The Flower Strategy: a night is configured, sent, aggregated and made to last.

Every round sends one message per device and arm (`group_id` is the arm), so all arms live in
lockstep and identical work is computed once. Replies stream into sums in the order of devices. What
is known of an arm is a value of its own (`strategies.rounds.arm_state`).
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
from fleettune.messages.flower_records import Request, encode_request
from fleettune.records import Record
from fleettune.releases.manifest import Manifest
from strategies.aggregation import Aggregate
from strategies.aggregation.fleet_patch import START
from strategies.catalogue.cataloguer import Cataloguer
from strategies.learning.guidance_rules import Fitted
from strategies.plan import Plan
from strategies.releases.publisher import Publisher, ReleaseRecord
from strategies.rollout.rules import Staged
from strategies.rounds.arm_state import (
    ArmRules,
    ArmState,
    add_round,
    assign_releases,
    grow_fleet,
    guidance_for,
)
from strategies.rounds.checkpoint import (
    Checkpoint,
    ServerState,
    read_server_state,
    write_server_state,
)
from strategies.rounds.sums import ExtraCollection, sum_replies


@dataclass(kw_only=True)
class FleetStrategy(Strategy):
    """Emits releases, sums what devices report, averages their deltas.

    Attributes:
        plan: The run.
        publisher: Makes releases when they are due.
        cataloguer: Makes what first tunes may start from.
        checkpoint: Makes rounds last; a run goes on behind the last one that did.
        on_round: Called after every round, before it is made to last.
        policies: The policy of every arm as a record, by arm.
        rules: What all arms have in common.
        arms: What is known of every arm.
        updates: The aggregate of the last round's deltas, by arms that sent any.
    """

    plan: Plan
    publisher: Publisher
    cataloguer: Cataloguer
    checkpoint: Checkpoint | None = None
    on_round: Callable[[], None] = lambda: None
    policies: Mapping[str, Record] = field(init=False)
    rules: ArmRules = field(init=False)
    arms: dict[str, ArmState] = field(init=False)
    updates: dict[str, Aggregate[Any]] = field(default_factory=dict[str, Aggregate[Any]])

    def __post_init__(self) -> None:
        plan = self.plan
        self.policies = plan.policies()
        self.rules = ArmRules(guidance=plan.guidance, staging=plan.rollout, seed=plan.seed)
        self.arms = dict.fromkeys(self.policies, ArmState())

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
                self.checkpoint.commit_round(night, write_server_state(self._state(night)))
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
        nodes = nodes[: self.plan.joining.count_joined(night)] if self.plan.joining.parts else nodes
        found = {
            arm: assign_releases(state, self.rules, nodes, (newest, night))
            for arm, state in self.arms.items()
        }
        self.arms = {arm: state for arm, (state, _) in found.items()}
        assigned = {arm: assignment for arm, (_, assignment) in found.items()}
        contents = {
            (arm, version): self._request(arm, version, night, is_cohort=version in one.members)
            for arm, one in assigned.items()
            for version in one.versions
        }
        for node in self.plan.sampling.choose(nodes, night, self.plan.seed):
            for arm, one in assigned.items():
                yield Message(
                    # a record dict of its own that shares the (never changed) records
                    content=RecordDict(dict(contents[arm, one.of(node)].items())),
                    dst_node_id=node,
                    message_type=MessageType.TRAIN,
                    group_id=arm,
                )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Sums each arm's statistics and averages its deltas; returns the summed joules."""
        # messages are made while replies come in, so nothing may be published before the first one
        night = server_round - 1
        manifest = self._publish(night)
        release, plan = manifest.version, self.plan
        expected = ExpectedDelta(
            release=release,
            shapes=manifest.shapes,
            # a delta as large as the model is none
            limit_bytes=manifest.size_bytes,
        )
        running = sum_replies(
            self.arms,
            replies,
            plan.aggregation,
            expected,
            keeps=isinstance(plan.guidance, Fitted),
            collect=self._collections(release),
        )
        self.updates = {arm: entry.update for arm, entry in running.items() if entry.update.counts}
        self.arms = {
            arm: add_round(state, running[arm], night, release) for arm, state in self.arms.items()
        }
        if plan.fleet_patch == START:
            self.arms |= {
                arm: grow_fleet(
                    self.arms[arm], self._fleet(arm), update.updates(), plan.fleet_rank, release
                )
                for arm, update in self.updates.items()
            }
        totals: dict[str, int | float | list[int] | list[float]] = {
            f"{arm}.energy_j": state.sums[-1].energy_j for arm, state in self.arms.items()
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

    def _request(self, arm: str, version: int, night: int, *, is_cohort: bool) -> RecordDict:
        """Returns what an arm's devices are asked, with what they are told of a release.

        Args:
            arm: The arm.
            version: Version of the release.
            night: The round, 0-based.
            is_cohort: Whether this is for a first cohort.
        """
        release = self.publisher.published[version].manifest
        guidance = guidance_for(self.arms[arm], self.rules, version, is_cohort=is_cohort)
        return encode_request(
            Request(
                arm=arm,
                round=night,
                release=release if guidance is None else replace(release, guidance=guidance),
                policy=self.policies[arm],
                observe=self.plan.observe,
                fleet=self._fleet(arm),
                catalogue=self.cataloguer.offer(
                    [entry.manifest for entry in self.publisher.published[: version + 1]]
                ),
            )
        )

    def _collections(self, release: int) -> dict[str, ExtraCollection]:
        """Returns what is collected beside the sums: a cohort's reports, deltas for a catalogue.

        The catalogue is of the first arm's world, as the fleet patch in a release is.
        """
        staged = release if isinstance(self.plan.rollout, Staged) else None
        found = dict.fromkeys(self.arms, ExtraCollection(staged=staged))
        first = next(iter(self.arms))
        found[first] = replace(found[first], share=self.cataloguer.share(release))
        return found

    def _fleet(self, arm: str) -> Patch | None:
        """Returns an arm's fleet patch; the first arm's for one whose devices never tune."""
        return self.arms[arm].fleet or next(iter(self.arms.values())).fleet

    def _publish(self, night: int) -> Manifest:
        """Returns the newest release of a night; what the fleet learned may be in its weights.

        That is the first arm's, for all arms live with the same releases. From then on the fleet
        learns beyond them, so every arm begins anew.
        """
        before = len(self.publisher.published)
        newest = self.publisher.newest(night, next(iter(self.arms.values())).fleet)
        if any(release.fleet for release in self.publisher.published[before:]):
            self.arms = {arm: replace(state, fleet=None) for arm, state in self.arms.items()}
        return newest

    def _restore(self, plain: Mapping[str, Any] | None) -> int:
        """Takes over the state of an earlier process; returns the first round to run."""
        if plain is None:
            return 0
        state = read_server_state(plain)
        if state.seed != self.plan.seed:
            raise ValueError(
                f"the checkpoint is of seed {state.seed}, the plan of {self.plan.seed}"
            )
        self.publisher.restore(state.releases)
        self.arms = dict(state.arms)
        self.cataloguer.restore(state.catalogue)
        return state.round + 1

    def _state(self, night: int) -> ServerState:
        return ServerState(
            seed=self.plan.seed,
            round=night,
            arms=self.arms,
            releases=tuple(
                ReleaseRecord(round=entry.round, digest=entry.manifest.digest, fleet=entry.fleet)
                for entry in self.publisher.published
            ),
            catalogue=self.cataloguer.plain(),
        )
