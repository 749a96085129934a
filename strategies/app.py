"""The ServerApp: reads its plan from a local file and runs the strategy.

The plan's path comes from the run's configuration (``plan``) or, where an engine cannot set that,
from the environment variable FLEETTUNE_PLAN.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from safetensors.numpy import save

from fleettune.deltas.frames import write_frame
from fleettune.whole_files import write_whole
from strategies.catalogue.cataloguer import Cataloguer, write_catalogue
from strategies.learning.arm_learning import decision_rows, guidance_rows
from strategies.plan import read_plan
from strategies.releases.publisher import Publisher, rms
from strategies.releases.training import Vendor
from strategies.rollout.stages import rollout_rows
from strategies.rounds.checkpoint import Checkpoint
from strategies.strategy import FleetStrategy

PLAN_VARIABLE = "FLEETTUNE_PLAN"
CATALOGUE_FILE = "server_catalogue.json"
"""What it offered to start from: entries, words, coordinates."""
FLEET, FLEET_BASES = "fleet_patch_", "fleet_patches.json"
"""How files of fleet patches begin, and the file of the releases' folders that they are for."""

app = ServerApp()


@app.main()
def run_server(grid: Grid, context: Context) -> None:
    """Runs all rounds and leaves what the server knows in the plan's folder."""
    place = context.run_config.get("plan") or os.environ.get(PLAN_VARIABLE)
    if not place:
        raise ValueError(
            "this server does not know its plan: set run config 'plan' or the environment "
            f"variable {PLAN_VARIABLE} to the plan.json of a run"
        )
    file = Path(str(place))
    plan = read_plan(file)
    vendor = Vendor(
        store=Path(plan.store),
        population=plan.data.open(),
        data=plan.data_key,
        seed=plan.seed,
    )
    strategy = FleetStrategy(
        plan=plan,
        publisher=Publisher(source=plan.source, schedule=plan.schedule, vendor=vendor),
        cataloguer=Cataloguer(how=plan.catalogue, store=vendor.store, seed=plan.seed),
        checkpoint=grid if isinstance(grid, Checkpoint) else None,
    )
    strategy.on_round = partial(_write_updates, strategy, file.parent)
    await_devices(grid, plan.devices)
    strategy.start(grid=grid, initial_arrays=ArrayRecord(), num_rounds=plan.rounds)
    _write(strategy, file.parent)
    write_catalogue(strategy.cataloguer, file.parent / CATALOGUE_FILE)


def _write(strategy: FleetStrategy, folder: Path) -> None:
    """Writes what the server learned: sums by round, releases, decisions and guidance."""
    arms, rule = strategy.arms, strategy.plan.guidance
    nights = zip(*(state.sums for state in arms.values()), strict=True)
    releases = range(len(strategy.publisher.published))
    found: Mapping[str, list[dict[str, Any]]] = {
        "rounds": [asdict(entry) for night in nights for entry in night],
        "releases": [_release_row(strategy, version) for version in releases],
        "decisions": [
            {"arm": arm, **row}
            for arm, state in arms.items()
            for row in decision_rows(state.learning)
        ],
        "guidance": [
            {"arm": arm, **row}
            for arm in sorted(arms)
            for row in guidance_rows(arms[arm].learning, rule)
        ],
        "forecast": [
            {"arm": arm, **row}
            for arm, state in arms.items()
            for row in rollout_rows(state.rollout, state.learning.tally)
        ],
    }
    for name, rows in found.items():
        (folder / f"server_{name}.json").write_text(json.dumps(rows))


def _write_updates(strategy: FleetStrategy, folder: Path) -> None:
    """Writes every arm's fleet patch and mean update of the round, over those of an earlier one.

    Written before the round is made to last: if the process dies in between, the round is run again
    and writes the same file.
    """
    for arm, update in strategy.updates.items():
        arrays = {str(site): value for site, value in update.mean().items()}
        write_whole(folder / f"fleet_update_{arm}.safetensors", save(arrays))
    fleets = {arm: state.fleet for arm, state in strategy.arms.items() if state.fleet is not None}
    if not fleets:
        return
    for arm, fleet in fleets.items():
        write_whole(folder / f"{FLEET}{arm}.safetensors", write_frame(fleet))
    published = strategy.publisher.published
    bases = {arm: published[fleet.release].manifest.path for arm, fleet in fleets.items()}
    write_whole(folder / FLEET_BASES, json.dumps(bases, sort_keys=True).encode())


def _release_row(strategy: FleetStrategy, version: int) -> dict[str, object]:
    entry = strategy.publisher.published[version]
    plan = strategy.publisher.schedule.plan(version)
    manifest = entry.manifest
    parent = [drift for drift in manifest.drifts if drift.since == version - 1]
    delta = manifest.delta_since(version - 1)
    return {
        "version": version,
        "name": manifest.name,
        "kind": "initial" if plan is None else plan.kind,
        "round": entry.round,
        "tokens": 0 if plan is None else plan.tokens,
        "learning_rate": 0.0 if plan is None else plan.learning_rate,
        "steps": 0 if plan is None else plan.steps,
        "drift_rms": rms(parent[0]) if parent else 0.0,
        "loss_before": entry.trained.loss_before,
        "loss_after": entry.trained.loss_after,
        "parent": manifest.parent,
        "size_bytes": manifest.size_bytes,
        "delta": None if delta is None else delta.kind,
        "delta_bytes": None if delta is None else delta.size_bytes,
        "digest": manifest.digest,
    }


def await_devices(grid: Grid, devices: int, limit_s: float = 60.0) -> None:
    """Waits until all devices of a fleet are registered; engines start the server before them.

    Args:
        grid: Where they register.
        devices: How many there will be.
        limit_s: Longest wait.

    Raises:
        RuntimeError: If some are missing after the wait.
    """
    deadline = time.monotonic() + limit_s
    while (registered := sum(1 for _ in grid.get_node_ids())) < devices:
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"the plan is for {devices} devices, but after {limit_s:g} s only {registered} "
                "are registered; start the others or plan for fewer"
            )
        time.sleep(0.1)
