"""The page's table of faults has every row, and none of it is silent, lost or wrong."""

from __future__ import annotations

from tests.faults.forked_runs import BAD
from tests.faults.table import ROWS, read_table


def test_the_page_has_every_fault_tried_often_enough_and_nothing_bad_came_of_any() -> None:
    table = read_table()
    assert list(table) == list(ROWS)
    for fault, (tried, outcome, *bad) in table.items():
        assert int(tried) >= ROWS[fault]
        assert outcome
        assert bad == ["0"] * len(BAD), fault
