"""Patches as files of other libraries, read and written without a pickle: PEFT's LoRA folders.

A stranger may add a format: copy `peft` and offer it in ``fleettune export``.
"""
