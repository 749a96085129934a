"""Learning: from what devices report of their decisions to the guidance that releases come with.

Here stand reports and their sums, the fit of the retune score and what it rests on, and what is
known of one arm. A stranger may add a rule of guidance: write it beside `Fitted`, name it in
`strategies.plan` and in ``conf/guidance``. The sums must stay exact in any order of reports.
"""

from strategies.learning.guidance_rules import Fitted, Fixed, GuidanceRule, Unguided

__all__ = ["Fitted", "Fixed", "GuidanceRule", "Unguided"]
