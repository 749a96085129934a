"""Merged releases: the fleet patch in the weights once, found again, and known as being there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from clients.adaptation.decision import Action
from clients.adaptation.rules import FleetOnly
from fleettune.adapters.factors import Factors
from fleettune.adapters.patch import Patch, Placement, new_patch
from fleettune.adapters.updates import delta, updates_of
from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, read_shapes
from fleettune.data.personas import SyntheticData
from fleettune.releases.manifest import Manifest
from fleettune.releases.model_files import site_weights
from fleettune.shapes import Site
from strategies.aggregation.fleet_patch import NONE, START
from strategies.releases.merged_fleet import fold_release
from strategies.releases.publisher import Publisher, ReleaseRecord, SourceModel
from strategies.releases.schedule import ReleasePlan, Schedule, check_merged
from strategies.releases.training import Vendor, ship_unchanged

SHAPES = read_shapes(POCKET_V1_FOLDER)
MERGED = ReleasePlan(name="merged", kind="merged_fleet")
TRAINED = ReleasePlan(
    name="more", kind="full", steps=2, learning_rate=1e-3, batch=2, window=16, conversations=50
)
FRESH = replace(TRAINED, name="fresh", kind="independent")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny matrices on several threads wait for each other longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Vendor:
    store = tmp_path_factory.mktemp("store")
    return Vendor(store=store, population=SyntheticData().open(), data="world", seed=0)


def fleet_of(release: int, seed: int = 0) -> Patch:
    """A fleet patch of unlike modules, as large as the weights."""
    rng = np.random.default_rng(seed)
    placement = Placement(sites=(Site(6, "q"), Site(7, "down")), rank=3, alpha=3.0)
    fresh = new_patch(placement, SHAPES, release, rng)
    drawn = {
        site: Factors(a=item.a, b=rng.normal(0, 0.1, item.b.shape).astype(np.float32))
        for site, item in fresh.factors.items()
    }
    return replace(fresh, factors=drawn)


def publisher(vendor: Vendor, *plans: ReleasePlan) -> Publisher:
    return Publisher(
        source=SourceModel(path=str(POCKET_V1_FOLDER), template="pocket", max_tokens=128),
        schedule=Schedule(every=1, plans=plans),
        vendor=vendor,
    )


def test_a_merged_release_is_the_release_before_and_the_fleet_patch(vendor: Vendor) -> None:
    parent, fleet = ship_unchanged(POCKET_V1_FOLDER), fleet_of(0)
    made = fold_release(parent, fleet, vendor)
    added = updates_of(fleet)
    old, new = dict(site_weights(parent.folder, 8)), dict(site_weights(made.folder, 8))
    for site, before in old.items():
        if site in added:
            # half precision, in which releases are shipped, has 11 bits
            np.testing.assert_allclose(
                new[site], before + added[site].dense(), rtol=2**-11, atol=1e-7
            )
        else:
            np.testing.assert_array_equal(new[site], before)
    again = fold_release(parent, fleet, vendor)
    assert (again.folder, again.digest) == (made.folder, made.digest)
    assert fold_release(parent, fleet_of(0, seed=1), vendor).folder != made.folder
    away = replace(fleet, factors={Site(9, "q"): fleet.factors[Site(6, "q")]})
    with pytest.raises(ValueError, match=r"the release must have 9.q as \(96, 96\), got None"):
        fold_release(parent, away, vendor)


def test_the_old_patch_less_the_fleets_is_the_old_function_on_a_merged_release() -> None:
    fleet, own = fleet_of(0), fleet_of(0, seed=1)
    moved = updates_of(delta(own, fleet))
    for site, update in updates_of(own).items():
        whole = moved[site].dense() + updates_of(fleet)[site].dense()
        np.testing.assert_allclose(whole, update.dense(), atol=1e-5)


def test_a_manifest_says_since_when_the_fleet_is_in_the_weights(vendor: Vendor) -> None:
    made = publisher(vendor, MERGED, replace(MERGED, name="again"), TRAINED, FRESH)
    fleet = fleet_of(0)
    made.newest(0)
    first = made.newest(1, fleet)
    assert (first.folded, first.parent) == (1, 0)
    moved = {site for site, drift in first.drift_since(0).items() if drift.squares > 0}
    assert moved == set(updates_of(fleet))
    # no device sent anything since: nothing to fold, and nothing changes
    second = made.newest(2, None)
    assert (second.folded, second.digest) == (1, first.digest)
    assert made.newest(3, None).folded == 1
    assert made.newest(4, None).folded is None
    assert [entry.fleet for entry in made.published] == ["", fleet.digest(), "", "", ""]


def test_a_merged_release_with_steps_is_trained_on_from_the_merged_weights(vendor: Vendor) -> None:
    plan = replace(TRAINED, name="both", kind="merged_fleet")
    made = publisher(vendor, plan)
    made.newest(0)
    release = made.newest(1, fleet_of(0))
    assert release.folded == 1
    assert made.published[1].trained.loss_after is not None
    still = dict(
        site_weights(fold_release(ship_unchanged(POCKET_V1_FOLDER), fleet_of(0), vendor).folder, 8)
    )
    apart = sum(
        float(np.square(value - still[site]).sum())
        for site, value in site_weights(made.published[1].trained.folder, 8)
    )
    assert 0 < apart < 1


def test_a_resumed_run_makes_its_merged_release_again(vendor: Vendor) -> None:
    before = publisher(vendor, MERGED)
    before.newest(0)
    before.newest(1, fleet_of(0))
    kept = [
        ReleaseRecord(round=entry.round, digest=entry.manifest.digest, fleet=entry.fleet)
        for entry in before.published
    ]
    after = publisher(vendor, MERGED)
    after.restore(kept)
    assert [one.manifest for one in after.published] == [one.manifest for one in before.published]
    lost = publisher(vendor, MERGED)
    with pytest.raises(ValueError, match="must hold the patch"):
        lost.restore([kept[0], replace(kept[1], fleet="0" * 64)])


def test_a_fleet_patch_that_is_in_the_weights_is_not_served_twice(vendor: Vendor) -> None:
    made = publisher(vendor, MERGED)
    release: Manifest = made.newest(0)
    rule, fleet = FleetOnly(), fleet_of(0)
    assert rule.decide(release, fleet).action is Action.REUSE
    merged = made.newest(1, fleet)
    told = rule.decide(merged, fleet)
    assert (told.action, told.reason) == (Action.NEVER, "folded")
    assert rule.decide(merged, replace(fleet, release=1)).action is Action.REUSE


def test_merging_needs_a_fleet_patch_and_a_release_before() -> None:
    schedule = Schedule(every=1, plans=(TRAINED, MERGED))
    check_merged(START, schedule)
    check_merged(NONE, Schedule(every=1, plans=(TRAINED,)))
    with pytest.raises(ValueError, match="kind merged_fleet need fleet_patch=start, got none"):
        check_merged(NONE, schedule)
    with pytest.raises(ValueError, match=r"release.initial must not be of kind merged_fleet"):
        Schedule(every=1, plans=(TRAINED,), initial=MERGED)
    with pytest.raises(ValueError, match="batch must be left out for kind merged_fleet"):
        replace(MERGED, batch=4)
    with pytest.raises(ValueError, match="rank must be left out for kind merged_fleet"):
        replace(TRAINED, kind="merged_fleet", rank=4)
