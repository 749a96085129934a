"""Roll-out: whether a first cohort gets a release before everybody, and what its reports foretell.

Here stand the rules, the stages of a release, and the forecast of a whole fleet with its intervals.
A stranger may add a rule: write it beside `Staged`, name it in `strategies.plan` and in
``conf/rollout``.
"""

from strategies.rollout.rules import Staged, Staging, Unstaged

__all__ = ["Staged", "Staging", "Unstaged"]
