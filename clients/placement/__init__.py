"""Placement: which sites of the backbone get an adapter on this device.

Here stand the protocols of placement rules, the fixed placements, GradCut with what it measures and
computes, and a random draw to compare it with; `published/` holds forms of papers, kept for
comparison and not as advice. You may add a rule: copy `TopLayers` in `rules.py`, then register your
class in `clients/policy.py` or install it as a policy of your own (`docs/example_policy`).
"""

from clients.placement.gradcut import GradCut
from clients.placement.published.gradcut_released import GradCutReleased
from clients.placement.published.lora_drop import LoraDrop
from clients.placement.random_profile import RandomSameProfile
from clients.placement.rules import AttentionOnly, EverySite, PlacementRule, TopLayers

__all__ = [
    "AttentionOnly",
    "EverySite",
    "GradCut",
    "GradCutReleased",
    "LoraDrop",
    "PlacementRule",
    "RandomSameProfile",
    "TopLayers",
]
