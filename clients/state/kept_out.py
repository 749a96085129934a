"""Which exchanges a device never trains on, and which of them are scored as canaries."""

from __future__ import annotations

from clients.adaptation.protocol import AdaptationRule, traits_of
from clients.state.state import DeviceState
from clients.work.facts import Facts
from fleettune.data.exchanges import Exchange


def training_exchanges(
    facts: Facts, rule: AdaptationRule, state: DeviceState
) -> tuple[Exchange, ...]:
    """Returns the exchanges that a tune may use: those answered that are not kept out."""
    kept_out = traits_of(rule).kept_out
    if kept_out is None:
        return state.answered
    return tuple(e for e in state.answered if not kept_out.holds(facts, e))


def canaries(facts: Facts, rule: AdaptationRule, state: DeviceState) -> tuple[Exchange, ...]:
    """Returns the newest exchanges that the patch in use was not tuned on, in time order.

    That is what the rule keeps out of every tune; where it keeps out nothing, what came since.
    """
    kept_out, tuned = traits_of(rule).kept_out, state.history.tuned_day
    if kept_out is None or kept_out.share > 0 or tuned is None:
        return newest_kept_out(facts, rule, state)
    return tuple(e for e in state.answered if e.day > tuned)[-kept_out.most :]


def newest_kept_out(facts: Facts, rule: AdaptationRule, state: DeviceState) -> tuple[Exchange, ...]:
    """Returns the newest exchanges that a rule keeps out of every tune, in time order."""
    kept_out = traits_of(rule).kept_out
    if kept_out is None:
        return ()
    return tuple(e for e in state.answered if kept_out.holds(facts, e))[-kept_out.most :]
