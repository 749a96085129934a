"""Publishing: a manifest says what a release was made from, and what a device may load."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from fleettune.backbone.causal_lm import POCKET_V1_FOLDER
from fleettune.records import to_record
from fleettune.releases.manifest import ReleaseDelta
from fleettune.releases.model_files import weights_bytes
from strategies.releases.publisher import Publisher, SourceModel, rms
from strategies.releases.rewritten import quantised_bytes
from strategies.releases.schedule import ReleasePlan, Schedule
from strategies.releases.training import Vendor
from tests.strategies.releases.test_external import external
from tests.strategies.releases.test_rewritten import FULL, LOW_RANK, SHAPES, TWICE

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is dep:FutureWarning")


def test_a_manifest_says_what_a_release_was_made_from_and_what_it_takes(vendor: Vendor) -> None:
    plans = (
        ReleasePlan(name="int8", kind="quantised", bits=8),
        external(POCKET_V1_FOLDER),
        replace(FULL, kind="independent"),
        TWICE,
    )
    publisher = Publisher(
        source=SourceModel(path=str(POCKET_V1_FOLDER), template="pocket", max_tokens=128),
        schedule=Schedule(every=1, plans=plans),
        vendor=vendor,
    )
    manifests = [publisher.newest(night) for night in range(5)]
    assert [manifest.parent for manifest in manifests] == [None, 0, None, None, 3]
    on_disk = weights_bytes(POCKET_V1_FOLDER)
    assert (
        manifests[1].size_bytes == quantised_bytes(POCKET_V1_FOLDER, 8, embeddings=False) < on_disk
    )
    assert manifests[1].bits == 8 * manifests[1].size_bytes / SHAPES.parameters
    assert [manifest.bits for manifest in manifests if manifest.version != 1] == [None] * 4
    assert manifests[2].size_bytes == on_disk
    # what came after the rounded release moved back to where it was
    assert rms(manifests[2].drifts[0]) == 0
    assert rms(manifests[2].drifts[1]) > 0
    assert np.isfinite(rms(manifests[4].drifts[0]))


def test_deltas_since_every_earlier_version_are_on_offer_where_asked_for(vendor: Vendor) -> None:
    source = SourceModel(path=str(POCKET_V1_FOLDER), template="pocket", max_tokens=128)
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
