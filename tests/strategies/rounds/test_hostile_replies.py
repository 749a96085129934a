"""One bad reply is one rejected reply: it is counted by its reason, and the night goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from safetensors.numpy import save

from fleettune.adapters.factors import Factors
from fleettune.adapters.patch import Patch
from fleettune.deltas.frames import LARGEST, write_frame
from fleettune.messages.flower_records import DELTA, FRAME, OUTCOME, STATISTICS
from fleettune.messages.report import AMOUNTS, ATTENDANCES, DECISIONS, PAYLOADS
from fleettune.shapes import Site
from simulations.engines.flower_internals import take_identity
from strategies.aggregation import Aggregation
from strategies.aggregation.aggregate import mean_norm
from strategies.rounds.sums import sum_replies
from tests.strategies.aggregation.deltas import EVERY
from tests.strategies.rounds.test_sums import reply

Spoil = Callable[[RecordDict], object]


def framed(data: bytes) -> ArrayRecord:
    return ArrayRecord({FRAME: Array("uint8", (len(data),), "bytes", data)})


def header(text: str) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode()


def patch_of(value: float, alpha: float = 1.0) -> Patch:
    item = Factors(a=np.eye(1, 24, dtype=np.float32), b=np.full((24, 1), value, np.float32))
    return Patch(release=0, alpha=alpha, factors={Site(0, "q"): item})


def forged(**told: str) -> bytes:
    """A frame whose header says something else than its arrays hold, with a digest that fits."""
    from fleettune.deltas import frames  # noqa: PLC0415 - its digest is no part of its face

    frame = write_frame(patch_of(1.0))
    held, parts = frames._open_frame(frame)  # pyright: ignore[reportPrivateUsage] - as above
    held = {k: v for k, v in held.items() if k != "digest"} | told
    held["digest"] = frames._digest(held, parts)  # pyright: ignore[reportPrivateUsage] - as above
    return save(dict(parts), metadata=held)


def outcome(**told: Any) -> Spoil:  # noqa: ANN401 - hostile values
    def spoil(content: RecordDict) -> None:
        content[OUTCOME] = ConfigRecord({**content.config_records[OUTCOME], **told})

    return spoil


def numbers(**told: Any) -> Spoil:  # noqa: ANN401 - hostile values
    def spoil(content: RecordDict) -> None:
        content[STATISTICS] = MetricRecord({**content.metric_records[STATISTICS], **told})

    return spoil


def delta(data: bytes) -> Spoil:
    def spoil(content: RecordDict) -> None:
        content[DELTA] = framed(data)

    return spoil


def without(name: str) -> Spoil:
    return lambda content: content.pop(name) and None


def beside(name: str) -> Spoil:
    def spoil(content: RecordDict) -> None:
        content[name] = MetricRecord({"x": 1.0})

    return spoil


BAD_STATISTICS: dict[str, Spoil] = {
    "no outcome": without(OUTCOME),
    "no statistics": without(STATISTICS),
    "a record of its own": beside("diary"),
    "a sentence as a reason": outcome(reason="my password is hunter2"),
    "dots in a reason": outcome(reason="my.password.is.hunter2"),
    "a long reason": outcome(reason="a" * 41),
    "an empty reason": outcome(reason=""),
    "a megabyte as a reason": outcome(reason="x" * 1_000_000),
    "an unknown decision": outcome(decision="explode"),
    "an unknown attendance": outcome(attendance="late_again"),
    "an unknown payload": outcome(payload="everything"),
    "a number as a decision": outcome(decision=3),
    "a device below 0": outcome(device=-1),
    "a device as text": outcome(device="0"),
    "a release beyond all": outcome(release=2**62),
    "an unknown word": outcome(diary="dear_diary"),
    "an unknown number": numbers(age=3.0),
    "an unknown stage": numbers(**{"dream.energy_j": 1.0}),
    "an unknown cost": numbers(**{"tune.love": 1.0}),
    "charge above 1": numbers(soc=1.5),
    "a list as a number": numbers(soc=[1.0]),
    **{
        f"{value} joules": numbers(**{"tune.energy_j": value})
        for value in (math.nan, math.inf, -math.inf, -1.0, 1e300)
    },
    **{f"{name} is {value}": numbers(**{name: value}) for name in AMOUNTS for value in (-1, 2**62)},
    **{
        f"{name} is no number": numbers(**{name: math.nan})
        for name in ("start_s", "night_s", "soc")
    },
}
BAD_STATISTICS |= {f"{name} is a list": numbers(**{name: [1.0, 2.0]}) for name in AMOUNTS}
BAD_DELTAS: dict[str, Spoil] = {
    "nothing": delta(b""),
    "nine bytes": delta(b"\0" * 9),
    "a header that claims 2^60 bytes": delta((2**60).to_bytes(8, "little") + b"{}"),
    "a deep header": delta(header("[" * 60_000)),
    "a deep object": delta(header('{"a":' * 10_000)),
    "no object": delta(header("3")),
    "null for arrays": delta(header('{"__metadata__": null}')),
    "a list for arrays": delta(header('{"__metadata__": [], "x": 3}')),
    "an array of 2^60 bytes": delta(
        header(
            json.dumps({"values": {"dtype": "F32", "shape": [2**58], "data_offsets": [0, 2**60]}})
        )
    ),
    "no digest": delta(save({"values": np.zeros(3, np.float32)}, metadata={"schema": "1"})),
    "two arrays": lambda content: content.__setitem__(
        DELTA,
        ArrayRecord({n: Array("uint8", (1,), "bytes", b"x") for n in (FRAME, "more")}),
    ),
    "an array of numpy": lambda content: content.__setitem__(
        DELTA, ArrayRecord({FRAME: Array(np.zeros(3))})
    ),
    "a rank of 0": delta(forged(sites="0.q=0")),
    "a rank below 0": delta(forged(sites="0.q=-4")),
    "a rank of 10^12": delta(forged(sites=f"0.q={10**12}")),
    "sizes of 10^9": delta(forged(sizes=f"q{10**9}x{10**9}")),
    "sizes of 0": delta(forged(sizes="q0x0")),
    "an unknown site": delta(forged(sites="0.heart=1")),
    "a layer below 0": delta(forged(sites="-1.q=1")),
    "the same site twice": delta(forged(sites="0.q.q=1")),
    "no site": delta(forged(sites="")),
    "an unknown codec": delta(forged(codec="zip")),
    "top_k without places": delta(forged(codec="top_k")),
    "int8 without scales": delta(forged(codec="int8")),
    "another schema": delta(forged(schema="2")),
    "a release as text": delta(forged(release="new")),
    **{
        f"alpha {value}": delta(forged(alpha=value)) for value in ("nan", "inf", "0", "-1", "1e300")
    },
    **{f"entries of {value}": delta(write_frame(patch_of(value))) for value in (1e7, 3e38, -3e38)},
}


def hostile(device: int, spoil: Spoil) -> Message:
    made = reply(device)
    spoil(made.content)
    take_identity(1)
    asked = Message(RecordDict(), device + 1, MessageType.TRAIN, group_id="a")
    return Message(made.content, reply_to=asked)


@pytest.mark.parametrize("name", BAD_STATISTICS)
def test_a_reply_with_bad_statistics_is_rejected_whole(name: str) -> None:
    night = iter([reply(0), hostile(1, BAD_STATISTICS[name]), reply(2)])
    closed = sum_replies("a", night)["a"].close(0, 0)
    assert closed.rejected == {"bad_statistics": 1}
    assert (closed.devices, closed.energy_j, closed.failed) == (2, 2.0, 0)


@pytest.mark.parametrize("name", BAD_DELTAS)
def test_a_bad_delta_is_rejected_and_its_night_is_counted(name: str) -> None:
    night = iter([reply(0, delta=1.0), hostile(1, BAD_DELTAS[name]), reply(2, delta=1.0)])
    found = sum_replies("a", night)["a"]
    closed = found.close(0, 0)
    assert sum(closed.rejected.values()) == 1, closed.rejected
    assert (closed.devices, closed.energy_j) == (3, 3.0)
    assert closed.update_norm == pytest.approx(1.0)  # of the two that are well


def test_there_are_a_hundred_kinds_of_hostile_replies() -> None:
    assert len(BAD_STATISTICS) + len(BAD_DELTAS) >= 100


@pytest.mark.parametrize("streams", [True, False])
def test_a_device_that_names_another_one_is_rejected(streams: bool) -> None:
    replies = [reply(0), reply(3), hostile(4, outcome(device=3)), reply(5)]
    night: Any = iter(replies) if streams else replies
    closed = sum_replies("a", night)["a"].close(0, 0)
    assert (closed.rejected, closed.devices) == ({"wrong_device": 1}, 3)


def test_a_device_that_names_a_later_one_silences_nobody_else() -> None:
    night = iter([reply(0), hostile(1, outcome(device=7)), reply(2), reply(3)])
    closed = sum_replies("a", night)["a"].close(0, 0)
    assert (closed.rejected, closed.devices) == ({"wrong_device": 1}, 3)


def test_a_reply_for_an_arm_that_nobody_asked_changes_nothing() -> None:
    def stream() -> Iterator[Message]:
        yield from (reply(0), reply(1, "z" * 1000), reply(2))

    assert sum_replies("a", stream())["a"].devices == 2


@pytest.mark.parametrize("rule", EVERY, ids=lambda rule: type(rule).__name__)
def test_the_largest_entries_that_are_taken_leave_every_sum_finite(rule: Aggregation) -> None:
    item = Factors(
        a=np.full((1, 24), LARGEST, np.float32), b=np.full((24, 1), -LARGEST, np.float32)
    )
    absurd = Patch(release=0, alpha=LARGEST, factors={Site(0, "q"): item})
    aggregate = rule.open()
    for one in (absurd, absurd, absurd):
        aggregate.add(one, 1.0)
    assert all(np.isfinite(matrix).all() for matrix in aggregate.mean().values())
    assert math.isfinite(mean_norm(aggregate))


def test_the_words_of_a_report_are_those_of_a_device() -> None:
    from clients.adaptation.decision import Action  # noqa: PLC0415 - a rule of the wire, not of sums
    from clients.night.attendance import Attendance  # noqa: PLC0415 - as above
    from clients.night.transfers import Payload  # noqa: PLC0415 - as above

    assert tuple(map(str, Action)) == DECISIONS
    assert tuple(map(str, Attendance)) == ATTENDANCES
    assert tuple(map(str, Payload)) == PAYLOADS
