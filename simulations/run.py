"""Runs an experiment into a folder that describes itself."""

from __future__ import annotations

import json
import logging
import math
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
import torch
from flwr.app import Context, RecordDict
from rich.console import Console

from clients.app import app as client_app
from fleettune.backbone.processor import resolve_precision
from fleettune.cost.energy import coefficients
from fleettune.cost.hardware import TIERS
from simulations.adapter_formats.peft import save_patches
from simulations.checkpoint.resume import STATE_FILE, finish_run
from simulations.checkpoint.store import Store
from simulations.checkpoint.versions import write_versions
from simulations.engines.cohort_grid import RUN_ID, CohortGrid, Registry
from simulations.engines.host_energy import HostMeter, open_meter
from simulations.engines.outlook import describe_outlook
from simulations.engines.progress import NotedRows, RunProgress
from simulations.engines.tracked_run import TrackedRun
from simulations.engines.worker_pool import open_engine
from simulations.experiment.build import Experiment
from simulations.report.answer import conclude
from simulations.report.represented import describe_represented
from simulations.report.run_page import write_report
from simulations.report.terminal_tables import make_headline_table
from simulations.results.cautions import caution_arms, caution_text
from simulations.results.extrapolation import extrapolate_arms
from simulations.results.recorder import MemoryRows, Recorder, write_parquet
from simulations.results.round_clock import tabulate_rounds
from simulations.results.server_tables import write_server_tables
from simulations.results.summary import HostInfo, RunInfo, summarise
from simulations.uncertainty.estimate import Uncertainty, estimate
from simulations.uncertainty.memory_flips import memory_flips
from strategies.app import app as server_app

log = logging.getLogger(__name__)


def run_experiment(experiment: Experiment, folder: Path, console: Console) -> dict[str, Any]:
    """Runs an experiment into a folder, or the rest of it, and returns its summary.

    Raises:
        ValueError: If the folder holds a finished run already, or one that was to be resumed.
    """
    if (folder / "summary.json").exists():
        raise ValueError(f"{folder} holds a finished run; choose another hydra.run.dir")
    if experiment.run.resume is None and (folder / STATE_FILE).exists():
        raise ValueError(f"{folder} holds an interrupted run; continue it with resume={folder}")
    torch.set_num_threads(experiment.engine.threads)
    folder.mkdir(parents=True, exist_ok=True)
    write_versions(folder)
    if experiment.run.resume is None:
        _tell(describe_outlook(experiment), console)
    _warn_of_text(experiment, console)
    meter = open_meter()
    tracked = TrackedRun(experiment.tracker, folder, tuple(experiment.arms), experiment.metric)
    rows, work, seconds = _simulate(experiment, folder, console, meter, tracked)
    write_parquet(rows, folder / "rows.parquet")
    write_parquet(work, folder / "work.parquet")
    clock = tabulate_rounds(rows, experiment.fleet_settings.deadline_s)
    write_parquet(clock, folder / "clock.parquet")
    write_server_tables(folder)
    host = HostInfo(
        host_seconds=round(seconds, 1),
        peak_rss_mb=_peak_rss_mb(experiment.engine.workers),
        energy_j=meter.energy_j,
        energy_note=f"joules {meter.describe()}",
    )
    (folder / "host.json").write_text(json.dumps(asdict(host)))
    summary = _summarise(experiment, rows, work, host)
    tracked.finish(summary)
    finish_run(folder, summary)
    page = write_report(folder)
    _show(summary, console)
    for caution in caution_arms(experiment.arms, rows):
        _warn(caution, console)
    console.print(f"Report: {page.resolve()}", soft_wrap=True)
    return summary


def _show(summary: Mapping[str, Any], console: Console) -> None:
    """Prints what a finished run came to."""
    _tell(conclude(summary), console)
    console.print(make_headline_table(summary, console.width))
    if represented := describe_represented(summary):
        _tell(represented, console)


def _tell(sentence: str, console: Console) -> None:
    """Says a sentence in the terminal and in the run's log."""
    log.info(sentence)
    console.print(sentence, highlight=False, markup=False)


def _warn_of_text(experiment: Experiment, console: Console) -> None:
    population = experiment.fleet.data.open()
    if caution := caution_text(experiment.model.path, experiment.plan().source, population):
        _warn(caution, console)


def _warn(sentence: str, console: Console) -> None:
    """Says a warning in the terminal and in the run's log."""
    log.warning(sentence)
    console.print(f"warning: {sentence}", soft_wrap=True, highlight=False, markup=False)


def _summarise(
    experiment: Experiment, rows: pl.DataFrame, work: pl.DataFrame, host: HostInfo
) -> dict[str, Any]:
    """Returns everything that ``summary.json`` holds."""
    known = _uncertainty(experiment, rows, work)
    summary = summarise(rows, _run_info(experiment), host, known, network=experiment.cost.network)
    shares = {profile.name: share for profile, share in experiment.fleet.mix.parts}
    summary["represents"] = extrapolate_arms(
        rows, shares, experiment.fleet_settings.represents, experiment.reference
    )
    summary["country"] = experiment.cost.country
    profiles = [profile for profile, _ in experiment.fleet.mix.parts]
    radio = experiment.fleet.radio
    summary["memory_flipped"] = memory_flips(rows, profiles, radio, known.seed, known.draws)
    return summary


def _uncertainty(experiment: Experiment, rows: pl.DataFrame, work: pl.DataFrame) -> Uncertainty:
    fleet = experiment.fleet
    return estimate(
        rows,
        work,
        [profile for profile, _ in fleet.mix.parts],
        experiment.reference,
        radio=fleet.radio,
        seed=experiment.run.seed,
        deadline_s=math.inf if fleet.deadline_s is None else fleet.deadline_s,
    )


def _simulate(
    experiment: Experiment,
    folder: Path,
    console: Console,
    meter: HostMeter,
    tracked: TrackedRun,
) -> tuple[pl.DataFrame, pl.DataFrame, float]:
    """Returns a run's rows, what they were priced from, and its seconds on this machine."""
    fleet_file, plan_file = folder.resolve() / "fleet.json", folder.resolve() / "plan.json"
    experiment.fleet.write(fleet_file)
    experiment.plan().write(plan_file)
    registry = Registry(devices=experiment.fleet_settings.devices, fleet=str(fleet_file))
    nights = [experiment.fleet_settings.count_present(n) for n in range(experiment.run.rounds)]
    with RunProgress(console, nights, tracked.note_row, tracked.end_night) as progress:

        def done(count: int) -> None:
            meter.read()
            progress.devices_done(count)

        if experiment.engine.name == "flower":
            from simulations.engines.stock_flower import run_on_flower  # noqa: PLC0415 - imports Ray

            started = time.monotonic()
            recorder = Recorder(NotedRows(MemoryRows(), progress.note_row))
            run_on_flower(registry, plan_file, recorder, done)
            log.info("no patches are kept: devices' states stay in Flower's own simulation")
            return recorder.frame(), recorder.work(), time.monotonic() - started
        with Store(folder / STATE_FILE) as store:
            progress.restore(store.last_round + 1, store.rows())
            tracked.restore(store.last_round + 1)
            recorder = Recorder(NotedRows(store, progress.note_row))
            _run_on_grid(experiment, registry, plan_file, store, recorder, done)
            count = min(experiment.run.keep_patches, experiment.fleet_settings.devices)
            save_patches(store, experiment.arms, count, folder)
            return recorder.frame(), recorder.work(), store.host_seconds


def _run_on_grid(
    experiment: Experiment,
    registry: Registry,
    plan_file: Path,
    store: Store,
    recorder: Recorder,
    done: Callable[[int], None],
) -> None:
    """Runs the server app on our grid, from behind the last round that the store holds."""
    engine, processor = experiment.engine, experiment.run.compute.device
    precision = resolve_precision(experiment.run.precision, processor)
    with open_engine(engine) as run_batches:
        grid = CohortGrid(
            client=client_app,
            registry=registry,
            cohort_size=engine.cohort_size,
            run_batches=run_batches,
            precision=precision,
            processor=processor,
            observer=recorder,
            on_cohort=done,
            states=store,
            rounds=store,
        )
        context = Context(
            run_id=RUN_ID,
            node_id=0,
            node_config={},
            state=RecordDict(),
            run_config={"plan": str(plan_file)},
        )
        server_app(grid=grid, context=context)


def _run_info(experiment: Experiment) -> RunInfo:
    tiers: dict[str, int] = dict.fromkeys(TIERS, 0)
    for profile, _ in experiment.fleet.mix.parts:
        for _, coefficient in coefficients(profile, experiment.fleet.radio):
            tiers[coefficient.tier] += 1
    return RunInfo(
        seed=experiment.run.seed,
        devices=experiment.fleet_settings.devices,
        rounds=experiment.run.rounds,
        releases=experiment.schedule.version(experiment.run.rounds - 1) + 1,
        engine=experiment.engine.name,
        backbone=experiment.model.name,
        data=experiment.data_name,
        quality_metric=experiment.metric,
        reference=experiment.reference,
        coefficients=tiers,
        priced_as=experiment.fleet.priced.model,
        arms=tuple(experiment.arms),
    )


def _peak_rss_mb(workers: int) -> float:
    """Returns the peak of this process plus, for every worker, that of the largest one."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    peak = own + (workers * largest if workers > 1 else 0)
    # kilobytes on Linux, bytes on macOS
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)
