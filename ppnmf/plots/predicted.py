"""Does the fit predict data that look like X? Rootograms of X beside those of replicates.

References: Gelman, Meng, Stern (1996), Posterior predictive assessment of model fitness; Kleiber and Zeileis (2016),
doi:10.1080/00031305.2016.1173590, for rootograms.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ppnmf.plots.factors import label_of
from ppnmf.plots.places import single
from ppnmf.plots.style import COLOURS, INK, array, legend_of_single, name_single, plain, span, styled
from ppnmf.posterior import Kind, Posterior
from ppnmf.protocols import Matrix
from ppnmf.required import require_posterior

__all__ = ["predictive"]

BINS = 40
EACH = 25  # counts up to which each has a bin of its own
FEW = 0.1  # share of small counts below which they get no bins of their own
LEVEL = 0.9  # of the replicates lie in the band
DRAWS = 100  # replicates, at most
ENTRIES = 2**22  # of all replicates together, at most


class Replicates(NamedTuple):
    """Observed cells of some rows of X, and what the posterior predicts there."""

    observed: np.ndarray  # (M,)
    predicted: np.ndarray  # (replicate, M)

    @property
    def are_counts(self) -> bool:
        """Whether the model draws whole numbers."""
        return bool((self.predicted == np.rint(self.predicted)).all())


@styled
def predictive(post: Posterior, seed: int = 0, title: str | None = None, ax: Axes | None = None) -> Axes:
    """How many cells of X lie in each bin, and how many a replicate of X would have there: 90 % of them lie in the band.

    The height is a square root, so that rare values show too; of counts that is a rootogram. Only observed cells are counted; of a
    large X those of some rows, spread evenly.

    Args:
        seed: of the replicates.
        ax: where to draw; a figure of its own by default.

    Raises:
        ValueError: the posterior is of modes, which predict no spread of their own.
    """
    require_posterior("predictive", post)
    if post.kind is Kind.MODES:
        raise ValueError(f"{post.method} left modes alone: replicates take draws, such as those of gibbs")
    found = replicates(post, seed)
    edges = count_edges(found) if found.are_counts else value_edges(found)
    observed = np.histogram(found.observed, edges)[0]
    each = np.stack([np.histogram(own, edges)[0] for own in found.predicted])
    lower, middle, upper = np.quantile(each, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2], axis=0)
    panel = single(ax, 8.5, 3.6)
    panel.stairs(
        upper, edges, baseline=lower, fill=True, color=COLOURS[0], alpha=0.3, label=f"{LEVEL:.0%} of replicates"
    )
    panel.stairs(middle, edges, baseline=None, color=COLOURS[0], label="a replicate, middle")
    panel.plot((edges[1:] + edges[:-1]) / 2, observed, "o", color=INK, markersize=3.5, label="X")
    _axes_of(panel, edges, float(max(upper.max(), observed.max())))
    plain(panel)
    legend_of_single(panel, ax)
    name_single(panel, ax, title, f"{label_of(post)}: X and what the fit predicts")
    return panel


def replicates(post: Posterior, seed: int) -> Replicates:
    """Of the observed cells of rows spread evenly over X, at draws spread evenly over the run."""
    few = post.select(thin=max(1, post.chains * post.n_draws // DRAWS))
    N, D = post.X.shape
    rows = observed_rows(post.X, max(1, min(N, ENTRIES // (few.chains * few.n_draws * D))))
    parts = [post.X.part(range(i, i + 1)) for i in rows]
    values = np.concatenate([array(part.values) for part in parts])
    seen = [np.ones((1, D), bool) if part.mask is None else part.mask.cpu().numpy() for part in parts]
    drawn = array(few.predictive(seed, rows=rows)).reshape(-1, len(rows), D)
    at = np.concatenate(seen)
    return Replicates(values[at], drawn[:, at])


def observed_rows(X: Matrix, most: int) -> list[int]:
    """The numbers of at most so many rows with something observed, spread evenly over those that there are."""
    N = X.shape[0]
    if X.n_observed == N * X.shape[1]:
        seen = np.arange(N)
    else:
        parts = (X.part(rows) for rows in X.blocks)
        seen = np.flatnonzero(np.concatenate([part.observed()[0].cpu().numpy() > 0 for part in parts]))
    places = np.linspace(0, len(seen) - 1, min(most, len(seen))).round().astype(int)
    return [int(row) for row in seen[np.unique(places)]]


def count_edges(found: Replicates) -> np.ndarray:
    """Between whole numbers: each up to 25 has a bin, and beyond them bins widen; of great counts alone all are as wide."""
    low = int(min(found.observed.min(), np.quantile(found.predicted, 0.001)))
    top = int(max(found.observed.max(), np.quantile(found.predicted, 0.999)))
    if top <= EACH:
        return np.arange(top + 2) - 0.5
    if (found.observed <= EACH).mean() < FEW:
        width = -(-(top - low + 1) // BINS)
        return np.arange(low, top + width + 1, width) - 0.5
    wider = np.geomspace(EACH + 1, top + 1, 1 + min(BINS, int(np.log(top / EACH) / np.log(1.1)) + 1))
    return np.concatenate([np.arange(EACH + 1), np.unique(wider.round())]) - 0.5


def value_edges(found: Replicates) -> np.ndarray:
    """Evenly over X, and over nearly all that is predicted."""
    low, high = np.quantile(found.predicted, [0.001, 0.999])
    ends = (min(low, found.observed.min()), max(high, found.observed.max()))
    return np.histogram_bin_edges(found.observed, BINS, ends)


def _axes_of(ax: Axes, edges: np.ndarray, highest: float) -> None:
    ax.set_xlabel("value of a cell")
    ax.set_ylabel("cells in a bin\n(height: square root)")
    ax.set_yscale("function", functions=(_root, np.square))
    widths = np.diff(edges)
    if widths.max() > 2 * widths.min() and edges[-1] > 4 * EACH:  # of counts with a long tail
        ax.set_xscale("symlog", linthresh=EACH)
    ax.set_xlim(*span(edges[0], edges[-1], 0.01))
    ax.set_ylim(0, 1.05 * highest or 1.0)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))


def _root(height: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(height, 0))
