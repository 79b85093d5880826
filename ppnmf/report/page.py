"""One page about one posterior, in a file of its own: what was fitted, whether to trust it, what was found."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from ppnmf import __version__, plots
from ppnmf.diagnostics.convergence import Summary, summary
from ppnmf.disk import write_text
from ppnmf.plots import Panels
from ppnmf.posterior import Kind, Posterior
from ppnmf.required import require_posterior
from ppnmf.settings import own_settings
from ppnmf.tables import Table

__all__ = ["VERDICTS", "components_of", "page", "write_page"]

ENTRIES = 8  # of a component that are listed
CELLS = 50  # rows, and columns, of the cells that are checked
LEVEL = 0.9
VERDICTS = {
    True: ("good", "The chains agree."),
    False: ("bad", "Do not trust these numbers."),
    None: ("open", "Not judged."),
}
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
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
td:not(:first-child) { white-space: nowrap; }
th, td { text-align: right; padding: .15rem .7rem .15rem 0; } th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; height: auto; background: #fff; border-radius: .3rem; }
.components { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem; }
.components section { border: 1px solid var(--pale); border-radius: .4rem; padding: .6rem .8rem; }
.components h3 { font-size: 1rem; margin: 0 0 .3rem; } .unsure h3 { color: var(--bad); }
pre { white-space: pre-wrap; background: var(--pale); padding: .7rem; border-radius: .3rem; }
@media print { body { max-width: none; } .components section { break-inside: avoid; } }
"""


class _Section(NamedTuple):
    """A heading and what stands below it, as HTML."""

    title: str
    body: str


@own_settings()
def page(post: Posterior, picture: tuple[int, int] | None = None, order: str = "C") -> str:
    """The page as HTML: no script, nothing that is fetched, readable on a phone, in the dark, and in print.

    What was fitted and how; whether to trust it, in words; the components with their uncertainty; where the starts of the
    chains ended; how the fit predicts cells of X; convergence; the lines that do it again.

    Args:
        picture, order: shape of a row of X that is a picture, and how its pixels lie (`plots.components`).
    """
    require_posterior("page", post)
    judged = summary(post)
    sections = [
        _Section("Whether to trust it", _verdict(judged)),
        _Section("Components", _components(post, picture, order)),
        _Section("The data, and how they are predicted", _prediction(post)),
        *_where_starts_ended(post),
        _Section("Convergence", _convergence(post, judged)),
        _Section("To do it again", _again(post)),
    ]
    title = f"{post.model.name} by {post.method}, rank {post.model.rank}"
    body = "\n".join(f"<h2>{escape(section.title)}</h2>\n{section.body}" for section in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )


@own_settings()
def write_page(post: Posterior, path: str | Path, picture: tuple[int, int] | None = None, order: str = "C") -> Path:
    """Write the page to a file, whole or not at all. Raises OSError, in a sentence, when it cannot be written."""
    return write_text(Path(path), page(post, picture, order))


def _verdict(judged: Summary) -> str:
    kind, words = VERDICTS[judged.agree]
    return f'<div class="verdict {kind}"><b>{escape(words)}</b>{escape(judged.sentence)}</div>'


def _components(post: Posterior, picture: tuple[int, int] | None, order: str) -> str:
    table = post.components(level=LEVEL)
    drawn = components_of(post, picture, order)
    by_strength = np.argsort(-post.loadings().mean.sum(0), kind="stable")
    cards = "\n".join(_card(table, k, number) for number, k in enumerate(by_strength, 1))
    return (
        f"<p>Strongest first; each is scaled to sum to one. Bounds hold {LEVEL:.0%} of the draws. Congruence says how surely a "
        f'component is the same one in every draw; below 0.9 it is several.</p>\n{drawn}\n<div class="components">{cards}</div>'
    )


def components_of(post: Posterior, picture: tuple[int, int] | None = None, order: str = "C") -> str:
    """The picture of the components, as an `img` that needs no file, with its words."""
    words = _in_words(post.components(level=LEVEL))
    return _image(lambda: plots.components(post, picture, order), words)


def _card(table: Table, k: int, number: int) -> str:
    strongest = np.argsort(-table.mean[k], kind="stable")[:ENTRIES]
    rows = [
        (table.columns[j], f"{table.mean[k, j]:.3g}", f"{table.lower[k, j]:.3g} to {table.upper[k, j]:.3g}")
        for j in strongest
    ]
    unsure = ' class="unsure"' if table.congruence[k] < 0.9 else ""
    heading = escape(f"{number} ({table.rows[k]} of the tables), congruence {table.congruence[k]:.2f}")
    return f"<section{unsure}><h3>{heading}</h3>{_table(('entry', 'mean', 'bounds'), rows)}</section>"


def _prediction(post: Posterior) -> str:
    X = post.X
    N, D = X.shape
    hidden = N * D - X.n_observed
    facts = [
        ("shape", f"{N} × {D}"),
        ("missing cells", f"{hidden}"),
        ("mean of the observed", f"{X.mean():.4g}"),
        ("root mean squared error of the fit", f"{np.sqrt(post.squared_error() / X.n_observed):.4g}"),
    ]
    if post.kind is not Kind.MODES:
        facts.append((f"observed cells within their {LEVEL:.0%} predictive bounds", f"{_coverage(post):.1%}"))
    if post.kind is Kind.MODES:
        return _table(("", ""), facts)
    words = f"How many cells of X have each value, beside replicates of the fit: bands hold {LEVEL:.0%} of them"
    return _table(("", ""), facts) + "\n" + _image(lambda: plots.predictive(post), words)


def _coverage(post: Posterior) -> float:
    """The share of some observed cells that lie in their predictive intervals."""
    N, D = post.X.shape
    rows = sorted({round(i * (N - 1) / (CELLS - 1)) for i in range(CELLS)})
    columns = sorted({round(j * (D - 1) / (CELLS - 1)) for j in range(CELLS)})
    found = post.interval(rows=rows, columns=columns, level=LEVEL)
    parts = [post.X.part(range(i, i + 1)) for i in rows]
    values = np.concatenate([part.values[:, columns].cpu().numpy() for part in parts])
    seen = [np.ones((1, D), bool) if part.mask is None else part.mask.cpu().numpy() for part in parts]
    inside = (values >= found.lower) & (values <= found.upper)
    return float(inside[np.concatenate(seen)[:, columns]].mean())


def _where_starts_ended(post: Posterior) -> Iterable[_Section]:
    if post.survey is None:
        return []
    drawn = _image(lambda: plots.survey(post), str(post.survey))
    return [_Section("Where other starts ended", f"<p>{escape(str(post.survey))}</p>\n{drawn}")]


def _convergence(post: Posterior, judged: Summary) -> str:
    lines = str(judged).splitlines()[1:-1]
    drawn = ""
    if post.kind is Kind.CHAINS and post.n_draws > 1:
        drawn = _image(lambda: plots.traces(post), "Traces of the log joint density, and of what else is identified")
    if post.kind is Kind.CHAINS and post.chains > 1:
        drawn += "\n" + _image(lambda: plots.similarity(post), "How alike the components of the chains are, as cosines")
    return f'<div class="wide"><pre>{escape(chr(10).join(lines))}</pre></div>\n{drawn}'


def _again(post: Posterior) -> str:
    asked = ("draws", "warmup", "thin", "init", "until", "max_seconds", "restarts", "steps", "particles")
    options = "".join(f", {name}={post.attrs[name]!r}" for name in asked if post.attrs.get(name) is not None)
    if "draws" not in post.attrs and post.kind is not Kind.MODES:
        options = f", draws={post.n_draws}" + options
    chains = f", chains={post.chains}" if post.kind is Kind.CHAINS else ""
    lines = (
        f"# ppnmf {__version__}\nmodel = {post.model!r}\n"
        f"post = ppnmf.fit(model, X, method={post.method!r}{options}{chains}, seed={post.seed})"
    )
    seconds = post.timings.get("total")
    took = f"<p>It took {seconds:.1f} s.</p>" if seconds is not None else ""
    return f"<pre>{escape(lines)}</pre>{took}"


def _in_words(table: Table) -> str:
    """What stands in the picture of the components."""
    return "Components: " + "; ".join(str(table).splitlines())


def _image(draw: Callable[[], Axes | Panels], words: str) -> str:
    data = base64.b64encode(plots.png(draw())).decode("ascii")
    return f'<img alt="{escape(words)}" src="data:image/png;base64,{data}">'


def _table(heading: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heading) if any(heading) else ""
    lines = "\n".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>\n{lines}</table></div>' if head else f"<table>\n{lines}</table>"
