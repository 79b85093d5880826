"""How a run went: traces of chains, and the ELBO of a training."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ppnmf.diagnostics.convergence import strengths
from ppnmf.plots.factors import label_of
from ppnmf.plots.style import COLOURS, array, entitle, finite, legend_below, new_figure, plain, styled
from ppnmf.posterior import Kind, Posterior
from ppnmf.required import require_posterior

TOLD_APART = 8  # chains that have a colour with a name; more take theirs from a scale
BINS = 15


@styled
def traces(post: Posterior, title: str | None = None) -> Figure:
    """Log joint, σ² and the sorted strengths ‖W_k‖‖H_k‖ over the draws, a colour a chain: chains that agree overlap.

    Raises:
        ValueError: a chain has one draw, as a mode has.
    """
    require_posterior("traces", post)
    if post.kind is Kind.MODES or post.n_draws < 2:
        raise ValueError(f"{post.method} left one draw a chain, and a trace needs two: look at the components instead")
    series = _series(post)
    figure = new_figure(8.5, 1.6 * len(series) + 0.8)
    grid = figure.subplots(len(series), 2, sharex="col", sharey="row", width_ratios=(5, 1), squeeze=False)
    colours = _colours(post.chains)
    for (ax, side), (name, values) in zip(grid, series.items(), strict=True):
        _trace(ax, values, colours)
        _histograms(side, values, colours)
        ax.set_ylabel(name)
    grid[-1, 0].set_xlabel("kept draw")
    grid[-1, 1].set_xlabel("histogram")
    many = f", {post.chains} chains, the first dark" if post.chains > TOLD_APART else ""
    if 1 < post.chains <= TOLD_APART:
        legend_below(figure, grid[:1, 0])
    entitle(figure, title or f"{label_of(post)}: traces{many}")
    return figure


WORDS = {"sigma2": "noise variance σ²"}


def _series(post: Posterior) -> dict[str, np.ndarray]:
    """What is judged, each (chain, draw)."""
    series = {"log joint (nats)": array(post.stats["lp"])}
    for site in post.small_sites:
        values = array(post.draws[site])
        if values.ndim == 2:
            series[WORDS.get(site, site)] = values
    if {"W", "H"} <= set(post.draws):
        size = array(strengths(post))
        if size.shape[-1] == 1:
            series["‖W‖‖H‖"] = size[..., 0]
        else:
            series["strongest ‖W‖‖H‖"] = size[..., 0]
            series["weakest ‖W‖‖H‖"] = size[..., -1]
    return series


def _colours(chains: int) -> list[str] | np.ndarray:
    if chains <= TOLD_APART:
        return [*COLOURS, "#999999"][:chains]
    return matplotlib.colormaps["cividis"](np.linspace(0, 0.95, chains))


def _trace(ax: Axes, values: np.ndarray, colours: list[str] | np.ndarray) -> None:
    for c, (chain, colour) in enumerate(zip(values, colours, strict=True)):
        ax.plot(chain, color=colour, linewidth=0.7, label=f"chain {c}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=4))
    plain(ax)


def _histograms(ax: Axes, values: np.ndarray, colours: list[str] | np.ndarray) -> None:
    """Each chain's, divided by its own height, so that a chain that hardly moves does not flatten the others."""
    for chain, colour in zip(values, colours, strict=True):
        known = finite(chain)
        if len(known) and np.ptp(known) > 0:
            heights, edges = np.histogram(known, bins=BINS)
            ax.stairs(heights / heights.max(), edges, orientation="horizontal", color=colour, linewidth=1)
    ax.set_xticks([])
    ax.set_xlim(0, 1.05)
    plain(ax)


@styled
def loss(post: Posterior, title: str | None = None) -> Figure:
    """The ELBO over the steps of the training, and its last part on a finer scale.

    Raises:
        ValueError: the posterior has no ELBO curve.
    """
    require_posterior("loss", post)
    curve = np.asarray(post.attrs.get("elbo_curve", []), float)
    if len(curve) < 2:
        raise ValueError(f"{post.method} left no curve of the ELBO; a fit by svi does")
    step = np.arange(len(curve)) * post.attrs.get("steps", len(curve)) / len(curve)
    late = min(len(curve) // 2, len(curve) - 2)
    figure = new_figure(8.5, 3.2)
    for ax, first, name in zip(figure.subplots(1, 2), (0, late), ("whole training", "second half"), strict=True):
        ax.plot(step[first:], curve[first:] / post.X.n_observed, color=COLOURS[0], linewidth=1)
        ax.set_title(name)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        plain(ax)
    figure.supxlabel("step")
    figure.supylabel("ELBO (nats per observed cell)")
    entitle(figure, title or f"{label_of(post)}: training")
    return figure
