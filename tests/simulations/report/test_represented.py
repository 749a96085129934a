"""The fleet that devices stand for: what it saves in a year, on how many devices that stands."""

from __future__ import annotations

from typing import Any

import pytest

from simulations.report.represented import describe_represented

Summary = dict[str, Any]
ARMS = ("always_retune", "edgetune")
STRATA = {"meizu": 3, "pixel": 61}


def total(joules: float, half: float | None, pooled: tuple[str, ...] = ()) -> Summary:
    ends = {
        "low": None if half is None else joules - half,
        "high": None if half is None else joules + half,
    }
    stands = {"represents": 10**7, "simulated": 64, "pooled": pooled, "strata": STRATA}
    return {"total": joules, **ends, **stands}


def summary_of(saved: Summary, *, qualifies: bool = True) -> Summary:
    """Ten nights of a fleet whose arms use 1,000 and 280 GJ, charged at an efficiency of 0.8."""
    sure = [0.1, 0.2] if qualifies else [-0.1, 0.2]
    arms: Summary = {}
    for name, joules in zip(ARMS, (50.0, 14.0), strict=True):
        ledgers = {"wall": {"joules": joules / 0.8}, "device_total": {"joules": joules}}
        saving = {"mean": 0.72 if qualifies else None, "ci95_both": sure}
        arms[name] = {
            "energy_j": {"ledgers": ledgers},
            "vs_reference": {
                "reference": ARMS[0],
                "energy_saving": saving,
                "quality_difference": {"mean": 0.0, "ci95": [-0.01, 0.01]},
            },
        }
    fleets = {
        ARMS[0]: {"energy_j": total(1e12, 1e11)},
        ARMS[1]: {"energy_j": total(0.28e12, 0.28e11), "energy_j_saved": saved},
    }
    return {"arms": arms, "run": {"rounds": 10}, "represents": fleets, "country": "DEU"}


def test_a_saving_is_said_in_joules_and_for_a_year_at_the_wall() -> None:
    # 720 GJ / 0.8 * 36.5 = 32,850 GJ = 9.125 GWh; at 380.95 g/kWh that is 3,476 t
    assert describe_represented(summary_of(total(0.72e12, 0.036e12))) == (
        "10,000,000 such devices use 1,000 GJ [900 GJ, 1,100 GJ] with always_retune and 280 GJ "
        "[252 GJ, 308 GJ] with edgetune in 10 nights (simulated; 95 % over the devices drawn): "
        "720 GJ [684 GJ, 756 GJ] less. A year of such nights is 9.12 GWh less at the wall, or "
        "3,476 t CO2e (Germany, 381 g/kWh). This stands on 64 devices in 2 strata, of which the "
        "smallest (meizu) has 3. What is saved is known to 5 %."
    )


@pytest.mark.parametrize(
    ("half", "told"),
    [
        # width falls with the root: 64 * (0.2 / 0.1)^2
        (0.144e12, "What is saved is known to 20 %; about 260 devices would bring that to 10 %."),
        # 64 * 1.5^2 = 144 devices bring the interval off zero
        (1.08e12, "not shown by so few: about 150 devices would show a difference of this size."),
    ],
)
def test_a_fleet_too_small_for_its_claim_is_told_the_size_that_would_do(
    half: float, told: str
) -> None:
    sentence = describe_represented(summary_of(total(0.72e12, half)))
    assert sentence is not None
    assert sentence.endswith(told)


def test_more_energy_is_said_to_be_more() -> None:
    sentence = describe_represented(summary_of(total(-0.1e12, 0.01e12)))
    assert sentence is not None
    assert "100 GJ [90.0 GJ, 110 GJ] more." in sentence


def test_classes_that_were_pooled_are_named_and_one_device_has_no_error() -> None:
    pooled = summary_of(total(0.72e12, None))
    pooled["represents"][ARMS[0]]["energy_j"] = total(1e12, None, pooled=("mate", "nova"))
    sentence = describe_represented(pooled)
    assert sentence is not None
    assert "too few to stand alone, and so taken together: mate, nova." in sentence
    assert sentence.endswith("simulate at least 2.")


def test_without_an_arm_that_qualifies_only_the_reference_is_told() -> None:
    summary = summary_of(total(0.72e12, 0.036e12), qualifies=False)
    sentence = describe_represented(summary)
    assert sentence is not None
    assert "edgetune" not in sentence
    assert describe_represented({**summary, "represents": None}) is None
