"""The notebook over a run's rows runs from its first cell to its last, and shows what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "tutorials" / "rows.ipynb"
SMALL = "release.every=1 tuning.steps=4 tuning.steps_first=4 tuning.steps_again=4"


def read_notebook() -> Any:  # noqa: ANN401 - nbformat has no types
    return pytest.importorskip("nbformat").read(PAGE, as_version=4)


def test_the_notebook_is_small_and_holds_no_output() -> None:
    notebook = read_notebook()
    assert PAGE.stat().st_size < 10_000
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell for cell in cells if cell.outputs or cell.execution_count] == []


@pytest.mark.slow
def test_the_notebook_runs_over_the_run_that_it_asks_for(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    notebook = read_notebook()
    (command,) = (
        line.strip()
        for line in notebook.cells[0].source.splitlines()
        if line.startswith("    fleettune run ")
    )
    words = command.split()[1:] + SMALL.split()
    subprocess.run([sys.executable, "-m", "simulations", *words], cwd=tmp_path, check=True)
    client = nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    shown = [cell.outputs[-1].data for cell in notebook.cells if cell.cell_type == "code"]
    assert "always_retune" in shown[0]["text/plain"]
    (figure,) = (one for one in shown if "application/vnd.plotly.v1+json" in one)
    names = {curve["name"] for curve in figure["application/vnd.plotly.v1+json"]["data"]}
    assert {"always_retune", "edgetune"} <= names
    # half of 8 devices wrote little
    assert "4" in shown[3]["text/plain"]
    assert "mild" in shown[-1]["text/plain"]
