"""A hostile device is one rejected reply, in the server's sums and in a whole run."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from flwr.app import Context, Message

from tests.faults.forked_runs import FLEET, ran
from tests.faults.table import settle
from tests.strategies.rounds.test_hostile_replies import (
    BAD_DELTAS,
    BAD_STATISTICS,
    hostile,
    outcome,
    reply,
    sum_replies,
)

pytestmark = pytest.mark.faults

KINDS = {**BAD_STATISTICS, **BAD_DELTAS}


def test_a_hundred_kinds_of_hostile_replies_are_each_one_rejected_reply() -> None:
    outcomes: dict[object, str] = {}
    for name, spoil in KINDS.items():
        night = iter([reply(0, delta=1.0), hostile(1, spoil), reply(2, delta=1.0)])
        closed = sum_replies("a", night)["a"].close(0, 0)
        good = sum(closed.rejected.values()) == 1 and closed.update_norm == pytest.approx(1.0)
        outcomes[name] = f"rejected as {next(iter(closed.rejected))}" if good else "wrong"
    settle("a hostile reply to the server", outcomes)


def test_a_run_with_a_hostile_device_goes_on_to_its_end(undisturbed: Path, tmp_path: Path) -> None:
    assert undisturbed.exists()
    chosen = [*list(BAD_STATISTICS)[::12], *list(BAD_DELTAS)[::6]]
    lies = {f"names device {number}": outcome(device=number) for number in (0, 2)}
    outcomes: dict[object, str] = {}
    for number, (name, spoil) in enumerate(
        [*((name, KINDS[name]) for name in chosen), *lies.items()]
    ):
        folder = tmp_path / str(number)

        def take_over(spoil: object = spoil) -> None:
            import simulations.run as made  # noqa: PLC0415 - in the fork alone

            honest = made.client_app

            def answer(message: Message, context: Context) -> Message:
                said = honest(message, context)
                if context.node_config["partition-id"] == 1:
                    spoil(said.content)  # pyright: ignore[reportCallIssue] - a Spoil
                return said

            made.client_app = answer  # pyright: ignore[reportAttributeAccessIssue] - as above

        code, _ = ran(folder, [*FLEET, "rounds=2", "fleet.devices=3"], take_over)
        if code:
            outcomes[name] = "wrong"
            continue
        # threads of this process would be lost in the next fork
        rounds = pq.read_table(folder / "run" / "rounds.parquet", use_threads=False).to_pylist()
        counted = [
            sum(n for key, n in one.items() if key.startswith("rejected_")) for one in rounds
        ]
        good = counted == [1, 1]
        outcomes[name] = "ran to its end, counted by its reason" if good else "silent"
    settle("a whole run with a hostile device", outcomes)
