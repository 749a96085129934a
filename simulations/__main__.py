"""``python -m simulations`` is the command ``fleettune``; the word ``run`` may be left away."""

from __future__ import annotations

import sys

from simulations.engines.environment import set_environment

set_environment()  # here, because worker processes import this module again

from simulations.cli import main  # noqa: E402 - the environment comes first

if __name__ == "__main__":
    sys.exit(main())
