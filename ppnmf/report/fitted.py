"""What a report says about one posterior: what was fitted, whether to trust it, what was found."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ppnmf import __version__, plots
from ppnmf.diagnostics.convergence import Summary, summary
from ppnmf.posterior import Kind, Posterior
from ppnmf.report.document import Block, Card, Cards, Code, Document, Picture, Rows, Section, Text, Verdict
from ppnmf.tables import Table

__all__ = ["components_of", "fitted", "verdict_on"]

ENTRIES = 8  # of a component that are listed
CELLS = 50  # rows, and columns, of the cells that are checked
LEVEL = 0.9
SURE = 0.9  # congruence below which a component is several
VERDICTS = {
    True: ("good", "The chains agree."),
    False: ("bad", "Do not trust these numbers."),
    None: ("open", "Not judged."),
}


def fitted(post: Posterior, picture: tuple[int, int] | None = None, order: str = "C") -> Document:
    """The report about a posterior; `picture` and `order` as of `report.page`."""
    judged = summary(post)
    sections = [
        Section("Whether to trust it", (verdict_on(judged.agree, judged.sentence),)),
        Section("Components", tuple(_components(post, picture, order))),
        Section("The data, and how they are predicted", tuple(_prediction(post))),
        *_where_starts_ended(post),
        Section("Convergence", tuple(_convergence(post, judged))),
        Section("To do it again", tuple(_again(post))),
    ]
    return Document(f"{post.model.name} by {post.method}, rank {post.model.rank}", tuple(sections))


def verdict_on(agree: bool | None, sentence: str, whose: str = "") -> Verdict:
    """Whether to trust a posterior, by what its summary says; `whose` begins the words where there are several."""
    kind, words = VERDICTS[agree]
    return Verdict(kind, f"{whose}: {words}" if whose else words, sentence)


def components_of(post: Posterior, picture: tuple[int, int] | None = None, order: str = "C") -> Picture:
    """The picture of the components; what stands in it, in words."""
    words = "Components: " + "; ".join(str(post.components(level=LEVEL)).splitlines())
    return Picture.of("components", words, lambda: plots.components(post, picture, order))


def _components(post: Posterior, picture: tuple[int, int] | None, order: str) -> Iterator[Block]:
    table = post.components(level=LEVEL)
    yield Text(
        f"Strongest first; each is scaled to sum to one. Bounds hold {LEVEL:.0%} of the draws. Congruence says how surely a "
        f"component is the same one in every draw; below {SURE} it is several."
    )
    yield components_of(post, picture, order)
    yield Cards(tuple(_card(table, k) for k in range(len(table.rows))))


def _card(table: Table, k: int) -> Card:
    strongest = np.argsort(-table.mean[k], kind="stable")[:ENTRIES]
    rows = [
        (table.columns[j], f"{table.mean[k, j]:.3g}", f"{table.lower[k, j]:.3g} to {table.upper[k, j]:.3g}")
        for j in strongest
    ]
    title = f"{table.rows[k]}, congruence {table.congruence[k]:.2f}"
    return Card(title, Rows(("entry", "mean", "bounds"), tuple(rows)), bool(table.congruence[k] < SURE))


def _prediction(post: Posterior) -> Iterator[Block]:
    X = post.X
    N, D = X.shape
    if "data" in post.attrs:
        yield Text(str(post.attrs["data"]))
    facts = [
        ("shape", f"{N} × {D}"),
        ("missing cells", f"{N * D - X.n_observed}"),
        ("mean of the observed", f"{X.mean():.4g}"),
        ("root mean squared error of the fit", f"{np.sqrt(post.squared_error() / X.n_observed):.4g}"),
    ]
    if post.kind is Kind.MODES:
        yield Rows((), tuple(facts))
        return
    facts.append((f"observed cells within their {LEVEL:.0%} predictive bounds", f"{_coverage(post):.1%}"))
    yield Rows((), tuple(facts))
    words = f"How many cells of X have each value, beside replicates of the fit: bands hold {LEVEL:.0%} of them"
    yield Picture.of("predictive", words, lambda: plots.predictive(post))


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


def _where_starts_ended(post: Posterior) -> list[Section]:
    if post.survey is None:
        return []
    words = str(post.survey)
    drawn = Picture.of("survey", words, lambda: plots.survey(post))
    return [Section("Where other starts ended", (Text(words), drawn))]


def _convergence(post: Posterior, judged: Summary) -> Iterator[Block]:
    heading, rows, left = judged.shown()
    yield Rows(heading, rows)
    if left:
        yield Text(f"{left} more fare better.")
    if post.kind is not Kind.CHAINS:
        return
    if post.n_draws > 1:
        words = "Traces of the log joint density, and of what else is identified"
        yield Picture.of("traces", words, lambda: plots.traces(post))
    if post.chains > 1:
        words = "How alike the components of the chains are, as cosines"
        yield Picture.of("similarity", words, lambda: plots.similarity(post))


def _again(post: Posterior) -> Iterator[Block]:
    asked = ("draws", "warmup", "thin", "init", "until", "max_seconds", "restarts", "steps", "particles")
    options = "".join(f", {name}={post.attrs[name]!r}" for name in asked if post.attrs.get(name) is not None)
    if "draws" not in post.attrs and post.kind is not Kind.MODES:
        options = f", draws={post.n_draws}" + options
    chains = f", chains={post.chains}" if post.kind is Kind.CHAINS else ""
    yield Code(
        f"# ppnmf {__version__}\nmodel = {post.model!r}\n"
        f"post = ppnmf.fit(model, X, method={post.method!r}{options}{chains}, seed={post.seed})"
    )
    seconds = post.timings.get("total")
    if seconds is not None:
        yield Text(f"It took {seconds:.1f} s.")
