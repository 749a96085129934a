"""Deltas that are not taken: counted by their reason, while the round goes on without them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MessageType, RecordDict

from fleettune.adapters.factors import Factors
from fleettune.adapters.patch import Patch
from fleettune.deltas.frames import write_frame
from fleettune.deltas.rejections import Rejection
from fleettune.messages.flower_records import DELTA, decode_statistics, encode_report
from fleettune.messages.report import Report
from fleettune.shapes import Site
from simulations.engines.flower_internals import take_identity
from strategies.aggregation import Aggregation, ExactMean, FactorMean, Ffa
from strategies.rounds.sums import sum_replies
from tests.fleettune.deltas.test_codecs import EXPECTED, PLAIN, WRONG, trained
from tests.strategies.rounds.test_sums import reply


def sent(device: int, frame: bytes, exchanges: int = 0) -> Message:
    """A reply whose delta is any bytes."""
    statistics = replace(decode_statistics(reply(device).content), buffer_exchanges=exchanges)
    content = encode_report(
        Report(statistics=statistics, delta=of(1.0), observation=None, frame=frame)
    )
    take_identity(1)
    asked = Message(RecordDict(), device + 1, MessageType.TRAIN, group_id="a")
    return Message(content, reply_to=asked)


def of(b: float, alpha: float = 1.0) -> Patch:
    """A patch of one site that any shapes of these tests have."""
    item = Factors(a=np.eye(1, 24, dtype=np.float32), b=np.full((24, 1), b, np.float32))
    return Patch(release=2, alpha=alpha, factors={Site(0, "q"): item})


def test_every_kind_of_wrong_delta_is_counted_and_the_right_ones_are_averaged() -> None:
    good = [trained(PLAIN, seed=1), trained(PLAIN, seed=2)]
    frames = [write_frame(good[0]), *WRONG.values(), write_frame(good[1])]

    def stream() -> Iterator[Message]:
        yield from (sent(device, frame) for device, frame in enumerate(frames))

    found = sum_replies("a", stream(), expected=EXPECTED)["a"]
    alone = ExactMean().open()
    for patch in good:
        alone.add(patch, 1.0)
    for site, value in alone.mean().items():
        assert found.update.mean()[site].tobytes() == value.tobytes()
    closed = found.close(0, 2)
    assert closed.rejected == {reason.value: 1 for reason in WRONG}
    # a device whose delta is not taken did its night: its joules and its bytes count
    assert (closed.devices, closed.failed, closed.energy_j) == (len(frames), 0, len(frames))


def test_every_reason_to_refuse_a_delta_is_tested_here() -> None:
    at_the_rule = {Rejection.UNLIKE_A, Rejection.UNLIKE_RANK}
    of_the_reply = {Rejection.DECISION, Rejection.STATISTICS, Rejection.DEVICE}
    # tests/strategies/rounds/test_hostile_replies.py has those, and entries out of range
    assert set(WRONG) | at_the_rule | of_the_reply == set(Rejection) - {Rejection.OUT_OF_RANGE}


def test_a_delta_that_is_no_frame_at_all_is_unreadable() -> None:
    broken = sent(0, b"")
    other = sent(1, b"")
    other.content[DELTA] = ArrayRecord({"0.q.a": Array(np.ones(3, np.float32))})
    sums = sum_replies("a", iter([broken, other]), expected=EXPECTED)["a"]
    assert sums.rejected == {"unreadable": 2}
    assert sums.update.counts == {}


@pytest.mark.parametrize(
    ("rule", "wrong", "reason"),
    [
        (Ffa(), replace(of(1.0), factors=trained(PLAIN).factors), "unlike_a"),
        (FactorMean(), of(1.0, alpha=3.0), "unlike_rank"),
    ],
    ids=["ffa", "factor_mean"],
)
def test_what_a_rule_cannot_take_is_counted_as_well(
    rule: Aggregation, wrong: Patch, reason: str
) -> None:
    replies = [
        sent(0, write_frame(of(1.0))),
        sent(1, write_frame(wrong)),
        sent(2, write_frame(of(3.0))),
    ]
    sums = sum_replies("a", iter(replies), rule, EXPECTED)["a"]
    assert sums.rejected == {reason: 1}
    assert sums.update.mean()[Site(0, "q")][0, 0] == 2.0


def test_devices_count_as_one_or_by_their_exchanges_by_hand() -> None:
    replies = [sent(0, write_frame(of(1.0)), 30), sent(1, write_frame(of(5.0)), 10)]
    for weights, wanted in (("uniform", 3.0), ("examples", 2.0)):
        sums = sum_replies("a", iter(replies), ExactMean(weights=weights), EXPECTED)["a"]
        assert sums.update.mean()[Site(0, "q")][0, 0] == wanted
