"""Inputs: a resumed run whose files differ in one byte from those it was begun with is refused."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from fleettune.adapters.patch import Placement, new_patch
from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, read_shapes
from fleettune.shapes import Site
from simulations.adapter_formats.peft import KeptPatch, export_peft
from simulations.checkpoint.inputs import INPUTS, find_changed, write_inputs
from simulations.checkpoint.resume import is_finished
from simulations.checkpoint.versions import digest_source, versions
from simulations.experiment import lexicons
from simulations.launch import launch
from tests.simulations.checkpoint.test_resume import assert_same_bytes, rounds_of

HARDWARE = Path(str(files("conf"))) / "hardware"
POLICY = '''
from dataclasses import dataclass
from pathlib import Path
from clients.adaptation.decision import Action, Decision
from policy_parts import REASON

@dataclass(frozen=True, slots=True, kw_only=True)
class Mine:
    """Retunes; the second release finds its user at the keyboard, who presses Ctrl-C."""
    def decide(self, release, patch):
        if release.version == 1 and (Path(__file__).parent / "press").exists():
            raise KeyboardInterrupt
        return Decision(action=Action.RETUNE, reason=REASON)
'''
LOCAL = (
    *(
        "rows.jsonl",
        "words.txt",
        "asked.txt",
        "trace.json",
        "corpus.jsonl",
        "profiles/old_phone.yaml",
    ),
    *("model/config.json", "model/tokenizer.json", "model/model.safetensors"),
    *("next/config.json", "next/tokenizer.json", "next/model.safetensors"),
    *("a/adapter_config.json", "a/adapter_model.safetensors"),
    *("b/adapter_config.json", "b/adapter_model.safetensors"),
)
"""Every file that the run below reads, by the name that its settings give it."""


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A folder of inputs, what a run over them is given, and that run, stopped in its round 1."""

    place: Path
    given: list[str]
    run: Path


def write_world(place: Path) -> list[str]:
    """Writes one input of each kind, and returns the command line that reads all of them."""
    said = [
        {
            "user_id": f"u{user}",
            "order": n,
            "question": f"what {n}?",
            "response": f"that {n} {user}",
        }
        for user in range(5)
        for n in range(12)
    ]
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
    (place / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said[:40]))
    (place / "words.txt").write_text("[food]\nsoup bread water\n[travel]\ntrain tea\n")
    (place / "asked.txt").write_text("where?\nwhen?\nhow?\nwho is it?\n")
    client = {"active": [0], "inactive": [86_000], "finish_time": 86_400}
    (place / "trace.json").write_text(json.dumps({"0": client}))
    (place / "profiles").mkdir()
    phone = (HARDWARE / "mid_phone.yaml").read_text()
    (place / "profiles" / "old_phone.yaml").write_text(phone.replace("mid_phone", "old_phone", 1))
    shapes = read_shapes(POCKET_V1_FOLDER)
    for name in ("model", "next"):
        shutil.copytree(POCKET_V1_FOLDER, place / name)
    for number, name in enumerate("ab"):
        one = Placement(sites=(Site(number, "q"),), rank=2, alpha=4.0)
        patch = new_patch(one, shapes, 0, np.random.default_rng(number))
        export_peft(KeptPatch(patch=patch, base=str(POCKET_V1_FOLDER)), place / name)
    (place / "policy.py").write_text(POLICY)
    (place / "policy_parts.py").write_text("REASON = 'mine'\n")
    (place / "conf" / "adaptation").mkdir(parents=True)
    (place / "conf" / "adaptation" / "mine.yaml").write_text("_target_: policy.Mine\n")
    return [
        *("--config-dir", str(place / "conf"), "adaptation=mine"),
        *(
            "model=hf",
            f"model.path={place}/model",
            "model.template=pocket",
            "data=jsonl",
            f"data.path={place}/rows.jsonl",
        ),
        *("data.labels=[]", "release.every=1", "release.initial=null"),
        f"release.plans=[{{name: text, kind: full, steps: 1, learning_rate: 1.0e-4, batch: 2, "
        f"window: 16, conversations: 9, corpus: {place}/corpus.jsonl}}, "
        f"{{name: other, kind: external, path: {place}/next}}]",
        *("selection=quality", f"lexicon={place}/words.txt"),
        *("availability=fedscale", f"availability.path={place}/trace.json"),
        *(f"fleet.profiles={place}/profiles", "~fleet.mix", "+fleet.mix={old_phone: 1.0}"),
        *("fleet.devices=2", "rounds=3", "tuning.steps=1", "engine.workers=1"),
        *("start=nearest", "catalogue=imported", "catalogue.explain.questions=4"),
        f"catalogue.adapters=[{{name: a, path: {place}/a}}, {{name: b, path: {place}/b}}]",
        f"catalogue.questions={place}/asked.txt",
        *("catalogue.explain.new_tokens=2", f"store={place}/store"),
    ]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Begun]:
    place = tmp_path_factory.mktemp("given")
    threads, arguments = torch.get_num_threads(), sys.argv
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(place)
        patch.chdir(place)
        begun = Begun(place=place, given=write_world(place), run=place / "run")
        (place / "press").touch()
        with pytest.raises(SystemExit):
            launch([*begun.given, f"hydra.run.dir={begun.run}"])
        (place / "press").unlink()
        yield begun
    torch.set_num_threads(threads)
    sys.argv = arguments


def flip(file: Path) -> bytes:
    """Changes one bit in the middle of a file, and returns what was there."""
    content = file.read_bytes()
    other = bytearray(content)
    other[len(other) // 2] ^= 1
    file.write_bytes(other)
    return content


@pytest.mark.slow
def test_the_folder_of_a_run_names_every_input_with_its_digest_and_no_text(begun: Begun) -> None:
    assert rounds_of(begun.run) == [0]
    told = json.loads((begun.run / INPUTS).read_text())
    assert {f"{begun.place}/{name}" for name in LOCAL} <= told["files"].keys()
    assert {"policy", "policy_parts"} <= told["modules"].keys()
    digests = [*told["files"].values(), *told["modules"].values()]
    assert {len(bytes.fromhex(digest)) for digest in digests} == {32}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LOCAL, "policy.py", "policy_parts.py"])
def test_one_byte_of_an_input_is_enough_to_refuse(
    name: str, begun: Begun, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = flip(begun.place / name)
    try:
        assert launch([f"resume={begun.run}"]) == 2
    finally:
        (begun.place / name).write_bytes(sound)
    said = capsys.readouterr().err
    named = f"module {name.removesuffix('.py')}" if name.endswith(".py") else f"/{name}"
    assert f"{named} is not what it was when the run began" in said
    assert said.count("\n") == 1


@pytest.mark.slow
def test_a_file_that_went_or_came_is_named(
    begun: Begun, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = begun.place / "profiles" / "old_phone.yaml"
    other = profile.with_name("new_phone.yaml")
    profile.rename(other)
    try:
        assert launch([f"resume={begun.run}"]) == 2
    finally:
        other.rename(profile)
    said = capsys.readouterr().err
    assert "profiles/old_phone.yaml is missing" in said
    assert "profiles/new_phone.yaml was no input of the run" in said


@pytest.mark.slow
def test_another_source_of_ours_is_refused(
    begun: Begun, capsys: pytest.CaptureFixture[str]
) -> None:
    file = begun.run / "versions.json"
    kept = file.read_text()
    file.write_text(json.dumps({**json.loads(kept), "source of clients": "0" * 16}))
    try:
        assert launch([f"resume={begun.run}"]) == 2
    finally:
        file.write_text(kept)
    assert "source of clients is 0000000000000000 in the run and" in capsys.readouterr().err


@pytest.mark.slow
def test_with_nothing_changed_it_ends_with_the_bytes_of_a_whole_run(begun: Begun) -> None:
    whole = begun.place / "whole"
    assert launch([*begun.given, f"hydra.run.dir={whole}"]) == 0
    assert launch([f"resume={begun.run}"]) == 0
    assert is_finished(begun.run)
    assert_same_bytes(begun.run, whole)
    assert (whole / INPUTS).read_bytes() == (begun.run / INPUTS).read_bytes()


CORPORA = "[{{name: a, path: {0}/one}}, {{name: b, path: {0}/two}}]"


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["data=jsonl", "data.path={0}/one"], ["one"]),
        (["data=parquet", "data.path={0}/one"], ["one"]),
        (["data=mood_journal", "data.path={0}/one"], ["one"]),
        (["data=shakespeare_roles", "data.path={0}/one"], ["one"]),
        (["data=corpora", f"data.text.files={CORPORA}", "catalogue=corpora"], ["one", "two"]),
        (["availability=flash", "availability.path={0}/one"], ["one"]),
        (["availability=fedscale", "availability.path={0}/one"], ["one"]),
        (["fleet.profiles={0}/p"], ["p/phone.yaml"]),
        (
            ["catalogue=imported", "catalogue.adapters=[{{name: a, path: {0}/m}}]"],
            ["m/config.json", "m/model.safetensors"],
        ),
        (
            ["release.plans=[{{name: x, kind: external, path: {0}/m}}]"],
            ["m/config.json", "m/model.safetensors"],
        ),
        (["lexicon={0}/one"], ["one"]),
        (["release.initial={{name: x, kind: full, corpus: {0}/two}}"], ["two"]),
        (["model=hf", "model.path={0}/m"], ["m/config.json", "m/model.safetensors"]),
    ],
)
def test_every_option_that_takes_a_file_has_its_digest(
    given: list[str], names: list[str], tmp_path: Path
) -> None:
    for name in ("one", "two", "m/config.json", "m/model.safetensors", "p/phone.yaml", "p/read.me"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("[words]\nof a file\n")
    lexicons.register_resolver()
    with hydra.initialize_config_module("conf", version_base="1.3"):
        cfg = hydra.compose("config", overrides=[text.format(tmp_path) for text in given])
    settings = [OmegaConf.to_container(cfg, resolve=True)]
    write_inputs(tmp_path, settings, ())
    assert find_changed(tmp_path, settings) == ([], [])
    told = json.loads((tmp_path / INPUTS).read_text())
    assert told == {"files": told["files"], "modules": {}}
    assert list(told["files"]) == [f"{tmp_path}/{name}" for name in names]
    for name in names:
        sound = flip(tmp_path / name)
        changed, moved = find_changed(tmp_path, settings)
        assert (changed, moved) == (
            [f"{tmp_path}/{name} is not what it was when the run began"],
            [],
        )
        (tmp_path / name).write_bytes(sound)


def test_modules_of_a_policy_are_told_by_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_rule.py").write_text("from own_words import REASON\n")
    (tmp_path / "own_words.py").write_text("REASON = 'mine'\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("own_rule")
    try:
        write_inputs(tmp_path, [], ["own_rule.Rule"])
        assert find_changed(tmp_path, []) == ([], [])
        flip(tmp_path / "own_words.py")
        told = ["module own_words is not what it was when the run began"]
        assert find_changed(tmp_path, []) == (told, [])
    finally:
        del sys.modules["own_rule"], sys.modules["own_words"]
    # which is told by whoever imports it
    (tmp_path / "own_words.py").unlink()
    importlib.invalidate_caches()
    assert find_changed(tmp_path, []) == ([], [])


@pytest.mark.parametrize("content", [None, "{}", "[", '{"files": 1, "modules": 2}'])
def test_a_run_without_its_digests_is_not_resumed(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / INPUTS).write_text(content)
    with pytest.raises(ValueError, match=rf"its {INPUTS} is missing or damaged; start the run"):
        find_changed(tmp_path, [])


@pytest.mark.parametrize("name", ["clients/app.py", "profile.yaml", "models/weights.safetensors"])
def test_one_byte_of_our_own_source_makes_another_digest(name: str, tmp_path: Path) -> None:
    for one in ("clients/app.py", "profile.yaml", "models/weights.safetensors", "page.html"):
        (tmp_path / one).parent.mkdir(exist_ok=True)
        (tmp_path / one).write_text(one)
    before = digest_source(tmp_path)
    (tmp_path / "page.html").write_text("decides no number")
    (tmp_path / "clients" / "__pycache__").mkdir()
    (tmp_path / "clients" / "__pycache__" / "app.cpython-311.pyc").write_bytes(b"")
    assert digest_source(tmp_path) == before
    sound = flip(tmp_path / name)
    assert digest_source(tmp_path) != before
    (tmp_path / name).write_bytes(sound)
    (tmp_path / name).rename(tmp_path / f"{name}.py")
    assert digest_source(tmp_path) != before


def test_versions_hold_a_digest_of_each_package() -> None:
    found = versions()
    for wing in ("fleettune", "clients", "strategies", "simulations"):
        assert found[f"source of {wing}"] == digest_source(Path(str(files(wing))))
    assert found["source of conf/hardware"] == digest_source(HARDWARE)
