"""Rankings: made once per release on text outside the fleet, and placed by without probing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from fleettune.backbone.causal_lm import POCKET_FOLDER, read_shapes
from fleettune.cohort.execute import execute_here
from fleettune.data.exchanges import Answer, Exchange
from fleettune.data.personas import SyntheticData
from fleettune.jobs.jobs import Job, ProbeJob, Result
from fleettune.messages.flower_records import Request, decode_request, encode_request
from fleettune.records import to_record
from fleettune.releases.manifest import Manifest
from fleettune.releases.model_files import folder_digest
from fleettune.releases.site_ranking import ProbeRecipe, Ranking
from strategies.releases.ranking import BATCH, Ranker, outside_exchanges

SHAPES = read_shapes(POCKET_FOLDER)
RELEASE = Manifest(
    version=0,
    name="pocket",
    path=str(POCKET_FOLDER),
    digest=folder_digest(POCKET_FOLDER),
    size_bytes=2 * SHAPES.parameters,
    shapes=SHAPES,
    template="pocket",
    max_tokens=128,
)
RECIPE = ProbeRecipe(benefit="gradient", rank=2, batches=2)
FISHER = replace(RECIPE, benefit="fisher")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outsiders:
    """A population whose fleet nobody may read; notes the keys under which text was asked for."""

    asked: list[int] = field(default_factory=list[int])
    users: int = 10
    labels: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()

    def day(self, user: int, day: int) -> tuple[Exchange, ...]:
        raise AssertionError(f"the server read user {user} of the fleet")

    def outside(self, count: int, seed: int) -> Sequence[tuple[Exchange, ...]]:
        self.asked.append(seed)
        return SyntheticData().open().outside(count, seed)


def ranker(store: Path, *recipes: ProbeRecipe) -> Ranker:
    return Ranker(recipes=recipes, store=store, population=Outsiders(), seed=3)


def test_a_manifest_without_rankings_has_the_bytes_that_it_had(tmp_path: Path) -> None:
    assert ranker(tmp_path).rank(RELEASE) == RELEASE
    assert list(tmp_path.iterdir()) == []
    record = to_record(RELEASE)
    fields = "type version name path digest size_bytes shapes template max_tokens drifts"
    assert list(record) == fields.split()


def test_a_ranking_names_every_site_and_crosses_the_wire(tmp_path: Path) -> None:
    release = ranker(tmp_path, RECIPE, FISHER).rank(RELEASE)
    for recipe in (RECIPE, FISHER):
        ranking = release.ranking(recipe)
        assert ranking is not None
        assert len(ranking.by_site) == 7 * SHAPES.layers
        assert min(ranking.by_site.values()) > 0
    # squares batch by batch are not the square of their sum
    assert release.rankings[0].benefits != release.rankings[1].benefits
    assert release.ranking(replace(RECIPE, rank=3)) is None
    request = Request(arm="a", round=0, release=release, policy={}, observe=False)
    assert decode_request(encode_request(request)).release == release
    # a site and seven digits each
    assert len(json.dumps(to_record(release.rankings[0]))) < 30 * 7 * SHAPES.layers


def test_equal_rankings_are_made_once_and_found_by_content(tmp_path: Path) -> None:
    first = ranker(tmp_path / "one", RECIPE).rank(RELEASE)
    assert ranker(tmp_path / "two", RECIPE).rank(RELEASE) == first

    def refuse(jobs: Sequence[Job]) -> Sequence[Result]:
        raise AssertionError(f"probed again: {len(jobs)} jobs")

    again = replace(ranker(tmp_path / "one", RECIPE), run=refuse)
    # where a release lies says nothing about what it is
    assert again.rank(RELEASE) == first
    for other in (
        replace(again, seed=4).rank,
        replace(again, recipes=(FISHER,)).rank,
        lambda release: again.rank(replace(release, digest="other weights")),
        lambda release: again.rank(replace(release, version=1)),
    ):
        with pytest.raises(AssertionError, match="probed again"):
            other(RELEASE)


def test_the_server_probes_as_devices_do_on_users_outside_the_fleet(tmp_path: Path) -> None:
    seen: list[Job] = []

    def noted(jobs: Sequence[Job]) -> Sequence[Result]:
        seen.extend(jobs)
        return execute_here(jobs)

    population = Outsiders()
    made = Ranker(recipes=(FISHER,), store=tmp_path, population=population, seed=3, run=noted)
    made.rank(RELEASE)
    probes = [job for job in seen if isinstance(job, ProbeJob)]
    assert [[len(batch) for batch in job.batches] for job in probes] == [[BATCH], [BATCH]]
    # releases are trained on keys 3000 + version
    assert population.asked == [3500]
    (told,) = made.list_probes(RELEASE)
    assert told["release"] == 0
    examples = [example for job in probes for batch in job.batches for example in batch]
    assert [one for batch in told["batches"] for one in batch] == [
        (len(example.tokens), example.supervised) for example in examples
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Few:
    """A population with a few talkative users outside the fleet, as tables have."""

    said: tuple[int, ...]
    users: int = 10
    labels: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()

    def day(self, user: int, day: int) -> tuple[Exchange, ...]:
        return ()

    def outside(self, count: int, seed: int) -> Sequence[tuple[Exchange, ...]]:
        return [
            tuple(
                Exchange(question=f"{user}.{place}", response="a", day=0, order=place)
                for place in range(length)
            )
            for user, length in enumerate(self.said[:count])
        ]


def test_users_outside_speak_in_turn() -> None:
    found = outside_exchanges(Few(said=(3, 1, 2)), 5, 1)
    assert [exchange.question for exchange in found] == ["0.0", "1.0", "2.0", "0.1", "2.1"]


@pytest.mark.parametrize("said", [(), (9, 6)])
def test_too_little_text_is_refused(said: tuple[int, ...]) -> None:
    told = f"placement.probe=server needs 16 exchanges .* got {sum(said)}: lower"
    with pytest.raises(ValueError, match=told):
        outside_exchanges(Few(said=said), 16, 0)


@pytest.mark.parametrize(
    ("benefits", "said"),
    [
        ((("0.q", 1.0), ("0.q", 2.0)), "name each site once"),
        ((("0.q", -1.0),), "finite and >= 0"),
        ((("0.q", float("nan")),), "finite and >= 0"),
    ],
)
def test_a_ranking_that_is_none_is_refused(
    benefits: tuple[tuple[str, float], ...], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Ranking(recipe=RECIPE, benefits=benefits)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"benefit": "hope"}, "recipe.benefit must be one of"), ({"rank": 0}, "recipe.rank must be")],
)
def test_a_recipe_that_is_none_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(RECIPE, **changes)
