"""Runs unmodified Flower apps on a grid of ours: devices in cohorts, replies as they come.

Device ids are partition + 1; the registry is a range, not a list of objects. A round's messages
are taken cohort by cohort, all arms of a device in the same cohort, and each cohort's calls are
suspended at their compute jobs so that these run as batches. Cohorts follow the order of the
messages, never timing. The observer's records are taken out of every reply before the
strategy sees it. What devices keep is loaded before their cohort and saved behind it, so no more
than one cohort's states are in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fleettune.backbone.processor import CPU, REFERENCE
from fleettune.cohort.execute import RunBatches, execute, run_batches_here
from fleettune.cohort.suspension import run_cohort
from simulations.checkpoint.store import DeviceStates, MemoryStates
from simulations.engines.flower_internals import empty_run, number_message, take_identity

RUN_ID = 1


class Observer(Protocol):
    """Sees every reply before the strategy does, and may take records out of it."""

    def __call__(self, arm: str, content: RecordDict, device: int | None, /) -> None:
        """Looks at one reply's records; `device` is whose they are, where the grid knows."""
        ...


class Rounds(Protocol):
    """Commits rounds, so that a run can go on after a kill."""

    def commit_round(self, round_number: int, server_state: Mapping[str, Any]) -> None:
        """Commits a round: device states, rows and server state, all or nothing."""
        ...

    def server_state(self) -> Mapping[str, Any] | None:
        """Returns the server state of the last committed round; None before the first one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NoCheckpoint:
    """Rounds that end with the process."""

    def commit_round(self, round_number: int, server_state: Mapping[str, Any]) -> None:
        """Keeps nothing."""

    def server_state(self) -> Mapping[str, Any] | None:
        """Has nothing."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """Which devices there are and what their local configuration says.

    Attributes:
        devices: Number of devices.
        fleet: Path of the fleet file that every device reads.
    """

    devices: int
    fleet: str


class DeviceFailedError(RuntimeError):
    """A device's code raised; says which device, round and arm."""


@dataclass(kw_only=True)
class CohortGrid(Grid):
    """Runs a ClientApp on a registry of devices, in process.

    Attributes:
        client: The app that every device runs.
        registry: The devices.
        cohort_size: Devices computed together.
        observer: Sees every reply first.
        run_batches: Runs the batched passes.
        precision: ``reference`` or ``fast``.
        processor: Where passes run, ``cpu`` or ``cuda``.
        on_cohort: Called with the number of devices done after each cohort.
        states: What each device keeps, by arm and node.
        rounds: Commits rounds.
    """

    client: ClientApp
    registry: Registry
    cohort_size: int
    observer: Observer
    run_batches: RunBatches = run_batches_here
    precision: str = REFERENCE
    processor: str = CPU
    on_cohort: Callable[[int], None] = lambda _devices: None
    states: DeviceStates = field(default_factory=MemoryStates)
    rounds: Rounds = field(default_factory=NoCheckpoint)
    _run: Run = field(default_factory=partial(empty_run, RUN_ID))
    _sent: int = 0
    _replies: dict[str, Message] = field(default_factory=dict[str, Message])

    def __post_init__(self) -> None:
        take_identity(RUN_ID)

    def set_run(self, run: Run) -> None:
        """Keeps Flower's description of the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's description of the run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Returns a message to one device."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Sequence[int]:
        """Returns all ids, 1 to the number of devices, without making a list."""
        return range(1, self.registry.devices + 1)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Runs the messages and keeps the replies for `pull_messages`; returns the ids."""
        replies = {
            reply.metadata.reply_to_message_id: reply for reply in self.send_and_receive(messages)
        }
        self._replies.update(replies)
        return list(replies)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Returns the replies to these messages that are there."""
        return [self._replies.pop(key) for key in list(message_ids) if key in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Yields replies cohort by cohort, as far as the caller reads on."""
        for cohort in self._cohorts(messages):
            yield from self._execute(cohort)
            self.on_cohort(len({message.metadata.dst_node_id for message in cohort}))

    def commit_round(self, round_number: int, server_state: Mapping[str, Any]) -> None:
        """Commits a round; a server app that wants its run to be resumable calls it."""
        self.rounds.commit_round(round_number, server_state)

    def restored_state(self) -> Mapping[str, Any] | None:
        """Returns the server state that a resumed run goes on from; None for a new run."""
        return self.rounds.server_state()

    def _cohorts(self, messages: Iterable[Message]) -> Iterator[list[Message]]:
        cohort: list[Message] = []
        devices: set[int] = set()
        for message in messages:
            self._sent += 1
            number_message(message, self._sent)
            node = message.metadata.dst_node_id
            if node not in devices and len(devices) == self.cohort_size:
                yield cohort
                cohort, devices = [], set()
            cohort.append(message)
            devices.add(node)
        if cohort:
            yield cohort

    def _execute(self, messages: Sequence[Message]) -> list[Message]:
        holders = [
            (message.metadata.group_id, message.metadata.dst_node_id) for message in messages
        ]
        states = self.states.load(holders)
        calls = [
            partial(self._call, message, states[holder])
            for message, holder in zip(messages, holders, strict=True)
        ]
        run = partial(
            execute,
            run_batches=self.run_batches,
            precision=self.precision,
            processor=self.processor,
        )
        replies = run_cohort(calls, run)
        self.states.save(states)
        for message, reply in zip(messages, replies, strict=True):
            device = message.metadata.dst_node_id - 1
            self.observer(message.metadata.group_id, reply.content, device)
        return replies

    def _call(self, message: Message, state: RecordDict) -> Message:
        node, arm = message.metadata.dst_node_id, message.metadata.group_id
        context = Context(
            run_id=RUN_ID,
            node_id=node,
            node_config={"partition-id": node - 1, "fleet": self.registry.fleet},
            state=state,
            run_config={},
        )
        try:
            return self.client(message, context)
        except Exception as error:
            raise DeviceFailedError(
                f"device {node - 1} failed in {_round(message)}arm {arm}: "
                f"{type(error).__name__}: {error}"
            ) from error


def _round(message: Message) -> str:
    request = message.content.config_records.get("request")
    return "" if request is None or "round" not in request else f"round {request['round']} of "
