"""Canary: the patched new release is scored on exchanges that the patch was not tuned on.

Ours (docs/methods.md#canary), for a published rule that looks at weights alone fires on a release
that
computes the same with other weights (docs/methods.md#what-drift-alone-misses). Costs forward passes
only. Never on the
training buffer: its loss rises where the patch had over-fitted it and nothing else got worse.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from clients.adaptation.decision import Action, Decision, PatchHistory
from clients.adaptation.device_view import DeviceView, nats_per_token
from clients.adaptation.protocol import KeptOut, RuleTraits
from fleettune.data.tokens import Example
from fleettune.releases.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryScore:
    """What the canaries say.

    Attributes:
        score: Nats per token under the new release with the old patch; None without canaries.
        worse: By how much that is more than it was; None where that is not known.
        passes: Examples scored, pass by pass.
        history: What to keep if the patch stays.
    """

    score: float | None
    worse: float | None
    passes: tuple[tuple[Example, ...], ...]
    history: PatchHistory


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """Retunes iff the canaries got worse by more than a margin.

    Without a canary it reuses and says so.

    Attributes:
        share: Share of the exchanges that is kept out of every tune; 0: none, and canaries are
            what came since the patch was tuned, compared in pairs.
        most: Newest of those that are scored.
        margin: Nats per token.
        paired: What is compared with: False: the canaries of the night of the tune, under the
            release tuned; the buffer has changed since, so other exchanges are compared. True: the
            same canaries under the release that the device held until now, at the price of a
            second pass; what reused releases added before is kept and added.

    Raises:
        ValueError: If a value breaks its rule.
    """

    share: float
    most: int
    margin: float
    paired: bool

    def __post_init__(self) -> None:
        KeptOut(share=self.share, most=self.most)
        check_paired(self.share, paired=self.paired)
        if not self.margin >= 0:
            raise ValueError(f"margin must be >= 0 nats per token, got {self.margin}")

    @property
    def traits(self) -> RuleTraits:
        """It looks at the device, and keeps canaries out of every tune."""
        kept_out = KeptOut(share=self.share, most=self.most)
        return RuleTraits(needs_view=True, kept_out=kept_out)

    def decide(self, view: DeviceView) -> Decision:
        """Returns retune where the canaries got worse by more than the margin."""
        seen = score_canaries(view, paired=self.paired)
        reuse = seen.worse is None or seen.worse <= self.margin
        known = "canary_holds" if reuse else "canary_worse"
        return Decision(
            action=Action.REUSE if reuse else Action.RETUNE,
            reason="no_canary" if seen.worse is None else known,
            passes=seen.passes,
            score=seen.worse,
            canary_before=seen.score,
            canary_worse=seen.worse,
            history=seen.history,
        )


def score_canaries(view: DeviceView, *, paired: bool) -> CanaryScore:
    """Returns what the canaries say of the old patch on the new release."""
    kept, canaries = view.history, _examples(view, view.release)
    score = nats_per_token(view.release, view.patch, canaries, view.compute)
    if score is None:
        return CanaryScore(score=None, worse=None, passes=(), history=kept)
    if not paired:
        worse = None if kept.canary is None else score - kept.canary
        return CanaryScore(score=score, worse=worse, passes=(canaries,), history=kept)
    if view.before is None:
        return CanaryScore(score=score, worse=None, passes=(canaries,), history=kept)
    earlier = _examples(view, view.before)
    was = nats_per_token(view.before, view.patch, earlier, view.compute)
    worse = kept.worse + score - (was or 0.0)
    return CanaryScore(
        score=score,
        worse=worse,
        passes=(canaries, earlier),
        history=replace(kept, worse=worse),
    )


def check_paired(share: float, *, paired: bool) -> None:
    """Raises ValueError if canaries are to be compared with a night on which there were none."""
    if share == 0 and not paired:
        raise ValueError(
            "paired=false needs a share of kept-out exchanges > 0, got 0: what came since the tune "
            "was not there on the night of the tune"
        )


def _examples(view: DeviceView, release: Manifest) -> tuple[Example, ...]:
    return tuple(map(view.facts.encoder(release).example, view.canaries))
