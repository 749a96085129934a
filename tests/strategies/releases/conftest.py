"""A vendor that makes releases from text of users outside the fleet."""

from __future__ import annotations

import pytest

from fleettune.data.personas import SyntheticData
from strategies.releases.training import Vendor


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Vendor:
    store = tmp_path_factory.mktemp("store")
    return Vendor(store=store, population=SyntheticData().open(), data="world", seed=0)
