"""Guidance: a logistic score by hand, bounds, and manifests that stay what they were without it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from fleettune.messages.flower_records import Request, decode_request, encode_request
from fleettune.records import to_record
from fleettune.releases.guidance import (
    CANARY,
    CANARY_LEVEL,
    CANARY_MISSING,
    LOG_DRIFT,
    Guidance,
)
from fleettune.releases.manifest import Drift, Manifest, Moments, SiteDrift, read_manifest
from fleettune.shapes import Shapes

SCORE = Guidance(intercept=1.0, weights=((LOG_DRIFT, 2.0), (CANARY, 3.0)), threshold=0.5)
DRIFT = SiteDrift(layer=0, module="q", drift=Moments(count=4, squares=1.0, fourths=1.0))
MANIFEST = Manifest(
    version=1,
    name="mild",
    path="/store/1",
    digest="ab",
    size_bytes=10,
    shapes=Shapes(hidden=8, layers=1, heads=2, kv_heads=1, head_dim=4, ffn=12, vocab=16),
    template="pocket",
    max_tokens=64,
    drifts=(Drift(since=0, sites=(DRIFT,)),),
)
BEFORE = (
    '{"type": "Manifest", "version": 1, "name": "mild", "path": "/store/1", "digest": "ab", '
    '"size_bytes": 10, "shapes": {"type": "Shapes", "hidden": 8, "layers": 1, "heads": 2, '
    '"kv_heads": 1, "head_dim": 4, "ffn": 12, "vocab": 16}, "template": "pocket", '
    '"max_tokens": 64, "drifts": [{"type": "Drift", "since": 0, "sites": [{"type": "SiteDrift", '
    '"layer": 0, "module": "q", "drift": {"type": "Moments", "count": 4, "squares": 1.0, '
    '"fourths": 1.0}}]}]}'
)
"""What a manifest was on the wire before there was guidance."""


def test_a_probability_by_hand() -> None:
    # 1 + 2 * (-1) + 3 * 0.5 = 0.5; 1 / (1 + exp(-0.5)).
    features = {LOG_DRIFT: -1.0, CANARY: 0.5, CANARY_LEVEL: 2.0, CANARY_MISSING: 0.0}
    assert SCORE.logit(features) == 0.5
    assert SCORE.probability(features) == pytest.approx(1 / (1 + math.exp(-0.5)))
    for far, limit in ((1e4, 1.0), (-1e4, 0.0)):
        assert SCORE.probability({**features, LOG_DRIFT: far}) == limit


def test_a_manifest_without_guidance_is_what_it_was_byte_for_byte() -> None:
    assert json.dumps(to_record(MANIFEST)) == BEFORE
    assert read_manifest(json.loads(BEFORE)) == MANIFEST


@pytest.mark.parametrize("guidance", [None, Guidance(), SCORE, Guidance(decision="reuse")])
def test_guidance_reaches_a_device_with_the_request(guidance: Guidance | None) -> None:
    release = replace(MANIFEST, guidance=guidance)
    sent = Request(arm="a", round=0, release=release, policy={"type": "x"}, observe=False)
    assert decode_request(encode_request(sent)).release == release


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"decision": "retune everything"}, "guidance.decision must be in"),
        ({"weights": (("mood", 1.0),)}, r"must name each of .* once, got \['mood'\]"),
        ({"weights": ((CANARY, 1.0), (CANARY, 2.0))}, "must name each of"),
        ({"intercept": math.nan}, "must hold finite coefficients"),
        ({"weights": ((CANARY, math.inf),)}, "must hold finite coefficients"),
        ({"threshold": 1.0}, "threshold must be > 0 and < 1, got 1.0"),
        ({"explore": -0.1}, "explore must be a share from 0 to 1, got -0.1"),
    ],
)
def test_guidance_that_means_nothing_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(SCORE, **changes)


def test_a_weight_of_another_shape_is_refused_with_its_place() -> None:
    record = json.loads(json.dumps(to_record(replace(MANIFEST, guidance=SCORE))))
    record["guidance"]["weights"][1] = [CANARY, "heavy"]
    with pytest.raises(ValueError, match=r"guidance.weights\[1\]\[1\] must be a number"):
        read_manifest(record)
    record["guidance"]["weights"][1] = [CANARY]
    with pytest.raises(ValueError, match=r"guidance.weights\[1\] must have 2 entries, got 1"):
        read_manifest(record)


def test_there_is_no_score_without_an_intercept() -> None:
    with pytest.raises(ValueError, match="holds no score"):
        Guidance().logit({})
