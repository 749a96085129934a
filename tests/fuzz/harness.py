"""Tries decoders on mutated inputs, each in a process of its own with bounded time and memory.

An input is its target's name, a seed and a number, so one that fails is made again from these.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import shutil
import signal
import struct
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.fuzz.mutator import Parts, mutate
from tests.fuzz.targets import Target, UnsendableError

SECONDS = 1.0
"""Seconds of processor time that an input may take."""
MEGABYTES = 200
"""Megabytes of address space that an input may add."""
_HANGS_S = 20.0
"""Seconds of processor time after which an input is ended."""
_STILL_S = 60.0
"""Seconds of the clock after which a process that waits for something is ended."""
_ROOT = Path(__file__).parents[2]
_WINGS = ("fleettune", "clients", "strategies", "simulations")
_ROOMS = tuple(str(_ROOT / wing) for wing in _WINGS)
_STATE = struct.Struct("6q2d")


@dataclass(slots=True, kw_only=True)
class Fault:
    """One kind of failure: how often, the number of its first input, and what was told there."""

    number: int
    told: str
    count: int = 0


@dataclass(slots=True, kw_only=True)
class Result:
    """What a decoder did with its inputs.

    Attributes:
        inputs: How many it was given.
        accepted: Taken.
        refused: Refused with an error of the project's own.
        unsendable: Mutations that no sender could make.
        slowest_s: Longest processor time of an input.
        slowest: That input's number.
        peak_mb: Megabytes that the process grew by, the making of its inputs included.
        faults: Failures by kind.
    """

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    unsendable: int = 0
    slowest: int = -1
    slowest_s: float = 0.0
    peak_mb: float = 0.0
    faults: dict[str, Fault] = field(default_factory=dict[str, Fault])

    def fail(self, kind: str, number: int, told: str) -> None:
        """Counts a failure; the first of its kind is told."""
        self.faults.setdefault(kind, Fault(number=number, told=told)).count += 1

    def line(self, name: str) -> str:
        """Returns the result as one line of a table."""
        failed = sum(fault.count for fault in self.faults.values())
        return (
            f"| {name} | {self.inputs:,} | {self.accepted:,} | {self.refused:,} | "
            f"{self.unsendable:,} | {failed:,} | {self.slowest_s:.2f} | {self.peak_mb:.0f} |"
        )


_AT_ONCE = 10_000
"""Inputs after which another process goes on: tokenizers keeps some of what it could not read."""

HEAD = (
    "| decoder | inputs | accepted | refused | not sendable | failed | slowest, s | peak, MB |\n"
    "|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, slots=True)
class Inputs:
    """All inputs of a decoder: its seeds, the hard ones, then mutations without end."""

    name: str
    seed: int
    seeds: Sequence[Parts]
    hard: Sequence[Parts]

    def make(self, number: int) -> Parts:
        """Returns the input of a number, always the same."""
        given = (*self.seeds, *self.hard)
        if number < len(given):
            return given[number]
        return mutate(Random(f"{self.name} {self.seed} {number}"), self.seeds)


def inputs_of(name: str, target: Target, seed: int) -> Inputs:
    """Returns the inputs of a decoder."""
    return Inputs(name, seed, target.seeds(), target.hard())


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder in memory, where the machine has such."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_target(name: str, target: Target, numbers: range, seed: int = 0) -> Result:
    """Returns what a decoder did with the inputs of these numbers.

    A process that dies on an input is begun again behind it.
    """
    found, first = Result(), numbers.start
    with scratch() as folder, mmap.mmap(-1, _STATE.size) as place:
        faults = folder / "faults.jsonl"
        while first < numbers.stop:
            last = min(first + _AT_ONCE, numbers.stop)
            faults.write_text("")
            _save(place, found, first)
            child = os.fork()
            if not child:
                _live(name, target, range(first, last), seed, folder, place)
            status = _wait(child, place)
            first = _load(place, found)
            for line in faults.read_text().splitlines():
                found.fail(*json.loads(line))
            if os.WIFEXITED(status) and os.WEXITSTATUS(status):
                raise RuntimeError(f"the trial of {name} is at fault, not its decoder")
            if first < last:
                died = _death(status)
                found.fail(died, first, f"the process ended: {died}")
                found.inputs += 1
                first += 1
    return found


def _save(place: mmap.mmap, found: Result, number: int) -> None:
    counts = (found.inputs, found.accepted, found.refused, found.unsendable, found.slowest)
    place[:] = _STATE.pack(number, *counts, found.slowest_s, found.peak_mb)


def _load(place: mmap.mmap, found: Result) -> int:
    number, inputs, accepted, refused, unsendable, slowest, slowest_s, peak_mb = _STATE.unpack(
        place[:]
    )
    found.inputs, found.accepted, found.refused = inputs, accepted, refused
    found.unsendable, found.slowest = unsendable, slowest
    found.slowest_s, found.peak_mb = slowest_s, peak_mb
    return number


def _wait(child: int, place: mmap.mmap) -> int:
    """Returns how a process ended; one that stands still for long is ended."""
    seen, since = b"", time.monotonic()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        # a busy machine makes a process slow, but never idle
        now = place[:] + _spent(child)
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > _STILL_S:
            os.kill(child, signal.SIGPROF)
        time.sleep(0.02)


def _spent(child: int) -> bytes:
    """Returns the processor time of a process so far, as the system writes it."""
    told = Path(f"/proc/{child}/stat").read_bytes().rpartition(b")")[2]
    return b" ".join(told.split()[11:13])


def _death(status: int) -> str:
    if os.WIFSIGNALED(status):
        which = signal.Signals(os.WTERMSIG(status))
        return "no end" if which is signal.SIGPROF else which.name
    return "exit code 0"


def _live(
    name: str, target: Target, numbers: range, seed: int, folder: Path, place: mmap.mmap
) -> None:
    """Tries inputs in a forked process, which ends here."""
    code = 1
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)  # libraries that panic tell so at length
        os.dup2(nowhere.fileno(), 2)
    try:
        _try_all(inputs_of(name, target, seed), target, numbers, folder, place)
        code = 0
    finally:
        os._exit(code)


def _try_all(
    inputs: Inputs, target: Target, numbers: range, folder: Path, place: mmap.mmap
) -> None:
    found = Result()
    _load(place, found)
    inside = folder / "input"
    inside.mkdir(exist_ok=True)
    for parts in inputs.seeds:  # what is loaded once is no input's memory
        target.decode(parts, inside)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before_mb = _peak_mb()
    _bound_memory()
    with (folder / "faults.jsonl").open("a") as faults:
        for number in numbers:
            _save(place, found, number)
            parts = inputs.make(number)
            signal.setitimer(signal.ITIMER_PROF, _HANGS_S)
            fault = try_input(target, parts, inside, found, number)
            signal.setitimer(signal.ITIMER_PROF, 0)
            found.peak_mb = max(found.peak_mb, _peak_mb() - before_mb)
            if fault is not None:
                faults.write(json.dumps([fault[0], number, fault[1]]) + "\n")
                faults.flush()
    _save(place, found, numbers.stop)


def try_input(
    target: Target, parts: Parts, inside: Path, found: Result, number: int
) -> tuple[str, str] | None:
    """Decodes one input and counts what came of it; returns the kind of a failure and its words."""
    fault: tuple[str, str] | None = None
    found.inputs += 1
    began = time.process_time()
    try:
        target.decode(parts, inside)
        found.accepted += 1
    except UnsendableError:
        found.unsendable += 1
        return None  # how long the trial itself took is no decoder's fault
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of Rust is no Exception
        fault = _judge(error)
        found.refused += fault is None
    took_s = time.process_time() - began
    if took_s > found.slowest_s:
        found.slowest_s, found.slowest = took_s, number
    if took_s > SECONDS and fault is None:
        return "too slow", f"{took_s:.1f} s"
    return fault


def _judge(error: BaseException) -> tuple[str, str] | None:
    """Returns None for an error of the project's own, else what kind of foreign one it is."""
    is_ours_by_name = type(error).__module__.partition(".")[0] in _WINGS
    own = type(error) is ValueError or (isinstance(error, ValueError) and is_ours_by_name)
    frames = traceback.extract_tb(error.__traceback__)
    is_ours = frames[-1].filename.startswith(_ROOMS) or frames[-1].filename == "<string>"
    if own and is_ours and not _asked_for_memory(error):
        return None
    places = [frame for frame in frames if frame.filename.startswith(_ROOMS)]
    last = places[-1] if places else frames[-1]
    file = Path(last.filename)
    kind = f"{type(error).__module__}.{type(error).__name__} in {file.parent.name}/{file.name}"
    return f"{kind}:{last.lineno} {last.name}", str(error)[:300]


def _asked_for_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _bound_memory() -> None:
    """Lets this process ask for no more than `MEGABYTES` beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEGABYTES * 1_000_000
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
