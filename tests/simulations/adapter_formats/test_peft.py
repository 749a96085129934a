"""Patches that a run keeps: read back as they were, and the same logits in plain PEFT."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import RecordDict
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from clients.state.state import DeviceState, write_state
from fleettune.adapters.factors import Factors, Tie
from fleettune.adapters.patch import Patch, Placement, new_patch, peft_name
from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, load_backbone, read_shapes
from fleettune.kernels.adapter_stack import apply_adapters, stack_patches
from fleettune.releases.manifest import Manifest
from fleettune.seeds import Purpose, stream
from fleettune.shapes import Site
from simulations.adapter_formats.peft import KeptPatch, read_patch, save_patch, save_patches
from simulations.checkpoint.store import MemoryStates
from simulations.cli import main

SHAPES = read_shapes(POCKET_V1_FOLDER)
# layer 1 and layer 11 must not be taken for each other by a pattern; pocket has 8, so 1 and 7
PLACEMENTS = {
    "plain": Placement(sites=(Site(1, "q"), Site(7, "down")), rank=4, alpha=12.0),
    "tied": Placement(
        sites=(Site(1, "v"), Site(6, "gate")),
        rank=2,
        alpha=3.0,
        ties=(Tie(sites=(Site(2, "up"), Site(5, "up"), Site(7, "up")), rank=4, alpha=8.0),),
    ),
}

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is dep:FutureWarning")


def trained(placement: Placement) -> Patch:
    """A patch with everything drawn, as after training."""
    rng = stream(1, Purpose.ADAPTER)
    fresh = new_patch(placement, SHAPES, 3, rng)

    def normal(array: np.ndarray) -> np.ndarray:
        return rng.normal(0, 0.2, array.shape).astype(np.float32)

    return replace(
        fresh,
        factors={s: Factors(a=f.a, b=normal(f.b)) for s, f in fresh.factors.items()},
        ties=tuple(
            replace(
                tied,
                pair=Factors(a=tied.pair.a, b=normal(tied.pair.b)),
                vectors={s: (1 + normal(u), 1 + normal(v)) for s, (u, v) in tied.vectors.items()},
            )
            for tied in fresh.ties
        ),
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with the patches of device 0 in two arms; device 1 holds none."""
    held = Manifest(
        version=3,
        name="pocket",
        path=str(POCKET_V1_FOLDER),
        digest="",
        size_bytes=1,
        shapes=SHAPES,
        template="pocket",
        max_tokens=64,
    )
    states = MemoryStates()
    for arm, placement in PLACEMENTS.items():
        for device, patch in ((0, trained(placement)), (1, None)):
            records = RecordDict()
            write_state(records, DeviceState(held=held, patch=patch), arm)
            states.save({(arm, device + 1): records})
    assert save_patches(states, PLACEMENTS, 2, tmp_path / "run") == 2
    return tmp_path / "run"


@pytest.mark.parametrize("arm", PLACEMENTS)
def test_a_patch_is_kept_as_it_was(run: Path, arm: str) -> None:
    kept = read_patch(run, 0, arm)
    assert kept.patch.digest() == trained(PLACEMENTS[arm]).digest()
    assert (kept.patch.release, kept.base) == (3, str(POCKET_V1_FOLDER))
    # the file holds a tied pair once: its bytes are the patch's and a header
    file = run / "patches" / arm / "0.safetensors"
    assert kept.patch.size_bytes < file.stat().st_size < kept.patch.size_bytes + 4096


def exported(run: Path, arm: str, into: Path) -> Path:
    assert main(["export", str(run), "--device", "0", "--arm", arm, "--into", str(into)]) == 0
    return into


def peft_logits(adapter: Path, tokens: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Logits of plain transformers and PEFT, which load the release and the export themselves."""
    base = LlamaForCausalLM.from_pretrained(POCKET_V1_FOLDER, dtype=dtype)
    model = PeftModel.from_pretrained(base, str(adapter), autocast_adapter_dtype=False)
    return model.eval().to(dtype)(input_ids=tokens).logits


def drawn_tokens() -> torch.Tensor:
    return torch.as_tensor(stream(0, Purpose.TUNING).integers(4, 1024, size=(2, 20)))


def pair_logits(patch: Patch, tokens: torch.Tensor) -> torch.Tensor:
    """Logits in fp64 of the patch as it was trained, a tied pair with the vectors of each site."""
    model = LlamaForCausalLM.from_pretrained(POCKET_V1_FOLDER, dtype=torch.float64)

    def hook(site: Site, scale: float, *arrays: np.ndarray) -> None:
        a, b, u, v = (torch.as_tensor(array).double() for array in arrays)

        def added(_: object, given: tuple[torch.Tensor], out: torch.Tensor) -> torch.Tensor:
            return out + scale * v * ((u * (given[0] @ a.t())) @ b.t())

        model.get_submodule(peft_name(site)).register_forward_hook(added)

    for site, item in patch.factors.items():
        hook(site, patch.scale(site), item.a, item.b, np.ones(len(item.a)), np.ones(len(item.b)))
    for tied in patch.ties:
        for site, (u, v) in tied.vectors.items():
            hook(site, tied.alpha / len(tied.pair.a), tied.pair.a, tied.pair.b, u, v)
    return model(input_ids=tokens).logits


@torch.no_grad()
@pytest.mark.parametrize("arm", PLACEMENTS)
def test_plain_peft_loads_the_export_and_gives_the_same_logits(
    run: Path, arm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    into = exported(run, arm, tmp_path / "adapter")
    assert capsys.readouterr().out.strip() == str(into.resolve())
    tokens, backbone = drawn_tokens(), load_backbone(POCKET_V1_FOLDER)
    plain = backbone.model(input_ids=tokens).logits
    with apply_adapters(backbone, stack_patches([trained(PLACEMENTS[arm]).untie()], backbone)):
        ours = backbone.model(input_ids=tokens).logits
    theirs = peft_logits(into, tokens, torch.float32)
    assert float((ours - plain).abs().max()) > 0.1
    # absolute, for logits up to 16 in fp32, whose neighbours are 1e-6 to 2e-6 apart: 5.7e-6 and
    # 4.8e-6 measured, as far as PEFT's own in fp32 are from those in fp64
    assert float((ours - theirs).abs().max()) <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize("arm", PLACEMENTS)
def test_the_export_is_the_trained_patch_to_the_rounding_of_its_factors(
    run: Path, arm: str, tmp_path: Path
) -> None:
    theirs = peft_logits(exported(run, arm, tmp_path / "adapter"), drawn_tokens(), torch.float64)
    ours = pair_logits(trained(PLACEMENTS[arm]), drawn_tokens())
    # in fp64 nothing is left but v * B * u, rounded to fp32 once; without ties not even that
    assert float((ours - theirs).abs().max()) <= (1e-5 if arm == "tied" else 1e-10)


def test_what_cannot_be_exported_is_said(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*more: str) -> str:
        assert main(["export", str(run), *more]) == 2
        return " ".join(capsys.readouterr().err.split())

    assert "patch of device 1 in patches/, got none" in said("--device", "1")
    assert "--arm must be one of plain, tied: all of them" in said("--device", "0")
    assert "--arm must be one of plain, tied, got 'x'" in said("--device", "0", "--arm", "x")
    (tmp_path / "adapter_config.json").write_text("{}")
    arguments = ("--device", "0", "--arm", "tied", "--into", str(tmp_path))
    assert "without adapter_config.json" in said(*arguments)


def test_an_export_is_the_same_bytes_every_time(run: Path, tmp_path: Path) -> None:
    one, two = (exported(run, "tied", tmp_path / name) for name in ("one", "two"))
    assert [file.read_bytes() for file in sorted(one.iterdir())] == [
        file.read_bytes() for file in sorted(two.iterdir())
    ]


@pytest.mark.parametrize("more", [(), ("--with-base",)])
def test_the_readme_of_an_export_runs_also_where_the_folder_was_moved(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["export", str(run), "--device", "0", "--arm", "plain", "--into", "adapter", *more]
    assert main(arguments) == 0
    text = (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")
    told = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    base = Path(config["base_model_name_or_path"])
    assert base == ((tmp_path / "adapter" / "base") if more else POCKET_V1_FOLDER)
    (tmp_path / "adapter").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    names: dict[str, object] = {}
    exec(told, names)
    assert isinstance(names["model"], PeftModel)


def test_an_export_without_its_release_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run / "patches" / "plain" / "0.safetensors"
    kept = read_patch(run, 0, "plain")
    lost = tmp_path / "lost"
    save_patch(KeptPatch(patch=kept.patch, base="gone"), "plain", 0, lost)
    assert file.exists()
    assert main(["export", str(lost), "--device", "0", "--into", str(tmp_path / "out")]) == 2
    assert "before make clean empties the store" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


@torch.no_grad()
@pytest.mark.parametrize("more", [(), ("--with-base",)])
def test_an_export_loads_by_its_name_alone_from_another_folder(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    into = tmp_path / "adapter"
    arguments = ["export", str(run), "--device", "0", "--arm", "plain", "--into", str(into)]
    assert main([*arguments, *more]) == 0
    away = tmp_path / "away"
    away.mkdir()
    monkeypatch.chdir(away)
    model = AutoPeftModelForCausalLM.from_pretrained(str(into), dtype=torch.float32)
    tokens = drawn_tokens()
    logits = model.eval()(input_ids=tokens).logits
    assert torch.equal(logits, peft_logits(into, tokens, torch.float32))
    assert AutoTokenizer.from_pretrained(str(into)).vocab_size == SHAPES.vocab


@torch.no_grad()
@pytest.mark.parametrize("arm", PLACEMENTS)
def test_a_merged_export_is_a_model_that_needs_neither_base_nor_peft(
    run: Path, arm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["export", str(run), "--device", "0", "--arm", arm]
    into = tmp_path / "merged"
    assert main([*arguments, "--into", str(into), "--merge"]) == 0
    adapter = exported(run, arm, tmp_path / "adapter")
    monkeypatch.chdir(tmp_path)
    tokens = drawn_tokens()
    merged = AutoModelForCausalLM.from_pretrained("merged")
    theirs = peft_logits(adapter, tokens, torch.float64)
    # the sum of weight and update is rounded to fp32 once, and so are all sums of a pass
    assert float((merged(input_ids=tokens).logits - theirs).abs().max()) <= 2e-5
    assert AutoTokenizer.from_pretrained("merged").vocab_size == SHAPES.vocab
    assert {file.suffix for file in into.iterdir()} == {".json", ".safetensors", ".md"}


def test_a_merged_export_takes_no_folder_that_holds_a_model(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text("{}")
    arguments = ["export", str(run), "--device", "0", "--arm", "plain", "--into", str(tmp_path)]
    assert main([*arguments, "--merge"]) == 2
    assert "without config.json" in capsys.readouterr().err
