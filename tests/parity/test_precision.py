"""Fast precision beside the reference: close in what it computes, and no trace in the reference."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from fleettune.adapters.patch import Patch, Placement, new_patch
from fleettune.backbone import processor
from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, load_backbone
from fleettune.backbone.processor import (
    FAST,
    REFERENCE,
    bf16_units,
    check_precision,
    resolve_precision,
)
from fleettune.cohort.execute import execute
from fleettune.data.personas import SyntheticData
from fleettune.data.tokens import open_encoder
from fleettune.jobs.jobs import EmbedJob, Job, ScoreJob, ScoreResult, TuneJob, TuneResult
from fleettune.seeds import Purpose, stream
from fleettune.shapes import MODULES, Site

STEPS = 20
needs_bf16 = pytest.mark.skipif(not bf16_units(), reason="this processor has no bf16 units")


def start(device: int) -> Patch:
    shapes = load_backbone(POCKET_V1_FOLDER).shapes
    sites = tuple(Site(layer, module) for layer in range(4, 8) for module in MODULES)
    placement = Placement(sites=sites, rank=8, alpha=16.0)
    return new_patch(placement, shapes, 0, stream(0, Purpose.ADAPTER, device))


@pytest.fixture(scope="module")
def jobs() -> list[Job]:
    encoder, population = open_encoder(POCKET_V1_FOLDER, "pocket", 64), SyntheticData().open()
    own = [tuple(map(encoder.example, population.day(user, 0)[:8])) for user in range(3)]
    folder = str(POCKET_V1_FOLDER)
    tunes = [
        TuneJob(
            release=folder,
            start=start(device),
            batches=tuple((mine[step % 8], mine[(step + 3) % 8]) for step in range(STEPS)),
            learning_rate=5e-3,
            clip=1.0,
        )
        for device, mine in enumerate(own)
    ]
    scores = [ScoreJob(release=folder, patch=None, examples=mine) for mine in own]
    return [*tunes, *scores]


def losses(results: Sequence[object]) -> list[float]:
    """Every loss per token: of a tune its first and last step, of a score its examples."""
    found: list[float] = []
    for result in results:
        if isinstance(result, TuneResult):
            found += [result.first_loss, result.last_loss]
        elif isinstance(result, ScoreResult):
            found += [value / 10 for value in result.nll]
    return found


@needs_bf16
def test_fast_losses_are_near_the_references(jobs: list[Job]) -> None:
    fast, reference = (losses(execute(jobs, precision=p)) for p in (FAST, REFERENCE))
    # bf16 keeps 8 bits, 0.4 % of a value; of losses of 0.1 to 3 nats per token little is left.
    assert fast == pytest.approx(reference, abs=2e-2, rel=2e-2)
    assert fast != reference


@needs_bf16
def test_a_fast_pass_leaves_the_reference_as_it_was_bit_for_bit(jobs: list[Job]) -> None:
    before = execute(jobs)
    execute(jobs, precision=FAST)
    after = execute(jobs)
    for one, other in zip(before, after, strict=True):
        if isinstance(one, TuneResult) and isinstance(other, TuneResult):
            assert one.patch.digest() == other.patch.digest()
            assert (one.first_loss, one.last_loss) == (other.first_loss, other.last_loss)
        else:
            assert one == other


@needs_bf16
def test_a_fast_tune_trains_fp32_factors_and_embeds_in_fp32(jobs: list[Job]) -> None:
    tune, score = jobs[0], jobs[-1]
    assert isinstance(score, ScoreJob)
    prompts = tuple(example.tokens[: example.prompt] for example in score.examples)
    embed = EmbedJob(release=score.release, patch=None, prompts=prompts)
    tuned, embedded = execute([tune, embed], precision=FAST)
    assert isinstance(tuned, TuneResult)
    assert {item.a.dtype.name for item in tuned.patch.factors.values()} == {"float32"}
    assert getattr(embedded, "vectors").dtype.name == "float32"  # noqa: B009 - any result here


def test_a_processor_without_bf16_units_refuses_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "bf16_units", lambda: ())
    with pytest.raises(ValueError, match="needs a processor with bf16 units"):
        check_precision(FAST)
    assert resolve_precision(REFERENCE) == REFERENCE


@pytest.mark.parametrize(("units", "chosen"), [((), REFERENCE), (("amx_bf16",), FAST)])
def test_auto_takes_what_there_is_and_says_so(
    units: tuple[str, ...],
    chosen: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(processor, "bf16_units", lambda: units)
    with caplog.at_level(logging.INFO):
        assert resolve_precision("auto") == chosen
    assert f"precision=auto is {chosen}" in caplog.text


@pytest.mark.parametrize(("able", "chosen"), [(False, REFERENCE), (True, FAST)])
def test_on_cuda_fast_is_what_the_gpu_can_and_not_the_cpu(
    able: bool, chosen: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # torch's own answers, as no GPU is here
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: able)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H200")
    monkeypatch.setattr(processor, "bf16_units", lambda: () if able else ("amx_bf16",))
    with caplog.at_level(logging.INFO):
        assert resolve_precision("auto", "cuda") == chosen
    assert f"precision=auto is {chosen}: bf16 units {'H200' if able else 'none'}" in caplog.text
    if not able:
        with pytest.raises(ValueError, match="bf16 units on its GPU, this one has none"):
            check_precision(FAST, "cuda")


def test_units_are_none_where_the_system_does_not_list_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Path, "is_file", lambda _: False)
    bf16_units.cache_clear()
    assert bf16_units() == ()
    monkeypatch.undo()
    bf16_units.cache_clear()
