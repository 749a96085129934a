"""Sampling: a row's tokens follow the softmax and depend on its own key alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fleettune.backbone.causal_lm import POCKET_V1_FOLDER
from fleettune.cohort.execute import execute
from fleettune.cohort.score import make_gumbel_sampler
from fleettune.data.tokens import Encoder, open_encoder
from fleettune.jobs.jobs import GenerateJob, GenerateResult, job_digest

NO_TOKENS = torch.zeros(0, 0, dtype=torch.long)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return open_encoder(POCKET_V1_FOLDER, "pocket", 128)


def job(encoder: Encoder, texts: list[str], seeds: list[int], t: float = 1.0) -> GenerateJob:
    return GenerateJob(
        release=str(POCKET_V1_FOLDER),
        patch=None,
        prompts=tuple(encoder.request(text) for text in texts),
        new_tokens=20,
        stop=encoder.stop,
        temperature=t,
        seeds=tuple(seeds),
    )


def run(*jobs: GenerateJob) -> list[tuple[tuple[int, ...], ...]]:
    results = execute(jobs)
    assert all(isinstance(result, GenerateResult) for result in results)
    return [result.tokens for result in results if isinstance(result, GenerateResult)]


def test_drawn_tokens_follow_the_softmax_at_the_temperature() -> None:
    logits, rows, steps, temperature = torch.tensor([0.0, 1.0, 2.0, -1.0]), 2000, 10, 0.7
    drawn = make_gumbel_sampler(range(rows), temperature)
    batch = logits.expand(rows, 4)
    tokens = torch.cat([drawn(NO_TOKENS, batch).argmax(1) for _ in range(steps)])
    seen = np.bincount(tokens.numpy(), minlength=4) / (rows * steps)
    wanted = torch.softmax(logits / temperature, 0).numpy()
    for share, probability in zip(seen, wanted, strict=True):
        # Four standard deviations of a share of 20,000 draws.
        limit = 4 * math.sqrt(probability * (1 - probability) / (rows * steps))
        assert abs(share - probability) < limit


def test_a_row_draws_the_same_among_others_and_padding_draws_nothing() -> None:
    logits = torch.zeros(3, 50)
    together, alone = make_gumbel_sampler([8, None, 9], 1.0), make_gumbel_sampler([9], 1.0)
    for _ in range(3):
        shared = together(NO_TOKENS, logits)
        assert torch.equal(shared[2], alone(NO_TOKENS, logits[:1])[0])
        assert not torch.equal(shared[0], shared[2])
        assert torch.equal(shared[1], torch.zeros(50, dtype=torch.float64))


def test_a_cohort_writes_what_each_device_writes_alone(encoder: Encoder) -> None:
    jobs = [
        job(encoder, ["plan my trip", "say it another way: wake me up"], [1, 2]),
        job(encoder, ["play some music"], [3]),
        job(encoder, ["wake me up"] * 5, [4, 5, 6, 7, 8]),
    ]
    together = run(*jobs)
    assert together == [run(one)[0] for one in jobs]
    # One prompt under five keys is drawn differently.
    assert len(set(together[2])) > 1


def test_a_key_decides_the_text_wherever_its_prompt_stands(encoder: Encoder) -> None:
    first = run(job(encoder, ["plan my trip", "wake me up"], [1, 2]))[0]
    swapped = run(job(encoder, ["wake me up", "plan my trip"], [2, 1]))[0]
    assert first == swapped[::-1]
    assert run(job(encoder, ["plan my trip"], [1]))[0] == first[:1]


def test_a_low_temperature_is_nearly_greedy(encoder: Encoder) -> None:
    texts = ["plan my trip", "wake me up"]
    greedy = run(job(encoder, texts, [], t=0.0))
    assert run(job(encoder, texts, [1, 2], t=1e-4)) == greedy


def test_temperature_and_seeds_belong_to_a_jobs_inputs(encoder: Encoder) -> None:
    jobs = [
        job(encoder, ["wake me up"], [], t=0.0),
        job(encoder, ["wake me up"], [1]),
        job(encoder, ["wake me up"], [2]),
        job(encoder, ["wake me up"], [1], t=0.5),
    ]
    assert len({job_digest(one) for one in jobs}) == 4


@pytest.mark.parametrize(
    ("seeds", "temperature", "told"),
    [
        ([], 1.0, "must have 1 seeds, got 0"),
        ([1, 2], 1.0, "must have 1 seeds, got 2"),
        ([1], 0.0, "must have 0 seeds, got 1"),
        ([], -1.0, "temperature must be finite and >= 0, got -1"),
        ([1], math.inf, "temperature must be finite and >= 0, got inf"),
    ],
)
def test_a_job_needs_a_seed_for_every_drawn_text(
    encoder: Encoder, seeds: list[int], temperature: float, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        job(encoder, ["wake me up"], seeds, temperature)
