"""Drift by scope: by hand, and the projected one equal to dense projection matrices."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file

from clients.adaptation.decision import PatchHistory
from clients.adaptation.device_view import DeviceView
from clients.adaptation.drift import basis, measure_drift, measure_projected
from clients.work.facts import Facts
from fleettune.adapters.factors import TiedPair
from fleettune.adapters.patch import Factors, Patch, peft_name
from fleettune.cohort.suspension import current_compute
from fleettune.cost.hardware import load_hardware
from fleettune.releases.manifest import Drift, Manifest, SiteDrift, moments
from fleettune.shapes import Shapes, Site

Matrix = NDArray[np.float32]
SHAPES = Shapes(hidden=2, layers=1, heads=1, kv_heads=1, head_dim=2, ffn=2, vocab=4)
FACTS = Facts(
    device=0,
    user=0,
    seed=0,
    profile=load_hardware(Path(__file__).parents[3] / "conf" / "hardware")["meizu_21"],
)
Q, V = Site(0, "q"), Site(0, "v")


def array(*rows: list[float]) -> Matrix:
    return np.array(rows, dtype=np.float32)


def patch(factors: Mapping[Site, tuple[Matrix, Matrix]], alpha: float = 1.0) -> Patch:
    made = {site: Factors(a=a, b=b) for site, (a, b) in factors.items()}
    return Patch(release=0, alpha=alpha, factors=made)


def release(
    folder: Path, version: int, weights: Mapping[Site, Matrix], drift: Mapping[Site, Matrix]
) -> Manifest:
    place = folder / str(version)
    place.mkdir()
    save_file(
        {f"{peft_name(site)}.weight": weight for site, weight in weights.items()},
        place / "model.safetensors",
    )
    moved = tuple(
        SiteDrift(layer=site.layer, module=site.module, drift=moments(delta))
        for site, delta in drift.items()
    )
    return Manifest(
        version=version,
        name="some",
        path=str(place),
        digest="",
        size_bytes=1,
        shapes=SHAPES,
        template="plain",
        max_tokens=8,
        drifts=(Drift(since=0, sites=moved),),
    )


def view(own: Patch, new: Manifest, before: Manifest | None, path: float = 0.0) -> DeviceView:
    return DeviceView(
        facts=FACTS,
        release=new,
        patch=own,
        before=before,
        canaries=(),
        history=PatchHistory(path=path),
        compute=current_compute(),
    )


# B A = [[0], [1]] [[0, 2]] = [[0, 0], [0, 2]], scaled by alpha / rank = 1.
CORNER = patch({V: (array([0, 2]), array([0], [1]))})
MOVED = {V: array([0, 3], [4, 1]), Q: array([2, 2], [2, 2])}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Manifest, Manifest]:
    zeros = {site: np.zeros((2, 2), dtype=np.float32) for site in MOVED}
    return release(tmp_path, 0, zeros, {}), release(tmp_path, 1, MOVED, MOVED)


def test_each_scope_by_hand(pair: tuple[Manifest, Manifest]) -> None:
    old, new = pair
    near = view(CORNER, new, old)
    # All: squares 0 9 16 1 4 4 4 4, mean 5.25; with k_var = 0 that is all.
    everything = measure_drift("target_modules", near, 0.0)
    assert everything is not None
    assert everything.drift == pytest.approx(5.25)
    # v alone: 26 / 4 = 6.5; the patch: 4 / 4 = 1 in both.
    touched = measure_drift("patched", near, 0.0)
    assert touched is not None
    assert touched.drift == pytest.approx(6.5)
    assert everything.strength == touched.strength == 1.0
    # The patch reads the second input and writes the second output: the second column of v's
    # change is (3, 1), its second row (4, 1). 9 + 1 + 16 + 1 = 27; ||B A||^2 = 4.
    inside = measure_drift("projected", near, 0.25)
    assert inside is not None
    assert inside.drift == pytest.approx(27.0)
    assert inside.strength == 4.0
    assert inside.path == pytest.approx(27**0.5)


def test_the_deviation_is_that_of_the_scopes_own_entries(pair: tuple[Manifest, Manifest]) -> None:
    squares = np.array([0, 9, 16, 1], dtype=np.float64)
    touched = measure_drift("patched", view(CORNER, pair[1], pair[0]), 0.25)
    assert touched is not None
    assert touched.drift == pytest.approx(squares.mean() + 0.25 * squares.std(ddof=1))


def test_a_projection_charges_both_releases_weights_and_its_products(
    pair: tuple[Manifest, Manifest],
) -> None:
    found = measure_projected(CORNER, *pair, path=0.0)
    # 4 weights of v in each release; 2 + 2 factors of 4 bytes.
    assert (found.read_weights, found.read_bytes) == (8, 16)
    # 4 entries: a difference, and 4 FLOP per rank for two products; 4 rows and columns: their
    # squares with sums (2), and two Gram products and a basis of two FLOP each (4).
    assert found.work_flop == 4 * (1 + 4) + 4 * (2 + 4)


def test_without_the_old_release_there_is_no_projection(pair: tuple[Manifest, Manifest]) -> None:
    assert measure_drift("projected", view(CORNER, pair[1], None), 0.25) is None


def drawn(rng: np.random.Generator, *shape: int) -> Matrix:
    return rng.normal(size=shape).astype(np.float32)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), rank=st.integers(1, 3), doubled=st.booleans())
def test_projected_drift_equals_dense_projection_matrices(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rank: int, doubled: bool
) -> None:
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("drift")
    sites = {Q: (5, 4), V: (4, 6)}
    factors = {site: (drawn(rng, rank, n), drawn(rng, m, rank)) for site, (m, n) in sites.items()}
    if doubled:  # a rank that is not full: the same direction twice
        factors = {s: (np.repeat(a, 2, 0), np.repeat(b, 2, 1)) for s, (a, b) in factors.items()}
    own = patch(factors, alpha=3.0)
    old = {site: drawn(rng, *size) for site, size in sites.items()}
    new = {site: drawn(rng, *size) for site, size in sites.items()}
    found = measure_projected(
        own, release(folder, 0, old, {}), release(folder, 1, new, {}), path=0.0
    )
    drift = strength = 0.0
    for site, (a, b) in factors.items():
        delta = new[site].astype(np.float64) - old[site]
        reads = np.linalg.pinv(a.astype(np.float64), rcond=1e-6) @ a
        writes = b @ np.linalg.pinv(b.astype(np.float64), rcond=1e-6)
        drift += np.square(delta @ reads).sum() + np.square(writes @ delta).sum()
        strength += np.square(3.0 / len(a) * (b.astype(np.float64) @ a)).sum()
    # bases come from single-precision factors, all products are double
    assert found.drift == pytest.approx(drift, rel=1e-5)
    assert found.strength == pytest.approx(strength, rel=1e-9)


@settings(derandomize=True, max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), releases=st.integers(1, 4))
def test_over_several_releases_the_path_bounds_the_drift_from_above(
    tmp_path_factory: pytest.TempPathFactory, seed: int, releases: int
) -> None:
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("path")
    own = patch({Q: (drawn(rng, 2, 4), drawn(rng, 5, 2))})
    made = [release(folder, n, {Q: drawn(rng, 5, 4)}, {}) for n in range(releases + 1)]
    path = 0.0
    for before, new in pairwise(made):
        path = measure_projected(own, before, new, path).path
    whole = measure_projected(own, made[0], made[-1], 0.0).drift
    assert path**2 >= whole * (1 - 1e-9)
    if releases == 1:
        assert path**2 == pytest.approx(whole)


def test_an_untrained_patch_writes_nothing(pair: tuple[Manifest, Manifest]) -> None:
    untrained = patch({V: (array([0, 2]), array([0], [0]))})
    found = measure_projected(untrained, *pair, path=0.0)
    # what it reads alone: the second column
    assert (found.drift, found.strength) == (pytest.approx(10.0), 0.0)
    assert basis(np.zeros((3, 2), dtype=np.float32)).shape == (3, 0)


def test_tied_sites_are_measured_as_what_they_compute(pair: tuple[Manifest, Manifest]) -> None:
    vectors = {s: (np.ones(1, np.float32), np.ones(2, np.float32)) for s in (Q, V)}
    tied = TiedPair(pair=Factors(a=array([0, 2]), b=array([0], [1])), alpha=1.0, vectors=vectors)
    own = Patch(release=0, alpha=1.0, factors={}, ties=(tied,))
    plain = patch({s: (array([0, 2]), array([0], [1])) for s in (Q, V)})
    assert (
        measure_projected(own, *pair, path=0.0).drift
        == measure_projected(plain, *pair, path=0.0).drift
    )
