"""Says when a round closes in virtual time, and how many devices are in time and late.

Rounds are nights of equal length; round r begins at r * night_s. Devices start when their windows
open, which differ by hours, and a vendor sets the time that an update may take. So the deadline
counts from the moment a device starts its work tonight, not from the round's beginning. The server
knows that moment: it is when the device asks for its orders.

Nothing here sleeps or reads a real clock; a round's times follow from its rows alone.
"""

from __future__ import annotations

import math

import polars as pl

from fleettune.fleet.availability import NIGHT_S

_KEYS = ("arm", "round")


def tabulate_rounds(
    rows: pl.DataFrame, deadline_s: float | None, night_s: float = NIGHT_S
) -> pl.DataFrame:
    """Returns when every arm's rounds begin and close, and how many devices are in time and late.

    A reply is late after its deadline, and after its round. A round closes with its last reply or,
    where a device is late, when that one is given up. A round that no device attends closes at its
    end: the server waits for somebody to come.

    Args:
        rows: Rows of a run; ``start_s`` and ``night_s`` say when a device began in its round and
            how many seconds it worked; 0 where it did not.
        deadline_s: Seconds that a device may take from its start; None: until the round ends.
        night_s: Length of a round.

    Returns:
        Columns arm, round, begins_s, closes_s, in_time, late; seconds since round 0 began.

    Raises:
        ValueError: If a length of time is not finite and above 0.
    """
    for name, value in (("night_s", night_s), ("deadline_s", deadline_s)):
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be finite and > 0 s, got {value}")
    finish, given_up = pl.col("start_s") + pl.col("night_s"), pl.lit(night_s)
    if deadline_s is not None:
        given_up = pl.min_horizontal(pl.col("start_s") + deadline_s, given_up)
    replies = (
        rows.filter(pl.col("night_s") > 0)
        .group_by(_KEYS)
        .agg(
            pl.min_horizontal(finish, given_up).max().alias("waited_s"),
            (finish <= given_up).sum().cast(pl.Int64).alias("in_time"),
            (finish > given_up).sum().cast(pl.Int64).alias("late"),
        )
    )
    begins = pl.col("round") * night_s
    return (
        rows.select(_KEYS)
        .unique()
        .join(replies, on=_KEYS, how="left")
        .sort(_KEYS)
        .select(
            *_KEYS,
            begins.alias("begins_s"),
            (begins + pl.col("waited_s").fill_null(night_s)).alias("closes_s"),
            pl.col("in_time", "late").fill_null(0),
        )
    )
