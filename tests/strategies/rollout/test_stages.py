"""Stages: a cohort first, then everybody or nobody else; no device is ever told to go back."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleettune.records import from_record, to_record
from strategies.learning.decision_reports import DecisionReport
from strategies.learning.decision_sums import Tally, collect_statistics
from strategies.rollout.forecast import Forecast
from strategies.rollout.intervals import Interval
from strategies.rollout.rules import RolloutDecision, Staged, Unstaged, check_staging
from strategies.rollout.stages import (
    ArmRollout,
    JudgedRelease,
    StagedRelease,
    add_reports,
    assign_versions,
    cohort_of,
    rollout_rows,
    step_rollout,
)

NODES = tuple(range(100, 140))
STAGED = Staged(
    share=0.02,
    least=8,
    retune_rate=None,
    energy_j=None,
    down_bytes=None,
    widest=None,
    excess=1.0,
    cohort_retunes=False,
)
DEAR, CHEAP = 100.0, 1.0


def report(version: int, node: int, energy_j: float = CHEAP) -> DecisionReport:
    """A device that reuses, of one of two classes; every tenth retunes."""
    retunes = node % 10 == 0
    return DecisionReport(
        release=version,
        device_class=("phone", "watch")[node % 2],
        decision="retune" if retunes else "reuse",
        propensity=float(retunes),
        energy_j=energy_j * (1 + node % 3 / 100),
        retune_j=energy_j / 2 if retunes else 0.0,
        down_bytes=1000.0,
    )


TYPES = {
    cls.__name__: cls
    for cls in (
        *(ArmRollout, StagedRelease, JudgedRelease),
        *(RolloutDecision, Forecast, Interval, DecisionReport),
    )
}


class Server:
    """An arm's nights: every device takes what it is told of and reports it once."""

    def __init__(self, staged: Staged, seed: int = 0) -> None:
        self.staged, self.seed = staged, seed
        self.rollout = ArmRollout()
        self.tally = Tally()
        self.held: dict[int, int] = {}

    def night(self, version: int, number: int, energy_j: float = CHEAP, seed: int = 0) -> None:
        self.rollout = step_rollout(
            self.rollout, self.staged, len(NODES), (version, number), self.tally
        )
        told = assign_versions(self.rollout, NODES, self.seed)
        now = {node: told.of(node) for node in NODES}
        assert set(now.values()) <= set(told.versions)
        forward = all(now[node] >= self.held.get(node, 0) for node in NODES)
        assert forward or self.staged.recalls, "nobody goes back"
        news = [node for node in NODES if self.held.get(node) != now[node]]
        reports = [report(now[node], node, energy_j) for node in news]
        self.held = now
        self.tally += collect_statistics(reports).tally
        order = np.random.default_rng(seed).permutation(len(reports))
        self.rollout = add_reports(self.rollout, [reports[int(place)] for place in order])

    def having(self, version: int) -> int:
        return sum(held == version for held in self.held.values())

    def rows(self) -> list[dict[str, object]]:
        return rollout_rows(self.rollout, self.tally)


def test_a_cohort_gets_a_release_one_night_before_the_others() -> None:
    server = Server(STAGED)
    for number, version, having in ((0, 0, 40), (1, 0, 40), (2, 1, 8), (3, 1, 40)):
        server.night(version, number)
        assert server.having(version) == having
    rate, energy, down = server.rows()
    assert [row["action"] for row in (rate, energy, down)] == ["release"] * 3
    assert (rate["sampled"], rate["devices"], rate["outcome"]) == (8, 40, 0.1)
    assert down["value"] == down["outcome"] == 40_000.0
    # 40 J and up to 2 % more, to the microjoule
    assert energy["outcome"] == pytest.approx(sum(1 + n % 3 / 100 for n in NODES), abs=1e-4)
    assert energy["covered"]


def test_a_release_that_may_exceed_its_budget_is_held_for_cohorts_of_twice_the_size() -> None:
    server = Server(replace(STAGED, retune_rate=0.1))
    server.night(0, 0)
    having: list[int] = []
    for number in range(1, 5):
        server.night(1, number)
        having.append(server.having(1))
    # the whole fleet in the end, of which a tenth retunes
    assert having == [8, 16, 32, 40]
    assert [row["action"] for row in server.rows()[::3]] == ["hold"] * 3


def test_a_release_beyond_its_budget_reaches_nobody_else_until_the_next_one() -> None:
    server = Server(replace(STAGED, energy_j=60.0))
    server.night(0, 0)
    for number in range(1, 4):
        server.night(1, number, DEAR)
        assert (server.having(0), server.having(1)) == (32, 8)
    (first, *_), (outcome, *_) = server.rows(), [row["outcome"] for row in server.rows()]
    assert (first["action"], first["reasons"]) == ("roll_back", "energy_j_exceeds_budget")
    assert outcome is None  # not everybody got it
    server.night(2, 4)
    assert server.having(2) == 8
    assert server.having(0) + server.having(1) == 32
    for number in range(5, 9):  # held at first: retunes were dear so far
        server.night(2, number)
    assert server.having(2) == 40


def test_a_recalled_release_leaves_its_cohort_and_is_not_tried_again() -> None:
    server = Server(replace(STAGED, energy_j=60.0, recalls=True))
    server.night(0, 0)
    server.night(1, 1, DEAR)
    assert (server.having(0), server.having(1)) == (32, 8)
    for number in range(2, 4):
        server.night(1, number)
        assert (server.having(0), server.having(1)) == (40, 0)
    server.night(2, 4)
    assert (server.having(0), server.having(2)) == (32, 8)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 99),
    dear=st.lists(st.booleans(), min_size=9, max_size=9),
    every=st.integers(1, 3),
    rate=st.sampled_from([None, 0.05, 0.2]),
)
def test_no_device_is_ever_told_of_an_older_release_than_it_holds(
    seed: int, dear: list[bool], every: int, rate: float | None
) -> None:
    server = Server(replace(STAGED, energy_j=60.0, retune_rate=rate), seed)
    for number, is_dear in enumerate(dear):
        before = dict(server.held)
        server.night(number // every, number, DEAR if is_dear else CHEAP)
        assert all(server.held[node] >= held for node, held in before.items())


def test_a_larger_cohort_holds_the_smaller_one_and_every_release_draws_its_own() -> None:
    small, large = (cohort_of(NODES, StagedRelease(version=1, size=size), 0) for size in (8, 16))
    assert (len(small), len(large)) == (8, 16)
    assert small < large
    assert small == cohort_of(NODES[::-1], StagedRelease(version=1, size=8), 0)
    assert small != cohort_of(NODES, StagedRelease(version=2, size=8), 0)
    assert small != cohort_of(NODES, StagedRelease(version=1, size=8), 1)


def test_the_order_of_replies_and_a_restart_change_nothing() -> None:
    staged = replace(STAGED, retune_rate=0.1)
    whole, other = Server(staged), Server(staged)
    for number in range(3):
        whole.night(min(number, 1), number, seed=1)
        other.night(min(number, 1), number, seed=2)
    assert to_record(whole.rollout) == to_record(other.rollout)
    plain = json.loads(json.dumps(to_record(whole.rollout)))
    assert plain["judged"][0]["decision"]["action"] == "hold"
    other.rollout = from_record(plain, TYPES, "rollout")
    assert other.rollout == whole.rollout
    for server in (whole, other):
        server.night(1, 3)
    assert whole.held == other.held
    assert whole.rows() == other.rows()


@pytest.mark.parametrize(
    ("every", "fleet_patch", "message"),
    [
        (1, "none", "rollout=staged needs release.every >= 2 nights, got 1"),
        (2, "start", "rollout=staged needs fleet_patch=none, got start"),
    ],
)
def test_stages_that_do_not_fit_are_refused(every: int, fleet_patch: str, message: str) -> None:
    check_staging(Unstaged(), every, fleet_patch)
    with pytest.raises(ValueError, match=message):
        check_staging(STAGED, every, fleet_patch)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"least": 7}, "least must be >= 8 devices, got 7"),
        ({"share": 0.0}, "share of a first cohort must be > 0 and <= 1, got 0.0"),
        ({"retune_rate": 1.5}, "budget retune_rate must be <= 1, got 1.5"),
        ({"widest": 1.0}, "widest must be between 0 and 1, got 1.0"),
        ({"excess": 0.5}, "excess must be finite and >= 1 budget, got 0.5"),
    ],
)
def test_settings_out_of_range_are_refused(changed: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(STAGED, **changed)  # pyright: ignore[reportArgumentType] - fields by name
