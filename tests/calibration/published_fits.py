"""Fits of the published measurements, each with what it predicts of measurements left out.

Four fits, of the least that identifies them: one power for all XPerT runs, one throughput per
phone of QVAC (from its 1B model), four coefficients per phone and engine of LLM-Profiler (from
Llama-3.2-1B), one throughput per device of EdgeFlowerTune (from its WikiText run). FLOP and bytes
come from `fleettune.cost.work`, as in a simulation.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from statistics import mean

from fleettune.cost.work import Work, backward_work, decode_work, forward_work
from fleettune.shapes import MODULES, Site
from simulations.calibration.fit_profile import Residual, fit_through_origin
from tests.calibration.published import (
    ANSWERS,
    BITNET_RANK,
    EDGEFLOWERTUNE,
    EPOCH_TOKENS,
    FITTED_MODEL,
    FITTED_PARAMETERS,
    GEMMA_270M,
    GEMMA_LENGTHS,
    HELD_OUT_MODEL,
    INT4_BYTES,
    LLM_PROFILER,
    MODELS,
    QVAC,
    STEP_TOKENS,
    XPERT,
    Inference,
    bitnet_shapes,
    gemma_ranks,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceFit:
    """What one phone and engine needs per operation and per byte.

    Attributes:
        prefill_gops: Throughput while reading, GFLOP per s.
        prefill_mj_per_gop: Energy while reading, mJ per GFLOP.
        decode_gbs: Bandwidth while writing, GB per s.
        decode_j_per_gb: Energy while writing, J per GB.
    """

    prefill_gops: float
    prefill_mj_per_gop: float
    decode_gbs: float
    decode_j_per_gb: float


def xpert_power_w() -> float:
    """Returns the one power that fits all runs: energy on time."""
    return fit_through_origin([run.time_s for run in XPERT], [run.energy_j for run in XPERT])


def xpert_residuals() -> tuple[Residual, ...]:
    """Returns the joules of each run, from its time and the one power (in sample)."""
    power_w = xpert_power_w()
    return tuple(
        Residual(
            what=f"{run.similar:.0%} similar",
            measured=run.energy_j,
            predicted=power_w * run.time_s,
        )
        for run in XPERT
    )


def epoch_gflop(parameters: float) -> float:
    """Returns the GFLOP of one epoch of QVAC: the head runs on every token, as in llama.cpp."""
    shapes = bitnet_shapes(parameters)
    ranks = {Site(layer, m): BITNET_RANK for layer in range(shapes.layers) for m in MODULES}
    batch = (shapes, (STEP_TOKENS,), STEP_TOKENS, ranks)
    step = forward_work(*batch) + backward_work(*batch)
    return step.flop / 1e9 * EPOCH_TOKENS / STEP_TOKENS


def qvac_phones() -> tuple[str, ...]:
    """Returns the phones of QVAC, in order."""
    return tuple(dict.fromkeys(row.phone for row in QVAC))


def qvac_gflops(phone: str) -> float:
    """Returns the training throughput of a phone, GFLOP per s, from its 1B model alone."""
    (row,) = (r for r in QVAC if r.phone == phone and r.parameters == FITTED_PARAMETERS)
    return epoch_gflop(FITTED_PARAMETERS) / row.time_s


def qvac_residuals(phone: str) -> tuple[Residual, ...]:
    """Returns the seconds of the sizes that the fit has not seen."""
    throughput = qvac_gflops(phone)
    return tuple(
        Residual(
            what=f"{phone}, {row.parameters / 1e9:g}B",
            measured=row.time_s,
            predicted=epoch_gflop(row.parameters) / throughput,
        )
        for row in QVAC
        if row.phone == phone and row.parameters != FITTED_PARAMETERS
    )


def gemma_step() -> tuple[Work, Work]:
    """Returns forward and backward of one step of EdgeFlowerTune, the head on every token."""
    batch = (GEMMA_270M, GEMMA_LENGTHS, sum(GEMMA_LENGTHS), gemma_ranks())
    return forward_work(*batch), backward_work(*batch)


def gemma_gflops(profile: str) -> float:
    """Returns the training throughput of a device, GFLOP per s, from its WikiText run alone."""
    steps = [s.time_s for s in EDGEFLOWERTUNE if (s.profile, s.run) == (profile, "WikiText")]
    return sum(work.flop for work in gemma_step()) / 1e9 / mean(steps)


def inference_fit(row: Inference) -> InferenceFit:
    """Returns the four coefficients that reproduce a row."""
    gop, gigabytes = _per_token(row)
    return InferenceFit(
        prefill_gops=row.prefill_tokens_per_s * gop,
        prefill_mj_per_gop=row.prefill_mj_per_token / gop,
        decode_gbs=row.decode_tokens_per_s * gigabytes,
        decode_j_per_gb=row.decode_mj_per_token / 1e3 / gigabytes,
    )


def llmprofiler_residuals() -> tuple[Residual, ...]:
    """Returns Qwen2.5-1.5B as predicted from Llama-3.2-1B, four values per phone and engine."""
    found: list[Residual] = []
    for fitted in (row for row in LLM_PROFILER if row.model == FITTED_MODEL):
        place = (fitted.phone, fitted.engine, HELD_OUT_MODEL)
        (row,) = (r for r in LLM_PROFILER if (r.phone, r.engine, r.model) == place)
        fit, (gop, gigabytes) = inference_fit(fitted), _per_token(row)
        predictions = (
            ("prefill speed", row.prefill_tokens_per_s, fit.prefill_gops / gop),
            ("prefill energy", row.prefill_mj_per_token, fit.prefill_mj_per_gop * gop),
            ("decode speed", row.decode_tokens_per_s, fit.decode_gbs / gigabytes),
            ("decode energy", row.decode_mj_per_token, fit.decode_j_per_gb * gigabytes * 1e3),
        )
        found += (
            Residual(what=f"{what}, {row.phone}, {row.engine}", measured=old, predicted=new)
            for what, old, new in predictions
        )
    return tuple(found)


def _per_token(row: Inference) -> tuple[float, float]:
    """Returns GFLOP per token read and GB per token written, means over a row's lengths."""
    shapes = MODELS[row.model]
    prompts, answers = row.prompts, ANSWERS
    reads = ((forward_work(shapes, (n,), 1, {}, INT4_BYTES), n) for n in prompts)
    lengths = product(prompts, answers)
    writes = ((decode_work(shapes, n, new, {}, INT4_BYTES), new) for n, new in lengths)
    return (
        mean(_per(work, n).flop for work, n in reads) / 1e9,
        mean(_per(work, n).traffic_bytes for work, n in writes) / 1e9,
    )


def _per(work: Work, tokens: int) -> Work:
    """Returns the work of one of so many tokens."""
    return work * (1 / tokens)
