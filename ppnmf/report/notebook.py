"""How a posterior looks in a notebook: what it is, whether to trust it, and its components."""

from __future__ import annotations

from html import escape

from ppnmf.diagnostics.convergence import summary
from ppnmf.posterior import Posterior
from ppnmf.report.fitted import components_of, verdict_on
from ppnmf.report.html import block
from ppnmf.settings import own_settings

__all__ = ["notebook"]

COLOURS = {"good": "#0a7a4b", "bad": "#b3261e", "open": "#5f6368"}  # readable on white and on black


@own_settings()
def notebook(post: Posterior) -> str:
    """HTML without a style of its own, for the notebook's: a heading, the verdict in words and colour, the components."""
    kind, words, sentence = verdict_on(summary(post))
    verdict = (
        f'<div style="border-left: .3rem solid {COLOURS[kind]}; padding-left: .8rem"><b>{escape(words)}</b><br>'
        f"{escape(sentence)}</div>"
    )
    drawn = block(components_of(post)) if {"W", "H"} <= set(post.draws) else ""
    return f"<div><p><code>{escape(repr(post))}</code></p>{verdict}{drawn}</div>"
