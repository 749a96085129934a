"""Protocols of a placement rule, and the rules that place adapters without looking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from clients.tuning.context import UNPREPARED, Hindered, PlacementContext, Preparation
from fleettune.adapters import patch as adapters
from fleettune.shapes import MODULES, Shapes, Site

ATTENTION = ("q", "k", "v", "o")


@runtime_checkable
class PlacementRule(Protocol):
    """A rule that places adapters on a backbone."""

    def check(self, shapes: Shapes) -> None:
        """Raises ValueError if the rule cannot place on a backbone of these shapes."""
        ...

    def place(self, context: PlacementContext) -> adapters.Placement | Hindered:
        """Returns the placement for a device, or what hinders it."""
        ...


@runtime_checkable
class PreparingRule(Protocol):
    """A rule that measures or trains on the device before it places."""

    def prepare(self, context: PlacementContext) -> Preparation | Hindered:
        """Returns what it found, or what hinders it; `place` reads it as `context.preparation`."""
        ...


@runtime_checkable
class StartingRule(Protocol):
    """A rule that says what the tune starts from, where it trained before it placed."""

    def start(self, preparation: Preparation, fresh: adapters.Patch) -> adapters.Patch:
        """Returns the start, given the untrained patch of its placement."""
        ...


@runtime_checkable
class BudgetedRule(Protocol):
    """A rule that plans with the costs of the whole tune."""

    @property
    def prefix_cache(self) -> bool:
        """True if its tunes keep a prefix cache where the quota allows and it saves joules.

        For these rules this counts, not the tuning's own setting: they plan with it.
        """
        ...

    def allows(self, context: PlacementContext, placement: adapters.Placement) -> bool:
        """Returns whether a placement stays within the rule's limits for another tune.

        It is asked when synthetic pairs have made a tune longer than the one it placed for.
        """
        ...

    def keeps(
        self, context: PlacementContext, whole: PlacementContext, placement: adapters.Placement
    ) -> bool:
        """Returns whether a retune may go on at the placement of its old patch.

        Args:
            context: The retune, which may be shorter than a tune that begins anew.
            whole: A tune that begins anew, whose limits count: placing anew would take that one.
            placement: Of the old patch.
        """
        ...

    def is_over_budget(self, context: PlacementContext, placement: adapters.Placement) -> bool:
        """Returns whether a tune at a placement takes more joules than the rule's budget."""
        ...


@runtime_checkable
class ShrinkingRule(Protocol):
    """A rule that knows a smaller placement where one does not fit the memory."""

    def smaller(self, placement: adapters.Placement) -> adapters.Placement | None:
        """Returns what to try instead of a placement; None to give up."""
        ...


def prepare(rule: PlacementRule, context: PlacementContext) -> Preparation | Hindered:
    """Returns what a rule does before it places; for most rules nothing."""
    return rule.prepare(context) if isinstance(rule, PreparingRule) else UNPREPARED


def places_alike(rule: PlacementRule) -> bool:
    """Returns whether a rule places every tune of a device alike: it looks at nothing before."""
    return not isinstance(rule, PreparingRule)


def trained_start(
    rule: PlacementRule, preparation: Preparation, fresh: adapters.Patch
) -> adapters.Patch | None:
    """Returns what a rule that trained says that the tune starts from; None: it says nothing."""
    if preparation.patch is None or not isinstance(rule, StartingRule):
        return None
    return rule.start(preparation, fresh)


def planned_cache(rule: PlacementRule) -> bool | None:
    """Returns whether a rule plans with a prefix cache; None: the tuning's own setting counts."""
    return rule.prefix_cache if isinstance(rule, BudgetedRule) else None


def allows(rule: PlacementRule, context: PlacementContext, placement: adapters.Placement) -> bool:
    """Returns whether a placement stays within a rule's limits, if it has any, for this tune."""
    return not isinstance(rule, BudgetedRule) or rule.allows(context, placement)


def allows_again(
    rule: PlacementRule,
    context: PlacementContext,
    whole: PlacementContext,
    placement: adapters.Placement,
) -> bool:
    """Returns whether a rule with a budget keeps an earlier placement; no other rule is asked."""
    return isinstance(rule, BudgetedRule) and rule.keeps(context, whole, placement)


def over_budget(
    rule: PlacementRule, context: PlacementContext, placement: adapters.Placement
) -> bool:
    """Returns whether a tune takes more joules than its rule's budget, if it has one."""
    return isinstance(rule, BudgetedRule) and rule.is_over_budget(context, placement)


def shrink_placement(
    rule: PlacementRule, placement: adapters.Placement
) -> adapters.Placement | None:
    """Returns what a rule tries where a placement does not fit the memory; None: it gives up."""
    return rule.smaller(placement) if isinstance(rule, ShrinkingRule) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class EverySite:
    """LoRA on all seven matrices of every layer."""

    rank: int
    alpha: float

    def check(self, shapes: Shapes) -> None:
        """Raises ValueError if rank or alpha do not fit."""
        check_adapters(shapes, self.rank, self.alpha)

    def place(self, context: PlacementContext) -> adapters.Placement:
        """Returns every site."""
        return self.on(context.release.shapes)

    def on(self, shapes: Shapes) -> adapters.Placement:
        """Returns every site of a backbone."""
        return _layers(shapes, 0, self.rank, self.alpha)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopLayers:
    """LoRA on all seven matrices of the layers nearest the output.

    Attributes:
        layers: How many layers, counted from the output.
        rank: Rank of every adapter.
        alpha: LoRA's alpha.
        shrink: Whether a device whose memory this does not fit adapts fewer layers instead.
    """

    layers: int
    rank: int
    alpha: float
    shrink: bool = False

    def check(self, shapes: Shapes) -> None:
        """Raises ValueError if layers, rank or alpha do not fit."""
        self.on(shapes)

    def place(self, context: PlacementContext) -> adapters.Placement:
        """Returns the sites of the top layers."""
        return self.on(context.release.shapes)

    def on(self, shapes: Shapes) -> adapters.Placement:
        """Returns the sites of the top layers of a backbone.

        Raises:
            ValueError: If the backbone has fewer layers.
        """
        if not 1 <= self.layers <= shapes.layers:
            raise ValueError(
                f"placement.layers must be between 1 and {shapes.layers}, the layers of this "
                f"model, got {self.layers}"
            )
        return _layers(shapes, shapes.layers - self.layers, self.rank, self.alpha)

    def smaller(self, placement: adapters.Placement) -> adapters.Placement | None:
        """Returns the upper half of a placement's layers, down to one; None without `shrink`."""
        layers = sorted({site.layer for site in placement.sites})
        if not self.shrink or len(layers) == 1:
            return None
        kept = layers[len(layers) - len(layers) // 2 :]
        sites = tuple(site for site in placement.sites if site.layer in kept)
        return adapters.Placement(sites=sites, rank=placement.rank, alpha=placement.alpha)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionOnly:
    """LoRA on the four attention matrices of every layer, as Hu et al. 2021 began.

    Attributes:
        rank: Rank of every adapter.
        alpha: LoRA's alpha.
    """

    rank: int
    alpha: float

    def check(self, shapes: Shapes) -> None:
        """Raises ValueError if rank or alpha do not fit."""
        check_adapters(shapes, self.rank, self.alpha)

    def place(self, context: PlacementContext) -> adapters.Placement:
        """Returns the attention sites."""
        return self.on(context.release.shapes)

    def on(self, shapes: Shapes) -> adapters.Placement:
        """Returns the attention sites of a backbone."""
        return _layers(shapes, 0, self.rank, self.alpha, ATTENTION)


def check_adapters(shapes: Shapes, rank: int, alpha: float) -> None:
    """Raises ValueError if a rank does not fit every matrix of a layer, or alpha is not > 0."""
    for n_in, n_out in shapes.matrices().values():
        adapters.check_rank(rank, n_in, n_out)
    if not alpha > 0:
        raise ValueError(f"placement.alpha must be > 0, got {alpha}")


def _layers(
    shapes: Shapes, first: int, rank: int, alpha: float, modules: Sequence[str] = MODULES
) -> adapters.Placement:
    check_adapters(shapes, rank, alpha)
    sites = tuple(
        Site(layer, module) for layer in range(first, shapes.layers) for module in modules
    )
    return adapters.Placement(sites=sites, rank=rank, alpha=alpha)
