"""The grid: ids, order, cohorts, and an observer whose records no strategy ever sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest
from flwr.app import ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fleettune.backbone.causal_lm import POCKET_V1_FOLDER
from fleettune.cohort.execute import JobBatch, run_batches_here
from fleettune.cohort.suspension import current_compute
from fleettune.cost.ledger import Ledger, Stage
from fleettune.cost.workload import Amount, Phase, Workload
from fleettune.jobs.jobs import Compute, EmbedJob, Result
from fleettune.messages.flower_records import encode_report, take_observation
from fleettune.messages.report import Observation, Outcome, Report, Statistics
from simulations.engines.cohort_grid import RUN_ID, CohortGrid, DeviceFailedError, Registry
from simulations.engines.flower_internals import empty_run, number_message, take_identity
from simulations.results.recorder import Recorder

Event = tuple[str, int, str]
WORK = Workload(
    entries=(
        (Stage.SERVE, Phase.PREFILL, Amount(flop=3.0, moved_bytes=5.0)),
        (Stage.UPLOAD, Phase.SEND, Amount(moved_bytes=7.0, bursts=1.0)),
    )
)


@dataclass(slots=True)
class Fleet:
    """A trivial ClientApp on a grid, with everything that happened in order."""

    events: list[Event] = field(default_factory=list[Event])
    recorder: Recorder = field(default_factory=Recorder)
    failing: int | None = None

    def app(self) -> ClientApp:
        app = ClientApp()

        @app.train()
        def train(message: Message, context: Context) -> Message:  # pyright: ignore[reportUnusedFunction] - registered
            device = int(context.node_config["partition-id"])
            self.events.append(("call", device, message.metadata.group_id))
            if device == self.failing:
                raise KeyError("the cupboard is bare")
            nights = context.state.config_records.get("nights", ConfigRecord({"lived": 0}))
            lived = int(str(nights["lived"])) + 1
            context.state["nights"] = ConfigRecord({"lived": lived})
            return Message(encode_report(report(device, lived)), reply_to=message)

        return app

    def grid(self, devices: int = 5, cohort_size: int = 2) -> CohortGrid:
        return CohortGrid(
            client=self.app(),
            registry=Registry(devices=devices, fleet="fleet.json"),
            cohort_size=cohort_size,
            observer=self.recorder,
            on_cohort=lambda count: self.events.append(("cohort", count, "")),
        )


def report(device: int, lived: int) -> Report:
    outcome = Outcome(
        device=device, round=lived - 1, release=0, profile="phone", decision="none", reason="test"
    )
    statistics = Statistics(
        outcome=outcome,
        ledger=Ledger(),
        drift=None,
        strength=None,
        buffer_exchanges=lived,
        buffer_bytes=0,
        stored_bytes=0,
        tune_steps=0,
        train_tokens=0,
    )
    seen = Observation(exchanges=1, nll=0.5, exact_match=1.0, approval=1.0)
    return Report(statistics=statistics, delta=None, observation=seen, workload=WORK)


def messages(nodes: Sequence[int], arms: Sequence[str] = ("a",)) -> Iterator[Message]:
    for node in nodes:
        for arm in arms:
            content = RecordDict({"request": ConfigRecord({"round": 7})})
            yield Message(content, node, MessageType.TRAIN, group_id=arm)


def test_ids_are_partition_plus_one_and_no_list_of_them_is_made() -> None:
    ids = Fleet().grid(devices=10**7).get_node_ids()
    assert (ids[0], ids[-1], len(ids)) == (1, 10**7, 10**7)
    assert isinstance(ids, range)


def test_a_device_is_told_its_partition_and_its_fleet_file() -> None:
    fleet = Fleet()
    list(fleet.grid().send_and_receive(messages([1, 5])))
    assert [event for event in fleet.events if event[0] == "call"] == [
        ("call", 0, "a"),
        ("call", 4, "a"),
    ]


def test_replies_come_in_the_order_of_the_messages() -> None:
    fleet = Fleet()
    replies = list(fleet.grid().send_and_receive(messages([4, 2, 5], ["b", "a"])))
    came = [(reply.metadata.src_node_id, reply.metadata.group_id) for reply in replies]
    assert came == [(4, "b"), (4, "a"), (2, "b"), (2, "a"), (5, "b"), (5, "a")]


def test_all_arms_of_a_device_share_a_cohort_and_cohorts_follow_the_messages() -> None:
    fleet = Fleet()
    list(fleet.grid(cohort_size=2).send_and_receive(messages(range(1, 6), ["a", "b"])))
    assert fleet.events == [
        *(("call", device, arm) for device in (0, 1) for arm in "ab"),
        ("cohort", 2, ""),
        *(("call", device, arm) for device in (2, 3) for arm in "ab"),
        ("cohort", 2, ""),
        *(("call", 4, arm) for arm in "ab"),
        ("cohort", 1, ""),
    ]


def test_no_more_is_run_than_the_caller_reads() -> None:
    fleet = Fleet()
    replies = iter(fleet.grid(cohort_size=2).send_and_receive(messages(range(1, 6))))
    next(replies)
    assert {event[1] for event in fleet.events if event[0] == "call"} == {0, 1}


def test_no_messages_are_no_replies() -> None:
    assert list(Fleet().grid().send_and_receive([])) == []


def test_observation_and_workload_reach_the_recorder_and_never_the_caller() -> None:
    fleet = Fleet()
    replies = list(fleet.grid().send_and_receive(messages(range(1, 6), ["a", "b"])))
    assert len(replies) == 10
    for reply in replies:
        assert set(reply.content) == {"statistics", "outcome"}
        assert take_observation(reply.content) == (None, Workload())
    rows = fleet.recorder.frame()
    assert rows["eval_exchanges"].to_list() == [1] * 10
    assert rows["nll"].to_list() == [0.5] * 10
    work = fleet.recorder.work()
    assert work.select("arm", "device", "round").rows() == [
        (arm, device, 0) for arm in "ab" for device in range(5) for _ in range(2)
    ]
    assert work.drop("arm", "device", "round").rows()[:2] == [
        ("serve", "prefill", 3.0, 5.0, 0.0),
        ("upload", "send", 0.0, 7.0, 1.0),
    ]


def test_each_arm_of_a_device_keeps_a_state_of_its_own_between_rounds() -> None:
    fleet = Fleet()
    grid = fleet.grid()
    list(grid.send_and_receive(messages([1], ["a", "b"])))
    list(grid.send_and_receive(messages([1, 2], ["a"])))
    rows = fleet.recorder.frame().select("arm", "device", "buffer_exchanges").rows()
    assert rows == [("a", 0, 1), ("a", 0, 2), ("a", 1, 1), ("b", 0, 1)]


def test_a_failing_device_is_named_with_its_arm_and_round() -> None:
    fleet = Fleet(failing=3)
    with pytest.raises(
        DeviceFailedError, match=r"device 3 failed in round 7 of arm b: .*cupboard is bare"
    ):
        list(fleet.grid().send_and_receive(messages([4], ["b"])))


def test_devices_that_wait_for_compute_do_not_change_the_order_of_replies() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:  # pyright: ignore[reportUnusedFunction] - registered
        device = int(context.node_config["partition-id"])
        compute: Compute = current_compute()
        if device % 2:  # every second device asks the model, the others are done at once
            prompts = ((device + 1, 2, 3),)
            compute.embed(EmbedJob(release=str(POCKET_V1_FOLDER), patch=None, prompts=prompts))
        return Message(RecordDict({"m": MetricRecord({"device": device})}), reply_to=message)

    grid = CohortGrid(
        client=app,
        registry=Registry(devices=4, fleet=""),
        cohort_size=4,
        observer=lambda arm, content, device: None,
        on_cohort=lambda count: None,
    )
    replies = grid.send_and_receive(messages([4, 3, 2, 1]))
    assert [reply.content.metric_records["m"]["device"] for reply in replies] == [3, 2, 1, 0]


def test_passes_run_with_the_precision_and_on_the_processor_of_the_grid() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:  # pyright: ignore[reportUnusedFunction] - registered
        del context
        job = EmbedJob(release=str(POCKET_V1_FOLDER), patch=None, prompts=((1, 2, 3),))
        current_compute().embed(job)
        return Message(RecordDict(), reply_to=message)

    asked: list[tuple[str, str]] = []

    def run_batches(parts: Sequence[JobBatch]) -> Iterable[Sequence[Result]]:
        asked.extend((part.precision, part.processor) for part in parts)
        return run_batches_here(
            [replace(part, precision="reference", processor="cpu") for part in parts]
        )

    grid = CohortGrid(
        client=app,
        registry=Registry(devices=1, fleet=""),
        cohort_size=1,
        observer=lambda arm, content, device: None,
        run_batches=run_batches,
        precision="fast",
        processor="cuda",
    )
    list(grid.send_and_receive(messages([1])))
    assert asked == [("fast", "cuda")]


def test_pushed_messages_are_pulled_once_by_the_ids_of_their_own_push() -> None:
    grid = Fleet().grid()
    first = list(grid.push_messages(messages([1, 2])))
    second = list(grid.push_messages(messages([3])))
    assert (len(first), len(second), len({*first, *second})) == (2, 1, 3)
    pulled = [reply.metadata.src_node_id for reply in grid.pull_messages(second)]
    assert pulled == [3]
    assert [reply.metadata.src_node_id for reply in grid.pull_messages(first)] == [1, 2]
    assert list(grid.pull_messages(first)) == []


# The private pieces of Flower that `simulations.engines.flower_internals` touches: a contract.


def test_flower_takes_the_identity_that_we_give_it() -> None:
    take_identity(77)
    try:
        message = Message(RecordDict(), 3, MessageType.TRAIN)
        assert (message.metadata.run_id, message.metadata.src_node_id) == (77, 1)
    finally:
        take_identity(RUN_ID)


def test_flower_keeps_the_number_that_we_give_a_message() -> None:
    take_identity(RUN_ID)
    message = Message(RecordDict(), 3, MessageType.TRAIN, group_id="a")
    assert number_message(message, 255) == "00000000000000ff"
    assert message.metadata.message_id == "00000000000000ff"
    reply = Message(RecordDict(), reply_to=message)
    assert reply.metadata.reply_to_message_id == "00000000000000ff"
    assert (reply.metadata.src_node_id, reply.metadata.group_id) == (3, "a")


def test_flower_describes_an_empty_run_by_its_id() -> None:
    assert empty_run(9).run_id == 9
    assert Fleet().grid().run.run_id == RUN_ID


def test_a_grid_keeps_the_run_that_it_is_given() -> None:
    grid = Fleet().grid()
    grid.set_run(empty_run(4))
    assert grid.run.run_id == 4
