"""The summary is a fold that ignores row order, and its numbers can be worked out by hand."""

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from rich.console import Console
from scipy.special import stdtrit

from simulations.report.summary_tables import tabulate_details, tabulate_headline
from simulations.report.terminal_tables import make_headline_table, make_table
from simulations.results.device_means import STAGES, split_arms
from simulations.results.extrapolation import extrapolate_arms
from simulations.results.summary import RunInfo

Summary = dict[str, Any]
SummaryOf = Callable[..., Summary]


def info(metric: str = "exact_match", reference: str = "always_retune", seed: int = 3) -> RunInfo:
    return RunInfo(
        seed=seed,
        devices=2,
        rounds=2,
        releases=1,
        engine="ray",
        backbone="pocket",
        data="personas",
        quality_metric=metric,
        reference=reference,
        coefficients={"M": 2, "E": 1},
        priced_as="own",
    )


def row(arm: str, device: int, round_: int, energy_j: float, match: float | None) -> dict[str, Any]:
    """A row whose joules are spent on tuning alone."""
    facts = {"arm": arm, "device": device, "round": round_, "decision": "retune"}
    facts |= {"profile": "mid_phone", "attendance": "present", "arrived": 5}
    quality = {"nll": None, "exact_match": match, "approval": None, "mae": 2.0, "rouge1": None}
    stages = {f"energy_j_{stage}": energy_j * (stage == "tune") for stage in STAGES}
    sent = {"down_bytes": 10.0, "up_bytes": 1.0}
    times = {"time_s": 3.0, "start_s": 10.0 * device, "night_s": 3.0}
    return {**facts, **quality, "energy_j": energy_j, **times, **stages, **sent}


def small() -> pl.DataFrame:
    """Two devices, two rounds: retuning spends 10, 10, 30, 50 J and the cheap arm 4, 6, 20, 20 J.

    Reference quality: device 0 has (0.5 + 0.7) / 2 = 0.6, device 1 has 0.9 in its one evaluation.
    Cheap quality: device 0 has 0.5, device 1 has 0.9.
    """
    schema = {"nll": pl.Null, "approval": pl.Null}
    records = [
        row("always_retune", 0, 0, 10.0, 0.5),
        row("always_retune", 0, 1, 10.0, 0.7),
        row("always_retune", 1, 0, 30.0, 0.9),
        row("always_retune", 1, 1, 50.0, None),
        row("cheap", 0, 0, 4.0, 0.5),
        row("cheap", 0, 1, 6.0, 0.5),
        row("cheap", 1, 0, 20.0, 0.9),
        row("cheap", 1, 1, 20.0, math.nan),
    ]
    return pl.DataFrame(records, schema_overrides=schema)


def leaves(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    else:
        yield value


def test_joules_bytes_and_seconds_are_sums(summary_of: SummaryOf) -> None:
    arms = summary_of(small(), info())["arms"]
    assert arms["always_retune"]["energy_j"]["total"] == 100.0  # 10 + 10 + 30 + 50
    assert arms["cheap"]["energy_j"]["total"] == 50.0  # 4 + 6 + 20 + 20
    assert arms["cheap"]["energy_j"]["by_stage"] == {s: 50.0 * (s == "tune") for s in STAGES}
    assert arms["cheap"]["bytes"] == {"down": 40.0, "up": 4.0}
    assert arms["cheap"]["simulated_time_s"] == 12.0
    assert arms["cheap"]["counts"]["retune"] == 4


def test_saving_is_one_minus_the_ratio_of_sums(summary_of: SummaryOf) -> None:
    saving = summary_of(small(), info())["arms"]["cheap"]["vs_reference"]["energy_saving"]
    assert saving["mean"] == 0.5  # 1 - 50 / 100, not the mean of 1 - 10/20 and 1 - 40/80
    assert saving["ci95"] == [0.5, 0.5]  # both devices save exactly half, whatever is resampled


def test_saving_uses_only_devices_that_both_arms_have(summary_of: SummaryOf) -> None:
    only_first = small().filter((pl.col("arm") != "cheap") | (pl.col("device") == 0))
    saving = summary_of(only_first, info())["arms"]["cheap"]["vs_reference"]["energy_saving"]
    assert saving["mean"] == 0.5  # 1 - 10 / 20
    assert saving["ci95"] == saving["ci95_both"] == [None, None]  # one device, no interval
    assert saving["ci95_coefficients"] == pytest.approx([0.5, 0.5])


def test_quality_is_a_mean_over_devices_of_means_over_rounds(summary_of: SummaryOf) -> None:
    arms = summary_of(small(), info())["arms"]
    assert arms["always_retune"]["quality"]["mean"] == pytest.approx(0.75)  # (0.6 + 0.9) / 2
    assert arms["cheap"]["quality"]["exact_match"] == pytest.approx(0.7)  # (0.5 + 0.9) / 2
    difference = arms["cheap"]["vs_reference"]["quality_difference"]
    assert difference["mean"] == pytest.approx(-0.05)  # (-0.1 + 0) / 2
    assert difference["ci95"] == [pytest.approx(-0.1), 0.0]  # each device drawn twice is likely


def test_a_metric_where_less_is_better_is_negated(summary_of: SummaryOf) -> None:
    quality = summary_of(small(), info("neg_mae"))["arms"]["cheap"]["quality"]
    assert (quality["mean"], quality["mae"]) == (-2.0, 2.0)


def test_the_reference_differs_from_itself_by_nothing(summary_of: SummaryOf) -> None:
    versus = summary_of(small(), info())["arms"]["always_retune"]["vs_reference"]
    saving = versus["energy_saving"]
    kinds = ("ci95", "ci95_coefficients", "ci95_both")
    assert saving["mean"] == 0.0
    assert all(saving[kind] == [0.0, 0.0] for kind in kinds)
    assert versus["quality_difference"] == {"mean": 0.0, "ci95": [0.0, 0.0]}


def test_row_order_changes_nothing(summary_of: SummaryOf, rows: pl.DataFrame) -> None:
    expected = json.dumps(summary_of(rows, info()))
    for seed in range(3):
        shuffled = rows.sample(fraction=1.0, shuffle=True, seed=seed)
        assert json.dumps(summary_of(shuffled, info())) == expected


def test_another_arm_changes_no_number_of_the_others(
    summary_of: SummaryOf, rows: pl.DataFrame
) -> None:
    fewer = summary_of(rows.filter(pl.col("arm") != "always_reuse"), info())["arms"]
    every = summary_of(rows, info())["arms"]
    assert fewer == {arm: every[arm] for arm in fewer}


def test_intervals_hold_their_mean_and_depend_on_the_seed(
    summary_of: SummaryOf, rows: pl.DataFrame
) -> None:
    first = summary_of(rows, info())["arms"]["edgetune_released"]["quality"]
    other = summary_of(rows, info(seed=4))["arms"]["edgetune_released"]["quality"]
    assert first["ci95"][0] < first["mean"] < first["ci95"][1]
    assert first["mean"] == other["mean"]
    assert first["ci95"] != other["ci95"]


def test_unknown_quantities_are_null_and_never_nan(summary_of: SummaryOf) -> None:
    holes = small().with_columns(
        pl.lit(None).alias("exact_match"), pl.lit(math.nan).alias("time_s"), up_bytes=math.inf
    )
    summary = summary_of(holes, info())
    json.dumps(summary, allow_nan=False)
    assert not any(isinstance(leaf, float) and math.isnan(leaf) for leaf in leaves(summary))
    assert summary["arms"]["cheap"]["quality"]["mean"] is None
    assert summary["arms"]["cheap"]["simulated_time_s"] is None


def test_the_schema_is_exact(summary_of: SummaryOf) -> None:
    summary = summary_of(small(), info())
    top = "schema run arms coefficients coefficient_shares monte_carlo host label"
    assert list(summary) == top.split()
    assert summary["schema"] == 3
    shared = "seed devices rounds releases engine backbone data priced_as host_seconds peak_rss_mb"
    assert list(summary["run"]) == shared.split()
    arm = summary["arms"]["cheap"]
    parts = "quality counts attendance by_class energy_j bytes simulated_time_s vs_reference"
    assert list(arm) == parts.split()
    quality = "metric mean ci95 nll exact_match approval mae rouge1"
    assert list(arm["quality"]) == quality.split()
    assert list(arm["counts"]) == ["reuse", "retune", "never", "infeasible", "failed"]
    joules = "total low high by_stage by_stage_range wasted_j ledgers"
    assert list(arm["energy_j"]) == joules.split()
    ledgers = "device_marginal device_total wall network server"
    assert list(arm["energy_j"]["ledgers"]) == ledgers.split()
    versus = "reference energy_saving quality_difference energy_saving_without_serving"
    assert list(arm["vs_reference"]) == [*versus.split(), "share_flipped", "by_class", "by_data"]
    assert summary["coefficients"] == {"M": 2, "F": 0, "S": 0, "V": 0, "E": 1}
    assert math.fsum(summary["coefficient_shares"].values()) == pytest.approx(1.0)
    assert summary["label"].startswith("joules and seconds are simulated, ")


def test_low_and_high_hold_the_total_and_are_those_of_its_ledger(
    summary_of: SummaryOf, rows: pl.DataFrame
) -> None:
    for arm in summary_of(rows, info())["arms"].values():
        joules, ledger = arm["energy_j"], arm["energy_j"]["ledgers"]["device_total"]
        assert joules["low"] < joules["total"] < joules["high"]
        assert (ledger["joules"], ledger["low"]) == (joules["total"], joules["low"])
        low, high = joules["by_stage_range"]["tune"]
        assert low < joules["by_stage"]["tune"] < high


def test_who_took_part_is_counted_by_arm_and_class(summary_of: SummaryOf) -> None:
    cheap, other = pl.col("arm") == "cheap", pl.col("device") == 1
    frame = small().with_columns(
        attendance=pl.when(cheap & other).then(pl.lit("absent")).otherwise(pl.lit("present")),
        energy_j_wasted=pl.when(cheap & ~other).then(2.0).otherwise(0.0),
    )
    arm = summary_of(frame, info())["arms"]["cheap"]
    nights = {"present": 2, "late": 0, "interrupted": 0, "absent": 2, "starved": 0}
    assert arm["attendance"] == nights
    assert arm["energy_j"]["wasted_j"]["total"] == 4.0
    assert arm["energy_j"]["wasted_j"]["low"] < 4.0 < arm["energy_j"]["wasted_j"]["high"]
    assert arm["by_class"] == {
        "mid_phone": {"devices": 2, **nights, "infeasible": 0, "wasted_j": 4.0}
    }


def test_errors_name_the_rule_and_the_value(summary_of: SummaryOf) -> None:
    with pytest.raises(ValueError, match=r"reference must be an arm .*'absent'"):
        summary_of(small(), info(reference="absent"))
    with pytest.raises(ValueError, match="8 are doubled"):
        summary_of(pl.concat([small(), small()]), info())
    with pytest.raises(ValueError, match=r"lack the columns \['energy_j_tune'\]"):
        split_arms(small().drop("energy_j_tune"))
    with pytest.raises(ValueError, match="quality_metric must be one of"):
        info("rouge")


def test_the_headline_puts_the_reference_first(summary_of: SummaryOf) -> None:
    summary = summary_of(small(), info(reference="cheap"))
    cheap, other = tabulate_headline(summary)
    assert (cheap["arm"], other["arm"]) == ("cheap", "always_retune")
    assert list(cheap) == list(other)
    assert re.fullmatch(r"0\.0500 E \([\d.]+ to [\d.]+\)", cheap["simulated kJ (low to high)"])
    assert cheap["exact match [95 %]"] == "70.0 % [50.0, 90.0]"
    assert (cheap["points against cheap [95 %]"], cheap["energy saved [95 %]"]) == ("reference", "")
    assert other["points against cheap [95 %]"] == "+5.0 [+0.0, +10.0]"
    assert other["energy saved [95 %]"] == "-100.0 % [-100.0, -100.0]"
    # both arms only tune: common draws cancel
    _, details = tabulate_details(summary)
    assert details["saving [95 % coefficients]"] == "-100.0 % [-100.0, -100.0]"
    assert details["scale"] == "scale-free"


def test_the_terminal_has_the_columns_of_the_pages_first_table(summary_of: SummaryOf) -> None:
    summary = summary_of(small(), info("neg_mae"))
    table = make_headline_table(summary)
    columns = ["arm", "negative mean absolute error [95 %]", "change against always_retune [95 %]"]
    columns += ["simulated kJ (low to high)", "energy saved [95 %]"]
    assert [str(column.header) for column in table.columns] == columns
    assert list(tabulate_headline(summary)[0]) == columns
    assert "Coefficient tiers M 2 F 0 S 0 V 0 E 1" in str(table.caption)


@pytest.mark.parametrize("width", [80, 100, 130])
def test_the_terminals_table_fits_and_breaks_no_number(width: int) -> None:
    row = {
        "arm": "never_personalise",
        "exact match of unseen answers [95 %]": "75.3 % [65.7, 83.9]",
        "points against always_retune [95 %]": "-73.7 [-82.1, -64.0]",
        "simulated kJ (low to high)": "1,991 E (1,584 to 3,934)",
        "energy saved [95 %]": "55.5 % [53.7, 56.8]",
    }
    console = Console(width=width)
    with console.capture() as capture:
        console.print(make_table([row], "caption", width=width))
    text = capture.get()
    assert max(map(len, text.splitlines())) <= width
    for whole in ("never_personalise", "55.5 %", "[53.7, 56.8]", "1,991 E", "(1,584 to 3,934)"):
        assert whole in text
    assert ("55.5 % [53.7, 56.8]" in text) == (width == 130)


def test_arms_stand_in_the_order_of_the_run_behind_the_reference(
    summary_of: SummaryOf, rows: pl.DataFrame
) -> None:
    given = ("never_personalise", "always_retune", "edgetune_released")
    summary = summary_of(rows, replace(info(), arms=given))
    shown = ["always_retune", "never_personalise", "edgetune_released", "always_reuse"]
    assert list(summary["arms"]) == shown
    assert [row["arm"] for row in tabulate_headline(summary)] == shown


def test_a_represented_fleet_has_its_devices_mean_as_many_times() -> None:
    # Retuning spends 20 J on device 0 and 80 J on device 1, the cheap arm 10 and 40 J.
    found = extrapolate_arms(small(), {"mid_phone": 1.0}, 1_000, "always_retune")
    assert found is not None
    assert found["always_retune"]["energy_j"]["total"] == pytest.approx(50 * 1_000)
    assert found["cheap"]["energy_j"]["total"] == pytest.approx(25 * 1_000)
    assert found["cheap"]["down_bytes"]["represents"] == 1_000
    # 10 and 40 J less on the two devices: the error is that of the pairs, not of the arms
    saved = found["cheap"]["energy_j_saved"]
    half = stdtrit(1, 0.975) * 1_000 * math.sqrt((1 - 2 / 1_000) * 450 / 2)
    assert saved["total"] == pytest.approx(25 * 1_000)
    assert (saved["low"], saved["high"]) == pytest.approx((25_000 - half, 25_000 + half))
    assert saved["strata"] == {"mid_phone": 2}
    assert "energy_j_saved" not in found["always_retune"]
    assert extrapolate_arms(small(), {"mid_phone": 1.0}, None, "always_retune") is None


def test_serving_is_taken_off_both_arms(summary_of: SummaryOf) -> None:
    served = small().with_columns(pl.col("energy_j") + 100.0, pl.lit(100.0).alias("energy_j_serve"))
    versus = summary_of(served, info())["arms"]["cheap"]["vs_reference"]
    # 1 - 450 / 500 with four nights of 100 J each on both sides, 1 - 50 / 100 without
    assert versus["energy_saving"]["mean"] == pytest.approx(1 - 450 / 500)
    assert versus["energy_saving_without_serving"]["mean"] == pytest.approx(0.5)
