"""A report as Markdown (GitHub's, with its tables), for a repository or a notebook; its pictures lie in a folder beside it."""

from __future__ import annotations

import re
from functools import singledispatch
from urllib.parse import quote

from ppnmf.report.document import Alarm, Block, Cards, Code, Document, Items, Picture, Rows, Text, Verdict

__all__ = ["markdown", "plainly"]

SPECIAL = re.compile(r"[\\`*\[\]<>|~$#&]|(?<![^\W_])_|_(?![^\W_])")  # an underscore inside a word means nothing
MARKS = {"good": "✅", "bad": "❌", "open": "❔"}


def markdown(document: Document, folder: str) -> str:
    """The text. Each picture is linked as FOLDER/NAME.png; lines end as in a file."""
    parts = [f"# {plainly(document.title)}"]
    for section in document.sections:
        parts.append(f"## {plainly(section.title)}")
        parts += [_picture(each, folder) if isinstance(each, Picture) else _block(each) for each in section.blocks]
    return "\n\n".join(parts) + "\n"


def plainly(words: str) -> str:
    r"""Words in a line that Markdown shows as they are.

    >>> plainly("<script> in gene_3 | *B*")
    '\\<script\\> in gene_3 \\| \\*B\\*'
    """
    return SPECIAL.sub(lambda found: "\\" + found[0], " ".join(words.split()))


def _picture(this: Picture, folder: str) -> str:
    return f"![{plainly(this.words)}]({quote(f'{folder}/{this.name}.png')})"


@singledispatch
def _block(this: Block) -> str:
    raise TypeError(f"a report has no block like {this!r}")


@_block.register
def _(this: Text) -> str:
    return _words(this.words)


@_block.register
def _(this: Items) -> str:
    return "\n".join(f"- {_words(item)}" for item in this.items)


@_block.register
def _(this: Verdict) -> str:
    return f"> {MARKS[this.kind]} **{plainly(this.words)}** {_words(this.sentence)}"


@_block.register
def _(this: Rows) -> str:
    width = max(map(len, [this.heading, *this.rows]))
    heading = this.heading or ("",) * width
    rule = "| :--- |" + " ---: |" * (width - 1)
    return "\n".join([_line(heading), rule, *map(_line, this.rows)])


@_block.register
def _(this: Cards) -> str:
    titled = [(Alarm(card.title) if card.unsure else card.title, card.rows) for card in this.cards]
    return "\n\n".join(f"### {_words(title)}\n\n{_block(rows)}" for title, rows in titled)


@_block.register
def _(this: Code) -> str:
    longest = max(map(len, re.findall("`+", this.lines)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{this.lines}\n{fence}"


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(map(_words, cells)) + " |"


def _words(words: str) -> str:
    return f"**{plainly(words)}**" if isinstance(words, Alarm) else plainly(words)
