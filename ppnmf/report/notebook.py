"""How a posterior, or a table, looks in a notebook: what it is, whether to trust it, and what it shows."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from ppnmf.diagnostics.convergence import summary
from ppnmf.evidence.table import RankTable
from ppnmf.posterior import Posterior
from ppnmf.report.compared import compared
from ppnmf.report.comparison import Comparison
from ppnmf.report.document import Block, Code, Section, Verdict
from ppnmf.report.fitted import components_of, verdict_on
from ppnmf.report.html import block
from ppnmf.report.ranked import ranked
from ppnmf.settings import own_settings

__all__ = ["notebook"]

COLOURS = {"good": "#0a7a4b", "bad": "#b3261e", "open": "#5f6368"}  # readable on white and on black


@own_settings()
def notebook(about: Posterior | RankTable | Comparison) -> str:
    """HTML without a style of its own, for the notebook's: a heading, the verdict in words and colour, tables and pictures."""
    if isinstance(about, Posterior):
        judged = summary(about)
        blocks: list[Block] = [verdict_on(about.kind, judged.agree, judged.sentence)]
        blocks += [components_of(about)] if {"W", "H"} <= set(about.draws) else []
        return _within(f"<code>{escape(repr(about))}</code>", map(_shown, blocks))
    document = ranked(about) if isinstance(about, RankTable) else compared(about)
    return _within(f"<b>{escape(document.title)}</b>", map(_section, document.sections))


def _within(heading: str, parts: Iterable[str]) -> str:
    return f"<div><p>{heading}</p>{''.join(parts)}</div>"


def _section(section: Section) -> str:
    """A section without the lines that do it again, which stand above it in a notebook."""
    blocks = [each for each in section.blocks if not isinstance(each, Code)]
    return f"<p><b>{escape(section.title)}</b></p>" + "".join(map(_shown, blocks))


def _shown(this: Block) -> str:
    """A block whose colours need no style sheet."""
    if isinstance(this, Verdict):
        style = f"border-left: .3rem solid {COLOURS[this.kind]}; padding-left: .8rem; margin: .4rem 0"
        return f'<div style="{style}"><b>{escape(this.words)}</b><br>{escape(this.sentence)}</div>'
    return block(this).replace('<span class="alarm">', f'<span style="color: {COLOURS["bad"]}">')
