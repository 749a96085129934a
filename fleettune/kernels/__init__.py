"""Kernels: K devices' adapters side by side on one frozen backbone, and one training pass of them.

Here stand the stacked factors, the rows of a step, the pass with its gradients, the cache of the
layers below, and AdamW per device. Leave it alone: the loops are written for speed, and
``tests/parity/`` compares them with PEFT.
"""
