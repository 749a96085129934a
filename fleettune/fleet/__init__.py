"""Fleet: which device has which hardware, user and habits, as a pure function of the seed.

Here stand when a device may work (`availability`, `recorded_traces`), which devices join later
(`joining`), and the registry that every device reads (`registry`). You may add a rule of
availability: copy `Always`, register it in `registry.FACT_TYPES`, and name it in a YAML file of
``conf/availability/``.
"""

from fleettune.fleet.availability import Always, Nightly
from fleettune.fleet.recorded_traces import Trace

__all__ = ["Always", "Nightly", "Trace"]
