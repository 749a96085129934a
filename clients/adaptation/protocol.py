"""What a rule of adaptation is, and what a night must know of it besides its decisions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from clients.adaptation.decision import FRESH, Decision
from clients.adaptation.device_view import DeviceView
from clients.work.facts import Facts
from fleettune.adapters.patch import Patch
from fleettune.data.exchanges import Exchange
from fleettune.releases.manifest import Manifest
from fleettune.seeds import Purpose, stream

LabelPrior: TypeAlias = Callable[[Sequence[int], int], Sequence[float]]
"""Takes the indices of the user's past answers and how many answers there are; returns the
log-probability of each."""

Copier: TypeAlias = Callable[[Sequence[Exchange], str], str]
"""Takes the exchanges held, or of them those retrieved, and a question; returns the answer."""


@runtime_checkable
class Adaptation(Protocol):
    """A rule that is asked once for every release that is new to the device."""

    def decide(self, release: Manifest, patch: Patch | None) -> Decision:
        """Returns what to do; `patch` is None as long as nothing was ever tuned."""
        ...


class DeviceRule(Protocol):
    """A rule that looks at more of its device; its traits say `needs_view`.

    It is asked as soon as the device has a patch. The first one is tuned without asking.
    """

    @property
    def traits(self) -> RuleTraits:
        """What it is besides; `needs_view` among it."""
        ...

    def decide(self, view: DeviceView) -> Decision:
        """Returns what to do."""
        ...


AdaptationRule: TypeAlias = Adaptation | DeviceRule


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptOut:
    """Which exchanges are canaries.

    A number drawn once per exchange decides which never train, whatever the buffer holds, so no
    exchange is trained on first and kept out later. Without a share that is kept out, canaries are
    what came since the patch was tuned: it has not seen them, and the next tune may. A user who
    says a thing twice may have it on both sides, as in the exchanges to come: the canaries are a
    fair sample of those.

    Attributes:
        share: Share of all exchanges that never trains, at least 0 and less than 1.
        most: Newest canaries that are scored.

    Raises:
        ValueError: If a value breaks its rule.
    """

    share: float
    most: int

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ValueError(f"share of kept-out exchanges must be >= 0 and < 1, got {self.share}")
        if self.most < 1:
            raise ValueError(f"most canaries scored must be >= 1 exchange, got {self.most}")

    def holds(self, facts: Facts, exchange: Exchange) -> bool:
        """Returns whether an exchange of this device's user never trains."""
        rng = stream(facts.seed, Purpose.CANARY, facts.device, exchange.order)
        return float(rng.random()) < self.share


@dataclass(frozen=True, slots=True, kw_only=True)
class LookAhead:
    """What an oracle asks the observer: does the retune on trial help on the days to come?

    Attributes:
        margin: Nats per token by which it must help.
        days: Days to come that are looked at.
    """

    margin: float
    days: int

    def __post_init__(self) -> None:
        if not self.margin >= 0:
            raise ValueError(f"margin must be >= 0 nats per token, got {self.margin}")
        if self.days < 1:
            raise ValueError(f"days must be >= 1 day, got {self.days}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTraits:
    """What a night must know of a rule; a rule says what differs from these defaults.

    Attributes:
        needs_view: Whether `decide` takes a `DeviceView` (`DeviceRule`), or release and patch.
        kept_out: Which exchanges never train; None: all may.
        neighbours: How many of the exchanges held stand before each question at serving time.
        label_prior: What answers in place of the model, where answers are labels; None: the model.
        copier: What answers in place of the model, where answers are free text; None: the model.
        takes_fleet_patch: Whether the device serves with the fleet patch as its own.
        swapped: Whether the observer judges the device by what the next user of the population says
            instead of its own, as a control.
        look_ahead: What an oracle asks the observer about a retune; None for other rules.
        goes_on_from: What a retune starts from, the observer's own on trial as well: ``fresh`` or
            ``old``. With ``old`` a tune that begins anew takes `tuning.steps_first` steps.
    """

    needs_view: bool = False
    kept_out: KeptOut | None = None
    neighbours: int = 0
    label_prior: LabelPrior | None = None
    copier: Copier | None = None
    takes_fleet_patch: bool = False
    swapped: bool = False
    look_ahead: LookAhead | None = None
    goes_on_from: str = FRESH


PLAIN = RuleTraits()


def traits_of(rule: AdaptationRule) -> RuleTraits:
    """Returns the traits of a rule; the defaults of one that exposes none.

    Raises:
        ValueError: If what it exposes as its traits is no `RuleTraits`.
    """
    traits = getattr(rule, "traits", PLAIN)
    if not isinstance(traits, RuleTraits):
        raise ValueError(
            f"traits of {type(rule).__name__} must be RuleTraits, got {type(traits).__name__}"
        )
    return traits
