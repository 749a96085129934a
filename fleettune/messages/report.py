"""What a device reports, as values: statistics for the server, an observation for the experiment.

Statistics are numbers and short words; there is no field that could hold a user's text, a buffer or
base weights. Observations belong to the simulation's observer: they measure quality on exchanges
that the device has not seen, and the grid takes them out of a reply before the strategy sees it. In
a deployment there are none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields

from fleettune.adapters.patch import Patch
from fleettune.cost.ledger import Ledger
from fleettune.cost.workload import Workload

WORD = re.compile(r"[a-z0-9][a-z0-9_+-]{0,39}")
"""What a text in statistics may look like: a short lower-case name, never a sentence."""
DECISIONS = ("retune", "reuse", "never", "none", "infeasible", "failed")
ATTENDANCES = ("present", "absent", "starved", "interrupted", "late")
PAYLOADS = ("none", "full", "delta")
"""The words that a report may use for a decision, an attendance and a payload."""
NO_RELEASE = -1
"""What a device that holds no release yet reports as its version."""
LARGEST = 1e18
"""Largest number in a report: more seconds, joules or bytes than any fleet has."""

BACK = "back_"
"""Beginning of a decision's reason where the device had this release before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Which device did what in a round, as short words and counters.

    Attributes:
        device: Number of the device, 0-based.
        round: Number of the round, 0-based.
        release: Version that the device holds now; `NO_RELEASE` before its first download.
        profile: Its hardware profile.
        attendance: How it took part (`clients.night.attendance.Attendance`).
        decision: What it did about its patch (`clients.adaptation.decision.Action`).
        reason: Why.
        payload: What brought the release to it (`clients.night.transfers.Payload`).
    """

    device: int
    round: int
    release: int
    profile: str
    decision: str
    reason: str
    attendance: str = "present"
    payload: str = "none"

    def __post_init__(self) -> None:
        for name in ("profile", "attendance", "decision", "reason", "payload"):
            value = getattr(self, name)
            if not WORD.fullmatch(value):
                raise ValueError(f"{name} must be a short lower-case word, got {value[:80]!r}")
        known = (("decision", DECISIONS), ("attendance", ATTENDANCES), ("payload", PAYLOADS))
        for name, words in known:
            if getattr(self, name) not in words:
                raise ValueError(f"{name} must be one of {words}, got {getattr(self, name)}")
        for name, least in (("device", 0), ("round", 0), ("release", NO_RELEASE)):
            if not least <= getattr(self, name) <= LARGEST:
                raise ValueError(f"{name} must be a number >= {least}, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """A device's report of one round.

    Attributes:
        outcome: Who and what.
        ledger: What the round cost the device, by stage (simulated).
        start_s: Beginning of the night's work, in seconds after the round's (simulated).
        night_s: Seconds of that work, heat included (simulated).
        soc: State of charge when it began, from 0 to 1 (simulated).
        soc_after: State of charge when it ended.
        drift: Drift that the decision looked at, None where it did not.
        strength: Patch strength that it looked at, None where it did not.
        score: Number or probability by which the rule decided, None where it has none.
        canary_before: Nats per token of the held-out exchanges under the new release with the old
            patch; None where nobody looked.
        canary_worse: Nats per token by which the release made them worse, as the rule measures it
            and `fleettune.releases.guidance` weighs it; None where that is not known.
        canary_after: As `canary_before`, with the patch tuned in this round.
        explored: 1 if the device retuned at random against its rule, 0 if not; None where its rule
            does not explore.
        propensity: Probability with which a device that saw the same was to retune.
        buffer_exchanges: Exchanges held.
        buffer_bytes: Bytes of their texts and of what the selection keeps beside them.
        stored_bytes: Bytes of everything that the device keeps under its quota.
        tune_steps: Optimizer steps of this round.
        train_tokens: Tokens that those steps trained on, prompts included.
        cache_bytes: Bytes of the device's prefix cache while it tuned; 0 without one.
        over_budget: 1 if the tune took more joules than its placement's budget, else 0.
        peak_bytes: Memory at the peak of a tune as priced, whether it fitted or not; 0 without one.
        synthesised: Training pairs that the device made for this tune, good or not.
        synthetic_kept: Those that passed its checks and were trained on.
        arrived: Exchanges read this round.
        accepted: How many of them the selection kept.
        asked: Preferred answers that the user was asked for.
    """

    outcome: Outcome
    ledger: Ledger
    drift: float | None = None
    strength: float | None = None
    score: float | None = None
    canary_before: float | None = None
    canary_worse: float | None = None
    canary_after: float | None = None
    explored: int | None = None
    propensity: float | None = None
    start_s: float = 0.0
    night_s: float = 0.0
    soc: float = 1.0
    soc_after: float = 1.0
    buffer_exchanges: int = 0
    buffer_bytes: int = 0
    stored_bytes: int = 0
    tune_steps: int = 0
    train_tokens: int = 0
    cache_bytes: int = 0
    over_budget: int = 0
    peak_bytes: int = 0
    synthesised: int = 0
    synthetic_kept: int = 0
    arrived: int = 0
    accepted: int = 0
    asked: int = 0

    def __post_init__(self) -> None:
        for name in AMOUNTS:
            _check_amount(name, getattr(self, name))
        for stage, cost in self.ledger.costs:
            for field_ in fields(cost):
                _check_amount(f"{stage}.{field_.name}", getattr(cost, field_.name))
        for name in ("soc", "soc_after"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must be <= 1, got {getattr(self, name)}")


AMOUNTS = tuple(f.name for f in fields(Statistics) if isinstance(f.default, int | float))
"""Numbers of statistics that every report has: counts, bytes, seconds and charge, none below 0."""


def _check_amount(name: str, value: float) -> None:
    if not 0 <= value <= LARGEST:  # NaN fails both
        raise ValueError(f"{name} must be a number from 0 to {LARGEST:g}, got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Quality on a user's later exchanges, which nothing on the device has seen.

    Attributes:
        exchanges: How many were evaluated.
        nll: Free text: nats per supervised token. Labels: nats per answer of the closed set.
        exact_match: Share whose greedy answer equals the preferred one, token by token.
        approval: Share of answers that the user would accept (`clients.observer.evaluation`).
        mae: Labels only: mean absolute error of the predicted values.
        retune_gain: Nats by which a retune of this night helps, or would have helped, on the days
            to come; of an oracle, and of arms whose decisions the observer judges.
        rouge1: Free text, where the observer lets the model write: mean ROUGE-1 F1 of the greedy
            answers against the preferred ones, 0 to 1.
        unseen_exchanges: Free text: how many of those evaluated have an answer that stood in
            nothing that the device had read by then, whether it kept that or not.
        exact_match_unseen: `exact_match` of those; None where there are none.
        start_entries: Entries of a catalogue that a first tune started from, 0 from scratch; None
            where there was no such choice.
        start_right: 1 if a single entry of the user's own style was among them, else 0; None where
            users have no such style, or entries are of none.
        start_nll: Nats per token of the start on the same exchanges, before any step.
        start_j: Joules above idle of finding and bringing it (simulated).
        finding_s: Seconds of that.
        start_bytes: Bytes received for it.
    """

    exchanges: int
    nll: float | None = None
    exact_match: float | None = None
    approval: float | None = None
    mae: float | None = None
    retune_gain: float | None = None
    rouge1: float | None = None
    unseen_exchanges: int | None = None
    exact_match_unseen: float | None = None
    start_entries: int | None = None
    start_right: int | None = None
    start_nll: float | None = None
    start_j: float | None = None
    finding_s: float | None = None
    start_bytes: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """How much the observer lets the model write at every evaluation; no device pays for it.

    Attributes:
        answers: Later exchanges, the first ones, whose answer the model writes greedily.
        new_tokens: Most tokens of one answer.
    """

    answers: int = 0
    new_tokens: int = 48

    def __post_init__(self) -> None:
        if self.answers < 0:
            raise ValueError(f"answers must be >= 0, got {self.answers}")
        if self.new_tokens < 1:
            raise ValueError(f"new_tokens must be >= 1 token, got {self.new_tokens}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that one device's round leaves behind.

    Attributes:
        statistics: Goes to the server.
        delta: What a new patch changes beyond what the server sent, where one was trained; goes to
            the server.
        observation: Goes to the experiment's recorder, never to the server.
        workload: What the ledger was priced from; to the recorder, never to the server.
        frame: The delta as it is sent; None for single precision.
    """

    statistics: Statistics
    delta: Patch | None
    observation: Observation | None
    workload: Workload = field(default_factory=Workload)
    frame: bytes | None = None
