"""Decoders of what crosses the wire and of what devices and the server keep."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from safetensors.numpy import load, save

from clients.adaptation import AlwaysRetune, EdgeTune
from clients.adaptation.decision import PatchHistory
from clients.placement import GradCut, TopLayers
from clients.policy import DevicePolicy, Quota, read_policy
from clients.selection import Fifo, Lexicon, QualityReplace
from clients.selection.buffer import Note
from clients.start import NearestEntry
from clients.state.shelf import Shelf, Shelved
from clients.state.state import DeviceState, read_state, write_state
from clients.synthesis import TemplateRewrite
from clients.tuning.schedule import Tuning
from fleettune.adapters.factors import Tie
from fleettune.adapters.patch import Patch, Placement, new_patch
from fleettune.adapters.patch_files import fetch_patch, patch_from_bytes, patch_to_bytes
from fleettune.catalogue.decomposition import Basis
from fleettune.catalogue.manifest import (
    CatalogueManifest,
    CatalogueOffer,
    Listed,
    decode_manifest,
    encode_manifest,
)
from fleettune.catalogue.style_vectors import AnswerEmbedding
from fleettune.cost.ledger import Cost, Ledger, Stage
from fleettune.cost.workload import Amount, Phase, Workload
from fleettune.data.exchanges import Exchange
from fleettune.deltas import frames
from fleettune.deltas.codecs import FP32, Codec, Fp16, Int8, TopK
from fleettune.deltas.frames import ExpectedDelta, read_frame, write_frame
from fleettune.messages.flower_records import (
    Request,
    decode_request,
    decode_statistics,
    encode_report,
    encode_request,
    read_delta,
    take_observation,
)
from fleettune.messages.report import Observation, Outcome, Report, Statistics
from fleettune.records import to_record
from fleettune.releases.guidance import Guidance
from fleettune.releases.manifest import Drift, Manifest, Moments, ReleaseDelta, SiteDrift
from fleettune.shapes import MODULES, Shapes, Site
from simulations.checkpoint.store import Store, from_blob, to_blob
from strategies.learning.decision_reports import read_decision
from strategies.releases.publisher import ReleaseRecord
from strategies.rounds.arm_state import ArmState, add_round
from strategies.rounds.checkpoint import ServerState, read_server_state, write_server_state
from strategies.rounds.sums import sum_replies
from tests.fuzz.mutator import Parts
from tests.fuzz.targets import Target, UnsendableError, dumped, text_of

SHAPES = Shapes(hidden=8, layers=3, heads=2, kv_heads=1, head_dim=4, ffn=12, vocab=16)
EXPECTED = ExpectedDelta(release=1, shapes=SHAPES, limit_bytes=20_000)
_EDGETUNE = EdgeTune(
    scope="patched",
    threshold="calibrated",
    kappa=0.1,
    k_var=1.0,
    canary=True,
    canary_share=0.1,
    canary_most=4,
    canary_paired=True,
    start="fresh",
)
_GRADCUT = GradCut(
    rank=2,
    alpha=4.0,
    budget=0.5,
    benefit="fisher",
    probe_rank=2,
    probe_batches=2,
    share_above=None,
    prefix_cache=False,
)
_CODECS: tuple[Codec, ...] = (FP32, Fp16(), Int8(), TopK(fraction=0.5), TopK(fraction=0.01))


def some_patch(*, tied: bool = False) -> Patch:
    ties = (Tie(sites=(Site(0, "up"), Site(1, "up")), rank=2, alpha=8.0),) if tied else ()
    placement = Placement(sites=(Site(0, "q"), Site(2, "down")), rank=2, alpha=4.0, ties=ties)
    made = new_patch(placement, SHAPES, 1, np.random.default_rng(0))
    for item in made.factors.values():
        item.b[...] = 0.01
    return made


def _release(version: int = 1) -> Manifest:
    sites = tuple(
        SiteDrift(layer=layer, module=module, drift=Moments(count=9, squares=0.5, fourths=0.1))
        for layer in range(2)
        for module in MODULES[:2]
    )
    return Manifest(
        version=version,
        name="mild",
        path="/store/mild",
        digest="ab" * 32,
        size_bytes=10_000,
        shapes=SHAPES,
        template="pocket",
        max_tokens=64,
        drifts=(Drift(since=0, sites=sites),),
        deltas=(ReleaseDelta(since=0, kind="low_rank", size_bytes=99),),
        parent=0,
        guidance=Guidance(intercept=0.1, weights=(("canary", 0.5),), explore=0.1),
    )


def _policy() -> DevicePolicy:
    lexicon = Lexicon(domain="home", words="sofa lamp")
    return replace(
        _plain_policy(),
        selection=QualityReplace(lexicon=(lexicon,)),
        adaptation=_EDGETUNE,
        placement=_GRADCUT,
        start=NearestEntry(),
    )


def _plain_policy() -> DevicePolicy:
    return DevicePolicy(
        selection=Fifo(),
        synthesis=TemplateRewrite(per_exchange=1, rouge_low=0.1, rouge_high=0.9),
        adaptation=AlwaysRetune(),
        placement=TopLayers(layers=1, rank=2, alpha=4.0),
        tuning=Tuning(steps=2, batch=2, learning_rate=0.1, clip=1.0),
        quota=Quota(buffer_bytes=9_999, total_bytes=99_999),
        codec=TopK(fraction=0.1),
    )


def _catalogue(entries: int = 3) -> CatalogueManifest:
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(rng.normal(size=(8, 2)))[0].T
    return CatalogueManifest(
        release="a" * 64,
        version=3,
        summariser=AnswerEmbedding(),
        basis=Basis(words=("terse", "warm"), opposites=("long", "cold"), vectors=vectors),
        scale=np.ones(8),
        entries=tuple(
            Listed(name=f"e{n}", origin="corpus", digest=f"{n:064d}", size_bytes=1_000)
            for n in range(entries)
        ),
        coordinates=rng.normal(size=(entries, 2)),
        whitening=np.eye(2),
        whitening_of_likes=np.eye(2),
        plain=("a short answer.",),
        questions=("why?",),
    )


def _state() -> DeviceState:
    exchange = Exchange(day=3, order=2, question="grüezi?", response="\x00 ok", domain="home")
    patch = some_patch(tied=True)
    return DeviceState(
        last_day=3,
        held=_release(),
        before=_release(0),
        settled=1,
        buffer=(exchange, exchange),
        notes=(Note(vector=b"\x00\x3c" * 4, scores=(0.5,)), Note(asked=False)),
        patch=patch,
        residual=some_patch(),
        history=PatchHistory(canary=1.0),
        shelf=Shelf(patches=(Shelved(patch=patch, used=2),)),
        patch_version=1,
    )


def _report() -> Report:
    outcome = Outcome(
        device=3, round=2, release=1, profile="phone", decision="retune", reason="drift"
    )
    ledger = Ledger(costs=((Stage.TUNE, Cost(energy_j=5.0, time_s=2.0)),))
    work = ((Stage.TUNE, next(iter(Phase)), Amount(flop=1e9, moved_bytes=10.0, bursts=1.0)),)
    return Report(
        statistics=Statistics(outcome=outcome, ledger=ledger, drift=0.1, strength=0.2, score=0.5),
        delta=some_patch(tied=True),
        observation=Observation(exchanges=3, nll=2.5),
        workload=Workload(entries=work),
    )


def _built(make: Any, *args: Any) -> Any:  # noqa: ANN401 - Flower's records
    """Returns a record of Flower's, where Flower lets a sender make it."""
    try:
        return make(*args)
    except Exception as error:  # whatever Flower says of it
        raise UnsendableError from error


def _read(data: bytes) -> Any:  # noqa: ANN401 - JSON
    """Returns the numbers and words of a record, as a mutation made them."""
    return _built(json.loads, data)


def _framed(data: bytes) -> ArrayRecord:
    return ArrayRecord({"frame": Array("uint8", (len(data),), "bytes", data)})


def _frame_seeds() -> list[Parts]:
    patches = (some_patch(), some_patch(tied=True))
    return [
        {"frame.safetensors": write_frame(patch, codec)} for patch in patches for codec in _CODECS
    ]


def _read_frames(parts: Parts, _: Path) -> object:
    frame = parts["frame.safetensors"]
    expected = EXPECTED if len(frame) % 2 else None
    return read_frame(frame, expected)


def _signed_seeds() -> list[Parts]:
    """Returns frames in pieces: what the header says, what arrays there are, and their bytes."""
    found: list[Parts] = []
    for parts in _frame_seeds():
        frame = parts["frame.safetensors"]
        end = 8 + int.from_bytes(frame[:8], "little")
        header = json.loads(frame[8:end])["__metadata__"]
        held = sorted(load(frame).items())
        arrays = [[name, array.dtype.str, list(array.shape)] for name, array in held]
        data = b"".join(array.tobytes() for _, array in held)
        told = {name: value for name, value in header.items() if name != "digest"}
        found.append({"header.json": dumped(told), "arrays.json": dumped(arrays), "data": data})
    return found


def _read_signed(parts: Parts, _: Path) -> object:
    """Reads a frame that was signed after its mutation, as a hostile sender would."""
    try:
        header = {str(name): str(value) for name, value in _read(parts["header.json"]).items()}
        arrays: dict[str, Any] = {}
        data, place = np.frombuffer(parts["data"] or b"\0", np.uint8), 0
        for name, dtype, shape in _read(parts["arrays.json"]):
            size = np.dtype(dtype).itemsize * math.prod(shape)
            if not 0 <= size <= 500_000:
                raise UnsendableError
            held = np.resize(np.roll(data, -place), size)
            arrays[str(name)], place = held.view(dtype).reshape(shape), place + size
        header["digest"] = frames._digest(header, arrays)
        frame = save(arrays, metadata=header)
    except Exception as error:  # whatever numpy and safetensors say of it
        raise UnsendableError from error
    return read_frame(frame, EXPECTED if len(parts["data"]) % 2 else None)


def _reply_seeds() -> list[Parts]:
    content = encode_report(_report())
    return [
        {
            "outcome.json": dumped(dict(content.config_records["outcome"])),
            "statistics.json": dumped(dict(content.metric_records["statistics"])),
            "observation.json": dumped(dict(content.metric_records["observation"])),
            "workload.json": dumped(dict(content.metric_records["workload"])),
            "delta.safetensors": write_frame(some_patch(tied=True), codec),
        }
        for codec in _CODECS
    ]


def _reply(parts: Parts, _: Path) -> object:
    content = RecordDict()
    content["outcome"] = _built(ConfigRecord, _read(parts["outcome.json"]))
    content["statistics"] = _built(MetricRecord, _read(parts["statistics.json"]))
    content["observation"] = _built(MetricRecord, _read(parts["observation.json"]))
    content["workload"] = _built(MetricRecord, _read(parts["workload.json"]))
    content["delta"] = _framed(parts["delta.safetensors"])
    return _read_reply(content)


def _read_reply(content: RecordDict) -> object:
    seen = take_observation(content)
    statistics = decode_statistics(content)
    return seen, read_decision(statistics), read_delta(content, EXPECTED)


def _request_seeds() -> list[Parts]:
    request = Request(
        arm="a",
        round=3,
        release=_release(),
        policy=to_record(_policy()),
        observe=True,
        fleet=some_patch(),
        catalogue=CatalogueOffer(data=encode_manifest(_catalogue()), store="/store"),
    )
    content = encode_request(request)
    config: dict[str, Any] = dict(content.config_records["request"])
    return [
        {
            "request.json": dumped(config),
            "fleet.safetensors": write_frame(some_patch(tied=True)),
            "catalogue.safetensors": encode_manifest(_catalogue()),
        }
    ]


def _request(parts: Parts, _: Path) -> object:
    content = RecordDict()
    content["request"] = _built(ConfigRecord, _read(parts["request.json"]))
    content["fleet"] = _framed(parts["fleet.safetensors"])
    content["catalogue"] = _framed(parts["catalogue.safetensors"])
    request = decode_request(content)
    assert request.catalogue is not None
    return request.catalogue.manifest, read_policy(request.policy)


def _release_seeds() -> list[Parts]:
    return [{"release.json": dumped(to_record(_release()))}]


def _read_release(parts: Parts, _: Path) -> object:
    config = {"arm": "a", "round": 0, "policy": "{}", "observe": False}
    config["release"] = text_of(parts["release.json"])
    request = decode_request(RecordDict({"request": _built(ConfigRecord, config)}))
    return request.release.drift_since(0)


def _policy_seeds() -> list[Parts]:
    policies = (_policy(), _plain_policy())
    return [{"policy.json": dumped(to_record(policy))} for policy in policies]


def _read_policies(parts: Parts, _: Path) -> object:
    release = json.dumps(to_record(_release()))
    config = {"arm": "a", "round": 0, "release": release, "observe": False}
    config["policy"] = text_of(parts["policy.json"])
    request = decode_request(RecordDict({"request": _built(ConfigRecord, config)}))
    return read_policy(request.policy)


def _catalogue_seeds() -> list[Parts]:
    return [{"catalogue.safetensors": encode_manifest(_catalogue(n))} for n in (1, 3)]


def _patch_seeds() -> list[Parts]:
    return [{"patch.safetensors": patch_to_bytes(some_patch(tied=tied))} for tied in (True, False)]


def _read_patch(parts: Parts, folder: Path) -> object:
    """Reads a patch as its bytes, and from a store that gives it out by its digest."""
    patch = patch_from_bytes(parts["patch.safetensors"])
    digest = some_patch().digest()
    (folder / f"{digest}.safetensors").write_bytes(parts["patch.safetensors"])
    return patch.digest() == digest and fetch_patch(folder, digest)


def _state_seeds() -> list[Parts]:
    records = RecordDict()
    write_state(records, _state(), "a")
    return [
        {
            "device.json": str(records.config_records["a/device"]["json"]).encode(),
            "schema.json": dumped(records.config_records["a/device"]["schema"]),
            "shelf.json": str(records.config_records["a/shelf"]["json"]).encode(),
            "patch.safetensors": patch_to_bytes(some_patch(tied=True)),
            "shelved.safetensors": patch_to_bytes(some_patch()),
        }
    ]


def _read_states(parts: Parts, _: Path) -> object:
    records, told = RecordDict(), text_of(parts["device.json"])
    config = {"schema": _read(parts["schema.json"]), "json": told}
    records["a/device"] = _built(ConfigRecord, config)
    records["a/shelf"] = _built(ConfigRecord, {"json": text_of(parts["shelf.json"])})
    records["a/patch"] = _framed(parts["patch.safetensors"])
    records["a/shelf/0"] = _framed(parts["shelved.safetensors"])
    return read_state(records, "a")


def _blob_seeds() -> list[Parts]:
    kept = RecordDict()
    write_state(kept, _state(), "a")
    return [{"blob": to_blob(kept)}, {"blob": to_blob(encode_report(_report()))}]


def _read_blob(parts: Parts, _: Path) -> object:
    records = from_blob(parts["blob"])
    return read_state(records, "a"), _read_reply(records) if "outcome" in records else None


def _server_state() -> dict[str, Any]:
    running = sum_replies("ab", iter(()))
    running["a"].rejected["unreadable"] = 1
    arms: Mapping[str, ArmState] = {
        arm: add_round(ArmState(fleet=some_patch(tied=True)), one, 0, 0)
        for arm, one in running.items()
    }
    releases = (ReleaseRecord(round=0, digest="d"),)
    state = ServerState(seed=3, round=0, arms=arms, releases=releases, catalogue={"a": None})
    return write_server_state(state)


def _server_seeds() -> list[Parts]:
    return [{"state.json": dumped(_server_state())}]


def _read_server(parts: Parts, _: Path) -> object:
    plain = _read(parts["state.json"])
    if not isinstance(plain, dict):  # the store gives out objects only
        raise UnsendableError
    return read_server_state(plain)


def _checkpoint_seeds(folder: Path) -> list[Parts]:
    file = folder / "seed.sqlite"
    records = RecordDict()
    write_state(records, _state(), "a")
    with Store(file) as store:
        store.save({("a", 1): records})
        store.add_row({"arm": "a", "device": 0, "round": 0, "energy_j": 1.5})
        store.commit_round(0, _server_state())
    data = file.read_bytes()
    file.unlink()
    return [{"state.sqlite": data}]


def _read_checkpoint(parts: Parts, folder: Path) -> object:
    for beside in folder.glob("state.sqlite*"):
        beside.unlink()
    (folder / "state.sqlite").write_bytes(parts["state.sqlite"])
    with Store(folder / "state.sqlite") as store:
        state, rows = store.server_state(), list(store.rows())
        device = read_state(store.load([("a", 1)])["a", 1], "a")
        return device, rows, None if state is None else read_server_state(state)


def _in_scratch() -> list[Parts]:
    with TemporaryDirectory() as scratch:
        return _checkpoint_seeds(Path(scratch))


WIRE: Mapping[str, Target] = {
    "frames": Target(seeds=_frame_seeds, decode=_read_frames),
    "codecs": Target(seeds=_signed_seeds, decode=_read_signed),
    "replies": Target(seeds=_reply_seeds, decode=_reply),
    "requests": Target(seeds=_request_seeds, decode=_request),
    "release manifests": Target(seeds=_release_seeds, decode=_read_release),
    "policies": Target(seeds=_policy_seeds, decode=_read_policies),
    "catalogue manifests": Target(
        seeds=_catalogue_seeds,
        decode=lambda parts, _: decode_manifest(parts["catalogue.safetensors"]),
    ),
    "patches": Target(seeds=_patch_seeds, decode=_read_patch),
    "device states": Target(seeds=_state_seeds, decode=_read_states),
    "state blobs": Target(seeds=_blob_seeds, decode=_read_blob),
    "server states": Target(seeds=_server_seeds, decode=_read_server),
    "checkpoints": Target(seeds=_in_scratch, decode=_read_checkpoint),
}
