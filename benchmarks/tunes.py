"""What a placement saves on this machine, beside what it saves by simulation: one device's tune.

    python benchmarks/tunes.py [--model pocket|smollm2] [--arms NAME ...] [--own] [--quick]

One JSON line per arm of the study of placements: CPU seconds of this process in the passes of one
device's first night (a release's probe, training and tune; one thread, reference precision), and
joules and seconds of the same passes on its hardware, simulated, at the shapes that the study
prices or, with `--own`, at the model's own. `value` is the CPU seconds as a share of every-site
LoRA's; the joules' share stands beside it. All arms are interleaved and each has its best of two
rounds; all are told.

Not the same thing on both sides: the host keeps a prefix cache for every tune, a device only where
its placement or tuning says so and the quota allows. A device that stops early pays up to there,
the host runs the whole schedule, so nothing stops early here. Loading the model, reading, scoring
and uploading are on neither side.
"""

from __future__ import annotations

from simulations.engines.environment import prepare

prepare()

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import hydra
import torch

from clients.adaptation.rules import NeverPersonalise
from clients.device import NightOrder, run_round
from clients.policy import DevicePolicy
from clients.state.state import DeviceState
from clients.work.facts import Facts
from fleettune.backbone.causal_lm import read_shapes, resolve_folder
from fleettune.cohort.execute import execute
from fleettune.cost.ledger import Stage
from fleettune.cost.pricing import PricedModel
from fleettune.jobs.jobs import Compute, Job, OutputNormJob, ProbeJob, Result, ScoreJob, TuneJob
from fleettune.messages.report import Report
from fleettune.releases.manifest import Manifest, file_digest, weights_file
from lines import emit
from simulations.experiment.build import Experiment, build

STUDIES = {
    "pocket": ["study=gradcut", "storage.buffer_bytes=8192"],
    "smollm2": [
        *("model=smollm2_135m", "tuning=smollm2_135m", "study=gradcut_smollm2"),
        *("storage.total_bytes=40000000", "data.exchanges_per_day=2"),
    ],
}
QUICK = {"pocket": ["top_2", "ours_40"], "smollm2": ["ours_40"]}
TIMED = (TuneJob, ProbeJob, OutputNormJob)
STAGES = (Stage.PROBE, Stage.TUNE)


@dataclass(kw_only=True)
class Clock:
    """Runs jobs, and adds up CPU seconds and number of those that train or measure for a place."""

    cpu_s: dict[str, float] = field(default_factory=dict[str, float])
    jobs: int = 0

    def run(self, job: Job) -> Result:
        """Returns the result of a job."""
        started = time.process_time()
        (result,) = execute([job])
        if isinstance(job, TIMED):
            name = type(job).__name__
            self.cpu_s[name] = self.cpu_s.get(name, 0.0) + time.process_time() - started
            self.jobs += 1
        return result


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """One night of one arm."""

    clock: Clock
    report: Report

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all passes."""
        return sum(self.clock.cpu_s.values())

    def spent(self, name: str) -> float:
        """Joules or seconds of a device, probing and tuning, above idle (simulated)."""
        ledger = self.report.statistics.ledger
        return sum(getattr(ledger.of(stage), name) for stage in STAGES)


def experiment_of(model: str, epochs: int) -> Experiment:
    """Returns the study's experiment; arms that name their own epochs keep them."""
    with hydra.initialize_config_module("conf", version_base="1.3"):
        cfg = hydra.compose("config", overrides=[*STUDIES[model], f"tuning.epochs={epochs}"])
    return build(cfg)


def release_of(experiment: Experiment) -> Manifest:
    """Returns the model as built."""
    model = experiment.model
    folder = resolve_folder(model.path)
    return Manifest(
        version=0,
        name=model.name,
        path=str(folder),
        digest=file_digest(weights_file(folder)),
        size_bytes=weights_file(folder).stat().st_size,
        shapes=read_shapes(folder),
        template=model.template,
        max_tokens=model.max_tokens,
    )


def night(experiment: Experiment, policy: DevicePolicy, release: Manifest, own: bool) -> Tuned:
    """Returns the first night of device 0, timed; priced at the model's own shapes if asked to."""
    fleet, clock = experiment.fleet, Clock()
    facts = Facts(
        device=0,
        user=0,
        seed=fleet.seed,
        profile=fleet.profile(0),
        population=fleet.data.open(),
        priced=PricedModel() if own else fleet.priced,
        radio=fleet.radio,
    )
    night_order = NightOrder(facts=facts, round=0, release=release, policy=policy)
    compute = Compute(run=clock.run)
    _, report = run_round(night_order, DeviceState(), compute, observed=False)
    return Tuned(clock=clock, report=report)


def warm_up(experiment: Experiment, release: Manifest) -> None:
    """Loads the model and runs one pass."""
    facts = Facts(
        device=0,
        user=0,
        seed=0,
        profile=experiment.fleet.profile(0),
        population=experiment.fleet.data.open(),
    )
    encoder = facts.encoder(release)
    examples = tuple(encoder.example(one) for one in facts.population.day(0, 0)[:2])
    execute([ScoreJob(release=release.path, patch=None, examples=examples)])


def line(arm: str, runs: Sequence[Tuned], full: Tuned, priced: str) -> None:
    """Prints an arm's figures."""
    best = min(runs, key=lambda one: one.cpu_s)
    statistics = best.report.statistics
    detail: dict[str, Any] = {
        "decision": f"{statistics.outcome.decision} {statistics.outcome.reason}",
        "cpu_s": [round(one.cpu_s, 2) for one in runs],
        "cpu_s_by_job": {name: round(value, 2) for name, value in best.clock.cpu_s.items()},
        "simulated_j": round(best.spent("energy_j"), 3),
        "simulated_s": round(best.spent("time_s"), 3),
        "priced_as": priced,
        "share_of_cpu_s": round(best.cpu_s / full.cpu_s, 3),
        "share_of_simulated_j": round(best.spent("energy_j") / full.spent("energy_j"), 3),
        "share_of_simulated_s": round(best.spent("time_s") / full.spent("time_s"), 3),
        "steps": statistics.tune_steps,
        "device_cache_bytes": statistics.cache_bytes,
        "profile": statistics.outcome.profile,
    }
    # an arm whose device cannot tune has nothing to compare
    value = detail["share_of_cpu_s"] if statistics.tune_steps else statistics.outcome.reason
    emit(f"tune_{arm}", value, detail)


def main() -> None:
    """Prints one line per arm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=STUDIES, default="pocket")
    parser.add_argument("--arms", nargs="+", help="names of arms; all that tune")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--own", action="store_true", help="price the model's own shapes")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few arms, three epochs, one round")
    given = parser.parse_args()
    if given.quick:
        given.arms, given.epochs, given.rounds = QUICK[given.model], 3, 1
    torch.set_num_threads(1)
    if given.model == "smollm2" and not Path(".cache/models/smollm2_135m").is_dir():
        parser.exit(0, "SmolLM2 is not here: `make smollm2` fetches it\n")
    experiment = experiment_of(given.model, given.epochs)
    release = release_of(experiment)
    tuning = {
        name: replace(policy, tuning=replace(policy.tuning, holdout=0.0, patience=None))
        for name, policy in experiment.arms.items()
        if not isinstance(policy.adaptation, NeverPersonalise)
    }
    asked = [experiment.reference, *(given.arms or [])] if given.arms else list(tuning)
    warm_up(experiment, release)
    found: dict[str, list[Tuned]] = {name: [] for name in dict.fromkeys(asked)}
    for _ in range(given.rounds):
        for name, runs in found.items():
            runs.append(night(experiment, tuning[name], release, given.own))
    full = min(found[experiment.reference], key=lambda one: one.cpu_s)
    for name, runs in found.items():
        line(name, runs, full, "own" if given.own else experiment.fleet.priced.model)


if __name__ == "__main__":
    main()
