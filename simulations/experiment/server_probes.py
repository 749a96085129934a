"""Server probes: which rankings arms ask for, and what making them asks of the server.

Counted as a device's probe is: a forward and a backward pass of every batch with adapters at all
sites, at the shapes that are priced.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from clients.placement.gradcut import GradCut
from clients.placement.random_profile import RandomSameProfile
from clients.policy import DevicePolicy
from fleettune.cost.pricing import PricedModel
from fleettune.cost.work import backward_work, forward_work
from fleettune.data.exchanges import Population
from fleettune.releases.site_ranking import ProbeRecipe
from fleettune.shapes import MODULES, Shapes, Site
from strategies.app import PROBES_FILE
from strategies.releases.ranking import BATCH, outside_exchanges

Arms = Mapping[str, DevicePolicy]


def recipe_of(policy: DevicePolicy) -> ProbeRecipe | None:
    """Returns the recipe by which a policy wants releases ranked; mostly None."""
    rule = policy.placement
    return rule.recipe if isinstance(rule, GradCut | RandomSameProfile) else None


def list_recipes(arms: Arms) -> tuple[ProbeRecipe, ...]:
    """Returns the recipes that arms ask for, each once, in the order of the arms."""
    found = (recipe_of(policy) for policy in arms.values())
    return tuple(dict.fromkeys(recipe for recipe in found if recipe is not None))


def check_text(arms: Arms, population: Population) -> None:
    """Raises ValueError if there is too little text of users outside the fleet to probe with."""
    for recipe in list_recipes(arms):
        outside_exchanges(population, recipe.batches * BATCH, 0)


def probe_flop(folder: Path, arms: Arms, own: Shapes, priced: PricedModel) -> dict[str, float]:
    """Returns the FLOP of the server's probes by arm, of those arms that use any.

    Arms are worlds of their own: each is counted the probes that it asked for.

    Args:
        folder: Of a run, where the server left what it probed.
        arms: The run's policies.
        own: Shapes of the simulated backbone.
        priced: Which model costs are counted for.
    """
    file = folder / PROBES_FILE
    if not file.is_file():
        return {}
    told = cast(list[dict[str, Any]], json.loads(file.read_text()))
    by_recipe: dict[ProbeRecipe, float] = {}
    for one in told:
        recipe = ProbeRecipe(**one["recipe"])
        flop = _flop(recipe.rank, one["batches"], own, priced)
        by_recipe[recipe] = by_recipe.get(recipe, 0.0) + flop
    recipes = {name: recipe_of(policy) for name, policy in arms.items()}
    return {name: by_recipe[recipe] for name, recipe in recipes.items() if recipe is not None}


def _flop(
    rank: int, batches: Sequence[Sequence[tuple[int, int]]], own: Shapes, priced: PricedModel
) -> float:
    sites = (Site(layer, module) for layer in range(own.layers) for module in MODULES)
    ranks = priced.ranks(own, dict.fromkeys(sites, rank))
    total = 0.0
    for batch in batches:
        lengths = priced.lengths([tokens for tokens, _ in batch])
        head = min(sum(lengths), priced.tokens(sum(supervised for _, supervised in batch)))
        for work in (forward_work, backward_work):
            total += work(priced.shapes(own), lengths, head, ranks).flop
    return total
