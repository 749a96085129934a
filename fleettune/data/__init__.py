"""Where text comes from: populations of users, their exchanges, and exchanges as tokens.

A stranger may add a data source: copy `StyledData`, a frozen configuration whose `open` returns a
`fleettune.data.exchanges.Population`, and register it in `fleettune.fleet.registry.DATA_TYPES`.
"""

from fleettune.data.long_streams import StreamData
from fleettune.data.manners import MannersData
from fleettune.data.personas import SyntheticData
from fleettune.data.real_users import TableData
from fleettune.data.style_corpora import Corpora, CorporaData, Corpus
from fleettune.data.styles import Style, StyledData

__all__ = [
    "Corpora",
    "CorporaData",
    "Corpus",
    "MannersData",
    "StreamData",
    "Style",
    "StyledData",
    "SyntheticData",
    "TableData",
]
