"""The groups of conf/: what each one chooses, in the words of conf/config.yaml, and its options.

The page of ``fleettune run --help`` lists them through a resolver, so that it names what is there.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files

from omegaconf import OmegaConf

RESOLVER = "option_groups"
"""``${option_groups:}`` in a configuration stands for the groups, as lines for a terminal."""

WIDTH = 80
_INDENT = 16
_GLUE = "\xa0"  # a space at which no line ends
_DEFAULT = re.compile(r"^  - (\w+): (\S+) # (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionGroup:
    """A folder of conf/ of which a run takes one file.

    Attributes:
        name: Name of the folder, and the key on a command line.
        default: The option that is taken if none is chosen; ``${model}``: named as the model.
        meaning: What the group chooses, in at most ten words.
    """

    name: str
    default: str
    meaning: str


def read_groups() -> tuple[OptionGroup, ...]:
    """Returns the groups in the order of the defaults list of conf/config.yaml."""
    text = (files("conf") / "config.yaml").read_text(encoding="utf-8")
    return tuple(
        OptionGroup(name=name, default=default, meaning=meaning)
        for name, default, meaning in _DEFAULT.findall(text)
    )


def format_groups(options_of: Callable[[str], Sequence[str]]) -> str:
    """Returns a paragraph per group: its name, what it chooses, and its options.

    Args:
        options_of: Returns the options of a group, in the order in which they are shown.
    """
    return "\n".join(_paragraph(group, options_of(group.name)) for group in read_groups())


def _paragraph(group: OptionGroup, options: Sequence[str]) -> str:
    shown = [f"{one}{_GLUE}(default)" if one == group.default else one for one in options]
    filled = textwrap.fill(
        f"{group.meaning}: {', '.join(shown)}",
        width=WIDTH,
        initial_indent=f"  {group.name}".ljust(_INDENT),
        subsequent_indent=" " * _INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filled.replace(_GLUE, " ")


def register_groups(options_of: Callable[[str], Sequence[str]]) -> None:
    """Makes ``${option_groups:}`` known to OmegaConf."""
    OmegaConf.register_new_resolver(RESOLVER, lambda: format_groups(options_of), replace=True)
