"""What a tune starts from, and what of it leaves the device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clients.adaptation.rules import AlwaysRetune
from clients.policy import DevicePolicy
from clients.tuning.first_patch import new_start, warm_start
from clients.tuning.schedule import Tuning
from fleettune.adapters.factors import Tie
from fleettune.adapters.patch import Patch, Placement
from fleettune.adapters.updates import add_updates, delta, updates_of
from fleettune.deltas.codecs import TopK
from fleettune.deltas.frames import read_frame
from fleettune.releases.manifest import Manifest
from fleettune.shapes import Site
from strategies.aggregation import ExactMean
from strategies.aggregation.fleet_patch import grow_fleet_patch
from tests.clients.test_device import live, night_order, policy

PLACEMENT = Placement(sites=(Site(6, "q"), Site(7, "down")), rank=4, alpha=6.0)
TIED = Placement(
    sites=(Site(6, "q"),),
    rank=4,
    alpha=6.0,
    ties=(Tie(sites=(Site(6, "up"), Site(7, "up")), rank=2, alpha=2.0),),
)


def fleet_of(release: Manifest, rank: int, sites: tuple[Site, ...] = PLACEMENT.sites) -> Patch:
    """A fleet patch as a server makes it."""
    rng, matrices = np.random.default_rng(rank), release.shapes.matrices()
    aggregate = ExactMean().open()
    placement = replace(PLACEMENT, sites=sites)
    fresh = new_start(
        night_order(release, policy(AlwaysRetune())).facts, release, placement, shared=False
    )
    for site in fresh.factors:
        fresh.factors[site].b[:] = rng.normal(size=(matrices[site.module][1], 4))
    aggregate.add(fresh)
    found = grow_fleet_patch(None, aggregate.updates(), rank, release.version)
    assert found is not None
    return found


def tuned_with(tuning: Tuning, **more: object) -> DevicePolicy:
    return replace(policy(AlwaysRetune()), tuning=tuning, **more)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("rank", [1, 3, 4])
def test_a_warm_start_does_what_the_fleets_best_components_do(
    releases: tuple[Manifest, Manifest], rank: int
) -> None:
    release = releases[0]
    facts = night_order(release, policy(AlwaysRetune())).facts
    fresh = new_start(facts, release, PLACEMENT, shared=False)
    fleet = fleet_of(release, rank)
    start, sent = warm_start(fresh, fleet)
    assert sent is not None
    assert (start.alpha, start.ranks) == (fresh.alpha, fresh.ranks)
    for site in PLACEMENT.sites:
        best = updates_of(fleet)[site].dense()
        for found in (start, sent):
            np.testing.assert_allclose(updates_of(found)[site].dense(), best, atol=1e-5)
        # what the fleet's rank leaves free is fresh: A drawn, B zero
        np.testing.assert_array_equal(start.factors[site].a[rank:], fresh.factors[site].a[rank:])
        assert not start.factors[site].b[:, rank:].any()
    # so nothing that is not trained leaves the device
    norms = [update.norm() for update in updates_of(delta(start, sent)).values()]
    assert norms == pytest.approx([0, 0], abs=1e-5)


def test_a_device_of_lower_rank_takes_the_best_of_its_rank(
    releases: tuple[Manifest, Manifest],
) -> None:
    release = releases[0]
    facts = night_order(release, policy(AlwaysRetune())).facts
    fresh = new_start(facts, release, replace(PLACEMENT, rank=2), shared=False)
    fleet = fleet_of(release, 4)
    start, _ = warm_start(fresh, fleet)
    for site in PLACEMENT.sites:
        best = updates_of(fleet)[site].truncate(2).dense()
        np.testing.assert_allclose(updates_of(start)[site].dense(), best, atol=1e-5)


def test_sites_that_share_or_that_the_fleet_never_adapted_start_fresh(
    releases: tuple[Manifest, Manifest],
) -> None:
    release = releases[0]
    facts = night_order(release, policy(AlwaysRetune())).facts
    fresh = new_start(facts, release, TIED, shared=False)
    fleet = fleet_of(release, 4, (Site(6, "q"), Site(7, "up")))
    start, sent = warm_start(fresh, fleet)
    assert sent is not None
    assert list(sent.factors) == [Site(6, "q")]
    assert start.shared == fresh.shared
    assert delta(start, sent).shared == fresh.shared
    none = fleet_of(release, 4, (Site(0, "k"),))
    assert warm_start(fresh, none) == warm_start(fresh, None) == (fresh, None)


def test_a_frozen_a_is_the_same_on_all_devices_and_never_trains(
    releases: tuple[Manifest, Manifest],
) -> None:
    release = releases[0]
    plain = Tuning(steps=2, batch=2, learning_rate=1e-2, clip=1.0)
    night = night_order(release, tuned_with(replace(plain, frozen_a=True)))
    other = replace(night, facts=replace(night.facts, device=4, user=4))
    patches = [live(one)[0].patch for one in (night, other)]
    first = new_start(night.facts, release, PLACEMENT, shared=True)
    second = new_start(other.facts, release, PLACEMENT, shared=True)
    for site in PLACEMENT.sites:
        np.testing.assert_array_equal(first.factors[site].a, second.factors[site].a)
    one, two = patches
    assert one is not None
    assert two is not None
    for site, item in one.factors.items():
        np.testing.assert_array_equal(item.a, two.factors[site].a)
        assert item.b.any()
        assert not np.array_equal(item.b, two.factors[site].b)
    own = [live(replace(one, policy=tuned_with(plain)))[0].patch for one in (night, other)]
    assert own[0] is not None
    assert own[1] is not None
    site = Site(7, "q")
    assert not np.array_equal(own[0].factors[site].a, own[1].factors[site].a)
    with pytest.raises(ValueError, match=r"tuning.frozen_a must be false where sites share"):
        new_start(night.facts, release, TIED, shared=True)


def test_what_leaves_is_the_difference_from_what_the_fleet_sent(
    releases: tuple[Manifest, Manifest],
) -> None:
    release = releases[0]
    night = night_order(release, policy(AlwaysRetune()))
    fresh, _ = live(night)
    assert fresh.patch is not None
    fleet = fleet_of(release, 1, tuple(fresh.patch.factors))
    state, report = live(replace(night, fleet=fleet))
    assert state.patch is not None
    assert report.delta is not None
    for site, update in updates_of(state.patch).items():
        apart = update.dense() - updates_of(fleet)[site].dense()
        np.testing.assert_allclose(updates_of(report.delta)[site].dense(), apart, atol=1e-5)
    # the device pays for what it was sent
    assert report.statistics.ledger.total().down_bytes == pytest.approx(
        live(night)[1].statistics.ledger.total().down_bytes + fleet.size_bytes, rel=1e-9
    )


def test_what_top_k_leaves_out_stays_on_the_device_for_its_next_delta(
    releases: tuple[Manifest, Manifest],
) -> None:
    codec = TopK(fraction=0.2)
    chosen = replace(policy(AlwaysRetune()), codec=codec)
    state, report = live(night_order(releases[0], chosen))
    assert report.frame is not None
    assert report.delta is not None
    assert state.residual is not None
    assert state.stored_bytes >= state.residual.size_bytes
    sent, left = updates_of(read_frame(report.frame)), updates_of(state.residual)
    for site, whole in updates_of(report.delta).items():
        both = add_updates([sent[site], left[site]]).dense()
        np.testing.assert_allclose(both, whole.dense(), atol=1e-6 * max(1.0, whole.norm()))
    # the next night: all but what a residual of twice the delta's rank cannot hold
    later, again = live(night_order(releases[1], chosen, round_=1), state)
    assert again.frame is not None
    assert again.delta is not None
    assert later.residual is not None
    got, rest = updates_of(read_frame(again.frame)), updates_of(later.residual)
    for site, change in updates_of(again.delta).items():
        missed = add_updates([change, left[site], got[site].times(-1)])
        held, lost = missed.truncate_with_error(2 * change.rank)
        np.testing.assert_allclose(rest[site].dense(), held.dense(), atol=1e-6)
        assert lost < missed.norm() / 2


def test_between_download_and_decision_no_patch_of_another_release_is_applied(
    releases: tuple[Manifest, Manifest],
) -> None:
    first, second = releases
    state, _ = live(night_order(first, policy(AlwaysRetune())))
    assert state.applied is state.patch
    downloaded = replace(state, held=second)
    assert downloaded.applied is None
    assert replace(downloaded, settled=second.version).applied is state.patch
