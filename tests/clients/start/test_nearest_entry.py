"""Warm starts: which entry, by hand; what it asks of a device; what never leaves it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clients.start.nearest_entry import NearestEntry, choose_start
from clients.start.placing import (
    Comparison,
    Start,
    assemble,
    comparison_work,
    download_work,
    place_user,
)
from clients.start.rivals import PickedEntry, pick_by_halving, pick_exhaustively, scoring_work
from clients.work.facts import Facts
from fleettune.adapters.patch import Factors, Patch
from fleettune.catalogue.decomposition import Basis
from fleettune.catalogue.manifest import CatalogueManifest, Listed
from fleettune.catalogue.style_vectors import AnswerEmbedding, Stylometry, Summariser
from fleettune.cohort.execute import execute
from fleettune.cost.hardware import load_hardware
from fleettune.cost.ledger import Stage
from fleettune.cost.work import decode_work, forward_work
from fleettune.cost.workload import Phase
from fleettune.data.personas import SyntheticData
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import Compute, Job, Result, ScoreJob, ScoreResult
from fleettune.shapes import Site
from tests.clients.phone import RELEASE as POCKET

HARDWARE = Path(__file__).parents[3] / "conf" / "hardware"
WORLD = SyntheticData(users=10, exchanges_per_day=4, history_days=2).open()
RELEASE = replace(POCKET, digest="weights", size_bytes=1)
OWN = Comparison(exchanges=40, new_tokens=48, answers="own")
LIKE = replace(OWN, answers="like")
PLACES = np.array([[4.0, 0.0], [-4.0, 0.0], [0.0, 4.0], [0.0, -4.0]])


def manifest(
    places: np.ndarray = PLACES, summariser: Summariser | None = None
) -> CatalogueManifest:
    words = places.shape[1]
    return CatalogueManifest(
        release="weights",
        version=0,
        summariser=Stylometry() if summariser is None else summariser,
        basis=Basis(
            words=tuple(f"w{n}" for n in range(words)),
            opposites=tuple(f"o{n}" for n in range(words)),
            vectors=np.eye(words, 79 if summariser is None else 96),
        ),
        scale=np.ones(79 if summariser is None else 96),
        entries=tuple(
            Listed(name=f"e{n}", origin="corpus", digest=f"digest{n}", size_bytes=8)
            for n in range(len(places))
        ),
        coordinates=places,
        plain=("the {term}.",),
    )


def facts(number: int = 0) -> Facts:
    profile = load_hardware(HARDWARE)["oneplus_12r"]
    return Facts(device=number, user=number, seed=0, profile=profile)


def patch(value: float) -> Patch:
    item = Factors(a=np.full((2, 3), value, np.float32), b=np.ones((3, 2), np.float32))
    return Patch(release=0, alpha=2.0, factors={Site(0, "q"): item})


def test_the_nearest_entry_is_taken_where_it_is_near_enough() -> None:
    found = choose_start(np.array([2.0, 0.1]), manifest(), NearestEntry())
    assert (found.entries, found.weights, found.wanted) == ((0,), (1.0,), ("digest0",))


def test_two_entries_are_added_where_neither_is_near() -> None:
    found = choose_start(np.array([2.0, 2.0]), manifest(), NearestEntry(single_within=0.2))
    assert found.entries == (0, 2)
    assert found.weights == pytest.approx((0.5, 0.5))
    assert found.wanted == ("digest0", "digest2")
    assert found.distance == pytest.approx(0)


def test_scratch_is_what_is_left() -> None:
    how = NearestEntry(single_within=0.0, merged_within=0.0)
    above = np.array([[4.0, 0.0, 0.0], [-4.0, 0.0, 0.0]])
    found = choose_start(np.array([3.0, 0.0, 4.0]), manifest(above), how)
    assert found == Start(distance=found.distance)
    # three along the entry's word and four along one that no entry has: a cosine of 3 / 5
    assert found.distance == pytest.approx(0.4)


def test_a_merged_patch_has_the_devices_rank() -> None:
    start = Start(entries=(0, 1), weights=(0.5, 2.0), wanted=("a", "b"))
    found = assemble(start, [patch(1.0), patch(3.0)], rank=1, alpha=4.0)
    assert found is not None
    assert found.ranks == {Site(0, "q"): 1}
    wanted = 0.5 * patch(1.0).dense(Site(0, "q")) + 2.0 * patch(3.0).dense(Site(0, "q"))
    assert np.allclose(found.dense(Site(0, "q")), wanted, atol=1e-5)


def test_a_single_patch_that_fits_is_taken_as_it_is_and_scratch_is_none() -> None:
    own, single = patch(1.0), Start(entries=(0,), weights=(1.0,), wanted=("a",))
    assert assemble(single, [own], rank=2, alpha=2.0) is own
    smaller = assemble(single, [own], rank=1, alpha=2.0)
    assert smaller is not None
    assert smaller.ranks == {Site(0, "q"): 1}
    assert assemble(Start(), [], rank=2, alpha=2.0) is None


def test_what_a_device_asks_for_does_not_tell_where_its_user_stands() -> None:
    """Two users at different places who choose alike send alike: digests, nothing else."""
    near, nearer = np.array([2.0, 0.3]), np.array([3.0, -0.2])
    starts = [choose_start(point, manifest(), NearestEntry()) for point in (near, nearer)]
    assert starts[0].wanted == starts[1].wanted == ("digest0",)
    assert all(isinstance(one, str) for one in starts[0].wanted)
    listed = {entry.digest for entry in manifest().entries}
    assert set(starts[0].wanted) <= listed


def test_choosing_asks_nothing_but_the_devices_own_processor() -> None:
    asked: list[Job] = []

    def run(job: Job) -> Result:
        asked.append(job)
        return execute([job])[0]

    exchanges = WORLD.day(0, 0)
    embedded = manifest(np.eye(2), AnswerEmbedding())
    placed = place_user(exchanges, embedded, RELEASE, OWN, Compute(run=run))
    assert [type(job).__name__ for job in asked] == ["GenerateJob", "EmbedJob"]
    assert placed.point.shape == (2,)
    assert [pair.after for pair in placed.pairs] == [e.response for e in exchanges]


def test_without_answers_of_its_own_a_device_decodes_nothing() -> None:
    def run(job: Job) -> Result:
        raise AssertionError(job)

    asked = replace(manifest(), questions=("wake me up",))
    placed = place_user(WORLD.day(0, 0), asked, RELEASE, LIKE, Compute(run=run))
    work = comparison_work(facts(), RELEASE, asked, placed, 5000)
    computed = [amount for stage, _, amount in work if stage is Stage.CHECK]
    assert all(amount.flop == 0 for amount in computed)


def test_like_questions_give_the_plain_answers_a_user_is_compared_with() -> None:
    def run(job: Job) -> Result:
        raise AssertionError(job)

    own = WORLD.day(0, 0)[:1]
    asked = (own[0].question, "quite another thing")
    told = replace(manifest(), plain=("alike", "unlike"), questions=asked)
    placed = place_user(own, told, RELEASE, LIKE, Compute(run=run))
    assert [pair.before for pair in placed.pairs] == ["alike", "unlike"]
    with pytest.raises(ValueError, match="plain ones in the manifest"):
        place_user(own, manifest(), RELEASE, LIKE, Compute(run=run))


def test_a_choice_is_billed_for_manifest_answers_and_embeddings() -> None:
    exchanges = WORLD.day(0, 0)
    embedded = manifest(np.eye(2), AnswerEmbedding())
    compute = Compute(run=lambda job: execute([job])[0])
    placed = place_user(exchanges, embedded, RELEASE, OWN, compute)
    work = {
        entry[:2]: entry[2] for entry in comparison_work(facts(), RELEASE, embedded, placed, 777)
    }
    assert work[Stage.DOWNLOAD, Phase.RECEIVE].moved_bytes == 777
    encoder = facts().encoder(RELEASE)
    prompts = [len(encoder.request(pair.question)) for pair in placed.pairs]
    answers = [len(encoder.ids(pair.before)) + 1 for pair in placed.pairs]
    decoded = sum(
        decode_work(RELEASE.shapes, p, n, {}).flop for p, n in zip(prompts, answers, strict=True)
    )
    assert work[Stage.CHECK, Phase.DECODE].flop == decoded
    asked = sum(forward_work(RELEASE.shapes, [p], 1, {}).flop for p in prompts)
    texts = [len(t) for t in AnswerEmbedding().reads(placed.pairs, RELEASE)]
    half = replace(RELEASE.shapes, layers=RELEASE.shapes.layers // 2)
    passes = forward_work(half, texts, 0, {}).flop
    assert work[Stage.CHECK, Phase.PREFILL].flop == pytest.approx(asked + passes)


def test_a_downloaded_patch_is_billed_by_its_bytes() -> None:
    (_, receive, sent), (_, _, stored) = download_work(facts(), RELEASE, [patch(1.0)])
    assert receive is Phase.RECEIVE
    assert sent.moved_bytes == stored.moved_bytes == patch(1.0).size_bytes


def test_a_catalogue_of_another_release_is_refused() -> None:
    other = replace(RELEASE, digest="other")
    nothing = Compute(run=lambda job: execute([job])[0])
    with pytest.raises(ValueError, match="about the device's release other"):
        place_user(WORLD.day(0, 0), manifest(), other, OWN, nothing)
    with pytest.raises(ValueError, match="at least 1 exchange"):
        place_user((), manifest(), RELEASE, OWN, nothing)


def scoring(losses: dict[str, float]) -> Compute:
    def run(job: Job) -> Result:
        assert isinstance(job, ScoreJob)
        assert job.patch is not None
        each = losses[job.patch.digest()]
        return ScoreResult(nll=(each,) * len(job.examples), hits=(0,) * len(job.examples))

    return Compute(run=run)


def test_rivals_find_the_likeliest_entry_and_pay_for_every_one_they_tried() -> None:
    patches = [patch(float(value)) for value in range(1, 10)]
    losses = {one.digest(): float(9 - n if n < 7 else n) for n, one in enumerate(patches)}
    examples = [Example(tokens=(1, 2, 3), prompt=1)] * 9
    compute = scoring(losses)
    every = pick_exhaustively(examples, patches, "", compute)
    halved = pick_by_halving(examples, patches, "", compute)
    assert every.entry == halved.entry == 6
    assert every.scored == (9,) * 9
    # one in three stays: nine with 3 exchanges, three with 9
    assert sorted(halved.scored) == [3] * 6 + [9] * 3


def test_a_rivals_cost_grows_with_the_entries_that_it_tries() -> None:
    patches, examples = [patch(1.0), patch(2.0)], [Example(tokens=(1, 2, 3), prompt=1)]
    one = scoring_work(facts(), RELEASE, PickedEntry(entry=0, scored=(1, 0)), patches, examples)
    both = scoring_work(facts(), RELEASE, PickedEntry(entry=0, scored=(1, 1)), patches, examples)
    assert sum(e[2].flop for e in both) == 2 * sum(e[2].flop for e in one)
    assert sum(e[2].moved_bytes for e in both) == 2 * sum(e[2].moved_bytes for e in one)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"single_within": -1.0}, r"start\.single_within must be >= 0"),
        ({"merged_within": -1.0}, r"start\.merged_within must be >= 0"),
        ({"exchanges": 0}, r"start\.exchanges must be >= 1"),
        ({"new_tokens": 0}, r"start\.new_tokens must be >= 1"),
        ({"answers": "any"}, r"start\.answers must be one of \('own', 'like'\), got 'any'"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        NearestEntry(**change)  # pyright: ignore[reportArgumentType] - wrong on purpose
