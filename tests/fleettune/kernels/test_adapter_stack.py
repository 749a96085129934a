"""Stacked adapters: padding stays zero, idle devices stay put, and no trace is left behind."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fleettune.adapters.patch import Factors, Patch, Placement, new_patch
from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, Backbone, load_backbone
from fleettune.cohort.execute import JobBatch, execute, run_batch
from fleettune.cohort.tune import tune_cohort
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import Result, TuneJob
from fleettune.kernels.adapter_stack import Stack, apply_adapters, carry, stack_patches
from fleettune.kernels.stacked_adamw import StackedAdamW, gather_gradient
from fleettune.kernels.training_pass import cache_prefix
from fleettune.seeds import Purpose, stream
from fleettune.shapes import Site

LOW, TOP = Site(6, "q"), Site(7, "down")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(POCKET_V1_FOLDER)


def patch_of(backbone: Backbone, sites: tuple[Site, ...], rank: int, device: int) -> Patch:
    """A patch whose B is drawn too, so that both factors get gradients from the first step on."""
    placement = Placement(sites=sites, rank=rank, alpha=16.0)
    fresh = new_patch(placement, backbone.shapes, 0, stream(0, Purpose.ADAPTER, device))
    rng = stream(0, Purpose.ADAPTER, device, 1)
    drawn = {
        site: Factors(a=item.a, b=rng.normal(0, 0.1, item.b.shape).astype(np.float32))
        for site, item in fresh.factors.items()
    }
    return Patch(release=0, alpha=16.0, factors=drawn)


def mixed(backbone: Backbone) -> list[Patch]:
    return [
        patch_of(backbone, (LOW, TOP), 8, 0),
        patch_of(backbone, (LOW, TOP), 2, 1),
        patch_of(backbone, (TOP,), 4, 2),
    ]


def one_step(backbone: Backbone, stack: Stack, optimizer: StackedAdamW) -> None:
    tokens = torch.arange(len(stack.flat) * 12).view(-1, 12) + 40
    with apply_adapters(backbone, stack):
        hidden = backbone.layers(backbone.embed(tokens), 0, backbone.shapes.layers)
        backbone.logits(hidden).logsumexp(-1).sum().backward()
    optimizer.step(gather_gradient(stack))


def trainable(stack: Stack, rate: float = 1e-2) -> StackedAdamW:
    for leaf in stack.leaves():
        leaf.requires_grad_()
    devices = stack.flat.shape[0]
    return StackedAdamW(stack, [rate] * devices, [1.0] * devices)


def padding(stack: Stack, patches: list[Patch]) -> list[torch.Tensor]:
    """Everything in a stack that no patch owns."""
    found: list[torch.Tensor] = []
    for site, (a, b) in stack.factors.items():
        for index, patch in enumerate(patches):
            rank = patch.factors[site].a.shape[0] if site in patch.factors else 0
            found += [a[index, rank:].detach(), b[index, rank:].detach()]
    return found


def test_padded_ranks_and_absent_sites_stay_exactly_zero(backbone: Backbone) -> None:
    patches = mixed(backbone)
    stack = stack_patches(patches, backbone)
    optimizer = trainable(stack)
    before = stack.flat.clone()
    for _ in range(5):
        one_step(backbone, stack, optimizer)
    empty = padding(stack, patches)
    # q is 96 to 96 and down 256 to 96; the second device lacks 6 of 8 ranks in both, the third 4
    # of 8 in down and all of q.
    assert sum(part.numel() for part in empty) == 6 * (192 + 352) + 4 * 352 + 8 * 192
    assert all(not part.any() for part in empty)
    assert (stack.flat != before).any(1).all()


def test_one_clipped_step_by_hand() -> None:
    flat = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    pair = flat[:, :1].view(2, 1, 1), flat[:, 1:].view(2, 1, 1)
    stack = Stack(flat=flat, factors={LOW: pair}, scales={})
    a, b = stack.leaves()
    a.requires_grad_()
    b.requires_grad_()
    optimizer = StackedAdamW(stack, [0.1, 0.2], [1.0, 100.0])
    # Device 0: gradient (30, 40), norm 50, clipped to (0.6, 0.8). Device 1: (-3, 4), norm 5, kept.
    # Adam's first step is rate * g / (|g| + 1e-8): the sign, whatever the size.
    (30 * a[0] + 40 * b[0] - 3 * a[1] + 4 * b[1]).sum().backward()
    optimizer.step(gather_gradient(stack))
    # fp32 keeps 7 digits.
    torch.testing.assert_close(flat, torch.tensor([[0.9, 0.9], [1.2, 0.8]]), rtol=1e-6, atol=1e-6)
    # Second step with gradients (0.6, 0) and (-3, 0), both below their clips. On the first number
    # nothing changed, so the step is the sign again. On the second: m = 0.9 * 0.1 * g and
    # v = 0.999 * 0.001 * g^2, corrected by 1 - 0.9^2 = 0.19 and 1 - 0.999^2 = 0.001999, so
    # m / sqrt(v) = (0.09 / 0.19) / sqrt(0.000999 / 0.001999) = 0.670056.
    (0.6 * a[0] - 3 * a[1]).sum().backward()
    optimizer.step(gather_gradient(stack))
    expected = torch.tensor(
        [[0.8, 0.9 - 0.1 * 0.670056], [1.4, 0.8 - 0.2 * 0.670056]], dtype=torch.float32
    )
    torch.testing.assert_close(flat, expected, rtol=1e-5, atol=1e-6)


def test_a_stack_gives_back_the_patches_that_it_was_made_of(backbone: Backbone) -> None:
    patches = mixed(backbone)
    stack = stack_patches(patches, backbone)
    back = [stack.patch(index, patch) for index, patch in enumerate(patches)]
    assert [patch.digest() for patch in back] == [patch.digest() for patch in patches]


def test_tuning_changes_neither_backbone_nor_starting_patch(backbone: Backbone) -> None:
    start = patch_of(backbone, (TOP,), 4, 0)
    digest = start.digest()
    weights = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    example = Example(tokens=(1, 50, 60, 2, 70, 80, 3), prompt=4)
    job = TuneJob(release="", start=start, batches=((example,),) * 2, learning_rate=0.01, clip=1.0)
    (result,) = tune_cohort(backbone, [job])
    assert result.patch.digest() != digest
    assert start.digest() == digest
    for name, value in backbone.model.state_dict().items():
        assert torch.equal(value, weights[name])
    assert all(parameter.grad is None for parameter in backbone.model.parameters())


def ragged_jobs(backbone: Backbone) -> list[TuneJob]:
    """Three devices with 5, 3 and 1 steps over examples of unlike length."""
    examples = [
        Example(tokens=(1, 50, 60, 2, *range(70, 70 + length), 3), prompt=4) for length in (1, 5, 9)
    ]
    return [
        TuneJob(
            release="",
            start=patch,
            batches=tuple((examples[index], examples[step % 3]) for step in range(5 - 2 * index)),
            learning_rate=0.01,
            clip=1.0,
        )
        for index, patch in enumerate(mixed(backbone))
    ]


def distance(found: Patch, expected: Patch, start: Patch) -> float:
    """Relative distance of two updates of one starting patch."""

    def flat(patch: Patch) -> np.ndarray:
        pairs = [(item, start.factors[site]) for site, item in patch.factors.items()]
        parts = [(one.a - old.a, one.b - old.b) for one, old in pairs]
        return np.concatenate([part.ravel() for pair in parts for part in pair])

    wanted = flat(expected)
    return float(np.linalg.norm(flat(found) - wanted) / np.linalg.norm(wanted))


def test_layers_by_hand_and_autograd_train_alike(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = ragged_jobs(backbone)
    by_hand = tune_cohort(backbone, jobs)
    monkeypatch.setattr(backbone.model.config, "model_type", "another")
    by_autograd = tune_cohort(backbone, jobs)
    for job, one, other in zip(jobs, by_hand, by_autograd, strict=True):
        # fp32 sums in another order, amplified by Adam's first steps.
        assert distance(one.patch, other.patch, job.start) <= 1e-4
        # a loss of 4 in fp32: sums in another order differ by 3e-6 of it on some processors
        assert one.last_loss == pytest.approx(other.last_loss, rel=5e-6)


def test_finished_devices_leave_and_the_others_train_on(backbone: Backbone) -> None:
    jobs = ragged_jobs(backbone)
    together = tune_cohort(backbone, jobs)
    for job, result in zip(jobs, together, strict=True):
        (alone,) = tune_cohort(backbone, [job])
        # As above.
        assert distance(result.patch, alone.patch, job.start) <= 1e-4
        assert result.first_loss == pytest.approx(alone.first_loss, abs=1e-5)
        assert result.last_loss == pytest.approx(alone.last_loss, abs=1e-5)


def test_a_stack_of_fewer_devices_keeps_their_moments(backbone: Backbone) -> None:
    patches = mixed(backbone)
    whole = stack_patches(patches, backbone)
    optimizer = trainable(whole)
    one_step(backbone, whole, optimizer)
    # The one that stays has a single site and rank 4, so its stack is narrower.
    rest = stack_patches(patches[2:], backbone)
    rest.flat.copy_(carry(whole.flat, whole, rest, [2]))
    assert rest.flat.shape[1] == 4 * (256 + 96)
    for leaf in rest.leaves():
        leaf.requires_grad_()
    narrowed = optimizer.compact(rest, [2])
    gradient = stream(0, Purpose.TUNING).normal(size=rest.flat.shape).astype(np.float32)
    narrowed.step(torch.as_tensor(gradient).clone())
    wide = torch.zeros_like(whole.flat)
    narrow = rest.views(torch.as_tensor(gradient))
    for factor, own in zip(whole.views(wide)[TOP], narrow[TOP], strict=True):
        factor[2, :4] = own[0]
    optimizer.step(wide)
    # Norms of vectors with and without zeros between are sums in another order.
    expected = carry(whole.flat, whole, rest, [2])
    torch.testing.assert_close(rest.flat, expected, rtol=1e-6, atol=1e-7)


def test_a_prefix_in_a_file_gives_the_same_bytes(backbone: Backbone) -> None:
    jobs = ragged_jobs(backbone)
    inside = tune_cohort(backbone, jobs)
    outside = tune_cohort(backbone, jobs, prefix_bytes=1)
    assert [r.patch.digest() for r in inside] == [r.patch.digest() for r in outside]
    assert [r.last_loss for r in inside] == [r.last_loss for r in outside]


def test_a_prefix_file_has_no_name_while_it_is_used(backbone: Backbone, tmp_path: Path) -> None:
    tokens = torch.arange(12).view(2, 6) + 40
    lengths = torch.tensor([6, 4])
    tempfile.tempdir = str(tmp_path)
    try:
        found = cache_prefix(backbone, tokens, lengths, 2, memory_bytes=1)
    finally:
        tempfile.tempdir = None
    # a process that is killed now leaves nothing
    assert not list(tmp_path.iterdir())
    if sys.platform == "linux":
        maps = Path("/proc/self/maps").read_text().splitlines()
        named = [line for line in maps if "fleettune-prefix-" in line]
        assert named
        assert all(line.endswith("(deleted)") for line in named)
    expected = backbone.layers(backbone.embed(tokens), 0, 2)
    # fp32 through two layers, in another order.
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1, :4], expected[1, :4], rtol=1e-4, atol=1e-5)


def test_devices_with_unlike_lowest_layers_do_not_share_a_pass(backbone: Backbone) -> None:
    passes: list[list[int]] = []

    def run(parts: Sequence[JobBatch]) -> Iterator[Sequence[Result]]:
        for part in parts:
            jobs = [job for job in part.jobs if isinstance(job, TuneJob)]
            passes.append(sorted({min(s.layer for s in job.start.factors) for job in jobs}))
            yield run_batch(part)

    jobs = [replace(job, release=str(POCKET_V1_FOLDER)) for job in ragged_jobs(backbone)]
    execute(jobs, run)
    assert sorted(passes) == [[6], [7]]


def test_the_same_tune_twice_gives_the_same_bytes(backbone: Backbone) -> None:
    example = Example(tokens=(1, 50, 60, 2, 70, 80, 3), prompt=4)
    jobs = [
        TuneJob(release="", start=patch, batches=((example,),) * 3, learning_rate=0.01, clip=1.0)
        for patch in mixed(backbone)
    ]
    once, again = tune_cohort(backbone, jobs), tune_cohort(backbone, jobs)
    assert [r.patch.digest() for r in once] == [r.patch.digest() for r in again]


@torch.no_grad()
def test_every_device_gets_its_own_dense_update(backbone: Backbone) -> None:
    patches = mixed(backbone)
    stack = stack_patches(patches, backbone)
    rng = stream(0, Purpose.TUNING)
    for site in (LOW, TOP):
        linear = backbone.linear(site)
        rows = torch.as_tensor(rng.normal(size=(6, 5, linear.in_features)).astype(np.float32))
        plain = linear(rows)
        with apply_adapters(backbone, stack):
            adapted = linear(rows)
        for row in range(6):  # two rows per device
            patch = patches[row // 2]
            dense = patch.dense(site) if site in patch.factors else np.zeros_like(linear.weight)
            expected = plain[row] + rows[row] @ torch.as_tensor(dense).T
            # fp32 sums of up to 256 terms in another order.
            torch.testing.assert_close(adapted[row], expected, rtol=1e-4, atol=1e-4)


def replaced(backbone: Backbone) -> int:
    return sum("forward" in vars(module) for module in backbone.model.modules())


@torch.no_grad()
def test_applied_leaves_no_trace_behind(backbone: Backbone) -> None:
    stack = stack_patches(mixed(backbone), backbone)
    tokens = torch.arange(3)[:, None] + 40
    plain = backbone.model(input_ids=tokens).logits
    with apply_adapters(backbone, stack):
        assert replaced(backbone) == 2
        assert not torch.equal(backbone.model(input_ids=tokens).logits, plain)
    assert replaced(backbone) == 0
    assert torch.equal(backbone.model(input_ids=tokens).logits, plain)


def test_applied_leaves_no_trace_behind_when_the_block_fails(backbone: Backbone) -> None:
    stack = stack_patches(mixed(backbone), backbone)
    with pytest.raises(ValueError, match="inside"), apply_adapters(backbone, stack):
        raise ValueError("inside")
    assert replaced(backbone) == 0


def test_applied_leaves_no_trace_behind_when_a_site_does_not_exist(backbone: Backbone) -> None:
    stack = stack_patches(mixed(backbone), backbone)
    pair, scale = stack.factors[TOP], stack.scales[TOP]
    beyond = Site(99, "q")
    broken = Stack(
        flat=stack.flat, factors={TOP: pair, beyond: pair}, scales={TOP: scale, beyond: scale}
    )
    with pytest.raises(IndexError), apply_adapters(backbone, broken):
        pass
    assert replaced(backbone) == 0
