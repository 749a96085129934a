"""Starter: writes a folder with an experiment that runs as it is and is there to be changed."""

from __future__ import annotations

import json
from importlib.resources import as_file, files
from pathlib import Path
from shutil import copytree

from fleettune.data.manners import MannersData

USERS = 24
"""Users of the file. Releases are trained on the text of a share of them."""
DAYS = 12
_WORLD = MannersData(spread=0.3, history_days=0)


def write_starter(folder: Path) -> Path:
    """Writes a policy, text, their options and a README into a new folder, and returns it.

    Args:
        folder: Where to write; it must not be there yet, or be empty.

    Raises:
        ValueError: If something lies there already; nothing is changed then.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"init needs a new or an empty folder, got {folder}; name another one")
    with as_file(files("simulations.starter") / "files") as source:
        copytree(source, folder, dirs_exist_ok=True)
    lines = [json.dumps(row) for row in _draw_rows()]
    (folder / "exchanges.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _draw_rows() -> list[dict[str, str | int]]:
    """Returns exchanges of the built-in world, in the columns of data=jsonl."""
    population = _WORLD.open()
    return [
        {
            "user_id": f"user_{user:02}",
            "order": exchange.order,
            "question": exchange.question,
            "response": exchange.response,
            "domain": exchange.domain,
        }
        for user in range(USERS)
        for day in range(DAYS)
        for exchange in population.day(user, day)
    ]
