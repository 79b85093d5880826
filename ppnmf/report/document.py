"""What a report says, whatever it is written as: sections of words, tables and pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from matplotlib.axes import Axes

from ppnmf import plots
from ppnmf.plots import Panels

__all__ = [
    "Alarm",
    "Block",
    "Card",
    "Cards",
    "Code",
    "Document",
    "Items",
    "Picture",
    "Rows",
    "Section",
    "Text",
    "Verdict",
]


class Alarm(str):
    """Words that must not be overlooked: red, or bold where there is no colour."""

    __slots__ = ()


class Text(NamedTuple):
    """A paragraph."""

    words: str


class Items(NamedTuple):
    """Sentences, each in a line of its own."""

    items: tuple[str, ...]


class Verdict(NamedTuple):
    """Whether to trust it: `kind` is "good", "bad" or "open", and gives the colour."""

    kind: str
    words: str
    sentence: str


class Rows(NamedTuple):
    """A table; its heading is empty where the first cell of each row says what the second is."""

    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Card(NamedTuple):
    """A small table with a title; `unsure` where the title is a warning."""

    title: str
    rows: Rows
    unsure: bool


class Cards(NamedTuple):
    """Cards, beside each other where there is room."""

    cards: tuple[Card, ...]


class Code(NamedTuple):
    """Lines as they are, in letters of one width."""

    lines: str


class Picture(NamedTuple):
    """A PNG file: its name without the suffix, what it shows in words, and its bytes."""

    name: str
    words: str
    png: bytes

    @classmethod
    def of(cls, name: str, words: str, draw: Callable[[], Axes | Panels]) -> Picture:
        """What a plot draws."""
        return cls(name, words, plots.png(draw()))


Block = Text | Items | Verdict | Rows | Cards | Code | Picture


class Section(NamedTuple):
    """A heading and what stands below it."""

    title: str
    blocks: tuple[Block, ...]


class Document(NamedTuple):
    """A title and sections."""

    title: str
    sections: tuple[Section, ...]

    @property
    def pictures(self) -> list[Picture]:
        """All pictures, in order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Picture)]
