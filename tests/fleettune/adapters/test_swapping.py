"""Serving with patches: swapped beside a backbone that stays, many devices in one batch."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from fleettune.adapters.factors import Factors
from fleettune.adapters.patch import Patch, Placement, new_patch
from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, Backbone, load_backbone
from fleettune.cohort.score import generate_cohort
from fleettune.jobs.jobs import GenerateJob
from fleettune.kernels.adapter_stack import apply_adapters, stack_patches
from fleettune.shapes import Site

TOKENS = 6


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(POCKET_V1_FOLDER)


def patch_of(device: int, backbone: Backbone) -> Patch:
    """Unlike patches: other sites, ranks and scales."""
    sites = (Site(7 - device, "q"), Site(7, "down"))
    placement = Placement(sites=sites, rank=1 + device, alpha=2.0 + device)
    rng = np.random.default_rng(device)
    fresh = new_patch(placement, backbone.shapes, 0, rng)
    drawn = {
        s: Factors(a=f.a, b=rng.normal(0, 0.5, f.b.shape).astype(np.float32))
        for s, f in fresh.factors.items()
    }
    return replace(fresh, factors=drawn)


def weights_of(backbone: Backbone) -> tuple[list[int], str]:
    """Where the backbone's weights stand in memory, and what they are."""
    parameters = list(backbone.model.parameters())
    digest = hashlib.sha256()
    for parameter in parameters:
        digest.update(parameter.detach().numpy().tobytes())
    return [parameter.data_ptr() for parameter in parameters], digest.hexdigest()


def job(patch: Patch | None) -> GenerateJob:
    return GenerateJob(
        release="", patch=patch, prompts=((1, 17, 300, 8),), new_tokens=TOKENS, stop=-1
    )


@torch.no_grad()
def test_swapping_patches_leaves_the_backbone_where_it_is(backbone: Backbone) -> None:
    tokens, before = torch.tensor([[5, 17, 300, 8]]), weights_of(backbone)
    plain = backbone.model(input_ids=tokens).logits
    seen: list[torch.Tensor] = []
    for device in (0, 1, 0, 2, 0):
        with apply_adapters(backbone, stack_patches([patch_of(device, backbone)], backbone)):
            seen.append(backbone.model(input_ids=tokens).logits)
    # the same weights at the same addresses: nothing was loaded, merged or subtracted
    assert weights_of(backbone) == before
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[0], seen[4])
    assert not torch.allclose(seen[0], seen[1])
    assert torch.equal(backbone.model(input_ids=tokens).logits, plain)


def test_devices_with_patches_of_their_own_generate_in_one_batch(backbone: Backbone) -> None:
    jobs = [job(patch_of(device, backbone)) for device in range(3)]
    batches: list[int] = []

    def count(_: object, given: tuple[object, ...], named: dict[str, torch.Tensor]) -> None:
        batches.append(len(named["input_ids"]))

    handle = backbone.model.register_forward_pre_hook(count, with_kwargs=True)
    together = generate_cohort(backbone, jobs)
    handle.remove()
    # one pass per token for all three, not one per device
    assert batches == [3] * TOKENS
    alone = [generate_cohort(backbone, [one])[0] for one in jobs]
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    assert len({one.tokens for one in together}) == 3
