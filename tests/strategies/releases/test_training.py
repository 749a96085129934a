"""Training of releases: trained once, found again, keyed, on text outside the fleet only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, load_backbone, read_shapes
from fleettune.data.exchanges import Answer, Exchange
from fleettune.data.personas import SyntheticData
from fleettune.data.tokens import open_encoder
from fleettune.releases.model_files import folder_digest, site_weights, weight_files
from strategies.releases.schedule import ReleasePlan
from strategies.releases.training import TrainedRelease, Vendor, ship_unchanged, train_release

# peft 0.21 asks transformers 5 for a name that it renames; nothing of ours depends on it.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is dep:FutureWarning")

FULL = ReleasePlan(
    name="mild", kind="full", steps=2, learning_rate=1e-3, batch=2, window=16, conversations=50
)
# A large rate for few steps, so that the change stands far above half precision's rounding.
LOW_RANK = replace(
    FULL, name="low", kind="low_rank", steps=4, learning_rate=3e-2, rank=2, top_layers=3
)
ENCODER = open_encoder(POCKET_V1_FOLDER, "pocket", 128)
LAYERS = read_shapes(POCKET_V1_FOLDER).layers


@dataclass(frozen=True, slots=True, kw_only=True)
class Outsiders:
    """A population whose fleet nobody may read; notes how much outside text was asked for."""

    asked: list[int] = field(default_factory=list[int])
    users: int = 10
    labels: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()

    def day(self, user: int, day: int) -> tuple[Exchange, ...]:
        raise AssertionError(f"the vendor read user {user} of the fleet")

    def outside(self, count: int, seed: int) -> Sequence[tuple[Exchange, ...]]:
        self.asked.append(count)
        return SyntheticData().open().outside(count, seed)


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Vendor:
    store = tmp_path_factory.mktemp("store")
    return Vendor(store=store, population=Outsiders(), data="world", seed=0)


def train(
    plan: ReleasePlan, vendor: Vendor, parent: TrainedRelease | None = None
) -> TrainedRelease:
    return train_release(parent or ship_unchanged(POCKET_V1_FOLDER), plan, vendor, ENCODER, 1)


def drift(release: TrainedRelease) -> dict[str, NDArray[np.float32]]:
    pairs = zip(
        site_weights(POCKET_V1_FOLDER, LAYERS), site_weights(release.folder, LAYERS), strict=True
    )
    return {str(site): new - old for (site, old), (_, new) in pairs}


def test_a_release_is_trained_once_and_found_again(vendor: Vendor) -> None:
    first = train(FULL, vendor)
    file = weight_files(first.folder)[0]
    written = file.stat().st_mtime_ns
    again = train(FULL, replace(vendor, population=Outsiders()))
    assert again == first
    assert file.stat().st_mtime_ns == written
    assert folder_digest(first.folder) == first.digest


def test_finding_a_release_reads_no_text(vendor: Vendor) -> None:
    train(FULL, vendor)
    untouched = Outsiders()
    train(FULL, replace(vendor, population=untouched))
    assert untouched.asked == []


def test_a_release_learns_from_users_outside_the_fleet_only(vendor: Vendor, tmp_path: Path) -> None:
    population = Outsiders()
    train(FULL, replace(vendor, store=tmp_path, population=population))
    assert population.asked == [50]


def test_the_same_plan_in_another_store_gives_the_same_bytes(
    vendor: Vendor, tmp_path: Path
) -> None:
    assert train(FULL, vendor).digest == train(FULL, replace(vendor, store=tmp_path)).digest


def test_a_full_release_moves_every_matrix_and_loads_as_a_model(vendor: Vendor) -> None:
    release = train(FULL, vendor)
    assert all(np.any(change != 0) for change in drift(release).values())
    assert load_backbone(release.folder).shapes == read_shapes(POCKET_V1_FOLDER)
    assert open_encoder(release.folder, "pocket", 128).ids("hello") == ENCODER.ids("hello")


def test_weights_are_shipped_in_half_precision(vendor: Vendor) -> None:
    weights = load_file(weight_files(train(FULL, vendor).folder)[0])
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float16)}


def test_a_low_rank_release_moves_by_its_rank_in_its_top_layers_only(vendor: Vendor) -> None:
    release = train(LOW_RANK, vendor)
    weights = {str(site): new for site, new in site_weights(release.folder, LAYERS)}
    for site, change in drift(release).items():
        if int(site.partition(".")[0]) < LAYERS - LOW_RANK.top_layers:
            assert not np.any(change)
            continue
        values = np.linalg.svd(change.astype(np.float64), compute_uv=False)
        # Rounding to half precision changes each weight by at most 2^-11 of it (2^-25 where it is
        # subnormal), so by Weyl's inequality no singular value beyond the rank can exceed the
        # Frobenius norm of that.
        rounding = np.linalg.norm(2.0**-11 * np.abs(weights[site]) + 2.0**-25)
        assert values[LOW_RANK.rank] <= rounding
        assert values[0] > 10 * rounding  # so that the bound says something


def test_a_low_rank_release_leaves_embedding_and_norms_alone(vendor: Vendor) -> None:
    old, new = (
        load_file(weight_files(folder)[0])
        for folder in (POCKET_V1_FOLDER, train(LOW_RANK, vendor).folder)
    )
    others = [name for name in old if "_proj." not in name]
    assert others
    for name in others:
        assert np.array_equal(old[name].astype(np.float32), new[name].astype(np.float32))


def test_plan_seed_data_and_parent_each_make_another_release(vendor: Vendor) -> None:
    small = replace(FULL, steps=1)
    first = train(small, vendor)
    others = [
        train(replace(small, learning_rate=2e-3), vendor),
        train(small, replace(vendor, seed=1)),
        train(small, vendor, parent=first),
    ]
    folders = {release.folder for release in (first, *others)}
    assert len(folders) == 4
    assert len({release.digest for release in (first, *others)}) == 4
    # Other data under the same text is another key, whatever it trains to.
    assert train(small, replace(vendor, data="elsewhere")).folder not in folders


def test_text_shorter_than_a_window_is_refused(vendor: Vendor) -> None:
    with pytest.raises(ValueError, match=r"longer than a window of 9999 tokens, got .* tokens"):
        train(replace(FULL, window=9999, conversations=1), vendor)
