"""Downloads: full or delta, whichever has fewer bytes; devices that skipped releases catch up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from clients.adaptation.rules import NeverPersonalise
from clients.device import run_round
from clients.night.attendance import Tonight
from clients.night.order import NightOrder
from clients.night.transfers import Payload, download
from clients.placement.rules import TopLayers
from clients.policy import DevicePolicy, Quota
from clients.selection.rules import Fifo
from clients.state.state import DeviceState
from clients.synthesis.rules import NoSynthesis
from clients.tuning.schedule import Tuning
from clients.work.facts import Facts
from fleettune.cohort.suspension import current_compute
from fleettune.cost.hardware import load_hardware
from fleettune.cost.ledger import Stage
from fleettune.cost.pricing import PricedModel
from fleettune.cost.workload import Phase, moving, transferring
from fleettune.data.personas import SyntheticData
from fleettune.messages.report import Report
from fleettune.releases.manifest import Manifest, ReleaseDelta

FACTS = Facts(
    device=3,
    user=3,
    seed=5,
    profile=load_hardware(Path(__file__).parents[3] / "conf" / "hardware")["oneplus_12r"],
)
LLAMA = replace(FACTS, priced=PricedModel(model="llama-3.2-1b", tokens_ratio=0.78))
LLAMA_BYTES = 2 * 1_235_814_400
POLICY = DevicePolicy(
    selection=Fifo(),
    synthesis=NoSynthesis(),
    adaptation=NeverPersonalise(),
    placement=TopLayers(layers=1, rank=1, alpha=2.0),
    tuning=Tuning(steps=2, batch=2, learning_rate=1e-2, clip=1.0),
    quota=Quota(buffer_bytes=100_000, total_bytes=4_000_000),
)
Releases = tuple[Manifest, Manifest]


def offered(release: Manifest, *deltas: tuple[int, int], version: int = 1) -> Manifest:
    return replace(
        release,
        version=version,
        deltas=tuple(
            ReleaseDelta(since=since, kind="int8", size_bytes=size) for since, size in deltas
        ),
    )


def test_a_delta_is_received_the_old_weights_read_and_the_new_ones_written(
    releases: Releases,
) -> None:
    old = replace(releases[0], size_bytes=900)
    new = offered(replace(releases[1], size_bytes=1000), (0, 300))
    found = download(FACTS, new, old)
    assert found.payload is Payload.DELTA
    assert found.entries == [
        (Stage.DOWNLOAD, Phase.RECEIVE, transferring(300)),
        (Stage.DOWNLOAD, Phase.READ, moving(900)),
        (Stage.DOWNLOAD, Phase.WRITE, moving(1000)),
    ]


def test_a_delta_keeps_its_share_of_the_release_that_is_priced(releases: Releases) -> None:
    new = offered(replace(releases[1], size_bytes=1000), (0, 300))
    received, read, written = (entry[2] for entry in download(LLAMA, new, releases[0]).entries)
    assert received.moved_bytes == pytest.approx(0.3 * LLAMA_BYTES)
    assert read.moved_bytes == written.moved_bytes == LLAMA_BYTES


@pytest.mark.parametrize("size_bytes", [1000, 1001])
def test_a_delta_that_is_not_smaller_is_left(releases: Releases, size_bytes: int) -> None:
    new = offered(replace(releases[1], size_bytes=1000), (0, size_bytes))
    found = download(FACTS, new, releases[0])
    assert found.payload is Payload.FULL
    assert found.entries == [
        (Stage.DOWNLOAD, Phase.RECEIVE, transferring(1000)),
        (Stage.DOWNLOAD, Phase.WRITE, moving(1000)),
    ]


def test_a_device_without_a_release_or_without_an_offer_takes_it_in_full(
    releases: Releases,
) -> None:
    new = offered(releases[1], (0, 1))
    assert download(FACTS, new, None).payload is Payload.FULL
    assert download(FACTS, offered(releases[1]), releases[0]).payload is Payload.FULL


def test_a_quantised_release_is_priced_at_its_own_bits_where_they_are_fewer(
    releases: Releases,
) -> None:
    def received(priced: PricedModel, bits: float | None) -> float:
        release = replace(releases[1], bits=bits)
        return download(replace(FACTS, priced=priced), release, None).entries[0][2].moved_bytes

    in_16 = PricedModel(model="llama-3.2-1b")
    in_4 = replace(in_16, bits_per_weight=4.0)
    assert received(in_16, None) == LLAMA_BYTES
    assert received(in_16, 5.5) == pytest.approx(LLAMA_BYTES * 5.5 / 16)
    assert received(in_4, 5.5) == pytest.approx(LLAMA_BYTES / 4)
    assert received(PricedModel(), 5.5) == releases[1].size_bytes


def night(
    release: Manifest, state: DeviceState, round_: int, tonight: Tonight | None = None
) -> tuple[DeviceState, Report]:
    night_order = NightOrder(
        facts=FACTS,
        round=round_,
        release=release,
        policy=POLICY,
        population=SyntheticData(users=10, exchanges_per_day=3, history_days=2).open(),
        compute=current_compute(),
        tonight=tonight or Tonight(),
    )
    return run_round(night_order, state, observed=False)


def test_a_device_that_skipped_releases_catches_up_from_the_one_that_it_holds(
    releases: Releases,
) -> None:
    state, first = night(releases[0], DeviceState(), 0)
    third = offered(releases[1], (0, 70_000), (1, 50_000), (2, 30_000), version=3)
    state, later = night(third, state, 5)
    assert first.statistics.outcome.payload == "full"
    assert later.statistics.outcome.payload == "delta"
    assert later.statistics.ledger.of(Stage.DOWNLOAD).down_bytes == 70_000
    assert state.release == 3
    assert state.held == replace(third, deltas=(), drifts=())
    # Where the manifest does not go back so far, the release comes in full.
    fourth = offered(releases[1], (1, 50_000), (2, 30_000), version=4)
    _, again = night(fourth, replace(state, held=releases[0]), 6)
    assert again.statistics.outcome.payload == "full"
    assert again.statistics.ledger.of(Stage.DOWNLOAD).down_bytes == releases[1].size_bytes


def test_a_night_without_a_whole_download_had_no_payload(releases: Releases) -> None:
    state, _ = night(releases[0], DeviceState(), 0)
    new = offered(releases[1], (0, 70_000))
    kept, cut = night(new, state, 1, Tonight(limit_s=1e-3))
    assert (cut.statistics.outcome.payload, kept.release) == ("none", 0)
    assert 0 < cut.statistics.ledger.of(Stage.WASTED).down_bytes < 70_000
    state, _ = night(new, kept, 2)
    _, same = night(new, state, 3)
    assert same.statistics.outcome.payload == "none"
