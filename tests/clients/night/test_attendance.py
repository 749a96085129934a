"""Nights that end early, late or not at all: what is kept, what is wasted, what is begun again."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clients.adaptation.rules import AlwaysRetune, EdgeTuneReleased
from clients.device import run_round
from clients.night.attendance import Attendance, Tonight
from clients.night.order import NightOrder
from clients.placement.rules import TopLayers
from clients.policy import DevicePolicy, Quota
from clients.selection.rules import Fifo
from clients.state.state import DeviceState
from clients.synthesis.rules import NoSynthesis
from clients.tuning.schedule import Tuning
from clients.work.facts import Facts
from fleettune.cohort.suspension import current_compute
from fleettune.cost.hardware import load_hardware
from fleettune.cost.ledger import Cost, Ledger, Stage
from fleettune.cost.pricing import PricedModel
from fleettune.cost.workload import Phase, Workload
from fleettune.data.personas import SyntheticData
from fleettune.messages.report import Report
from fleettune.releases.manifest import Manifest

PROFILE = load_hardware(Path(__file__).parents[3] / "conf" / "hardware")["oneplus_12r"]
WORLD = SyntheticData(users=10, exchanges_per_day=3, history_days=2).open()
POLICY = DevicePolicy(
    selection=Fifo(),
    synthesis=NoSynthesis(),
    adaptation=AlwaysRetune(),
    placement=TopLayers(layers=1, rank=1, alpha=2.0),
    tuning=Tuning(steps=2, batch=2, learning_rate=1e-2, clip=1.0),
    quota=Quota(buffer_bytes=100_000, total_bytes=4_000_000),
)
FACTS = Facts(
    device=3,
    user=3,
    seed=5,
    profile=PROFILE,
    priced=PricedModel(model="llama-3.2-1b", tokens_ratio=0.78),
)
Releases = tuple[Manifest, Manifest]


def live(
    release: Manifest,
    round_: int,
    state: DeviceState,
    tonight: Tonight | None = None,
    policy: DevicePolicy = POLICY,
) -> tuple[DeviceState, Report]:
    night = NightOrder(
        facts=FACTS,
        round=round_,
        release=release,
        policy=policy,
        population=WORLD,
        compute=current_compute(),
        tonight=tonight or Tonight(),
    )
    return run_round(night, state, observed=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A device with a patch before its second release, and that night when nothing disturbs it."""

    before: DeviceState
    after: DeviceState
    report: Report

    def seconds(self, stage: Stage) -> float:
        return self.report.statistics.ledger.of(stage).time_s

    def joules(self, stage: Stage) -> float:
        return self.report.statistics.ledger.of(stage).energy_j


@pytest.fixture(scope="module")
def whole(releases: Releases) -> Whole:
    before, _ = live(releases[0], 0, DeviceState())
    after, report = live(releases[1], 1, before)
    return Whole(before=before, after=after, report=report)


def digest(state: DeviceState) -> str:
    assert state.patch is not None
    return state.patch.digest()


def wasted(report: Report) -> Cost:
    return report.statistics.ledger.of(Stage.WASTED)


def test_a_download_cut_short_keeps_the_old_release_and_wastes_what_was_received(
    releases: Releases, whole: Whole
) -> None:
    # All of it takes: 20 ms and bytes at 50 Mbit/s, 1.32 W and a tail of 30 mJ, then 0.8 GB/s and
    # 4.5 W above idle.
    shapes = FACTS.priced.shapes(releases[1].shapes)
    size_bytes = 2 * shapes.parameters
    radio_s, write_s = 0.02 + size_bytes * 8 / 50e6, size_bytes / 0.8e9
    assert whole.seconds(Stage.DOWNLOAD) == pytest.approx(radio_s + write_s)
    limit_s = 0.25 * (radio_s + write_s)
    state, report = live(releases[1], 1, whole.before, Tonight(limit_s=limit_s))

    assert (state.release, state.settled) == (0, 0)
    assert digest(state) == digest(whole.before)
    assert report.delta is None
    outcome = report.statistics.outcome
    assert (outcome.attendance, outcome.release) == ("interrupted", 0)
    assert (outcome.decision, outcome.reason) == ("none", "interrupted")
    assert wasted(report).energy_j == pytest.approx(0.25 * (1.32 * radio_s + 0.03 + 4.5 * write_s))
    assert wasted(report).down_bytes == pytest.approx(0.25 * size_bytes)
    assert report.statistics.night_s == pytest.approx(limit_s)
    ledger = report.statistics.ledger
    assert {stage for stage, _ in ledger.costs} == {Stage.IDLE, Stage.SERVE, Stage.WASTED}
    awake_s = limit_s + whole.seconds(Stage.SERVE)
    assert ledger.of(Stage.IDLE).energy_j == pytest.approx(0.5 * awake_s)


def test_a_download_cut_short_begins_anew_the_next_night(releases: Releases, whole: Whole) -> None:
    limit_s = 0.9 * whole.seconds(Stage.DOWNLOAD)
    state, _ = live(releases[1], 1, whole.before, Tonight(limit_s=limit_s))
    state, report = live(releases[1], 2, state)
    assert report.statistics.outcome.decision == "retune"
    assert (state.release, state.settled) == (1, 1)
    again = report.statistics.ledger.of(Stage.DOWNLOAD)
    assert again == whole.report.statistics.ledger.of(Stage.DOWNLOAD)


def test_a_first_download_cut_short_leaves_a_device_that_nobody_can_observe(
    releases: Releases,
) -> None:
    state, report = live(releases[0], 0, DeviceState(), Tonight(limit_s=1e-6))
    assert (state.release, state.settled, state.patch) == (-1, -1, None)
    assert report.observation is not None
    assert report.observation.exchanges == 0
    assert state.last_day == 0


def test_a_tune_cut_short_keeps_the_old_patch_and_is_decided_again(
    releases: Releases, whole: Whole
) -> None:
    limit_s = whole.seconds(Stage.DOWNLOAD) + 0.5 * whole.seconds(Stage.TUNE)
    state, report = live(releases[1], 1, whole.before, Tonight(limit_s=limit_s))
    # the new release is there, with the patch of the old one, and nothing about it is settled
    assert (state.release, state.settled) == (1, 0)
    assert digest(state) == digest(whole.before)
    assert report.delta is None
    statistics = report.statistics
    outcome = statistics.outcome
    assert (outcome.attendance, outcome.decision) == ("interrupted", "none")
    assert (statistics.tune_steps, statistics.train_tokens) == (0, 0)
    # half of a tune's joules, seconds and FLOP, both passes alike
    full = whole.report.statistics.ledger.of(Stage.TUNE)
    assert wasted(report).energy_j == pytest.approx(0.5 * full.energy_j)
    assert wasted(report).time_s == pytest.approx(0.5 * full.time_s)
    assert wasted(report).work_flop == pytest.approx(0.5 * full.work_flop)
    assert statistics.ledger.of(Stage.TUNE) == Cost()
    assert statistics.ledger.of(Stage.UPLOAD) == Cost()
    assert statistics.ledger.of(Stage.DOWNLOAD).energy_j == whole.joules(Stage.DOWNLOAD)

    later, second = live(releases[1], 2, state)
    assert second.statistics.ledger.of(Stage.DOWNLOAD) == Cost()
    assert second.statistics.outcome.decision == "retune"
    assert second.statistics.tune_steps == 2
    assert later.settled == 1
    assert digest(later) != digest(state)
    assert second.delta is later.patch


def test_a_tune_cut_short_has_still_paid_its_check(releases: Releases, whole: Whole) -> None:
    chosen = replace(POLICY, adaptation=EdgeTuneReleased(kappa=1e-9, k_var=0.25))
    _, full = live(releases[1], 1, whole.before, policy=chosen)
    ledger = full.statistics.ledger
    assert full.statistics.outcome.decision == "retune"
    checked_s = ledger.of(Stage.DOWNLOAD).time_s + ledger.of(Stage.CHECK).time_s
    limit_s = checked_s + 0.5 * ledger.of(Stage.TUNE).time_s
    _, report = live(releases[1], 1, whole.before, Tonight(limit_s=limit_s), chosen)
    assert report.statistics.ledger.of(Stage.CHECK) == ledger.of(Stage.CHECK)
    assert wasted(report).energy_j == pytest.approx(0.5 * ledger.of(Stage.TUNE).energy_j)
    # a decision that came to nothing is not reported
    assert (report.statistics.drift, report.statistics.strength) == (None, None)


def test_an_upload_cut_short_keeps_the_new_patch_on_the_device(
    releases: Releases, whole: Whole
) -> None:
    limit_s = whole.report.statistics.night_s - 0.75 * whole.seconds(Stage.UPLOAD)
    state, report = live(releases[1], 1, whole.before, Tonight(limit_s=limit_s))
    assert (state.release, state.settled) == (1, 1)
    assert digest(state) == digest(whole.after)
    assert report.delta is None
    outcome = report.statistics.outcome
    assert (outcome.attendance, outcome.decision) == ("interrupted", "retune")
    assert wasted(report).energy_j == pytest.approx(0.25 * whole.joules(Stage.UPLOAD))


def test_a_late_night_costs_the_same_and_its_upload_is_wasted(
    releases: Releases, whole: Whole
) -> None:
    deadline_s = whole.report.statistics.night_s - 1e-6
    state, report = live(releases[1], 1, whole.before, Tonight(deadline_s=deadline_s))
    assert report.delta is None
    outcome = report.statistics.outcome
    assert (outcome.attendance, outcome.decision) == ("late", "retune")
    # the device keeps what it trained
    assert digest(state) == digest(whole.after)
    assert state.settled == 1
    assert wasted(report) == whole.report.statistics.ledger.of(Stage.UPLOAD)
    assert report.statistics.ledger.of(Stage.UPLOAD) == Cost()
    late, in_time = (one.statistics.ledger.total() for one in (report, whole.report))
    assert late.energy_j == pytest.approx(in_time.energy_j)
    assert report.statistics.night_s == pytest.approx(whole.report.statistics.night_s)


def test_a_deadline_that_is_met_and_a_limit_that_is_reached_change_nothing(
    releases: Releases, whole: Whole
) -> None:
    night_s = whole.report.statistics.night_s
    _, report = live(releases[1], 1, whole.before, Tonight(limit_s=night_s, deadline_s=night_s))
    assert report.statistics == whole.report.statistics
    assert report.delta is not None


@pytest.mark.parametrize("attends", [Attendance.ABSENT, Attendance.STARVED])
def test_a_device_that_does_not_attend_pays_nothing_and_reads_its_days_later(
    releases: Releases, whole: Whole, attends: Attendance
) -> None:
    state, report = live(releases[1], 1, whole.before, Tonight(attends=attends))
    assert state == whole.before
    assert report.statistics.ledger == Ledger()
    assert report.workload == Workload()
    assert report.statistics.night_s == 0
    assert report.delta is None
    outcome = report.statistics.outcome
    assert outcome.attendance == attends.value
    assert (outcome.decision, outcome.reason) == ("none", attends.value)
    # the observer looks at the next day all the same, with the release that is held
    assert report.observation is not None
    assert report.observation.exchanges == 3

    later, second = live(releases[1], 2, state)
    assert later.last_day == 2
    assert later.buffer[-6:] == (*WORLD.day(3, 1), *WORLD.day(3, 2))
    assert second.statistics.outcome.decision == "retune"
    # both days' questions are served: twice three of them, each written token by token
    two_days, one_day = (
        one.workload.of(Stage.SERVE, Phase.DECODE).flop for one in (second, whole.report)
    )
    assert two_days > one_day


@settings(
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(share=st.floats(0, 1.2))
def test_wherever_a_night_is_cut_it_takes_that_long_and_no_joule_is_lost(
    releases: Releases, whole: Whole, share: float
) -> None:
    full = whole.report.statistics
    limit_s = share * full.night_s
    state, report = live(releases[1], 1, whole.before, Tonight(limit_s=limit_s))
    statistics = report.statistics
    assert statistics.night_s == pytest.approx(min(limit_s, full.night_s), rel=1e-9)
    # Stage after stage in full until the time is up, then the share of one, and no more.
    left_s, drawn_j = limit_s, full.ledger.of(Stage.SERVE).energy_j
    for stage in (Stage.DOWNLOAD, Stage.TUNE, Stage.UPLOAD):
        cost = full.ledger.of(stage)
        done = min(1.0, max(0.0, left_s / cost.time_s))
        drawn_j += done * cost.energy_j
        left_s -= cost.time_s
    above_j = statistics.ledger.total().energy_j - statistics.ledger.of(Stage.IDLE).energy_j
    assert above_j == pytest.approx(drawn_j, rel=1e-9)
    awake_s = statistics.night_s + full.ledger.of(Stage.SERVE).time_s
    assert statistics.ledger.of(Stage.IDLE).energy_j == pytest.approx(0.5 * awake_s, rel=1e-9)
    interrupted = statistics.outcome.attendance == "interrupted"
    assert interrupted == (limit_s < full.night_s)
    assert (report.delta is None) == interrupted
    assert state.patch is not None


def test_without_limits_a_night_takes_as_long_as_it_takes() -> None:
    tonight = Tonight()
    assert tonight.attends is Attendance.PRESENT
    assert (tonight.limit_s, tonight.deadline_s) == (math.inf, math.inf)
