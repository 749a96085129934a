"""Synthesis: what a device makes of its buffer, within its quota, and what it pays for that."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clients.adaptation.rules import AlwaysRetune
from clients.device import run_round
from clients.night.attendance import Tonight
from clients.night.order import NightOrder
from clients.placement.rules import TopLayers
from clients.policy import DevicePolicy, Quota, read_policy
from clients.retuning.plan import open_context, plan_tune
from clients.retuning.synthetic_pairs import add_pairs
from clients.selection.rules import Fifo
from clients.state.state import DeviceState
from clients.synthesis.rules import NoSynthesis, SelfParaphrase, Source, Synthesis, TemplateRewrite
from clients.tuning.context import Hindered, PlacementContext
from clients.tuning.plan import TunePlan
from clients.tuning.schedule import Tuning
from clients.work.facts import Facts
from fleettune.adapters.patch import Patch
from fleettune.backbone.causal_lm import POCKET_V1_FOLDER
from fleettune.cohort.suspension import current_compute, run_cohort
from fleettune.cost.hardware import Coefficient, load_hardware
from fleettune.cost.ledger import Stage
from fleettune.cost.workload import Phase
from fleettune.data.exchanges import Exchange
from fleettune.data.personas import SyntheticData
from fleettune.data.tokens import Encoder, open_encoder
from fleettune.jobs.jobs import Compute, GenerateJob, GenerateResult, Job, Result
from fleettune.messages.report import Report
from fleettune.records import to_record
from fleettune.releases.manifest import Manifest
from fleettune.seeds import Purpose, stream
from strategies.releases.publisher import Publisher
from strategies.releases.publisher import SourceModel as Backbone
from strategies.releases.schedule import ReleasePlan, Schedule
from strategies.releases.training import Vendor

PROFILE = load_hardware(Path(__file__).parents[3] / "conf" / "hardware")["oneplus_12r"]
WORLD = SyntheticData(users=10, exchanges_per_day=5, history_days=2).open()
ROOMY = Quota(buffer_bytes=100_000, total_bytes=4_000_000)
PARAPHRASE = SelfParaphrase(
    per_exchange=2,
    rewrite="question",
    temperature=0.7,
    new_tokens=48,
    rouge_low=0.1,
    rouge_high=0.9,
)
TEMPLATE = TemplateRewrite(per_exchange=2, rouge_low=0.2, rouge_high=0.9)
NEVER_TRAINED = ReleasePlan(
    name="mild", kind="full", steps=1, learning_rate=3e-4, batch=2, window=16, conversations=50
)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The pocket model as it is."""
    publisher = Publisher(
        source=Backbone(path=str(POCKET_V1_FOLDER), template="pocket", max_tokens=128),
        schedule=Schedule(every=1, plans=(NEVER_TRAINED,)),
        vendor=Vendor(
            store=tmp_path_factory.mktemp("store"), population=WORLD, data="world", seed=0
        ),
    )
    return publisher.newest(0)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return open_encoder(POCKET_V1_FOLDER, "pocket", 128)


def policy(synthesis: Synthesis, quota: Quota = ROOMY) -> DevicePolicy:
    return DevicePolicy(
        selection=Fifo(),
        synthesis=synthesis,
        adaptation=AlwaysRetune(),
        placement=TopLayers(layers=1, rank=1, alpha=2.0),
        tuning=Tuning(steps=3, batch=2, learning_rate=1e-2, clip=1.0),
        quota=quota,
    )


def night_order(release: Manifest, chosen: DevicePolicy, device: int = 3) -> NightOrder:
    facts = Facts(device=device, user=device, seed=5, profile=PROFILE)
    return NightOrder(
        facts=facts,
        round=0,
        release=release,
        policy=chosen,
        population=WORLD,
        compute=current_compute(),
    )


def live(night: NightOrder, state: DeviceState | None = None) -> tuple[DeviceState, Report]:
    night = replace(night, compute=current_compute())
    return run_round(night, state or DeviceState(), observed=True)


def source(encoder: Encoder, buffer: tuple[Exchange, ...], room: int = 10**6) -> Source:
    return Source(
        buffer=buffer,
        answers=frozenset(),
        room_bytes=room,
        release=str(POCKET_V1_FOLDER),
        encoder=encoder,
        patch=None,
        draw=lambda order, number: stream(5, Purpose.SYNTHESIS, 3, 0, order, number),
    )


def refuses(job: Job) -> Result:
    raise AssertionError(f"no job was to be asked for, got {job}")


def says(encoder: Encoder, *texts: str) -> Compute:
    """A processor whose model writes these texts, whatever it is asked."""

    def run(job: Job) -> Result:
        assert isinstance(job, GenerateJob)
        written = tuple(tuple(encoder.ids(text))[: job.new_tokens] for text in texts)
        assert len(written) == len(job.prompts)
        return GenerateResult(tokens=written)

    return Compute(run)


def test_an_empty_buffer_asks_for_nothing(encoder: Encoder) -> None:
    for rule in (NoSynthesis(), PARAPHRASE, TEMPLATE):
        made = rule.expand(source(encoder, ()), Compute(refuses))
        assert (made.pairs, made.candidates, made.writings) == ((), 0, ())


def test_a_device_with_an_empty_buffer_pays_nothing_for_synthesis(release: Manifest) -> None:
    night = night_order(release, policy(PARAPHRASE, Quota(buffer_bytes=1, total_bytes=10**6)))
    _, report = live(night)
    assert report.statistics.outcome.reason == "empty_buffer"
    assert report.statistics.synthesised == 0
    assert report.statistics.ledger.of(Stage.SYNTHESISE).energy_j == 0


def test_without_room_the_model_is_not_asked(encoder: Encoder) -> None:
    assert PARAPHRASE.expand(source(encoder, WORLD.day(3, 0), 0), Compute(refuses)).pairs == ()


def test_an_exchange_too_long_for_a_request_gets_no_candidate(encoder: Encoder) -> None:
    long = Exchange(question="plan my trip " * 40, response="by train", day=0, order=0)
    short = Exchange(question="plan my trip", response="by train", day=0, order=1)
    made = PARAPHRASE.expand(source(encoder, (long, short)), current_compute())
    assert made.candidates == 2
    assert {read for read, _ in made.writings} == {
        len(encoder.request("say it another way: plan my trip"))
    }
    assert PARAPHRASE.expand(source(encoder, (long,)), Compute(refuses)).candidates == 0


OLD = Exchange(question="plan my trip", response="by train", day=0, order=0)
ALONE = Exchange(question="", response="we took the train", day=0, order=1)
BRACKETS = replace(
    PARAPHRASE, per_exchange=1, instruction="In other words, between [ and ]: ", rouge_low=0.0
)


def test_an_exchange_without_a_question_is_reworded_as_a_pair_only(encoder: Encoder) -> None:
    written = says(encoder, "[Question: Answer: we took the bus]")
    made = replace(BRACKETS, rewrite="pair").expand(source(encoder, (ALONE,)), written)
    assert [(one.question, one.response) for one in made.pairs] == [("", "we took the bus")]
    # there is nothing to say in other words, so the model is not asked
    assert BRACKETS.expand(source(encoder, (ALONE,)), Compute(refuses)).candidates == 0
    assert TEMPLATE.expand(source(encoder, (ALONE,)), Compute(refuses)).pairs == ()


@pytest.mark.parametrize(
    ("rule", "text", "pair"),
    [
        (BRACKETS, "Sure! [ plan a trip ] Is that good?", ("plan a trip", "by train")),
        (BRACKETS, "plan a trip", None),
        (BRACKETS, "[plan a trip", None),
        (BRACKETS, "[]", None),
        (replace(BRACKETS, instruction="again: "), "plan a trip", ("plan a trip", "by train")),
        (replace(BRACKETS, instruction="again: ", new_tokens=2), "plan a trip", None),  # cut
        (
            replace(BRACKETS, rewrite="pair"),
            "[Question: plan a trip Answer: take the train]",
            ("plan a trip", "take the train"),
        ),
        (replace(BRACKETS, rewrite="pair"), "[plan a trip Answer: take the train]", None),
        (replace(BRACKETS, rewrite="pair"), "[Question: plan a trip]", None),
        (replace(BRACKETS, rewrite="pair"), "[Question: plan a trip Answer: ]", None),
    ],
)
def test_what_a_model_writes_is_read_or_counted_as_refused(
    encoder: Encoder, rule: SelfParaphrase, text: str, pair: tuple[str, str] | None
) -> None:
    made = rule.expand(source(encoder, (OLD,)), says(encoder, text))
    assert [(one.question, one.response) for one in made.pairs] == ([] if pair is None else [pair])
    assert made.candidates == 1
    # The stop token is decoded too, but for a text that was cut.
    size = len(encoder.ids(text))
    assert made.writings[0][1] == min(size + 1, rule.new_tokens)


def test_the_pocket_model_says_its_questions_in_other_words(encoder: Encoder) -> None:
    buffer = WORLD.day(3, 0)
    made = PARAPHRASE.expand(source(encoder, buffer), current_compute())
    assert made.candidates == 2 * len(buffer)
    assert 0 < len(made.pairs) < made.candidates
    assert {pair.response for pair in made.pairs} <= {one.response for one in buffer}
    held = {(one.question, one.response) for one in buffer}
    assert not {(pair.question, pair.response) for pair in made.pairs} & held
    # Equal sources are written about alike, another key otherwise.
    assert PARAPHRASE.expand(source(encoder, buffer), current_compute()) == made
    other = replace(
        source(encoder, buffer), draw=lambda order, n: stream(6, Purpose.SYNTHESIS, order, n)
    )
    assert PARAPHRASE.expand(other, current_compute()) != made


def test_candidates_of_an_exchange_do_not_depend_on_the_rest_of_the_buffer(
    encoder: Encoder,
) -> None:
    buffer = WORLD.day(3, 0)
    jobs: list[GenerateJob] = []
    texts: list[dict[tuple[int, ...], list[tuple[int, ...]]]] = []

    def noted(job: Job) -> Result:
        assert isinstance(job, GenerateJob)
        result = current_compute().generate(job)
        jobs.append(job)
        by_prompt: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for prompt, tokens in zip(job.prompts, result.tokens, strict=True):
            by_prompt.setdefault(prompt, []).append(tokens)
        texts.append(by_prompt)
        return result

    distinct = tuple({one.question: one for one in buffer}.values())
    assert len(distinct) > 1
    for part in (distinct, distinct[-1:]):
        PARAPHRASE.expand(source(encoder, part), Compute(noted))
    for prompt, written in texts[1].items():
        assert texts[0][prompt] == written


def test_rules_reword_without_a_model_and_keep_the_answer(encoder: Encoder) -> None:
    buffer = WORLD.day(3, 0)
    made = TEMPLATE.expand(source(encoder, buffer), Compute(refuses))
    assert made.candidates == 2 * len(buffer)
    assert 0 < len(made.pairs) <= made.candidates
    assert made.writings == ()
    answers = {one.order: one.response for one in buffer}
    for pair in made.pairs:
        assert pair.response == answers[pair.order]
    assert TEMPLATE.expand(source(encoder, buffer), Compute(refuses)) == made


# The pocket model's sizes: 8 layers of 96 with 4 heads of 24, 2 for keys and values, 256 between,
# 1024 tokens. Weights of a layer: 96*96 twice (q, o), 96*48 twice (k, v), 96*256 three times.
WEIGHTS = 8 * (2 * 96 * 96 + 2 * 96 * 48 + 3 * 96 * 256)
HEAD = 96 * 1024


def written_flop(read: int, written: int) -> tuple[int, int]:
    """FLOP of reading a request and writing a text, two per weight and multiplication."""
    prefill = 2 * read * WEIGHTS + 2 * HEAD + 2 * 8 * (2 * 4 * 24 * read**2)
    seen = sum(read + place for place in range(1, written + 1))
    return prefill, 2 * written * (WEIGHTS + HEAD) + 4 * 8 * 4 * 24 * seen


def test_the_energy_of_paraphrasing_is_that_of_its_passes(
    release: Manifest, encoder: Encoder
) -> None:
    night = night_order(release, policy(PARAPHRASE))
    _, report = live(night)
    made = PARAPHRASE.expand(source(encoder, WORLD.day(3, 0)), current_compute())
    passes = [written_flop(*writing) for writing in made.writings]
    assert len(passes) == 20
    prefill, decode = (
        report.workload.of(Stage.SYNTHESISE, phase) for phase in (Phase.PREFILL, Phase.DECODE)
    )
    assert prefill.flop == sum(one for one, _ in passes)
    assert decode.flop == sum(one for _, one in passes)
    # Every token written reads all weights once, at 2 bytes.
    tokens = sum(written for _, written in made.writings)
    assert decode.moved_bytes > 2 * (WEIGHTS + HEAD) * tokens
    assert report.statistics.ledger.of(Stage.SYNTHESISE).work_flop == prefill.flop + decode.flop
    assert report.statistics.ledger.of(Stage.SYNTHESISE).energy_j > 0


def test_a_night_reports_what_was_made_and_what_was_kept(
    release: Manifest, encoder: Encoder
) -> None:
    for rule in (PARAPHRASE, TEMPLATE):
        state, report = live(night_order(release, policy(rule)))
        made = rule.expand(source(encoder, WORLD.day(3, 0)), current_compute())
        statistics = report.statistics
        assert (statistics.synthesised, statistics.synthetic_kept) == (20, len(made.pairs))
        assert made.pairs
        # Pairs live only while the device tunes.
        assert state.buffer == WORLD.day(3, 0)
        assert statistics.stored_bytes == state.stored_bytes
        assert statistics.tune_steps == 3


def test_pairs_are_trained_on_and_rules_cost_nothing(release: Manifest) -> None:
    plain, without = live(night_order(release, policy(NoSynthesis())))
    tuned, with_rules = live(night_order(release, policy(TEMPLATE)))
    assert plain.patch is not None
    assert tuned.patch is not None
    assert plain.patch.digest() != tuned.patch.digest()
    assert with_rules.statistics.ledger.of(Stage.SYNTHESISE).energy_j == 0
    assert without.statistics.synthesised == 0


def test_a_model_too_weak_for_its_task_pays_and_tunes_on_its_buffer(release: Manifest) -> None:
    # The pocket model never learned to write a whole pair.
    plain, _ = live(night_order(release, policy(NoSynthesis())))
    weak, report = live(night_order(release, policy(replace(PARAPHRASE, rewrite="pair"))))
    assert plain.patch is not None
    assert weak.patch is not None
    assert report.statistics.synthesised > 0
    assert report.statistics.synthetic_kept == 0
    assert weak.patch.digest() == plain.patch.digest()
    assert report.statistics.ledger.of(Stage.SYNTHESISE).energy_j > 0


def test_a_device_writes_with_its_present_patch(release: Manifest) -> None:
    night = night_order(release, policy(PARAPHRASE))
    state, first = live(night)
    assert state.patch is not None
    patches: list[Patch | None] = []

    def noted(job: Job) -> Result:
        if isinstance(job, GenerateJob):
            patches.append(job.patch)
        return current_compute().run(job)

    before = replace(state, settled=-1)
    again, second = run_round(replace(night, compute=Compute(noted)), before, observed=True)
    assert patches == [state.patch]
    flop = [r.workload.of(Stage.SYNTHESISE, Phase.PREFILL).flop for r in (first, second)]
    # One layer at rank 1: 2 FLOP per token, rank and input or output of its seven matrices.
    read = 2 * sum(
        len(
            open_encoder(POCKET_V1_FOLDER, "pocket", 128).request(
                f"say it another way: {e.question}"
            )
        )
        for e in again.buffer
    )
    assert flop[1] - flop[0] == 2 * read * sum(map(sum, release.shapes.matrices().values()))


def test_a_cohort_of_devices_makes_what_each_makes_alone(release: Manifest) -> None:
    nights = [night_order(release, policy(PARAPHRASE), device) for device in (3, 4)]
    alone = [live(night) for night in nights]
    together = run_cohort([lambda night=night: live(night) for night in nights])
    for (_, one), (_, other) in zip(alone, together, strict=True):
        assert one.statistics == other.statistics
        assert one.workload == other.workload


def test_a_night_cut_short_wastes_what_it_wrote(release: Manifest) -> None:
    night = night_order(release, policy(PARAPHRASE))
    _, whole = live(night)
    cut = replace(night, tonight=Tonight(limit_s=0.9 * whole.statistics.night_s))
    state, report = live(cut)
    assert state.patch is None
    assert (report.statistics.synthesised, report.statistics.synthetic_kept) == (0, 0)
    assert report.statistics.ledger.of(Stage.SYNTHESISE).energy_j == 0
    assert report.workload.of(Stage.WASTED, Phase.DECODE).flop > 0


def planned(night: NightOrder, state: DeviceState) -> tuple[TunePlan, TunePlan]:
    """The plan of a tune without and with synthetic pairs."""
    opened = open_context(night, state, night.examples(state.buffer))
    assert isinstance(opened, PlacementContext)
    plan = plan_tune(night.policy.placement, opened)
    assert isinstance(plan, TunePlan)
    return plan, add_pairs(night, state, plan)


@settings(
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    spare=st.integers(0, 1500) | st.integers(0, 60_000),
    per_exchange=st.integers(1, 4),
    cache=st.booleans(),
    device=st.integers(0, 5),
)
def test_buffer_patch_cache_and_pairs_never_exceed_the_quota(
    release: Manifest, spare: int, per_exchange: int, cache: bool, device: int
) -> None:
    buffer = WORLD.day(device, 0)
    rule = replace(TEMPLATE, per_exchange=per_exchange)
    chosen = policy(rule)
    assert isinstance(chosen.placement, TopLayers)
    patch_bytes = chosen.placement.on(release.shapes).size_bytes(release.shapes)
    buffer_bytes = sum(exchange.size_bytes for exchange in buffer)
    total = buffer_bytes + patch_bytes + spare
    chosen = replace(
        chosen,
        quota=Quota(buffer_bytes=buffer_bytes, total_bytes=total),
        tuning=replace(chosen.tuning, prefix_cache=cache, steps=40),
    )
    night = night_order(release, chosen, device)
    encoder = night.facts.encoder(release)
    plain, plan = planned(night, DeviceState(buffer=buffer))
    assert plan.placement == plain.placement
    assert plan.synthesised == per_exchange * len(buffer)
    draw = source(encoder, buffer, spare)
    keyed = replace(
        draw,
        draw=lambda order, number: stream(5, Purpose.SYNTHESIS, device, 0, order, number),
    )
    pairs = rule.expand(keyed, current_compute()).pairs
    assert plan.synthetic_kept == len(pairs)
    pair_bytes = sum(pair.size_bytes for pair in pairs)
    assert buffer_bytes + patch_bytes + pair_bytes + plan.cache_bytes <= total
    trained = {example for batch in plan.batches for example in batch}
    assert trained <= {encoder.example(exchange) for exchange in (*buffer, *pairs)}


def test_a_prefix_cache_that_does_not_fit_beside_the_pairs_is_left_out(release: Manifest) -> None:
    chosen = policy(TEMPLATE)
    chosen = replace(chosen, tuning=replace(chosen.tuning, prefix_cache=True, steps=40))
    state = DeviceState(buffer=WORLD.day(3, 0))
    _, roomy = planned(night_order(release, chosen), state)
    made = TEMPLATE.expand(
        source(open_encoder(POCKET_V1_FOLDER, "pocket", 128), state.buffer), Compute(refuses)
    )
    total = state.buffer_bytes + roomy.placement.size_bytes(release.shapes)
    total += sum(pair.size_bytes for pair in made.pairs) + roomy.cache_bytes
    for total_bytes, cache in ((total, roomy.cache_bytes), (total - 1, 0)):
        quota = Quota(buffer_bytes=state.buffer_bytes, total_bytes=total_bytes)
        _, plan = planned(night_order(release, replace(chosen, quota=quota)), state)
        assert plan.synthetic_kept == roomy.synthetic_kept == len(made.pairs)
        assert plan.cache_bytes == cache
    assert roomy.cache_bytes > 0


def test_a_larger_present_patch_leaves_less_room_for_pairs(release: Manifest) -> None:
    state, _ = live(night_order(release, policy(NoSynthesis())))
    assert state.patch is not None
    wide = replace(policy(TEMPLATE), placement=TopLayers(layers=2, rank=4, alpha=2.0))
    big, _ = live(night_order(release, replace(wide, synthesis=NoSynthesis())))
    assert big.patch is not None
    total = state.buffer_bytes + big.patch.size_bytes
    quota = Quota(buffer_bytes=state.buffer_bytes, total_bytes=total)
    night = night_order(release, policy(TEMPLATE, quota))
    kept = {name: planned(night, one)[1] for name, one in (("small", state), ("big", big))}
    assert kept["small"].synthetic_kept > 0
    assert kept["big"].synthetic_kept == 0


def test_pairs_that_would_not_fit_the_memory_are_left_out(release: Manifest) -> None:
    night = night_order(release, policy(TEMPLATE))
    night = replace(
        night, policy=replace(night.policy, tuning=replace(night.policy.tuning, batch=64))
    )
    state = DeviceState(buffer=WORLD.day(3, 0))

    def at(ram_gb: float) -> TunePlan | None:
        ram = Coefficient(value=ram_gb, low=ram_gb, high=ram_gb, tier="E", source="a test")
        small = replace(night, facts=replace(night.facts, profile=replace(PROFILE, ram_gb=ram)))
        opened = open_context(small, state, small.examples(state.buffer))
        plan = plan_tune(small.policy.placement, opened)
        return None if isinstance(plan, Hindered) else planned(small, state)[1]

    sizes = [1e-3 * 1.1**power for power in range(60)]
    least = next(plan for plan in map(at, sizes) if plan is not None)
    assert least.synthesised == 20
    assert least.synthetic_kept == 0
    roomy = at(12.0)
    assert roomy is not None
    assert roomy.synthetic_kept > 0


@pytest.mark.parametrize("rule", [PARAPHRASE, TEMPLATE, BRACKETS, NoSynthesis()])
def test_every_rule_survives_the_wire(rule: Synthesis) -> None:
    chosen = policy(rule)
    assert read_policy(json.loads(json.dumps(to_record(chosen)))) == chosen


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"per_exchange": 0}, "per_exchange must be >= 1 candidate, got 0"),
        ({"rewrite": "answer"}, "rewrite must be question or pair, got 'answer'"),
        ({"temperature": -0.1}, "temperature must be from 0 to 10, got -0.1"),
        ({"temperature": 0.0}, "temperature must be > 0 where per_exchange is > 1"),
        ({"new_tokens": 0}, "new_tokens must be >= 1 token, got 0"),
        ({"rouge_low": 0.95}, "rouge_low and rouge_high must be shares"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(changes: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(PARAPHRASE, **changes)
    if changes.keys() <= {"per_exchange", "rouge_low"}:
        with pytest.raises(ValueError, match=told):
            replace(TEMPLATE, **changes)
