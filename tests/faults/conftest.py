"""The run that nothing happens to, which all others are held against."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.forked_runs import WITH_FLEET, results_of, warm_up


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with that run and its store; what it imported is imported here from now on."""
    folder = tmp_path_factory.mktemp("undisturbed")
    warm_up(folder, WITH_FLEET)
    return folder


@pytest.fixture(scope="session")
def whole(undisturbed: Path) -> dict[str, str]:
    """The digests of its results."""
    return results_of(undisturbed)
