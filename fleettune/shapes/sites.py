"""Sites: the weight matrices of a decoder layer that an adapter can change."""

from __future__ import annotations

from typing import NamedTuple

MODULES = ("q", "k", "v", "o", "gate", "up", "down")
"""Module types of a Llama-like layer, in the order in which a forward pass meets them."""


class Site(NamedTuple):
    """One weight matrix: its layer (0 is nearest the input) and its module type."""

    layer: int
    module: str

    def __str__(self) -> str:
        return f"{self.layer}.{self.module}"


def parse_site(text: str) -> Site:
    """Returns the site that `str(site)` wrote, for example ``3.q``.

    Raises:
        ValueError: If the text is not ``layer.module`` with a known module.
    """
    layer, _, module = text.partition(".")
    if not layer.isdecimal() or module not in MODULES:
        raise ValueError(f"a site must read layer.module with module in {MODULES}, got {text!r}")
    return Site(int(layer), module)


def order(site: Site) -> tuple[int, int]:
    """Returns the place of a site in a forward pass, for sorting."""
    return site.layer, MODULES.index(site.module)
