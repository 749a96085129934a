"""The page of `fleettune run --help` is ours, fits a terminal and names what is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from simulations.command_line import read_command_line
from simulations.experiment.option_groups import read_groups
from simulations.launch import check_all, launch

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
Capture = pytest.CaptureFixture[str]


def page(capsys: Capture, *beside: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        launch(["--help", *beside])
    assert stopped.value.code == 0
    return capsys.readouterr().out


def listed(text: str) -> dict[str, str]:
    """What the page says of each group, lines joined."""
    found = re.findall(r"^  (\w+) {2,}(.+(?:\n {16}.+)*)", text, re.MULTILINE)
    return {name: " ".join(said.split()) for name, said in found}


def options_in(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def test_conf_describes_each_of_its_groups_in_at_most_ten_words() -> None:
    groups = read_groups()
    folders = {file.parent.name for file in CONF.glob("*/*.yaml")}
    assert {group.name for group in groups} == folders - {"hardware"}
    assert [group.name for group in groups if len(group.meaning.split()) > 10] == []
    named = [group for group in groups if group.default != "${model}"]
    assert len(named) == len(groups) - 3
    assert all(group.default in options_in(group.name) for group in named)


def test_the_help_lists_every_option_of_every_group_within_80_columns(capsys: Capture) -> None:
    text = page(capsys)
    assert max(map(len, text.splitlines())) <= 80
    said = listed(text)
    assert list(said) == [group.name for group in read_groups()]
    for group in read_groups():
        options = [
            f"{one} (default)" if one == group.default else one for one in options_in(group.name)
        ]
        assert said[group.name] == f"{group.meaning}: {', '.join(options)}"


def test_the_help_does_not_hold_the_composed_configuration(capsys: Capture) -> None:
    text = page(capsys)
    assert "_target_" not in text
    assert "buffer_bytes" not in text
    assert "powered by Hydra" not in text
    assert "--cfg job" in text
    assert "--hydra-help" in text


def test_the_examples_of_the_help_can_be_run(capsys: Capture) -> None:
    examples = re.findall(r"^  fleettune run (.+)$", page(capsys), re.MULTILINE)
    assert len(examples) == 3
    jobs: list[int] = []
    for example in examples[:2]:
        asked = read_command_line(shlex.split(example))
        jobs.append(len(check_all(asked.overrides, sweep=asked.sweeps)))
    assert jobs == [1, 4]
    assert examples[2].startswith("resume=outputs/")


def test_the_help_lists_an_option_in_a_folder_of_ones_own(capsys: Capture) -> None:
    own = str(ROOT / "docs" / "example_policy" / "conf")
    said = listed(page(capsys, "--config-dir", own))
    assert "swapped, thrifty, user_prior" in said["adaptation"]
    assert "thrifty" not in said["selection"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--help", "nosuch=1"], "nosuch is not a known key"),
        (["--cfg", "job", "model=nosuch"], "Could not find 'model/nosuch'"),
        (["-m", "--cfg", "job"], "Only one of"),
    ],
)
def test_a_question_that_cannot_be_answered_is_one_sentence(
    given: list[str], told: str, capsys: Capture
) -> None:
    assert launch(given) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert told in said
    assert len(said.splitlines()) == 1


def test_hydra_still_lists_its_own_switches(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stopped:
        launch(["--hydra-help"])
    assert stopped.value.code == 0
    assert "--multirun" in capsys.readouterr().out
