"""Stopping: a tune that ends where its held-out loss no longer falls, and keeps its best patch.

A device that stops validates after every epoch and trains on only where it goes on. Here the whole
schedule is computed first, so that many devices still share their passes, with the patch kept as
it was at the end of every epoch. Later steps change no earlier patch and validation changes
nothing, so scoring those patches in order finds the very patch and the very epoch at which the
device would have ended (tests hold both equal). The device is billed for the steps up to there
and for the validations that it would have made; its rows count those steps.

The best patch so far is held in memory besides the one in training; the peak leaves it out (4 of
the 20 bytes per adapter weight).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from clients.tuning.plan import TunePlan
from clients.work.stage_work import tune_work, validation_work
from fleettune.adapters.patch import Patch
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import Compute, ScoreJob, TuneJob
from fleettune.releases.manifest import Manifest


def run_tune(plan: TunePlan, start: Patch) -> tuple[Patch, TunePlan]:
    """Returns the trained patch, and the plan as far as it was carried out.

    Args:
        plan: The whole schedule, with the tuning, which says how long to wait for a lower loss.
        start: The patch to start from.
    """
    tuning, release, compute = plan.context.tuning, plan.context.release, plan.context.compute
    result = compute.tune(
        TuneJob(
            release=release.path,
            start=start,
            batches=plan.batches,
            learning_rate=tuning.learning_rate,
            clip=tuning.clip,
            keep_at=plan.held.after,
            frozen_a=tuning.frozen_a,
        )
    )
    if not plan.held.after:
        return result.patch, plan
    losses: list[float] = []
    for snapshot in result.snapshots:
        losses.append(held_loss(release, snapshot, plan.held.examples, compute))
        if is_over(losses, tuning.patience):
            break
    best = result.snapshots[losses.index(min(losses))]
    return best, shorten_plan(plan, len(losses))


def is_over(losses: Sequence[float], patience: int | None) -> bool:
    """Returns whether the lowest loss is `patience` epochs old; of equal ones the first counts."""
    return patience is not None and len(losses) - 1 - losses.index(min(losses)) >= patience


def held_loss(
    release: Manifest, patch: Patch, examples: tuple[Example, ...], compute: Compute
) -> float:
    """Returns the mean loss over the supervised tokens of held-out examples, in nats."""
    score = compute.score(ScoreJob(release=release.path, patch=patch, examples=examples))
    return sum(score.nll) / sum(example.supervised for example in examples)


def shorten_plan(plan: TunePlan, epochs: int) -> TunePlan:
    """Returns a plan's first epochs, with what those ask of the device."""
    facts, release, ranks = plan.context.facts, plan.context.release, plan.placement.ranks
    cached = plan.cache_bytes > 0
    after = plan.held.after[:epochs]
    batches = plan.batches[: after[-1]]
    held = plan.held.examples
    return replace(
        plan,
        batches=batches,
        held=replace(plan.held, after=after),
        entries=[
            *tune_work(facts, release, ranks, batches, cached),
            *validation_work(facts, release, ranks, held, (epochs, cached)),
        ],
    )
