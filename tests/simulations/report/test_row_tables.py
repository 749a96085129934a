"""What leaves the devices, what is refused of it and what a catalogue saved, by hand."""

from __future__ import annotations

import polars as pl

from fleettune.messages.flower_records import STATISTICS_BYTES
from simulations.report.row_tables import (
    size_releases,
    tabulate_refused,
    tabulate_sent,
    tabulate_starts,
)
from tests.simulations.started_rows import rows as made_up


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
    sizes = size_releases(ARMS).sort("release")
    assert sizes.rows() == [(0, 4e6), (1, 4e6)]


def test_deltas_beside_whole_releases_by_hand() -> None:
    tuned, warm = tabulate_sent(ARMS)
    assert tuned == {
        "arm": "tuned",
        "deltas": "2",
        "sent": "0.4 MB",
        "as whole releases": "8 MB",
        "times fewer bytes": "20.0",
    }
    assert list(warm.values()) == ["warm", "1", "0.2 MB", "4 MB", "20.0"]


def test_where_no_release_was_ever_received_in_full_nothing_is_said() -> None:
    assert tabulate_sent({"a": rows((0, "none", 0, 5, 1e5))}) == []


def test_refusals_are_counted_by_arm_and_reason_over_all_nights_by_hand() -> None:
    nights = {"arm": ["a", "b", "a", "b"], "round": [0, 0, 1, 1]}
    assert tabulate_refused(pl.DataFrame(nights)) == []
    refused = {"rejected_not_finite": [3, 0, 4, 0], "rejected_bad_digest": [0, 0, 0, 1200]}
    assert tabulate_refused(pl.DataFrame({**nights, **refused})) == [
        {"arm": "a", "reason": "not finite", "refused": "7"},
        {"arm": "b", "reason": "bad digest", "refused": "1,200"},
    ]


def test_what_a_catalogue_saved_is_a_row_per_arm_and_for_those_who_joined() -> None:
    tuned = {"tune_steps": [4, 4], "energy_j_tune": [8.0, 8.0], "nll": [1.0, 1.0]}
    warm = {**tuned, "energy_j_tune": [2.0, 2.0], "nll": [0.5, 0.5]}
    found = {
        name: made_up(name, **of, start_entries=[n, n], start_nll=[2.0, 2.0], start_j=[j, j])
        for name, of, n, j in (("scratch", tuned, 0, 0.0), ("warm", warm, 1, 1.0))
    }
    # both tuned in round 3; device 1 alone was there in the first round
    early = made_up("warm", **{k: v[:1] for k, v in warm.items()}).with_columns(
        pl.lit(0).cast(pl.Int64).alias("round"), pl.lit(1).cast(pl.UInt32).alias("device")
    )
    found["warm"] = pl.concat([early, found["warm"]], how="diagonal")
    told = tabulate_starts(found, "scratch")
    assert [(row["arm"], row["devices"], row["first tunes"]) for row in told[:2]] == [
        ("scratch", "all", "2"),
        ("scratch", "joined", "2"),
    ]
    all_warm, joined = (row for row in told if row["arm"] == "warm")
    assert (all_warm["first tunes"], joined["first tunes"]) == ("2", "1")
    # 8 joules of the reference's tune less 2 of this one's and 1 of finding it
    assert all_warm["joules saved per device [95 %]"].startswith("5")
    assert all_warm["nats against the reference [95 %]"].startswith("-0.500")
