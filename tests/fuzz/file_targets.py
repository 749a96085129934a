"""Decoders of files: of users, of other programs, and of a run's own folder."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import pyarrow
import yaml
from pyarrow import parquet
from safetensors.numpy import save

from clients.selection.lexicon import lexicon_text
from fleettune.adapters.patch import to_arrays, to_peft
from fleettune.adapters.patch_files import read_peft
from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, read_shapes
from fleettune.cohort.model_check import check_tokenizer
from fleettune.cost.hardware import FleetMix, load_hardware
from fleettune.data.personas import SyntheticData
from fleettune.data.real_users import TableData
from fleettune.data.style_corpora import Corpora, Corpus, _read
from fleettune.data.tokens import open_encoder
from fleettune.deltas.frames import write_frame
from fleettune.fleet.recorded_traces import Trace, _behaviours
from fleettune.fleet.registry import Fleet, open_fleet
from fleettune.releases.model_files import open_weights, weights_at
from fleettune.shapes import Site
from simulations.adapter_formats.peft import read_fleet_patch, read_patch
from simulations.calibration.fit_profile import calibrate, max_error
from simulations.calibration.power_log import read_power_log
from simulations.checkpoint.inputs import INPUTS, find_changed
from simulations.checkpoint.resume import restore_overrides
from simulations.checkpoint.versions import versions
from simulations.experiment.lexicons import find_lexicons, write_lexicons
from simulations.experiment.question_lists import list_questions
from strategies.app import FLEET, FLEET_BASES
from strategies.plan import Arm, Plan, read_plan
from strategies.releases.publisher import SourceModel
from strategies.releases.schedule import ReleasePlan, Schedule
from strategies.releases.store import RECORD, _record_digest, find_release, make_release
from strategies.rounds.sampling import Uniform
from tests.fuzz.mutator import Parts
from tests.fuzz.targets import Target, UnsendableError, dumped, laid_out
from tests.fuzz.wire_targets import SHAPES, some_patch

HARDWARE = Path(__file__).parents[2] / "conf" / "hardware"
_ROWS: list[dict[str, Any]] = [
    {
        "user_id": f"u{number % 3}",
        "order": number,
        "question": f"how was day {number}?",
        "response": ("good", "bad", "so so")[number % 3],
        "domain": "mood",
        "valence": number % 3,
    }
    for number in range(12)
]
_TIMED = [{**row, "timestamp": f"2024-05-{row['order'] + 1:02d}T07:00:00+02:00"} for row in _ROWS]
_LINES = b"\n".join(dumped(row) for row in _ROWS)
_TIMED_LINES = b"\n".join(dumped(row) for row in _TIMED)
_DEVICE = "phone"


def _table(path: Path, format_: str) -> object:
    data = TableData(
        path=str(path),
        format=format_,
        labels="auto",
        exchanges_per_day=1,
        history_days=1,
        min_exchanges=1,
        outside_share=0.0,
        max_chars=50,
    )
    return data.open().day(0, 0)


def _written(file: Path, data: bytes) -> Path:
    file.write_bytes(data)
    return file


def _jsonl(parts: Parts, folder: Path) -> object:
    return _table(_written(folder / "rows.jsonl", parts["rows.jsonl"]), "jsonl")


_PACKERS: Mapping[str, Callable[[bytes], bytes]] = {
    ".gz": lambda data: gzip.compress(data, 1, mtime=0),
    ".zst": lambda data: pyarrow.Codec("zstd").compress(data, asbytes=True),
}


def _packed_seeds() -> list[Parts]:
    """Returns rows to be compressed after a mutation, and rows that were before it."""
    plain = [{f"plain{ending}.jsonl": _LINES} for ending in _PACKERS]
    return [*plain, *({f"rows.jsonl{ending}": pack(_LINES)} for ending, pack in _PACKERS.items())]


def _bombs() -> list[Parts]:
    """Returns kilobytes that stand for 64 MB: blanks, one long text, and the same row again."""
    size = 64_000_000
    plain = (b" " * size, b'{"a":"' + b"a" * size, _LINES + b"\n" * size)
    return [
        {f"rows.jsonl{ending}": pack(data)} for data in plain for ending, pack in _PACKERS.items()
    ]


def _packed(parts: Parts, folder: Path) -> object:
    ((name, data),) = parts.items()
    if name.startswith("plain"):
        ending = Path(name).stem.removeprefix("plain")
        name, data = f"rows.jsonl{ending}", _PACKERS[ending](data)
    return _table(_written(folder / name, data), "jsonl")


def _parquet_bytes(frame: pl.DataFrame, **how: Any) -> bytes:  # noqa: ANN401 - pyarrow's
    into = io.BytesIO()
    parquet.write_table(frame.to_arrow(), into, **how)
    return into.getvalue()


def _parquet_seeds() -> list[Parts]:
    timed = pl.DataFrame(_TIMED).with_columns(pl.col("timestamp").str.to_datetime(time_zone="UTC"))
    frames = (
        _parquet_bytes(pl.DataFrame(_ROWS)),
        _parquet_bytes(timed, compression="zstd"),
        _parquet_bytes(pl.DataFrame(_ROWS), compression="none", use_dictionary=False),
        _parquet_bytes(pl.DataFrame(_ROWS), data_page_version="2.0", row_group_size=4),
    )
    return [{"rows.parquet": data} for data in frames]


def _parquet(parts: Parts, folder: Path) -> object:
    return _table(_written(folder / "rows.parquet", parts["rows.parquet"]), "parquet")


def _corpus_seeds() -> list[Parts]:
    return [
        {"corpus.jsonl": _LINES, "corpus.parquet": data["rows.parquet"]}
        for data in _parquet_seeds()
    ]


def _corpus(parts: Parts, folder: Path) -> object:
    laid_out(parts, folder)
    files = tuple(
        Corpus(name=name, path=str(folder / name), domain="mood")
        for name in ("corpus.jsonl", "corpus.parquet")
    )
    _read.cache_clear()
    text = Corpora(files=files)
    # a mutation is of one of the files, mostly
    return [text.read(corpus.name, users=True) for corpus in files]


def _trace_seeds() -> list[Parts]:
    client = {"active": [100, 44_000], "inactive": [9_000, 70_000.5], "finish_time": 86_400}
    events = [f"2020-01-0{day} 2{hour}:00:00" for day in (1, 2) for hour in range(4)]
    states = ("screen_lock", "wifi", "battery_charged_on", "70.0%") * 2
    flash = "\n".join(f"{at}\t{state}" for at, state in zip(events, states, strict=True))
    rows = "client,active,inactive,finish_time\n0,100 44000,9000 70000,86400\n1,5,6,7\n"
    return [
        {"fedscale.json": dumped({"0": client, "1": client})},
        {"fedscale.csv": rows.encode()},
        {"flash.json": dumped({"guid": {"messages": flash}})},
    ]


def _trace(parts: Parts, folder: Path) -> object:
    ((name, data),) = parts.items()
    file = _written(folder / name, data)
    _behaviours.cache_clear()
    trace = Trace(path=str(file), format=name.partition(".")[0], soc=0.5, begins_h=12)
    return [trace.window(0, device, night) for device in (0, 1) for night in (0, 1, 400)]


def _log_seeds() -> list[Parts]:
    phases = ("idle", "train", "idle", "decode", "receive", "forward", "backward", "send")
    lines = ["time_s,power_w,phase,flop,tokens,model,bytes"]
    for time_s, phase in enumerate([*phases * 4, "idle"]):
        moves = phase in ("decode", "receive", "send")
        power_w, work = (1, "") if phase == "idle" else (3, "" if moves else "5e9")
        lines.append(f"{time_s},{power_w},{phase},{work},,,{'1e8' if moves else ''}")
    tokens = [*lines[:3], "90,2,train,,100,pocket,", "91,2,decode,,9,pocket,", "92,1,idle,,,,"]
    return [{"log.csv": "\n".join(rows).encode()} for rows in (lines, tokens)]


def _log(parts: Parts, folder: Path) -> object:
    found = calibrate(read_power_log(_written(folder / "log.csv", parts["log.csv"])))
    return found.residuals and max_error(found.residuals)


def _profile_seeds() -> list[Parts]:
    text = (HARDWARE / "pixel_7.yaml").read_bytes().replace(b"pixel_7", _DEVICE.encode())
    return [
        {f"{_DEVICE}.yaml": text},
        {f"{_DEVICE}.yaml": dumped(yaml.safe_load(text))},
    ]


def _peft_seeds() -> list[Parts]:
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": "base",
        "r": 2,
        "lora_alpha": 4,
        "rank_pattern": {},
        "alpha_pattern": {r"model.layers.\d+.mlp.down_proj": 8},
        "target_modules": ["q_proj", "down_proj"],
        "use_rslora": False,
    }
    return [
        {
            "adapter_config.json": dumped({**config, **more}),
            "adapter_model.safetensors": save(to_peft(some_patch())),
        }
        for more in ({}, {"use_rslora": True, "rank_pattern": {"q_proj": 2}})
    ]


def _lexicon_seeds() -> list[Parts]:
    corpus = b"\n".join(
        dumped({"label": label, "text": f"{word} {word} day"})
        for label, word in (("home", "sofa"), ("work", "desk")) * 60
    )
    words = (Path(__file__).parents[2] / "conf" / "lexicons" / "everyday.txt").read_bytes()
    return [{"words.txt": words[:2_000], "corpus.jsonl": corpus}]


def _lexicons(parts: Parts, folder: Path) -> object:
    laid_out(parts, folder)
    (folder / "new.txt").unlink(missing_ok=True)
    found = find_lexicons(str(folder / "words.txt"))
    write_lexicons(folder / "corpus.jsonl", "label", ["text"], 5, folder / "new.txt")
    return lexicon_text(found, "again")


def _fleet_seeds() -> list[Parts]:
    profile = load_hardware(HARDWARE)["pixel_7"]
    mix = FleetMix(name="mix", parts=((profile, 1.0), (profile, 2.0)))
    return _saved(Fleet(seed=1, mix=mix, data=SyntheticData(users=3)).write, "fleet.json")


def _plan_seeds() -> list[Parts]:
    release = ReleasePlan(
        name="mild", kind="full", steps=2, learning_rate=3e-4, batch=2, window=16, conversations=50
    )
    plan = Plan(
        seed=1,
        rounds=2,
        devices=3,
        arms=(Arm(name="a", policy="{}"),),
        source=SourceModel(path="pocket", template="pocket", max_tokens=64),
        schedule=Schedule(every=1, plans=(release,)),
        sampling=Uniform(sampled=2),
        data=SyntheticData(users=3),
        store="store",
        observe=True,
    )
    return _saved(plan.write, "plan.json")


def _saved(write: Callable[[Path], None], name: str) -> list[Parts]:
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write(folder / name)
        return [{name: (folder / name).read_bytes()}]


def _fleet(parts: Parts, folder: Path) -> object:
    open_fleet.cache_clear()
    known = open_fleet(_written(folder / "fleet.json", parts["fleet.json"]))
    return known.fleet.profile(5), known.population.users


def _plan(parts: Parts, folder: Path) -> object:
    plan = read_plan(_written(folder / "plan.json", parts["plan.json"]))
    return plan.policies()


def _model_seeds() -> list[Parts]:
    """Returns a model of one small layer: in one file, and in shards with an index."""
    config = json.loads((POCKET_V1_FOLDER / "config.json").read_text())
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 4}
    config |= sizes | {"num_key_value_heads": 1, "intermediate_size": 12}
    tensors = {
        f"model.layers.0.{parent}.{module}_proj.weight": np.ones((n_out, n_in), np.float16)
        for module, (n_in, n_out) in SHAPES.matrices().items()
        for parent in ("self_attn" if module in "qkvo" else "mlp",)
    }
    first = dict(list(tensors.items())[:3])
    rest = {name: array for name, array in tensors.items() if name not in first}
    shards = {"a.safetensors": save(first), "b.safetensors": save(rest)}
    index = dict.fromkeys(first, "a.safetensors") | dict.fromkeys(rest, "b.safetensors")
    return [
        {"config.json": dumped(config), "model.safetensors": save(tensors)},
        {
            "config.json": dumped(config),
            "model.safetensors.index.json": dumped({"metadata": {}, "weight_map": index}),
            **shards,
        },
    ]


def _model(parts: Parts, folder: Path) -> object:
    inside = _emptied(folder / "model")
    laid_out(parts, inside)
    read_shapes.cache_clear()
    shapes = read_shapes(inside)
    with open_weights(inside) as tensors:
        sizes = {name: tensors.shape(name) for name in tensors.keys()}  # noqa: SIM118
    return sizes, list(weights_at(inside, (Site(0, module) for module in shapes.matrices())))


def _emptied(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    return folder


def _tokenizer_seeds() -> list[Parts]:
    told = json.loads((POCKET_V1_FOLDER / "tokenizer.json").read_text())
    model = told["model"]
    few = [merge for merge in model["merges"] if len("".join(merge)) <= 2][:5]
    words = {word for word in model["vocab"] if len(word) == 1} | {"".join(merge) for merge in few}
    words |= {token["content"] for token in told["added_tokens"]}
    model["merges"] = few
    model["vocab"] = {word: number for word, number in model["vocab"].items() if word in words}
    return [{"tokenizer.json": dumped(told)}]


def _tokenizer(parts: Parts, folder: Path) -> object:
    laid_out(parts, folder)
    open_encoder.cache_clear()
    encoder = open_encoder(folder, "pocket", 64)
    check_tokenizer(encoder, folder, read_shapes(POCKET_V1_FOLDER))
    return encoder.text(encoder.ids("Hello, what is new?"))


def _record_seeds() -> list[Parts]:
    """Returns a release in the store, and one whose record is signed after its mutation."""
    with TemporaryDirectory() as scratch:
        made = Path(scratch) / "release"
        record = make_release(made, _small_release)
        files = {file.name: file.read_bytes() for file in made.iterdir()}
    unsigned = {name: data for name, data in files.items() if name != RECORD}
    return [files, {"record.json": dumped(record), **unsigned}]


def _small_release(folder: Path) -> Mapping[str, Any]:
    config = (POCKET_V1_FOLDER / "config.json").read_bytes()
    weights = save({"x": np.ones(3, np.float32)})
    laid_out({"config.json": config, "model.safetensors": weights}, folder)
    return {"loss": 0.1}


def _record(parts: Parts, folder: Path) -> object:
    inside = _emptied(folder / "release")
    laid_out({name: data for name, data in parts.items() if name != "record.json"}, inside)
    if "record.json" in parts:
        try:
            record = json.loads(parts["record.json"])
            held = {"sha256": _record_digest(record), "record": record}
            (inside / RECORD).write_bytes(dumped(held))
        except Exception as error:
            raise UnsendableError from error
    return find_release(inside)


def _kept_seeds() -> list[Parts]:
    told = {"alpha": 4.0, "release": 1, "base": "base"}
    patch = some_patch(tied=True)
    return [
        {
            "0.safetensors": save(to_arrays(patch), metadata={"fleettune": json.dumps(told)}),
            "fleet_patch_a.safetensors": write_frame(patch),
            "fleet_patch_bases.json": dumped({"a": "base"}),
        }
    ]


def _kept(parts: Parts, folder: Path) -> object:
    inside = folder / "patches" / "a"
    inside.mkdir(parents=True, exist_ok=True)
    (inside / "0.safetensors").write_bytes(parts["0.safetensors"])
    (folder / f"{FLEET}a.safetensors").write_bytes(parts["fleet_patch_a.safetensors"])
    (folder / FLEET_BASES).write_bytes(parts["fleet_patch_bases.json"])
    return read_patch(folder, 0, None), read_fleet_patch(folder, None)


def _resume_seeds() -> list[Parts]:
    command = ["run.seed=1", "fleet.devices=3", "arms=standard"]
    return [
        {
            "command.json": dumped(command),
            "versions.json": dumped(versions()),
            "config.yaml": b"seed: 1\n",
            "inputs.json": dumped({"files": {"a.jsonl": "d" * 64}, "modules": {}}),
        }
    ]


def _resume(parts: Parts, folder: Path) -> object:
    (folder / "checkpoint").mkdir(exist_ok=True)
    (folder / "checkpoint" / "command.json").write_bytes(parts["command.json"])
    (folder / "versions.json").write_bytes(parts["versions.json"])
    (folder / "config.yaml").write_bytes(parts["config.yaml"])
    (folder / INPUTS).write_bytes(parts["inputs.json"])
    return restore_overrides([f"resume={folder}"], sweep=False), find_changed(folder, [])


FILES: Mapping[str, Target] = {
    "rows as JSON Lines": Target(
        seeds=lambda: [{"rows.jsonl": _LINES}, {"rows.jsonl": _TIMED_LINES}], decode=_jsonl
    ),
    "rows compressed": Target(seeds=_packed_seeds, decode=_packed, hard=_bombs),
    "rows as Parquet": Target(seeds=_parquet_seeds, decode=_parquet),
    "corpora": Target(seeds=_corpus_seeds, decode=_corpus),
    "traces": Target(seeds=_trace_seeds, decode=_trace),
    "power logs": Target(seeds=_log_seeds, decode=_log),
    "profiles": Target(
        seeds=_profile_seeds, decode=lambda parts, folder: load_hardware(laid_out(parts, folder))
    ),
    "lexicons": Target(seeds=_lexicon_seeds, decode=_lexicons),
    "question lists": Target(
        seeds=lambda: [{"questions.txt": b"# two\nhow are you?\n\nwhat is new?\n"}],
        decode=lambda parts, folder: list_questions(
            str(_written(folder / "questions.txt", parts["questions.txt"]))
        ),
    ),
    "PEFT adapters": Target(
        seeds=_peft_seeds,
        decode=lambda parts, folder: read_peft(laid_out(parts, folder), 1, SHAPES),
    ),
    "models": Target(seeds=_model_seeds, decode=_model),
    "tokenizers": Target(seeds=_tokenizer_seeds, decode=_tokenizer),
    "release records": Target(seeds=_record_seeds, decode=_record),
    "fleet files": Target(seeds=_fleet_seeds, decode=_fleet),
    "plan files": Target(seeds=_plan_seeds, decode=_plan),
    "kept patches": Target(seeds=_kept_seeds, decode=_kept),
    "resumed runs": Target(seeds=_resume_seeds, decode=_resume),
}
