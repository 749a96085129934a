"""Options and keys of earlier versions are refused by one sentence that says where they went."""

from __future__ import annotations

import pytest

from simulations.experiment.removed import REMOVED, explain_removal
from simulations.launch import check_all


@pytest.mark.parametrize(
    ("overrides", "removed"),
    [
        (["start=bayesian"], "start/bayesian"),
        (["start=hyperband"], "start/hyperband"),
        (["arms=xpert_optuna"], "arms/xpert_optuna"),
        (["study=xpert_search"], "study/xpert_search"),
        (["study=reuse_worlds"], "study/reuse_worlds"),
        (["arms=rivals"], "arms/rivals"),
        (["release=study_mixed_v1"], "release/study_mixed_v1"),
        (["catalogue=styles", "start=catalogue", "start.keep=lighter"], "start.keep"),
        (["catalogue=styles", "start=nearest", "start.distance=relative"], "start.distance"),
        # as a configuration of one's own may add them
        (
            ["catalogue=styles", "start=nearest", "+start.distance=published"],
            "start.distance",
        ),
        (
            ["catalogue=styles", "+arms.x.start={_target_: clients.start.Mixture, keep: both}"],
            "start.keep",
        ),
        (
            ["catalogue=styles", "catalogue.explain.words=proposed"],
            "catalogue.explain.words",
        ),
        (
            ["catalogue=styles", "+catalogue.explain.decomposition=released"],
            "catalogue.explain.decomposition",
        ),
        (["adaptation=edgetune", "adaptation.defer=true"], "adaptation.defer"),
        (["adaptation=edgetune", "+adaptation.steps_max=9"], "adaptation.steps_max"),
        (
            [
                "+arms.x.adaptation={_target_: clients.adaptation.EdgeTuneReleased, kappa: 1.0,"
                " k_var: 1.0, steps_at_threshold: 2}"
            ],
            "adaptation.steps_at_threshold",
        ),
        (["placement=gradcut", "placement.probe=server"], "placement.probe"),
        (["placement=gradcut", "+placement.probe=server"], "placement.probe"),
        (["placement=random_same_profile", "+placement.like.probe=server"], "placement.like.probe"),
    ],
)
def test_what_was_removed_is_refused_with_where_it_went(overrides: list[str], removed: str) -> None:
    with pytest.raises(ValueError, match="was deleted") as caught:
        check_all(overrides, sweep=False)
    assert REMOVED[removed] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_error_about_something_else_is_left_as_it_is() -> None:
    assert explain_removal("start.keeper is not a known key; start has ['pick']") is None
    assert explain_removal("Could not find 'start/halvings'") is None
