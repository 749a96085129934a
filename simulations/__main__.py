"""``python -m simulations``: one run, a sweep with ``-m``, a study with ``study=NAME``."""

from __future__ import annotations

import sys

from simulations.engines.environment import set_environment

set_environment()

from simulations.launch import launch  # noqa: E402 - the environment comes first

if __name__ == "__main__":
    sys.exit(launch(sys.argv[1:]))
