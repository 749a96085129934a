"""Probe jobs against PEFT and autograd, device by device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fleettune.adapters.patch import Patch, peft_key
from fleettune.backbone.causal_lm import POCKET_V1_FOLDER
from fleettune.cohort.execute import execute
from fleettune.cohort.probe import probe_cohort
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import ProbeJob, ProbeResult, ScoreJob, ScoreResult
from fleettune.shapes import Site
from tests.parity.test_cohort_vs_peft import (
    World,
    forced_losses,
    open_world,
    peft_model,
    random_folder,
)

# peft 0.21 asks transformers 5 for a name that it renames; nothing of ours depends on it.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is dep:FutureWarning")

BATCHES = ((3, 1, 2), (2,), (1, 4, 1, 1), (4, 4))
"""Sizes of every device's batches."""


@pytest.fixture(scope="module", params=["random", "pocket"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    if request.param == "pocket":
        return open_world(POCKET_V1_FOLDER)
    return open_world(random_folder(tmp_path_factory.mktemp("random")))


@pytest.fixture(scope="module")
def jobs(world: World) -> list[ProbeJob]:
    """Ranks, sites, lengths, numbers and sizes of batches all differ somewhere."""
    found: list[ProbeJob] = []
    for device, sizes in enumerate(BATCHES):
        own = iter(world.examples[device] * 2)
        batches = tuple(tuple(next(own) for _ in range(size)) for size in sizes)
        probe = world.start(device)
        found.append(ProbeJob(release=str(world.folder), probe=probe, batches=batches))
    return found


@pytest.fixture(scope="module")
def probed(world: World, jobs: list[ProbeJob]) -> list[ProbeResult]:
    return probe_cohort(world.backbone, jobs)


def peft_gradients(world: World, job: ProbeJob) -> dict[Site, np.ndarray]:
    """Gradients to every B, summed over the batches by autograd, no padding anywhere."""
    model = peft_model(world, job.probe)
    for batch in job.batches:
        torch.cat(forced_losses(model, batch)).mean().backward()
    named = {name.replace(".default", ""): p.grad for name, p in model.named_parameters()}
    return {site: named[peft_key(site, "B")].numpy() for site in job.probe.factors}


def flat(gradients: dict[Site, np.ndarray], probe: Patch) -> np.ndarray:
    assert gradients.keys() == probe.factors.keys()
    return np.concatenate([gradients[site].ravel() for site in probe.factors])


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_gradients_of_a_cohort_equal_peft_device_by_device(
    world: World, jobs: list[ProbeJob], probed: list[ProbeResult]
) -> None:
    ranks = {item.a.shape[0] for job in jobs for item in job.probe.factors.values()}
    assert ranks == {2, 4, 8}
    for job, result in zip(jobs, probed, strict=True):
        theirs = peft_gradients(world, job)
        for site, gradient in result.gradients.items():
            assert gradient.dtype == np.float32
            assert gradient.shape == job.probe.factors[site].b.shape
        # Both are fp32 sums in another order, without an optimizer to amplify the last bits:
        # 1e-6 measured.
        assert distance(flat(dict(result.gradients), job.probe), flat(theirs, job.probe)) <= 1e-5
        for site, gradient in theirs.items():
            # A square doubles the relative error of one site, which is larger than that of all.
            assert result.benefit[site] == pytest.approx(float((gradient**2).sum()), rel=1e-4)


def test_a_cohort_of_many_equals_cohorts_of_one(
    world: World, jobs: list[ProbeJob], probed: list[ProbeResult]
) -> None:
    for job, together in zip(jobs, probed, strict=True):
        (alone,) = probe_cohort(world.backbone, [job])
        expected = flat(dict(alone.gradients), job.probe)
        # Same operations over batches of another shape: only the order of sums differs.
        assert distance(flat(dict(together.gradients), job.probe), expected) <= 1e-5


def test_gradients_add_over_batches(world: World, jobs: list[ProbeJob]) -> None:
    job = jobs[0]
    parts = [replace(job, batches=(batch,)) for batch in job.batches]
    (whole,), split = probe_cohort(world.backbone, [job]), probe_cohort(world.backbone, parts)
    for site, gradient in whole.gradients.items():
        summed = sum(part.gradients[site] for part in split)
        # As above: another order of sums.
        np.testing.assert_allclose(gradient, summed, atol=1e-5 * float(np.abs(gradient).max()))


def test_a_step_along_the_gradient_lowers_the_loss_by_the_benefit(
    world: World, jobs: list[ProbeJob]
) -> None:
    example = world.examples[0][0]
    (result,) = probe_cohort(world.backbone, [replace(jobs[0], batches=((example,),))])
    site = max(result.benefit, key=lambda item: result.benefit[item])
    # A decrease of about 0.01 nats per token: large beside fp32's rounding, small beside curvature.
    step = 0.01 / result.benefit[site]
    probe = jobs[0].probe
    factors = replace(probe.factors[site], b=-step * result.gradients[site])
    moved = replace(probe, factors={**probe.factors, site: factors})
    before, after = (nll(jobs[0].release, patch, example) for patch in (probe, moved))
    # The second-order term, 0.7 % of the first as measured.
    assert before - after == pytest.approx(0.01, rel=0.03)


def nll(release: str, patch: Patch, example: Example) -> float:
    """Mean negative log-likelihood of an example's supervised tokens."""
    (result,) = execute([ScoreJob(release=release, patch=patch, examples=(example,))])
    assert isinstance(result, ScoreResult)
    return result.nll[0] / example.supervised


def test_probes_pass_through_the_engine_in_their_order(
    jobs: list[ProbeJob], probed: list[ProbeResult]
) -> None:
    for job, direct, result in zip(jobs, probed, execute([*jobs[::-1]])[::-1], strict=True):
        assert isinstance(result, ProbeResult)
        expected = flat(dict(direct.gradients), job.probe)
        # As above: another order of sums.
        assert distance(flat(dict(result.gradients), job.probe), expected) <= 1e-5


def test_a_probe_that_cannot_be_measured_is_refused(jobs: list[ProbeJob]) -> None:
    job = jobs[0]
    site, factors = next(iter(job.probe.factors.items()))
    trained = replace(job.probe, factors={site: replace(factors, b=factors.b + 1)})
    with pytest.raises(ValueError, match=rf"B must be zero at every site, is not at .'{site}'"):
        replace(job, probe=trained)
    with pytest.raises(ValueError, match=r"must each hold an example, got sizes \[1, 0\]"):
        replace(job, batches=(job.batches[1], ()))
    with pytest.raises(ValueError, match=r"got sizes \[\]"):
        replace(job, batches=())
    with pytest.raises(ValueError, match="must have a candidate site"):
        replace(job, probe=replace(job.probe, factors={}))
