"""Exchange: what leaves the devices, beside what whole models would have been.

Federated averaging of whole models would send a release in full wherever a delta was sent. Both are
counted at the bytes that are priced, so the ratio is that of the model that is priced.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from simulations.report.tables import number
from simulations.results.derived_columns import PATCH_BYTES, with_derived

Cells = tuple[list[str], list[list[str]]]

EXCHANGE_NOTE = (
    "What left the devices for aggregation: deltas of adapters, at the bytes that were sent (codec "
    "and ties included, reports and headers not), beside whole releases in their place."
)

REFUSED, REFUSED_NOTE = (
    "rejected_",
    "What the server refused of replies, by reason, over all nights; rounds went on without it, "
    "and the devices' joules and bytes count all the same.",
)
"""How columns of rounds begin that count refusals; what the page says of them."""


def exchange_cells(rows: Mapping[str, pl.DataFrame]) -> Cells:
    """Bytes of every arm's deltas, and of the releases that they stand for.

    No row for an arm that sent no delta, or where no device ever received a release in full.

    Args:
        rows: Rows of every arm, as `simulations.results.device_means.split_arms` gives them.
    """
    columns = ["arm", "deltas", "sent", "as whole releases", "times fewer bytes"]
    sizes = release_bytes(rows)
    found: list[list[str]] = []
    for arm, part in rows.items():
        sent = with_derived(part).filter(pl.col(PATCH_BYTES) > 0).join(sizes, on="release")
        if sent.is_empty():
            continue
        deltas, whole = float(sent[PATCH_BYTES].sum()), float(sent["whole_bytes"].sum())
        cells = [_megabytes(deltas), _megabytes(whole), number(whole / deltas, ",.1f")]
        found.append([arm, f"{sent.height:,}", *cells])
    return columns, found


def release_bytes(rows: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Returns the bytes of a full download of every release, as ``release`` and ``whole_bytes``.

    That is the least of what any device received with it: some are sent a fleet patch as well. One
    that was only ever received as a delta counts as the largest of the others.
    """
    every = pl.concat([part.select("release", "payload", "down_bytes") for part in rows.values()])
    full = every.filter(pl.col("payload") == "full")
    least = full.group_by("release").agg(pl.col("down_bytes").min().alias("whole_bytes"))
    if least.is_empty():
        return least
    known = every.select("release").unique().join(least, on="release", how="left")
    return known.with_columns(pl.col("whole_bytes").fill_null(pl.col("whole_bytes").max()))


def _megabytes(value: float) -> str:
    return f"{value / 1e6:,.4g} MB"


def refused_cells(rounds: pl.DataFrame) -> Cells:
    """What of the replies was not taken, by arm and reason; no row where everything was.

    Args:
        rounds: Rows of ``rounds.parquet``.
    """
    reasons = [name for name in rounds.columns if name.startswith(REFUSED)]
    sums = rounds.group_by("arm", maintain_order=True).agg(pl.col(reasons).sum())
    found = [
        [arm["arm"], name.removeprefix(REFUSED).replace("_", " "), f"{arm[name]:,}"]
        for arm in sums.iter_rows(named=True)
        for name in reasons
        if arm[name]
    ]
    return ["arm", "reason", "refused"], found
