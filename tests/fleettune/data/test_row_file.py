"""Claims about rows: what a file may hold, and what the error says about one that holds else."""

from __future__ import annotations

import contextlib
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from pyarrow import parquet

from fleettune.data.row_file import RowFile

Row = dict[str, Any]


def speech(user: object, order: object, response: object = "yes", **other: object) -> Row:
    return {"user_id": user, "order": order, "question": "q", "response": response, **other}


def saved(folder: Path, rows: list[Row], format_: str = "jsonl") -> RowFile:
    path = folder / f"data.{format_}"
    if format_ == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        pl.DataFrame(rows).write_parquet(path)
    return RowFile(path=str(path), format=format_)


@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
def test_documented_columns_and_numbers_are_read_and_the_rest_is_not(
    tmp_path: Path, format_: str
) -> None:
    rows = [speech(3, 1.5, domain="d", score=2, note="n"), speech(4, 0, domain=None, score=1)]
    read = saved(tmp_path, [row | {"order": float(row["order"])} for row in rows], format_).read()
    assert read.columns == ["user_id", "question", "response", "domain", "order", "score"]
    assert read.rows() == [("3", "q", "yes", "d", 1.5, 2.0), ("4", "q", "yes", "", 0.0, 1.0)]


@pytest.mark.parametrize("change", [{"format": "csv"}, {"format": "parquet"}])
def test_format_and_ending_must_agree(tmp_path: Path, change: Row) -> None:
    with pytest.raises(ValueError, match=r"format must be one of|end in \.parquet or \.pq"):
        replace(saved(tmp_path, [speech("u", 0)]), **change).check()


def test_timestamps_order_exchanges_by_the_instant_they_name(tmp_path: Path) -> None:
    times = ["2024-05-01 12:00:00Z", "2024-05-01T13:00:00+02:00", "2024-04-30T00:00Z"]
    rows: list[Row] = [
        {"user_id": "u", "timestamp": time, "question": "", "response": f"r{index}"}
        for index, time in enumerate(times)
    ]
    # 13:00+02:00 is 11:00 UTC, an hour before the first.
    assert saved(tmp_path, rows).read().sort("order")["response"].to_list() == ["r2", "r1", "r0"]


@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
@pytest.mark.parametrize("missing", ["user_id", "order", "question", "response"])
def test_a_missing_column_is_named(tmp_path: Path, format_: str, missing: str) -> None:
    rows = [{name: value for name, value in speech("u", 1).items() if name != missing}]
    wanted = "order or timestamp" if missing == "order" else missing
    with pytest.raises(ValueError, match=f"must have a column {wanted}, got"):
        saved(tmp_path, rows, format_).check()


WRONG_TYPES: list[tuple[Row, str]] = [
    ({"user_id": 1.5}, "column user_id .* must hold text or whole number, got number"),
    ({"order": "1"}, "column order .* must hold whole number or number, got text"),
    ({"question": 3}, "column question .* must hold text, got whole number"),
    ({"response": True}, "column response .* must hold text, got Boolean"),
    ({"domain": 3}, "column domain .* must hold text, got whole number"),
    ({"mood": "low"}, "column mood .* must hold whole number or number, got text"),
]


@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
@pytest.mark.parametrize(("change", "sentence"), WRONG_TYPES)
def test_a_column_of_the_wrong_type_is_named(
    tmp_path: Path, format_: str, change: Row, sentence: str
) -> None:
    data = saved(tmp_path, [speech("u", 1) | change], format_)
    with pytest.raises(ValueError, match=sentence):
        replace(data, labels=("mood",) if "mood" in change else ()).check()


BROKEN_ROWS: list[tuple[Row, str]] = [
    (speech("", 1), "user_id must not be empty, but row 2 .*counted from 1"),
    (speech(None, 1), "user_id must not be empty, but row 2"),
    (speech("u", 1, " "), "response must not be empty, but row 2"),
    (speech("u", 1, None), "response must not be empty, but row 2"),
    (speech("silent", 1, None), "user 'silent' has none with a response"),
    (speech("u", None), "order must be a number, or timestamp a date, but row 2"),
]


@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
@pytest.mark.parametrize(("row", "sentence"), BROKEN_ROWS)
def test_a_broken_row_is_named(tmp_path: Path, format_: str, row: Row, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        saved(tmp_path, [speech("u", 0), row, speech("u", 2)], format_).read()


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_named_label_without_a_number_is_an_error(tmp_path: Path, value: float | None) -> None:
    rows = [speech("u", 0, score=value), speech("u", 1, score=1.0)]
    with pytest.raises(ValueError, match="score must be a finite number, but row 1"):
        replace(saved(tmp_path, rows), labels=("score",)).read()
    with pytest.raises(ValueError, match="score must be a finite number, but row 1"):
        replace(saved(tmp_path, rows[:1]), labels=("score",)).read()


def test_an_unreadable_timestamp_is_an_error(tmp_path: Path) -> None:
    row = {"user_id": "u", "timestamp": "last Tuesday", "question": "q", "response": "r"}
    with pytest.raises(ValueError, match="timestamp a date, but row 1"):
        saved(tmp_path, [row]).read()


def test_a_line_that_is_no_object_is_named(tmp_path: Path) -> None:
    data = saved(tmp_path, [speech("u", 0)])
    for line in (b"[1]", b"{", b"\xff"):
        path = Path(data.path)
        path.write_bytes(json.dumps(speech("u", 0)).encode() + b"\n\n" + line)
        data.check()
        with pytest.raises(ValueError, match=r"line 3 of .* must be one JSON object"):
            data.read()


def test_lines_that_disagree_on_a_type_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"column user_id .* one type of value in all lines"):
        saved(tmp_path, [speech("u", 0), speech(1, 1)]).read()


def test_a_damaged_parquet_file_is_an_error(tmp_path: Path) -> None:
    data = saved(tmp_path, [speech("u", 0)], "parquet")
    Path(data.path).write_bytes(b"PAR1 and then nothing")
    with pytest.raises(ValueError, match="path must name a Parquet file"):
        data.check()


def test_a_table_without_rows_is_an_error(tmp_path: Path) -> None:
    data = saved(tmp_path, [speech("u", 0)], "parquet")
    pl.read_parquet(data.path).clear().write_parquet(data.path)
    with pytest.raises(ValueError, match="at least one exchange, got no row"):
        data.read()
    empty = saved(tmp_path, [])
    with pytest.raises(ValueError, match="at least one exchange, got no row"):
        empty.check()


def refusal(file: RowFile) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        file.read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_half_an_emoji_is_named_by_file_line_and_column(tmp_path: Path) -> None:
    rows = [speech("u", place, f"r{place}") for place in range(12)]
    rows[7]["response"] = "so happy \ud83d"
    told = refusal(saved(tmp_path, rows))
    assert "line 8 of" in told
    assert "data.jsonl" in told
    assert "column response" in told


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"messages": [{"role": "user", "content": "hi"}]}, "'messages'"),
        ({"conversations": [{"from": "human", "value": "hi"}]}, "'conversations'"),
        ({"instruction": "say", "input": "", "output": "yes"}, "'instruction'"),
    ],
)
def test_a_chat_format_is_named_with_the_lines_that_convert_it(
    tmp_path: Path, row: Row, told: str
) -> None:
    said = refusal(saved(tmp_path, [row]))
    assert told in said
    assert "one line per pair" in said or "per row" in said


def test_keys_in_capitals_are_listed(tmp_path: Path) -> None:
    said = refusal(saved(tmp_path, [{"USER_ID": "u", "ORDER": 1, "QUESTION": "", "RESPONSE": "a"}]))
    assert "got USER_ID, ORDER, QUESTION, RESPONSE: rename or add the column" in said


@pytest.mark.parametrize("content", ["", "\n\n", " \n"])
def test_an_empty_file_is_called_empty(tmp_path: Path, content: str) -> None:
    file = saved(tmp_path, [])
    Path(file.path).write_text(content)
    assert refusal(file).endswith("must hold at least one exchange, got no row")


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, [speech("u", 1)])
    with Path(file.path).open("a") as lines:
        lines.write(
            '{"user_id": "u", "order": 2, "question": "", "response": "a", "response": "b"}\n'
        )
    assert "line 2 of" in refusal(file)
    assert "'response' twice" in refusal(file)


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_compressed_file_holds_the_same_rows(tmp_path: Path, ending: str) -> None:
    plain = saved(tmp_path, [speech("u", place, f"é{place}") for place in range(500)])
    packed = replace(plain, path=plain.path + ending)
    kind = {".gz": "gzip", ".zst": "zstd"}[ending]
    with pa.output_stream(packed.path, compression=kind) as stream:
        stream.write(Path(plain.path).read_bytes())
    assert packed.read().equals(plain.read())
    whole = Path(packed.path).read_bytes()
    Path(packed.path).write_bytes(whole[: len(whole) // 2])
    assert "cannot be read to its end" in refusal(packed)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    file = saved(tmp_path, [speech("u", 1)])
    Path(file.path).write_bytes(b"\xef\xbb\xbf" + Path(file.path).read_bytes())
    assert file.read().height == 1


@pytest.mark.parametrize("odd", [None, "3", True, [1]])
def test_a_column_of_numbers_with_something_else_in_it_is_named(
    tmp_path: Path, odd: object
) -> None:
    rows = [speech("u", place, score=place % 3) for place in range(9)]
    rows[4]["score"] = odd
    file = saved(tmp_path, rows)
    assert "score" not in file.read().columns  # nobody looks for labels
    assert "column score" in refusal(replace(file, finds_labels=True))
    assert "line 5 holds" in refusal(replace(file, finds_labels=True))


def test_zoned_and_zoneless_times_in_one_file_are_refused(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"user_id": "u", "timestamp": time, "question": "", "response": "r"}
        for time in ("2024-05-01T12:00:00", "2024-05-01T13:00:00+02:00")
    ]
    assert "rows 2 and 1 (counted from 1) differ" in refusal(saved(tmp_path, rows))


@pytest.mark.parametrize("name", ["order", "timestamp"])
def test_seconds_beside_milliseconds_are_refused(tmp_path: Path, name: str) -> None:
    rows: list[Row] = [
        {"user_id": "u", name: time, "question": "", "response": "r"}
        for time in (1_714_000_000, 1_714_000_100_000, 1_714_000_200)
    ]
    assert "rows 1 and 2 (counted from 1)" in refusal(saved(tmp_path, rows))


def test_an_order_that_its_timestamps_contradict_is_refused(tmp_path: Path) -> None:
    rows = [
        speech("u", 1, timestamp=20),
        speech("u", 2, timestamp=30),
        speech("u", 3, timestamp=10),
    ]
    assert "do not at row 3" in refusal(saved(tmp_path, rows))
    rows[2]["timestamp"] = 40
    assert saved(tmp_path, rows).read()["order"].to_list() == [1, 2, 3]


@pytest.mark.parametrize(("one", "other"), [("ann", "ann "), ("jos\u00e9", "jose\u0301")])
def test_users_that_look_alike_are_one_person_or_an_error(
    tmp_path: Path, one: str, other: str
) -> None:
    assert "one user_id" in refusal(saved(tmp_path, [speech(one, 1), speech(other, 2)]))


@pytest.mark.parametrize("place", [4, 60, 200, -20, -4])
def test_a_damaged_parquet_file_never_ends_the_process(tmp_path: Path, place: int) -> None:
    file = saved(tmp_path, [speech("u", n, f"r{n}") for n in range(50)], "parquet")
    content = bytearray(Path(file.path).read_bytes())
    content[place : place + 3] = b"\xff\xff\xff"
    Path(file.path).write_bytes(content)
    with contextlib.suppress(ValueError):
        file.read()
    with pytest.raises(ValueError, match=r"^[^\n]*$"):
        _ = [file.read(), spoiled(file.path).read()]


def spoiled(path: str) -> RowFile:
    """The file without its end, which no reader takes."""
    Path(path).write_bytes(Path(path).read_bytes()[:-9])
    return RowFile(path=path, format="parquet")


def test_an_unknown_time_zone_is_no_reason_to_panic(tmp_path: Path) -> None:
    path = tmp_path / "zone.parquet"
    instants = pa.array([2_000_000, 1_000_000], pa.timestamp("us", "Mars/Base"))
    columns = {"user_id": ["u", "u"], "question": ["q", "q"], "response": ["a", "b"]}
    nested = {"timestamp": instants, "list": [[1], [2]]}
    parquet.write_table(pa.table(columns | nested), path)
    read = RowFile(path=str(path), format="parquet").read()
    assert read.sort("order")["response"].to_list() == ["b", "a"]


def test_metadata_that_is_no_utf_8_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "metadata.parquet"
    table = pa.table({"user_id": ["u"], "order": [1], "question": ["q"], "response": ["a"]})
    parquet.write_table(table.replace_schema_metadata({b"\xff": b"\xff"}), path)
    assert RowFile(path=str(path), format="parquet").read()["response"].to_list() == ["a"]


def test_text_that_is_no_utf_8_is_told(tmp_path: Path) -> None:
    path = tmp_path / "text.parquet"
    columns = {"user_id": ["u"], "order": [1], "question": ["q"]}
    broken = pa.array([b"\xff"], pa.binary()).cast(pa.string(), safe=False)
    parquet.write_table(pa.table(columns | {"response": broken}), path)
    with pytest.raises(ValueError, match="must name a whole Parquet file"):
        RowFile(path=str(path), format="parquet").read()


def test_a_nested_column_is_refused_in_parquet_and_in_lines(tmp_path: Path) -> None:
    path = tmp_path / "nested.parquet"
    parquet.write_table(
        pa.table({"user_id": ["u"], "order": [1], "question": [["q"]], "response": ["a"]}), path
    )
    with pytest.raises(ValueError, match=r"column question of .* must hold text, got list"):
        RowFile(path=str(path), format="parquet").read()
    deep: Any = "a"
    for _ in range(400):
        deep = [deep]
    lines = saved(tmp_path, [speech("u", 0), speech("u", 1, response=deep)])
    with pytest.raises(ValueError, match=r"column response .* line 2 holds a list"):
        lines.read()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\n" * 3_000_000, "at most 100000 blank lines, holds more by line 100001"),
        (b'{"a": "' + b"a" * 3_000_000 + b'"}', "at most 100 times the"),
        (json.dumps(speech("u", 0)).encode() + b"\n" * 300_000, "blank lines"),
    ],
)
def test_a_file_that_swells_when_it_is_opened_is_refused(
    tmp_path: Path, text: bytes, message: str
) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(text))
    with pytest.raises(ValueError, match=message):
        RowFile(path=str(path), format="jsonl").read()


def test_a_file_without_line_ends_is_not_read_into_memory_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 28)  # zeros that take no room on disk
    with pytest.raises(ValueError, match=r"line 1 of .* must be at most 16 MiB"):
        RowFile(path=str(path), format="jsonl").read()


def test_half_a_character_in_the_name_of_a_column_is_told(tmp_path: Path) -> None:
    lines = saved(tmp_path, [speech("u", 0, **{"mood\ud83d": 1})])
    with pytest.raises(ValueError, match=r"half a character .* in column 'mood.ud83d'"):
        lines.check()
