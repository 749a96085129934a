"""Corpora: parted by question, never mixed up; users walk through their own half."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fleettune.data.style_corpora import Corpora, CorporaData, Corpus, corpus_name


def corpora(folder: Path, rows: int = 80) -> Corpora:
    files: list[Corpus] = []
    for name in ("terse", "wordy"):
        file = folder / f"{name}.jsonl"
        lines = [{"question": f"{name} {n}?", "response": f"{name}!"} for n in range(rows)]
        file.write_text("\n".join(json.dumps(line) for line in [*lines, lines[0]]))
        files.append(Corpus(name=name, path=str(file)))
    return Corpora(files=tuple(files))


def test_server_and_users_share_no_question(tmp_path: Path) -> None:
    text = corpora(tmp_path)
    server, users = (set(text.read("terse", users=own)) for own in (False, True))
    assert not server & users
    assert len(server) + len(users) == 80


def test_users_are_mixed_with_one_corpus_and_say_nothing_twice(tmp_path: Path) -> None:
    data = CorporaData(text=corpora(tmp_path), similarity=1.0, exchanges_per_day=4, history_days=2)
    data.check()
    people = data.open()
    days = [people.day(1, day) for day in range(3)]
    assert [len(day) for day in days] == [8, 4, 4]
    said = [e.question for day in days for e in day]
    assert len(set(said)) == len(said)
    assert all(question.startswith("wordy") for question in said)
    assert (corpus_name(people, 1), corpus_name(object(), 1)) == ("wordy", None)
    mixed = replace(data, similarity=0.0).open().day(1, 0)
    assert {e.domain for e in mixed} == {"terse", "wordy"}


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    text = corpora(tmp_path)
    with pytest.raises(ValueError, match="two or more"):
        Corpora(files=text.files[:1])
    one = replace(text, files=(text.files[0], replace(text.files[1], path="nowhere.jsonl")))
    with pytest.raises(ValueError, match="corpus wordy: path"):
        CorporaData(text=one).check()
    kind = replace(text, files=(text.files[0], replace(text.files[1], domain="x")))
    with pytest.raises(ValueError, match="column 'domain'"):
        CorporaData(text=kind).check()


def test_a_damaged_corpus_is_told_with_its_name(tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 and then nothing PAR1")
    text = corpora(tmp_path)
    files = (text.files[0], replace(text.files[1], path=str(broken)))
    with pytest.raises(ValueError, match="corpus wordy: path must name a Parquet file"):
        CorporaData(text=replace(text, files=files)).check()
