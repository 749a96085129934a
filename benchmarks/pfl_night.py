"""The tuning night against pfl-research, where it is installed (`pip install pfl[pytorch]==0.6.0`).

    python benchmarks/pfl_night.py [--quick]

The same jobs as `cohort.py tuning_night_vs_peft`: Llama 96 x 8, LoRA of rank 8 on all matrices of
the last 4 layers, 36 AdamW steps of 4 x 48 tokens over 24 exchanges, clipped at 1, fp32, a thread,
CPU seconds, both interleaved in one process, best rounds. pfl's part is its own local training: a
`PyTorchModel` on a PEFT model, `FederatedAveraging.train_one_user` for every device, the state set
back before each; its backend's sampling and aggregation are left out, in its favour.
"""

from __future__ import annotations

from simulations.engines.environment import set_environment

set_environment()

import importlib.util
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from cohort import Case, PeftLoop, cases, job_of, random_night
from peft import set_peft_model_state_dict

from fleettune.adapters.patch import to_peft
from fleettune.cohort.execute import execute
from fleettune.jobs.jobs import TuneJob
from measure import cpu_s, emit, run_figures

FIGURE = "tuning_night_vs_pfl"


class PflLoop:
    """pfl-research's local training of one device after the other."""

    def __init__(self, case: Case) -> None:
        model: Any = PeftLoop(case.folder, case.peft_layers).model

        def loss(tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            # pfl makes floats of everything
            return model(input_ids=tokens.long(), labels=labels.long()).loss

        model.loss, model.metrics = loss, lambda *_: {}
        module = importlib.import_module
        self.peft = model
        rate = job_of(case, 0, case.layers).learning_rate
        self.model = module("pfl.model.pytorch").PyTorchModel(
            model,
            lambda parameters, lr: torch.optim.AdamW(
                [p for p in parameters if p.requires_grad], lr=lr, weight_decay=0.0, fused=True
            ),
            torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0),
        )
        self.dataset = module("pfl.data.dataset").Dataset
        self.hyper = module("pfl.hyperparam.base").NNTrainHyperParams(
            local_batch_size=case.batch,
            local_num_epochs=case.steps * case.batch // case.exchanges,
            local_learning_rate=rate,
            local_max_grad_norm=1.0,
        )
        averaging = module("pfl.algorithm.federated_averaging").FederatedAveraging
        self.train = averaging.train_one_user

    def tune(self, job: TuneJob) -> float:
        """Trains one device and returns the mean loss on its first batch afterwards."""
        state = {key: torch.as_tensor(value) for key, value in to_peft(job.start).items()}
        set_peft_model_state_dict(self.peft, state)
        before = self.model.get_parameters()
        examples = list(dict.fromkeys(e for batch in job.batches for e in batch))
        tokens = torch.tensor([example.tokens for example in examples])
        labels = tokens.clone()
        labels[:, : examples[0].prompt] = -100
        user = self.dataset((tokens.numpy(), labels.numpy()))
        context = SimpleNamespace(model_train_params=self.hyper)
        self.train(self, before, self.model, user, context)  # pyright: ignore[reportCallIssue]
        first = len(job.batches[0])
        with torch.no_grad():
            return float(self.peft.loss(tokens[:first], labels[:first]))


def measure_night(quick: bool) -> None:
    """Prints the ratio of samples per CPU second."""
    warnings.filterwarnings("ignore")
    if importlib.util.find_spec("pfl") is None:
        emit(FIGURE, "not applicable: pfl is not installed")
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = random_night(Path(scratch))
        case = next(c for c in cases(folder, quick=quick) if c.name == "tuning_night_vs_peft")
        loop = PflLoop(case)
        jobs = [job_of(case, device, case.layers) for device in range(case.devices)]
        theirs = jobs[: case.peft_devices]
        execute(jobs[:4])
        loop.tune(jobs[0])
        seconds: dict[str, list[float]] = {"engine": [], "pfl": []}
        for _ in range(case.rounds):
            seconds["engine"].append(cpu_s(lambda: execute(jobs)) / len(jobs))
            seconds["pfl"].append(cpu_s(lambda: [loop.tune(job) for job in theirs]) / len(theirs))
        best = {name: min(found) for name, found in seconds.items()}
    detail = {
        "devices_per_s_core": {name: round(1 / found, 2) for name, found in best.items()},
        "devices": {"engine": case.devices, "pfl": case.peft_devices},
        "loss_of_last_device": round(loop.tune(theirs[-1]), 4),
    }
    value = round(best["pfl"] / best["engine"], 2)
    emit(FIGURE, value, detail)


if __name__ == "__main__":
    run_figures("The tuning night against pfl-research.", {FIGURE: measure_night})
