"""A device's night: what it charges, what it keeps under its quota, what it never sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from flwr.app import RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clients.adaptation import (
    Adaptation,
    AlwaysRetune,
    AlwaysReuse,
    EdgeTuneReleased,
    NeverPersonalise,
    Retrieve,
)
from clients.device import EMBEDDING_BYTES, Visit, new_start, run_round
from clients.facts import Facts
from clients.placement import TopLayers
from clients.policy import DevicePolicy, Quota
from clients.selection import Fifo, Reservoir
from clients.state import DeviceState, read_state, write_state
from clients.synthesis import NoSynthesis
from clients.tuning import Tuning
from fleettune.adapters import to_arrays
from fleettune.backbone import POCKET_FOLDER
from fleettune.cost import Stage
from fleettune.exchanges import Answer, Exchange, Population
from fleettune.hardware import Coefficient, DeviceProfile, load_hardware
from fleettune.personas import SyntheticData
from fleettune.releases import Manifest
from fleettune.seeds import Purpose, stream
from fleettune.statistics import Report
from fleettune.suspension import current_compute
from fleettune.work import Work, forward_work, training_work
from strategies.publisher import Publisher, Source
from strategies.schedule import ReleasePlan, Schedule
from strategies.training import Vendor

PROFILE = load_hardware(Path(__file__).parents[2] / "conf" / "hardware")["oneplus_12r"]
WORLD = SyntheticData(users=10, exchanges_per_day=3, history_days=2).open()
ROOMY = Quota(buffer_bytes=100_000, total_bytes=4_000_000)
PLAN = ReleasePlan(
    name="mild", kind="full", steps=2, learning_rate=3e-4, batch=2, window=16, conversations=50
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny matrices on several threads wait for each other longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Manifest]:
    """The pocket model as it is, and a release trained from it."""
    publisher = Publisher(
        source=Source(path=str(POCKET_FOLDER), template="pocket", max_tokens=128),
        schedule=Schedule(every=1, plans=(PLAN,)),
        vendor=Vendor(
            store=tmp_path_factory.mktemp("store"), population=WORLD, data="world", seed=0
        ),
    )
    return publisher.newest(0), publisher.newest(1)


def policy(adaptation: Adaptation, quota: Quota = ROOMY, steps: int = 2) -> DevicePolicy:
    return DevicePolicy(
        selection=Fifo(),
        synthesis=NoSynthesis(),
        adaptation=adaptation,
        placement=TopLayers(layers=1, rank=1, alpha=2.0),
        tuning=Tuning(steps=steps, batch=2, learning_rate=1e-2, clip=1.0),
        quota=quota,
    )


def visit(
    release: Manifest,
    chosen: DevicePolicy,
    round_: int = 0,
    population: Population = WORLD,
    profile: DeviceProfile = PROFILE,
) -> Visit:
    facts = Facts(device=3, user=3, seed=5, profile=profile, population=population)
    return Visit(facts=facts, round=round_, release=release, policy=chosen)


def live(
    night: Visit, state: DeviceState | None = None, *, observed: bool = False
) -> tuple[DeviceState, Report]:
    return run_round(night, state or DeviceState(), current_compute(), observed=observed)


def stages(report: Report) -> set[Stage]:
    return {stage for stage, _ in report.statistics.ledger.costs}


def test_the_first_night_is_priced_as_by_hand(releases: tuple[Manifest, Manifest]) -> None:
    night = visit(releases[0], policy(AlwaysRetune()))
    state, report = live(night)
    ledger = report.statistics.ledger
    assert stages(report) == {Stage.IDLE, Stage.DOWNLOAD, Stage.TUNE, Stage.UPLOAD}

    # Download: all bytes at 50 Mbit/s, radio at 1.32 W.
    size_bytes = next(Path(releases[0].path).glob("*.safetensors")).stat().st_size
    down_s = size_bytes * 8 / 50e6
    download = ledger.of(Stage.DOWNLOAD)
    assert download.time_s == pytest.approx(down_s)
    assert download.energy_j == pytest.approx(1.32 * down_s)
    assert download.down_bytes == size_bytes

    # Upload: the patch in fp32 and 1024 bytes of statistics at 50 Mbit/s, radio at 1.62 W. One
    # layer at rank 1 is 4 bytes times inputs plus outputs of its seven matrices.
    patch_bytes = 4 * sum(map(sum, releases[0].shapes.matrices().values()))
    assert state.patch is not None
    assert state.patch.size_bytes == patch_bytes
    up_s = (patch_bytes + 1024) * 8 / 50e6
    assert ledger.of(Stage.UPLOAD).energy_j == pytest.approx(1.62 * up_s)
    assert ledger.of(Stage.UPLOAD).up_bytes == patch_bytes + 1024

    # While it waits for the radio the rest of the device draws 0.5 W; those seconds are counted
    # with the transfer.
    assert ledger.of(Stage.IDLE).energy_j == pytest.approx(0.5 * (down_s + up_s))
    assert ledger.of(Stage.IDLE).time_s == 0

    # Tune: the longer of FLOP at 50 GFLOP/s and bytes at 17 GB/s, over all steps, at 2.68 W.
    work = tuning_work(night, state)
    tune_s = max(work.flop / 50e9, work.traffic_bytes / 17e9)
    tune = ledger.of(Stage.TUNE)
    assert tune.work_flop == work.flop
    assert tune.time_s == pytest.approx(tune_s)
    assert tune.energy_j == pytest.approx(2.68 * tune_s)


def tuning_work(night: Visit, state: DeviceState) -> Work:
    """The work of every step's own batch, added up."""
    facts, release = night.facts, night.release
    examples = [facts.encoder(release).example(exchange) for exchange in state.buffer]
    rng = stream(facts.seed, Purpose.TUNING, facts.device, release.version)
    total = Work()
    for batch in night.policy.tuning.batches(examples, rng):
        lengths = [len(example.tokens) for example in batch]
        ranks = dict.fromkeys(new_start(night).factors, 1)
        supervised = sum(example.supervised for example in batch)
        total = total + training_work(release.shapes, lengths, supervised, ranks)
    return total


def test_tuning_changes_the_patch_and_counts_its_steps_and_tokens(
    releases: tuple[Manifest, Manifest],
) -> None:
    night = visit(releases[0], policy(AlwaysRetune(), steps=3))
    state, report = live(night)
    assert state.patch is not None
    assert state.patch.digest() != new_start(night).digest()
    assert report.delta is state.patch
    # 6 exchanges are on the device; batches of 2 for 3 steps are each of them once.
    lengths = [len(night.facts.encoder(releases[0]).example(e).tokens) for e in state.buffer]
    assert (report.statistics.tune_steps, report.statistics.train_tokens) == (3, sum(lengths))


def test_a_night_without_a_new_release_costs_its_report_alone(
    releases: tuple[Manifest, Manifest],
) -> None:
    chosen = policy(AlwaysRetune())
    state, _ = live(visit(releases[0], chosen))
    again, report = live(visit(releases[0], chosen, 1), state)
    outcome = report.statistics.outcome
    assert (outcome.decision, outcome.reason) == ("none", "same_release")
    assert stages(report) == {Stage.IDLE, Stage.UPLOAD}
    assert report.statistics.ledger.total().up_bytes == 1024
    assert again.patch is state.patch


def test_a_check_charges_the_patch_that_it_reads(releases: tuple[Manifest, Manifest]) -> None:
    chosen = policy(EdgeTuneReleased(kappa=1e9, k_var=0.25))
    state, _ = live(visit(releases[0], chosen))
    assert state.patch is not None
    _, report = live(visit(releases[1], chosen, 1), state)
    check = report.statistics.ledger.of(Stage.CHECK)
    # Reading at 1.5 GB/s and 6.2 W, computing at 50 GFLOP/s and 2.68 W.
    read_s = state.patch.size_bytes / 1.5e9
    compute_s = check.work_flop / 50e9
    assert check.work_flop > 0
    assert check.energy_j == pytest.approx(6.2 * read_s + 2.68 * compute_s)
    assert report.statistics.drift is not None
    assert report.statistics.strength is not None


def test_reuse_carries_the_very_bytes_of_the_patch_to_the_next_release(
    releases: tuple[Manifest, Manifest],
) -> None:
    chosen = policy(AlwaysReuse())
    state, _ = live(visit(releases[0], chosen))
    later, report = live(visit(releases[1], chosen, 1), state)
    assert state.patch is not None
    assert later.patch is not None
    assert later.patch.digest() == state.patch.digest()
    assert (later.release, later.patch.release) == (1, 0)
    assert report.delta is None
    assert report.statistics.outcome.decision == "reuse"
    assert stages(report) == {Stage.IDLE, Stage.DOWNLOAD, Stage.UPLOAD}


def test_equal_nights_give_equal_bytes(releases: tuple[Manifest, Manifest]) -> None:
    first, second = (live(visit(releases[0], policy(AlwaysRetune()))) for _ in range(2))
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
        state, report = live(visit(releases[0], policy(AlwaysRetune(), quota)))
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
    state, _ = live(visit(releases[0], chosen))
    assert state.stored_bytes == quota.total_bytes
    later, _ = live(visit(releases[0], chosen, 1), state)
    assert later.patch is state.patch
    # The buffer makes room among its own: the newest exchanges that fit beside the patch.
    assert later.buffer[-3:] == WORLD.day(3, 1)
    assert first - 200 < later.buffer_bytes <= first


def test_a_step_over_the_memory_is_infeasible(releases: tuple[Manifest, Manifest]) -> None:
    small = Coefficient(value=1e-3, low=1e-3, high=1e-3, tier="E", source="a test")
    profile = replace(PROFILE, ram_gb=small)
    state, report = live(visit(releases[0], policy(AlwaysRetune()), profile=profile))
    outcome = report.statistics.outcome
    assert (outcome.decision, outcome.reason) == ("infeasible", "over_memory")
    assert state.patch is None
    assert Stage.TUNE not in stages(report)


def test_an_empty_buffer_is_infeasible(releases: tuple[Manifest, Manifest]) -> None:
    quota = Quota(buffer_bytes=1, total_bytes=10**6)
    _, report = live(visit(releases[0], policy(AlwaysRetune(), quota)))
    outcome = report.statistics.outcome
    assert (outcome.decision, outcome.reason) == ("infeasible", "empty_buffer")


def test_an_infeasible_retune_keeps_the_old_patch(releases: tuple[Manifest, Manifest]) -> None:
    state, _ = live(visit(releases[0], policy(AlwaysRetune())))
    small = Coefficient(value=1e-3, low=1e-3, high=1e-3, tier="E", source="a test")
    night = visit(releases[1], policy(AlwaysRetune()), 1, profile=replace(PROFILE, ram_gb=small))
    later, report = live(night, state)
    assert report.statistics.outcome.decision == "infeasible"
    assert later.patch is state.patch


def test_never_personalise_drops_the_patch(releases: tuple[Manifest, Manifest]) -> None:
    state, _ = live(visit(releases[0], policy(AlwaysRetune())))
    later, report = live(visit(releases[1], policy(NeverPersonalise()), 1), state)
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
        state, report = live(visit(releases[index % 2], chosen, round_), state)
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
    state, _ = live(visit(releases[0], chosen, 0, diary))
    state, _ = live(visit(releases[0], chosen, 4, diary), state)
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
        state, report = live(visit(releases[0], chosen, round_, diary), state, observed=True)
        assert diary.asked == [round_, round_ + 1]
        assert max(exchange.day for exchange in state.buffer) == round_
        assert not set(WORLD.day(3, round_ + 1)) & set(state.buffer)
        assert report.observation is not None
        assert report.observation.exchanges == 3


def test_being_observed_changes_neither_state_nor_statistics(
    releases: tuple[Manifest, Manifest],
) -> None:
    night = visit(releases[0], policy(AlwaysRetune()))
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
    night = visit(releases[0], policy(Retrieve(neighbours=2)))
    state, report = live(night)
    ledger, shapes = report.statistics.ledger, releases[0].shapes
    examples = [night.facts.encoder(releases[0]).example(e) for e in WORLD.day(3, 0)]
    prompts = [example.prompt for example in examples]
    # Selecting embeds every new prompt once: a forward pass through the lower 4 of 8 layers, at
    # 300 GFLOP/s or 17 GB/s, 6.2 W.
    assert shapes.layers == 8
    embedding = forward_work(replace(shapes, layers=4), prompts, 0, {})
    select_s = max(embedding.flop / 300e9, embedding.traffic_bytes / 17e9)
    assert ledger.of(Stage.SELECT).energy_j == pytest.approx(6.2 * select_s)
    # Serving embeds each question and reads it with two turns of the buffer's mean length before
    # it, as far as 128 tokens allow: only what comes on top of the plain prompts.
    turn = sum(len(example.tokens) for example in examples) / len(examples)
    longer = [min(prompt + round(2 * turn), 128) for prompt in prompts]
    plain = forward_work(shapes, prompts, 0, {}).flop
    added = forward_work(shapes, longer, 0, {}).flop - plain + embedding.flop
    assert ledger.of(Stage.SERVE).work_flop == added
    assert ledger.of(Stage.SERVE).energy_j == pytest.approx(6.2 * added / 300e9)
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
    state, _ = live(visit(releases[0], policy(Retrieve(neighbours=1), quota)))
    assert state.buffer == newest
    assert state.stored_bytes == needed


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
held = st.lists(st.tuples(texts, texts, st.integers(0, 9), texts), max_size=4)


@settings(
    derandomize=True,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(held=held, patched=st.booleans(), extra=st.integers(0, 99), last=st.integers(-1, 9))
def test_state_survives_its_records(
    releases: tuple[Manifest, Manifest],
    held: list[tuple[str, str, int, str]],
    patched: bool,
    extra: int,
    last: int,
) -> None:
    patch = new_start(visit(releases[0], policy(AlwaysRetune()))) if patched else None
    buffer = tuple(
        Exchange(question=question, response=response, day=day, order=order, domain=domain)
        for order, (question, response, day, domain) in enumerate(held)
    )
    state = DeviceState(last_day=last, release=0, buffer=buffer, patch=patch, extra_bytes=extra)
    records = RecordDict()
    write_state(records, state)
    found = read_state(records)
    assert replace(found, patch=None) == replace(state, patch=None)
    assert found.stored_bytes == state.stored_bytes
    assert (found.patch is None) == (patch is None)
    if found.patch is not None and patch is not None:
        assert found.patch.digest() == patch.digest()
        assert to_arrays(found.patch).keys() == to_arrays(patch).keys()


def test_a_dropped_patch_leaves_no_record(releases: tuple[Manifest, Manifest]) -> None:
    state, _ = live(visit(releases[0], policy(AlwaysRetune())))
    records = RecordDict()
    write_state(records, state)
    assert len(records.array_records) == 1
    write_state(records, replace(state, patch=None))
    assert not records.array_records
    assert read_state(records).patch is None


def test_arms_that_share_a_nodes_records_keep_their_states_apart(
    releases: tuple[Manifest, Manifest],
) -> None:
    tuned, _ = live(visit(releases[0], policy(AlwaysRetune())))
    records = RecordDict()
    write_state(records, tuned, "always_retune")
    write_state(records, replace(tuned, patch=None, last_day=7), "never_personalise")
    assert read_state(records, "always_retune").patch is not None
    assert read_state(records, "always_retune").last_day == 0
    assert read_state(records, "never_personalise").patch is None
    assert read_state(records, "never_personalise").last_day == 7
    assert read_state(records, "another") == DeviceState()


def test_no_records_are_a_fresh_device() -> None:
    assert read_state(RecordDict()) == DeviceState()


def test_a_state_of_another_schema_is_refused() -> None:
    records = RecordDict()
    write_state(records, DeviceState())
    (config,) = records.config_records.values()
    config["schema"] = 99
    with pytest.raises(ValueError, match="schema 1, got 99"):
        read_state(records)
