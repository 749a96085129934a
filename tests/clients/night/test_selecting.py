"""A night's reading: what is embedded and paid, held under the quota, asked, and never told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from flwr.app import RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clients.adaptation.protocol import Adaptation
from clients.adaptation.rules import AlwaysRetune, NeverPersonalise, Retrieve
from clients.device import run_round
from clients.night.order import NightOrder
from clients.placement.rules import TopLayers
from clients.policy import DevicePolicy, Quota, read_policy
from clients.selection.annotation import Annotation
from clients.selection.buffer import Arrival, Item, Note
from clients.selection.coresets import Herding, KCenter
from clients.selection.lexicon import read_lexicons
from clients.selection.quality import QualityReplace
from clients.selection.rules import Fifo, Priority, RandomReplace, Reservoir, Selection
from clients.state.state import DeviceState, read_state, write_state
from clients.synthesis.rules import NoSynthesis
from clients.tuning.schedule import Tuning
from clients.work.facts import Facts
from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, read_shapes
from fleettune.cohort.suspension import current_compute
from fleettune.cost.hardware import load_hardware
from fleettune.cost.ledger import Stage
from fleettune.cost.work import forward_work
from fleettune.cost.workload import Phase
from fleettune.data.personas import SyntheticData
from fleettune.deltas.frames import read_frame
from fleettune.messages.flower_records import encode_report, take_observation
from fleettune.messages.report import Report, Writing
from fleettune.records import to_record
from fleettune.releases.manifest import Manifest
from fleettune.releases.model_files import folder_digest, weights_bytes

CONF = Path(__file__).parents[3] / "conf"
PROFILE = load_hardware(CONF / "hardware")["oneplus_12r"]
WORLD = SyntheticData(users=10, exchanges_per_day=3, history_days=2).open()
LEXICON = read_lexicons((CONF / "lexicons" / "everyday.txt").read_text())
PUBLISHED = QualityReplace(lexicon=LEXICON)
MANIFEST = Manifest(
    version=0,
    name="pocket",
    path=str(POCKET_V1_FOLDER),
    digest=folder_digest(POCKET_V1_FOLDER),
    size_bytes=weights_bytes(POCKET_V1_FOLDER),
    shapes=read_shapes(POCKET_V1_FOLDER),
    template="pocket",
    max_tokens=128,
)
VECTOR = 2 * MANIFEST.shapes.hidden
RULES = (
    Fifo(),
    Reservoir(),
    RandomReplace(),
    KCenter(),
    Herding(),
    PUBLISHED,
    replace(PUBLISHED, scores=("eoe", "idd")),
    replace(PUBLISHED, scores=("dss",)),
    replace(PUBLISHED, rule="balanced", idd="nearest", eoe="standardised", vectors="again"),
    replace(PUBLISHED, rule="balanced", scores=("dss",)),
    KCenter(vectors="again"),
    Herding(vectors="again"),
)
DEVICE = Facts(device=3, user=3, seed=5, profile=PROFILE)


def policy(
    selection: Selection,
    adaptation: Adaptation | None = None,
    quota: Quota | None = None,
    per_1000: float | None = None,
) -> DevicePolicy:
    return DevicePolicy(
        selection=selection,
        synthesis=NoSynthesis(),
        adaptation=adaptation or NeverPersonalise(),
        placement=TopLayers(layers=1, rank=1, alpha=2.0),
        tuning=Tuning(steps=1, batch=2, learning_rate=1e-2, clip=1.0),
        quota=quota or Quota(buffer_bytes=100_000, total_bytes=4_000_000),
        annotation=Annotation(per_1000=per_1000),
    )


def night_order(chosen: DevicePolicy, round_: int = 0) -> NightOrder:
    return NightOrder(
        facts=DEVICE,
        round=round_,
        release=MANIFEST,
        policy=chosen,
        population=WORLD,
        compute=current_compute(),
    )


def live(
    chosen: DevicePolicy, round_: int = 0, state: DeviceState | None = None, *, seen: bool = False
) -> tuple[DeviceState, Report]:
    return run_round(night_order(chosen, round_), state or DeviceState(), observed=seen)


@settings(
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    selection=st.sampled_from(RULES),
    buffer_bytes=st.integers(1, 1500),
    spare=st.integers(-900, 2000),
    adaptation=st.sampled_from([AlwaysRetune(), NeverPersonalise(), Retrieve(neighbours=1)]),
    per_1000=st.none() | st.floats(0, 1000),
)
def test_no_selection_exceeds_a_quota_or_the_budget_of_questions(
    selection: Selection,
    buffer_bytes: int,
    spare: int,
    adaptation: Adaptation,
    per_1000: float | None,
) -> None:
    patch = TopLayers(layers=1, rank=1, alpha=2.0).on(MANIFEST.shapes)
    total = max(buffer_bytes, buffer_bytes + patch.size_bytes(MANIFEST.shapes) + spare)
    quota = Quota(buffer_bytes=buffer_bytes, total_bytes=total)
    chosen, state, asked = policy(selection, adaptation, quota, per_1000), DeviceState(), 0
    for round_ in range(3):
        state, report = live(chosen, round_, state)
        texts = sum(exchange.size_bytes for exchange in state.buffer)
        kept = sum(len(note.vector) + 4 * len(note.scores) for note in state.notes)
        retrieved = isinstance(adaptation, Retrieve) * 4 * MANIFEST.shapes.hidden
        patched = 0 if state.patch is None else state.patch.size_bytes
        assert texts + kept <= buffer_bytes
        assert texts + kept + retrieved * len(state.buffer) + patched <= total
        assert report.statistics.buffer_bytes == texts + kept
        asked += report.statistics.asked
        assert asked == state.asked
        if per_1000 is not None:
            assert asked <= per_1000 * state.seen / 1000
            assert len(state.answered) <= asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Hoarder:
    """A selection of an operator's own that heeds no quota."""

    def keep(
        self,
        held: Sequence[Item],
        arrived: Sequence[Arrival],
        quota_bytes: int,
        priority: Priority,
    ) -> tuple[Item, ...]:
        new = [Item(exchange=reading.exchange, note=Note(asked=True)) for reading in arrived]
        return (*held, *new)


def test_not_even_a_selection_of_ones_own_can_exceed_a_quota_or_make_up_answers() -> None:
    quota = Quota(buffer_bytes=200, total_bytes=10**6)
    state, _ = live(policy(Hoarder(), quota=quota, per_1000=0))
    assert state.buffer == live(policy(Fifo(), quota=quota))[0].buffer
    assert state.answered == ()


def test_what_is_embedded_is_paid_by_its_flop() -> None:
    examples = [DEVICE.encoder(MANIFEST).example(exchange) for exchange in WORLD.day(3, 0)]
    _, report = live(policy(KCenter()), seen=True)
    # a forward pass through the lower 4 of 8 layers
    tokens = [len(example.tokens) for example in examples]
    work = forward_work(replace(MANIFEST.shapes, layers=4), tokens, 0, {})
    (spent,) = [
        amount
        for stage, phase, amount in report.workload.entries
        if (stage, phase) == (Stage.SELECT, Phase.PREFILL)
    ]
    assert spent.flop == work.flop
    assert report.statistics.ledger.of(Stage.SELECT).energy_j > 0


@pytest.mark.parametrize(
    "selection", [Fifo(), Reservoir(), RandomReplace(), replace(PUBLISHED, scores=("dss",))]
)
def test_a_selection_without_embeddings_pays_nothing(selection: Selection) -> None:
    _, report = live(policy(selection))
    assert Stage.SELECT not in dict(report.statistics.ledger.costs)


def test_counters_of_arrivals_by_hand() -> None:
    # two days of 3 before the first night, then 3 a night; two exchanges fit
    newest = WORLD.day(3, 0)[-2:]
    quota = Quota(buffer_bytes=sum(e.size_bytes for e in newest), total_bytes=10**6)
    state, report = live(policy(Fifo(), quota=quota))
    statistics = report.statistics
    assert (statistics.arrived, statistics.accepted, statistics.asked) == (6, 2, 2)
    assert (state.seen, state.asked, state.buffer) == (6, 2, newest)


def test_an_exchange_that_was_not_asked_about_cannot_be_tuned_on() -> None:
    # 6 exchanges at 400 per 1,000 are 2 questions, about the newest two
    state, report = live(policy(Fifo(), AlwaysRetune(), per_1000=400))
    newest = WORLD.day(3, 0)[-2:]
    assert state.answered == newest
    assert len(state.buffer) == 6
    tokens = sum(len(DEVICE.encoder(MANIFEST).example(e).tokens) for e in newest)
    assert report.statistics.train_tokens == tokens
    assert report.statistics.asked == 2
    # the next day's 3 make 9, so one question more
    _, report = live(policy(Fifo(), AlwaysRetune(), per_1000=400), 1, state)
    assert report.statistics.asked == 1
    silent, report = live(policy(Fifo(), AlwaysRetune(), per_1000=0))
    assert (silent.patch, report.statistics.outcome.decision) == (None, "infeasible")


def test_a_state_with_embeddings_and_scores_survives_its_records() -> None:
    state, _ = live(policy(PUBLISHED, per_1000=300))
    assert {len(note.vector) for note in state.notes} == {VECTOR}
    assert {note.asked for note in state.notes} == {True, False}
    records = RecordDict()
    write_state(records, state)
    assert read_state(records) == state


def test_equal_nights_select_alike() -> None:
    chosen = policy(PUBLISHED, quota=Quota(buffer_bytes=900, total_bytes=10**6))
    first, second = (live(chosen)[0] for _ in range(2))
    assert first == second
    assert 0 < len(first.buffer) < 6


@pytest.mark.parametrize("selection", RULES, ids=lambda rule: type(rule).__name__)
def test_no_exchange_leaves_a_device(selection: Selection) -> None:
    chosen = policy(selection, AlwaysRetune(), per_1000=500)
    state, report = live(chosen, seen=True)
    content = encode_report(report)
    take_observation(content)
    assert set(content) <= {"delta", "statistics", "outcome"}
    told = [
        str(value)
        for records in (content.metric_records, content.config_records)
        for record in records.values()
        for pair in record.items()
        for value in pair
    ]
    assert state.buffer
    assert state.patch is not None
    for exchange in WORLD.day(3, 0):
        assert not [word for word in told if exchange.question in word or exchange.response in word]
    # embeddings stay as well: the one array is the frame of the patch's factors
    for record in content.array_records.values():
        assert sum(len(array.data) for array in record.values()) < 2 * state.patch.size_bytes
        assert set(record) == {"frame"}
    assert report.frame is not None
    assert read_frame(report.frame).digest() == state.patch.digest()


@pytest.mark.parametrize("selection", RULES, ids=lambda rule: type(rule).__name__)
def test_a_policy_with_any_selection_crosses_as_data(selection: Selection) -> None:
    chosen = policy(selection, per_1000=20)
    assert read_policy(to_record(chosen)) == chosen


@pytest.mark.parametrize("selection", [KCenter(), Herding(), PUBLISHED])
def test_embeddings_made_again_select_alike_and_are_paid_for(selection: Selection) -> None:
    again = replace(selection, vectors="again")  # pyright: ignore[reportArgumentType]
    kept, made = live(policy(selection)), live(policy(again))
    bare = sum(len(note.vector) for note in kept[0].notes)
    assert bare > 0
    assert sum(len(note.vector) for note in made[0].notes) == 0
    assert kept[0].buffer_bytes - made[0].buffer_bytes == bare
    assert made[0].buffer == kept[0].buffer
    later_kept, later_made = live(policy(selection), 1, kept[0]), live(policy(again), 1, made[0])
    assert later_made[0].buffer == later_kept[0].buffer
    # the first night has nothing to embed again, the second one has
    select_j = [one[1].statistics.ledger.of(Stage.SELECT).energy_j for one in (kept, made)]
    assert select_j[0] == select_j[1]
    later_j = [
        one[1].statistics.ledger.of(Stage.SELECT).energy_j for one in (later_kept, later_made)
    ]
    assert later_j[1] > later_j[0]


def test_answers_are_written_only_where_the_observer_asks() -> None:
    none = live(policy(Fifo()), seen=True)[1].observation
    assert none is not None
    assert none.rouge1 is None
    night = replace(night_order(policy(Fifo())), writing=Writing(answers=2, new_tokens=24))
    _, report = run_round(night, DeviceState(), observed=True)
    assert report.observation is not None
    assert report.observation.rouge1 is not None
    assert 0 <= report.observation.rouge1 <= 1
    assert replace(report.observation, rouge1=None) == none
