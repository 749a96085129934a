"""What a first tune starts from: one module per rule, and what they share in `placing` and `rules`.

A stranger may add a rule: copy `Mixture`, whose `find` gets the device's own exchanges with the
catalogue on offer and returns a patch with what finding it asks of the device.
"""

from clients.start.mixture import Mixture
from clients.start.nearest_entry import NearestEntry
from clients.start.rivals import Rival
from clients.start.rules import FoundStart, Scratch, StartContext, StartRule

__all__ = [
    "FoundStart",
    "Mixture",
    "NearestEntry",
    "Rival",
    "Scratch",
    "StartContext",
    "StartRule",
]
