"""Names of classes that a configuration gave before they moved."""

from __future__ import annotations

import importlib
import re

import pytest

from simulations.experiment.targets import build_target, find_new_home

EARLIER = {
    "clients.adaptation": "AlwaysRetune AlwaysReuse EdgeTuneReleased FleetOnly "
    "NeverPersonalise Retrieve UserPrior",
    "clients.baselines": "Oracle PerRelease Periodic RandomAtRate",
    "clients.canary": "Canary",
    "clients.catalogue_start": "Explained Rival Scratch",
    "clients.coresets": "Herding KCenter",
    "clients.edgetune": "EdgeTune",
    "clients.gradcut": "GradCut",
    "clients.gradcut_phases": "GradCutReleased",
    "clients.lora_drop": "LoraDrop",
    "clients.mixture_start": "Mixture",
    "clients.placement": "AttentionOnly EverySite TopLayers",
    "clients.quality": "Quality",
    "clients.same_profile": "RandomSameProfile",
    "clients.selection": "Fifo RandomReplace Reservoir",
    "clients.synthesis": "NoSynthesis SelfParaphrase TemplateRewrite",
    "fleettune.availability": "Always Nightly",
    "fleettune.backbone": "BackboneSource",
    "fleettune.codecs": "Fp16 Fp32 Int8 TopK",
    "fleettune.corpora": "CorporaData",
    "fleettune.hardware": "device_profile",
    "fleettune.personas": "SyntheticData",
    "fleettune.radio": "cellular wifi",
    "fleettune.streams": "StreamData",
    "fleettune.styles": "StyledData",
    "fleettune.tables": "TableData",
    "fleettune.traces": "Trace",
    "simulations.settings": "EngineSettings",
    "strategies.aggregation": "Stack",
    "strategies.catalogue_sources": "Uncatalogued",
    "strategies.catalogue_texts": "CorporaCatalogue StyleCatalogue",
    "strategies.clipping": "NormClip",
    "strategies.clustered": "ClusterCatalogue",
    "strategies.factor_averaging": "FactorMean ZeroPad",
    "strategies.ffa": "Ffa",
    "strategies.fixed": "Fixed",
    "strategies.guiding": "Fitted Unguided",
    "strategies.imported": "ImportedCatalogue",
    "strategies.robust": "MedianOfMeans TrimmedMean",
    "strategies.staging": "Staged Unstaged",
    "strategies.svd": "Svd",
}
"""Classes by the module that a configuration named before modules stood in rooms."""
PATHS = [f"{module}.{name}" for module, names in EARLIER.items() for name in names.split()]
LOADED_ELSEWHERE = ("device_profile", "wifi", "cellular")
"""Functions, not classes: their readers look at the name, or list the names that are known."""


def stands(path: str) -> bool:
    module, _, name = path.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), name)
    except ImportError:
        return False


@pytest.mark.parametrize("path", PATHS)
def test_an_earlier_name_is_one_still_or_leads_to_the_new_one(path: str) -> None:
    if stands(path):
        return
    home = find_new_home(path)
    assert home is not None
    assert stands(home)
    if path.endswith(LOADED_ELSEWHERE):
        return
    with pytest.raises(ValueError, match=re.escape(f"got '{path}': it is called {home} now")):
        build_target({"_target_": path}, "adaptation")


def test_a_class_of_the_users_own_has_no_home_here() -> None:
    assert find_new_home("my_rules.gone.AlwaysRetune") is None


def test_a_class_that_never_was_ours_has_no_home() -> None:
    assert find_new_home("clients.gradcut.Nonsense") is None
