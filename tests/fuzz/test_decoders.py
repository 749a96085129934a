"""Every decoder takes some hundreds of mutated inputs with errors of the project's own only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.harness import Inputs
from tests.fuzz.mutator import Parts, mutate
from tests.fuzz.run import TARGETS

ROOT = Path(__file__).parents[2]
INPUTS = 150
"""Of every decoder; make fuzz tries 100,000."""


@pytest.fixture(scope="module")
def tried() -> str:
    """The table of a short trial, made in a process without threads of its own."""
    command = [sys.executable, "-m", "tests.fuzz.run", "--inputs", str(INPUTS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", TARGETS)
def test_a_decoder_takes_or_refuses_every_input(tried: str, name: str) -> None:
    (line,) = [line for line in tried.splitlines() if line.startswith(f"| {name} |")]
    inputs, accepted, refused, unsendable, failed = (
        int(cell.replace(",", "")) for cell in line.split("|")[2:7]
    )
    assert failed == 0, tried
    assert inputs == accepted + refused + unsendable == INPUTS
    assert accepted > 0
    assert refused > 0


def test_an_input_follows_from_its_number() -> None:
    seeds: list[Parts] = [{"a.json": b'{"x": [1, 2, {"y": "z"}]}', "b": b"0123456789"}]
    inputs = Inputs("some", 0, seeds, ())
    assert inputs.make(0) == seeds[0]
    made = [inputs.make(number) for number in range(1, 40)]
    assert made == [inputs.make(number) for number in range(1, 40)]
    assert len({tuple(parts.values()) for parts in made}) > 30
    assert Inputs("some", 1, seeds, ()).make(7) != inputs.make(7)


def test_a_mutation_keeps_the_names_of_the_parts() -> None:
    seeds: list[Parts] = [{"a.csv": b"a,b\n1,2\n", "b.safetensors": b"", "c.parquet": b"PAR1"}]
    for number in range(200):
        assert mutate(Random(number), seeds).keys() == seeds[0].keys()


def decoded(source: str) -> str:
    """What the trial of a decoder tells that does this to all but its seed."""
    script = (
        "import json, os, time\n"
        "from tests.fuzz.harness import run_target\n"
        "from tests.fuzz.targets import Target\n"
        f"def decode(parts, _):\n    if parts['a'] != b'xyz': {source}\n"
        "target = Target(seeds=lambda: [{'a': b'xyz'}], decode=decode)\n"
        "found = run_target('faulty', target, range(3))\n"
        "print(found.inputs, found.accepted, found.refused, sorted(found.faults.items()))\n"
    )
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("source", "counts", "told"),
    [
        ("raise ValueError('a sentence')", "3 1 2 []", ""),
        ("raise KeyError(3)", "3 1 0 [(", "builtins.KeyError"),
        ("json.loads('x')", "3 1 0 [(", "json.decoder.JSONDecodeError"),
        ("bytearray(400_000_000)", "3 1 0 [(", "builtins.MemoryError"),
        ("os.abort()", "3 1 0 [(", "SIGABRT"),
        (
            "end = time.process_time() + 1.1; all(iter(lambda: time.process_time() < end, False))",
            "3 3 0 [(",
            "too slow",
        ),
    ],
)
def test_a_trial_finds_foreign_errors_hunger_slowness_and_death(
    source: str, counts: str, told: str
) -> None:
    found = decoded(source)
    assert found.startswith(counts)
    assert told in found
