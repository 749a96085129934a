"""Placing a user: what it asks of a device, what is fetched for it, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clients.start.placing import (
    Start,
    assemble,
    comparison_work,
    download_work,
    place_user,
)
from fleettune.catalogue.style_vectors import AnswerEmbedding
from fleettune.cohort.execute import execute
from fleettune.cost.ledger import Stage
from fleettune.cost.work import decode_work, forward_work
from fleettune.cost.workload import Phase
from fleettune.jobs.jobs import Compute, Job, Result
from fleettune.shapes import Site
from tests.clients.start.offered import LIKE, OWN, RELEASE, WORLD, facts, manifest, patch


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
