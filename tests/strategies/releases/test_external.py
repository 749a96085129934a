"""External releases: used where they lie, and refused where patches would not fit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fleettune.backbone.causal_lm import POCKET_V1_FOLDER
from fleettune.releases.model_files import weight_files
from strategies.releases.given_files import check_given_files, plan_identity
from strategies.releases.schedule import ReleasePlan, Schedule
from strategies.releases.training import TrainedRelease, Vendor
from tests.strategies.releases.test_rewritten import FULL, TWICE, make


def external(path: Path | str) -> ReleasePlan:
    return ReleasePlan(name="theirs", kind="external", path=str(path))


def test_an_external_release_is_used_where_it_lies(vendor: Vendor, tmp_path: Path) -> None:
    trained = make(FULL, vendor)
    shutil.copytree(trained.folder, tmp_path / "theirs")
    assert make(external(tmp_path / "theirs"), vendor) == TrainedRelease(
        folder=tmp_path / "theirs", digest=trained.digest, loss_before=None, loss_after=None
    )


def test_an_external_release_that_cannot_follow_is_refused(tmp_path: Path) -> None:
    def check(path: Path | str) -> None:
        check_given_files(Schedule(every=1, plans=(FULL, external(path))), POCKET_V1_FOLDER)

    check(POCKET_V1_FOLDER)
    with pytest.raises(
        ValueError, match=r"release theirs: path must be a folder with config\.json"
    ):
        check(tmp_path / "nowhere")
    other = tmp_path / "other"
    shutil.copytree(POCKET_V1_FOLDER, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 7}))
    with pytest.raises(ValueError, match=r"must have the shapes of .*layers=8.* got .*layers=7"):
        check(other)
    words = tmp_path / "words"
    shutil.copytree(POCKET_V1_FOLDER, words)
    tokenizer = json.loads((words / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:-1]
    (words / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match="must have the tokenizer of"):
        check(words)
    weight_files(words)[0].unlink()
    with pytest.raises(ValueError, match="holds no safetensors file"):
        check(words)


def test_a_hub_id_that_is_not_here_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    schedule = Schedule(every=1, plans=(external("nobody/nothing"),))
    with pytest.raises(ValueError, match=r"release theirs: path 'nobody/nothing' is no local"):
        check_given_files(schedule, POCKET_V1_FOLDER)


def test_every_field_makes_another_key() -> None:
    plans = [
        TWICE,
        replace(TWICE, scale=3.0),
        ReleasePlan(name="x", kind="quantised", bits=4),
        ReleasePlan(name="x", kind="quantised", bits=8),
        ReleasePlan(name="x", kind="quantised", bits=8, embeddings=True),
    ]
    keys = {json.dumps(dict(plan_identity(plan)), sort_keys=True) for plan in plans}
    assert len(keys) == len(plans)
