"""Synthesis: which training pairs a device makes from those it keeps, and which it trains on.

Here stand the protocol `Synthesis`, its rules, the rewording by template and the checks that every
made pair must pass. You may add a rule: copy `TemplateRewrite` in `rules.py`, then register your
class in `clients/policy.py` or install it as a policy of your own (`docs/example_policy`).
"""

from clients.synthesis.rules import NoSynthesis, SelfParaphrase, Synthesis, TemplateRewrite

__all__ = ["NoSynthesis", "SelfParaphrase", "Synthesis", "TemplateRewrite"]
