"""Golden tests: one number per device must reproduce published runs that it was not fitted on."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from pathlib import Path
from statistics import mean

import pytest

from fleettune.cost.work import decode_work, forward_work
from simulations.calibration.fit_profile import max_error, mean_error
from tests.calibration.published import (
    ANSWERS,
    EPOCH_TOKENS,
    LLAMA_1B,
    LLM_PROFILER,
    MODELS,
    QVAC,
    QWEN_1_5B,
    STEP_TOKENS,
    bitnet_shapes,
)
from tests.calibration.published_fits import (
    inference_fit,
    llmprofiler_residuals,
    qvac_gflops,
    qvac_phones,
    qvac_residuals,
    xpert_power_w,
    xpert_residuals,
)

needs_data = pytest.mark.skipif(
    "FLEETTUNE_DATA" not in os.environ,
    reason="set FLEETTUNE_DATA to the folder with devices/*.csv, the published tables",
)


def table(name: str) -> list[dict[str, str]]:
    path = Path(os.environ["FLEETTUNE_DATA"]) / "devices" / name
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_one_power_fits_all_runs_of_xpert() -> None:
    # The published analysis: 2.683 W, worst row -2.9 % on the other side (17.9 min, 2.8 kJ).
    assert xpert_power_w() == pytest.approx(2.683, abs=5e-4)
    assert max_error(xpert_residuals()) <= 0.03
    assert xpert_residuals()[-1].error == pytest.approx(0.029, abs=5e-4)


@pytest.mark.parametrize("phone", qvac_phones())
def test_throughput_fitted_on_one_size_predicts_the_other_sizes(phone: str) -> None:
    assert len(qvac_residuals(phone)) >= 5
    assert mean_error(qvac_residuals(phone)) <= 0.12
    # The worst cell of the published analysis is 17.5 %.
    assert max_error(qvac_residuals(phone)) <= 0.175


def test_the_other_sizes_of_all_phones_are_6_5_percent_off_in_the_mean() -> None:
    every = [residual for phone in qvac_phones() for residual in qvac_residuals(phone)]
    assert len(every) == 18
    assert mean_error(every) == pytest.approx(0.065, abs=5e-4)


def test_throughputs_are_those_of_the_published_analysis() -> None:
    # Published: 34 to 36, 20 to 25 and 22 to 29 GFLOP/s, of 4 FLOP per weight and token. Ours
    # counts adapters and attention as well, 2 % at 1B.
    found = {phone: qvac_gflops(phone) for phone in qvac_phones()}
    assert found["Galaxy S25"] == pytest.approx(35.7 * 1.023, rel=0.001)
    assert found["Pixel 9"] == pytest.approx(21.7 * 1.023, rel=0.003)
    assert found["iPhone 16"] == pytest.approx(26.5 * 1.023, rel=0.001)


@pytest.mark.parametrize("parameters", sorted({row.parameters for row in QVAC}))
def test_assumed_shapes_have_the_nominal_number_of_weights(parameters: float) -> None:
    # A feed-forward width is a whole number, so its rounding is all that is left.
    assert bitnet_shapes(parameters).parameters == pytest.approx(parameters, rel=2e-4)


def test_a_size_that_was_not_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="parameters must be one of"):
        bitnet_shapes(2e9)


def test_inference_fitted_on_one_model_predicts_another() -> None:
    residuals = llmprofiler_residuals()
    assert len(residuals) == 8 * 4
    assert mean_error(residuals) <= 0.06
    assert mean_error(residuals) == pytest.approx(0.042, abs=5e-4)


def test_a_fit_of_inference_by_hand() -> None:
    fit = inference_fit(LLM_PROFILER[0])  # Mate 40 Pro, MNN, Llama-3.2-1B
    # 98.8 tokens/s at 2 FLOP for each of 973 M weights are 192 GFLOP/s, and attention adds some.
    assert fit.prefill_gops == pytest.approx(192, rel=0.05)
    assert fit.prefill_gops > 98.7884 * 2 * 0.973078528
    # 24.0 tokens/s at half a byte for each of 1236 M weights are 14.8 GB/s; the cache adds some.
    assert fit.decode_gbs == pytest.approx(14.8, rel=0.05)
    # Power is energy per token times tokens per s: 7.0 W and 8.4 W.
    assert fit.prefill_gops * fit.prefill_mj_per_gop / 1e3 == pytest.approx(6.99, abs=0.01)
    assert fit.decode_gbs * fit.decode_j_per_gb == pytest.approx(8.43, abs=0.01)


def test_models_of_the_inference_rows_have_their_published_sizes() -> None:
    # Weights of all matrices and of the head, millions, as published: 973 + 263 and 1310 + 233.
    assert LLAMA_1B.linear_parameters == 973_078_528
    assert LLAMA_1B.hidden * LLAMA_1B.vocab == 262_668_288
    assert QWEN_1_5B.linear_parameters == 1_310_195_712
    assert forward_work(LLAMA_1B, (1,), 0, {}).flop == 2 * 973_078_528 + 16 * 2 * 2 * 2048
    assert decode_work(QWEN_1_5B, 0, 1, {}).traffic_bytes > 2 * 1_310_195_712


@needs_data
def test_restated_epoch_times_equal_the_published_table() -> None:
    rows = [row for row in table("phone_lora_training_qvac.csv") if row["format"] == "TQ2_0"]
    assert {row["tokens_per_epoch"] for row in rows} == {str(EPOCH_TOKENS)}
    assert {row["batch_tokens"] for row in rows} == {str(STEP_TOKENS)}
    theirs = {
        (row["device"], float(row["params_nominal"])): float(row["epoch_seconds"])
        for row in rows
        if row["epoch_seconds"] != "OOM"
    }
    assert {(row.phone, row.parameters): row.time_s for row in QVAC} == theirs


@needs_data
def test_restated_inference_rows_are_the_means_of_the_published_table() -> None:
    rows: defaultdict[tuple[str, str, str], list[dict[str, str]]] = defaultdict(list)
    for row in table("phone_llm_inference_energy_llmprofiler.csv"):
        rows[row["device"], row["engine"], row["model"]].append(row)
    assert rows.keys() == {(r.phone, r.engine, r.model) for r in LLM_PROFILER}
    assert {model for _, _, model in rows} == MODELS.keys()
    for ours in LLM_PROFILER:
        found = rows[ours.phone, ours.engine, ours.model]
        lengths = [(float(row["prefill_len"]), float(row["decode_len"])) for row in found]
        assert sorted(lengths) == [(p, a) for p in ours.prompts for a in ANSWERS]
        restated = {
            "prefill_token_speed": ours.prefill_tokens_per_s,
            "prefill_energy": ours.prefill_mj_per_token,
            "decode_token_speed": ours.decode_tokens_per_s,
            "decode_energy": ours.decode_mj_per_token,
        }
        for column, value in restated.items():
            # restated with four decimals
            assert mean(float(row[column]) for row in found) == pytest.approx(value, abs=6e-5)
