"""Clustered catalogues: made of deltas that devices shared, once enough of them came."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleettune.adapters.patch import Factors, Patch, Placement, new_patch
from fleettune.shapes import Site
from simulations.experiment.question_lists import list_questions
from strategies.catalogue.cataloguer import SHARED, Cataloguer
from strategies.catalogue.cluster_source import ClusterCatalogue, cluster_entries
from strategies.catalogue.explain import Explain
from strategies.catalogue.shared_deltas import SharedDeltas
from tests.strategies.catalogue.test_cataloguer import RELEASE, shaken

QUESTIONS = list_questions("everyday")
HOW = ClusterCatalogue(
    clusters=2,
    members=3,
    least=6,
    most=8,
    rank=2,
    alpha=4.0,
    width=4,
    questions=QUESTIONS,
    explain=Explain(questions=12, new_tokens=8),
    worse=0.02,
)
WHERE = Placement(sites=(Site(7, "q"), Site(7, "down")), rank=2, alpha=4.0)


def drawn(group: int, device: int = 0, release: int = 0) -> Patch:
    """A device's delta: that of its group, a little of its own beside it."""
    fresh = new_patch(WHERE, RELEASE.shapes, release, np.random.default_rng(group))
    shared, own = np.random.default_rng(50 + group), np.random.default_rng(100 + device)
    factors: dict[Site, Factors] = {}
    for site, item in fresh.factors.items():
        b = shared.normal(0, 0.3, item.b.shape) + own.normal(0, 0.01, item.b.shape)
        factors[site] = Factors(a=item.a, b=b.astype(np.float32))
    return replace(fresh, factors=factors)


def cataloguer(store: Path, how: ClusterCatalogue = HOW) -> Cataloguer:
    return Cataloguer(how=how, store=store, seed=3)


def shared(made: Cataloguer, devices: range, release: int = 0) -> None:
    """One round: the devices share, those of even number of one group, the others of another."""
    share = made.share(release)
    assert share is not None
    for device in devices:
        share(device, drawn(device % 2, device, release))


def test_there_is_no_catalogue_before_enough_deltas_came_and_then_it_is_made_once(
    tmp_path: Path,
) -> None:
    made = cataloguer(tmp_path)
    assert made.offer([RELEASE]) is None
    shared(made, range(5))
    assert made.offer([RELEASE]) is None
    assert made.rows() == []
    shared(made, range(5, 8))
    # the round that brought them was the last to be asked, made or not
    assert made.share(0) is None
    offer = made.offer([RELEASE])
    assert offer is not None
    assert made.share(0) is None
    assert {row["origin"] for row in made.rows()} == {"cluster"}
    assert len(offer.data) < 40_000
    site = Site(7, "q")
    found = [patch for e in offer.manifest.entries for patch in offer.patches((e.digest,))]
    for group in range(2):
        mean = np.mean([drawn(group, n).dense(site) for n in range(group, 8, 2)], axis=0)
        left = min(float(np.linalg.norm(patch.dense(site) - mean)) for patch in found)
        # the noise of four devices beyond the rank of their group
        assert left < 0.1 * float(np.linalg.norm(mean))


def test_devices_are_given_no_delta_of_another_device(tmp_path: Path) -> None:
    made = cataloguer(tmp_path)
    shared(made, range(8))
    offer = made.offer([RELEASE])
    assert offer is not None
    given = {file.stem for file in Path(offer.store).glob("*.safetensors")}
    kept = {file.stem for file in (tmp_path / SHARED).glob("*.safetensors")}
    assert len(kept) == 8
    assert not given & kept
    with pytest.raises(ValueError, match="must hold the patch"):
        offer.patches((min(kept),))


def test_a_cluster_of_too_few_devices_is_not_offered(tmp_path: Path) -> None:
    lonely = [drawn(0, device) for device in range(5)] + [drawn(1, 9)]
    (entry,) = cluster_entries(lonely, replace(HOW, members=2), 0)
    assert entry.patch.digest() not in {patch.digest() for patch in lonely}
    # one entry is no choice
    made = cataloguer(tmp_path)
    share = made.share(0)
    assert share is not None
    for device, patch in enumerate(lonely):
        share(device, patch)
    assert made.offer([RELEASE]) is None
    assert made.share(0) is None


def test_a_release_that_leaves_all_entries_as_they_are_reuses_them_and_another_makes_all_anew(
    tmp_path: Path,
) -> None:
    same, other = replace(RELEASE, version=1, digest="same"), shaken(tmp_path / "other")
    made = cataloguer(tmp_path)
    shared(made, range(6))
    first = made.offer([RELEASE])
    second = made.offer([RELEASE, same])
    assert first is not None
    assert second is not None
    assert second.manifest.entries == first.manifest.entries
    assert made.share(1) is None
    releases = [RELEASE, same, other]
    assert made.offer(releases) is None
    shared(made, range(10, 16), 2)
    third = made.offer(releases)
    assert third is not None
    assert {row["reused"] for row in made.rows() if row["release"] == 2} == {False}
    assert {
        patch.release for e in third.manifest.entries for patch in third.patches((e.digest,))
    } == {2}


def test_a_resumed_run_goes_on_with_the_same_bytes(tmp_path: Path) -> None:
    whole = cataloguer(tmp_path / "whole")
    shared(whole, range(5))
    shared(whole, range(5, 8))
    offer = whole.offer([RELEASE])
    assert offer is not None
    # killed before enough came, and once more behind the round that brought them
    begun = cataloguer(tmp_path / "killed")
    shared(begun, range(5))
    for devices in (range(5, 8), None):
        plain = json.loads(json.dumps(begun.plain()))
        begun = cataloguer(tmp_path / "killed")
        begun.restore(plain)
        if devices is not None:
            shared(begun, devices)
    found = begun.offer([RELEASE])
    assert found is not None
    assert found.data == offer.data


@settings(deadline=None, max_examples=20)
@given(order=st.permutations(range(7)), most=st.integers(1, 9))
def test_what_is_kept_follows_from_who_sent_and_not_from_the_order(
    order: list[int], most: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = tmp_path_factory.mktemp("store")
    one, other = (SharedDeltas(store=store, seed=1, most=most) for _ in range(2))
    for device in range(7):
        one.add(0, device, SMALL[device])
    for device in order:
        other.add(0, device, SMALL[device])
    assert one.plain() == other.plain()
    assert one.count(0) == min(most, 7)


SMALL = [
    Patch(
        release=0,
        alpha=1.0,
        factors={
            Site(0, "q"): Factors(
                a=np.full((1, 2), device + 1, np.float32), b=np.ones((2, 1), np.float32)
            )
        },
    )
    for device in range(7)
]


def test_a_device_counts_once_with_its_newest_delta(tmp_path: Path) -> None:
    kept = SharedDeltas(store=tmp_path, seed=1, most=4)
    kept.add(0, 5, SMALL[0])
    kept.add(0, 5, SMALL[1])
    assert kept.plain() == [(0, 5, SMALL[1].digest())]
    assert [patch.digest() for patch in kept.of(0)] == [SMALL[1].digest()]
    # an equal patch under another release is that release's
    kept.add(4, 5, replace(SMALL[1], release=4))
    assert [patch.release for patch in kept.of(4)] == [4]


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("clusters", 1, ">= 2"),
        ("members", 1, ">= 2"),
        ("least", 5, "6 deltas, got 5"),
        ("most", 5, "6 deltas, got 5"),
        ("rank", 0, ">= 1"),
        ("width", 0, ">= 1"),
        ("alpha", 0.0, "> 0"),
        ("worse", -1.0, ">= 0"),
    ],
)
def test_wrong_values_are_told(field: str, value: float, rule: str) -> None:
    with pytest.raises(ValueError, match=f"catalogue.{field} must be .*{rule}"):
        replace(HOW, **{field: value})


def test_a_fleet_must_be_able_to_share_enough() -> None:
    HOW.check_fleet(6, "none")
    with pytest.raises(ValueError, match=r"least must be at most fleet\.devices, 5"):
        HOW.check_fleet(5, "none")
    with pytest.raises(ValueError, match="needs fleet_patch=none, got start"):
        HOW.check_fleet(6, "start")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("summariser", "oracle"),
        ("questions", 0),
        ("new_tokens", 0),
        ("beside", -1),
        ("shrink", 2.0),
    ],
)
def test_how_entries_are_explained_is_checked(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"catalogue\.explain\.{field} must be"):
        replace(HOW.explain, **{field: value})
