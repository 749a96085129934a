"""Your policy. fleettune calls `decide` on every phone, each time a release has arrived.

Edit it, and run the command of README.md again.
"""

from __future__ import annotations

from dataclasses import dataclass

from clients.adaptation.decision import FIRST_PATCH, OLD, Action, Decision
from fleettune.adapters.patch import Patch
from fleettune.releases.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class MyPolicy:
    """Lets a patch serve for some releases, then trains it again.

    Attributes:
        serves: Releases that a patch serves before it is trained again. Its value stands in
            mine.yaml of conf/adaptation.
    """

    serves: int

    def __post_init__(self) -> None:
        # a wrong value stops the command with this sentence, before anything runs
        if self.serves < 1:
            raise ValueError(f"serves must be >= 1 release, got {self.serves}")

    def decide(self, release: Manifest, patch: Patch | None) -> Decision:
        """Returns what this phone does with a release.

        Args:
            release: The release that arrived.
            patch: The phone's patch; None if it never trained one.
        """
        if patch is None:
            return FIRST_PATCH  # train a first one
        age = release.version - patch.release
        if age < self.serves:
            return Decision(action=Action.REUSE, reason="still_serves", score=float(age))
        # OLD: the training goes on from the old patch, with fewer steps than a first one
        return Decision(action=Action.RETUNE, reason="has_served", score=float(age), start=OLD)
