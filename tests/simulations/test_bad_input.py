"""Bad input ends before anything starts, in one line that names key, rule and value."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl
import pytest
import torch

from simulations.launch import check_all, launch


def refused(*overrides: str) -> str:
    """What is said about a command line that must not run."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the caller looks at the text
        check_all(overrides, sweep=False)
    return str(caught.value)


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., str]:
    """A function that writes a small file of free text, with columns changed or left out."""

    def write(drop: str = "", **changes: object) -> str:
        columns: dict[str, object] = {
            "user_id": [f"u{user}" for user in range(4) for _ in range(12)],
            "order": [order for _ in range(4) for order in range(12)],
            "question": ["how are you?"] * 48,
            "response": [f"answer {row}" for row in range(48)],
        }
        columns |= changes
        columns.pop(drop, None)
        pl.DataFrame(columns).write_parquet(tmp_path / "rows.parquet")
        return str(tmp_path / "rows.parquet")

    return write


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        # unknown keys
        ("fleet.devicess=3", ["fleet.devicess", "not a known key", "fleet.devicess=3"]),
        ("+fleet.devicess=3", ["fleet.devicess", "not a known key", "devices"]),
        ("+colour=red", ["colour", "not a known key", "rounds"]),
        ("~tuning", ["tuning", "must be given"]),
        ("+arms.mine.colour=red", ["arms.mine.colour", "no policy key", "adaptation"]),
        # types
        ("seed=abc", ["seed must be a whole number, got 'abc'"]),
        ("rounds=1.5", ["rounds must be a whole number, got 1.5"]),
        ("tuning.steps=true", ["tuning.steps must be a whole number, got True"]),
        ("tuning.clip=large", ["tuning.clip must be a number, got 'large'"]),
        ("fleet.devices=null", ["fleet.devices must be a whole number, got None"]),
        ("store=3", ["store must be text, got 3"]),
        # ranges
        ("seed=-1", ["seed must be >= 0", "got -1"]),
        ("seed=5000000000", ["seed must be", "< 2^32, got 5000000000"]),
        ("keep_patches=-1", ["keep_patches must be >= 0 devices, got -1"]),
        ("rounds=0", ["rounds must be >= 1 night, got 0"]),
        ("storage.buffer_bytes=-1", ["storage.buffer_bytes must be >= 1 byte, got -1"]),
        ("storage.total_bytes=100", ["storage.total_bytes must be >=", "got 100"]),
        ("tuning.learning_rate=-1", ["tuning.learning_rate must be > 0, got -1"]),
        ("release.every=0", ["release.every must be >= 1 night, got 0"]),
        (
            "release=drawn release.family=3",
            ["release.family must hold the keys of a family, got 3"],
        ),
        ("release=drawn release.family.leans=99", ["release.family.leans", "got 99"]),
        ("release=drawn +release.plans=none", ["release must hold plans or a family, got both"]),
        ("release.plans=[]", ["release.plans must hold at least one plan, got none"]),
        (
            "release.plans=[{name: x, kind: full}]",
            ["release.plans[0]", "steps must be >= 1, got 0"],
        ),
        (
            "release.plans=[{name: x, kind: full, steps: 1, learning_rate: 0.1, batch: 1,"
            " window: 8, conversations: 1, corpus: nowhere.jsonl}]",
            ["release x: corpus: path must name a file that exists", "'nowhere.jsonl'"],
        ),
        ("engine.cohort_size=0", ["engine.cohort_size must be >= 1, got 0"]),
        ("engine.name=slurm", ["engine.name must be one of", "got 'slurm'"]),
        ("+engine.address=auto", ["engine.address is for engine=ray only", "'auto'"]),
        (
            "engine=ray engine.address=nowhere",
            ["engine.address must be null, auto or host:port, got 'nowhere'"],
        ),
        ("engine=flower engine.workers=2", ["one device at a time", "got 2 and 1"]),
        ("engine=flower precision=fast", ["reference precision only, got precision=fast"]),
        ("data.drift=2", ["data.drift must be a share from 0 to 0.5, got 2"]),
        ("compute.device=tpu", ["compute.device must be one of ('cpu', 'cuda'), got 'tpu'"]),
        ("compute.device=0", ["compute.device must be text, got 0"]),
        ("precision=double", ["precision must be one of", "got 'double'"]),
        ("quality.metric=rouge1", ["quality.metric=rouge1", "quality.generate >= 1", "got 0"]),
        ("quality.generate=-1", ["quality.generate must be >= 0", "got -1"]),
        ("quality.metric=bleu", ["quality.metric must be one of", "got 'bleu'"]),
        # options and classes
        ("adaptation=nope", ["adaptation/nope", "always_reuse", "adaptation=nope"]),
        ("model=nope", ["model/nope", "pocket", "model=nope"]),
        ("fleet=null", ["string", "fleet=null"]),
        ("adaptation._target_=os.system", ["adaptation._target_", "dataclass", "'os.system'"]),
        (
            "codec._target_=fleettune.codecs.Int8",
            ["codec._target_ must name", "'fleettune.codecs.Int8': it is called fleettune.", "now"],
        ),
        ("adaptation._target_=no.Such", ["adaptation._target_", "importable", "'no.Such'"]),
        (
            "adaptation._target_=clients.selection.Fifo",
            ["adaptation", "Adaptation", "got Fifo"],
        ),
        ("+adaptation.x=3", ["adaptation.x is not a known key"]),
        # model and placement
        ("placement.rank=5000", ["placement.rank must be between 1 and 96", "got 5000"]),
        (
            "placement=top_layers placement.layers=99",
            ["placement.layers must be between 1 and 8", "got 99"],
        ),
        ("model=hf model.path=/nowhere", ["model.path must be a folder", "'/nowhere'"]),
        ("model=hf", ["model.path must be given"]),
        ("model.template=nope", ["model.template must be one of", "got 'nope'"]),
        ("model.max_tokens=1", ["model.max_tokens must be >= 8 tokens, got 1"]),
        (
            "data=bursty",
            ["model=pocket was not trained on", "data, streams_bursts; add model=pocket_v1"],
        ),
        ("model=pocket_v1", ["model=pocket_v1 was not", "data, synthetic; add model=pocket"]),
        (
            "adaptation=always_from_old adaptation.start=warm",
            ["adaptation: start must be one of ('fresh', 'old'), got 'warm'"],
        ),
        (
            "placement=gradcut placement.over_budget=hope",
            ["placement.over_budget must be one of ('cheapest', 'refuse'), got 'hope'"],
        ),
        # fleet
        ("+fleet.mix.nokia_3310=1", ["fleet.mix", "'nokia_3310'", "known are", "pixel_7"]),
        ("fleet.mix.pixel_7=-1", ["pixel_7", "> 0, got -1"]),
        ("data.users=3 fleet.devices=4", ["fleet.devices must be <= 3", "got 4"]),
        ("fleet.devices=0", ["fleet.devices must be >= 1, got 0"]),
        ("fleet.sampling=some", ["fleet.sampling must be one of", "got 'some'"]),
        ("fleet.sampling=uniform", ["fleet.sampled must be given", "uniform with sampled None"]),
        ("fleet.sampled=3", ["fleet.sampled must be given", "got sampling panel with sampled 3"]),
        (
            "fleet.sampling=uniform fleet.sampled=9 fleet.devices=8",
            ["fleet.sampled must be from 1 to fleet.devices (8), got 9"],
        ),
        # where catalogues come from
        ("catalogue=imported", ["catalogue.adapters must be given"]),
        (
            "catalogue=clusters fleet.devices=23",
            ["catalogue.least must be at most", "23", "got 24"],
        ),
        ("catalogue=clusters catalogue.members=1", ["catalogue.members must be >= 2, got 1"]),
        ("catalogue=clusters fleet_patch=start", ["needs fleet_patch=none, got start"]),
        (
            "catalogue=styles catalogue.explain.questions=0",
            ["catalogue.explain.questions must be >= 1, got 0"],
        ),
        ("start=catalogue", ["add catalogue=styles, corpora, imported or clusters"]),
        # what the server makes of reports
        ("guidance=fitted guidance.explore=2", ["guidance: explore must be a share", "got 2.0"]),
        ("guidance=fitted", ["no arm keeps any out", "adaptation.canary=true"]),
        ("guidance=fitted guidance.margins=1", ["guidance.margins", "not a known key"]),
        ("rollout=staged release.every=1", ["rollout=staged needs release.every >= 2", "got 1"]),
        ("rollout=staged fleet_patch=start", ["rollout=staged needs fleet_patch=none, got start"]),
        ("rollout=staged rollout.least=3", ["rollout: least must be >= 8 devices, got 3"]),
        # what catalogues are read with
        (
            "catalogue=styles catalogue.explain.summariser=oracle",
            ["catalogue.explain.summariser must be one of", "'stylometry'", "got 'oracle'"],
        ),
        (
            "catalogue=styles catalogue.explain.summariser=minilm",
            ["minilm was removed", "less often than stylometry (docs/LOG.md)", "take one of"],
        ),
        (
            "catalogue=styles start=catalogue catalogue.explain.shrink=null",
            [
                "start.spread counts in the unit",
                "catalogue.explain.shrink must be > 0, got null",
                "or take start=nearest",
            ],
        ),
        (
            "catalogue=styles start=catalogue catalogue.explain.decomposition=released",
            ["catalogue.explain.decomposition was deleted", "leave the key out"],
        ),
        # data
        ("data=parquet data.path=nowhere.parquet", ["data: path must name a file", "nowhere"]),
        ("data=jsonl", ["data.path must be given"]),
        ("adaptation=user_prior", ["adaptation=user_prior", "labels", "free text"]),
        ("data=synthetic data.repeats=0.5", ["data.repeats must be a share from 0 to 0.25"]),
        ("quality.metric=neg_mae", ["quality.metric=neg_mae", "labels", "free text"]),
    ],
)
def test_bad_input_is_named_with_key_rule_and_value(overrides: str, said: list[str]) -> None:
    plain = [overrides] if "[" in overrides else overrides.split()
    message = refused(*plain)
    for part in said:
        assert part in message


def test_cuda_is_refused_where_torch_finds_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert launch(["compute.device=cuda"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: compute.device must be cpu here: torch ")
    assert said.endswith("finds no CUDA device, got cuda\n")


@pytest.mark.parametrize("engine", ["ray", "flower"])
def test_engines_that_compute_on_the_cpu_only_refuse_cuda(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    said = refused("compute.device=cuda", f"engine={engine}")
    assert f"compute.device must be cpu with engine={engine}, got cuda" in said


def test_cuda_is_taken_where_torch_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    (experiment,) = check_all(["compute.device=cuda"], sweep=False)
    assert experiment.run.compute.device == "cuda"


def test_the_reference_arm_has_the_name_that_it_is_given() -> None:
    (experiment,) = check_all(["reference.name=every_site", "fleet.devices=8"], sweep=False)
    assert experiment.reference == "every_site"
    assert "reference.name must be the name of an arm, got 3" in refused("reference.name=3")


def test_what_is_refused_was_good_without_the_fault() -> None:
    (experiment,) = check_all(["fleet.devices=8", "rounds=2"], sweep=False)
    assert (experiment.fleet_settings.devices, experiment.run.rounds) == (8, 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"drop": "response"}, ["data:", "column response"]),
        ({"user_id": ["u0"] * 47 + [""]}, ["data:", "user_id must not be empty", "row 48"]),
        ({"response": ["yes"] * 36 + [""] * 12}, ["data:", "'u3'", "none with a response"]),
        ({"order": ["first"] * 48}, ["data:", "column order", "text"]),
    ],
    ids=["missing column", "empty user id", "user without an answer", "text for a number"],
)
def test_rows_that_break_the_schema_are_named(
    table: Callable[..., str], changes: Mapping[str, object], said: list[str]
) -> None:
    message = refused("data=parquet", f"data.path={table(**changes)}", "fleet.devices=1")
    for part in said:
        assert part in message


@pytest.mark.parametrize(
    ("adapters", "said"),
    [
        (
            "{name: a, path: x}",
            "catalogue.adapters must be two or more of different names, got",
        ),
        ("{name: a, path: x}, {name: a, path: y}", "got ['a', 'a']: list them as"),
        (
            "{name: a, path: /nowhere}, {name: b, path: x}",
            "catalogue.adapters, a: /nowhere must hold adapter_config.json and",
        ),
        ("{name: a}", "catalogue.adapters[0].path must be given"),
    ],
)
def test_adapters_that_cannot_be_offered_are_refused(
    adapters: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch(["catalogue=imported", f"catalogue.adapters=[{adapters}]"]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1


def test_a_fleet_larger_than_the_users_of_a_file_is_refused(table: Callable[..., str]) -> None:
    # 4 users, of whom 30 %, rounded down to 1, stay outside the fleet.
    chosen = ["data=parquet", f"data.path={table()}"]
    assert "fleet.devices must be <= 3, the users of this data, got 4" in refused(
        *chosen, "fleet.devices=4"
    )
    check_all([*chosen, "fleet.devices=3"], sweep=False)


def test_a_model_folder_without_weights_or_tokenizer_is_refused(tmp_path: Path) -> None:
    from fleettune.backbone.causal_lm import POCKET_V1_FOLDER  # noqa: PLC0415 - only its files are needed

    model = ("model=hf", f"model.path={tmp_path}")
    assert "config.json" in refused(*model)
    (tmp_path / "config.json").write_bytes((POCKET_V1_FOLDER / "config.json").read_bytes())
    assert "safetensors" in refused(*model)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert "tokenizer.json" in refused(*model)


def test_a_class_whose_name_is_taken_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_rules.py").write_text(
        "from dataclasses import dataclass\n\n\n@dataclass(frozen=True)\nclass AlwaysReuse:\n"
        "    def decide(self, release, patch): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    said = refused("adaptation._target_=my_rules.AlwaysReuse")
    assert "my_rules.AlwaysReuse" in said
    assert "another name" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["seed=abc"], "seed must be a whole number, got 'abc'"),
        (["fleet.devicess=3"], "fleet.devicess is not a known key"),
        (["adaptation=nope"], "adaptation/nope"),
        (["placement.rank=5000"], "placement.rank must be between 1 and 96"),
        (["adaptation._target_=no.Such"], "adaptation._target_ must name an importable class"),
        (["compute.device=gpu"], "compute.device must be one of ('cpu', 'cuda'), got 'gpu'"),
        (["store=[bold]"], "store must be text, got ['bold']"),
        (["seed"], "missing EQUAL"),
        (["-m", "seed=1,abc"], "seed must be a whole number, got 'abc'"),
        (["-m", "seed=1,2", "adaptation=always_reuse,nope"], "adaptation/nope"),
        (["-m", "seed=1,2", "hydra.sweeper.max_batch_sizee=3"], "max_batch_sizee"),
    ],
)
def test_a_bad_command_line_ends_with_2_and_one_line_and_leaves_nothing_behind(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    models = {name for name in sys.modules if name.startswith("transformers.models.")}
    assert launch(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert shown.err.startswith("error: ")
    assert said in shown.err
    assert list(tmp_path.iterdir()) == []
    # not even the model's code was loaded
    assert {name for name in sys.modules if name.startswith("transformers.models.")} == models


def test_a_directory_that_holds_a_run_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fleettune"])  # Hydra reads it, so launch writes it
    (tmp_path / "config.yaml").write_text("seed: 7\n")
    (tmp_path / "summary.json").write_text("{}")
    assert launch(["fleet.devices=1", "rounds=1", f"hydra.run.dir={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path} holds a run already; choose another hydra.run.dir" in said
    assert (tmp_path / "config.yaml").read_text() == "seed: 7\n"
    assert (tmp_path / "summary.json").read_text() == "{}"
