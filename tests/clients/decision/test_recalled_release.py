"""A device that has a release again: its own patch is loaded, and no other is ever applied."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clients.adaptation.protocol import Adaptation
from clients.adaptation.rules import AlwaysRetune, AlwaysReuse, EdgeTuneReleased
from clients.policy import DevicePolicy, Quota
from clients.state.state import DeviceState
from fleettune.cost.ledger import Stage
from fleettune.messages.report import Report
from fleettune.releases.manifest import Manifest
from strategies.learning.decision_reports import read_decision
from tests.clients.test_device import ROOMY, live, night_order, policy, stages

pytestmark = pytest.mark.usefixtures("one_thread")

KEEPING = replace(ROOMY, shelf=True)
Nights = list[tuple[DeviceState, Report]]


def lived(releases: tuple[Manifest, Manifest], versions: list[int], chosen: DevicePolicy) -> Nights:
    """What a device holds and reports after each night, told of a release in each."""
    nights: Nights = []
    state = DeviceState()
    for night, version in enumerate(versions):
        state, report = live(night_order(releases[version], chosen, night), state)
        nights.append((state, report))
    return nights


def told(nights: Nights) -> list[tuple[str, str]]:
    outcomes = [report.statistics.outcome for _, report in nights]
    return [(one.decision, one.reason) for one in outcomes]


def digest(state: DeviceState) -> str:
    assert state.patch is not None
    return state.patch.digest()


def test_a_release_that_comes_back_finds_its_own_patch_to_the_byte(
    releases: tuple[Manifest, Manifest],
) -> None:
    nights = lived(releases, [0, 1, 0, 1], policy(AlwaysRetune(), KEEPING))
    assert told(nights) == [
        ("retune", "first_patch"),
        ("retune", "always"),
        ("reuse", "back_own_patch"),
        ("reuse", "back_own_patch"),
    ]
    states = [state for state, _ in nights]
    assert digest(states[2]) == digest(states[0])
    assert digest(states[3]) == digest(states[1])
    assert [[item.patch.release for item in one.shelf.patches] for one in states] == [
        *([], [0], [1], [0])
    ]
    back, report = nights[2]
    assert back.applied is back.patch
    # the release is downloaded again, the patch is read, nothing is tuned or sent
    assert Stage.DOWNLOAD in stages(report)
    assert Stage.TUNE not in stages(report)
    assert report.statistics.ledger.of(Stage.CHECK).energy_j > 0
    assert report.delta is None
    # the server counted this device when it first had the release
    assert read_decision(report.statistics) is None
    assert read_decision(nights[0][1].statistics) is not None


@pytest.mark.parametrize(
    "rule", [AlwaysRetune(), AlwaysReuse(), EdgeTuneReleased(kappa=1e-9, k_var=0.0)]
)
def test_without_a_shelf_a_patch_of_a_later_release_is_never_applied(
    releases: tuple[Manifest, Manifest], rule: Adaptation
) -> None:
    (first, _), (second, _), (back, report) = lived(releases, [0, 1, 0], policy(rule))
    assert back.patch is not None
    assert back.patch.release == 0
    assert back.shelf.patches == ()
    if isinstance(rule, AlwaysReuse):
        # the patch of release 0 was reused on release 1 by decision, and is the release's own here
        assert digest(first) == digest(second) == digest(back)
        assert told([(back, report)]) == [("reuse", "back_own_patch")]
    else:
        assert second.patch is not None
        assert second.patch.release == 1
        assert told([(back, report)]) == [("retune", "back_first_patch")]
        assert report.statistics.tune_steps == 2


def test_between_download_and_decision_nothing_of_another_release_is_applied(
    releases: tuple[Manifest, Manifest],
) -> None:
    nights = lived(releases, [0, 1], policy(AlwaysRetune(), KEEPING))
    state = nights[-1][0]
    assert replace(state, held=releases[0]).applied is None
    # reused by decision on release 1, the patch of release 0 may serve it
    reused = lived(releases, [0, 1], policy(AlwaysReuse(), KEEPING))[-1][0]
    assert reused.applied is not None
    assert reused.applied.release == 0
    assert reused.shelf.patches == ()


def test_the_shelf_makes_room_for_all_else_and_what_it_lost_is_tuned_anew(
    releases: tuple[Manifest, Manifest],
) -> None:
    roomy = lived(releases, [0, 1], policy(AlwaysRetune(), KEEPING))[-1][0]
    assert roomy.patch is not None
    beside = roomy.stored_bytes - roomy.shelf.size_bytes
    for spare, kept in ((0, 1), (-1, 0)):
        total = beside + roomy.shelf.size_bytes + spare
        quota = Quota(buffer_bytes=roomy.buffer_bytes, total_bytes=total, shelf=True)
        nights = lived(releases, [0, 1, 0], policy(AlwaysRetune(), quota))
        assert len(nights[1][0].shelf.patches) == kept
        assert all(state.stored_bytes <= total for state, _ in nights)
        assert nights[2][1].statistics.tune_steps == (0 if kept else 2)
        assert nights[1][1].statistics.stored_bytes == nights[1][0].stored_bytes


def test_a_shelf_that_is_never_asked_for_changes_no_report(
    releases: tuple[Manifest, Manifest],
) -> None:
    plain = lived(releases, [0, 1], policy(AlwaysRetune()))
    keeping = lived(releases, [0, 1], policy(AlwaysRetune(), KEEPING))
    for (one, first), (other, second) in zip(plain, keeping, strict=True):
        assert digest(one) == digest(other)
        room = other.shelf.size_bytes
        seen = replace(second.statistics, stored_bytes=second.statistics.stored_bytes - room)
        assert seen == first.statistics
