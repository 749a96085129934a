"""Published measurements that the cost model is held against. None of them is ours.

XPerT: arXiv 2504.13938, table of Llama-3.2-1B on a OnePlus 12R; it does not say whether idle power
is included, nor how many tokens a run trains on.
QVAC: tetherto/qvac-rnd-fabric-llm-bitnet at f3820ad, `docs/BENCHMARKS.md`, TQ2_0, one epoch of
LoRA on all modules, 41,754 tokens in batches of 128 (Apache-2.0). Runs out of memory are left out.
LLM-Profiler: huangzhengxiang/LLM-Profiler at 028302a, int4 on the CPU, whole device unplugged
(Apache-2.0). Each row here is our mean of nine: three prompt lengths times three answer lengths.
EdgeFlowerTune: arXiv 2605.08636, Edge-Intelligence-Lab/EdgeFlowerTune at c5f9bdd, `docs/original`,
sections 5.2, 6.1 and 6.2 of the device profile of 2026-04-21, and 4.3 of the report: FedAvg with
LoRA on Gemma-3-270M, r = 8 on q, k, v and o, 8 x 64 tokens a step, ten steps a round. Means over
100 (WikiText) and 64 (MMLU) rounds. The phone's RSS is read after every step, in MiB. No power.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fleettune.cost.pricing import TARGETS
from fleettune.shapes import Ranks, Shapes, Site


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedRun:
    """One run of XPerT: share of the start that is similar, its time and its energy."""

    similar: float
    time_s: float
    energy_j: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochTime:
    """One epoch of QVAC: phone, nominal weights of the model, wall time."""

    phone: str
    parameters: float
    time_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """Mean speeds and energies of LLM-Profiler for one phone, engine and model."""

    phone: str
    engine: str
    model: str
    prefill_tokens_per_s: float
    prefill_mj_per_token: float
    decode_tokens_per_s: float
    decode_mj_per_token: float
    shortest_prompt: int = 64

    @property
    def prompts(self) -> tuple[int, int, int]:
        """Returns the prompt lengths in tokens; each was run with every answer length."""
        return self.shortest_prompt, 256, 1024


XPERT = tuple(
    TunedRun(similar=similar, time_s=minutes * 60, energy_j=kilojoules * 1e3)
    for similar, minutes, kilojoules in (
        (0.0, 97.8, 15.7),
        (0.3, 92.4, 14.9),
        (0.5, 81.8, 13.3),
        (0.7, 56.7, 9.0),
        (0.8, 32.9, 5.3),
        (0.9, 17.9, 2.8),
    )
)

EPOCH_TOKENS = 41_754
STEP_TOKENS = 128
FITTED_PARAMETERS = 1e9
"""The size on which throughput is fitted; the other sizes are held out."""

_SIZES = (125e6, 350e6, 1e9, 1.5e9, 2.7e9, 3.8e9, 7e9, 13e9)
_SECONDS = {
    "Pixel 9": (1045, 3052, 7680, 10680, 18240, 26100, 47160),
    "Galaxy S25": (610, 1720, 4680, 7020, 12480, 17460),
    "iPhone 16": (744, 2674, 6300, 8520, 15840, 22980, 44640, 83400),
}
QVAC = tuple(
    EpochTime(phone=phone, parameters=size, time_s=float(seconds))
    for phone, row in _SECONDS.items()
    for size, seconds in zip(_SIZES, row, strict=False)
)

LLAMA_1B = TARGETS["llama-3.2-1b"]
QWEN_1_5B = Shapes(
    hidden=1536, layers=28, heads=12, kv_heads=2, head_dim=128, ffn=8960, vocab=151936
)
"""Qwen2.5-1.5B, its published config.json."""
MODELS: Mapping[str, Shapes] = {"llama3_2-1b": LLAMA_1B, "qwen2_5-1_5b": QWEN_1_5B}
FITTED_MODEL, HELD_OUT_MODEL = MODELS
INT4_BYTES = 0.5
"""Bytes per weight of int4, scales left out."""
ANSWERS = (128, 256, 512)
"""Answer lengths of LLM-Profiler, in tokens."""

_INFERENCE = (
    ("mate40pro", "MNN", 98.7884, 70.7688, 24.0094, 350.9250),
    ("mate40pro", "MNN", 71.0288, 98.1728, 18.4710, 445.2506),
    ("mate40pro", "MNN-Habst/AECS", 133.2753, 55.4794, 23.2066, 290.1936),
    ("mate40pro", "MNN-Habst/AECS", 96.6495, 74.0969, 18.3380, 348.4680),
    ("meizu21", "MNN", 162.7771, 38.2275, 29.4835, 260.0449),
    ("meizu21", "MNN", 132.4398, 53.3375, 24.4094, 362.0057),
    ("meizu21", "MNN-Habst/AECS", 263.3902, 37.5441, 33.1529, 259.6088),
    ("meizu21", "MNN-Habst/AECS", 193.9649, 52.6714, 24.5699, 336.9557),
    ("v30pro", "MNN", 97.7009, 61.3439, 27.1339, 280.2101),
    ("v30pro", "MNN", 73.9108, 80.9263, 21.1968, 352.4300),
    ("v30pro", "MNN-Habst/AECS", 119.0801, 48.2887, 25.0845, 211.6792),
    ("v30pro", "MNN-Habst/AECS", 82.0769, 70.4098, 19.5152, 269.1420),
    ("xiaomi15pro", "MNN", 244.5645, 26.1514, 64.6632, 150.0857),
    ("xiaomi15pro", "MNN", 187.0234, 34.8913, 48.6266, 192.5632),
    ("xiaomi15pro", "MNN-Habst/AECS", 503.5262, 12.8784, 66.3106, 133.7064),
    ("xiaomi15pro", "MNN-Habst/AECS", 357.4319, 18.4086, 50.1842, 175.1778),
)
LLM_PROFILER = tuple(
    Inference(
        phone=phone,
        engine=engine,
        model=model,
        prefill_tokens_per_s=prefill_speed,
        prefill_mj_per_token=prefill_energy,
        decode_tokens_per_s=decode_speed,
        decode_mj_per_token=decode_energy,
        # one series of the logs begins at 128 tokens instead of 64
        shortest_prompt=128 if (phone, engine, model) == ("v30pro", "MNN", FITTED_MODEL) else 64,
    )
    for (phone, engine, prefill_speed, prefill_energy, decode_speed, decode_energy), model in zip(
        _INFERENCE, list(MODELS) * (len(_INFERENCE) // 2), strict=True
    )
)
"""Rows alternate between the model that is fitted and the one held out."""

BITNET_VOCAB = 32002
"""Vocabulary of the 1bitLLM/bitnet_b1_58 models, their config.json."""
_BITNET = {
    125e6: (12, 768, 12),
    350e6: (24, 1024, 16),
    1e9: (16, 2048, 32),
    1.5e9: (24, 2048, 32),
    2.7e9: (32, 2560, 32),
    3.8e9: (26, 3200, 32),
    7e9: (32, 4096, 32),
    13e9: (40, 5120, 40),
}
BITNET_RANK = 16
"""Rank of the adapters: the repository's examples use 16, the benchmark's command states none."""


def bitnet_shapes(parameters: float) -> Shapes:
    """Returns an assumed decoder with the nominal number of weights.

    QVAC publishes nominal sizes only. Layers, width and heads are those of the published model
    nearest in size: OPT (arXiv 2205.01068, table 1) for 125M, 350M, 2.7B, 7B and 13B, Llama-3.2-1B
    for 1B, 1bitLLM/bitnet_b1_58-xl and -3B for 1.5B and 3.8B. The feed-forward width then follows
    from the nominal weights. So the matrices are right in sum; attention and adapters, 1 to 6 % of
    the FLOP, depend on the assumption.

    Raises:
        ValueError: If QVAC has no such size.
    """
    if parameters not in _BITNET:
        raise ValueError(f"parameters must be one of {sorted(_BITNET)}, got {parameters}")
    layers, hidden, heads = _BITNET[parameters]
    per_layer = (parameters - hidden * BITNET_VOCAB) / layers
    return Shapes(
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        ffn=round((per_layer - 4 * hidden**2) / (3 * hidden)),
        vocab=BITNET_VOCAB,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FederatedStep:
    """Mean step of one device in one run of EdgeFlowerTune; RSS in MiB, None on a Jetson.

    A Jetson's RSS is left out: the worker's GPU memory is not in it, and 0.7 GB were swapped out.
    """

    profile: str
    run: str
    time_s: float
    rss_mib: float | None = None


_STEPS = {
    ("nova_9_pro", "WikiText"): (
        (170.1887, 1070.6),
        (174.3541, 1070.6),
        (170.3717, 1065.6),
        (170.5589, 1069.2),
        (170.6399, 1071.3),
    ),
    ("nova_9_pro", "MMLU"): (
        (167.5717, 1072.4),
        (171.0454, 1071.8),
        (168.0978, 1069.3),
        (167.7521, 1070.8),
        (167.3728, 1072.3),
    ),
    ("jetson_nano", "WikiText"): ((11.3659, None), (14.1289, None), (11.8274, None)),
    ("jetson_nano", "MMLU"): ((10.8456, None), (12.3349, None), (10.3642, None)),
}
EDGEFLOWERTUNE = tuple(
    FederatedStep(profile=profile, run=run, time_s=time_s, rss_mib=rss_mib)
    for (profile, run), rows in _STEPS.items()
    for time_s, rss_mib in rows
)
UPLOADS: Mapping[int, int] = {4: 1_486_080, 8: 2_960_640, 16: 5_909_760}
"""Bytes that a phone of EdgeFlowerTune uploads in a round, by rank."""
FRAME_HEADER = 80
"""Bytes that its format puts before each tensor."""
GEMMA_270M = Shapes(
    hidden=640, layers=18, heads=4, kv_heads=1, head_dim=256, ffn=2048, vocab=262144
)
"""Gemma-3-270M, its published config.json."""
GEMMA_LENGTHS = (64,) * 8


def gemma_ranks(rank: int = 8) -> Ranks:
    """Returns EdgeFlowerTune's adapters."""
    return {Site(layer, module): rank for layer in range(GEMMA_270M.layers) for module in "qkvo"}
