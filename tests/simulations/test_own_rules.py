"""Rules of one's own, in a module outside the repository: what a night lets them do."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import polars as pl
import pytest

from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, read_shapes

ROOT = Path(__file__).parent.parent.parent
RULES = '''
    """Four rules of somebody who never saw the story of a night."""

    import math
    from dataclasses import dataclass, replace

    from clients.adaptation import Action, Decision, RuleTraits
    from clients.placement import TopLayers
    from clients.tuning.context import Hindered, Preparation
    from clients.tuning.footprint import tune_entries
    from fleettune.adapters.patch import new_patch
    from fleettune.cost.ledger import Stage
    from fleettune.jobs.jobs import TuneJob
    from fleettune.seeds import Purpose, stream

    NEVER = Decision(action=Action.NEVER, reason="mine")


    @dataclass(frozen=True, slots=True, kw_only=True)
    class Remembers:
        """Trains nothing; the two nearest exchanges stand before each question."""

        @property
        def traits(self):
            return RuleTraits(neighbours=2)

        def decide(self, release, patch):
            return NEVER


    @dataclass(frozen=True, slots=True, kw_only=True)
    class Repeats:
        """Answers with what the user answered most often, without a model."""

        @property
        def traits(self):
            return RuleTraits(label_prior=self.most_often)

        def most_often(self, history, answers):
            most = max(range(answers), key=history.count)
            rest = math.log(0.1 / (answers - 1))
            return [math.log(0.9) if answer == most else rest for answer in range(answers)]

        def decide(self, release, patch):
            return NEVER


    @dataclass(frozen=True, slots=True, kw_only=True)
    class Borrows:
        """Serves with what the fleet learned."""

        @property
        def traits(self):
            return RuleTraits(takes_fleet_patch=True)

        def decide(self, release, patch):
            if patch is None:
                return replace(NEVER, reason="nothing_to_borrow")
            return Decision(action=Action.REUSE, reason="borrowed")


    @dataclass(frozen=True, slots=True, kw_only=True)
    class TrainsFirst:
        """Trains the top layer for a step before it places, and goes on from there."""

        def check(self, shapes):
            self.top.check(shapes)

        @property
        def top(self):
            return TopLayers(layers=1, rank=2, alpha=4.0)

        def prepare(self, context):
            placement, release = self.top.place(context), context.release
            rng = stream(context.facts.seed, Purpose.PLACEMENT, context.facts.device)
            fresh = new_patch(placement, release.shapes, release.version, rng)
            job = TuneJob(
                release=release.path,
                start=fresh,
                batches=context.batches[:1],
                learning_rate=context.tuning.learning_rate,
                clip=context.tuning.clip,
            )
            short = replace(context, batches=context.batches[:1])
            entries = tune_entries(short, placement.ranks, cached=False)
            return Preparation(
                entries=[(Stage.PROBE, phase, amount) for _, phase, amount in entries],
                patch=context.compute.tune(job).patch,
            )

        def place(self, context):
            if context.preparation.patch is None:
                return Hindered(reason="untrained")
            return self.top.place(context)

        def smaller(self, placement):
            return None

        def start(self, preparation, fresh):
            return preparation.patch
'''
RELEASE = (
    "{name: tiny, kind: full, steps: 2, learning_rate: 3.0e-4, batch: 4, window: 8,"
    " conversations: 50}"
)
MOODS = {"good": 1, "bad": -1, "awful": -2}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with an arm for each rule, on journals whose answers are labels."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.py").write_text(dedent(RULES).lstrip(), encoding="utf-8")
    said = [("good", "bad")[n % 3 == 2] for n in range(12)]
    rows = [
        {
            "user_id": f"user {u}",
            "order": n,
            "question": f"day {n}?",
            "response": w,
            "valence": MOODS[w],
        }
        for u in range(6)
        for n, w in enumerate([*said[:-1], "awful"])
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "journals.jsonl").write_text(text, encoding="utf-8")
    adaptations = {"remembers": "Remembers", "repeats": "Repeats", "borrows": "Borrows"}
    arms = [
        f"+arms.{arm}={{adaptation: {{_target_: own.{rule}}}}}" for arm, rule in adaptations.items()
    ]
    standard = ("always_reuse", "edgetune", "never_personalise", "copy_nearest", "user_prior")
    command = [
        *(sys.executable, "-m", "simulations", "fleet.devices=2", "rounds=3", "release.every=1"),
        *("data=jsonl", f"data.path={folder / 'journals.jsonl'}", "data.outside_share=0.5"),
        *("data.min_exchanges=8", "data.history_days=2", "fleet_patch=start", "tuning.steps=2"),
        *(f"arms.{name}=null" for name in standard),
        *(*arms, "+arms.trains_first={placement: {_target_: own.TrainsFirst}}"),
        *(f"release.plans=[{RELEASE}]", f"store={folder / 'store'}"),
        f"hydra.run.dir={folder / 'run'}",
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "run"


def rows_of(run: Path, arm: str) -> pl.DataFrame:
    return (
        pl.read_parquet(run / "rows.parquet").filter(pl.col("arm") == arm).sort("round", "device")
    )


def test_a_rule_of_ones_own_may_retrieve(run: Path) -> None:
    rows = rows_of(run, "remembers")
    assert set(rows["reason"]) == {"mine"}
    # an embedding of four bytes per hidden number beside every exchange that is held
    size_bytes = 4 * read_shapes(POCKET_V1_FOLDER).hidden
    beside = rows["stored_bytes"] - rows["buffer_bytes"]
    assert beside.to_list() == (size_bytes * rows["buffer_exchanges"]).to_list()
    assert (rows["energy_j_select"] > 0).all()
    assert (rows["energy_j_serve"] > rows_of(run, "borrows")["energy_j_serve"]).all()


def test_a_rule_of_ones_own_may_answer_without_the_model(run: Path) -> None:
    rows = rows_of(run, "repeats")
    assert (rows["energy_j_serve"] == 0).all()
    # it is sure by nine in ten of the answer given most often, and shares the rest between two
    for right, nats in rows.select("exact_match", "nll").iter_rows():
        said = right * math.log(0.9) + (1 - right) * math.log(0.05)
        assert nats == pytest.approx(-said)
    assert rows["exact_match"].max() == 1.0


def test_a_rule_of_ones_own_may_take_the_fleet_patch(run: Path) -> None:
    rows = rows_of(run, "borrows")
    nothing, borrowed = ["nothing_to_borrow"] * 2, ["borrowed"] * 4
    assert rows["reason"].to_list() == nothing + borrowed
    patch_bytes = (rows["stored_bytes"] - rows["buffer_bytes"]).to_list()
    assert patch_bytes[:2] == [0, 0]
    assert min(patch_bytes[2:]) > 0
    assert (rows["energy_j_tune"] == 0).all()


def test_a_rule_of_ones_own_may_train_before_it_places(run: Path) -> None:
    rows = rows_of(run, "trains_first")
    assert set(rows["decision"]) == {"retune"}
    assert (rows["energy_j_probe"] > 0).all()
    assert (rows["energy_j_tune"] > 0).all()
    # the top layer of rank 2: four bytes times inputs plus outputs of its seven matrices
    shapes = read_shapes(POCKET_V1_FOLDER)
    patch_bytes = 2 * 4 * sum(map(sum, shapes.matrices().values()))
    assert set(rows["stored_bytes"] - rows["buffer_bytes"]) == {patch_bytes}
