"""A server's state is the same after JSON, and another schema is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from fleettune.adapters.patch import Factors, Patch
from fleettune.shapes import Site
from strategies.releases.publisher import ReleaseRecord
from strategies.rounds.arm_state import ArmState, add_round
from strategies.rounds.checkpoint import ServerState, read_server_state, write_server_state
from strategies.rounds.sums import sum_replies
from tests.strategies.rounds.test_sums import reply


def test_a_server_state_comes_back_and_another_schema_is_refused() -> None:
    running = sum_replies("ab", iter([reply(0, "a", 0.1), reply(0, "b", 0.2)]))
    running["a"].rejected["unreadable"] = 1
    factors = Factors(a=np.full((1, 1), 3.0, np.float32), b=np.ones((1, 1), np.float32))
    fleet = Patch(release=0, alpha=1.0, factors={Site(0, "q"): factors})
    arms = {arm: add_round(ArmState(), entry, 0, 0) for arm, entry in running.items()}
    state = ServerState(
        seed=3,
        round=0,
        arms={**arms, "b": replace(arms["b"], fleet=fleet)},
        releases=(ReleaseRecord(round=0, digest="d"),),
        catalogue={},
    )
    plain = json.loads(json.dumps(write_server_state(state)))
    found = read_server_state(plain)
    assert replace(found, arms=arms) == replace(state, arms=arms)
    assert found.arms["a"] == arms["a"]
    assert found.arms["a"].sums[0].rejected == {"unreadable": 1}
    assert found.arms["b"].fleet is not None
    assert found.arms["b"].fleet.digest() == fleet.digest()
    with pytest.raises(ValueError, match="server state must have schema 2, got 1"):
        read_server_state({**plain, "schema": 1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fleets": {"a": 3}}, "frame in base64"),
        ({"fleets": {"a": "AAA"}}, "frame in base64"),
        ({"fleets": []}, "fleet patch of every arm"),
        ({"state": []}, "server state must be one of"),
        ({"state": {"type": "Counts"}}, "server state"),
    ],
)
def test_a_damaged_server_state_is_refused(change: dict[str, object], message: str) -> None:
    state = ServerState(seed=3, round=0, arms={}, releases=(), catalogue={})
    with pytest.raises(ValueError, match=message):
        read_server_state({**write_server_state(state), **change})
