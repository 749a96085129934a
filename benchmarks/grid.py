"""What the grid itself costs: a round of devices that do nothing, beside stock Flower.

    python benchmarks/grid.py [--quick] [figure ...]

The same ServerApp and ClientApp run on both. A round asks the grid for its devices, samples some,
sends each one a message and reads all replies. Only steady rounds count: the first one and the
start are left out. Stock Flower runs in a process of its own through `run_simulation`.
"""

from __future__ import annotations

import os

# read by flwr and ray when they are imported
os.environ |= {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from measure import Figures, emit, rounded, rss_mb, run_figures
from simulations.engines.cohort_grid import RUN_ID, CohortGrid, Registry

MILLION, TEN_THOUSAND = 1_000_000, 10_000
STOCK_LIMIT_S = 240
STOCK = "--stock"
"""With a number of rounds, asks this script for stock Flower's seconds alone."""

client = ClientApp()


@client.train()
def nothing(message: Message, context: Context) -> Message:
    """Replies with an empty record."""
    del context
    return Message(RecordDict(), reply_to=message)


def one_round(grid: Grid, number: int, sampled: int) -> float:
    """Returns the wall seconds of one round."""
    started = time.perf_counter()
    known = grid.get_node_ids()
    # stock Flower hands out a set
    known = known if isinstance(known, Sequence) else list(known)
    nodes = random.Random(number).sample(known, sampled)
    content = RecordDict({"request": ConfigRecord({"round": number})})
    messages = [
        Message(content, node, MessageType.TRAIN, group_id="empty") for node in sorted(nodes)
    ]
    replies = sum(reply.has_content() for reply in grid.send_and_receive(messages))
    if replies != sampled:
        raise RuntimeError(f"{sampled} devices were asked and {replies} answered")
    return time.perf_counter() - started


def our_grid(devices: int) -> CohortGrid:
    """Returns our grid over so many devices, as a run makes it."""
    return CohortGrid(
        client=client,
        registry=Registry(devices=devices, fleet=""),
        cohort_size=64,
        observer=lambda _arm, _content, _device: None,
    )


def on_server(grid: Grid, work: Callable[[Grid], None]) -> None:
    """Runs work inside a ServerApp."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        work(grid)

    app(grid, Context(RUN_ID, 0, {}, RecordDict(), {}))


def measure_million(rounds: int) -> None:
    """Prints seconds and memory of rounds of 1,000 among a million."""
    times: list[float] = []
    memory: list[float] = []

    def work(grid: Grid) -> None:
        for number in range(rounds + 1):
            times.append(one_round(grid, number, 1000))
            memory.append(rss_mb())

    before = rss_mb()
    on_server(our_grid(MILLION), work)
    detail = {"registered": MILLION, "sampled": 1000, "rounds": rounds}
    seconds = {"all_s": rounded(times), "best_s": round(min(times[1:]), 4)}
    emit(
        "grid_round_s", round(statistics.median(times[1:]), 3), detail | seconds | {"at_most": 0.5}
    )
    resident = {"before_mb": round(before), "last_mb": round(memory[-1]), "at_most_mb": 1000}
    emit("grid_rss_mb", round(memory[0]), detail | resident)


def measure_ratio(rounds: int) -> None:
    """Prints the cost of a round of a million against one of ten thousand, interleaved."""
    large, small = our_grid(MILLION), our_grid(TEN_THOUSAND)
    times: dict[str, list[float]] = {"1m": [], "10k": []}

    def work(grid: Grid, number: int, name: str) -> None:
        before = time.process_time()
        one_round(grid, number, 1000)
        times[name].append(time.process_time() - before)

    for number in range(rounds + 1):
        for name, grid in (("1m", large), ("10k", small)):
            on_server(grid, partial(work, number=number, name=name))
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    seconds = {name: rounded(values) for name, values in times.items()}
    detail = {"sampled": 1000, "at_most": 1.3, "all_cpu_s": seconds}
    emit("grid_1m_vs_10k", round(medians["1m"] / medians["10k"], 3), detail)


def measure_stock(rounds: int) -> None:
    """Prints how many times faster our rounds are than stock Flower's: 100 of 10,000."""
    ours: list[float] = []

    def work(grid: Grid) -> None:
        ours.extend(one_round(grid, number, 100) for number in range(10 * rounds + 1))

    on_server(our_grid(TEN_THOUSAND), work)
    command = [sys.executable, __file__, STOCK, str(rounds)]
    done = subprocess.run(
        command,
        # a Ray of its own, whatever else runs on this machine
        env={**os.environ, "RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        timeout=STOCK_LIMIT_S,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"stock"')]
    if not lines:
        tail = done.stderr.splitlines()[-3:]
        emit("grid_vs_flower", "not available: stock Flower failed", {"stderr": tail})
        return
    stock = json.loads(lines[-1])["stock"]
    medians = statistics.median(stock[1:]), statistics.median(ours[1:])
    detail = {
        "at_least": 20,
        "registered": TEN_THOUSAND,
        "sampled": 100,
        "stock_s": rounded(stock),
        "ours_median_s": round(medians[1], 4),
        "first_rounds_left_out_s": {"stock": round(stock[0], 2), "ours": round(ours[0], 4)},
    }
    emit("grid_vs_flower", round(medians[0] / medians[1], 1), detail)


def run_stock(rounds: int) -> None:
    """Runs stock Flower and prints the seconds of its rounds."""
    from flwr.simulation import run_simulation  # noqa: PLC0415 - starts Ray

    times: list[float] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        while len(list(grid.get_node_ids())) < TEN_THOUSAND:
            time.sleep(0.5)
        times.extend(one_round(grid, number, 100) for number in range(rounds + 1))

    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=TEN_THOUSAND,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    print(json.dumps({"stock": times}), flush=True)


FIGURES: Figures = {
    "grid_round_s": lambda quick: measure_million(5 if quick else 20),
    "grid_1m_vs_10k": lambda quick: measure_ratio(10 if quick else 20),
    "grid_vs_flower": lambda quick: measure_stock(3 if quick else 8),
}
"""`grid_rss_mb` is printed with `grid_round_s`, in whose process nothing ran before."""


if __name__ == "__main__":
    if sys.argv[1:2] == [STOCK]:
        run_stock(int(sys.argv[2]))
    else:
        run_figures("What a round of the grid costs.", FIGURES)
