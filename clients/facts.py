"""What a device knows of itself without being told by a server: hardware, user, own text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fleettune.exchanges import Population
from fleettune.hardware import DeviceProfile
from fleettune.releases import Manifest
from fleettune.tokens import Encoder, open_encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One device.

    Attributes:
        device: Its number, 0-based.
        user: The user that it belongs to.
        seed: Key of its random streams.
        profile: Its hardware.
        population: Where its user's exchanges come from.
    """

    device: int
    user: int
    seed: int
    profile: DeviceProfile
    population: Population

    def encoder(self, release: Manifest) -> Encoder:
        """Returns the tokenizer of a release with its template."""
        return open_encoder(Path(release.path), release.template, release.max_tokens)
