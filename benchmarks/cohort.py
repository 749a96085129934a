"""The cohort engine against a plain PEFT loop, and the share of the machine's peak it reaches.

    python benchmarks/cohort.py [--quick] [figure ...]

Both arms get the same jobs (examples, steps, learning rate, clip) and run interleaved in one
process with one thread; a figure is the ratio of samples per CPU second, each arm's best round.
``ratio_at_peak`` is the ratio that the engine's floating point operations would reach at the rate
of a large matrix multiplication on this machine.
The PEFT loop keeps one model and, for every device: loads its state, makes a fused AdamW, takes the
steps, reads the state. Half of an example's tokens are prompt. The engine is called as a run calls
it; digests, stacking and the prefix cache lie inside the timed part.
"""

from __future__ import annotations

from simulations.engines.environment import set_environment

set_environment()

import tempfile
import warnings
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaForCausalLM

from fleettune.adapters.patch import to_peft
from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, read_shapes
from fleettune.backbone.processor import bf16_units
from fleettune.cohort.execute import TOKENS_PER_STEP, execute
from fleettune.jobs.jobs import TuneJob
from fleettune.shapes import MODULES
from measure import (
    Figures,
    TuneSize,
    count_gflop,
    cpu_s,
    emit,
    peak_gflops,
    random_tune,
    rounded,
    run_figures,
    save_random_llama,
)

SMOLLM2 = Path(".cache/models/smollm2_135m")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One comparison: the engine's work, PEFT's, and what is asked of the ratio."""

    name: str
    folder: Path
    layers: int | None
    batch: int
    tokens: int
    steps: int
    exchanges: int
    devices: int
    peft_devices: int
    rounds: int
    at_least: float
    aim: float | None = None
    precision: str = "reference"
    peft_layers: int | None = None


def job_of(case: Case, device: int, layers: int | None) -> TuneJob:
    """Returns one device's tune of a case, with adapters on the last layers."""
    shapes = read_shapes(case.folder)
    size = TuneSize(steps=case.steps, batch=case.batch, tokens=case.tokens, examples=case.exchanges)
    first = 0 if layers is None else shapes.layers - layers
    return random_tune(size, shapes, range(first, shapes.layers), device, str(case.folder))


class PeftLoop:
    """What one would write with PEFT and torch alone: a model, reused for every device."""

    def __init__(self, folder: Path, layers: int | None) -> None:
        count = read_shapes(folder).layers
        config = LoraConfig(
            r=8,
            lora_alpha=16,
            lora_dropout=0.0,
            target_modules=[f"{module}_proj" for module in MODULES],
            layers_to_transform=list(range(0 if layers is None else count - layers, count)),
            task_type="CAUSAL_LM",
        )
        base = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.model: Any = get_peft_model(base, config)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]

    def tune(self, job: TuneJob) -> tuple[dict[str, torch.Tensor], float]:
        """Returns the trained state and the last loss."""
        state = {key: torch.as_tensor(value) for key, value in to_peft(job.start).items()}
        set_peft_model_state_dict(self.model, state)
        rate = job.learning_rate
        optimizer = torch.optim.AdamW(self.trained, lr=rate, weight_decay=0.0, fused=True)
        loss = torch.zeros(())
        for batch in job.batches:
            tokens = torch.tensor([example.tokens for example in batch])
            labels = tokens.clone()
            labels[:, : batch[0].prompt] = -100
            loss = self.model(input_ids=tokens, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.trained, job.clip)
            optimizer.step()
            optimizer.zero_grad()
        return {k: v.clone() for k, v in get_peft_model_state_dict(self.model).items()}, float(loss)


def measure(case: Case) -> None:
    """Runs one case and prints its figure."""
    jobs = [job_of(case, device, case.layers) for device in range(case.devices)]
    others = [job_of(case, device, case.peft_layers) for device in range(case.peft_devices)]
    loop = PeftLoop(case.folder, case.peft_layers)
    warm = [replace(job, batches=job.batches[:1]) for job in jobs[:2]]
    execute(warm, precision=case.precision)
    _, peft_loss = loop.tune(others[0])
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(case.rounds):
        theirs.append(cpu_s(lambda: [loop.tune(job) for job in others]))
        ours.append(cpu_s(lambda: execute(jobs, precision=case.precision)))
    gflop, (result,) = count_gflop(lambda: execute(jobs[:1], precision=case.precision))
    peak = peak_gflops(torch.bfloat16 if case.precision == "fast" else torch.float32)
    engine_rate = case.steps * case.batch * case.devices / min(ours)
    peft_rate = case.steps * case.batch * case.peft_devices / min(theirs)
    bound = case.steps * case.batch / (gflop / peak)
    detail = {
        "at_least": case.at_least,
        "aim": case.aim,
        "ratio_at_peak": round(bound / peft_rate, 2),
        "gflop_per_sample": round(gflop / case.steps / case.batch, 3),
        "peak_gflop_per_s": round(peak, 1),
        "samples_per_s_core": {"engine": round(engine_rate, 2), "peft": round(peft_rate, 2)},
        "all_rounds_cpu_s": {"engine": rounded(ours), "peft": rounded(theirs)},
        "devices": {"engine": case.devices, "peft": case.peft_devices},
        "batch_tokens_steps": [case.batch, case.tokens, case.steps],
        "layers_adapted": {"engine": case.layers or "all", "peft": case.peft_layers or "all"},
        "precision": {"engine": case.precision, "peft": "fp32"},
        "last_loss": {"engine": getattr(result, "last_loss"), "peft": peft_loss},  # noqa: B009
        "tokens_per_step": TOKENS_PER_STEP,
    }
    emit(case.name, round(engine_rate / peft_rate, 2), detail)


MATMUL = ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "aten::baddbmm_")
PACKED = "mkldnn::_linear_pointwise"


def kind_of(name: str) -> str:
    """Returns the kind of work that an operation of the profile is."""
    if name in MATMUL or name == PACKED:
        return "matmul"
    if "scaled_dot_product" in name:
        return "attention"
    return "elementwise, norms, softmax, copies" if name.startswith("aten::") else "autograd"


def measure_share(case: Case) -> None:
    """Prints the share of the machine's matrix rate, and where the time goes, by kind."""
    jobs = [job_of(case, device, case.layers) for device in range(8)]
    execute(jobs)
    gflop, _ = count_gflop(lambda: execute(jobs))
    seconds = min(cpu_s(lambda: execute(jobs)) for _ in range(case.rounds))
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        profiled = cpu_s(lambda: execute(jobs))
    times: dict[str, float] = {}
    for entry in recorded.key_averages():
        kind = kind_of(entry.key)
        times[kind] = times.get(kind, 0.0) + entry.self_cpu_time_total / 1e6
    times["python and the rest"] = max(0.0, profiled - sum(times.values()))
    peak = peak_gflops(torch.float32)
    rate = gflop / seconds
    detail = {
        "gflop_per_s": round(rate, 1),
        "peak_gflop_per_s": round(peak, 1),
        "bf16_peak_gflop_per_s": round(peak_gflops(torch.bfloat16), 1) if bf16_units() else None,
        "share_of_time": {k: round(v / profiled, 3) for k, v in sorted(times.items())},
        "gflop_per_s_inside_matmul": round(rate * profiled / times["matmul"], 1),
        "work": "8 devices of the tuning night",
    }
    emit("matmul_share", round(rate / peak, 3), detail)


def cases(folder: Path, *, quick: bool) -> list[Case]:
    """Returns all cases; `folder` holds the tuning night's random model."""
    rounds = 2 if quick else 4
    pocket = Case(
        name="pocket_batching", folder=POCKET_V1_FOLDER, layers=None, batch=1, tokens=32, steps=8,
        exchanges=8, devices=96, peft_devices=8, rounds=rounds, at_least=3.5,
    )  # fmt: skip
    smollm2 = Case(
        name="smollm2_batching", folder=SMOLLM2, layers=None, batch=1, tokens=48, steps=2,
        exchanges=2, devices=8 if quick else 32, peft_devices=2,
        rounds=1, at_least=1.4,
    )  # fmt: skip
    stack = replace(
        smollm2, name="smollm2_stack_same_adapters", layers=4, peft_layers=4, precision="fast",
        steps=6 if quick else 12, exchanges=1 if quick else 2, peft_devices=1, at_least=6.0,
        aim=8.0,
    )  # fmt: skip
    every = replace(
        stack, name="smollm2_stack_all_layers", peft_layers=None, at_least=12.0, aim=18.0
    )
    night = Case(
        name="tuning_night_vs_peft", folder=folder, layers=4, peft_layers=4, batch=4, tokens=48,
        steps=36, exchanges=24, devices=16 if quick else 64, peft_devices=4 if quick else 16,
        rounds=1 if quick else 2, at_least=2.5, aim=4.0,
    )  # fmt: skip
    return [pocket, smollm2, stack, every, night]


def random_night(folder: Path) -> Path:
    """Writes the tuning night's random model into a folder and returns it."""
    return save_random_llama(
        folder, hidden_size=96, num_hidden_layers=8, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=256, vocab_size=1024,
    )  # fmt: skip


def obstacle(case: Case) -> str:
    """Returns why a case cannot be measured here; empty if it can."""
    if case.folder == SMOLLM2 and not (SMOLLM2 / "config.json").is_file():
        return "not available: SmolLM2-135M is not there, `make smollm2` fetches it"
    if case.precision == "fast" and not bf16_units():
        return "not applicable: this processor has no bf16 units"
    return ""


def measure_by_name(name: str, quick: bool) -> None:
    """Measures the case of that name, or says why it cannot be measured here."""
    with tempfile.TemporaryDirectory() as scratch:
        known = {case.name: case for case in cases(random_night(Path(scratch)), quick=quick)}
        if name == "matmul_share":
            measure_share(known["tuning_night_vs_peft"])
        elif reason := obstacle(known[name]):
            emit(name, reason, {"at_least": known[name].at_least})
        else:
            measure(known[name])


NAMES = [case.name for case in cases(Path(), quick=True)]
FIGURES: Figures = {name: partial(measure_by_name, name) for name in (*NAMES, "matmul_share")}

if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    run_figures("The cohort engine against PEFT.", FIGURES)
