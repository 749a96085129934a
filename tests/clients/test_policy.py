"""Policy: choices cross the wire as data; no message makes a device import anything."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from clients.adaptation.baselines import Oracle, Periodic, PerRelease, RandomAtRate
from clients.adaptation.canary import Canary
from clients.adaptation.copying import CopyNearest
from clients.adaptation.edgetune import EdgeTune
from clients.adaptation.rules import AlwaysReuse, EdgeTuneReleased, Retrieve, Swapped, UserPrior
from clients.placement.rules import EverySite, TopLayers
from clients.policy import DevicePolicy, Quota, read_policy
from clients.selection.rules import Fifo, Reservoir
from clients.synthesis.rules import NoSynthesis
from clients.tuning.schedule import Tuning
from fleettune.records import to_record

POLICY = DevicePolicy(
    selection=Fifo(),
    synthesis=NoSynthesis(),
    adaptation=EdgeTuneReleased(kappa=0.5, k_var=0.25),
    placement=TopLayers(layers=2, rank=4, alpha=8.0),
    tuning=Tuning(steps=2, batch=2, learning_rate=1e-3, clip=1.0),
    quota=Quota(buffer_bytes=100, total_bytes=200),
)
OTHER = DevicePolicy(
    selection=Reservoir(),
    synthesis=NoSynthesis(),
    adaptation=Retrieve(neighbours=3),
    placement=EverySite(rank=1, alpha=1.0),
    tuning=POLICY.tuning,
    quota=POLICY.quota,
)
NEVER_IMPORTED = "antigravity"
"""A module of the standard library that opens a browser when it is imported."""


def sent(policy: DevicePolicy, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """The policy's record as it arrives, through JSON, with fields overwritten."""
    return {**json.loads(json.dumps(to_record(policy))), **changes}


@pytest.mark.parametrize("policy", [POLICY, OTHER], ids=["edgetune", "retrieve"])
def test_a_policy_survives_the_wire(policy: DevicePolicy) -> None:
    assert read_policy(sent(policy)) == policy


def test_every_rule_of_adaptation_survives_the_wire() -> None:
    rules = (
        AlwaysReuse(),
        UserPrior(smoothing=0.5),
        CopyNearest(nearest="embedding", edit=False),
        Swapped(),
        Canary(share=0.2, most=4, margin=0.1, paired=True),
        Periodic(every=2),
        RandomAtRate(rate=0.5),
        PerRelease(kappa=0.5, k_var=0.25, nominal_strength=1.0),
        Oracle(margin=0.0, days=1),
        EdgeTune(
            scope="projected",
            threshold="calibrated",
            kappa=0.5,
            k_var=0.25,
            canary=True,
            canary_share=0.2,
            canary_most=4,
            canary_paired=False,
            start="old",
        ),
    )
    for rule in rules:
        record = sent(POLICY, adaptation=to_record(rule))
        assert read_policy(record).adaptation == rule


def test_a_foreign_type_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"policy.adaptation must be one of .*, got 'Evil'"):
        read_policy(sent(POLICY, adaptation={"type": "Evil"}))


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValueError, match=r"policy.selection.size is not a known key"):
        read_policy(sent(POLICY, selection={"type": "Fifo", "size": 3}))


def test_a_field_of_another_type_is_refused() -> None:
    quota = {"type": "Quota", "buffer_bytes": "many", "total_bytes": 3}
    with pytest.raises(ValueError, match=r"quota.buffer_bytes must be a whole number, got 'many'"):
        read_policy(sent(POLICY, quota=quota))


def test_a_known_type_in_the_wrong_place_is_refused() -> None:
    with pytest.raises(ValueError, match=r"adaptation must be .*Adaptation.*, got Fifo"):
        read_policy(sent(POLICY, adaptation={"type": "Fifo"}))


@pytest.mark.parametrize(
    "record",
    [
        {"_target_": f"{NEVER_IMPORTED}.fly"},
        {"type": f"{NEVER_IMPORTED}.fly"},
        {"type": "Fifo", "_target_": f"{NEVER_IMPORTED}.fly"},
        f"{NEVER_IMPORTED}.fly",
    ],
    ids=["target", "dotted type", "target beside a type", "text"],
)
@pytest.mark.parametrize("field", ["selection", "adaptation", "placement", "synthesis"])
def test_a_path_in_a_message_imports_nothing(field: str, record: object) -> None:
    assert NEVER_IMPORTED not in sys.modules
    with pytest.raises(ValueError, match=field):
        read_policy(sent(POLICY, **{field: record}))
    assert NEVER_IMPORTED not in sys.modules


def test_a_whole_policy_by_target_is_refused() -> None:
    with pytest.raises(ValueError, match="policy must be one of"):
        read_policy({"_target_": f"{NEVER_IMPORTED}.fly"})
    assert NEVER_IMPORTED not in sys.modules


FOREIGN = """
from dataclasses import dataclass

from clients.adaptation.rules import Action, Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class {name}:
    patience: int

    def decide(self, release, patch):
        return Decision(action=Action.REUSE, reason="stubborn")
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str) -> str:
    (folder / f"{module}.py").write_text(FOREIGN.format(name=name))
    monkeypatch.syspath_prepend(folder)
    return f"{module}.{name}"


def test_what_the_operator_installed_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = install(tmp_path, monkeypatch, "operators_policies", "Stubborn")
    record = sent(POLICY, adaptation={"type": "Stubborn", "patience": 3})
    with pytest.raises(ValueError, match="got 'Stubborn'"):
        read_policy(record)
    found = read_policy(record, installed=[path])
    assert type(found.adaptation).__module__ == "operators_policies"


def test_an_installed_name_never_takes_the_place_of_a_built_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = install(tmp_path, monkeypatch, "clashing_policies", "AlwaysReuse")
    with pytest.raises(ValueError, match=r"clashing_policies.AlwaysReuse.*another name"):
        read_policy(sent(POLICY), installed=[path])


@pytest.mark.parametrize("path", ["no_such_module.X", "clients.policy.NoSuchClass", "bare"])
def test_an_installed_path_that_cannot_be_imported_is_named(path: str) -> None:
    with pytest.raises(ValueError, match=f"installed policy '{path}' cannot be imported"):
        read_policy(sent(POLICY), installed=[path])


def test_quotas_that_hold_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="buffer_bytes must be >= 1 byte, got 0"):
        Quota(buffer_bytes=0, total_bytes=10)
    with pytest.raises(ValueError, match=r"total_bytes must be >= .*\(20 bytes\), got 10"):
        Quota(buffer_bytes=20, total_bytes=10)
