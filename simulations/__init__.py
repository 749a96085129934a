"""How a fleet is assembled, run, compared and reported."""
