"""Selection: which exchanges a device keeps under a byte quota, and which it asks its user about.

Here stand the protocol `Selection`, its rules, the buffer that they fill and the lexicons that two
of them read. You may add a rule: copy `Reservoir` in `rules.py`, then register your class in
`clients/policy.py` or install it as a policy of your own (`docs/example_policy`).
"""

from clients.selection.annotation import Annotation
from clients.selection.coresets import Herding, KCenter
from clients.selection.lexicon import Lexicon
from clients.selection.quality import QualityReplace
from clients.selection.rules import Fifo, RandomReplace, Reservoir, Selection

__all__ = [
    "Annotation",
    "Fifo",
    "Herding",
    "KCenter",
    "Lexicon",
    "QualityReplace",
    "RandomReplace",
    "Reservoir",
    "Selection",
]
