"""Numbers as text, the same in the terminal and on every page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UNKNOWN = "n/a"
MOSTLY = 0.5
"""Share of estimates (tier E) among what decides some joules, above which they are marked."""
TIER_WORDS: Mapping[str, str] = {
    "M": "Measured",
    "F": "Fitted to measurements",
    "S": "Second-hand",
    "V": "Vendor's claim",
    "E": "Estimate",
}

_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def format_number(value: float | None, spec: str = ".3f", per: float = 1) -> str:
    """Returns a number in a format, in a unit of so many; a word where it is unknown."""
    if value is None:
        return UNKNOWN
    return f"{value if per == 1 else value / per:{spec}}"


def format_share(part: float | None, whole: float = 1, digits: int = 1) -> str:
    """Returns a part of a whole in percent; a word where either is unknown."""
    return UNKNOWN if part is None or not whole else f"{100 * part / whole:.{digits}f} %"


def format_joules(value_j: float | None) -> str:
    """Returns joules in three significant digits with an SI prefix."""
    if value_j is None:
        return UNKNOWN
    scale, prefix = _choose_prefix(value_j)
    return f"{_format_digits(value_j / scale)} {prefix}J"


def format_kilojoules(total_j: float | None, low_j: float | None, high_j: float | None) -> str:
    """Returns joules in kJ, without the unit, with the range that the coefficients allow."""
    if total_j is None or low_j is None or high_j is None:
        return UNKNOWN if total_j is None else _format_digits(total_j / 1e3)
    total, low, high = (_format_digits(value / 1e3) for value in (total_j, low_j, high_j))
    return f"{total} ({low} to {high})"


def format_joules_range(total_j: float | None, low_j: float | None, high_j: float | None) -> str:
    """Returns joules with the range that the coefficients allow, all in one unit."""
    if total_j is None or low_j is None or high_j is None:
        return format_joules(total_j)
    scale, _ = _choose_prefix(total_j)
    low, high = (_format_digits(end / scale) for end in (low_j, high_j))
    return f"{format_joules(total_j)} ({low} to {high})"


def format_interval(estimate: Mapping[str, Any], spec: str = ".3f", per: float = 1) -> str:
    """Returns a mean with its 95 % interval, where it has one, in a unit of so many."""
    low, high = estimate["ci95"]
    known = low is not None and high is not None
    ends = ", ".join(format_number(end, spec, per) for end in (low, high))
    return format_number(estimate["mean"], spec, per) + (f" [{ends}]" if known else "")


def format_change(estimate: Mapping[str, Any], *, is_share: bool) -> str:
    """Returns a signed difference with its 95 % interval, that of a share in percentage points."""
    return format_interval(estimate, *(("+z.1f", 0.01) if is_share else ("+z.3f", 1)))


def format_share_interval(estimate: Mapping[str, Any], kind: str = "ci95") -> str:
    """Returns a share with its 95 % interval of a kind, in percent."""
    share, (low, high) = format_share(estimate["mean"]), estimate[kind]
    if share == UNKNOWN or low is None or high is None:
        return share
    return f"{share} [{100 * low:.1f}, {100 * high:.1f}]"


def format_tiers(shares: Mapping[str, float]) -> str:
    """Returns tiers by their share in what decides some joules, the largest first."""
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    known = [f"{tier} {100 * share:.0f} %" for tier, share in ordered if share >= 0.005]
    return ", ".join(known) or UNKNOWN


def mark_estimates(text: str, shares: Mapping[str, float]) -> str:
    """Returns the text, its first number marked E where it rests mostly on estimates."""
    if text == UNKNOWN or not shares or shares["E"] <= MOSTLY:
        return text
    value, bracket, bounds = text.partition(" (")
    return f"{value} E{bracket}{bounds}"


def _choose_prefix(value: float) -> tuple[float, str]:
    return next((pair for pair in _PREFIXES if abs(value) >= pair[0]), _PREFIXES[-1])


def _format_digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")
