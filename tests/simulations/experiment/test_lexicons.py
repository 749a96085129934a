"""Lexicons: their files, the built-in one, and those derived from a labelled corpus."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import hydra
import pytest

from clients.selection.lexicon import Lexicon, count_hits, lexicon_text, read_lexicons, words_of
from clients.selection.quality import QualityReplace
from fleettune.data.personas import DOMAINS, SyntheticData
from simulations.cli import main
from simulations.experiment.arms import read_choices
from simulations.experiment.build import Experiment, build
from simulations.experiment.lexicons import compute_log_odds, derive_lexicons, find_lexicons

SMALL = "# two\n[food]\nsoup bread # and\ntea\n\n[travel]\ntrain tea train\n"


def test_a_file_reads_back() -> None:
    lexicons = read_lexicons(SMALL)
    assert lexicons == (
        Lexicon(domain="food", words="soup bread tea"),
        Lexicon(domain="travel", words="train tea"),
    )
    assert read_lexicons(lexicon_text(lexicons, "again")) == lexicons


def test_words_are_counted_in_every_lexicon_that_has_them() -> None:
    words = words_of("Tea, TEA and the train: don't 42!")
    assert words == ["tea", "tea", "and", "the", "train", "don't"]
    assert count_hits(words, read_lexicons(SMALL)) == [2, 3]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("soup", "line 1 must be a"),
        ("", "at least one"),
        ("[a]\nx\n[a]\ny", "line 3: the domain a comes twice"),
        ("[a]\n[b]\nx", "lexicon a must be lower-case words, got none"),
        ("[a]\nSoup", "got 'Soup'"),
        ("[A b]\nsoup", "short lower-case word, got 'A b'"),
    ],
)
def test_a_malformed_file_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_lexicons(text)


def test_the_built_in_lexicon_knows_what_the_built_in_world_talks_about() -> None:
    lexicons = find_lexicons("everyday")
    names = {item.domain for item in lexicons}
    assert 8 <= len(names) <= 12
    assert set(DOMAINS) - {"mood"} <= names
    population = SyntheticData().open()
    right: Counter[bool] = Counter()
    for user in range(30):
        for exchange in population.day(user, 0):
            counts = count_hits(words_of(exchange.question), lexicons)
            domain = "emotion" if exchange.domain == "mood" else exchange.domain
            if max(counts):
                right[lexicons[counts.index(max(counts))].domain == domain] += 1
    assert right[True] / right.total() > 0.7
    # what travels to a device in every request
    assert len(json.dumps([item.words for item in lexicons])) < 6000


def test_log_odds_by_hand() -> None:
    # a: soup 3, the 1; b: train 2, the 2. Prior 8 words: soup 3, the 3, train 2 (8 in all).
    own, whole = Counter(soup=3, the=1), Counter(soup=3, the=3, train=2)
    found = compute_log_odds(own, whole, prior=8)
    delta = math.log(6 / (4 + 8 - 6)) - math.log(3 / (4 + 8 - 3))
    assert found["soup"] == pytest.approx(delta / math.sqrt(1 / 6 + 1 / 3))
    delta = math.log(4 / (12 - 4)) - math.log(5 / (12 - 5))
    assert found["the"] == pytest.approx(delta / math.sqrt(1 / 4 + 1 / 5))


def corpus(file: Path) -> Path:
    rows = [{"topic": "Food & drink", "q": "the soup", "a": "the bread"}] * 40
    rows += [{"topic": "travel", "q": "the train", "a": "the ticket or the soup"}] * 40
    rows += [{"topic": "travel", "q": "the train", "a": "the"}] * 40
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_a_corpus_becomes_a_lexicon_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, into = corpus(tmp_path / "c.jsonl"), tmp_path / "mine.txt"
    command = ["lexicon", str(source), "--label", "topic", "--text", "q", "--text", "a"]
    assert main([*command, "-o", str(into)]) == 0
    assert str(into) in capsys.readouterr().out
    by_name = {item.domain: item.words.split() for item in find_lexicons(str(into))}
    # what both say alike is nobody's word
    assert by_name.keys() == {"food_drink", "travel"}
    assert by_name["food_drink"][0] == "bread"
    assert by_name["travel"][0] == "train"
    assert not [words for words in by_name.values() if "the" in words]
    assert QualityReplace(lexicon=find_lexicons(str(into))).embeddings == "stored"
    assert main([*command, "-o", str(into)]) == 2
    assert "must name a new file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"topic": "a"}', "line 2 must have text in 'q', got None"),
        ('{"topic": 3, "q": "x"}', "line 2 must have text in 'topic', got 3"),
        ("[1]", "must be one JSON object in UTF-8, got '[1]"),
        ('{"topic": "!", "q": "x"}', "must hold a word"),
    ],
)
def test_a_bad_line_exits_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, told: str
) -> None:
    source = tmp_path / "c.jsonl"
    source.write_text('{"topic": "a", "q": "x"}\n' + line + "\n")
    arguments = ["lexicon", str(source), "--label", "topic", "--text", "q"]
    assert main([*arguments, "-o", str(tmp_path / "o.txt")]) == 2
    assert told in " ".join(capsys.readouterr().err.split())


def test_labels_without_words_of_their_own_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two labels"):
        derive_lexicons([("a", "x")], 5)
    with pytest.raises(ValueError, match="has no word of its own"):
        derive_lexicons([("a", "x y"), ("b", "x y")], 5)


def built(*overrides: str) -> Experiment:
    with hydra.initialize_config_module("conf", version_base="1.3"):
        cfg = hydra.compose("config", overrides=list(overrides))
    return build(cfg, read_choices(overrides))


def test_a_users_lexicon_reaches_the_policy(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text(SMALL)
    asked = ("selection=quality", f"lexicon={tmp_path / 'mine.txt'}", "annotation.per_1000=20")
    policies = built(*asked).arms
    assert policies["quality"].selection == QualityReplace(lexicon=read_lexicons(SMALL))
    assert {policy.annotation.per_1000 for policy in policies.values()} == {20}
    assert built("selection=quality").arms["always_retune"].annotation.per_1000 is None


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("lexicon=nowhere", "lexicon must be one of"),
        ("annotation.per_1000=-1", "annotation.per_1000 must be null or from 0 to 1000"),
        ("+annotation.per_day=1", "annotation.per_day is not a known key"),
        ("selection.scores=[rouge]", "selection: scores must be among"),
        ("+selection.half_life=9", "selection.half_life is not a known key"),
    ],
)
def test_a_bad_choice_is_refused_at_launch(override: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        built("selection=quality", override)


def test_an_unknown_lexicon_says_what_there_is() -> None:
    with pytest.raises(
        ValueError, match=r"must be one of \['everyday', 'personas'\] or an existing file"
    ):
        find_lexicons("nowhere")
