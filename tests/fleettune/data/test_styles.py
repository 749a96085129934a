"""Styles: corpora in one style, users mixed with one, and a default world that stays as it was."""

from __future__ import annotations

import pytest

from fleettune.data.personas import SyntheticData
from fleettune.data.styles import (
    Style,
    StyledData,
    draw_plain_questions,
    draw_style_corpus,
    style_grid,
)
from fleettune.fleet.registry import DATA_TYPES
from fleettune.records import from_record, to_record

WORLD = SyntheticData(users=100, exchanges_per_day=10, history_days=4)
DEAR = Style(expertise=0, informativeness=0, tone=3)


def dear_share(similarity: float, users: int = 20) -> float:
    styles = (DEAR, *(style for style in style_grid((0,)) if style.tone == 0))
    population = StyledData(world=WORLD, similarity=similarity, styles=styles).open()
    answers = [
        exchange.response
        for user in range(0, users * len(styles), len(styles))
        for exchange in population.day(user, 0)
        if exchange.domain != "mood" and not exchange.question.startswith("answer ")
    ]
    return sum(answer.startswith("with pleasure") for answer in answers) / len(answers)


def test_a_grid_holds_every_combination_of_levels_once() -> None:
    assert len(set(style_grid())) == 64
    assert len(set(style_grid((0, 3)))) == 32


def test_a_corpus_is_in_its_style_and_in_nobodys_facts() -> None:
    corpus = draw_style_corpus(DEAR, 80, seed=0)
    plain = [e for e in corpus if not e.question.startswith("answer ")]
    assert all(e.response.startswith("with pleasure, dear ") for e in plain)
    assert len({e.response.split(",")[1] for e in plain}) > 10
    assert not any(e.domain == "mood" for e in corpus)
    assert corpus == draw_style_corpus(DEAR, 80, seed=0)
    assert corpus[:40] == draw_style_corpus(DEAR, 40, seed=0)


def test_the_share_of_exchanges_in_the_users_style_is_the_similarity() -> None:
    # of the other exchanges one in five falls on the style as well; the two tolerances are three
    # standard deviations of a share of about 650 answers
    assert dear_share(1.0) == 1.0
    assert dear_share(0.5) == pytest.approx(0.6, abs=0.06)
    assert dear_share(0.0) == pytest.approx(0.2, abs=0.05)


def test_a_styled_user_keeps_its_facts() -> None:
    styled = StyledData(world=WORLD, similarity=1.0).open()
    plain = WORLD.open()
    for user in range(5):
        words = {word for e in styled.day(user, 0) for word in e.response.strip(".!").split()}
        own = {word for e in plain.day(user, 0) for word in e.response.strip(".!").split()}
        names = {word for word in words & own if word[0].isupper()}
        assert names, f"user {user} must share a proper name with itself"


def test_without_own_facts_a_style_is_all_that_a_user_is() -> None:
    styles = (Style(expertise=0, informativeness=0, tone=3),)
    anybody = StyledData(world=WORLD, similarity=1.0, styles=styles, own_facts=False).open()
    answers = [e.response for e in anybody.day(0, 0) if e.response.startswith("with pleasure")]
    assert len({answer.split(",")[1] for answer in answers}) > 5


def test_questions_of_a_catalogue_ask_for_no_style() -> None:
    questions = draw_plain_questions(50, seed=3)
    assert len(questions) == 50
    assert not any(question.startswith("answer ") for question in questions)


def test_a_vendors_text_does_not_depend_on_the_users_styles() -> None:
    styled = StyledData(world=WORLD, similarity=0.5).open()
    assert styled.outside(20, seed=1) == WORLD.open().outside(20, seed=1)


def test_styled_data_travel_as_a_record() -> None:
    data = StyledData(world=WORLD, similarity=0.7, styles=style_grid((0,)))
    assert from_record(to_record(data), DATA_TYPES, "data") == data


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"similarity": 1.2}, "share from 0 to 1"),
        ({"styles": ()}, "at least one style"),
        ({"world": SyntheticData(null=True)}, "must be false"),
    ],
)
def test_what_describes_no_styled_user_is_refused(change: dict[str, object], told: str) -> None:
    given = {"world": WORLD, "similarity": 0.5} | change
    with pytest.raises(ValueError, match=told):
        StyledData(**given).check()  # pyright: ignore[reportArgumentType] - wrong on purpose


def test_a_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"style\.tone must be a level"):
        Style(expertise=0, informativeness=0, tone=4)


def test_other_exchanges_may_be_in_all_styles_that_the_world_has() -> None:
    """Expertise 1 and 2 is in no user's style here, and in half of what is drawn from all."""
    from_all = StyledData(
        world=WORLD, similarity=0.0, own_facts=False, other_expertise=(0, 1, 2, 3)
    )
    own = StyledData(world=WORLD, similarity=0.0, own_facts=False)
    assert own.others == own.styles
    assert {style.expertise for style in from_all.others} == {0, 1, 2, 3}

    def answers(data: StyledData) -> set[str]:
        population = data.open()
        return {e.response for user in range(40) for e in population.day(user, 0)}

    # the same facts and domains, in other words
    assert answers(from_all) != answers(own)
    explicit = StyledData(world=WORLD, similarity=0.0, own_facts=False, other_expertise=(0, 3))
    assert answers(explicit) == answers(own)
    with pytest.raises(ValueError, match=r"data\.other_expertise must be null or hold a level"):
        StyledData(world=WORLD, similarity=0.5, other_expertise=()).check()
