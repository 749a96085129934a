"""What server and devices share of a catalogue: how styles become vectors, words and coordinates.

A stranger may read it. Another way to summarise answers is a `style_vectors.Summariser`, written
into `style_vectors.SUMMARISER_TYPES` and `strategies.catalogue.explain.SUMMARISERS`.
"""
