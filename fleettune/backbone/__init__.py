"""Backbone: frozen language models, and their layers forward and backward by hand.

`causal_lm` loads any Llama-like folder; the other modules are the mathematics of one layer and of
the vocabulary head. Leave it alone, but for `model_family` where a new family of models is to run.
"""

from fleettune.backbone.causal_lm import BackboneSource

__all__ = ["BackboneSource"]
