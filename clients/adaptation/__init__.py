"""Adaptation: on a new release, does a device reuse its patch or tune it anew?

Here stand what a rule is and what it may look at (`protocol`, `device_view`), what it says
(`decision`), and the rules: constant ones and EdgeTune's released form in `rules`, ours in
`edgetune`, `canary` and `drift`, what they must beat in `baselines` and `copying`. You may add a
rule: copy `AlwaysReuse`, and say in its `traits` if it retrieves, answers without the model, takes
the fleet patch or needs a view of the device. Register it in `clients/policy.py`, or install it as
a policy of your own (`docs/example_policy`).
"""

from clients.adaptation.baselines import Oracle, Periodic, PerRelease, RandomAtRate
from clients.adaptation.canary import Canary
from clients.adaptation.copying import CopyNearest
from clients.adaptation.decision import Action, Decision
from clients.adaptation.device_view import DeviceView
from clients.adaptation.edgetune import EdgeTune
from clients.adaptation.protocol import (
    Adaptation,
    AdaptationRule,
    DeviceRule,
    KeptOut,
    LookAhead,
    RuleTraits,
    traits_of,
)
from clients.adaptation.rules import (
    AlwaysRetune,
    AlwaysReuse,
    EdgeTuneReleased,
    FleetOnly,
    NeverPersonalise,
    Retrieve,
    Swapped,
    UserPrior,
)

__all__ = [
    "Action",
    "Adaptation",
    "AdaptationRule",
    "AlwaysRetune",
    "AlwaysReuse",
    "Canary",
    "CopyNearest",
    "Decision",
    "DeviceRule",
    "DeviceView",
    "EdgeTune",
    "EdgeTuneReleased",
    "FleetOnly",
    "KeptOut",
    "LookAhead",
    "NeverPersonalise",
    "Oracle",
    "PerRelease",
    "Periodic",
    "RandomAtRate",
    "Retrieve",
    "RuleTraits",
    "Swapped",
    "UserPrior",
    "traits_of",
]
