"""A round's replies: streamed in the order of devices, sorted where they come all at once."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from flwr.app import Message, MessageType, RecordDict

from fleettune.adapters.patch import Factors, Patch
from fleettune.cost.ledger import Cost, Ledger, Stage
from fleettune.messages.flower_records import encode_report
from fleettune.messages.report import Outcome, Report, Statistics
from fleettune.shapes import Site
from simulations.engines.flower_internals import take_identity
from strategies.rounds.sums import sum_replies


def reply(device: int, arm: str = "a", energy_j: float = 1.0, delta: float = 0.0) -> Message:
    outcome = Outcome(
        device=device,
        round=0,
        release=0,
        profile="phone",
        attendance="present",
        decision="retune",
        reason="test",
    )
    ledger = Ledger(costs=((Stage.TUNE, Cost(energy_j=energy_j)),))
    statistics = Statistics(
        outcome=outcome,
        ledger=ledger,
        night_s=1.0,
        drift=None,
        strength=None,
        buffer_exchanges=0,
        buffer_bytes=0,
        stored_bytes=0,
        tune_steps=0,
        train_tokens=0,
        cache_bytes=0,
    )
    factors = Factors(a=np.full((1, 1), delta, np.float32), b=np.ones((1, 1), np.float32))
    patch = Patch(release=0, alpha=1.0, factors={Site(0, "q"): factors}) if delta else None
    take_identity(1)
    asked = Message(RecordDict(), device + 1, MessageType.TRAIN, group_id=arm)
    report = Report(statistics=statistics, delta=patch, observation=None)
    return Message(encode_report(report), reply_to=asked)


def test_sums_by_hand() -> None:
    sums = sum_replies(
        "ab", iter([reply(0, "a", 2.0, 1.0), reply(0, "b", 7.0), reply(3, "a", 3.0, 3.0)])
    )
    closed = sums["a"].close(4, 1)
    assert (closed.round, closed.release, closed.devices, closed.failed) == (4, 1, 2, 0)
    assert (closed.energy_j, closed.decisions) == (2.0 + 3.0, {"retune": 2})
    assert closed.update_norm == 2.0  # the mean of 1 and 3
    assert (sums["b"].energy_j, sums["b"].update.counts) == (7.0, {})


def test_nothing_of_a_streamed_reply_stays() -> None:
    seen: list[weakref.ref[RecordDict]] = []

    def stream() -> Iterator[Message]:
        for device in range(5):
            made = reply(device, delta=1.0)
            seen.append(weakref.ref(made.content))
            yield made
            del made
            gc.collect()
            # the one in work may still be held, those before it may not
            assert [kept() for kept in seen[:-1]] == [None] * (len(seen) - 1)

    assert sum_replies("a", stream())["a"].devices == 5


def test_a_list_of_replies_is_added_in_the_order_of_devices_to_the_last_bit() -> None:
    # 0.1 + 0.2 + 0.3 is 0.6000000000000001, and 0.6 the other way round
    replies = [reply(device, energy_j=0.1 * (device + 1)) for device in range(3)]
    forward, backward = sum_replies("a", iter(replies)), sum_replies("a", replies[::-1])
    assert forward["a"].energy_j == backward["a"].energy_j == 0.1 + 0.2 + 0.1 * 3
    assert forward["a"].close(0, 0) == backward["a"].close(0, 0)


def test_a_stream_out_of_order_is_refused() -> None:
    with pytest.raises(RuntimeError, match="got node 2 after 3 in arm a"):
        sum_replies("a", iter([reply(2), reply(1)]))


def test_an_error_counts_as_a_failed_device() -> None:
    from flwr.app import Error  # noqa: PLC0415 - for this test alone

    take_identity(1)
    asked = Message(RecordDict(), 1, MessageType.TRAIN, group_id="a")
    failed = Message(Error(code=2, reason="it broke"), reply_to=asked)
    sums = sum_replies("a", [reply(4), failed])
    assert (sums["a"].failed, sums["a"].devices) == (1, 1)
