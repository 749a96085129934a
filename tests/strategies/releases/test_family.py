"""Claims on trains of releases that are drawn from a family."""

import dataclasses
import re
from typing import Any

import pytest

from strategies.releases.family import ReleaseFamily, draw_plans

_FAMILY = ReleaseFamily(
    count=200,
    kinds={"full": 0.6, "low_rank": 0.2, "reparametrised": 0.1, "quantised": 0.1},
    steps=(30, 100),
    learning_rate=(3e-4, 2e-3),
    leans=4,
    topics=0.25,
    conversations=50,
    batch=4,
    window=32,
)


def test_every_drawn_release_is_of_the_family() -> None:
    plans = draw_plans(_FAMILY, 3)
    trained = [plan for plan in plans if plan.is_trained]
    full = [plan for plan in trained if plan.kind == "full"]
    assert {plan.kind for plan in plans} == set(_FAMILY.kinds)
    assert all(30 <= plan.steps <= 100 for plan in trained)
    assert all(3e-4 <= plan.learning_rate <= 2e-3 for plan in full)
    assert max(plan.learning_rate for plan in trained) > 2e-3, "low-rank releases take more"
    assert {len(plan.leans) for plan in trained} == {0, 1, 2, 3, 4}
    assert not any(lean.endswith("=0") for plan in trained for lean in plan.leans)
    assert {len(plan.about) for plan in trained} == {0, 2}


def test_kinds_come_as_often_as_their_chances_say() -> None:
    kinds = [plan.kind for seed in range(5) for plan in draw_plans(_FAMILY, seed)]
    # 1,000 draws: four standard deviations of a share of 0.6 are 0.062
    assert kinds.count("full") / len(kinds) == pytest.approx(0.6, abs=0.062)


def test_a_train_depends_on_its_seed_alone() -> None:
    first = draw_plans(_FAMILY, 1)
    assert first == draw_plans(_FAMILY, 1)
    assert first != draw_plans(_FAMILY, 2)
    assert draw_plans(dataclasses.replace(_FAMILY, count=5), 1) == first[:5]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"count": 0}, "count must be >= 1, got 0"),
        ({"kinds": {"merged_fleet": 1.0}}, "kinds must be of"),
        ({"kinds": {"full": 0.0}}, "a sum above 0"),
        ({"kinds": {}}, "a sum above 0"),
        ({"steps": (9, 3)}, "the lower one first, got 9 and 3"),
        ({"learning_rate": (0.0, 1e-3)}, "above 0"),
        ({"leans": 99}, "leans must be from 0 to"),
        ({"topics": 1.5}, "topics must be from 0 to 1, got 1.5"),
    ],
)
def test_a_family_that_cannot_be_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        dataclasses.replace(_FAMILY, **wrong)
