"""A small catalogue on offer, with places and patches that are known by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from clients.start.placing import (
    Comparison,
)
from clients.work.facts import Facts
from fleettune.adapters.patch import Factors, Patch
from fleettune.catalogue.decomposition import Basis
from fleettune.catalogue.manifest import CatalogueManifest, Listed
from fleettune.catalogue.style_vectors import Stylometry, Summariser
from fleettune.cost.hardware import load_hardware
from fleettune.data.personas import SyntheticData
from fleettune.shapes import Site
from tests.clients.phone import RELEASE as POCKET

HARDWARE = Path(__file__).parents[3] / "conf" / "hardware"
WORLD = SyntheticData(users=10, exchanges_per_day=4, history_days=2).open()
RELEASE = replace(POCKET, digest="weights", size_bytes=1)
OWN = Comparison(exchanges=40, new_tokens=48, answers="own")
LIKE = replace(OWN, answers="like")
PLACES = np.array([[4.0, 0.0], [-4.0, 0.0], [0.0, 4.0], [0.0, -4.0]])


def manifest(
    places: np.ndarray = PLACES, summariser: Summariser | None = None
) -> CatalogueManifest:
    words = places.shape[1]
    return CatalogueManifest(
        release="weights",
        version=0,
        summariser=Stylometry() if summariser is None else summariser,
        basis=Basis(
            words=tuple(f"w{n}" for n in range(words)),
            opposites=tuple(f"o{n}" for n in range(words)),
            vectors=np.eye(words, 79 if summariser is None else 96),
        ),
        scale=np.ones(79 if summariser is None else 96),
        entries=tuple(
            Listed(name=f"e{n}", origin="corpus", digest=f"digest{n}", size_bytes=8)
            for n in range(len(places))
        ),
        coordinates=places,
        plain=("the {term}.",),
    )


def facts(number: int = 0) -> Facts:
    profile = load_hardware(HARDWARE)["oneplus_12r"]
    return Facts(device=number, user=number, seed=0, profile=profile)


def patch(value: float) -> Patch:
    item = Factors(a=np.full((2, 3), value, np.float32), b=np.ones((3, 2), np.float32))
    return Patch(release=0, alpha=2.0, factors={Site(0, "q"): item})
