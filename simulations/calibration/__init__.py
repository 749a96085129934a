"""Published measurements restated, the fits made of them, and the oracles of the cost model."""
