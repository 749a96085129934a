"""A search finds the known front, goes on where it was stopped, and prunes what is worse."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from simulations.cli import main
from simulations.sweeps.search import Score, Search, list_trials, search_front
from simulations.sweeps.search_command import expand_files
from simulations.sweeps.search_space import list_corners, read_space
from simulations.sweeps.trials import name_searched_arm

SPACE = {
    "steps": IntDistribution(1, 40),
    "waste": IntDistribution(0, 30),
    "rule": CategoricalDistribution(("good", "bad")),
}


@dataclass
class Toy:
    """More steps give more quality for more joules; waste and the bad rule only harm.

    So a point is on the front if and only if it has no waste and the good rule.
    """

    asked: list[tuple[int, bool]] = field(default_factory=list[tuple[int, bool]])
    stops_at: int = -1

    def __call__(self, number: int, values: Mapping[str, object], *, is_short: bool) -> Score:
        if number == self.stops_at:
            raise KeyboardInterrupt
        self.asked.append((number, is_short))
        steps, waste = int(str(values["steps"])), int(str(values["waste"]))
        lost = 0.1 if values["rule"] == "bad" else 0.0
        return Score(quality=steps / (steps + 10) - lost, energy_j=float(steps + waste))


@pytest.mark.slow  # 30 trials in SQLite take about 10 s
def test_thirty_trials_find_a_point_of_the_known_front(tmp_path: Path) -> None:
    """Trials drawn at random find one in 40 % of the searches: 1 - (1 - 1/62)^30."""
    front = search_front(tmp_path / "s.sqlite", SPACE, Toy(), Search(trials=30, seed=0))
    known = [one for one in front if one.values["waste"] == 0 and one.values["rule"] == "good"]
    assert known
    for one in known:
        steps = int(str(one.values["steps"]))
        assert one.score == Score(quality=steps / (steps + 10), energy_j=steps)
    joules = [one.score.energy_j for one in front]
    assert joules == sorted(joules)
    qualities = [one.score.quality for one in front]
    assert qualities == sorted(qualities), "more joules without more quality are no front"


@pytest.mark.parametrize("last", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_search_that_was_stopped_makes_the_trials_of_one_that_was_not(
    last: int, tmp_path: Path
) -> None:
    whole, stopped = tmp_path / "whole.sqlite", tmp_path / "stopped.sqlite"
    search = Search(trials=last + 2, seed=5)
    once = search_front(whole, SPACE, Toy(), search)
    with pytest.raises(KeyboardInterrupt):
        search_front(stopped, SPACE, Toy(stops_at=last), search)
    toy = Toy()
    again = search_front(stopped, SPACE, toy, search)
    assert toy.asked == [(last, False), (last + 1, False)], "the one that was stopped comes first"
    assert again == once
    assert [one.params for one in list_trials(stopped)] == [
        one.params for one in list_trials(whole)
    ]


def test_a_point_that_was_tried_is_not_run_again(tmp_path: Path) -> None:
    space = {"steps": IntDistribution(3, 3), **{key: SPACE[key] for key in ("waste", "rule")}}
    space["waste"] = IntDistribution(0, 0)
    toy = Toy()
    front = search_front(tmp_path / "s.sqlite", space, toy, Search(trials=6, seed=0))
    assert len(toy.asked) == 2, "there are two points"
    assert [(one.values["rule"], one.score.energy_j) for one in front] == [("good", 3.0)]


def test_a_trial_whose_short_run_is_beaten_has_no_whole_run(tmp_path: Path) -> None:
    toy = Toy()
    search = Search(trials=5, seed=0, prunes=True)
    search_front(tmp_path / "s.sqlite", SPACE, toy, search)
    states = {one.number: one.state.name for one in list_trials(tmp_path / "s.sqlite")}
    assert [number for number, is_short in toy.asked if is_short] == list(range(5))
    pruned = {number for number, state in states.items() if state == "PRUNED"}
    assert {number for number, is_short in toy.asked if not is_short} == set(range(5)) - pruned
    assert 0 < len(pruned) < 5
    # a trial is pruned where an earlier one that was not pruned is better by 5 % in both
    for one in list_trials(tmp_path / "s.sqlite"):
        own = Toy()(0, one.params, is_short=True)
        earlier = [
            Toy()(0, other.params, is_short=True)
            for other in list_trials(tmp_path / "s.sqlite")
            if other.number < one.number and other.number not in pruned
        ]
        beaten = any(
            other.quality > own.quality * 1.05 and other.energy_j < own.energy_j * 0.95
            for other in earlier
        )
        assert beaten == (one.number in pruned)


def test_a_point_that_is_no_experiment_fails_and_the_search_goes_on(tmp_path: Path) -> None:
    def refuse(number: int, values: Mapping[str, object], *, is_short: bool) -> Score | None:
        del is_short
        return None if number == 0 else Score(quality=1.0, energy_j=float(str(values["steps"])))

    front = search_front(tmp_path / "s.sqlite", SPACE, refuse, Search(trials=3, seed=0))
    states = [one.state.name for one in list_trials(tmp_path / "s.sqlite")]
    assert states == ["FAIL", "COMPLETE", "COMPLETE"]
    assert {one.number for one in front} <= {1, 2}


def test_ranges_are_read_as_hydra_reads_them() -> None:
    shared, space = read_space(
        [
            *("rounds=4", "tuning.steps_first=range(24,96,24)", "adaptation=edgetune,always_reuse"),
            *("tuning.learning_rate=tag(log,interval(1e-4,1e-2))", "seed=int(interval(1,5))"),
            "+extra=range(0.5,2,0.5)",
        ]
    )
    assert shared == ["rounds=4"]
    assert space == {
        "tuning.steps_first": IntDistribution(24, 72, step=24),
        "adaptation": CategoricalDistribution(("edgetune", "always_reuse")),
        "tuning.learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
        "seed": IntDistribution(1, 5),
        "+extra": FloatDistribution(0.5, 1.5, step=0.5),
    }


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("seed=1", "at least one key with several values"),
        ("seed=range(5,1)", "seed=range(5,1) cannot be searched: the range has no number"),
        ("seed=interval(5,1)", "seed=interval(5,1) cannot be searched"),
    ],
)
def test_a_space_without_points_is_refused(given: str, told: str) -> None:
    with pytest.raises(ValueError, match="search") as found:
        read_space([given])
    assert told in str(found.value)


def test_every_end_of_every_key_is_a_corner() -> None:
    space = {"a": IntDistribution(1, 9), "b": CategoricalDistribution(("x", "y", "z"))}
    assert list(list_corners(space)) == [
        {"a": 1, "b": "x"},
        {"a": 9, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 1, "b": "z"},
    ]


def test_the_arm_that_is_searched_is_never_guessed() -> None:
    assert name_searched_arm(["reference", "mine"], None) == "mine"
    assert name_searched_arm(["reference"], None) == "reference"
    assert name_searched_arm(["reference", "a", "b"], "reference") == "reference"
    with pytest.raises(ValueError, match="--arm must be one of reference, a, b, got none"):
        name_searched_arm(["reference", "a", "b"], None)
    with pytest.raises(ValueError, match="--arm must be one of reference, mine, got yours"):
        name_searched_arm(["reference", "mine"], "yours")


def test_a_file_stands_for_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("rounds: 4\nseed: range(1,5)\ntuning.prefix_cache: true\nfleet.deadline_s:\n")
    assert expand_files([str(file), "seed=1"]) == [
        *("rounds=4", "seed=range(1,5)", "tuning.prefix_cache=true", "fleet.deadline_s=null"),
        "seed=1",
    ]
    file.write_text("seed: [1, 2]\n")
    with pytest.raises(ValueError, match="must hold lines"):
        expand_files([str(file)])


def test_a_search_without_optuna_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)  # as if it were not installed
    assert main(["search", "seed=1,2"]) == 2
    assert "pip install 'fleettune[search]'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["sweep", "search"])
def test_the_help_of_a_command_has_an_example_and_fits_80_columns(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"  fleettune {command} ") for line in lines)
    assert max(map(len, lines)) <= 80
