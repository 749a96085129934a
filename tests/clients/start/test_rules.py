"""A first tune from a catalogue: it is billed, it starts where it says, and z* stays at home."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clients.adaptation.rules import AlwaysRetune
from clients.device import run_round
from clients.night.order import NightOrder
from clients.placement.rules import TopLayers
from clients.policy import DevicePolicy, Quota, read_policy
from clients.selection.rules import Fifo
from clients.start import Mixture, NearestEntry, Rival, Scratch, StartRule
from clients.start.mixture import entry_shares
from clients.start.placing import place_user
from clients.state.state import DeviceState, join_fleet
from clients.synthesis.rules import NoSynthesis
from clients.tuning.schedule import Tuning
from clients.work.facts import Facts
from fleettune.catalogue.manifest import CatalogueOffer
from fleettune.cohort.suspension import current_compute
from fleettune.cost.hardware import load_hardware
from fleettune.cost.ledger import Stage
from fleettune.data.personas import SyntheticData
from fleettune.data.styles import StyledData
from fleettune.fleet.joining import Join
from fleettune.jobs.jobs import ScoreJob
from fleettune.messages.flower_records import encode_report, take_observation
from fleettune.messages.report import Report
from fleettune.records import to_record
from strategies.catalogue.cataloguer import Cataloguer
from tests.clients.phone import RELEASE as POCKET
from tests.strategies.catalogue.test_cataloguer import HOW

RELEASE = replace(POCKET, digest="weights", size_bytes=1_000_000)
CATALOGUE = replace(HOW, steps=6)
PLAIN = SyntheticData(users=10, exchanges_per_day=4, history_days=2, drift=0.0)
WORLD = StyledData(world=PLAIN, similarity=1.0, styles=CATALOGUE.styles)
PROFILE = load_hardware(Path(__file__).parents[3] / "conf" / "hardware")["oneplus_12r"]


@pytest.fixture(scope="module")
def offer(tmp_path_factory: pytest.TempPathFactory) -> CatalogueOffer:
    store = tmp_path_factory.mktemp("store")
    found = Cataloguer(how=CATALOGUE, store=store, seed=0).offer([RELEASE])
    assert found is not None
    return found


def night_order(offer: CatalogueOffer | None, start: StartRule, steps: int = 1) -> NightOrder:
    policy = DevicePolicy(
        selection=Fifo(),
        synthesis=NoSynthesis(),
        adaptation=AlwaysRetune(),
        placement=TopLayers(layers=1, rank=2, alpha=4.0),
        tuning=Tuning(steps=steps, batch=2, learning_rate=1e-9, clip=1.0),
        quota=Quota(buffer_bytes=100_000, total_bytes=4_000_000),
        start=start,
    )
    facts = Facts(device=1, user=1, seed=5, profile=PROFILE)
    return NightOrder(
        facts=facts,
        round=0,
        release=RELEASE,
        policy=policy,
        population=WORLD.open(),
        compute=current_compute(),
        catalogue=offer,
    )


def live(night: NightOrder, state: DeviceState | None = None) -> tuple[DeviceState, Report]:
    return run_round(night, state or DeviceState(), observed=True)


NEAREST = NearestEntry(single_within=2.0, exchanges=8, new_tokens=8, answers="own")


def test_a_first_tune_starts_from_the_chosen_entry(offer: CatalogueOffer) -> None:
    state, report = live(night_order(offer, NEAREST))
    seen = report.observation
    assert seen is not None
    assert state.patch is not None
    assert report.delta is not None
    assert seen.start_entries == 1
    # a learning rate of nothing leaves the patch where it began, and there is next to no delta
    entries = [offer.patches((entry.digest,))[0] for entry in offer.manifest.entries]
    sites = list(state.patch.factors)
    apart = [
        max(np.abs(state.patch.dense(site) - entry.dense(site)).max() for site in sites)
        for entry in entries
    ]
    assert min(apart) < 1e-6 < max(apart)
    assert max(np.abs(report.delta.dense(site)).max() for site in sites) < 1e-6
    assert seen.start_nll == pytest.approx(seen.nll, abs=1e-4)


def test_a_first_tune_starts_from_a_part_of_the_users_entry(offer: CatalogueOffer) -> None:
    rule = Mixture(least=0.0, second=2.0, exchanges=8)
    night = night_order(offer, rule)
    state, report = live(night)
    seen = report.observation
    assert seen is not None
    assert seen.start_entries == 1
    placed = place_user(
        state.answered, offer.manifest, RELEASE, rule.comparison(), current_compute()
    )
    # exchanges one by one, and their mean is where the user stands
    assert placed.points.shape == (8, len(placed.point))
    assert placed.points.mean(axis=0) == pytest.approx(placed.point)
    assert state.patch is not None
    shares = entry_shares(placed.points, offer.manifest.compared(likes=True), rule.spread)
    entry = offer.patches((offer.manifest.entries[int(shares.argmax())].digest,))[0]
    site = next(iter(entry.factors))
    part = rule.strength * shares.max()
    assert np.allclose(state.patch.dense(site), part * entry.dense(site), atol=1e-6)


def test_answers_of_its_own_may_be_compared_too(offer: CatalogueOffer) -> None:
    _, report = live(
        night_order(offer, Mixture(answers="own", exchanges=4, new_tokens=8, least=0.0))
    )
    assert report.observation is not None
    assert report.observation.start_entries in {1, 2}


def test_finding_a_start_is_billed(offer: CatalogueOffer) -> None:
    _, scratch = live(night_order(offer, Scratch()))
    _, warm = live(night_order(offer, NEAREST))
    before, after = scratch.statistics.ledger, warm.statistics.ledger
    brought = after.of(Stage.DOWNLOAD).down_bytes - before.of(Stage.DOWNLOAD).down_bytes
    seen = warm.observation
    assert seen is not None
    assert seen.start_j is not None
    assert brought == len(offer.data) + offer.manifest.entries[0].size_bytes == seen.start_bytes
    assert after.of(Stage.CHECK).energy_j > before.of(Stage.CHECK).energy_j
    spent = sum(
        after.of(stage).energy_j - before.of(stage).energy_j
        for stage in (Stage.DOWNLOAD, Stage.CHECK)
    )
    assert spent == pytest.approx(seen.start_j)
    assert scratch.observation is not None
    assert (scratch.observation.start_entries, scratch.observation.start_j) == (0, 0.0)


def test_coordinates_of_a_user_are_in_no_message(offer: CatalogueOffer) -> None:
    night = night_order(offer, NEAREST)
    state, report = live(night)
    how = NEAREST.comparison()
    placed = place_user(state.answered, offer.manifest, RELEASE, how, current_compute())
    content = encode_report(report)
    take_observation(content)
    _, scratch = live(night_order(offer, Scratch()))
    plain = encode_report(scratch)
    take_observation(plain)
    assert set(content) == set(plain)
    numbers = content.metric_records["statistics"]
    assert set(numbers) - set(plain.metric_records["statistics"]) <= {
        f"check.{name}" for name in ("time_s", "energy_j", "work_flop")
    }
    assert not set(placed.point.tolist()) & set(numbers.values())
    assert dict(content.config_records["outcome"]) == dict(plain.config_records["outcome"])


def test_a_device_with_a_patch_looks_at_no_catalogue(offer: CatalogueOffer) -> None:
    night = night_order(offer, NEAREST)
    state, _ = live(night)
    later = replace(night, round=1, release=replace(RELEASE, version=1))
    _, again = live(later, replace(state, settled=-1))
    assert again.observation is not None
    assert again.observation.start_entries is None


def test_without_an_offer_nothing_is_different(offer: CatalogueOffer) -> None:
    (_, one), (_, other) = live(night_order(None, NEAREST)), live(night_order(None, Scratch()))
    assert one.statistics == other.statistics
    assert one.observation == other.observation


@pytest.mark.parametrize("pick", ["random", "exhaustive", "halving"])
def test_rivals_pick_an_entry_and_pay_for_what_they_download(
    offer: CatalogueOffer, pick: str
) -> None:
    _, report = live(night_order(offer, Rival(pick=pick, exchanges=4)))
    seen = report.observation
    assert seen is not None
    assert seen.start_entries == 1
    count = 1 if pick == "random" else len(offer.manifest.entries)
    sizes = [entry.size_bytes for entry in offer.manifest.entries[:count]]
    assert seen.start_bytes == sum(sizes)


def test_exhaustive_takes_the_likeliest_entry(offer: CatalogueOffer) -> None:
    night = night_order(offer, Rival(pick="exhaustive", exchanges=8))
    state, report = live(night)
    encoder = night.facts.encoder(RELEASE)
    examples = tuple(map(encoder.example, state.answered))
    compute = current_compute()
    nats = [
        sum(compute.score(ScoreJob(release=RELEASE.path, patch=patch, examples=examples)).nll)
        for entry in offer.manifest.entries
        for patch in offer.patches((entry.digest,))
    ]
    own = int(np.argmin(nats)) == 1
    assert report.observation is not None
    assert report.observation.start_right == int(own)


def test_rules_travel_as_data_and_scratch_is_not_written() -> None:
    policy = night_order(None, NEAREST).policy
    assert read_policy(to_record(policy)) == policy
    assert "start" not in to_record(replace(policy, start=Scratch()))


def test_wrong_values_are_told() -> None:
    with pytest.raises(ValueError, match=r"start\.pick"):
        Rival(pick="best")


def test_the_nearest_sum_of_two_is_started_from(offer: CatalogueOffer) -> None:
    both = replace(NEAREST, single_within=0.0, merged_within=2.0)
    seen = live(night_order(offer, both))[1].observation
    assert seen is not None
    assert seen.start_entries in {0, 2}


def test_a_device_that_joins_brings_a_few_days() -> None:
    fresh = DeviceState()
    assert join_fleet(fresh, None) == fresh
    assert join_fleet(fresh, Join(round=6, share=0.5, days=2)).last_day == 4
    assert join_fleet(fresh, Join(round=1, share=0.5, days=4)).last_day == -1
    lived = DeviceState(last_day=3)
    assert join_fleet(lived, Join(round=6, share=0.5)) == lived
