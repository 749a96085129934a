"""Claims about traces: windows by hand, brute force over seconds, and what a bad file is told."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fleettune.fleet.availability import Availability, Window
from fleettune.fleet.recorded_traces import Trace
from fleettune.records import from_record, to_record
from simulations.experiment.targets import build_target

HOUR = 3600
CONF = Path(__file__).parents[3] / "conf" / "availability"
# FedScale's client 3834, as its users quote it
CLIENT = {
    "duration": 211_625,
    "inactive": [65881, 133574, 208292, 276575, 295006, 356236, 400906, 475099],
    "finish_time": 518_400,
    "active": [12788, 100044, 188992, 271372, 276663, 352625, 356267, 441193],
    "model": "CPH1801",
}


def fedscale(folder: Path, *clients: dict[str, Any], begins_h: float = 12.0) -> Trace:
    path = folder / "trace.json"
    path.write_text(json.dumps({str(i): client for i, client in enumerate(clients)}))
    return Trace(path=str(path), format="fedscale", soc=0.4, begins_h=begins_h)


def flash(folder: Path, *lines: str) -> Trace:
    path = folder / "states.json"
    messages = "\n".join(line.replace(" > ", "\t") for line in lines)
    path.write_text(json.dumps({"guid": {"model": "m", "guid": "guid", "messages": messages}}))
    return Trace(path=str(path), format="flash", soc=0.4, begins_h=12.0)


def test_a_fedscale_night_by_hand(tmp_path: Path) -> None:
    trace = fedscale(tmp_path, CLIENT)
    # Night 0 is 43 200 to 129 600 s: 43 200 to 65 881 is 22 681 s, 100 044 to 129 600 is 29 556 s.
    assert trace.window(0, 0, 0) == Window(start_s=56_844.0, length_s=29_556.0, soc=0.4)
    # Night 1 is 129 600 to 216 000 s: 129 600 to 133 574 is 3 974 s, 188 992 to 208 292 19 300 s.
    assert trace.window(0, 0, 1) == Window(start_s=59_392.0, length_s=19_300.0, soc=0.4)


def test_a_fedscale_trace_begins_again_after_its_finish_time(tmp_path: Path) -> None:
    trace = fedscale(tmp_path, CLIENT)
    assert [trace.window(0, 0, n) for n in range(6)] == [
        trace.window(0, 0, n + 6) for n in range(6)
    ]
    # Night 5 is 475 200 s to 561 600 s, so 12 788 to 43 200 s of the next turn: 30 412 s.
    assert trace.window(0, 0, 5) == Window(start_s=55_988.0, length_s=30_412.0, soc=0.4)


def test_a_stretch_over_the_trace_s_end_is_one(tmp_path: Path) -> None:
    client = {"active": [0, 80_000], "inactive": [10_000, 86_400], "finish_time": 86_400}
    assert fedscale(tmp_path, client).window(0, 0, 3).length_s == 16_400


def test_a_night_without_an_interval_has_no_window(tmp_path: Path) -> None:
    client = {"active": [88_494], "inactive": [88_494], "finish_time": 172_800}
    window = fedscale(tmp_path, client).window(0, 0, 0)
    assert (window.length_s, window.soc, window.usable_s) == (0, 0.4, 0)


@settings(max_examples=30, deadline=None)
@given(
    edges=st.lists(st.integers(0, 200), unique=True, max_size=10),
    spare=st.integers(1, 40),
    night=st.integers(0, 9),
    night_s=st.integers(1, 300),
)
def test_a_window_is_the_longest_run_of_eligible_seconds(
    tmp_path_factory: pytest.TempPathFactory,
    edges: list[int],
    spare: int,
    night: int,
    night_s: int,
) -> None:
    edges = sorted(edges)[: len(edges) // 2 * 2]
    period = max(edges, default=0) + spare
    client = {"active": edges[::2], "inactive": edges[1::2], "finish_time": period}
    folder = tmp_path_factory.mktemp("trace")
    trace = fedscale(folder, client, begins_h=0.0)
    window = Trace(**{**to_fields(trace), "night_s": float(night_s)}).window(0, 0, night)
    seconds = [
        any(s <= t % period < e for s, e in zip(edges[::2], edges[1::2], strict=True))
        for t in range(night * night_s, (night + 1) * night_s)
    ]
    runs = [len(list(run)) for eligible, run in groupby(seconds) if eligible]
    assert window.length_s == max(runs, default=0)
    start, length = int(window.start_s), int(window.length_s)
    assert all(seconds[start : start + length])


def to_fields(trace: Trace) -> dict[str, Any]:
    return {name: value for name, value in to_record(trace).items() if name != "type"}


def test_csv_and_json_hold_the_same_trace(tmp_path: Path) -> None:
    lists = [" ".join(str(edge) for edge in CLIENT[name]) for name in ("active", "inactive")]
    path = tmp_path / "trace.csv"
    path.write_text(f"client,active,inactive,finish_time\n3834,{','.join(lists)},518400\n")
    table = Trace(path=str(path), format="fedscale", soc=0.4, begins_h=12.0)
    json_ = fedscale(tmp_path, CLIENT)
    assert [table.window(0, 0, n) for n in range(9)] == [json_.window(0, 0, n) for n in range(9)]


def test_a_device_keeps_the_client_that_its_seed_drew(tmp_path: Path) -> None:
    clients = [
        {"active": [50_000], "inactive": [50_001 + i], "finish_time": 86_400} for i in range(20)
    ]
    trace = fedscale(tmp_path, *clients)
    drawn = {device: trace.window(7, device, 0).length_s for device in range(60)}
    assert len(set(drawn.values())) > 10
    assert drawn == {device: trace.window(7, device, 3).length_s for device in range(60)}
    assert drawn != {device: trace.window(8, device, 0).length_s for device in range(60)}


def test_a_flash_night_by_hand(tmp_path: Path) -> None:
    trace = flash(
        tmp_path,
        "2020-01-28 22:00:00 > screen_lock",
        "2020-01-28 22:10:00 > 37.0%",
        "2020-01-28 22:30:00 > battery_charged_on",
        "2020-01-28 23:00:00 > WIFI",
        "2020-01-29 01:00:00 > screen_on",
        "2020-01-29 05:00:00 > 90.0%",
        "2020-01-29 06:00:00 > 4G",
        "2020-01-29 06:30:00 > wifi",
        "2020-01-29 07:00:00 > screen_unlock",
    )
    # From 23:00, 11 hours after noon, to 06:00; the screen's own state does not matter.
    assert trace.window(0, 0, 0) == Window(start_s=11 * HOUR, length_s=7 * HOUR, soc=0.37)
    # Two days make its period: the afternoon of the second is followed by the first's morning.
    assert trace.window(0, 0, 1).length_s == 0
    assert trace.window(0, 0, 2) == trace.window(0, 0, 0)


def test_flash_lines_are_put_in_order_of_time(tmp_path: Path) -> None:
    lines = (
        "2020-01-28 20:00:00 > screen_unlock",
        "2020-01-28 18:00:00 > wifi",
        "2020-01-28 18:00:00 > screen_lock",
        "2020-01-28 18:00:00 > battery_charged_on",
    )
    window = flash(tmp_path, *lines).window(0, 0, 0)
    assert window == Window(start_s=6 * HOUR, length_s=2 * HOUR, soc=0.4)


def test_a_flash_trace_is_not_eligible_beyond_its_last_line(tmp_path: Path) -> None:
    states = ("wifi", "screen_lock", "battery_charged_on")
    trace = flash(tmp_path, *(f"2020-01-28 18:00:00 > {state}" for state in states))
    assert trace.window(0, 0, 0).length_s == 0


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"active": [5, 3]}, "client '0' of .* active and inactive must be equally long"),
        ({"active": [70_000, *CLIENT["active"][1:]]}, "take turns, .*got 65881 after 70000"),
        ({"finish_time": 400_000}, "rising from 0 to finish_time"),
        ({"finish_time": 0}, "finish_time must be > 0 s, got 0"),
        ({"finish_time": None}, "finish_time must be finite seconds, got None"),
        ({"active": "12788"}, "active must be a list of seconds, got '12788'"),
        ({"finish_time": 10**400}, "finish_time must be finite seconds"),
        ({"inactive": [True]}, "inactive must be finite seconds, got True"),
    ],
)
def test_a_bad_fedscale_client_is_named(tmp_path: Path, change: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        fedscale(tmp_path, CLIENT | change).check()


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("client,active,finish_time\n", "line 1 .* must name the columns .*: add inactive"),
        ("", "line 1 .* got nothing"),
        ("client,active,inactive,finish_time\n", "must hold at least one client"),
        (
            "client,active,inactive,finish_time\n1,0,5,10\n2,0,five,10\n",
            "line 3 of .*: inactive must be finite seconds, got 'five'",
        ),
        ("client,active,inactive,finish_time\n1,0,5,\n", "line 2 .*finish_time must be one number"),
        ("client,active,inactive,finish_time\n1,0\n", "line 2 .*finish_time must be one number"),
    ],
)
def test_a_bad_csv_line_is_named(tmp_path: Path, text: str, rule: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=rule):
        Trace(path=str(path), format="fedscale", soc=0.4, begins_h=12.0).check()


def test_a_csv_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(b"client,active,inactive,finish_time\n\xff\xfe,0,5,10\n")
    with pytest.raises(ValueError, match=r"trace\.csv' must be CSV in UTF-8"):
        Trace(path=str(path), format="fedscale", soc=0.4, begins_h=12.0).check()


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("2020-01-28 18:00:00 > on_fire", "line 2 of messages: state must be .* got 'on_fire'"),
        ("2020-01-28 18:00:00 > 137%", "got '137%'"),
        ("2020-01-28 18:00:00", "line 2 of messages must be 'YYYY"),
        ("2020-01-28T18:00:00+01:00 > wifi", "line 2 of messages must be 'YYYY"),
        ("yesterday > wifi", "client 'guid' of .*, line 2 of messages must be 'YYYY"),
    ],
)
def test_a_bad_flash_line_is_named(tmp_path: Path, line: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        flash(tmp_path, "2020-01-28 17:00:00 > wifi", line).check()


def test_a_flash_client_has_lines(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="messages must hold at least one line, got none"):
        flash(tmp_path).check()
    path = tmp_path / "none.json"
    path.write_text('{"a": {"messages": null}}')
    with pytest.raises(ValueError, match=r"client 'a' of .*: messages must be a text of lines"):
        Trace(path=str(path), format="flash", soc=0.4, begins_h=12.0).check()


def test_broken_json_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text('{"1":\n {"active": [}')
    with pytest.raises(
        ValueError, match=r"trace.json' must be JSON in UTF-8, is not: .*: line 2 column"
    ):
        Trace(path=str(path), format="fedscale", soc=0.4, begins_h=12.0).check()
    path.write_text("[]")
    with pytest.raises(ValueError, match="must be an object with named members"):
        Trace(path=str(path), format="flash", soc=0.4, begins_h=12.0).check()


@pytest.mark.parametrize("name", ["trace.pkl", "trace.pickle", "trace.PKL"])
def test_a_pickle_is_refused_with_the_way_to_convert_it(name: str) -> None:
    with pytest.raises(ValueError, match=r"must not be a pickle.*client,active,inactive,finish_t"):
        Trace(path=name, format="fedscale", soc=0.4, begins_h=12.0)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"format": "kaggle"}, r"format must be one of \['fedscale', 'flash'\], got 'kaggle'"),
        ({"format": "flash", "path": "t.csv"}, r"path must end in \.json for format flash"),
        ({"path": "client_behave_trace"}, r"path must end in \.json or \.csv .* convert it once"),
        ({"soc": 40.0}, "soc must be from 0 to 1, got 40"),
        ({"begins_h": 24.0}, "begins_h must be >= 0 h and < 24 h, got 24"),
        ({"night_s": 0.0}, "night_s must be finite and > 0 s"),
    ],
)
def test_a_bad_field_is_named(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Trace(**({"path": "t.json", "format": "fedscale", "soc": 0.4, "begins_h": 12.0} | change))


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"path must name a file that exists, got 'nowhere\.json'"):
        Trace(path="nowhere.json", format="flash", soc=0.4, begins_h=12.0).check()


@pytest.mark.parametrize("option", ["fedscale", "flash"])
def test_an_option_is_a_trace_once_it_has_its_path(option: str) -> None:
    node = yaml.safe_load((CONF / f"{option}.yaml").read_text(encoding="utf-8"))
    trace: Trace = build_target(node | {"path": "trace.json"}, "availability")
    assert isinstance(trace, Availability)
    assert trace.format == option
    assert from_record(to_record(trace), {"Trace": Trace}, "availability") == trace


@pytest.mark.parametrize("period_s", [1e-3, 1e-320])
def test_a_trace_that_begins_again_all_the_time_is_refused(tmp_path: Path, period_s: float) -> None:
    trace = fedscale(tmp_path, {"active": [0], "inactive": [period_s], "finish_time": period_s})
    with pytest.raises(ValueError, match="begins again too often in a night of 86400 s"):
        trace.window(0, 0, 0)
