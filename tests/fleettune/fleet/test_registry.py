"""The registry: what a run writes of its fleet is what every device reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleettune.cost.hardware import FleetMix, load_hardware
from fleettune.cost.pricing import PricedModel
from fleettune.cost.radio import Link, read_link
from fleettune.data.personas import SyntheticData
from fleettune.fleet.availability import Nightly
from fleettune.fleet.joining import Join, Joining
from fleettune.fleet.registry import CounterfactualSettings, Fleet, open_fleet
from fleettune.messages.report import Writing

HARDWARE = load_hardware(Path(__file__).parents[3] / "conf" / "hardware")
MIX = FleetMix(name="fleet", parts=tuple((profile, 2.5) for profile in HARDWARE.values()))
PLAIN = Fleet(seed=3, mix=MIX, data=SyntheticData())
COEFFICIENT = [2.0, 1.0, 3.0, "E", "a guess"]
NAMES = ("rx_w", "tx_w", "down_j_per_mb", "up_j_per_mb", "down_mbps", "up_mbps", "rtt_s", "tail_j")
HABITS = ("charging", "wifi", "flaky", "interruption", "starved", "soc", "soc_spread", "soc_jitter")
HOURS = ("start", "length")
SPREADS = [f"{name}{what}_h" for name in HOURS for what in ("", "_spread", "_jitter")]


def mobile() -> Link:
    link = read_link(
        {"_target_": "fleettune.cost.cellular", "name": "lte"} | dict.fromkeys(NAMES, COEFFICIENT)
    )
    assert isinstance(link, Link)
    return link


FULL = Fleet(
    seed=3,
    mix=MIX,
    data=SyntheticData(null=True),
    installed=("mine.Rule",),
    priced=PricedModel(model="llama-3.2-1b", tokens_ratio=0.78),
    radio=mobile(),
    availability=Nightly(
        **dict.fromkeys([*HABITS, *SPREADS, "interruption_h", "starved_soc"], 0.5)
    ),
    floor=0.3,
    deadline_s=3600.0,
    writing=Writing(answers=2),
    counterfactual=CounterfactualSettings(arms=("a",), days=2),
    joining=Joining(devices=8, parts=(Join(round=2, share=0.25),)),
)


@pytest.mark.parametrize("fleet", [PLAIN, FULL], ids=["by default", "every field"])
def test_a_device_reads_the_fleet_that_a_run_wrote(fleet: Fleet, tmp_path: Path) -> None:
    fleet.write(tmp_path / "fleet.json")
    known = open_fleet(tmp_path / "fleet.json")
    assert known.fleet == fleet
    assert known.fleet.profile(5) == fleet.profile(5)


def test_a_fleet_with_a_field_too_many_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "fleet.json"
    PLAIN.write(file)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"owner": "me"}))
    with pytest.raises(ValueError, match=r"fleet\.owner is not a known key"):
        open_fleet(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON in UTF-8"),
        ("[]", "fleet must be one of"),
        ('{"type": "Always", "hours": 1, "soc": 1}', "fleet"),
        ('{"type": "Writing"}', "must describe a Fleet, got Writing"),
    ],
)
def test_a_file_that_is_no_fleet_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "fleet.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        open_fleet(tmp_path / "fleet.json")


def test_a_fleet_of_a_seed_below_zero_is_refused(tmp_path: Path) -> None:
    PLAIN.write(tmp_path / "fleet.json")
    told = json.loads((tmp_path / "fleet.json").read_text()) | {"seed": -1}
    (tmp_path / "fleet.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match="seed must be >= 0, got -1"):
        open_fleet(tmp_path / "fleet.json").fleet.profile(0)
