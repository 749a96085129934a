"""The wire: what is sent reads back, and nothing but deltas, numbers and short words is sent."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from fleettune.adapters.patch import Factors, Patch, Placement, new_patch
from fleettune.adapters.patch_files import patch_from_bytes
from fleettune.catalogue.manifest import CatalogueOffer
from fleettune.cost.hardware import load_hardware
from fleettune.cost.ledger import Cost, Ledger, Stage
from fleettune.cost.workload import Amount, Phase, Workload
from fleettune.data.personas import SyntheticData
from fleettune.deltas.frames import payload_bytes, write_frame
from fleettune.deltas.rejections import RejectedError
from fleettune.messages.flower_records import (
    STATISTICS_BYTES,
    Request,
    decode_patch,
    decode_request,
    decode_statistics,
    encode_patch,
    encode_report,
    encode_request,
    read_delta,
    take_observation,
)
from fleettune.messages.report import (
    ATTENDANCES,
    DECISIONS,
    WORD,
    Observation,
    Outcome,
    Report,
    Statistics,
)
from fleettune.releases.manifest import Drift, Manifest, Moments, ReleaseDelta, SiteDrift
from fleettune.shapes import MODULES, Shapes, Site

PROFILES = Path(__file__).parents[3] / "conf" / "hardware"
SHAPES = Shapes(hidden=8, layers=3, heads=2, kv_heads=1, head_dim=4, ffn=12, vocab=16)

words = st.from_regex(WORD, fullmatch=True)
counts = st.integers(0, 2**50)
amounts = st.floats(0, 1e12)
texts = st.text(min_size=1, max_size=30)


costs = st.builds(
    Cost,
    time_s=amounts,
    energy_j=amounts,
    work_flop=amounts,
    down_bytes=amounts,
    up_bytes=amounts,
)
ledgers = st.dictionaries(st.sampled_from(Stage), costs, max_size=4).map(
    lambda by_stage: Ledger(costs=tuple(by_stage.items()))
)
outcomes = st.builds(
    Outcome,
    device=counts,
    round=counts,
    release=st.integers(-1, 50),
    profile=words,
    attendance=st.sampled_from(ATTENDANCES),
    decision=st.sampled_from(DECISIONS),
    reason=words,
)
all_statistics = st.builds(
    Statistics,
    outcome=outcomes,
    ledger=ledgers,
    night_s=amounts,
    drift=st.none() | amounts,
    strength=st.none() | amounts,
    score=st.none() | st.floats(-1e6, 1e6),
    canary_before=st.none() | amounts,
    canary_worse=st.none() | st.floats(-1e6, 1e6),
    canary_after=st.none() | amounts,
    explored=st.none() | st.integers(0, 1),
    propensity=st.none() | st.floats(0, 1),
    buffer_exchanges=counts,
    buffer_bytes=counts,
    stored_bytes=counts,
    tune_steps=counts,
    train_tokens=counts,
    cache_bytes=counts,
)
observations = st.builds(
    Observation,
    exchanges=counts,
    nll=st.none() | amounts,
    exact_match=st.none() | st.floats(0, 1),
    approval=st.none() | st.floats(0, 1),
    mae=st.none() | amounts,
    retune_gain=st.none() | st.floats(-1e6, 1e6),
    rouge1=st.none() | amounts,
)


@st.composite
def patches(draw: st.DrawFn) -> Patch:
    sites = draw(
        st.lists(
            st.builds(Site, st.integers(0, 2), st.sampled_from(MODULES)),
            min_size=1,
            max_size=3,
            unique=True,
        )
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    factors: dict[Site, Factors] = {}
    for site in sites:
        n_in, n_out = SHAPES.matrices()[site.module]
        rank = draw(st.integers(1, 4))
        factors[site] = Factors(
            a=rng.normal(size=(rank, n_in)).astype(np.float32),
            b=rng.normal(size=(n_out, rank)).astype(np.float32),
        )
    alpha = draw(st.floats(0.5, 64))
    return Patch(release=draw(st.integers(0, 50)), alpha=alpha, factors=factors)


workloads = st.dictionaries(
    st.tuples(st.sampled_from(Stage), st.sampled_from(Phase)),
    st.builds(Amount, flop=amounts, moved_bytes=amounts, bursts=amounts),
    max_size=6,
).map(lambda found: Workload(entries=tuple((*key, amount) for key, amount in found.items())))
reports = st.builds(
    Report,
    statistics=all_statistics,
    delta=st.none() | patches(),
    observation=st.none() | observations,
    workload=workloads,
)


def some_statistics(**changes: object) -> Statistics:
    outcome = Outcome(
        device=1,
        round=2,
        release=0,
        profile="pixel_7",
        attendance="present",
        decision="retune",
        reason="first_patch",
    )
    plain = Statistics(
        outcome=outcome,
        ledger=Ledger(costs=((Stage.TUNE, Cost(time_s=2.0, energy_j=1.0)),)),
        night_s=2.0,
        drift=None,
        strength=None,
        buffer_exchanges=3,
        buffer_bytes=100,
        stored_bytes=200,
        tune_steps=4,
        train_tokens=50,
        cache_bytes=0,
    )
    return replace(plain, **changes)


SOME_WORK = Workload(
    entries=(
        (Stage.TUNE, Phase.FORWARD, Amount(flop=3.0, moved_bytes=5.0)),
        (Stage.UPLOAD, Phase.SEND, Amount(moved_bytes=7.0, bursts=1.0)),
    )
)


def some_patch() -> Patch:
    a, b = np.ones((2, 8), dtype=np.float32), np.full((4, 2), 0.5, dtype=np.float32)
    return Patch(release=0, alpha=4.0, factors={Site(1, "v"): Factors(a=a, b=b)})


def some_report() -> Report:
    return Report(
        statistics=some_statistics(),
        delta=some_patch(),
        observation=Observation(exchanges=8, nll=0.5),
        workload=SOME_WORK,
    )


def same(one: Report, other: Report) -> bool:
    """Equality with patches compared by what they compute and which release they are for."""

    def key(report: Report) -> tuple[object, ...]:
        delta = report.delta
        named = None if delta is None else (delta.release, delta.alpha, delta.digest())
        return report.statistics, named, report.observation, report.workload

    return key(one) == key(other)


def decode_report(content: RecordDict) -> Report:
    """Everything that a report's records hold, the observer's part as well."""
    statistics, delta = decode_statistics(content), read_delta(content)
    observation, workload = take_observation(content)
    return Report(statistics=statistics, delta=delta, observation=observation, workload=workload)


@settings(derandomize=True, deadline=None)
@given(reports)
def test_a_report_reads_back_with_or_without_delta_observation_and_workload(report: Report) -> None:
    assert same(decode_report(encode_report(report)), report)


@pytest.mark.parametrize("delta", [None, some_patch()], ids=["no delta", "delta"])
@pytest.mark.parametrize("seen", [None, Observation(exchanges=2)], ids=["unseen", "observed"])
@pytest.mark.parametrize("work", [Workload(), SOME_WORK], ids=["no workload", "workload"])
def test_an_encoded_report_holds_exactly_the_allowed_records(
    delta: Patch | None, seen: Observation | None, work: Workload
) -> None:
    content = encode_report(
        Report(statistics=some_statistics(), delta=delta, observation=seen, workload=work)
    )
    expected = {"statistics", "outcome"}
    expected |= {"delta"} if delta is not None else set()
    expected |= {"observation"} if seen is not None else set()
    expected |= {"workload"} if work != Workload() else set()
    assert set(content) == expected
    assert isinstance(content["statistics"], MetricRecord)
    assert isinstance(content["outcome"], ConfigRecord)


@settings(derandomize=True, deadline=None)
@given(reports)
def test_only_numbers_short_words_and_factors_leave_a_device(report: Report) -> None:
    content = encode_report(report)
    # the grid takes these out; what is left is what a deployment would send
    take_observation(content)
    assert set(content) <= {"delta", "statistics", "outcome"}
    for record in content.metric_records.values():
        assert all(type(value) in (int, float) for value in record.values())
    (outcome,) = content.config_records.values()
    assert set(outcome) == {field.name for field in fields(Outcome)}
    for value in outcome.values():
        assert type(value) is int or WORD.fullmatch(str(value))
    for record in content.array_records.values():
        assert report.delta is not None
        # rank * (inputs + outputs) numbers per site: no room for a base matrix beside them.
        (array,) = record.values()
        frame = array.data
        assert payload_bytes(frame) == report.delta.size_bytes
        header = json.loads(frame[8 : len(frame) - payload_bytes(frame)])
        assert set(header) == {"__metadata__", "values"}
        told = {"schema", "codec", "release", "alpha", "sites", "sizes", "digest"}
        assert set(header["__metadata__"]) == told


@settings(derandomize=True, deadline=None)
@given(texts, texts, st.sampled_from(["profile", "attendance", "decision", "reason"]))
def test_a_sentence_cannot_stand_where_a_word_belongs(one: str, two: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a short lower-case word"):
        replace(some_statistics().outcome, **{name: f"{one} {two}"})


def test_no_question_or_answer_of_a_user_is_a_word() -> None:
    population = SyntheticData().open()
    said = {
        text for u in range(20) for e in population.day(u, 0) for text in (e.question, e.response)
    }
    assert len(said) > 300
    # Only the one-word answers of the mood check-in look like words; no field takes an answer.
    moods = {e.response for u in range(20) for e in population.day(u, 0) if e.domain == "mood"}
    assert not [text for text in said - moods if WORD.fullmatch(text)]


@pytest.mark.parametrize("value", ["", "Retune", "a b", "x\n", "é", "_x", "x" * 65, "what?"])
def test_what_is_no_short_lower_case_word_is_refused_with_the_value(value: str) -> None:
    with pytest.raises(ValueError, match="reason must be") as caught:
        replace(some_statistics().outcome, reason=value)
    assert repr(value) in str(caught.value)


def test_every_profile_of_the_catalogue_can_be_reported() -> None:
    assert all(WORD.fullmatch(name) for name in load_hardware(PROFILES))


def test_the_fullest_report_fits_the_bytes_that_are_counted_for_it() -> None:
    # bytes come down and go up in one stage each, or are wasted
    down, up = {Stage.DOWNLOAD, Stage.WASTED}, {Stage.UPLOAD, Stage.WASTED}
    ledger = Ledger(
        costs=tuple(
            (
                stage,
                Cost(
                    time_s=1,
                    energy_j=1,
                    work_flop=1,
                    down_bytes=float(stage in down),
                    up_bytes=float(stage in up),
                ),
            )
            for stage in Stage
        )
    )
    looked = ("drift", "strength", "score", "canary_before", "canary_worse", "canary_after")
    statistics = some_statistics(
        ledger=ledger, explored=1, propensity=1.0, **dict.fromkeys(looked, 1.0)
    )
    # the standard placement: every site of four layers
    sites = tuple(Site(layer, module) for layer in range(4, 8) for module in MODULES)
    placement = Placement(sites=sites, rank=8, alpha=16.0)
    pocket = replace(SHAPES, hidden=96, layers=8, heads=4, kv_heads=2, head_dim=24, ffn=256)
    trained = new_patch(placement, pocket, 3, np.random.default_rng(0))
    content = encode_report(Report(statistics=statistics, delta=some_patch(), observation=None))
    outcome = content.config_records["outcome"]
    words = [value for value in outcome.values() if isinstance(value, str)]
    assert len(words) == 5
    numbers = len(content.metric_records["statistics"]) + len(outcome) - len(words)
    frame = write_frame(trained)
    header = len(frame) - payload_bytes(frame)
    # 8 bytes per number; the names are known to both sides.
    assert 8 * numbers + sum(map(len, words)) + header <= STATISTICS_BYTES


def test_observation_and_workload_are_taken_out_before_a_strategy_looks() -> None:
    content = encode_report(some_report())
    assert take_observation(content) == (Observation(exchanges=8, nll=0.5), SOME_WORK)
    assert set(content) == {"delta", "statistics", "outcome"}
    assert take_observation(content) == (None, Workload())


@pytest.mark.parametrize(
    "record",
    [
        ConfigRecord({"questions": "what should i eat tonight?"}),
        ArrayRecord({"0.q.a": Array(np.ones((2, 8), dtype=np.float32))}),
        MetricRecord({"tokens": [1, 40, 2]}),
    ],
    ids=["texts", "arrays", "numbers"],
)
def test_a_record_that_no_report_has_is_refused_by_name(record: ConfigRecord) -> None:
    content = encode_report(some_report())
    content["buffer"] = record
    with pytest.raises(ValueError, match=r"deltas and statistics only, got \['buffer'\]"):
        decode_report(content)


@pytest.mark.parametrize(
    ("record", "key", "value", "message"),
    [
        ("outcome", "device", "what should i eat?", r"outcome\.device must be a whole number"),
        ("outcome", "reason", "I am thirsty", r"reason must be a short lower-case word"),
        ("outcome", "question", "i am thirsty", r"outcome\.question is not a known key"),
        ("outcome", "round", True, r"outcome\.round must be a whole number"),
        ("statistics", "tokens", 7, r"statistics\.tokens is not a known key"),
        ("statistics", "buffer_bytes", [1, 40, 2], r"statistics\.buffer_bytes must be a whole"),
        ("statistics", "drift", [1.0, 2.0], r"statistics\.drift must be a number"),
        ("statistics", "tune.words", 3.0, r"tune\.words is not a known key"),
        ("statistics", "tune.time_s", [1.0, 2.0], r"tune\.time_s must be a number"),
        ("statistics", "gossip.time_s", 3.0, "gossip"),
        ("observation", "nll", [1.0, 2.0], r"observation\.nll must be a number"),
        ("observation", "tokens", 7, r"observation\.tokens is not a known key"),
        ("statistics", "tune.energy_low_j", 1.0, r"tune\.energy_low_j is not a known key"),
        ("workload", "gossip.forward", [1.0, 2.0, 3.0], "gossip"),
        ("workload", "tune.whisper", [1.0, 2.0, 3.0], "whisper"),
        ("workload", "tune.prefill", [1.0, 2.0], "must be three numbers"),
        ("workload", "tune.prefill", [-1.0, 2.0, 3.0], "flop must be finite and >= 0, got -1"),
    ],
)
def test_a_record_with_more_than_a_report_may_hold_is_refused(
    record: str, key: str, value: int | float | str | list[int] | list[float], message: str
) -> None:
    content = encode_report(some_report())
    written: Any = content[record]
    written[key] = value
    with pytest.raises(ValueError, match=message):
        decode_report(content)


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.q_proj.weight", "lm_head.weight", "1.v.weight", "1.v"]
)
def test_a_base_weight_has_no_place_in_a_delta(name: str) -> None:
    content = encode_report(some_report())
    content.array_records["delta"][name] = Array(np.ones((4, 8), dtype=np.float32))
    with pytest.raises(RejectedError, match="a delta must be one array called frame"):
        decode_report(content)


def test_a_delta_that_is_no_array_of_bytes_is_refused() -> None:
    content = encode_report(some_report())
    content.array_records["delta"]["frame"] = Array(np.ones(8, dtype=np.uint8))
    with pytest.raises(RejectedError, match="must be an array of bytes, got numpy"):
        decode_report(content)


def test_a_base_matrix_is_no_factor() -> None:
    base, told = np.ones((4, 8), dtype=np.float32), json.dumps({"release": 0, "alpha": 1.0})
    data = save({"1.v.a": base, "1.v.b": base}, metadata={"fleettune": told})
    with pytest.raises(ValueError, match=r"\(rank, n_in\) and \(n_out, rank\)"):
        patch_from_bytes(data)


@settings(derandomize=True, deadline=None)
@given(patches())
def test_a_patch_crosses_bit_by_bit(patch: Patch) -> None:
    back = decode_patch(encode_patch(patch))
    assert (back.release, back.digest()) == (patch.release, patch.digest())
    assert back.size_bytes == patch.size_bytes


def some_request() -> Request:
    drift = Drift(
        since=0,
        sites=(SiteDrift(layer=1, module="v", drift=Moments(count=32, squares=0.1, fourths=1e-7)),),
    )
    release = Manifest(
        version=1,
        name="spring",
        path="/store/1",
        digest="ab" * 32,
        size_bytes=10,
        shapes=SHAPES,
        template="pocket",
        max_tokens=64,
        drifts=(drift,),
        deltas=(ReleaseDelta(since=0, kind="int8", size_bytes=3),),
        bits=5.5,
        parent=0,
    )
    policy = {"type": "Fifo", "nested": {"type": "X", "list": [1, 2.5, None, "a"]}}
    return Request(arm="always_retune", round=3, release=release, policy=policy, observe=True)


@pytest.mark.parametrize("observe", [True, False])
@pytest.mark.parametrize("drifts", [True, False])
def test_a_request_reads_back(observe: bool, drifts: bool) -> None:
    request = replace(some_request(), observe=observe)
    if not drifts:
        request = replace(request, release=replace(request.release, drifts=()))
    assert decode_request(encode_request(request)) == request


def test_a_request_holds_a_manifest_and_no_weights() -> None:
    content = encode_request(some_request())
    assert list(content) == ["request"]
    assert not content.array_records
    assert set(content.config_records["request"]) == {
        "arm",
        "round",
        "release",
        "policy",
        "observe",
    }


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("round", "3", r"request\.round must be a whole number, got '3'"),
        ("observe", 1, r"request\.observe must be true or false, got 1"),
        ("extra", 1, r"request\.extra is not a known key"),
        ("release", '{"type": "Moments"}', r"request\.release must be Manifest"),
        ("release", '{"type": "os.system"}', r"request\.release must be one of"),
        ("release", '{"type": "Manifest"}', r"request\.release\.version must be given"),
        ("policy", "3", r"request\.policy must be"),
    ],
)
def test_a_request_that_does_not_fit_names_the_field(
    key: str, value: int | float | str | list[int] | list[float], message: str
) -> None:
    content = encode_request(some_request())
    content.config_records["request"][key] = value
    with pytest.raises(ValueError, match=message):
        decode_request(content)


def test_a_request_without_a_field_names_it() -> None:
    content = encode_request(some_request())
    del content.config_records["request"]["release"]
    with pytest.raises(ValueError, match=r"request\.release must be given"):
        decode_request(content)


def test_a_request_carries_a_catalogue_as_bytes_and_reads_back() -> None:
    release = Manifest(
        version=0,
        name="pocket",
        path="releases/0",
        digest="weights",
        size_bytes=1,
        shapes=SHAPES,
        template="pocket",
        max_tokens=128,
    )
    offer = CatalogueOffer(data=bytes(range(256)), store="releases/catalogues")
    plain = Request(arm="a", round=1, release=release, policy={"type": "X"}, observe=True)
    asked = replace(plain, catalogue=offer)
    assert decode_request(encode_request(asked)) == asked
    # without one no message has another byte
    assert set(encode_request(asked)) - set(encode_request(plain)) == {"catalogue"}
    assert "catalogue_store" not in encode_request(plain).config_records["request"]
