"""Deltas: what a trained patch changes, as the bytes that leave a device.

A codec writes the numbers, a frame adds header and digest, and a reader takes a frame or says in
one word why not. You may add a codec: copy `Fp16`, add its reader to `codecs`, and a YAML file to
``conf/codec/``.
"""

from fleettune.deltas.codecs import Fp16, Fp32, Int8, TopK

__all__ = ["Fp16", "Fp32", "Int8", "TopK"]
