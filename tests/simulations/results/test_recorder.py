"""Rows are of replies that the server believes; a hostile device has none for its night."""

from __future__ import annotations

import pytest

from simulations.results.recorder import Recorder
from tests.strategies.rounds.test_hostile_replies import BAD_STATISTICS, hostile
from tests.strategies.rounds.test_sums import reply


@pytest.mark.parametrize("name", BAD_STATISTICS)
def test_a_reply_with_bad_statistics_makes_no_row(name: str) -> None:
    recorder = Recorder()
    for device, message in enumerate((reply(0), hostile(1, BAD_STATISTICS[name]), reply(2))):
        recorder("a", message.content, device)
    assert recorder.frame()["device"].to_list() == [0, 2]


def test_a_reply_that_names_another_device_makes_no_row() -> None:
    recorder = Recorder()
    recorder("a", reply(5).content, 1)
    recorder("a", reply(5).content, 5)
    assert recorder.frame()["device"].to_list() == [5]
