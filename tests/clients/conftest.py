"""Two releases of the built-in model that all devices of these tests live with."""

from __future__ import annotations

import pytest

from fleettune.backbone.causal_lm import POCKET_V1_FOLDER
from fleettune.data.personas import SyntheticData
from fleettune.releases.manifest import Manifest
from strategies.releases.publisher import Publisher, SourceModel
from strategies.releases.schedule import ReleasePlan, Schedule
from strategies.releases.training import Vendor

PLAN = ReleasePlan(
    name="mild", kind="full", steps=2, learning_rate=3e-4, batch=2, window=16, conversations=50
)


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Manifest]:
    """The pocket model as it is, and a release trained from it."""
    world = SyntheticData(users=10, exchanges_per_day=3, history_days=2).open()
    publisher = Publisher(
        source=SourceModel(path=str(POCKET_V1_FOLDER), template="pocket", max_tokens=128),
        schedule=Schedule(every=1, plans=(PLAN,)),
        vendor=Vendor(
            store=tmp_path_factory.mktemp("store"), population=world, data="world", seed=0
        ),
    )
    return publisher.newest(0), publisher.newest(1)
