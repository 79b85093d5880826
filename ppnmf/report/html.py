"""A report as one HTML page: no script, nothing that is fetched, readable on a phone, in the dark, and in print."""

from __future__ import annotations

import base64
from functools import singledispatch
from html import escape

from ppnmf.report.document import Alarm, Card, Cards, Code, Document, Items, Picture, Rows, Text, Verdict

__all__ = ["block", "html"]

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff; --pale: #e4e4e4;
  --good: #0a7a4b; --bad: #b3261e; --open: #5f6368; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --paper: #16181b; --pale: #33373c; --good: #4cc38a; --bad: #ff8a80; --open: #b0b4b9; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 62rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid var(--pale); }
.verdict { border-left: .4rem solid var(--open); padding: .5rem 1rem; background: color-mix(in srgb, var(--open) 8%, transparent); }
.verdict.good { border-color: var(--good); } .verdict.bad { border-color: var(--bad); } .verdict b { display: block; }
.verdict + .verdict { margin-top: .5rem; }
.verdict.good b { color: var(--good); } .verdict.bad b { color: var(--bad); }
.alarm { color: var(--bad); font-weight: 600; } ul { padding-left: 1.2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td:not(:first-child) { white-space: nowrap; } td:first-child { min-width: 5.5rem; }
th, td { text-align: right; padding: .15rem .7rem .15rem 0; } th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; height: auto; background: #fff; border-radius: .3rem; }
.components { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 1rem; }
.components section { border: 1px solid var(--pale); border-radius: .4rem; padding: .6rem .8rem; }
.components h3 { font-size: 1rem; margin: 0 0 .3rem; } .unsure h3 { color: var(--bad); }
pre { white-space: pre-wrap; background: var(--pale); padding: .7rem; border-radius: .3rem; }
@media print { body { max-width: none; } .components section { break-inside: avoid; } }
"""


def html(document: Document) -> str:
    """The page, pictures in it."""
    parts = []
    for section in document.sections:
        parts.append(f"<h2>{escape(section.title)}</h2>")
        parts += [block(each) for each in section.blocks]
    title, body = escape(document.title), "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style></head>\n"
        f"<body><h1>{title}</h1>\n{body}\n</body></html>\n"
    )


@singledispatch
def block(this: object) -> str:
    """A block as HTML, its words escaped."""
    raise TypeError(f"a report has no block like {this!r}")


@block.register
def _(this: Text) -> str:
    return f"<p>{_words(this.words)}</p>"


@block.register
def _(this: Items) -> str:
    return "<ul>" + "\n".join(f"<li>{_words(item)}</li>" for item in this.items) + "</ul>"


@block.register
def _(this: Verdict) -> str:
    return f'<div class="verdict {this.kind}"><b>{_words(this.words)}</b>{_words(this.sentence)}</div>'


@block.register
def _(this: Rows) -> str:
    lines = "\n".join(_line("td", row) for row in this.rows)
    if not this.heading:
        return f"<table>\n{lines}</table>"
    return f'<div class="wide"><table>{_line("th", this.heading)}\n{lines}</table></div>'


@block.register
def _(this: Cards) -> str:
    return f'<div class="components">{chr(10).join(map(_card, this.cards))}</div>'


@block.register
def _(this: Code) -> str:
    return f"<pre>{escape(this.lines)}</pre>"


@block.register
def _(this: Picture) -> str:
    data = base64.b64encode(this.png).decode("ascii")
    return f'<img alt="{escape(this.words)}" src="data:image/png;base64,{data}">'


def _card(card: Card) -> str:
    unsure = ' class="unsure"' if card.unsure else ""
    return f"<section{unsure}><h3>{_words(card.title)}</h3>{block(card.rows)}</section>"


def _line(tag: str, cells: tuple[str, ...]) -> str:
    return "<tr>" + "".join(f"<{tag}>{_words(cell)}</{tag}>" for cell in cells) + "</tr>"


def _words(words: str) -> str:
    return f'<span class="alarm">{escape(words)}</span>' if isinstance(words, Alarm) else escape(words)
