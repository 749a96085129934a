"""Baselines: rules that a rule of drift must beat, and the oracle that none can."""

from __future__ import annotations

from dataclasses import dataclass, replace

from clients.adaptation.canary import check_paired, score_canaries
from clients.adaptation.decision import (
    FIRST_PATCH,
    FRESH,
    ON_TRIAL,
    Action,
    Decision,
    check_start,
)
from clients.adaptation.device_view import DeviceView
from clients.adaptation.edgetune import explore
from clients.adaptation.protocol import KeptOut, LookAhead, RuleTraits
from clients.adaptation.rules import pool_moments
from fleettune.adapters.patch import Patch
from fleettune.releases.manifest import Manifest
from fleettune.seeds import Purpose, stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Periodic:
    """Retunes on every k-th release since the patch's own, whatever is in it.

    Attributes:
        every: How many releases; those that the device slept through count.
        start: What a retune starts from: ``fresh``, or ``old`` for the old patch.
    """

    every: int
    start: str = FRESH

    def __post_init__(self) -> None:
        check_start(self.start)
        if self.every < 1:
            raise ValueError(f"every must be >= 1 release, got {self.every}")

    @property
    def traits(self) -> RuleTraits:
        """It says what its retunes start from, those on trial as well."""
        return RuleTraits(goes_on_from=self.start)

    def decide(self, release: Manifest, patch: Patch | None) -> Decision:
        """Returns retune once the patch is that many releases old."""
        if patch is None:
            return FIRST_PATCH
        age = release.version - patch.release
        due = age >= self.every
        return Decision(
            action=Action.RETUNE if due else Action.REUSE,
            reason="period_over" if due else "within_period",
            score=float(age),
            start=self.start,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomAtRate:
    """Retunes a random share of devices at every release.

    Attributes:
        rate: The share, from 0 to 1.
        start: What a retune starts from: ``fresh``, or ``old`` for the old patch.
    """

    rate: float
    start: str = FRESH

    def __post_init__(self) -> None:
        check_start(self.start)
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate must be a share from 0 to 1, got {self.rate}")

    @property
    def traits(self) -> RuleTraits:
        """It looks at the device's own random stream."""
        return RuleTraits(needs_view=True, goes_on_from=self.start)

    def decide(self, view: DeviceView) -> Decision:
        """Returns retune if this device's number for this release is below the rate."""
        facts = view.facts
        rng = stream(facts.seed, Purpose.RANDOM_RETUNE, facts.device, view.release.version)
        drawn = float(rng.random()) < self.rate
        return Decision(
            action=Action.RETUNE if drawn else Action.REUSE,
            reason="drawn" if drawn else "not_drawn",
            propensity=self.rate,
            start=self.start,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PerRelease:
    """Does what the server decided for everybody: what does deciding per device add?

    As long as the release brings no decision, its drift over all matrices is compared with a
    strength that is the same for all devices. The server can only decide by gains that somebody
    reports: with canaries a retune reports what it gained, and a share of the devices that the
    release names retunes where everybody is to reuse.

    Attributes:
        kappa: Bound on drift over strength without a decision.
        k_var: Weight of the deviation (docs/methods.md#edgetune-released-drift-and-strength).
        nominal_strength: Strength that a patch is taken to have, as ``mean + k_var * std`` of the
            squared entries of its update.
        canary_share: Share of the exchanges kept out of every tune, scored before and after a
            retune; None: no device reports a gain, and none explores.
        canary_most: Newest of those that are scored.
        start: What a retune starts from: ``fresh``, or ``old`` for the old patch.
    """

    kappa: float
    k_var: float
    nominal_strength: float
    canary_share: float | None = None
    canary_most: int = 8
    start: str = FRESH

    def __post_init__(self) -> None:
        check_start(self.start)
        if self.canary_share is not None:
            KeptOut(share=self.canary_share, most=self.canary_most)
            check_paired(self.canary_share, paired=False)
        for name in ("kappa", "nominal_strength"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        if self.k_var < 0:
            raise ValueError(f"k_var must be >= 0, got {self.k_var}")

    @property
    def traits(self) -> RuleTraits:
        """It looks at the device, and may keep canaries out of every tune."""
        if self.canary_share is None:
            return RuleTraits(needs_view=True, goes_on_from=self.start)
        kept_out = KeptOut(share=self.canary_share, most=self.canary_most)
        return RuleTraits(needs_view=True, kept_out=kept_out, goes_on_from=self.start)

    def decide(self, view: DeviceView) -> Decision:
        """Returns the server's decision, or without one what the drift says.

        With canaries a share of the devices explores, and a retune is measured.
        """
        decision = self._by_release(view.release, view.patch)
        if self.canary_share is None:
            return decision
        guidance = view.release.guidance
        decision = explore(decision, view, 0.0 if guidance is None else guidance.explore)
        if decision.action is not Action.RETUNE:
            return decision
        seen = score_canaries(view, paired=False)
        return replace(decision, passes=seen.passes, canary_before=seen.score)

    def _by_release(self, release: Manifest, patch: Patch) -> Decision:
        told = "" if release.guidance is None else release.guidance.decision
        if told:
            return Decision(action=Action(told), reason="told_by_server", start=self.start)
        drift = pool_moments(release.drift_since(patch.release)).magnitude(self.k_var)
        above = drift > self.kappa * self.nominal_strength
        return Decision(
            action=Action.RETUNE if above else Action.REUSE,
            reason="drift_above_threshold" if above else "drift_below_threshold",
            drift=drift,
            strength=self.nominal_strength,
            score=drift / self.nominal_strength,
            start=self.start,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracle:
    """Retunes exactly where retuning helps on what the user says next. Not deployable.

    The device tunes on trial and the experiment's observer, who knows the days to come, says
    which patch serves them better; the other is thrown away. It bounds what any rule can reach.
    Billed is what the choice costs: a retune where it retunes, nothing where it does not.
    Where no exchange is to come it reuses.

    Attributes:
        margin: Nats per token by which retuning must help.
        days: Days to come that are looked at.
        start: What a retune starts from: ``fresh``, or ``old`` for the old patch.
    """

    margin: float
    days: int
    start: str = FRESH

    def __post_init__(self) -> None:
        check_start(self.start)
        LookAhead(margin=self.margin, days=self.days)

    @property
    def traits(self) -> RuleTraits:
        """It asks the observer."""
        asked = LookAhead(margin=self.margin, days=self.days)
        return RuleTraits(look_ahead=asked, goes_on_from=self.start)

    def decide(self, release: Manifest, patch: Patch | None) -> Decision:
        """Returns a retune on trial."""
        return FIRST_PATCH if patch is None else replace(ON_TRIAL, start=self.start)
