"""What a report says about one posterior: what was fitted, whether to trust it, what was found."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ppnmf import __version__, plots
from ppnmf.classified import without_labels
from ppnmf.data.matrix import in_memory
from ppnmf.diagnostics.convergence import Summary, summary
from ppnmf.fingerprints import SIMPLE
from ppnmf.plots.predicted import observed_rows
from ppnmf.posterior import Kind, Posterior
from ppnmf.protocols import Matrix, Model
from ppnmf.reconstructed import root_mean_square
from ppnmf.report.document import Block, Card, Cards, Code, Document, Picture, Rows, Section, Text, Verdict
from ppnmf.tables import Table, classes_beside

__all__ = ["components_of", "fitted", "verdict_on"]

ENTRIES = 8  # of a component that are listed
CELLS = 50  # rows, and columns, of the cells that are checked
LEVEL = 0.9
SURE = 0.9  # congruence below which a component is several
AGREED = {
    Kind.CHAINS: "The chains agree.",
    Kind.MODES: "The starts agree.",
    Kind.INDEPENDENT: "The runs agree.",
    Kind.APPROXIMATION: "It is near the posterior.",
}
CHANGED = {
    "selected": "some draws were selected",
    "weighted": "chains were weighted",
    "alignment": "components were brought to one order",
    "joined": "runs were joined",
    "transformed": "the loadings of new rows were found",
}


def fitted(post: Posterior, picture: tuple[int, int] | None = None, order: str = "C") -> Document:
    """The report about a posterior; `picture` and `order` as of `report.page`."""
    judged = summary(post)
    sections = [
        Section("Whether to trust it", (verdict_on(post.kind, judged.agree, judged.sentence),)),
        Section("Components", tuple(_components(post, picture, order))),
        Section("The data, and how they are predicted", tuple(_prediction(post))),
        *_where_starts_ended(post),
        Section("Convergence", tuple(_convergence(post, judged))),
        Section("To do it again", tuple(_again(post))),
    ]
    return Document(f"{post.model.name} by {post.method}, rank {post.model.rank}", tuple(sections))


def verdict_on(kind: Kind, agree: bool | None, sentence: str, whose: str = "") -> Verdict:
    """Whether to trust a posterior, by what its summary says; `whose` begins the words where there are several."""
    if agree is None:
        colour, words = "open", "Not judged."
    else:
        colour, words = ("good", AGREED[kind]) if agree else ("bad", "Do not trust these numbers.")
    return Verdict(colour, f"{whose}: {words}" if whose else words, sentence)


def components_of(post: Posterior, picture: tuple[int, int] | None = None, order: str = "C") -> Picture:
    """The picture of the components; what stands in it, in words."""
    words = "Components: " + "; ".join(str(post.components(level=LEVEL)).splitlines())
    return Picture.of("components", words, lambda: plots.components(post, picture, order))


def _components(post: Posterior, picture: tuple[int, int] | None, order: str) -> Iterator[Block]:
    table = post.components(level=LEVEL)
    about = "Strongest first; each is scaled to sum to one."
    if not np.isnan(table.lower).all():
        about += (
            f" Bounds hold {LEVEL:.0%} of the draws. Congruence says how surely a component is the same one in every draw; "
            f"below {SURE} it is several."
        )
    yield Text(about)
    yield components_of(post, picture, order)
    yield Cards(tuple(_card(table, k) for k in range(len(table.rows))))


def _card(table: Table, k: int) -> Card:
    strongest = np.argsort(-table.mean[k], kind="stable")[:ENTRIES]
    cells = [(table.columns[j], f"{table.mean[k, j]:.3g}") for j in strongest]
    if np.isnan(table.lower).all():
        return Card(table.rows[k], Rows(("entry", "value"), tuple(cells)), False)
    bounds = [f"{table.lower[k, j]:.3g} to {table.upper[k, j]:.3g}" for j in strongest]
    rows = tuple((*cell, own) for cell, own in zip(cells, bounds, strict=True))
    title = f"{table.rows[k]}, congruence {table.congruence[k]:.2f}"
    return Card(title, Rows(("entry", "mean", "bounds"), rows), bool(table.congruence[k] < SURE))


def _prediction(post: Posterior) -> Iterator[Block]:
    if "data" in post.attrs:
        yield Text(str(post.attrs["data"]))
    facts = [*_facts(post), *_known(post)]
    if post.kind is Kind.MODES or post.chains * post.n_draws == 1:
        yield Rows((), tuple(facts))
        return
    covered = _coverage(post)
    if covered is not None:
        facts.append((f"observed cells within their {LEVEL:.0%} predictive bounds", f"{covered:.1%}"))
    yield Rows((), tuple(facts))
    words = f"How many cells of X have each value, beside replicates of the fit: bands hold {LEVEL:.0%} of them"
    yield Picture.of("predictive", words, lambda: plots.predictive(post))


def _facts(post: Posterior) -> Iterator[tuple[str, str]]:
    """What X is, without the labels that stand beside it, and how near the fit comes to it."""
    N, D = post.X.shape
    X: Matrix = post.X
    if classes := classes_beside(post):
        D -= len(classes)
        X = without_labels(in_memory(X, "page"), len(classes))
        known = int((np.asarray(post.attrs["labels"]["codes"]) >= 0).sum())
        yield "labels", f"of {known} of the {N} rows: {', '.join(classes)}"
    yield "shape", f"{N} × {D}"
    yield "missing cells", f"{N * D - X.n_observed}"
    yield "mean of the observed", f"{X.mean():.4g}"
    yield "root mean squared error of the fit", f"{root_mean_square(post, D):.4g}"


def _known(post: Posterior) -> Iterator[tuple[str, str]]:
    """How many entries of the factors were given."""
    for site in ("W", "H"):
        values = getattr(post.model, f"fixed_{site}", None)
        if values is not None:
            yield f"known entries of {site}", f"{int((~torch.isnan(torch.as_tensor(values))).sum())}, held as they are"


def _coverage(post: Posterior) -> float | None:
    """The share of some observed cells that lie in their predictive intervals; None where none of the cells is observed."""
    D = post.X.shape[1]
    rows = observed_rows(post.X, CELLS)
    columns = sorted({round(j * (D - 1) / (CELLS - 1)) for j in range(CELLS)})
    found = post.interval(rows=rows, columns=columns, level=LEVEL)
    parts = [post.X.part(range(i, i + 1)) for i in rows]
    values = np.concatenate([part.values[:, columns].cpu().numpy() for part in parts])
    seen = [np.ones((1, D), bool) if part.mask is None else part.mask.cpu().numpy() for part in parts]
    inside = ((values >= found.lower) & (values <= found.upper))[np.concatenate(seen)[:, columns]]
    return float(inside.mean()) if len(inside) else None


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
    asked = dict(post.attrs.get("asked") or {"method": repr(post.method), "seed": str(post.seed)})
    model = asked.pop("model", "model")
    made = _in_python(post.model)
    lines = [f"# ppnmf {__version__}", f"model = {made}" if model == "model" else f"# {model} is {made}"]
    arguments = [model, "X", *(f"{name}={value}" for name, value in asked.items())]
    yield Code("\n".join([*lines, f"post = ppnmf.fit({', '.join(arguments)})"]))
    changed = [words for name, words in CHANGED.items() if post.attrs.get(name)]
    if changed:
        yield Text(f"Then {', '.join(changed)}.")
    seconds = post.timings.get("total")
    if seconds is not None:
        yield Text(f"It took {seconds:.1f} s.")


def _in_python(model: Model) -> str:
    """What makes the model; hyperparameters that are arrays by their names alone."""
    told = {name: value for name, value in model.config().items() if value is not None}
    arguments = ", ".join(
        f"{name}={value!r}" if isinstance(value, SIMPLE) else f"{name}={name}" for name, value in told.items()
    )
    return f"{type(model).__name__}({arguments})"
