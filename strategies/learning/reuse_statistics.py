"""Reuse-or-retune statistics of a fleet: tallies, and sketches of drift and quality change.

Everything in them is an integer count (`strategies.learning.tallies`, `strategies.learning.quantile_sketch`), so they are a
commutative monoid to the last bit: reports can come in any order and be split over any number of
servers. What they cannot do is undo a bias: gains are those of devices that retuned, most of them
because their rule asked for it; `strategies.learning.calibration` weights them, a sketch does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from strategies.learning.outcomes import DecisionReport
from strategies.learning.quantile_sketch import Sketch, read_sketch, sketched
from strategies.learning.tallies import Key, Tally, read_tally, tallied

ByClass = tuple[tuple[Key, Sketch], ...]
"""((version of a release, device class), sketch), ascending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReuseStatistics:
    """What the server keeps of all reports; a commutative monoid, `ReuseStatistics()` is zero.

    Attributes:
        tally: Counts and joules by release and device class.
        drift: The drift that rules saw, by release and device class.
        gain: Nats per token that retuning gained, by the same, where a device saw it.
    """

    tally: Tally = field(default_factory=Tally)
    drift: ByClass = ()
    gain: ByClass = ()

    def __add__(self, other: ReuseStatistics) -> ReuseStatistics:
        return ReuseStatistics(
            tally=self.tally + other.tally,
            drift=_merged(self.drift, other.drift),
            gain=_merged(self.gain, other.gain),
        )

    def plain(self) -> dict[str, Any]:
        """Returns them as JSON can hold them."""
        return {
            "tally": self.tally.plain(),
            "drift": _plain(self.drift),
            "gain": _plain(self.gain),
        }


def read_reuse_statistics(plain: Mapping[str, Any]) -> ReuseStatistics:
    """Returns what `ReuseStatistics.plain` wrote."""
    return ReuseStatistics(
        tally=read_tally(plain["tally"]), drift=_read(plain["drift"]), gain=_read(plain["gain"])
    )


def gathered(reports: Iterable[DecisionReport], alpha: float = 0.01) -> ReuseStatistics:
    """Returns the statistics of some reports; they are the sum of the statistics of each.

    Args:
        reports: Read once.
        alpha: Relative error of the sketches.
    """
    every = list(reports)
    drift: dict[Key, list[float]] = {}
    gain: dict[Key, list[float]] = {}
    for report in every:
        key = (report.release, report.device_class)
        if report.drift is not None:
            drift.setdefault(key, []).append(report.drift)
        if report.gain is not None:
            gain.setdefault(key, []).append(report.gain)
    return ReuseStatistics(
        tally=tallied(every), drift=_sketches(drift, alpha), gain=_sketches(gain, alpha)
    )


def _sketches(values: Mapping[Key, list[float]], alpha: float) -> ByClass:
    return tuple((key, sketched(values[key], alpha)) for key in sorted(values))


def _merged(mine: ByClass, theirs: ByClass) -> ByClass:
    merged = dict(mine)
    for key, sketch in theirs:
        merged[key] = merged[key] + sketch if key in merged else sketch
    return tuple(sorted(merged.items(), key=lambda entry: entry[0]))


def _plain(sketches: ByClass) -> list[dict[str, Any]]:
    return [
        {"release": version, "device_class": name, **sketch.plain()}
        for (version, name), sketch in sketches
    ]


def _read(plain: Iterable[Mapping[str, Any]]) -> ByClass:
    return tuple(((entry["release"], entry["device_class"]), read_sketch(entry)) for entry in plain)
