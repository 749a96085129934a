"""The whole night of a fleet: devices per second and core, memory over rounds, batched decoding.

    python benchmarks/fleet.py [--quick] [figure ...]

Devices run the real ClientApp on our grid with the pocket model: they read their days, select,
download, decide, tune (36 steps of 4 exchanges, LoRA r = 8 on all matrices of the last 4 layers)
and upload; the observer looks at the next day. One process, one thread.
"""

from __future__ import annotations

from simulations.engines.environment import set_environment

set_environment()

import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from flwr.app import Message, MessageType, RecordDict

from clients.adaptation.rules import AlwaysRetune
from clients.app import app as client_app
from clients.placement.rules import TopLayers
from clients.policy import DevicePolicy, Quota
from clients.selection.rules import Fifo
from clients.synthesis.rules import NoSynthesis
from clients.tuning.schedule import Tuning
from fleettune.adapters.patch import Placement, new_patch
from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, read_shapes
from fleettune.cohort.execute import execute
from fleettune.cost.hardware import FleetMix, load_hardware
from fleettune.data.personas import SyntheticData
from fleettune.data.tokens import open_encoder
from fleettune.fleet.registry import Fleet
from fleettune.jobs.jobs import GenerateJob, TuneJob
from fleettune.messages.flower_records import Request, encode_request
from fleettune.records import to_record
from fleettune.releases.manifest import Manifest
from fleettune.releases.model_files import folder_digest, weights_bytes
from fleettune.seeds import Purpose, stream
from fleettune.shapes import MODULES, Site
from measure import Figures, cpu_s, emit, rounded, rss_mb, run_figures
from simulations.engines.cohort_grid import CohortGrid, Registry
from simulations.experiment.device_fleet import HARDWARE

COHORT = 64
STOP = 3


class NightFleet:
    """A fleet on our grid whose every night brings a release."""

    def __init__(self, folder: Path, registered: int, steps: int) -> None:
        profiles = load_hardware(HARDWARE)
        mix = FleetMix(name="fleet", parts=tuple((item, 1.0) for item in profiles.values()))
        Fleet(seed=0, mix=mix, data=SyntheticData()).write(folder / "fleet.json")
        self.replies = 0
        self.tuned = 0
        self.grid = CohortGrid(
            client=client_app,
            registry=Registry(devices=registered, fleet=str(folder / "fleet.json")),
            cohort_size=COHORT,
            observer=self._look,
        )
        self.manifest = Manifest(
            version=0,
            name="night",
            path=str(POCKET_V1_FOLDER),
            digest=folder_digest(POCKET_V1_FOLDER),
            size_bytes=weights_bytes(POCKET_V1_FOLDER),
            shapes=read_shapes(POCKET_V1_FOLDER),
            template="pocket",
            max_tokens=64,
        )
        policy = DevicePolicy(
            selection=Fifo(),
            synthesis=NoSynthesis(),
            adaptation=AlwaysRetune(),
            placement=TopLayers(layers=4, rank=8, alpha=16.0),
            tuning=Tuning(steps=steps, batch=4, learning_rate=5e-3, clip=1.0),
            quota=Quota(buffer_bytes=6144, total_bytes=4_000_000),
        )
        self.policy = to_record(policy)

    def _look(self, _arm: str, content: RecordDict, _device: int | None) -> None:
        self.replies += 1
        self.tuned += "delta" in content

    def night(self, number: int, devices: Iterable[int], *, observe: bool = True) -> None:
        """Lives one night of these devices."""
        request = Request(
            arm="always_retune",
            round=number,
            release=replace(self.manifest, version=number),
            policy=self.policy,
            observe=observe,
        )
        messages = [
            Message(
                encode_request(request), device + 1, MessageType.TRAIN, group_id="always_retune"
            )
            for device in devices
        ]
        for _ in self.grid.send_and_receive(messages):
            pass


def measure_night(devices: int) -> None:
    """Prints devices per second and core of a whole night."""
    with tempfile.TemporaryDirectory() as scratch:
        fleet = NightFleet(Path(scratch), 1_000_000, steps=36)
        fleet.night(0, range(900_000, 900_002))
        times: list[float] = []
        for start in range(0, devices, COHORT):
            before = time.process_time()
            fleet.night(0, range(start, min(start + COHORT, devices)))
            times.append(time.process_time() - before)
        tuned = fleet.tuned - 2
    detail = {
        "at_least": 2,
        "aim": 5,
        "devices": devices,
        "tuned": tuned,
        "cpu_s_per_cohort": [round(value, 2) for value in times],
        "cohort": COHORT,
        "steps_batch_layers": [36, 4, 4],
    }
    emit("fleet_devices_per_s_core", round(devices / sum(times), 2), detail)


def measure_memory(rounds: int) -> None:
    """Prints how resident memory grows over rounds of 50 devices that all tune."""
    resident: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        fleet = NightFleet(Path(scratch), 50, steps=1)
        for number in range(rounds):
            fleet.night(number, range(50), observe=number == 0)
            resident.append(rss_mb())
        tuned = fleet.tuned
    detail = {
        "at_most": 1.1,
        "rounds": rounds,
        "devices": 50,
        "tuned": tuned,
        "steps": 1,
        "rss_mb": [round(value) for value in resident[:: max(1, rounds // 10)]],
    }
    emit("fleet_rss_growth", round(resident[-1] / resident[0], 3), detail)


def measure_decoding(rounds: int) -> None:
    """Prints how much faster 32 devices' patched decoding is together than one by one."""
    encoder, population = open_encoder(POCKET_V1_FOLDER, "pocket", 64), SyntheticData().open()
    shapes = read_shapes(POCKET_V1_FOLDER)
    sites = tuple(Site(layer, module) for layer in range(4, 8) for module in MODULES)
    placement = Placement(sites=sites, rank=8, alpha=16.0)
    tunes: list[TuneJob] = []
    prompts: list[tuple[int, ...]] = []
    for device in range(32):
        examples = [encoder.example(exchange) for exchange in population.day(device, 0)[:4]]
        start = new_patch(placement, shapes, 0, stream(0, Purpose.ADAPTER, device))
        tunes.append(
            TuneJob(
                release=str(POCKET_V1_FOLDER),
                start=start,
                batches=(tuple(examples),) * 4,
                learning_rate=5e-3,
                clip=1.0,
            )
        )
        prompts.append(examples[0].tokens[: examples[0].prompt])
    jobs = [
        GenerateJob(
            release=str(POCKET_V1_FOLDER),
            patch=getattr(result, "patch"),  # noqa: B009 - a tune's result
            prompts=(prompt,),
            new_tokens=24,
            stop=STOP,
        )
        for result, prompt in zip(execute(tunes), prompts, strict=True)
    ]
    together, alone = [], []
    for _ in range(rounds):
        together.append(cpu_s(lambda: execute(jobs)))
        alone.append(cpu_s(lambda: [execute([job]) for job in jobs]))
    equal = execute(jobs) == [execute([job])[0] for job in jobs]
    detail = {
        "at_least": 4,
        "cpu_s": {"together": rounded(together), "one_by_one": rounded(alone)},
        "devices": 32,
        "new_tokens": 24,
        "same_tokens": equal,
    }
    emit("decode_batching", round(min(alone) / min(together), 2), detail)


FIGURES: Figures = {
    # memory first, before the others have filled the process
    "fleet_rss_growth": lambda quick: measure_memory(10 if quick else 50),
    "fleet_devices_per_s_core": lambda quick: measure_night(32 if quick else 1000),
    "decode_batching": lambda quick: measure_decoding(1 if quick else 3),
}

if __name__ == "__main__":
    run_figures("The whole night of a fleet.", FIGURES)
