"""What a device knows of itself without being told by a server: hardware, user, random streams."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from fleettune.cost.energy import Values, central_values
from fleettune.cost.hardware import DeviceProfile
from fleettune.cost.pricing import PricedModel
from fleettune.cost.radio import WIFI, Radio
from fleettune.data.tokens import Encoder, open_encoder
from fleettune.releases.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One device, as its rules may see it: its user's days are not among the facts.

    Attributes:
        device: Its number, 0-based.
        user: The user that it belongs to.
        seed: Key of its random streams.
        profile: Its hardware.
        priced: Which model its costs are counted for.
        radio: How it is connected.
    """

    device: int
    user: int
    seed: int
    profile: DeviceProfile
    priced: PricedModel = field(default_factory=PricedModel)
    radio: Radio = WIFI

    @property
    def population(self) -> NoReturn:
        """Raises AttributeError: a rule that could ask for a day could ask for one to come."""
        raise AttributeError(
            "a rule is handed no population, which would answer for days to come; what a device "
            "may know of its user are the exchanges that the rule is given"
        )

    @property
    def prices(self) -> Values:
        """Central values of the coefficients of its hardware."""
        return central_values(self.profile, self.radio)

    def encoder(self, release: Manifest) -> Encoder:
        """Returns the tokenizer of a release with its template."""
        return open_encoder(Path(release.path), release.template, release.max_tokens)
