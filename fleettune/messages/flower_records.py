"""Values as Flower's records and back. No other module of fleettune imports Flower.

Upwards there are exactly three records: ``delta`` (a frame), ``statistics`` (numbers) and
``outcome`` (short words), and in a simulation two more, ``observation`` and ``workload``, which
the grid takes out before the strategy sees the reply. No encoder has a field for text, buffer or
base weights.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fleettune.adapters.patch import Patch
from fleettune.adapters.patch_files import patch_from_bytes, patch_to_bytes
from fleettune.catalogue.manifest import CatalogueOffer
from fleettune.cost.ledger import Cost, Ledger, Stage
from fleettune.cost.workload import Amount, Entry, Phase, Workload
from fleettune.deltas.frames import ExpectedDelta, read_frame, write_frame
from fleettune.deltas.rejections import RejectedError, Rejection
from fleettune.messages.report import Observation, Outcome, Report, Statistics
from fleettune.records import Record, build_value, read_json, read_word, to_record
from fleettune.releases.manifest import MANIFEST_TYPES, Manifest, read_manifest

DELTA, STATISTICS, OUTCOME = "delta", "statistics", "outcome"
OBSERVATION, WORKLOAD = "observation", "workload"
REQUEST, FLEET = "request", "fleet"
CATALOGUE, STORE = "catalogue", "catalogue_store"
FRAME, _BYTES = "frame", "bytes"
"""Key of the one array in a record of bytes, and its type: the bytes are the data as they are."""
STATISTICS_BYTES = 1024
"""Bytes that a report counts beside its delta's arrays: at most about a hundred numbers, a few
words, and the header of the delta's frame."""

_COST_FIELDS = tuple(field.name for field in fields(Cost))
_NUMBERS = tuple(f.name for f in fields(Statistics) if f.name not in ("outcome", "ledger"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a device is asked in a round.

    Attributes:
        arm: Which policy this message belongs to.
        round: Number of the round, 0-based; also the day that the device wakes up on.
        release: The newest release.
        policy: The device's choices as a record of type names and fields.
        observe: True if the experiment's observer wants quality on later exchanges.
        fleet: What the fleet learned, as a patch that a tune may start from; None without one.
        catalogue: Patches that a first tune may start from; None without any.
    """

    arm: str
    round: int
    release: Manifest
    policy: Record
    observe: bool
    fleet: Patch | None = None
    catalogue: CatalogueOffer | None = None


def encode_request(request: Request) -> RecordDict:
    """Returns the records of a request."""
    config = ConfigRecord(
        {
            "arm": request.arm,
            "round": request.round,
            "release": json.dumps(to_record(request.release)),
            "policy": json.dumps(request.policy),
            "observe": request.observe,
        }
    )
    content = RecordDict({REQUEST: config})
    if request.fleet is not None:
        content[FLEET] = _framed(write_frame(request.fleet))
    if request.catalogue is not None:
        content[CATALOGUE] = _framed(request.catalogue.data)
        config[STORE] = request.catalogue.store
    return content


def decode_request(content: RecordDict) -> Request:
    """Returns the request of a message.

    Raises:
        ValueError: If a field is missing or does not fit.
    """
    given: dict[str, Any] = dict(_config(content, REQUEST))
    for name, read in (("release", _release), ("policy", _policy)):
        if name in given:
            given[name] = read(str(given[name]))
    if FLEET in content:
        given[FLEET] = _fleet(_frame(content, FLEET))
    if CATALOGUE in content:
        data, store = _frame(content, CATALOGUE), str(given.pop(STORE, ""))
        given[CATALOGUE] = CatalogueOffer(data=data, store=store)
    return build_value(Request, given, MANIFEST_TYPES, REQUEST)


@lru_cache(maxsize=16)
def _fleet(frame: bytes) -> Patch:
    """Returns a fleet patch; all devices of a round are sent the same one."""
    return read_frame(frame)


@lru_cache(maxsize=32)
def _release(text: str) -> Manifest:
    """Returns a manifest; all devices of a round are sent the same one, with hundreds of values."""
    return read_manifest(read_json(text, "request.release"), "request.release")


def _policy(text: str) -> object:
    return read_json(text, "request.policy")


def _config(content: RecordDict, name: str) -> ConfigRecord:
    record = content.config_records.get(name)
    if record is None:
        raise ValueError(f"a message must hold the record {name}")
    return record


def encode_report(report: Report) -> RecordDict:
    """Returns the records of a device's report."""
    statistics = report.statistics
    found = {name: getattr(statistics, name) for name in _NUMBERS}
    # what a rule did not look at is not sent
    numbers: dict[str, Any] = {name: value for name, value in found.items() if value is not None}
    for stage, cost in statistics.ledger.costs:
        # most stages move no bytes; what is not sent is zero
        told = {name: getattr(cost, name) for name in _COST_FIELDS}
        numbers |= {f"{stage}.{name}": value for name, value in told.items() if value}
    content = RecordDict({OUTCOME: ConfigRecord(asdict(statistics.outcome))})
    if report.delta is not None:
        frame = write_frame(report.delta) if report.frame is None else report.frame
        content[DELTA] = _framed(frame)
    content[STATISTICS] = MetricRecord(numbers)
    if report.observation is not None:
        content[OBSERVATION] = _encode_observation(report.observation)
    if report.workload.entries:
        content[WORKLOAD] = _encode_workload(report.workload)
    return content


def decode_statistics(content: RecordDict) -> Statistics:
    """Returns the statistics of a device's report.

    Raises:
        ValueError: If a record is unknown, or holds what statistics may not hold.
    """
    unknown = set(content) - {DELTA, STATISTICS, OUTCOME, OBSERVATION, WORKLOAD}
    if unknown:
        raise ValueError(f"a report may hold deltas and statistics only, got {sorted(unknown)}")
    told, counted = _config(content, OUTCOME), content.metric_records.get(STATISTICS)
    if counted is None:
        raise ValueError(f"a message must hold the record {STATISTICS}")
    numbers: dict[str, Any] = dict(counted)
    given = {
        "outcome": build_value(Outcome, dict(told), {}, OUTCOME),
        "ledger": _ledger(numbers),
        **{key: number for key, number in numbers.items() if "." not in key},
    }
    return build_value(Statistics, given, {}, STATISTICS)


def take_observation(content: RecordDict) -> tuple[Observation | None, Workload]:
    """Removes what only the experiment may see from a reply's records and returns it.

    Raises:
        ValueError: If it is not what `encode_report` wrote.
    """
    seen, workload = _observation(content), _workload(content)
    content.pop(OBSERVATION, None)
    content.pop(WORKLOAD, None)
    return seen, workload


def encode_patch(patch: Patch) -> ArrayRecord:
    """Returns a patch as a record of bytes, for a device's own state."""
    return _framed(patch_to_bytes(patch))


def decode_patch(record: ArrayRecord) -> Patch:
    """Returns the patch that `encode_patch` wrote.

    Raises:
        ValueError: If it is none.
    """
    if set(record) != {FRAME}:
        raise ValueError(f"a patch must be one array called {FRAME}, got {sorted(record)}")
    return patch_from_bytes(record[FRAME].data)


def _encode_observation(seen: Observation) -> MetricRecord:
    return MetricRecord({k: v for k, v in asdict(seen).items() if v is not None})


def _encode_workload(workload: Workload) -> MetricRecord:
    return MetricRecord(
        {
            f"{stage}.{phase}": [amount.flop, amount.moved_bytes, amount.bursts]
            for stage, phase, amount in workload.entries
        }
    )


def _ledger(numbers: dict[str, Any]) -> Ledger:
    costs: dict[Stage, dict[str, Any]] = {}
    for key, value in numbers.items():
        stage, dot, name = key.partition(".")
        if dot:
            costs.setdefault(read_word(Stage, stage, STATISTICS), {})[name] = value
    return Ledger(
        costs=tuple((stage, build_value(Cost, named, {}, stage)) for stage, named in costs.items())
    )


def _workload(content: RecordDict) -> Workload:
    if WORKLOAD not in content:
        return Workload()
    entries: list[Entry] = []
    for key, numbers in _metrics(content, WORKLOAD).items():
        stage, _, phase = key.partition(".")
        if not isinstance(numbers, list) or len(numbers) != 3:
            raise ValueError(f"{WORKLOAD}.{key} must be three numbers, got {numbers!r:.80}")
        flop, moved_bytes, bursts = map(float, numbers)
        amount = Amount(flop=flop, moved_bytes=moved_bytes, bursts=bursts)
        entries.append((read_word(Stage, stage, key), read_word(Phase, phase, key), amount))
    return Workload(entries=tuple(entries))


def read_delta(content: RecordDict, expected: ExpectedDelta | None = None) -> Patch | None:
    """Returns a reply's delta, None without one.

    Args:
        content: The reply's records.
        expected: What the delta must be; None where only its frame is checked.

    Raises:
        RejectedError: If it is not taken, with the reason.
    """
    if DELTA not in content:
        return None
    return read_frame(_frame(content, DELTA), expected)


def _framed(data: bytes) -> ArrayRecord:
    return ArrayRecord({FRAME: Array("uint8", (len(data),), _BYTES, data)})


def _frame(content: RecordDict, name: str) -> bytes:
    record = content.array_records.get(name)
    if record is None or set(record) != {FRAME}:
        told = f"a {name} must be one array called {FRAME}"
        raise RejectedError(Rejection.UNREADABLE, told)
    if record[FRAME].stype != _BYTES:
        told = f"a {name} must be an array of bytes, got {record[FRAME].stype}"
        raise RejectedError(Rejection.UNREADABLE, told)
    return record[FRAME].data


def _observation(content: RecordDict) -> Observation | None:
    if OBSERVATION not in content:
        return None
    return build_value(Observation, dict(_metrics(content, OBSERVATION)), {}, OBSERVATION)


def _metrics(content: RecordDict, name: str) -> MetricRecord:
    record = content.metric_records.get(name)
    if record is None:
        raise ValueError(f"{name} must be a record of numbers")
    return record
