"""EdgeTune with a scope, and a threshold that may come from the fleet.

The idea is EdgeTune's: compare the drift of a release with the strength of the patch, data-free.
Its released form is `clients.adaptation.EdgeTuneReleased`
(docs/methods.md#edgetune-released-drift-and-strength). Ours (docs/methods.md#edgetune-ours) is what
a device needs where that threshold is no constant of nature: sums over the matrices that matter, a
score that the server fits from what devices reported, canaries as a second number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from clients.adaptation.canary import CanaryScore, check_paired, score_canaries
from clients.adaptation.decision import FRESH, Action, Decision, check_start
from clients.adaptation.device_view import DeviceView
from clients.adaptation.drift import SCOPES, PatchDrift, measure_drift
from clients.adaptation.protocol import KeptOut, RuleTraits
from fleettune.releases.guidance import Guidance, features_of, log_ratio
from fleettune.seeds import Purpose, stream

FIXED, CALIBRATED = "fixed", "calibrated"


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeTune:
    """Retunes where drift over strength, or the probability that retuning helps, is above a bound.

    Attributes:
        scope: ``target_modules``, ``patched`` or ``projected`` (`clients.adaptation.drift`).
        threshold: ``fixed``: drift over strength above `kappa`. ``calibrated``: the score that
            came with the release (`fleettune.releases.guidance.Guidance`) above its threshold;
            `kappa` as long as none came.
        kappa: Bound on drift over strength.
        k_var: Weight of the deviation (docs/methods.md#edgetune-released-drift-and-strength); not
            used by ``projected``.
        canary: Whether canaries are scored as a second number; ``calibrated`` only.
        canary_share: As `clients.adaptation.Canary.share`, where `canary` is set.
        canary_most: Newest canaries that are scored.
        canary_paired: As `clients.adaptation.Canary.paired`.
        start: What a retune starts from: ``fresh``, or ``old``: the old patch, where the new
            placement is the same.
        anew_above: Nats per token by which the release made the canaries worse above which a retune
            begins anew all the same: the patch is broken, so nothing in it is worth keeping. None:
            never.

    Raises:
        ValueError: If a value breaks its rule.
    """

    scope: str
    threshold: str
    kappa: float
    k_var: float
    canary: bool
    canary_share: float
    canary_most: int
    canary_paired: bool
    start: str
    anew_above: float | None = None

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise ValueError(f"scope must be one of {SCOPES}, got {self.scope!r}")
        if self.threshold not in (FIXED, CALIBRATED):
            raise ValueError(
                f"threshold must be one of {(FIXED, CALIBRATED)}, got {self.threshold!r}"
            )
        if not self.kappa > 0:
            raise ValueError(f"kappa must be > 0, got {self.kappa}")
        if self.k_var < 0:
            raise ValueError(f"k_var must be >= 0, got {self.k_var}")
        KeptOut(share=self.canary_share, most=self.canary_most)
        check_paired(self.canary_share, paired=self.canary_paired)
        if self.canary and self.threshold != CALIBRATED:
            raise ValueError(
                "canary=true needs threshold=calibrated, for only a fitted score can weigh two "
                "numbers; adaptation=canary decides by canaries alone"
            )
        if self.anew_above is not None and not (self.canary and self.anew_above > 0):
            raise ValueError(
                f"anew_above must be > 0 nats per token with canary=true, or null; got "
                f"{self.anew_above} with canary={str(self.canary).lower()}"
            )
        check_start(self.start)

    @property
    def traits(self) -> RuleTraits:
        """It looks at the device, and may keep canaries out of every tune."""
        kept_out = KeptOut(share=self.canary_share, most=self.canary_most)
        return RuleTraits(
            needs_view=True,
            kept_out=kept_out if self.canary else None,
            goes_on_from=self.start,
        )

    def decide(self, view: DeviceView) -> Decision:
        """Returns retune above the bound, and at random for the share that explores."""
        found = measure_drift(self.scope, view, self.k_var)
        if found is None:
            return Decision(action=Action.RETUNE, reason="old_release_gone", start=self.start)
        seen = score_canaries(view, paired=self.canary_paired) if self.canary else None
        guidance = view.release.guidance if self.threshold == CALIBRATED else None
        decision = self._by_rule(found, seen, guidance or Guidance())
        decision = replace(
            decision,
            drift=found.drift,
            strength=found.strength,
            read_bytes=found.read_bytes,
            read_weights=found.read_weights,
            work_flop=found.work_flop,
            passes=() if seen is None else seen.passes,
            canary_before=None if seen is None else seen.score,
            canary_worse=None if seen is None else seen.worse,
            history=replace(view.history if seen is None else seen.history, path=found.path),
        )
        if self.threshold == CALIBRATED:
            decision = explore(decision, view, (guidance or Guidance()).explore)
        if decision.action is not Action.RETUNE:
            return decision
        return replace(decision, start=FRESH if self._is_broken(seen) else self.start)

    def _is_broken(self, seen: CanaryScore | None) -> bool:
        if seen is None or seen.worse is None or self.anew_above is None:
            return False
        return seen.worse > self.anew_above

    def _by_rule(self, found: PatchDrift, seen: CanaryScore | None, guidance: Guidance) -> Decision:
        """Returns what the rule says."""
        if guidance.intercept is None:
            above = found.drift > self.kappa * found.strength
            word = "drift_above_threshold" if above else "drift_below_threshold"
            score = 10 ** log_ratio(found.drift, found.strength)
            return _decision(above=above, reason=word, score=score)
        worse, level = (None, None) if seen is None else (seen.worse, seen.score)
        score = guidance.probability(features_of(found.drift, found.strength, worse, level))
        above = score > guidance.threshold
        word = "probability_above_threshold" if above else "probability_below_threshold"
        return _decision(above=above, reason=word, score=score)


def explore(decision: Decision, view: DeviceView, share: float) -> Decision:
    """Returns a decision that a share of devices turns into a retune at random.

    The propensity is that of a retune: 1 where the rule wants it, the share where it does not.
    """
    if decision.action is Action.RETUNE:
        return replace(decision, explored=0, propensity=1.0)
    facts = view.facts
    rng = stream(facts.seed, Purpose.EXPLORATION, facts.device, view.release.version)
    if float(rng.random()) >= share:
        return replace(decision, explored=0, propensity=share)
    return replace(decision, action=Action.RETUNE, reason="explored", explored=1, propensity=share)


def _decision(*, above: bool, reason: str, score: float) -> Decision:
    action = Action.RETUNE if above else Action.REUSE
    return Decision(action=action, reason=reason, score=score)
