"""Drivers that kill themselves, as `kill -9` would, before their n-th write into the store.

Run as ``python killed_driver.py JSON key=value ...``, where JSON lists moments of death, each with
what is given besides for its run. Only that moment is added to the run. All drivers are forked
from one process, which has nothing but the imports behind it: those take longer than a run.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from itertools import count

from simulations.engines.environment import set_environment

set_environment()

import simulations.run  # noqa: E402, F401 - so that every fork has it
from simulations.checkpoint.store import Store  # noqa: E402
from simulations.launch import launch  # noqa: E402 - the environment comes first

WRITES = ("save", "add_row", "commit_round")


def deadly(write: Callable[..., None], writes: count[int], last: int) -> Callable[..., None]:
    def call(*arguments: object) -> None:
        if next(writes) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        write(*arguments)

    return call


def die(moment: int, arguments: list[str]) -> None:
    """Begins a run that does not come back."""
    counter = count(1)
    for name in WRITES:
        setattr(Store, name, deadly(getattr(Store, name), counter, moment))
    os._exit(launch(arguments))


if __name__ == "__main__":
    for moment, given in json.loads(sys.argv[1]):
        child = os.fork()
        if not child:
            die(moment, [*sys.argv[2:], *given])
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            sys.exit(f"the driver outlived moment {moment}: status {status}")
