"""Releases: drift by hand, equal to numpy over all entries, and additive over matrices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file

from fleettune.records import to_record
from fleettune.releases.manifest import Drift, Manifest, Moments, SiteDrift, drift_between, moments
from fleettune.releases.model_files import site_weights
from fleettune.seeds import Purpose, stream
from fleettune.shapes import MODULES, Shapes, Site

SHAPES = Shapes(hidden=8, layers=2, heads=2, kv_heads=1, head_dim=4, ffn=12, vocab=16)

# Whole numbers below 2^40 add without rounding, so the laws hold exactly.
amounts = st.integers(0, 2**40).map(float)
all_moments = st.builds(Moments, count=st.integers(0, 2**40), squares=amounts, fourths=amounts)


@settings(derandomize=True)
@given(all_moments, all_moments, all_moments)
def test_moments_are_a_commutative_monoid(a: Moments, b: Moments, c: Moments) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Moments() == a == Moments() + a


def test_a_magnitude_by_hand() -> None:
    found = moments(np.array([[1, -2], [3, 0]], dtype=np.float32))
    # Squares 1, 4, 9, 0 sum to 14; their squares 1 + 16 + 81 = 98.
    assert found == Moments(count=4, squares=14.0, fourths=98.0)
    # Mean 3.5; sum of squared deviations 98 - 4 * 3.5^2 = 49, over 3.
    assert found.magnitude(0.0) == 3.5
    assert found.magnitude(0.25) == pytest.approx(3.5 + 0.25 * (49 / 3) ** 0.5, rel=1e-15)


arrays = st.lists(
    st.floats(-100, 100, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3),
    min_size=2,
    max_size=40,
)


@settings(derandomize=True, deadline=None)
@given(arrays, st.floats(0, 4))
def test_a_magnitude_is_the_mean_plus_deviations_of_the_squares(
    values: list[float], k_var: float
) -> None:
    array = np.array(values, dtype=np.float32)
    squares = np.square(array.astype(np.float64))
    expected = squares.mean() + k_var * squares.std(ddof=1)
    # Sums of squares lose half the digits of a deviation far below the mean: sqrt(1e-16).
    assert moments(array).magnitude(k_var) == pytest.approx(expected, rel=1e-6, abs=1e-12)


@settings(derandomize=True, deadline=None)
@given(st.lists(arrays, min_size=1, max_size=4))
def test_pooling_matrices_is_adding_their_moments(parts: list[list[float]]) -> None:
    pooled = sum((moments(np.array(part, dtype=np.float32)) for part in parts), Moments())
    whole = moments(np.array([value for part in parts for value in part], dtype=np.float32))
    assert pooled.count == whole.count
    # Double precision, another order of sums.
    assert pooled.squares == pytest.approx(whole.squares, rel=1e-12)
    assert pooled.fourths == pytest.approx(whole.fourths, rel=1e-12)


def test_a_constant_has_no_deviation_and_one_number_no_magnitude() -> None:
    assert Moments(count=3, squares=12.0, fourths=48.0).magnitude(10.0) == 4.0
    with pytest.raises(ValueError, match="at least 2 numbers, got 1"):
        Moments(count=1, squares=1.0, fourths=1.0).magnitude(0.25)


def tensors_of(key: int) -> dict[str, np.ndarray]:
    rng = stream(0, Purpose.RELEASE, key)
    found = {"model.embed_tokens.weight": rng.normal(size=(16, 8)).astype(np.float32)}
    for layer in range(SHAPES.layers):
        for module, (n_in, n_out) in SHAPES.matrices().items():
            parent = "self_attn" if module in ("q", "k", "v", "o") else "mlp"
            name = f"model.layers.{layer}.{parent}.{module}_proj.weight"
            found[name] = rng.normal(size=(n_out, n_in)).astype(np.float32)
    return found


def folder_of(parent: Path, name: str, tensors: dict[str, np.ndarray]) -> Path:
    folder = parent / name
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_drift_is_the_change_of_every_matrix_and_of_nothing_else(tmp_path: Path) -> None:
    old, new = tensors_of(0), tensors_of(1)
    drift = drift_between(
        folder_of(tmp_path, "old", old), folder_of(tmp_path, "new", new), SHAPES, since=3
    )
    assert drift.since == 3
    assert [entry.site for entry in drift.sites] == [Site(n, m) for n in (0, 1) for m in MODULES]
    for entry in drift.sites:
        parent = "self_attn" if entry.module in ("q", "k", "v", "o") else "mlp"
        name = f"model.layers.{entry.layer}.{parent}.{entry.module}_proj.weight"
        assert entry.drift == moments(new[name] - old[name])
    # the rule pools all entries of all target matrices, see
    # docs/methods.md#edgetune-released-drift-and-strength
    names = [name for name in old if "layers" in name]
    squares = np.concatenate([(new[n] - old[n]).astype(np.float64).ravel() ** 2 for n in names])
    pooled = sum((entry.drift for entry in drift.sites), Moments())
    expected = squares.mean() + 0.25 * squares.std(ddof=1)
    # Double precision, another order of sums.
    assert pooled.magnitude(0.25) == pytest.approx(expected, rel=1e-9)


def test_one_changed_number_drifts_one_matrix(tmp_path: Path) -> None:
    old, new = tensors_of(0), tensors_of(0)
    new["model.layers.1.mlp.up_proj.weight"][2, 3] += 0.5
    new["model.embed_tokens.weight"] += 1.0
    drift = drift_between(
        folder_of(tmp_path, "old", old), folder_of(tmp_path, "new", new), SHAPES, since=0
    )
    moved = {entry.site: entry.drift for entry in drift.sites if entry.drift.squares}
    assert list(moved) == [Site(1, "up")]
    # 0.5 is exact beside a weight of order 1, up to that weight's own last bit.
    assert moved[Site(1, "up")].squares == pytest.approx(0.25, rel=1e-5)
    assert moved[Site(1, "up")].count == 8 * 12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_are_read_in_any_precision_that_vendors_ship(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    given_tensors = {k: torch.as_tensor(v).to(dtype) for k, v in tensors_of(0).items()}
    save_torch_file(given_tensors, tmp_path / "model.safetensors")
    found = dict(site_weights(tmp_path, SHAPES.layers))
    assert len(found) == 2 * len(MODULES)
    expected = given_tensors["model.layers.1.mlp.down_proj.weight"].float().numpy()
    np.testing.assert_array_equal(found[Site(1, "down")], expected)
    assert all(weight.dtype == np.float32 for weight in found.values())


def manifest(*drifts: Drift) -> Manifest:
    return Manifest(
        version=5,
        name="spring",
        path="/nowhere",
        digest="0",
        size_bytes=1,
        shapes=SHAPES,
        template="pocket",
        max_tokens=64,
        drifts=drifts,
    )


def test_what_a_release_does_not_come_with_takes_no_bytes() -> None:
    fields = "type version name path digest size_bytes shapes template max_tokens drifts"
    assert list(to_record(manifest())) == fields.split()


def test_a_manifest_gives_the_drift_since_the_version_asked_for() -> None:
    near, far = (
        Drift(since=since, sites=(SiteDrift(layer=1, module="q", drift=Moments(count=since)),))
        for since in (4, 2)
    )
    found = manifest(near, far).drift_since(2)
    assert found == {Site(1, "q"): Moments(count=2)}


def test_a_version_that_the_manifest_does_not_cover_is_named() -> None:
    covered = Drift(since=4, sites=())
    with pytest.raises(ValueError, match=r"release 5 holds drift since \[4\], not since 3"):
        manifest(covered).drift_since(3)
    with pytest.raises(ValueError, match=r"since \[\], not since 5"):
        manifest().drift_since(5)
