"""Suspension: devices' calls are collected, run together and answered in order, nothing leaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fleettune.adapters.patch import Placement, new_patch
from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, read_shapes
from fleettune.cohort.execute import LEAST_DEVICES, execute
from fleettune.cohort.suspension import current_compute, run_cohort
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import (
    EmbedJob,
    EmbedResult,
    Job,
    ProbeJob,
    Result,
    ScoreJob,
    TuneJob,
    job_digest,
)
from fleettune.seeds import Purpose, stream
from fleettune.shapes import Site

RELEASE = str(POCKET_V1_FOLDER)


def prompt_job(*tokens: int) -> EmbedJob:
    return EmbedJob(release=RELEASE, patch=None, prompts=(tokens,))


class Recorder:
    """The real engine, with the batches that it was handed."""

    def __init__(self) -> None:
        self.batches: list[list[Job]] = []

    def __call__(self, jobs: Sequence[Job]) -> list[Result]:
        self.batches.append(list(jobs))
        return execute(jobs)


def embed(job: EmbedJob) -> np.ndarray:
    return current_compute().embed(job).vectors


def test_one_call_of_every_device_makes_one_batch() -> None:
    jobs = [prompt_job(1, 40 + device, 2) for device in range(5)]
    engine = Recorder()
    found = run_cohort([lambda job=job: embed(job) for job in jobs], engine)
    assert engine.batches == [jobs]
    for job, vectors in zip(jobs, found, strict=True):
        (alone,) = execute([job])
        assert isinstance(alone, EmbedResult)
        # One row or five in a matrix product: fp32 sums in another order.
        np.testing.assert_allclose(vectors, alone.vectors, atol=1e-5)


def test_devices_that_ask_more_often_go_on_without_the_others() -> None:
    def device(number: int, calls: int) -> Callable[[], list[int]]:
        def live() -> list[int]:
            return [
                len(embed(prompt_job(1, 40 + number, 50 + call, 2))) + call for call in range(calls)
            ]

        return live

    engine = Recorder()
    found = run_cohort([device(0, 2), device(1, 0), device(2, 3), device(3, 1)], engine)
    assert found == [[1, 2], [], [1, 2, 3], [1]]
    assert [len(batch) for batch in engine.batches] == [3, 2, 1]
    asked = [
        [job.prompts[0][1:3] for job in batch if isinstance(job, EmbedJob)]
        for batch in engine.batches
    ]
    # Always in the order of the devices.
    assert asked == [[(40, 50), (42, 50), (43, 50)], [(40, 51), (42, 51)], [(42, 52)]]


def test_devices_run_in_order_between_their_calls() -> None:
    seen: list[tuple[int, int]] = []

    def device(number: int) -> Callable[[], None]:
        def live() -> None:
            for part in range(3):
                seen.append((part, number))
                embed(prompt_job(1, 40, 2))

        return live

    run_cohort([device(number) for number in range(4)])
    assert seen == [(part, number) for part in range(3) for number in range(4)]


def test_different_kinds_of_job_share_a_batch_and_reach_their_callers() -> None:
    example = Example(tokens=(1, 50, 2, 60, 3), prompt=3)
    placement = Placement(sites=(Site(7, "q"),), rank=2, alpha=4.0)
    start = new_patch(placement, read_shapes(POCKET_V1_FOLDER), 0, stream(0, Purpose.ADAPTER))
    tune = TuneJob(
        release=RELEASE, start=start, batches=((example,),), learning_rate=0.01, clip=1.0
    )
    score = ScoreJob(release=RELEASE, patch=None, examples=(example,))
    calls: list[Callable[[], Any]] = [
        lambda: current_compute().tune(tune).first_loss,
        lambda: current_compute().score(score).nll[0],
        lambda: embed(prompt_job(1, 50, 2)).shape,
    ]
    engine = Recorder()
    tuned, scored, embedded = run_cohort(calls, engine)
    assert [type(job) for job in engine.batches[0]] == [TuneJob, ScoreJob, EmbedJob]
    # An untrained patch has B = 0, so both losses are the backbone's: two supervised tokens.
    assert tuned == pytest.approx(scored / 2, abs=1e-5)
    assert embedded == (1, 96)


def test_no_calls_give_no_results() -> None:
    engine = Recorder()
    assert run_cohort([], engine) == []
    assert engine.batches == []


def test_a_call_that_raises_ends_the_cohort_with_its_error() -> None:
    closed: list[str] = []

    def waits() -> None:
        try:
            embed(prompt_job(1, 40, 2))
        finally:
            closed.append("waits")

    def fails() -> None:
        embed(prompt_job(1, 41, 2))
        raise LookupError("device 1 lost its buffer")

    def late() -> None:
        embed(prompt_job(1, 42, 2))
        embed(prompt_job(1, 43, 2))

    with pytest.raises(LookupError, match="device 1 lost its buffer"):
        run_cohort([waits, fails, late])
    assert closed == ["waits"]


def test_a_call_that_raises_before_its_first_job_propagates() -> None:
    def fails() -> None:
        raise LookupError("no data")

    with pytest.raises(LookupError, match="no data"):
        run_cohort([lambda: embed(prompt_job(1, 40, 2)), fails])


def test_an_engine_that_raises_ends_the_cohort_with_its_error() -> None:
    with pytest.raises(IndexError):
        run_cohort([lambda: embed(prompt_job(1, 40, 2)), lambda: embed(prompt_job(1, 999_999, 2))])


@pytest.mark.parametrize(
    "block",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", dtype=torch.bfloat16)],
    ids=["no_grad", "inference_mode", "autocast"],
)
def test_a_device_that_suspends_inside_a_torch_mode_is_told_so(
    block: Callable[[], AbstractContextManager[object]],
) -> None:
    def device() -> None:
        with block():
            embed(prompt_job(1, 40, 2))

    with pytest.raises(
        RuntimeError, match=r"EmbedJob inside a no_grad, inference_mode or autocast"
    ):
        run_cohort([device, lambda: embed(prompt_job(1, 41, 2))])
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert not torch.is_autocast_enabled("cpu")


def test_a_torch_mode_that_is_left_before_the_call_is_fine() -> None:
    def device() -> bool:
        with torch.no_grad():
            torch.ones(1)
        embed(prompt_job(1, 40, 2))
        return torch.is_grad_enabled()

    assert run_cohort([device, device]) == [True, True]


def drawing(seed: int) -> Callable[[], list[float]]:
    def device() -> list[float]:
        torch.manual_seed(seed)
        numbers = [float(torch.rand(()))]
        for call in range(3):
            embed(prompt_job(1, 40 + call, 2))
            numbers.append(float(torch.rand(())))
        return numbers

    return device


def test_torchs_random_state_of_a_device_is_its_own() -> None:
    torch.manual_seed(99)
    expected = float(torch.rand(()))
    torch.manual_seed(99)
    together = run_cohort([drawing(1), drawing(2), drawing(1)])
    assert float(torch.rand(())) == expected, "the hub's own state must not move"
    alone = [run_cohort([drawing(seed)])[0] for seed in (1, 2, 1)]
    assert together == alone
    assert together[0] == together[2] != together[1]
    torch.manual_seed(1)
    assert together[0] == [float(torch.rand(())) for _ in range(4)]


def test_the_engines_random_numbers_do_not_reach_the_devices() -> None:
    def noisy(jobs: Sequence[Job]) -> list[Result]:
        torch.manual_seed(7)
        torch.rand(5)
        return execute(jobs)

    assert run_cohort([drawing(1), drawing(2)], noisy) == run_cohort([drawing(1), drawing(2)])


def test_outside_a_cohort_a_call_runs_at_once() -> None:
    job = prompt_job(1, 40, 2)
    np.testing.assert_array_equal(embed(job), run_cohort([lambda: embed(job)])[0])


def test_equal_jobs_run_once_and_share_their_result() -> None:
    first, other, again = prompt_job(1, 40, 2), prompt_job(1, 41, 2), prompt_job(1, 40, 2)
    results = execute([first, other, again])
    assert results[0] is results[2]
    assert results[0] is not results[1]


def test_results_keep_the_order_of_the_jobs_beyond_one_pass() -> None:
    jobs = [prompt_job(1, 40 + device, 2) for device in range(LEAST_DEVICES + 3)]
    forth = execute(jobs)
    back = execute(jobs[::-1])[::-1]
    for one, other in zip(forth, back, strict=True):
        assert isinstance(one, EmbedResult)
        assert isinstance(other, EmbedResult)
        # Other neighbours: fp32 sums in another order.
        np.testing.assert_allclose(one.vectors, other.vectors, atol=1e-5)


def test_a_jobs_digest_changes_with_every_input() -> None:
    shapes = read_shapes(POCKET_V1_FOLDER)
    example, longer = (
        Example(tokens=(1, 50, 2, 60, 3), prompt=3),
        Example(tokens=(1, 50, 2, 60, 3), prompt=2),
    )
    starts = [
        new_patch(
            Placement(sites=(Site(7, "q"),), rank=2, alpha=4.0),
            shapes,
            release,
            stream(0, Purpose.ADAPTER, key),
        )
        for release, key in ((0, 0), (0, 1), (1, 0))
    ]

    def tune(
        start: int = 0, rate: float = 0.1, clip: float = 1.0, *batches: tuple[Example, ...]
    ) -> TuneJob:
        return TuneJob(
            release=RELEASE,
            start=starts[start],
            batches=batches or ((example,),),
            learning_rate=rate,
            clip=clip,
        )

    jobs = [
        tune(),
        tune(1),
        tune(2),  # the result says which release its patch is for
        tune(0, 0.2),
        tune(0, 0.1, 2.0),
        tune(0, 0.1, 1.0, (longer,)),
        tune(0, 0.1, 1.0, (example, example)),
        tune(0, 0.1, 1.0, (example,), (example,)),
        replace(tune(), keep_at=(1,)),
        ProbeJob(release=RELEASE, probe=starts[0], batches=((example,),)),
        ProbeJob(release=RELEASE, probe=starts[1], batches=((example,),)),
        ProbeJob(release=RELEASE, probe=starts[0], batches=((example, example),)),
        ProbeJob(release=RELEASE, probe=starts[0], batches=((example,), (example,))),
        prompt_job(1, 40, 2),
        prompt_job(1, 41, 2),
        EmbedJob(release=RELEASE, patch=starts[0], prompts=((1, 40, 2),)),
        EmbedJob(release="other", patch=None, prompts=((1, 40, 2),)),
        EmbedJob(release=RELEASE, patch=None, prompts=((1,), (40, 2))),
        ScoreJob(release=RELEASE, patch=None, examples=(example,)),
        ScoreJob(release=RELEASE, patch=None, examples=(longer,)),
    ]
    assert len({job_digest(job) for job in jobs}) == len(jobs)
    assert job_digest(tune()) == job_digest(tune())
