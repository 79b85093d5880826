"""How a run went: traces of chains, and the ELBO of a training."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy.stats import rankdata

from ppnmf.diagnostics.convergence import strengths
from ppnmf.plots.factors import label_of
from ppnmf.plots.places import Panels, grid, panels, sheet
from ppnmf.plots.style import COLOURS, INK, array, entitle, finite, legend_below, plain, styled
from ppnmf.posterior import Kind, Posterior
from ppnmf.required import require_posterior

TOLD_APART = 8  # chains that have a colour with a name; more take theirs from a scale
BINS = 15


@styled
def traces(post: Posterior, title: str | None = None, ax: Axes | None = None) -> Panels:
    """Log joint, σ² and the sorted strengths ‖W_k‖‖H_k‖ over the draws, a colour a chain: chains that agree overlap.

    Args:
        ax: whose place the panels share; a figure of their own by default.

    Returns: axes (quantity, 2): each quantity's trace, and its histograms.

    Raises:
        ValueError: a chain has one draw, as a mode has.
    """
    require_posterior("traces", post)
    if post.kind is Kind.MODES or post.n_draws < 2:
        raise ValueError(f"{post.method} left one draw a chain, and a trace needs two: look at the components instead")
    series = _series(post)
    figure = sheet(ax, 8.5, 1.6 * len(series) + 0.8)
    axes = grid(figure, len(series), 2, sharex="col", sharey="row", width_ratios=(5, 1))
    colours = _colours(post.chains)
    for (line, side), (name, values) in zip(axes, series.items(), strict=True):
        _trace(line, values, colours)
        _histograms(side, values, colours)
        line.set_ylabel(name)
    axes[-1, 0].set_xlabel("kept draw")
    axes[-1, 1].set_xlabel("histogram")
    many = f", {post.chains} chains, the first dark" if post.chains > TOLD_APART else ""
    if 1 < post.chains <= TOLD_APART:
        legend_below(figure, axes[:1, 0])
    entitle(figure, title or f"{label_of(post)}: traces{many}")
    return panels(axes)


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
def ranks(post: Posterior, title: str | None = None, ax: Axes | None = None) -> Panels:
    """Where each chain's draws stand among those of all chains: of chains that agree, evenly over all places.

    Of log joint, σ² and the sorted strengths. A chain with more draws than the dashed line at low ranks lies lower than the
    others. Chains that move slowly are uneven too, though they agree.

    Args:
        ax: whose place the panels share; a figure of their own by default.

    Returns: axes, one a quantity.

    Raises:
        ValueError: there is one chain alone, or a chain has one draw.

    References: Vehtari et al. (2021), doi:10.1214/20-BA1221, who advise it beside traces.
    """
    require_posterior("ranks", post)
    if post.chains < 2 or post.n_draws < 2:
        raise ValueError(
            f"ranks compare the draws of several chains; {post.method} left {post.chains} × {post.n_draws}"
        )
    series = _series(post)
    across = min(2, len(series))
    figure = sheet(ax, 4.2 * across, 1.7 * -(-len(series) // across) + 0.8)
    axes = list(grid(figure, -(-len(series) // across), across).flat)
    for panel, (name, values) in zip(axes, series.items(), strict=False):
        _ranked(panel, values, _colours(post.chains))
        panel.set_title(name)
        plain(panel)
    for panel in axes[len(series) :]:
        panel.set_axis_off()
    for panel in axes[max(0, len(series) - across) : len(series)]:
        panel.set_xlabel("rank among the draws of all chains")
    figure.supylabel("draws of the chain")
    if post.chains <= TOLD_APART:
        legend_below(figure, axes[:1])
    entitle(figure, title or f"{label_of(post)}: ranks of the chains' draws")
    return panels(axes[: len(series)])


def _ranked(ax: Axes, values: np.ndarray, colours: list[str] | np.ndarray) -> None:
    """Histograms of the ranks of (chain, draw), and the height of even ones."""
    draws = values.shape[1]
    bins = max(2, min(BINS, draws // 5))
    place = rankdata(values, method="average").reshape(values.shape)
    for c, (own, colour) in enumerate(zip(place, colours, strict=True)):
        heights, edges = np.histogram(own, bins, (0.5, values.size + 0.5))
        ax.stairs(heights, edges, color=colour, linewidth=1.2, label=f"chain {c}")
    ax.axhline(draws / bins, color=INK, linewidth=0.8, linestyle="--")
    ax.set_ylim(0, 1.05 * ax.dataLim.y1)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))


@styled
def loss(post: Posterior, title: str | None = None, ax: Axes | None = None) -> Panels:
    """The ELBO over the steps of the training, and its last part on a finer scale.

    Args:
        ax: whose place both panels share; a figure of their own by default.

    Raises:
        ValueError: the posterior has no ELBO curve.
    """
    require_posterior("loss", post)
    curve = np.asarray(post.attrs.get("elbo_curve", []), float)
    if len(curve) < 2:
        raise ValueError(f"{post.method} left no curve of the ELBO; a fit by svi does")
    step = np.arange(len(curve)) * post.attrs.get("steps", len(curve)) / len(curve)
    late = min(len(curve) // 2, len(curve) - 2)
    figure = sheet(ax, 8.5, 3.2)
    both = grid(figure, 1, 2)[0]
    for panel, first, name in zip(both, (0, late), ("whole training", "second half"), strict=True):
        panel.plot(step[first:], curve[first:] / post.X.n_observed, color=COLOURS[0], linewidth=1)
        panel.set_title(name)
        panel.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        plain(panel)
    figure.supxlabel("step")
    figure.supylabel("ELBO (nats per observed cell)")
    entitle(figure, title or f"{label_of(post)}: training")
    return panels(both)
