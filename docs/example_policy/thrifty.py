"""A policy of one's own: retune only where the rule asks for it and the patch has served a while.

It lives outside the repository's packages. A class with a `decide` method is a policy; nothing is
inherited or registered. `clients/adaptation/` holds the built-in ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from clients.adaptation.decision import Action, Decision
from clients.adaptation.rules import EdgeTuneReleased
from fleettune.adapters.patch import Patch
from fleettune.releases.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Thrifty:
    """Wraps the rule of drift against strength, and lets every patch serve for some releases.

    Attributes:
        inner: The rule that is asked once the patch is old enough.
        min_age: Releases that a patch serves at least before it is trained again.
    """

    inner: EdgeTuneReleased
    min_age: int

    def __post_init__(self) -> None:
        if self.min_age < 1:
            raise ValueError(f"min_age must be >= 1 release, got {self.min_age}")

    def decide(self, release: Manifest, patch: Patch | None) -> Decision:
        """Returns what the inner rule says, but reuse where the patch is younger than `min_age`."""
        decision = self.inner.decide(release, patch)
        if patch is None or release.version - patch.release >= self.min_age:
            return decision
        return replace(decision, action=Action.REUSE, reason="patch_is_young")
