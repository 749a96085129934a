"""Retune: what a tune would be on this device, and what hinders it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clients import charges
from clients.facts import Facts
from clients.policy import DevicePolicy
from clients.state import DeviceState
from fleettune.adapters import Placement
from fleettune.memory import memory_peak_bytes
from fleettune.releases import Manifest
from fleettune.seeds import Purpose, stream
from fleettune.tokens import Example
from fleettune.work import Ranks
from fleettune.workload import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class TunePlan:
    """A tune that fits the device.

    Attributes:
        placement: Which sites train.
        batches: The examples of every optimizer step.
        cache_bytes: Bytes of the device's prefix cache while it tunes; 0 without one.
        entries: What it asks of the device.
        synthesised: Synthetic pairs made for it.
        synthetic_kept: Those that it trains on.
    """

    placement: Placement
    batches: tuple[tuple[Example, ...], ...]
    cache_bytes: int
    entries: list[Entry]
    synthesised: int = 0
    synthetic_kept: int = 0

    @property
    def tokens(self) -> int:
        """Simulated tokens trained on, prompts included."""
        return sum(len(example.tokens) for batch in self.batches for example in batch)


def plan_tune(
    facts: Facts,
    release: Manifest,
    policy: DevicePolicy,
    state: DeviceState,
    examples: Sequence[Example],
) -> TunePlan | str:
    """Returns the tune of a device, or in one word why it can have none.

    Where the placement does not fit the device's memory, its rule is asked for a smaller one. A
    prefix cache that does not fit the quota is left out.
    """
    if not examples:
        return "empty_buffer"
    placement: Placement | None = policy.placement.place(release.shapes)
    room = policy.quota.total_bytes - state.buffer_bytes - state.extra_bytes
    while placement is not None:
        if placement.size_bytes(release.shapes) > room:
            return "patch_over_quota"
        ranks = dict.fromkeys(placement.sites, placement.rank)
        if fits_memory(facts, release, policy, ranks, examples):
            return schedule(facts, release, policy, placement, room, examples)
        placement = policy.placement.smaller(placement)
    return "over_memory"


def schedule(
    facts: Facts,
    release: Manifest,
    policy: DevicePolicy,
    placement: Placement,
    room: int,
    examples: Sequence[Example],
) -> TunePlan:
    """Returns the steps of a tune at a placement.

    Args:
        facts: The device.
        release: What it tunes.
        policy: How.
        placement: Which sites train.
        room: Bytes of the quota for patch and prefix cache.
        examples: What it trains on, at least one.
    """
    rng = stream(facts.seed, Purpose.TUNING, facts.device, release.version)
    batches = policy.tuning.batches(examples, rng)
    ranks = dict.fromkeys(placement.sites, placement.rank)
    lowest = min(site.layer for site in facts.priced.ranks(release.shapes, ranks))
    cache = 0
    if policy.tuning.prefix_cache and lowest > 0:
        distinct = dict.fromkeys(example for batch in batches for example in batch)
        tokens = sum(len(example.tokens) for example in distinct)
        cache = charges.cache_bytes(release.shapes, tokens)
        if placement.size_bytes(release.shapes) + cache > room:
            cache = 0
    entries = charges.tune(facts, release, ranks, batches, cached=cache > 0)
    return TunePlan(placement=placement, batches=batches, cache_bytes=cache, entries=entries)


def fits_memory(
    facts: Facts,
    release: Manifest,
    policy: DevicePolicy,
    ranks: Ranks,
    examples: Sequence[Example],
) -> bool:
    """Returns whether the largest step stays within the memory that a background job may take."""
    longest = sorted((len(example.tokens) for example in examples), reverse=True)
    batch = facts.priced.lengths(longest[: policy.tuning.batch])
    shapes = facts.priced.shapes(release.shapes)
    there = facts.priced.ranks(release.shapes, ranks)
    peak = memory_peak_bytes(shapes, batch, there, facts.priced.bits_per_weight)
    profile = facts.profile
    return peak <= profile.usable_ram.value * profile.ram_gb.value * 1e9
