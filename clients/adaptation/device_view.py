"""What a rule of adaptation may look at besides release and patch; never what the observer sees."""

from __future__ import annotations

import math
from dataclasses import dataclass

from clients.adaptation.decision import PatchHistory
from clients.work.facts import Facts
from fleettune.adapters.patch import Patch
from fleettune.data.exchanges import Exchange
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import Compute, ScoreJob
from fleettune.releases.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceView:
    """The inputs of a rule that needs more than release and patch.

    Attributes:
        facts: The device.
        release: The release that is new to it.
        patch: Its patch.
        before: The release that it held until now and keeps until it has decided; None if gone.
        canaries: Exchanges that the patch was not tuned on, in time order.
        history: What the rule kept.
        compute: The device's processor.
    """

    facts: Facts
    release: Manifest
    patch: Patch
    before: Manifest | None
    canaries: tuple[Exchange, ...]
    history: PatchHistory
    compute: Compute


def nats_per_token(
    release: Manifest, patch: Patch | None, examples: tuple[Example, ...], compute: Compute
) -> float | None:
    """Returns the mean negative log-likelihood of supervised tokens; None without examples."""
    if not examples:
        return None
    scored = compute.score(ScoreJob(release=release.path, patch=patch, examples=examples))
    return math.fsum(scored.nll) / sum(example.supervised for example in examples)
