"""A device's night: what it charges, what it keeps under its quota, what it never sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clients.adaptation.protocol import Adaptation
from clients.adaptation.rules import (
    AlwaysRetune,
    AlwaysReuse,
    EdgeTuneReleased,
    NeverPersonalise,
    Retrieve,
)
from clients.device import run_round
from clients.night.order import NightOrder
from clients.night.selecting import EMBEDDING_BYTES
from clients.placement.rules import EverySite, TopLayers
from clients.policy import DevicePolicy, Quota
from clients.selection.rules import Fifo, Reservoir
from clients.state.state import DeviceState
from clients.synthesis.rules import NoSynthesis
from clients.tuning.first_patch import new_start
from clients.tuning.schedule import Tuning
from clients.work.facts import Facts
from fleettune.cohort.suspension import current_compute
from fleettune.cost.energy import central_values, price
from fleettune.cost.hardware import Coefficient, DeviceProfile, load_hardware
from fleettune.cost.ledger import Stage
from fleettune.cost.memory import memory_peak_bytes
from fleettune.cost.pricing import TARGETS, PricedModel
from fleettune.cost.radio import WIFI
from fleettune.cost.work import Work, backward_work, decode_work, forward_work
from fleettune.cost.workload import Phase, Workload, computing, moving
from fleettune.data.exchanges import Answer, Exchange, Population
from fleettune.data.personas import SyntheticData
from fleettune.data.tokens import Example
from fleettune.messages.report import Report
from fleettune.releases.manifest import Manifest
from fleettune.seeds import Purpose, stream
from fleettune.shapes import MODULES, Shapes, Site

PROFILE = load_hardware(Path(__file__).parents[2] / "conf" / "hardware")["oneplus_12r"]
WORLD = SyntheticData(users=10, exchanges_per_day=3, history_days=2).open()
ROOMY = Quota(buffer_bytes=100_000, total_bytes=4_000_000)
OWN = PricedModel()
LLAMA = PricedModel(model="llama-3.2-1b", tokens_ratio=0.78)


def policy(adaptation: Adaptation, quota: Quota = ROOMY, steps: int = 2) -> DevicePolicy:
    return DevicePolicy(
        selection=Fifo(),
        synthesis=NoSynthesis(),
        adaptation=adaptation,
        placement=TopLayers(layers=1, rank=1, alpha=2.0),
        tuning=Tuning(steps=steps, batch=2, learning_rate=1e-2, clip=1.0),
        quota=quota,
    )


def night_order(
    release: Manifest,
    chosen: DevicePolicy,
    round_: int = 0,
    population: Population = WORLD,
    profile: DeviceProfile = PROFILE,
    priced: PricedModel = OWN,
) -> NightOrder:
    facts = Facts(device=3, user=3, seed=5, profile=profile, priced=priced)
    return NightOrder(
        facts=facts,
        round=round_,
        release=release,
        policy=chosen,
        population=population,
        compute=current_compute(),
    )


def live(
    night: NightOrder, state: DeviceState | None = None, *, observed: bool = False
) -> tuple[DeviceState, Report]:
    return run_round(night, state or DeviceState(), observed=observed)


def stages(report: Report) -> set[Stage]:
    return {stage for stage, _ in report.statistics.ledger.costs}


def examples_of(night: NightOrder, exchanges: Sequence[Exchange]) -> list[Example]:
    return [night.facts.encoder(night.release).example(exchange) for exchange in exchanges]


def seconds(work: Work, gflops: float) -> float:
    """The longer of computing and of moving bytes at 17 GB/s."""
    return max(work.flop / (gflops * 1e9), work.traffic_bytes / 17e9)


def training(
    night: NightOrder, shapes: Shapes, ratio: float, ranks: dict[Site, int]
) -> tuple[Work, Work]:
    """The work of every step's own batch, forward and backward, added up."""
    facts, release = night.facts, night.release
    rng = stream(facts.seed, Purpose.TUNING, facts.device, release.version)
    forward, backward = Work(), Work()
    for batch in night.policy.tuning.batches(examples_of(night, WORLD.day(3, 0)), rng):
        lengths = [math.ceil(len(example.tokens) * ratio) for example in batch]
        head = math.ceil(sum(example.supervised for example in batch) * ratio)
        forward += forward_work(shapes, lengths, head, ranks)
        backward += backward_work(shapes, lengths, head, ranks)
    return forward, backward


def serving(night: NightOrder, shapes: Shapes, ratio: float) -> tuple[Work, Work]:
    """The work of reading day 0's questions and writing its answers, without adapters."""
    prefill, decode = Work(), Work()
    for example in examples_of(night, WORLD.day(3, 0)):
        prompt = math.ceil(example.prompt * ratio)
        prefill += forward_work(shapes, [prompt], 1, {})
        decode += decode_work(shapes, prompt, math.ceil(example.supervised * ratio), {})
    return prefill, decode


LLAMA_SHAPES = Shapes(
    hidden=2048, layers=16, heads=32, kv_heads=8, head_dim=64, ffn=8192, vocab=128_256
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """A model whose first night is worked out by hand: a rank-1 patch on the top of eight layers.

    Attributes:
        model: What the device is told to count.
        shapes: Its shapes; None for the release's own.
        ratio: Its tokens per simulated token.
        cut: Its layers below the patch.
    """

    model: PricedModel
    shapes: Shapes | None
    ratio: float
    cut: int

    def of(self, release: Manifest) -> Shapes:
        return self.shapes or release.shapes


PRICED = (
    Priced(model=OWN, shapes=None, ratio=1.0, cut=7),
    # 16 layers for 8: the top one becomes layers 14 and 15
    Priced(model=LLAMA, shapes=LLAMA_SHAPES, ratio=0.78, cut=14),
)
both_prices = pytest.mark.parametrize("priced", PRICED, ids=lambda priced: priced.model.model)


@both_prices
def test_the_first_nights_transfers_are_priced_as_by_hand(
    releases: tuple[Manifest, Manifest], priced: Priced
) -> None:
    own, shapes = releases[0].shapes, priced.of(releases[0])
    state, report = live(night_order(releases[0], policy(AlwaysRetune()), priced=priced.model))
    ledger = report.statistics.ledger

    # Download: as stored, or two bytes for every priced weight, at 50 Mbit/s after a round
    # trip of 20 ms, radio at 1.32 W above idle and a tail of 30 mJ; then written at 0.8 GB/s and
    # 5 W, of which 0.5 W are the idle draw.
    on_disk = next(Path(releases[0].path).glob("*.safetensors")).stat().st_size
    size_bytes = on_disk if shapes == own else 2 * shapes.parameters
    radio_s, write_s = 0.02 + size_bytes * 8 / 50e6, size_bytes / 0.8e9
    download = ledger.of(Stage.DOWNLOAD)
    assert download.time_s == pytest.approx(radio_s + write_s)
    assert download.energy_j == pytest.approx(1.32 * radio_s + 0.03 + 4.5 * write_s)
    assert download.down_bytes == pytest.approx(size_bytes)

    # Upload: the patch in fp32 and 1024 bytes of statistics at 50 Mbit/s, radio at 1.62 W. A layer
    # at rank 1 is 4 bytes times inputs plus outputs of its seven matrices.
    assert state.patch is not None
    assert state.patch.size_bytes == 4 * sum(map(sum, own.matrices().values()))
    layers = shapes.layers - priced.cut
    up_bytes = 4 * layers * sum(map(sum, shapes.matrices().values())) + 1024
    up_s = 0.02 + up_bytes * 8 / 50e6
    upload = ledger.of(Stage.UPLOAD)
    assert upload.time_s == pytest.approx(up_s)
    assert upload.energy_j == pytest.approx(1.62 * up_s + 0.03)
    assert upload.up_bytes == pytest.approx(up_bytes)


@both_prices
def test_the_first_nights_computing_and_its_idle_draw_are_priced_as_by_hand(
    releases: tuple[Manifest, Manifest], priced: Priced
) -> None:
    shapes = priced.of(releases[0])
    night = night_order(releases[0], policy(AlwaysRetune()), priced=priced.model)
    _, report = live(night)
    ledger = report.statistics.ledger
    paid = {Stage.IDLE, Stage.DOWNLOAD, Stage.TUNE, Stage.SERVE, Stage.UPLOAD}
    assert stages(report) == paid

    # Tune: both passes at 22.2 GFLOP/s or 17 GB/s, each over all steps, at 2.68 - 0.5 W.
    ranks = {Site(layer, m): 1 for layer in range(priced.cut, shapes.layers) for m in MODULES}
    forward, backward = training(night, shapes, priced.ratio, ranks)
    tune_s = seconds(forward, 22.2) + seconds(backward, 22.2)
    tune = ledger.of(Stage.TUNE)
    assert tune.work_flop == pytest.approx(forward.flop + backward.flop)
    assert tune.time_s == pytest.approx(tune_s)
    assert tune.energy_j == pytest.approx(2.18 * tune_s)

    # Serving, by day and with no patch yet: prompts at 300 GFLOP/s or 17 GB/s and 6.2 - 0.5 W,
    # answers likewise at 7.7 - 0.5 W.
    prefill, decode = serving(night, shapes, priced.ratio)
    read_s, written_s = seconds(prefill, 300), seconds(decode, 300)
    serve = ledger.of(Stage.SERVE)
    assert serve.time_s == pytest.approx(read_s + written_s)
    assert serve.energy_j == pytest.approx(5.7 * read_s + 7.2 * written_s)

    # The device draws 0.5 W besides for as long as it is awake; serving is no part of the night.
    radios_s = ledger.of(Stage.DOWNLOAD).time_s + ledger.of(Stage.UPLOAD).time_s
    night_s = radios_s + tune_s
    assert report.statistics.night_s == pytest.approx(night_s)
    assert ledger.of(Stage.IDLE).energy_j == pytest.approx(0.5 * (night_s + read_s + written_s))
    assert ledger.of(Stage.IDLE).time_s == 0
    assert report.statistics.outcome.attendance == "present"


def test_what_is_priced_changes_no_patch_and_no_statistics_but_the_costs(
    releases: tuple[Manifest, Manifest],
) -> None:
    nights = [night_order(releases[0], policy(AlwaysRetune()), priced=p) for p in (OWN, LLAMA)]
    (own_state, own), (state, priced) = (live(night) for night in nights)
    assert own_state.patch is not None
    assert state.patch is not None
    assert own_state.patch.digest() == state.patch.digest()
    assert replace(own_state, patch=None) == replace(state, patch=None)
    mine, other = own.statistics, priced.statistics
    costs = {"ledger": other.ledger, "night_s": other.night_s, "peak_bytes": other.peak_bytes}
    assert replace(mine, **costs) == other
    assert mine.ledger.total().energy_j < other.ledger.total().energy_j


def test_the_workload_is_what_the_ledger_was_priced_from_and_for_the_observer_alone(
    releases: tuple[Manifest, Manifest],
) -> None:
    night = night_order(releases[0], policy(AlwaysRetune()))
    _, report = live(night, observed=True)
    assert price(report.workload, central_values(PROFILE, WIFI)) == report.statistics.ledger
    assert live(night)[1].workload == Workload()


def test_every_day_is_served_and_with_the_patch_once_there_is_one(
    releases: tuple[Manifest, Manifest],
) -> None:
    chosen = policy(AlwaysRetune())
    state, _ = live(night_order(releases[0], chosen))
    # Days 1 to 3 are read on the fourth night; no release is new, so nothing else is computed.
    night = night_order(releases[0], chosen, 3)
    _, report = live(night, state, observed=True)
    shapes = releases[0].shapes
    ranks = {Site(7, module): 1 for module in MODULES}
    prefill, decode = Work(), Work()
    for day in (1, 2, 3):
        for example in examples_of(night, WORLD.day(3, day)):
            prefill += forward_work(shapes, [example.prompt], 1, ranks)
            decode += decode_work(shapes, example.prompt, example.supervised, ranks)
    assert report.workload.of(Stage.SERVE, Phase.PREFILL) == computing(prefill)
    assert report.workload.of(Stage.SERVE, Phase.DECODE) == computing(decode)
    # a night whose days were read before has nothing to serve
    _, again = live(night, replace(state, last_day=3), observed=True)
    assert Stage.SERVE not in stages(again)


def caching(night: NightOrder, quota: Quota = ROOMY) -> NightOrder:
    tuning = replace(night.policy.tuning, prefix_cache=True)
    return replace(night, policy=replace(night.policy, tuning=tuning, quota=quota))


@both_prices
def test_a_prefix_cache_is_priced_as_by_hand_and_changes_no_patch(
    releases: tuple[Manifest, Manifest], priced: Priced
) -> None:
    shapes = priced.of(releases[0])
    # 9 steps of 2 are three epochs of 6 exchanges
    night = night_order(releases[0], policy(AlwaysRetune(), steps=9), priced=priced.model)
    plain_state, plain = live(night, observed=True)
    state, report = live(caching(night), observed=True)
    assert plain_state.patch is not None
    assert state.patch is not None
    assert state.patch.digest() == plain_state.patch.digest()

    # The upper layers run in every step, the lower ones once per text: this user said two things
    # twice, and equal texts have equal hidden states. Backward is as before.
    examples = examples_of(night, WORLD.day(3, 0))
    distinct = set(examples)
    assert (len(examples), len(distinct)) == (6, 4)
    every, once = (
        [math.ceil(len(example.tokens) * priced.ratio) for example in some]
        for some in (examples, distinct)
    )
    above = replace(shapes, layers=shapes.layers - priced.cut)
    ranks = {Site(layer, m): 1 for layer in range(above.layers) for m in MODULES}
    upper, backward = training(night, above, priced.ratio, ranks)
    lower = forward_work(replace(shapes, layers=priced.cut), once, 0, {})
    work, before = report.workload, plain.workload
    assert work.of(Stage.TUNE, Phase.FORWARD) == computing(upper + lower)
    assert work.of(Stage.TUNE, Phase.BACKWARD) == computing(backward)
    assert work.of(Stage.TUNE, Phase.BACKWARD) == before.of(Stage.TUNE, Phase.BACKWARD)
    assert work.of(Stage.TUNE, Phase.FORWARD).flop < before.of(Stage.TUNE, Phase.FORWARD).flop / 2
    # Two bytes per number; written once per text, read for all exchanges in each of three epochs.
    assert work.of(Stage.TUNE, Phase.WRITE) == moving(2 * shapes.hidden * sum(once))
    assert work.of(Stage.TUNE, Phase.READ) == moving(3 * 2 * shapes.hidden * sum(every))
    assert before.of(Stage.TUNE, Phase.WRITE) == moving(0)
    # Against the quota it counts at its simulated size, whatever is priced.
    held_bytes = 2 * 96 * sum(len(example.tokens) for example in distinct)
    assert (report.statistics.cache_bytes, plain.statistics.cache_bytes) == (held_bytes, 0)


def test_a_prefix_cache_over_the_quota_is_left_out(releases: tuple[Manifest, Manifest]) -> None:
    night = night_order(releases[0], policy(AlwaysRetune(), steps=9))
    _, plain = live(night)
    _, cached = live(caching(night))
    buffer = sum(exchange.size_bytes for exchange in WORLD.day(3, 0))
    total = buffer + patch_bytes(releases[0]) + cached.statistics.cache_bytes
    _, fits = live(caching(night, Quota(buffer_bytes=buffer, total_bytes=total)))
    assert fits.statistics == cached.statistics
    _, tight = live(caching(night, Quota(buffer_bytes=buffer, total_bytes=total - 1)))
    assert tight.statistics.outcome.decision == "retune"
    assert tight.statistics.cache_bytes == 0
    assert tight.statistics == plain.statistics


def test_adapters_on_every_layer_leave_nothing_to_cache(
    releases: tuple[Manifest, Manifest],
) -> None:
    chosen = replace(policy(AlwaysRetune()), placement=EverySite(rank=1, alpha=2.0))
    _, plain = live(night_order(releases[0], chosen))
    _, report = live(caching(night_order(releases[0], chosen)))
    assert report.statistics == plain.statistics


def llama_3b_peak(night: NightOrder, layers: int) -> float:
    """Bytes of a step with the longest two exchanges and adapters on the top layers of eight."""
    longest = sorted(len(e.tokens) for e in examples_of(night, WORLD.day(3, 0)))[-2:]
    shapes = TARGETS["llama-3.2-3b"]
    # 28 layers for 8: layer l begins at ceil(3.5 l)
    first = math.ceil(3.5 * (8 - layers))
    ranks = {Site(layer, m): 1 for layer in range(first, 28) for m in MODULES}
    return memory_peak_bytes(shapes, [math.ceil(n * 0.78) for n in longest], ranks)


def with_memory(size_bytes: float) -> DeviceProfile:
    """The phone with so much memory for a background job, a millionth more."""
    ram_gb = size_bytes * (1 + 1e-6) / 0.55 / 1e9
    return replace(
        PROFILE,
        ram_gb=Coefficient(value=ram_gb, low=ram_gb, high=ram_gb, tier="E", source="a test"),
    )


@pytest.mark.parametrize(
    ("shrink", "room_for", "tuned"),
    [
        (True, 4, [4, 5, 6, 7]),
        (True, 3, [6, 7]),
        (True, 2, [6, 7]),
        (True, 1, [7]),
        (True, 0, None),
        (False, 4, [4, 5, 6, 7]),
        (False, 3, None),
    ],
)
def test_a_device_short_of_memory_tunes_fewer_layers_where_it_may(
    releases: tuple[Manifest, Manifest], shrink: bool, room_for: int, tuned: list[int] | None
) -> None:
    priced = PricedModel(model="llama-3.2-3b", tokens_ratio=0.78)
    top = TopLayers(layers=4, rank=1, alpha=2.0, shrink=shrink)
    night = night_order(releases[0], replace(policy(AlwaysRetune()), placement=top), priced=priced)
    peak = llama_3b_peak(night, room_for) if room_for else 0.999 * llama_3b_peak(night, 1)
    night = replace(night, facts=replace(night.facts, profile=with_memory(peak)))
    state, report = live(night)
    outcome = report.statistics.outcome
    if tuned is None:
        assert (outcome.decision, outcome.reason) == ("infeasible", "over_memory")
        assert state.patch is None
        assert Stage.TUNE not in stages(report)
        return
    assert outcome.decision == "retune"
    assert state.patch is not None
    assert sorted({site.layer for site in state.patch.factors}) == tuned


def test_three_billion_weights_in_half_precision_are_more_than_the_phone_may_give(
    releases: tuple[Manifest, Manifest],
) -> None:
    # 6.4 GB of weights; 0.55 of 8 GB are 4.4 GB. One billion, 2.5 GB, fit.
    top = TopLayers(layers=1, rank=1, alpha=2.0, shrink=True)
    chosen = replace(policy(AlwaysRetune()), placement=top)
    for model, decision in (("llama-3.2-3b", "infeasible"), ("llama-3.2-1b", "retune")):
        _, report = live(night_order(releases[0], chosen, priced=PricedModel(model=model)))
        assert report.statistics.outcome.decision == decision


def test_tuning_changes_the_patch_and_counts_its_steps_and_tokens(
    releases: tuple[Manifest, Manifest],
) -> None:
    night = night_order(releases[0], policy(AlwaysRetune(), steps=3))
    state, report = live(night)
    assert state.patch is not None
    placement = TopLayers(layers=1, rank=1, alpha=2.0).on(releases[0].shapes)
    start = new_start(night.facts, releases[0], placement, shared=False)
    assert state.patch.digest() != start.digest()
    assert report.delta is state.patch
    # 6 exchanges are on the device; batches of 2 for 3 steps are each of them once.
    lengths = [len(night.facts.encoder(releases[0]).example(e).tokens) for e in state.buffer]
    assert (report.statistics.tune_steps, report.statistics.train_tokens) == (3, sum(lengths))


def test_a_night_without_a_new_release_costs_its_serving_and_its_report_alone(
    releases: tuple[Manifest, Manifest],
) -> None:
    chosen = policy(AlwaysRetune())
    state, _ = live(night_order(releases[0], chosen))
    again, report = live(night_order(releases[0], chosen, 1), state)
    outcome = report.statistics.outcome
    assert (outcome.decision, outcome.reason) == ("none", "same_release")
    assert stages(report) == {Stage.IDLE, Stage.SERVE, Stage.UPLOAD}
    assert report.statistics.ledger.total().up_bytes == 1024
    assert again.patch is state.patch


def test_a_check_charges_the_patch_that_it_reads(releases: tuple[Manifest, Manifest]) -> None:
    chosen = policy(EdgeTuneReleased(kappa=1e9, k_var=0.25))
    state, _ = live(night_order(releases[0], chosen))
    assert state.patch is not None
    _, report = live(night_order(releases[1], chosen, 1), state)
    check = report.statistics.ledger.of(Stage.CHECK)
    # Reading at 1.5 GB/s and 5 W, computing at 22.2 GFLOP/s and 2.68 W, of which 0.5 W are idle.
    read_s = state.patch.size_bytes / 1.5e9
    compute_s = check.work_flop / 22.2e9
    # Per entry of the seven matrices: 2 * rank for the product of the factors, and 4.
    entries = sum(n_in * n_out for n_in, n_out in releases[0].shapes.matrices().values())
    assert check.work_flop == 6 * entries
    assert check.energy_j == pytest.approx(4.5 * read_s + 2.18 * compute_s)
    assert report.statistics.drift is not None
    assert report.statistics.strength is not None


def test_reuse_carries_the_very_bytes_of_the_patch_to_the_next_release(
    releases: tuple[Manifest, Manifest],
) -> None:
    chosen = policy(AlwaysReuse())
    state, _ = live(night_order(releases[0], chosen))
    later, report = live(night_order(releases[1], chosen, 1), state)
    assert state.patch is not None
    assert later.patch is not None
    assert later.patch.digest() == state.patch.digest()
    assert (later.release, later.patch.release) == (1, 0)
    assert report.delta is None
    assert report.statistics.outcome.decision == "reuse"
    assert stages(report) == {Stage.IDLE, Stage.DOWNLOAD, Stage.SERVE, Stage.UPLOAD}


def test_equal_nights_give_equal_bytes(releases: tuple[Manifest, Manifest]) -> None:
    first, second = (live(night_order(releases[0], policy(AlwaysRetune()))) for _ in range(2))
    assert first[0].patch is not None
    assert second[0].patch is not None
    assert first[0].patch.digest() == second[0].patch.digest()
    assert first[1].statistics == second[1].statistics


def patch_bytes(release: Manifest) -> int:
    placement = TopLayers(layers=1, rank=1, alpha=2.0).on(release.shapes)
    return placement.size_bytes(release.shapes)


def test_a_patch_over_the_whole_quota_is_infeasible(releases: tuple[Manifest, Manifest]) -> None:
    size = patch_bytes(releases[0])
    buffer = sum(exchange.size_bytes for exchange in WORLD.day(3, 0))
    for total, decision in ((buffer + size - 1, "infeasible"), (buffer + size, "retune")):
        quota = Quota(buffer_bytes=buffer, total_bytes=total)
        state, report = live(night_order(releases[0], policy(AlwaysRetune(), quota)))
        assert report.statistics.outcome.decision == decision
        assert (state.patch is None) == (decision == "infeasible")
    assert report.statistics.stored_bytes == total


def test_a_patch_stays_where_new_exchanges_would_not_fit_beside_it(
    releases: tuple[Manifest, Manifest],
) -> None:
    size = patch_bytes(releases[0])
    first = sum(exchange.size_bytes for exchange in WORLD.day(3, 0))
    quota = Quota(buffer_bytes=10 * first, total_bytes=first + size)
    chosen = policy(AlwaysReuse(), quota)
    state, _ = live(night_order(releases[0], chosen))
    assert state.stored_bytes == quota.total_bytes
    later, _ = live(night_order(releases[0], chosen, 1), state)
    assert later.patch is state.patch
    # The buffer makes room among its own: the newest exchanges that fit beside the patch.
    assert later.buffer[-3:] == WORLD.day(3, 1)
    assert first - 200 < later.buffer_bytes <= first


def test_a_step_over_the_memory_is_infeasible(releases: tuple[Manifest, Manifest]) -> None:
    small = Coefficient(value=1e-3, low=1e-3, high=1e-3, tier="E", source="a test")
    profile = replace(PROFILE, ram_gb=small)
    state, report = live(night_order(releases[0], policy(AlwaysRetune()), profile=profile))
    outcome = report.statistics.outcome
    assert (outcome.decision, outcome.reason) == ("infeasible", "over_memory")
    assert state.patch is None
    assert Stage.TUNE not in stages(report)


def test_an_empty_buffer_is_infeasible(releases: tuple[Manifest, Manifest]) -> None:
    quota = Quota(buffer_bytes=1, total_bytes=10**6)
    _, report = live(night_order(releases[0], policy(AlwaysRetune(), quota)))
    outcome = report.statistics.outcome
    assert (outcome.decision, outcome.reason) == ("infeasible", "empty_buffer")


def test_an_infeasible_retune_keeps_the_old_patch(releases: tuple[Manifest, Manifest]) -> None:
    state, _ = live(night_order(releases[0], policy(AlwaysRetune())))
    small = Coefficient(value=1e-3, low=1e-3, high=1e-3, tier="E", source="a test")
    night = night_order(
        releases[1], policy(AlwaysRetune()), 1, profile=replace(PROFILE, ram_gb=small)
    )
    later, report = live(night, state)
    assert report.statistics.outcome.decision == "infeasible"
    assert later.patch is state.patch


def test_never_personalise_drops_the_patch(releases: tuple[Manifest, Manifest]) -> None:
    state, _ = live(night_order(releases[0], policy(AlwaysRetune())))
    later, report = live(night_order(releases[1], policy(NeverPersonalise()), 1), state)
    assert later.patch is None
    assert report.statistics.outcome.decision == "never"


@settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    buffer_bytes=st.integers(1, 60) | st.integers(400, 1500),
    spare=st.integers(-900, 100),
    adaptation=st.sampled_from(
        [AlwaysRetune(), AlwaysReuse(), NeverPersonalise(), Retrieve(neighbours=1)]
    ),
    selection=st.sampled_from([Fifo(), Reservoir()]),
    rounds=st.lists(st.integers(1, 3), min_size=2, max_size=4),
)
def test_no_quota_is_ever_exceeded_and_no_patch_ever_lost(
    releases: tuple[Manifest, Manifest],
    buffer_bytes: int,
    spare: int,
    adaptation: Adaptation,
    selection: Fifo | Reservoir,
    rounds: list[int],
) -> None:
    # around what buffer, patch and a few embeddings take together, where the limits bind
    total_bytes = max(buffer_bytes, buffer_bytes + patch_bytes(releases[0]) + spare)
    quota = Quota(buffer_bytes=buffer_bytes, total_bytes=total_bytes)
    chosen = replace(policy(adaptation, quota, steps=1), selection=selection)
    state, round_, had = DeviceState(), -1, False
    for index, slept in enumerate(rounds):
        round_ += slept
        state, report = live(night_order(releases[index % 2], chosen, round_), state)
        assert state.buffer_bytes <= buffer_bytes
        assert state.stored_bytes <= quota.total_bytes
        assert report.statistics.stored_bytes == state.stored_bytes
        assert report.statistics.buffer_bytes == state.buffer_bytes
        if had:
            assert state.patch is not None
        had = state.patch is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diary:
    """A population that notes which days were asked for, and has nobody outside its fleet."""

    asked: list[int] = field(default_factory=list[int])
    users: int = 10
    labels: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()

    def day(self, user: int, day: int) -> tuple[Exchange, ...]:
        self.asked.append(day)
        return WORLD.day(user, day)

    def outside(self, count: int, seed: int) -> Sequence[tuple[Exchange, ...]]:
        return ()


def test_a_device_that_slept_reads_all_the_days_it_missed(
    releases: tuple[Manifest, Manifest],
) -> None:
    diary = Diary()
    chosen = policy(NeverPersonalise())
    state, _ = live(night_order(releases[0], chosen, 0, diary))
    state, _ = live(night_order(releases[0], chosen, 4, diary), state)
    assert diary.asked == [0, 1, 2, 3, 4]
    assert state.last_day == 4
    everything = tuple(exchange for day in range(5) for exchange in WORLD.day(3, day))
    assert state.buffer == everything


def test_the_observer_looks_at_a_later_day_that_the_device_never_holds(
    releases: tuple[Manifest, Manifest],
) -> None:
    diary = Diary()
    chosen = policy(AlwaysRetune())
    state = DeviceState()
    for round_ in range(3):
        diary.asked.clear()
        state, report = live(night_order(releases[0], chosen, round_, diary), state, observed=True)
        # the night's own day; the observer's later one, and all before it for what is new
        assert diary.asked == [round_, round_ + 1, *range(round_ + 1)]
        assert max(exchange.day for exchange in state.buffer) == round_
        assert not set(WORLD.day(3, round_ + 1)) & set(state.buffer)
        assert report.observation is not None
        assert report.observation.exchanges == 3


def test_being_observed_changes_neither_state_nor_statistics(
    releases: tuple[Manifest, Manifest],
) -> None:
    night = night_order(releases[0], policy(AlwaysRetune()))
    seen_state, seen = live(night, observed=True)
    state, unseen = live(night)
    assert seen.statistics == unseen.statistics
    assert unseen.observation is None
    assert seen_state.patch is not None
    assert state.patch is not None
    assert seen_state.patch.digest() == state.patch.digest()


def test_retrieval_pays_for_embeddings_and_longer_prompts(
    releases: tuple[Manifest, Manifest],
) -> None:
    night = night_order(releases[0], policy(Retrieve(neighbours=2)))
    state, report = live(night)
    ledger, shapes = report.statistics.ledger, releases[0].shapes
    examples = [night.facts.encoder(releases[0]).example(e) for e in WORLD.day(3, 0)]
    prompts = [example.prompt for example in examples]
    # Selecting embeds every new prompt once: a forward pass through the lower 4 of 8 layers, at
    # 300 GFLOP/s or 17 GB/s, 6.2 W.
    assert shapes.layers == 8
    embedding = forward_work(replace(shapes, layers=4), prompts, 0, {})
    assert ledger.of(Stage.SELECT).energy_j == pytest.approx(5.7 * seconds(embedding, 300))
    # Serving embeds each question and reads it with two turns of the buffer's mean length before
    # it, as far as 128 tokens allow; the answer is written after all of that.
    turn = sum(len(example.tokens) for example in examples) / len(examples)
    longer = [min(prompt + round(2 * turn), 128) for prompt in prompts]
    prefill, decode = embedding, Work()
    for prompt, example in zip(longer, examples, strict=True):
        prefill += forward_work(shapes, [prompt], 1, {})
        decode += decode_work(shapes, prompt, example.supervised, {})
    serve = ledger.of(Stage.SERVE)
    assert serve.work_flop == prefill.flop + decode.flop
    served_j = 5.7 * seconds(prefill, 300) + 7.2 * seconds(decode, 300)
    assert serve.energy_j == pytest.approx(served_j)
    _, without = live(night_order(releases[0], policy(NeverPersonalise())))
    assert serve.energy_j > without.statistics.ledger.of(Stage.SERVE).energy_j
    assert state.extra_bytes == EMBEDDING_BYTES * shapes.hidden * len(state.buffer)
    assert Stage.TUNE not in stages(report)


@pytest.mark.parametrize("embeddings", [0, 1, 2])
def test_embeddings_count_against_the_quota(
    releases: tuple[Manifest, Manifest], embeddings: int
) -> None:
    newest = WORLD.day(3, 0)[6 - embeddings :]
    vector = EMBEDDING_BYTES * releases[0].shapes.hidden
    needed = sum(exchange.size_bytes + vector for exchange in newest)
    quota = Quota(buffer_bytes=max(needed, 1), total_bytes=max(needed, 1))
    state, _ = live(night_order(releases[0], policy(Retrieve(neighbours=1), quota)))
    assert state.buffer == newest
    assert state.stored_bytes == needed
