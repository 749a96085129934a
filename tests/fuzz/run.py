"""Tries all decoders: ``python -m tests.fuzz.run``; one of them, or one input again, by name.

python -m tests.fuzz.run --inputs 100000
python -m tests.fuzz.run frames --number 4711
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Mapping

from tests.fuzz.file_targets import FILES
from tests.fuzz.harness import HEAD, Result, inputs_of, run_target, scratch, try_input
from tests.fuzz.targets import Target
from tests.fuzz.wire_targets import WIRE

TARGETS: Mapping[str, Target] = {**WIRE, **FILES}


def main() -> int:
    """Prints a line per decoder, and every kind of failure with how to see it again."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], help="all by default")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--number", type=int, help="tries this one input and shows what it is")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    names: list[str] = asked.targets or list(TARGETS)
    if asked.number is not None:
        return show(names[0], asked.seed, asked.number)
    print(HEAD, flush=True)
    failed = 0
    numbers = range(asked.first, asked.first + asked.inputs)
    for name in names:
        found = run_target(name, TARGETS[name], numbers, asked.seed)
        print(found.line(name), flush=True)
        failed += len(found.faults)
        for kind, fault in found.faults.items():
            again = f"'{name}' --seed {asked.seed} --number {fault.number}"
            print(f"    {fault.count} x {kind}: {fault.told}\n        {again}", flush=True)
    return int(failed > 0)


def show(name: str, seed: int, number: int) -> int:
    """Prints an input and what becomes of it."""
    target = TARGETS[name]
    parts = inputs_of(name, target, seed).make(number)
    for part, data in parts.items():
        print(f"{part}: {len(data)} bytes, {data[:2_000]!r}")
    with scratch() as folder:
        print(try_input(target, parts, folder, Result(), number))
        try:
            print(f"accepted: {target.decode(parts, folder)!r:.500}")
        except BaseException:
            traceback.print_exc(file=sys.stdout)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
