"""Scripts that make what a run only reads: models, files of text, and a score for a rule.

`pocket` trains the built-in model (``make pocket``), `smollm2` fetches SmolLM2-135M (``make
smollm2``), `real_streams` deals real text to made-up users, and `fixed_guidance` fits the score of
``guidance=fixed`` from finished runs. Nothing imports them; add a script of your own beside them.
"""
