"""A run's patches as files, for other libraries and from them.

`peft` saves the patches that a finished run keeps, exports them as PEFT adapters and imports such
adapters; `edgetune` exports the three parts of EdgeTune's released code. A stranger may add a
format: copy `edgetune` and name it in ``--format`` of ``fleettune export``.
"""
