"""How stable the importance of a site is: Kendall's tau of each score with itself.

    python benchmarks/importance.py [--quick] [--model smollm2] [--scores gradient ...]

Per user of the built-in world every score ranks all sites of the model, several times: with other
seeds (the probe's random A, untrained factors, the order of the batches) on the same exchanges, and
on two halves of the exchanges with one seed. One JSON line per score and comparison: the mean tau
over users and pairs, 1 for the same ranking, 0 for nothing in common. `within_type` is the mean
over the seven module types of tau among the sites of one: scores of unlike matrices may rank by
their sizes alone, as the released one does (its v begins at ones, so ||v|| at sqrt(n_out)).

    gradient         squared norm of the gradient to B, summed over the batches
        (docs/methods.md#gradcut-by-joule-benefits)
    fisher           the same squared batch by batch
    weight_gradient  sum of |w * dL/dw| over A and B after a short tune (AdaLoRA's sensitivity)
    output           energy of what the adapters add, after that tune (LoRA-drop)
    released         ||u|| + ||v|| after the released phase 1's steps, without its pruning (A1.1)
"""

from __future__ import annotations

from simulations.engines.environment import prepare

prepare()

import argparse
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from clients.placement.benefits import benefits, kendall_tau
from clients.placement.published.gradcut_released import released_scores
from fleettune.adapters.factors import Tie
from fleettune.adapters.patch import Patch, Placement, new_factors, new_patch, peft_name
from fleettune.backbone.causal_lm import POCKET_FOLDER, Backbone, load_backbone
from fleettune.cohort.probe import probe_cohort
from fleettune.cohort.tune import tune_cohort
from fleettune.cohort.tune_tied import tune_tied_cohort
from fleettune.data.personas import SyntheticData
from fleettune.data.tokens import Encoder, Example, open_encoder
from fleettune.jobs.jobs import ProbeJob, TuneJob
from fleettune.jobs.probe_jobs import FISHER, GRADIENT
from fleettune.seeds import Purpose, stream
from fleettune.shapes import MODULES, Site
from lines import emit

SMOLLM2_FOLDER = Path(".cache/models/smollm2_135m")
MODELS = {"pocket": (POCKET_FOLDER, "pocket"), "smollm2": (SMOLLM2_FOLDER, "chatml")}
SCORES = ("gradient", "fisher", "weight_gradient", "output", "released")
BATCH, PROBE_BATCHES, WARM_UP = 4, 4, 8
RATE = {"pocket": 5e-3, "smollm2": 3e-4}
RELEASED_STEPS, RELEASED_RATE = 41, 5e-5
Scores = Mapping[Site, float]
Taus = tuple[float, float]
Leaves = dict[Site, tuple[torch.Tensor, torch.Tensor]]
Batches = tuple[tuple[Example, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranker:
    """A model on which sites are scored.

    Attributes:
        backbone: The model.
        rate: Learning rate of the short tune.
    """

    backbone: Backbone
    rate: float

    @property
    def sites(self) -> tuple[Site, ...]:
        """All sites, in forward order."""
        return tuple(
            Site(layer, module)
            for layer in range(self.backbone.shapes.layers)
            for module in MODULES
        )

    def score(self, name: str, examples: Sequence[Example], seed: int) -> Scores:
        """Returns one score of every site."""
        if name in (GRADIENT, FISHER):
            return self._probed(name, examples, seed)
        if name == "released":
            return self._released(examples, seed)
        patch, batches = self._tuned(examples, seed), drawn(examples, seed, PROBE_BATCHES)
        one_by_one = [example for batch in batches for example in batch]
        return (
            self._output(patch, one_by_one) if name == "output" else self._moved(patch, one_by_one)
        )

    def _probed(self, name: str, examples: Sequence[Example], seed: int) -> Scores:
        rng, shapes = stream(seed, Purpose.PROBE), self.backbone.shapes.matrices()
        one = {module: new_factors(*sides, 4, rng) for module, sides in shapes.items()}
        probe = Patch(release=0, alpha=4.0, factors={s: one[s.module] for s in self.sites})
        batches = drawn(examples, seed, PROBE_BATCHES)
        parts = [(batch,) for batch in batches] if name == FISHER else [batches]
        jobs = [ProbeJob(release="", probe=probe, batches=part) for part in parts]
        return benefits([probe_cohort(self.backbone, [job])[0] for job in jobs], name)

    def _tuned(self, examples: Sequence[Example], seed: int) -> Patch:
        placement = Placement(sites=self.sites, rank=4, alpha=8.0)
        start = new_patch(placement, self.backbone.shapes, 0, stream(seed, Purpose.ADAPTER))
        job = TuneJob(
            release="",
            start=start,
            batches=drawn(examples, seed, WARM_UP),
            learning_rate=self.rate,
            clip=1.0,
        )
        return tune_cohort(self.backbone, [job])[0].patch

    def _released(self, examples: Sequence[Example], seed: int) -> Scores:
        ties = tuple(
            Tie(sites=tuple(s for s in self.sites if s.module == module), rank=16, alpha=32.0)
            for module in MODULES
        )
        placement = Placement(sites=(), rank=16, alpha=32.0, ties=ties)
        start = new_patch(placement, self.backbone.shapes, 0, stream(seed, Purpose.ADAPTER))
        job = TuneJob(
            release="",
            start=start,
            batches=drawn(examples, seed, RELEASED_STEPS),
            learning_rate=RELEASED_RATE,
            clip=1.0,
        )
        (found,) = tune_tied_cohort(self.backbone, [job])
        return released_scores(
            {s: pair for tied in found.patch.ties for s, pair in tied.vectors.items()}
        )

    @torch.no_grad()
    def _output(self, patch: Patch, examples: Sequence[Example]) -> Scores:
        energy = dict.fromkeys(patch.factors, 0.0)
        with self._applied(patch, energy):
            for example in examples:
                self.backbone.model(input_ids=torch.tensor([example.tokens]))
        return energy

    def _moved(self, patch: Patch, examples: Sequence[Example]) -> Scores:
        with self._applied(patch, dict.fromkeys(patch.factors, 0.0)) as leaves:
            for example in examples:
                tokens = torch.tensor([example.tokens])
                labels = tokens.masked_fill(torch.arange(tokens.shape[1]) < example.prompt, -100)
                self.backbone.model(input_ids=tokens, labels=labels).loss.backward()
        return {
            site: sum(
                float((leaf.detach() * leaf.grad).abs().sum())
                for leaf in pair
                if leaf.grad is not None
            )
            for site, pair in leaves.items()
        }

    @contextmanager
    def _applied(self, patch: Patch, energy: dict[Site, float]) -> Generator[Leaves]:
        """Adds a patch to the model, notes the energy of what it adds, yields its factors."""
        leaves: Leaves = {}
        hooks: list[torch.utils.hooks.RemovableHandle] = []
        for site, item in patch.factors.items():
            leaves[site] = (torch.tensor(item.a), torch.tensor(item.b))
            for leaf in leaves[site]:
                leaf.requires_grad_()
            add = partial(_added, site, patch.scale(site), leaves[site], energy)
            module = self.backbone.model.get_submodule(peft_name(site))
            hooks.append(module.register_forward_hook(add))
        yield leaves
        for hook in hooks:
            hook.remove()


def _added(
    site: Site,
    scale: float,
    factors: tuple[torch.Tensor, torch.Tensor],
    energy: dict[Site, float],
    _: object,
    given: tuple[torch.Tensor],
    out: torch.Tensor,
) -> torch.Tensor:
    more = scale * ((given[0] @ factors[0].t()) @ factors[1].t())
    energy[site] += float(more.detach().square().sum())
    return out + more


def drawn(examples: Sequence[Example], seed: int, count: int) -> Batches:
    """Returns batches of shuffled examples, epoch after epoch."""
    rng, found = stream(seed, Purpose.TUNING), list[int]()
    while len(found) < count * BATCH:
        found += rng.permutation(len(examples)).tolist()
    return tuple(
        tuple(examples[place] for place in found[step * BATCH : (step + 1) * BATCH])
        for step in range(count)
    )


def taus_of(one: Scores, other: Scores) -> Taus:
    """Returns tau over all sites, and the mean of those within one module type."""
    types = [[site for site in one if site.module == module] for module in MODULES]
    within = [kendall_tau({s: one[s] for s in same}, {s: other[s] for s in same}) for same in types]
    return kendall_tau(one, other), float(np.mean(within))


def examples_of(encoder: Encoder, user: int) -> list[Example]:
    """Returns a user's first exchanges."""
    world = SyntheticData(users=1000, exchanges_per_day=6, history_days=10).open()
    return [encoder.example(exchange) for exchange in world.day(user, 0)]


def main() -> None:
    """Prints one line per score and comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one user, two seeds")
    parser.add_argument("--model", choices=MODELS, default="pocket")
    parser.add_argument("--scores", nargs="+", choices=SCORES, default=SCORES)
    given = parser.parse_args()
    torch.set_num_threads(1)
    users, seeds = (1, 2) if given.quick else (3, 3)
    folder, template = MODELS[given.model]
    ranker = Ranker(backbone=load_backbone(folder), rate=RATE[given.model])
    encoder = open_encoder(folder, template, 128)
    for name in given.scores:
        by_seed, by_half = list[Taus](), list[Taus]()
        for user in range(users):
            examples = examples_of(encoder, user)
            found = [ranker.score(name, examples, seed) for seed in range(seeds)]
            by_seed += [taus_of(*pair) for pair in combinations(found, 2)]
            halves = [ranker.score(name, examples[start::2], 0) for start in (0, 1)]
            by_half.append(taus_of(*halves))
        for what, taus in (("seeds", by_seed), ("halves", by_half)):
            whole, within = (round(float(np.mean(side)), 3) for side in zip(*taus, strict=True))
            spread = {"min": round(min(taus)[0], 3), "max": round(max(taus)[0], 3)}
            detail = {"within_type": within, "users": users, "pairs": len(taus)} | spread
            emit(f"tau_{given.model}_{name}_{what}", whole, detail | {"sites": len(ranker.sites)})


if __name__ == "__main__":
    main()
