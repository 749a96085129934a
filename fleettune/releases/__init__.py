"""Releases: what a device is told of a version of the backbone, and never the weights.

A manifest holds the drift of every matrix since earlier versions, the deltas on offer, and the
server's guidance on reuse. You may read all of it in a rule; a new field belongs into `Manifest`
with a default, so that older manifests can still be read.
"""
