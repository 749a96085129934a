"""Nights with rules that look at their device: canaries, starts, the oracle."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from clients.adaptation.baselines import Oracle, RandomAtRate
from clients.adaptation.canary import Canary
from clients.adaptation.edgetune import EdgeTune
from clients.adaptation.protocol import AdaptationRule, KeptOut
from clients.adaptation.rules import AlwaysRetune, AlwaysReuse
from clients.device import run_round
from clients.night.attendance import Tonight
from clients.night.order import NightOrder
from clients.observer.evaluation import observe
from clients.placement.rules import EverySite, TopLayers
from clients.policy import DevicePolicy, Quota
from clients.selection.rules import Fifo
from clients.state.kept_out import canaries, training_exchanges
from clients.state.state import DeviceState, read_state, write_state
from clients.synthesis.rules import NoSynthesis, Synthesis, TemplateRewrite
from clients.tuning.first_patch import new_start
from clients.tuning.schedule import Tuning
from clients.work.facts import Facts
from fleettune.adapters.patch import placement_of
from fleettune.cohort.suspension import current_compute
from fleettune.cost.hardware import load_hardware
from fleettune.cost.ledger import Cost, Stage
from fleettune.cost.work import forward_work
from fleettune.cost.workload import Phase, computing, moving
from fleettune.data.exchanges import Answer, Exchange
from fleettune.data.personas import SyntheticData
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import Compute, Job, Result, ScoreJob, TuneJob
from fleettune.messages.flower_records import decode_statistics, encode_report, take_observation
from fleettune.messages.report import WORD, Report
from fleettune.releases.manifest import Manifest, drift_between
from fleettune.releases.model_files import file_digest, weight_files
from tests.clients.phone import EDGETUNE, HALF

PROFILE = load_hardware(Path(__file__).parents[3] / "conf" / "hardware")["oneplus_12r"]
WORLD = SyntheticData(users=10, exchanges_per_day=6, history_days=3).open()
TOP = TopLayers(layers=1, rank=2, alpha=4.0)
CANARY = Canary(share=0.3, most=4, margin=0.1, paired=False)
REWORDING = TemplateRewrite(per_exchange=1, rouge_low=0.0, rouge_high=1.0)
WITH_CANARIES = replace(EDGETUNE, threshold="calibrated", canary=True)
RULES: Mapping[str, AdaptationRule] = {
    "canary": CANARY,
    "edgetune": EDGETUNE,
    "projected": replace(EDGETUNE, scope="projected"),
    "both": WITH_CANARIES,
    "random_at_rate": RandomAtRate(rate=1.0),
}


def policy(
    rule: AdaptationRule, steps: int = 4, synthesis: Synthesis | None = None
) -> DevicePolicy:
    return DevicePolicy(
        selection=Fifo(),
        synthesis=synthesis or NoSynthesis(),
        adaptation=rule,
        placement=TOP,
        tuning=Tuning(steps=steps, batch=2, learning_rate=1e-2, clip=1.0),
        quota=Quota(buffer_bytes=100_000, total_bytes=4_000_000),
    )


def night_order(
    release: Manifest, chosen: DevicePolicy, round_: int = 0, device: int = 3
) -> NightOrder:
    facts = Facts(device=device, user=device, seed=5, profile=PROFILE)
    return NightOrder(
        facts=facts,
        round=round_,
        release=release,
        policy=chosen,
        population=WORLD,
        compute=current_compute(),
    )


@dataclass(frozen=True, slots=True)
class Watched:
    """A processor that notes which jobs it was given."""

    jobs: list[Job] = field(default_factory=list[Job])

    def compute(self) -> Compute:
        def run(job: Job) -> Result:
            self.jobs.append(job)
            return current_compute().run(job)

        return Compute(run)

    def tuned(self) -> list[TuneJob]:
        return [job for job in self.jobs if isinstance(job, TuneJob)]


def live(
    night: NightOrder,
    state: DeviceState | None = None,
    watched: Watched | None = None,
    *,
    observed: bool = False,
) -> tuple[DeviceState, Report]:
    compute = (watched or Watched()).compute()
    night = replace(night, compute=compute)
    return run_round(night, state or DeviceState(), observed=observed)


@pytest.fixture(scope="module")
def changed(
    releases: tuple[Manifest, Manifest], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Callable[[str, Tensor], Tensor]], Manifest]:
    """Makes release 1 from release 0 by a change of every tensor, given its name."""

    def make(name: str, change: Callable[[str, Tensor], Tensor]) -> Manifest:
        old = Path(releases[0].path)
        new = tmp_path_factory.mktemp(name)
        for file in old.iterdir():
            if file.suffix != ".safetensors" and file.is_file():
                (new / file.name).write_bytes(file.read_bytes())
        tensors = load_file(weight_files(old)[0])
        save_file(
            {key: change(key, value).contiguous() for key, value in tensors.items()},
            new / "model.safetensors",
        )
        return replace(
            releases[0],
            version=1,
            name=name,
            path=str(new),
            digest=file_digest(new / "model.safetensors"),
            drifts=(drift_between(old, new, releases[0].shapes, 0),),
        )

    return make


@pytest.fixture(scope="module")
def reparametrised(changed: Callable[..., Manifest]) -> Manifest:
    """Values twice as large, what reads them half as large: the same function, exactly."""

    def change(name: str, weight: Tensor) -> Tensor:
        if "v_proj" in name:
            return weight * 2
        return weight / 2 if "o_proj" in name else weight

    return changed("reparametrised", change)


@pytest.fixture(scope="module")
def damaged(changed: Callable[..., Manifest]) -> Manifest:
    """A release whose layers have no MLP any more."""
    return changed("damaged", lambda name, weight: weight * ("mlp.down_proj" not in name))


# What a canary sees


@pytest.mark.parametrize("paired", [False, True])
def test_a_reparametrisation_leaves_the_canary_quiet_though_the_drift_fires(
    releases: tuple[Manifest, Manifest], reparametrised: Manifest, damaged: Manifest, paired: bool
) -> None:
    rule = replace(CANARY, paired=paired)
    state, _ = live(night_order(releases[0], policy(rule)))
    _, quiet = live(night_order(reparametrised, policy(rule)), state)
    assert quiet.statistics.outcome.reason == "canary_holds"
    assert quiet.statistics.canary_worse is not None
    assert abs(quiet.statistics.canary_worse) < 0.1
    _, loud = live(night_order(damaged, policy(rule)), state)
    assert (loud.statistics.outcome.decision, loud.statistics.outcome.reason) == (
        "retune",
        "canary_worse",
    )
    assert loud.statistics.canary_before is not None
    assert loud.statistics.canary_after is not None
    assert loud.statistics.canary_after < loud.statistics.canary_before
    # the published rule cannot tell: its number is far above any bound in use
    drift = policy(replace(EDGETUNE, kappa=0.5))
    state, _ = live(night_order(releases[0], drift))
    _, fired = live(night_order(reparametrised, drift), state)
    assert fired.statistics.outcome.reason == "drift_above_threshold"


def test_the_canary_is_compared_with_the_night_of_its_tune(
    releases: tuple[Manifest, Manifest], damaged: Manifest
) -> None:
    state, first = live(night_order(releases[0], policy(CANARY)))
    assert state.history.canary == first.statistics.canary_after is not None
    assert first.statistics.canary_before is None
    _, report = live(night_order(damaged, policy(CANARY)), state)
    seen = report.statistics
    assert seen.canary_before is not None
    assert state.history.canary is not None
    assert seen.canary_worse == seen.canary_before - state.history.canary
    assert seen.score == seen.canary_worse


def test_what_reused_releases_added_is_kept_where_pairs_are_compared(
    releases: tuple[Manifest, Manifest], reparametrised: Manifest, damaged: Manifest
) -> None:
    chosen = policy(replace(CANARY, paired=True, margin=1e9))
    state, _ = live(night_order(releases[0], chosen))
    once, first = live(night_order(reparametrised, chosen), state)
    twice, second = live(night_order(replace(damaged, version=2), chosen), once)
    assert first.statistics.canary_worse == once.history.worse
    step = twice.history.worse - once.history.worse
    assert second.statistics.canary_worse == twice.history.worse
    assert second.statistics.canary_before is not None
    assert first.statistics.canary_before is not None
    # the same canaries: no day was lived between
    gap = second.statistics.canary_before - first.statistics.canary_before
    assert step == pytest.approx(gap)


def test_forward_passes_of_canaries_are_charged_to_the_check(
    releases: tuple[Manifest, Manifest], damaged: Manifest
) -> None:
    rule = replace(CANARY, paired=True, margin=1e9)
    state, first = live(night_order(releases[0], policy(rule)), observed=True)
    night = night_order(damaged, policy(rule))
    _, report = live(night, state, observed=True)
    shapes, ranks = releases[0].shapes, dict.fromkeys(TOP.on(releases[0].shapes).sites, 2)
    encoder = night.facts.encoder(damaged)
    seen = [encoder.example(e) for e in canaries(night.facts, rule, state)]
    assert 0 < len(seen) <= rule.most
    lengths = [len(example.tokens) for example in seen]
    once = forward_work(shapes, lengths, sum(e.supervised for e in seen), ranks)
    # right after the tune: one pass; at the decision: two, under the new and the old release
    assert first.workload.of(Stage.CHECK, Phase.PREFILL) == computing(once)
    assert report.workload.of(Stage.CHECK, Phase.PREFILL) == computing(once + once)
    assert report.workload.of(Stage.CHECK, Phase.FORWARD) == computing(once * 0)


# Canaries never train


def test_a_number_per_exchange_decides_so_no_exchange_changes_sides(
    releases: tuple[Manifest, Manifest],
) -> None:
    facts, kept_out = night_order(releases[0], policy(CANARY)).facts, KeptOut(share=0.3, most=4)
    days = [exchange for day in range(200) for exchange in WORLD.day(3, day)]
    held = [kept_out.holds(facts, exchange) for exchange in days]
    assert held == [kept_out.holds(facts, exchange) for exchange in days]
    expected, count = 0.3 * len(days), sum(held)
    assert abs(count - expected) <= 4 * (0.7 * expected) ** 0.5


def answer(example: Example) -> tuple[int, ...]:
    return example.tokens[example.prompt :]


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbered:
    """A population that never says a thing twice."""

    users: int = 10
    labels: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()

    def day(self, user: int, day: int) -> tuple[Exchange, ...]:
        orders = range(6 * day, 6 * day + 6)
        return tuple(
            Exchange(question=f"who is {o + 100}?", response=f"{o + 500}", day=day, order=o)
            for o in orders
        )

    def outside(self, count: int, seed: int) -> Sequence[tuple[Exchange, ...]]:
        return ()


@settings(
    derandomize=True,
    deadline=None,
    max_examples=6,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rule=st.sampled_from([CANARY, RULES["both"], replace(CANARY, share=0.5, margin=0.0)]),
    device=st.integers(0, 9),
    rounds=st.lists(st.integers(1, 2), min_size=2, max_size=3),
    synthesis=st.sampled_from([NoSynthesis(), REWORDING]),
)
def test_no_canary_is_ever_in_a_training_batch(
    releases: tuple[Manifest, Manifest],
    rule: AdaptationRule,
    device: int,
    rounds: list[int],
    synthesis: Synthesis,
) -> None:
    watched, state, round_ = Watched(), DeviceState(), -1
    for index, slept in enumerate(rounds):
        round_ += slept
        night = night_order(releases[index % 2], policy(rule, 2, synthesis), round_, device)
        night = replace(night, population=Numbered())
        drifts = tuple(replace(d, since=0) for d in releases[1].drifts)
        release = replace(night.release, version=index, drifts=drifts)
        if index > 1:
            more = tuple(replace(drifts[0], since=n) for n in range(index))
            release = replace(release, drifts=more)
        state, _ = live(replace(night, release=release), state, watched)
        facts = night.facts
        encoder = facts.encoder(release)
        # answers say which exchange it was: each is given once, and rewording keeps it
        held = {answer(encoder.example(e)) for e in canaries(facts, rule, state)}
        free = {answer(encoder.example(e)) for e in training_exchanges(facts, rule, state)}
        assert not held & free
        trained = {answer(e) for job in watched.tuned() for batch in job.batches for e in batch}
        assert not held & trained
        scored = [job.examples for job in watched.jobs if isinstance(job, ScoreJob)]
        assert not {answer(e) for examples in scored for e in examples} & trained


@settings(
    derandomize=True,
    deadline=None,
    max_examples=6,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(margin=st.sampled_from([0.0, 1e9]), rounds=st.lists(st.integers(1, 2), min_size=2))
def test_canaries_that_are_not_held_out_are_scored_before_they_train(
    releases: tuple[Manifest, Manifest], margin: float, rounds: list[int]
) -> None:
    rule = replace(CANARY, share=0.0, paired=True, most=5, margin=margin)
    state, round_ = DeviceState(), -1
    trained: set[tuple[int, ...]] = set()
    for version, slept in enumerate(rounds[:3]):
        round_ += slept
        watched, night = Watched(), night_order(releases[min(version, 1)], policy(rule, 40), round_)
        night = replace(night, population=Numbered())
        state, report = live(
            replace(night, release=replace(night.release, version=version)), state, watched
        )
        jobs = watched.jobs
        scored = {answer(e) for j in jobs if isinstance(j, ScoreJob) for e in j.examples}
        # everything that came since the tune, the newest five of it
        assert len(scored) == (0 if version == 0 else 5)
        assert not scored & trained
        trained |= {answer(e) for job in watched.tuned() for batch in job.batches for e in batch}
        if report.statistics.outcome.decision == "retune":
            encoder = night.facts.encoder(night.release)
            assert {answer(encoder.example(e)) for e in state.answered} <= trained
        assert training_exchanges(night.facts, rule, state) == state.answered


def test_a_rule_without_canaries_trains_on_all_that_was_answered(
    releases: tuple[Manifest, Manifest],
) -> None:
    state, _ = live(night_order(releases[0], policy(EDGETUNE)))
    facts = night_order(releases[0], policy(EDGETUNE)).facts
    assert training_exchanges(facts, EDGETUNE, state) == state.answered
    assert canaries(facts, EDGETUNE, state) == ()


# Start


def test_what_a_rule_recalls_survives_the_records(releases: tuple[Manifest, Manifest]) -> None:
    rule = replace(EDGETUNE, scope="projected", kappa=1e9)
    state, _ = live(night_order(releases[0], policy(rule)))
    state, _ = live(night_order(releases[1], policy(rule), 1), state)
    assert state.history.path > 0
    state = replace(state, before=replace(releases[0], drifts=()))
    records = RecordDict()
    write_state(records, state)
    found = read_state(records)
    assert replace(found, patch=None) == replace(state, patch=None)


@pytest.mark.parametrize("rule", [EDGETUNE, AlwaysRetune()], ids=["edgetune", "always"])
@pytest.mark.parametrize(("start", "fits"), [("old", True), ("old", False), ("fresh", True)])
def test_a_retune_starts_from_the_old_patch_where_that_is_wanted_and_fits(
    releases: tuple[Manifest, Manifest],
    start: str,
    fits: bool,
    rule: EdgeTune | AlwaysRetune,
) -> None:
    chosen, watched = policy(replace(rule, start=start)), Watched()
    state, _ = live(night_order(releases[0], chosen), watched=watched)
    assert state.patch is not None
    if not fits:
        chosen = replace(chosen, placement=replace(TOP, alpha=8.0))
    night = night_order(releases[1], chosen, 1)
    live(night, state, watched)
    begun = watched.tuned()[1].start
    assert begun.release == 1
    placement = chosen.placement
    assert isinstance(placement, TopLayers | EverySite)
    fresh = new_start(night.facts, releases[1], placement.on(releases[1].shapes), shared=False)
    expected = state.patch if start == "old" and fits else fresh
    assert begun.digest() == expected.digest()


@pytest.mark.parametrize("shared", [None, 0.3])
def test_a_retune_from_the_old_patch_probes_nothing_and_begins_where_that_ended(
    releases: tuple[Manifest, Manifest], shared: float | None
) -> None:
    # bytes bind, so that a day more of exchanges leaves the joules within the budget
    rule = replace(HALF, budget=0.8, patch=0.1, share_above=shared)
    chosen = replace(policy(AlwaysRetune(start="old")), placement=rule)
    watched = Watched()
    state, first = live(night_order(releases[0], chosen), watched=watched)
    assert state.patch is not None
    kept, second = live(night_order(releases[1], chosen, 1), state, watched)
    assert kept.patch is not None
    assert second.statistics.tune_steps == 4
    assert first.statistics.ledger.of(Stage.PROBE).energy_j > 0
    assert second.statistics.ledger.of(Stage.PROBE) == Cost()
    assert placement_of(kept.patch) == placement_of(state.patch)
    assert (state.patch.ties == ()) == (shared is None)
    # the very factors: no further step would leave the patch as it was
    begun = watched.tuned()[1].start
    assert (begun.digest(), begun.release) == (state.patch.digest(), 1)
    assert kept.patch.digest() != begun.digest()


def test_a_short_retune_keeps_its_sites_by_the_budget_of_a_whole_tune(
    releases: tuple[Manifest, Manifest],
) -> None:
    # a prefix cache pays over a whole tune and not over the two steps of a retune, which thus take
    # more than their share; to begin anew would take the whole tune
    chosen = replace(policy(AlwaysRetune(start="old")), placement=replace(HALF, budget=0.45))
    tuning = replace(chosen.tuning, steps=8, steps_again=2)
    chosen = replace(chosen, tuning=tuning)
    state, first = live(night_order(releases[0], chosen))
    again, second = live(night_order(releases[1], chosen, 1), state)
    assert state.patch is not None
    assert again.patch is not None
    assert placement_of(again.patch) == placement_of(state.patch)
    assert second.statistics.tune_steps == 2
    assert second.statistics.ledger.of(Stage.PROBE) == Cost()
    assert second.statistics.over_budget == 0
    tunes = [report.statistics.ledger.of(Stage.TUNE).energy_j for report in (first, second)]
    assert tunes[1] < tunes[0]


def test_a_retune_places_anew_where_the_old_sites_are_too_dear(
    releases: tuple[Manifest, Manifest],
) -> None:
    chosen = replace(policy(AlwaysRetune(start="old")), placement=replace(HALF, budget=1.0))
    state, _ = live(night_order(releases[0], chosen))
    assert state.patch is not None
    assert len(state.patch.factors) == 7 * releases[0].shapes.layers
    less = replace(chosen, placement=HALF)
    after, report = live(night_order(releases[1], less, 1), state)
    assert report.statistics.outcome.decision == "retune"
    assert report.statistics.ledger.of(Stage.PROBE).energy_j > 0
    assert report.statistics.over_budget == 0
    assert after.patch is not None
    assert 0 < len(after.patch.factors) < len(state.patch.factors)


@pytest.mark.parametrize(
    ("start", "less", "steps"), [("old", 1.0, 3), ("fresh", 1.0, 4), ("old", 0.4, 4)]
)
def test_only_a_retune_that_goes_on_from_the_old_patch_takes_fewer_steps(
    releases: tuple[Manifest, Manifest], start: str, less: float, steps: int
) -> None:
    # with less of a budget the old sites are too dear: a new placement starts anew, in full length
    chosen = policy(AlwaysRetune(start=start))
    tuning = replace(chosen.tuning, steps_again=3)
    chosen = replace(chosen, tuning=tuning, placement=replace(HALF, budget=1.0))
    state, first = live(night_order(releases[0], chosen))
    assert first.statistics.tune_steps == 4
    chosen = replace(chosen, placement=replace(HALF, budget=less))
    _, second = live(night_order(releases[1], chosen, 1), state)
    assert second.statistics.outcome.decision == "retune"
    assert second.statistics.tune_steps == steps


@pytest.mark.parametrize(("start", "steps"), [("old", (2, 3)), ("fresh", (4, 4))])
def test_a_first_tune_takes_fewer_steps_where_retunes_will_go_on_from_it(
    releases: tuple[Manifest, Manifest], start: str, steps: tuple[int, int]
) -> None:
    chosen = policy(AlwaysRetune(start=start))
    chosen = replace(chosen, tuning=replace(chosen.tuning, steps_again=3, steps_first=2))
    state, first = live(night_order(releases[0], chosen))
    _, second = live(night_order(releases[1], chosen, 1), state)
    assert (first.statistics.tune_steps, second.statistics.tune_steps) == steps
    # a placement that does not fit begins anew, so that tune is a first one again
    anew = replace(chosen, placement=replace(HALF, budget=0.4))
    _, second = live(night_order(releases[1], anew, 1), state)
    assert second.statistics.tune_steps == steps[0]


@pytest.mark.parametrize(("above", "steps"), [(0.1, 4), (1e9, 2), (None, 2)])
def test_a_retune_begins_anew_where_the_release_broke_the_patch(
    releases: tuple[Manifest, Manifest],
    reparametrised: Manifest,
    damaged: Manifest,
    above: float | None,
    steps: int,
) -> None:
    rule = replace(WITH_CANARIES, kappa=1e-9, start="old", anew_above=above)
    chosen = policy(rule)
    chosen = replace(chosen, tuning=replace(chosen.tuning, steps_again=2))
    state, _ = live(night_order(releases[0], chosen))
    for release, expected in ((damaged, steps), (reparametrised, 2)):
        _, second = live(night_order(release, chosen), state)
        assert second.statistics.outcome.decision == "retune"
        assert second.statistics.tune_steps == expected


@pytest.mark.parametrize("wrong", [{"anew_above": 0.0}, {"anew_above": 0.1, "canary": False}])
def test_a_bound_without_canaries_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="anew_above must be > 0 nats per token"):
        replace(WITH_CANARIES, **wrong)


# Projection


def test_a_projection_needs_the_old_release_which_is_kept_until_it_is_settled(
    releases: tuple[Manifest, Manifest],
) -> None:
    chosen = policy(replace(EDGETUNE, scope="projected", kappa=1e9))
    state, _ = live(night_order(releases[0], chosen))
    assert state.before is None
    receiving = night_order(releases[1], chosen, 1)
    _, whole = live(receiving, state)
    download_s = whole.statistics.ledger.of(Stage.DOWNLOAD).time_s
    cut = replace(receiving, tonight=Tonight(limit_s=download_s * (1 + 1e-9)))
    between, _ = live(cut, state)
    assert between.before is not None
    assert (between.release, between.before.version, between.settled) == (1, 0, 0)
    later, report = live(night_order(releases[1], chosen, 2), between)
    assert report.statistics.outcome.reason == "drift_below_threshold"
    assert report.statistics.drift == whole.statistics.drift
    assert (later.before, later.settled) == (None, 1)
    # one number is kept, and grows with every release that is reused
    assert later.history.path == pytest.approx(math.sqrt(report.statistics.drift or 0))


def test_a_projection_charges_the_weights_of_both_releases(
    releases: tuple[Manifest, Manifest],
) -> None:
    chosen = policy(replace(EDGETUNE, scope="projected", kappa=1e9))
    state, _ = live(night_order(releases[0], chosen))
    _, report = live(night_order(releases[1], chosen, 1), state, observed=True)
    assert state.patch is not None
    # two bytes for every weight of the top layer's seven matrices, in each of two releases
    entries = sum(n_in * n_out for n_in, n_out in releases[0].shapes.matrices().values())
    read = report.workload.of(Stage.CHECK, Phase.READ)
    assert read == moving(state.patch.size_bytes + 2 * 2 * entries)
    # a difference and two products of rank 2 for every entry, and less for the factors
    flop = report.workload.of(Stage.CHECK, Phase.FORWARD).flop
    assert 9 * entries < flop < 10 * 9 * entries


# The oracle


def test_an_oracle_is_never_worse_than_the_better_of_both_and_pays_for_its_choice_alone(
    releases: tuple[Manifest, Manifest], damaged: Manifest, reparametrised: Manifest
) -> None:
    rule = Oracle(margin=0.0, days=2)
    chosen = set[str]()
    for release in (releases[1], damaged, reparametrised):
        for device in (3, 4):
            reached: dict[str, tuple[float, Report]] = {}
            arms = (("oracle", rule), ("reuse", AlwaysReuse()), ("retune", AlwaysRetune()))
            for name, arm in arms:
                state, _ = live(night_order(releases[0], policy(arm), 0, device))
                night = night_order(release, policy(arm), 1, device)
                state, report = live(night, state, observed=True)
                seen = [observe(night, state, day) for day in (2, 3)]
                reached[name] = (sum((s.nll or 0) * s.exchanges for s in seen), report)
            loss = {name: value for name, (value, _) in reached.items()}
            assert loss["oracle"] == pytest.approx(min(loss["reuse"], loss["retune"]), rel=1e-9)
            told = reached["oracle"][1]
            decision = told.statistics.outcome.decision
            chosen.add(decision)
            assert decision == ("retune" if loss["retune"] < loss["reuse"] else "reuse")
            like = reached[decision][1]
            assert told.statistics.ledger == like.statistics.ledger
            assert (told.delta is None) == (like.delta is None)
            assert told.observation is not None
            assert told.observation.retune_gain == pytest.approx(
                (loss["reuse"] - loss["retune"]) / 12, abs=1e-6
            )
    assert chosen == {"retune", "reuse"}


# What reaches the server


@pytest.mark.parametrize(
    "rule", [*RULES.values(), Oracle(margin=0.0, days=1)], ids=[*RULES, "oracle"]
)
def test_nothing_of_an_observation_reaches_the_server_and_statistics_hold_no_text(
    releases: tuple[Manifest, Manifest], rule: AdaptationRule
) -> None:
    state, _ = live(night_order(releases[0], policy(rule)))
    night = night_order(releases[1], policy(rule), 1)
    kept, seen = live(night, state, observed=True)
    unseen_kept, unseen = live(night, state)
    assert seen.statistics == unseen.statistics
    assert replace(kept, patch=None) == replace(unseen_kept, patch=None)
    content = encode_report(seen)
    take_observation(content)
    assert set(content) <= {"delta", "statistics", "outcome"}
    numbers = content.metric_records["statistics"]
    assert all(type(value) in (int, float) for value in numbers.values())
    assert not {"retune_gain", "nll", "approval"} & set(numbers)
    words = [value for value in content.config_records["outcome"].values() if type(value) is str]
    assert all(WORD.fullmatch(word) for word in words)
    assert take_observation(content)[0] is None
    assert decode_statistics(content) == seen.statistics
