"""The size of what leaves: deltas beside whole releases, by hand."""

from __future__ import annotations

import polars as pl

from fleettune.messages.flower_records import STATISTICS_BYTES
from simulations.report.sent_bytes_table import exchange_cells, refused_cells, release_bytes


def rows(*nights: tuple[int, str, float, int, float]) -> pl.DataFrame:
    """Nights as release, payload, bytes received, steps, bytes of a delta."""
    return pl.DataFrame(
        [
            {
                "release": release,
                "payload": payload,
                "down_bytes": down,
                "tune_steps": steps,
                "up_bytes": STATISTICS_BYTES + delta,
                "energy_j_tune": 0.0,
                "energy_j_probe": 0.0,
            }
            for release, payload, down, steps, delta in nights
        ]
    )


ARMS = {
    "tuned": rows((0, "full", 4e6, 5, 1e5), (0, "none", 0, 0, 0), (1, "delta", 1e6, 5, 3e5)),
    # with its release it received a fleet patch of 2 kB
    "warm": rows((0, "full", 4e6 + 2e3, 5, 2e5)),
    "never": rows((0, "full", 4e6, 0, 0)),
}


def test_a_whole_release_is_what_a_device_received_in_full() -> None:
    sizes = release_bytes(ARMS).sort("release")
    assert sizes.rows() == [(0, 4e6), (1, 4e6)]


def test_deltas_beside_whole_releases_by_hand() -> None:
    columns, cells = exchange_cells(ARMS)
    assert columns == ["arm", "deltas", "sent", "as whole releases", "times fewer bytes"]
    assert cells == [
        ["tuned", "2", "0.4 MB", "8 MB", "20.0"],
        ["warm", "1", "0.2 MB", "4 MB", "20.0"],
    ]


def test_where_no_release_was_ever_received_in_full_nothing_is_said() -> None:
    assert exchange_cells({"a": rows((0, "none", 0, 5, 1e5))})[1] == []


def test_refusals_are_counted_by_arm_and_reason_over_all_nights_by_hand() -> None:
    nights = {"arm": ["a", "b", "a", "b"], "round": [0, 0, 1, 1]}
    assert refused_cells(pl.DataFrame(nights)) == (["arm", "reason", "refused"], [])
    refused = {"rejected_not_finite": [3, 0, 4, 0], "rejected_bad_digest": [0, 0, 0, 1200]}
    _, cells = refused_cells(pl.DataFrame({**nights, **refused}))
    assert cells == [["a", "not finite", "7"], ["b", "bad digest", "1,200"]]
