"""The catalogue that a release comes with: where entries come from, and how they are explained.

A stranger may add a source of entries: copy `ImportedCatalogue`, follow
`strategies.catalogue.sources.EntrySource`, and write the class into `strategies.plan.CATALOGUES`.
"""

from strategies.catalogue.cluster_source import ClusterCatalogue
from strategies.catalogue.explain import Explain
from strategies.catalogue.peft_source import Adapter, ImportedCatalogue
from strategies.catalogue.sources import CatalogueSource, EntrySource, Uncatalogued
from strategies.catalogue.text_sources import CorporaCatalogue, StyleCatalogue

__all__ = [
    "Adapter",
    "CatalogueSource",
    "ClusterCatalogue",
    "CorporaCatalogue",
    "EntrySource",
    "Explain",
    "ImportedCatalogue",
    "StyleCatalogue",
    "Uncatalogued",
]
