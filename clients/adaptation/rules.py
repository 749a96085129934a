"""Adaptation: on a new release, reuse the old patch or retune?

`AlwaysReuse` is PortLLM (arXiv:2410.10870, docs/methods.md#portllm-always-reuse): tune once, then
add the old update to
every later release. `EdgeTuneReleased` is EdgeTune's rule as its code was released
(docs/methods.md#edgetune-released-drift-and-strength):
compare the drift of the target matrices with the strength of the patch, data-free, no forward pass.
`Retrieve` and `UserPrior` train nothing; they are the rivals that easy worlds flatter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clients.adaptation.decision import FIRST_PATCH, FRESH, Action, Decision, check_start
from clients.adaptation.protocol import RuleTraits
from fleettune.adapters.patch import Patch
from fleettune.data.labels import user_prior
from fleettune.releases.manifest import Manifest, Moments, moments
from fleettune.shapes import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class AlwaysRetune:
    """Trains again on every release: the reference.

    Attributes:
        start: What a retune starts from: ``fresh``, or ``old``: the old patch, where the new
            placement is the same.

    Raises:
        ValueError: If that is neither.
    """

    start: str = FRESH

    def __post_init__(self) -> None:
        check_start(self.start)

    @property
    def traits(self) -> RuleTraits:
        """It says what its retunes start from, those on trial as well."""
        return RuleTraits(goes_on_from=self.start)

    def decide(self, release: Manifest, patch: Patch | None) -> Decision:
        """Returns retune."""
        if patch is None:
            return FIRST_PATCH
        return Decision(action=Action.RETUNE, reason="always", start=self.start)


@dataclass(frozen=True, slots=True, kw_only=True)
class Swapped:
    """A control: trains as `AlwaysRetune` does, and is judged by what another user says.

    So it says what a patch gives to anybody; only what `AlwaysRetune` has above it is personal.
    """

    @property
    def traits(self) -> RuleTraits:
        """The observer asks it what another user asks."""
        return RuleTraits(swapped=True)

    def decide(self, release: Manifest, patch: Patch | None) -> Decision:
        """Returns retune."""
        return FIRST_PATCH if patch is None else Decision(action=Action.RETUNE, reason="always")


@dataclass(frozen=True, slots=True, kw_only=True)
class AlwaysReuse:
    """Tunes once and carries the patch over to every later release (PortLLM)."""

    def decide(self, release: Manifest, patch: Patch | None) -> Decision:
        """Returns reuse, but retune for the first patch."""
        return FIRST_PATCH if patch is None else Decision(action=Action.REUSE, reason="always")


@dataclass(frozen=True, slots=True, kw_only=True)
class NeverPersonalise:
    """Serves every release as it is."""

    def decide(self, release: Manifest, patch: Patch | None) -> Decision:
        """Returns never."""
        return Decision(action=Action.NEVER, reason="always")


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOnly:
    """Trains nothing: serves what the fleet learned, where the server sends it."""

    @property
    def traits(self) -> RuleTraits:
        """It serves with the fleet patch."""
        return RuleTraits(takes_fleet_patch=True)

    def decide(self, release: Manifest, patch: Patch | None) -> Decision:
        """Returns reuse, of the fleet's patch; never without one that is not in the weights yet."""
        if patch is None:
            return Decision(action=Action.NEVER, reason="no_fleet_patch")
        if release.folded is not None and patch.release < release.folded:
            return Decision(action=Action.NEVER, reason="folded")
        return Decision(action=Action.REUSE, reason="fleet_patch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieve:
    """Trains nothing: the nearest buffered exchanges stand in the context at serving time.

    Attributes:
        neighbours: How many exchanges.
    """

    neighbours: int

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise ValueError(f"neighbours must be >= 1, got {self.neighbours}")

    @property
    def traits(self) -> RuleTraits:
        """It retrieves."""
        return RuleTraits(neighbours=self.neighbours)

    def decide(self, release: Manifest, patch: Patch | None) -> Decision:
        """Returns never."""
        return Decision(action=Action.NEVER, reason="retrieval")


@dataclass(frozen=True, slots=True, kw_only=True)
class UserPrior:
    """No model at all: predicts labels from the user's own label frequencies.

    Attributes:
        smoothing: Count that every answer starts with.
    """

    smoothing: float

    def __post_init__(self) -> None:
        if not self.smoothing > 0:
            raise ValueError(f"smoothing must be > 0, got {self.smoothing}")

    @property
    def traits(self) -> RuleTraits:
        """It answers without the model."""
        return RuleTraits(label_prior=self.log_prior)

    def log_prior(self, history: Sequence[int], answers: int) -> tuple[float, ...]:
        """Returns the log-probability of every answer, given which ones the user gave before."""
        return user_prior(history, answers, self.smoothing)

    def decide(self, release: Manifest, patch: Patch | None) -> Decision:
        """Returns never."""
        return Decision(action=Action.NEVER, reason="prior")


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeTuneReleased:
    """Retunes iff drift > kappa * strength, both ``mean(x^2) + k_var * std(x^2)``.

    The drift pools all entries of all target matrices since the release of the patch, the strength
    all entries of the patched matrices' updates
    (docs/methods.md#edgetune-released-drift-and-strength).

    Attributes:
        kappa: Threshold on drift over strength; 0.5 as released.
        k_var: Weight of the deviation; 0.25 as released.
    """

    kappa: float
    k_var: float

    def __post_init__(self) -> None:
        if not self.kappa > 0:
            raise ValueError(f"kappa must be > 0, got {self.kappa}")
        if self.k_var < 0:
            raise ValueError(f"k_var must be >= 0, got {self.k_var}")

    def decide(self, release: Manifest, patch: Patch | None) -> Decision:
        """Returns retune where the release drifted far beyond what the patch changes."""
        if patch is None:
            return FIRST_PATCH
        drift = pool_moments(release.drift_since(patch.release)).magnitude(self.k_var)
        plain = patch.untie()
        strength = pool_moments(
            {site: moments(plain.dense(site)) for site in plain.factors}
        ).magnitude(self.k_var)
        above = drift > self.kappa * strength
        return Decision(
            action=Action.RETUNE if above else Action.REUSE,
            reason="drift_above_threshold" if above else "drift_below_threshold",
            drift=drift,
            strength=strength,
            read_bytes=patch.size_bytes,
            work_flop=float(sum(dense_flop(plain, site) for site in plain.factors)),
        )


def pool_moments(by_site: Mapping[Site, Moments]) -> Moments:
    """Returns the moments of all entries of all matrices together."""
    return sum(by_site.values(), Moments())


def dense_flop(patch: Patch, site: Site) -> int:
    """Returns the FLOP of the moments of one site's update."""
    item = patch.factors[site]
    # the product of the factors, then square, square and two sums per entry
    return (2 * item.a.shape[0] + 4) * item.a.shape[1] * item.b.shape[0]
