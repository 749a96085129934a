"""Releases beyond training: keys that stay, functions that stay, weights that are rounded."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fleettune.backbone.causal_lm import POCKET_FOLDER, load_backbone, read_shapes
from fleettune.data.personas import SyntheticData
from fleettune.data.tokens import open_encoder
from fleettune.records import to_record
from fleettune.releases.manifest import ReleaseDelta, drift_between
from fleettune.releases.model_files import weight_files, weights_bytes
from fleettune.seeds import Purpose, stream
from strategies.releases.given_files import check_given_files, plan_identity
from strategies.releases.publisher import Publisher, SourceModel, rms
from strategies.releases.rewritten import quantised_bytes, round_trip
from strategies.releases.schedule import ReleasePlan, Schedule
from strategies.releases.training import TrainedRelease, Vendor, ship_unchanged, train_release

# peft 0.21 asks transformers 5 for a name that it renames; nothing of ours depends on it.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is dep:FutureWarning")

FULL = ReleasePlan(
    name="mild", kind="full", steps=2, learning_rate=1e-3, batch=2, window=16, conversations=50
)
LOW_RANK = replace(
    FULL, name="low", kind="low_rank", steps=4, learning_rate=3e-2, rank=2, top_layers=3
)
MILD = replace(FULL, steps=30, learning_rate=3e-4, batch=4, window=32, conversations=200)
"""The first release of the main job, on less text and smaller batches."""
TWICE = ReleasePlan(name="twice", kind="reparametrised", scale=2.0)
ENCODER = open_encoder(POCKET_FOLDER, "pocket", 128)
SHAPES = read_shapes(POCKET_FOLDER)


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Vendor:
    store = tmp_path_factory.mktemp("store")
    return Vendor(store=store, population=SyntheticData().open(), data="world", seed=0)


def make(plan: ReleasePlan, vendor: Vendor, version: int = 1) -> TrainedRelease:
    return train_release(ship_unchanged(POCKET_FOLDER), plan, vendor, ENCODER, version)


def moved(release: TrainedRelease) -> float:
    return rms(drift_between(POCKET_FOLDER, release.folder, SHAPES, 0))


def logits(folder: Path) -> Tensor:
    """Next-token logits of some conversations outside the fleet, in single precision."""
    model = load_backbone(folder).model
    conversations = SyntheticData().open().outside(8, 7)
    with torch.no_grad():
        found = [
            model(input_ids=torch.tensor([ENCODER.conversation(one)[:128]])).logits[0]
            for one in conversations
        ]
    return torch.cat(found)


def test_every_field_makes_another_key() -> None:
    plans = [
        TWICE,
        replace(TWICE, scale=3.0),
        ReleasePlan(name="x", kind="quantised", bits=4),
        ReleasePlan(name="x", kind="quantised", bits=8),
        ReleasePlan(name="x", kind="quantised", bits=8, embeddings=True),
    ]
    keys = {json.dumps(dict(plan_identity(plan)), sort_keys=True) for plan in plans}
    assert len(keys) == len(plans)


def test_a_power_of_two_leaves_the_function_as_it_is_and_moves_the_weights_far(
    vendor: Vendor,
) -> None:
    before, after = logits(POCKET_FOLDER), logits(make(TWICE, vendor).folder)
    # Doubling and halving change no mantissa. Only weights of o below 2^-13 lose their last bit,
    # 2^-25, in half precision: beside logits of order 10 that is nothing.
    assert float((before - after).abs().max()) < 1e-3
    assert moved(make(TWICE, vendor)) > 10 * moved(make(MILD, vendor))


def test_any_other_factor_leaves_it_but_for_half_precision(vendor: Vendor) -> None:
    release = make(replace(TWICE, scale=1.5), vendor)
    before, after = logits(POCKET_FOLDER), logits(release.folder)
    # v and o are rounded once more, each weight by at most 2^-11 of itself.
    assert float((before - after).abs().max()) < 0.05
    assert float((before.argmax(dim=-1) == after.argmax(dim=-1)).float().mean()) > 0.99


def test_a_reparametrised_release_moves_v_and_o_only(vendor: Vendor) -> None:
    drift = drift_between(POCKET_FOLDER, make(TWICE, vendor).folder, SHAPES, 0)
    moved_modules = {entry.module for entry in drift.sites if entry.drift.squares > 0}
    assert moved_modules == {"v", "o"}


def test_8_bits_by_hand() -> None:
    # Row 1: scale 127 / 127 = 1, so 2.4 -> 2 and -3.6 -> -4. Row 2: scale 1 / 2, 0.3 -> 0.5.
    weight = torch.tensor([[127.0, 2.4, -3.6], [63.5, 0.3, 0.2], [0.0, 0.0, 0.0]])
    expected = torch.tensor([[127.0, 2.0, -4.0], [63.5, 0.5, 0.0], [0.0, 0.0, 0.0]])
    assert torch.equal(round_trip(weight, 8), expected)


def test_4_bits_have_a_scale_per_64_inputs() -> None:
    weight = torch.zeros(1, 70)
    weight[0, 0], weight[0, 1] = 7.0, 0.6  # scale 1: 0.6 -> 1
    weight[0, 64], weight[0, 65] = 3.5, 0.6  # a group of six inputs, scale 1 / 2: 0.6 -> 0.5
    found = round_trip(weight, 4)
    assert found[0, [0, 1, 64, 65]].tolist() == [7.0, 1.0, 3.5, 0.5]
    assert torch.count_nonzero(found) == 4


@settings(derandomize=True, deadline=None)
@given(
    bits=st.sampled_from([4, 8]),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 150)),
    key=st.integers(0, 99),
)
def test_no_weight_moves_by_more_than_half_a_step(
    bits: int, shape: tuple[int, int], key: int
) -> None:
    drawn = stream(0, Purpose.RELEASE, 9, key).normal(size=shape)
    weight = torch.as_tensor(drawn, dtype=torch.float32)
    largest = weight.abs().amax(dim=1, keepdim=True)
    # a step is at most the row's largest over the levels; the scale is rounded by 2^-11, which
    # moves the largest weight by as much
    step = largest / (2 ** (bits - 1) - 1)
    bound = 0.5 * step * (1 + 2**-10) + largest * 2**-10
    assert bool(((round_trip(weight, bits) - weight).abs() <= bound).all())


@pytest.mark.parametrize(("bits", "embeddings"), [(4, False), (8, False), (8, True)])
def test_the_payload_of_a_quantised_release_by_hand(bits: int, embeddings: bool) -> None:
    # d = 96, k = 48, m = 256, 8 layers, 1024 tokens. Outputs and inputs of a layer's matrices:
    matrices = [(96, 96), (48, 96), (48, 96), (96, 96), (256, 96), (256, 96), (96, 256)]
    size = 0
    for n_out, n_in in matrices:
        groups = math.ceil(n_in / 64) if bits == 4 else 1
        size += n_out * n_in * bits // 8 + 2 * n_out * groups
    table = 1024 * (96 + 2) if embeddings else 2 * 1024 * 96
    norms = 2 * 96 * (2 * 8 + 1)
    assert quantised_bytes(POCKET_FOLDER, bits, embeddings=embeddings) == 8 * size + table + norms


def test_4_bits_move_the_weights_further_than_a_mild_release_and_8_bits_less(
    vendor: Vendor,
) -> None:
    mild = moved(make(MILD, vendor))
    four, eight = (
        moved(make(ReleasePlan(name=f"int{bits}", kind="quantised", bits=bits), vendor))
        for bits in (4, 8)
    )
    # measured, root mean square: 8e-4 for the main job's mild release, 6.6e-3 for 4 bits, 4e-4 for
    # 8 bits
    assert four > 5 * mild
    assert eight < mild


def test_embeddings_are_rounded_where_asked_for_only(vendor: Vendor) -> None:
    plan = ReleasePlan(name="int8", kind="quantised", bits=8)
    tables = [
        load_backbone(folder).model.model.embed_tokens.weight
        for folder in (
            POCKET_FOLDER,
            make(plan, vendor).folder,
            make(replace(plan, embeddings=True), vendor).folder,
        )
    ]
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])


def test_an_independent_release_has_nothing_of_its_parent_but_the_shapes(vendor: Vendor) -> None:
    plan = replace(FULL, name="again", kind="independent")
    release = make(plan, vendor)
    assert load_backbone(release.folder).shapes == SHAPES
    drift = drift_between(POCKET_FOLDER, release.folder, SHAPES, 0)
    own = load_backbone(POCKET_FOLDER)
    for entry in drift.sites:
        weight = own.linear(entry.site).weight
        size = float(weight.square().sum())
        # independent weights: the squared distance is the sum of both squared lengths, so at least
        # the parent's own but for chance
        assert entry.drift.squares > 0.9 * size
    assert make(plan, replace(vendor, seed=1)).digest != release.digest
    # two steps do not teach it what the parent knows
    assert release.loss_after is not None
    assert release.loss_after > 4


def test_what_is_not_trained_has_no_loss(vendor: Vendor) -> None:
    release = make(TWICE, vendor)
    assert (release.loss_before, release.loss_after) == (None, None)
    assert make(TWICE, vendor) == release


def external(path: Path | str) -> ReleasePlan:
    return ReleasePlan(name="theirs", kind="external", path=str(path))


def test_an_external_release_is_used_where_it_lies(vendor: Vendor, tmp_path: Path) -> None:
    trained = make(FULL, vendor)
    shutil.copytree(trained.folder, tmp_path / "theirs")
    assert make(external(tmp_path / "theirs"), vendor) == TrainedRelease(
        folder=tmp_path / "theirs", digest=trained.digest, loss_before=None, loss_after=None
    )


def test_an_external_release_that_cannot_follow_is_refused(tmp_path: Path) -> None:
    def check(path: Path | str) -> None:
        check_given_files(Schedule(every=1, plans=(FULL, external(path))), POCKET_FOLDER)

    check(POCKET_FOLDER)
    with pytest.raises(
        ValueError, match=r"release theirs: path must be a folder with config\.json"
    ):
        check(tmp_path / "nowhere")
    other = tmp_path / "other"
    shutil.copytree(POCKET_FOLDER, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 7}))
    with pytest.raises(ValueError, match=r"must have the shapes of .*layers=8.* got .*layers=7"):
        check(other)
    words = tmp_path / "words"
    shutil.copytree(POCKET_FOLDER, words)
    tokenizer = json.loads((words / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:-1]
    (words / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match="must have the tokenizer of"):
        check(words)
    weight_files(words)[0].unlink()
    with pytest.raises(ValueError, match="holds no safetensors file"):
        check(words)


def test_a_hub_id_that_is_not_here_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    schedule = Schedule(every=1, plans=(external("nobody/nothing"),))
    with pytest.raises(ValueError, match=r"release theirs: path 'nobody/nothing' is no local"):
        check_given_files(schedule, POCKET_FOLDER)


def test_a_manifest_says_what_a_release_was_made_from_and_what_it_takes(vendor: Vendor) -> None:
    plans = (
        ReleasePlan(name="int8", kind="quantised", bits=8),
        external(POCKET_FOLDER),
        replace(FULL, kind="independent"),
        TWICE,
    )
    publisher = Publisher(
        source=SourceModel(path=str(POCKET_FOLDER), template="pocket", max_tokens=128),
        schedule=Schedule(every=1, plans=plans),
        vendor=vendor,
    )
    manifests = [publisher.newest(night) for night in range(5)]
    assert [manifest.parent for manifest in manifests] == [None, 0, None, None, 3]
    on_disk = weights_bytes(POCKET_FOLDER)
    assert manifests[1].size_bytes == quantised_bytes(POCKET_FOLDER, 8, embeddings=False) < on_disk
    assert manifests[1].bits == 8 * manifests[1].size_bytes / SHAPES.parameters
    assert [manifest.bits for manifest in manifests if manifest.version != 1] == [None] * 4
    assert manifests[2].size_bytes == on_disk
    # what came after the rounded release moved back to where it was
    assert rms(manifests[2].drifts[0]) == 0
    assert rms(manifests[2].drifts[1]) > 0
    assert np.isfinite(rms(manifests[4].drifts[0]))


def test_deltas_since_every_earlier_version_are_on_offer_where_asked_for(vendor: Vendor) -> None:
    source = SourceModel(path=str(POCKET_FOLDER), template="pocket", max_tokens=128)
    schedule = Schedule(every=1, plans=(TWICE, LOW_RANK), payload="auto")
    publisher = Publisher(source=source, schedule=schedule, vendor=vendor)
    offered = [publisher.newest(night).deltas for night in range(3)]
    assert offered[0] == ()
    # v is 48 x 96 and o 96 x 96 in eight layers: a byte per entry, four per row.
    by_hand = 8 * (48 * 96 + 4 * 48 + 96 * 96 + 4 * 96)
    assert offered[1] == (ReleaseDelta(since=0, kind="int8", size_bytes=by_hand),)
    # Rank 2 in three layers, 1,728 inputs and outputs each, in half precision. Since version 0
    # there is more than factors.
    assert [(delta.since, delta.kind) for delta in offered[2]] == [(0, "int8"), (1, "low_rank")]
    assert offered[2][1].size_bytes == 2 * 3 * 2 * 1728
    assert len(json.dumps([to_record(delta) for delta in offered[2]])) < 200
    quiet = Publisher(source=source, schedule=replace(schedule, payload="full"), vendor=vendor)
    assert [quiet.newest(night).deltas for night in range(3)] == [(), (), ()]
