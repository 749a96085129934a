"""Data names: what reports call a run's data."""

from __future__ import annotations

from pathlib import Path

from fleettune.data.long_streams import StreamData
from fleettune.data.personas import SyntheticData
from fleettune.data.style_corpora import CorporaData
from fleettune.data.styles import StyledData
from fleettune.fleet.registry import FleetData


def data_name(data: FleetData) -> str:
    """Returns a short name."""
    if isinstance(data, SyntheticData):
        return "synthetic_null" if data.null else "synthetic"
    if isinstance(data, StreamData):
        return f"streams_{data.order}" + ("_null" if data.null else "")
    if isinstance(data, StyledData):
        between = "_between" if data.between else ""
        return f"synthetic_styled_{data.similarity:g}{between}"
    if isinstance(data, CorporaData):
        names = "_".join(corpus.name for corpus in data.text.files)
        return f"corpora_{data.similarity:g}_{names}"
    path = Path(data.path)
    return f"{path.parent.name}/{path.name}"
