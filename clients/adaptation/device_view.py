"""DeviceView: what a rule of adaptation may look at besides release and patch.

A rule that needs no more than release and patch is an `Adaptation`; one that looks further is
`DeviceRule`. Neither sees the observer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from clients.adaptation.decision import Decision, PatchHistory
from clients.work.facts import Facts
from fleettune.adapters.patch import Patch
from fleettune.data.exchanges import Exchange
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import Compute, ScoreJob
from fleettune.releases.manifest import Manifest
from fleettune.seeds import Purpose, stream


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceView:
    """A device about to decide about its patch.

    Attributes:
        facts: The device.
        release: The release that is new to it.
        patch: Its patch.
        before: The release that it held until now and keeps until it has decided; None if gone.
        canaries: Exchanges that the patch was not tuned on, in time order.
        history: What the rule kept.
        steps: Optimizer steps of a tune that is not budgeted.
        compute: The device's processor.
    """

    facts: Facts
    release: Manifest
    patch: Patch
    before: Manifest | None
    canaries: tuple[Exchange, ...]
    history: PatchHistory
    steps: int
    compute: Compute


@runtime_checkable
class DeviceRule(Protocol):
    """A rule that is asked once for every new release, as soon as the device has a patch."""

    def weigh(self, view: DeviceView) -> Decision:
        """Returns what to do."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptOut:
    """Which exchanges are canaries.

    A number drawn once per exchange decides which never train, whatever the buffer holds, so no
    exchange is trained on first and kept out later. Without a share that is kept out, canaries are
    what came since the patch was tuned: it has not seen them, and the next tune may. A user who
    says a thing twice may have it on both sides, as in the exchanges to come: the canaries are a
    fair sample of those.

    Attributes:
        share: Share of all exchanges that never trains, at least 0 and less than 1.
        most: Newest canaries that are scored.

    Raises:
        ValueError: If a value breaks its rule.
    """

    share: float
    most: int

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ValueError(f"share of kept-out exchanges must be >= 0 and < 1, got {self.share}")
        if self.most < 1:
            raise ValueError(f"most canaries scored must be >= 1 exchange, got {self.most}")

    def holds(self, facts: Facts, exchange: Exchange) -> bool:
        """Returns whether an exchange of this device's user never trains."""
        rng = stream(facts.seed, Purpose.CANARY, facts.device, exchange.order)
        return float(rng.random()) < self.share


@runtime_checkable
class HoldingOut(Protocol):
    """A rule that may keep exchanges out of every tune."""

    @property
    def kept_out(self) -> KeptOut | None:
        """Which ones; None: all train."""
        ...


def nats_per_token(
    release: Manifest, patch: Patch | None, examples: tuple[Example, ...], compute: Compute
) -> float | None:
    """Returns the mean negative log-likelihood of supervised tokens; None without examples."""
    if not examples:
        return None
    scored = compute.score(ScoreJob(release=release.path, patch=patch, examples=examples))
    return math.fsum(scored.nll) / sum(example.supervised for example in examples)
