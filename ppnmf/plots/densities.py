"""How sure each fit is of a row's loadings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ppnmf.diagnostics.alignment import align
from ppnmf.plots.names import names_of, row_title, shortened
from ppnmf.plots.places import Panels, grid, panels, sheet
from ppnmf.plots.style import COLOURS, array, entitle, legend_below, plain, span, styled
from ppnmf.posterior import Kind, Posterior
from ppnmf.required import require_posteriors

POINTS = 400  # of a curve
LINES = ("-", "--", ":")  # of fits, with the colours
NAME = 20  # characters of a row's name above a panel


@styled
def latent_densities(
    fits: Mapping[str, Posterior],
    rows: Sequence[int],
    names: Any = None,
    components: int = 3,
    ax: Axes | None = None,
) -> Panels:
    r"""Posterior densities of what a component adds to a row: W_ik Σ_j H_kj, in X's units, of each of the fits.

    Draws become a kernel density estimate (thin: each chain's part in it, so that chains which hold different components
    show); a guide its own Weibull density; a mode a vertical line. Components are those
    strongest in the row by the first fit; the others' are matched to them by their shapes.

    Args:
        fits: name -> Posterior of the same data and rank.
        rows: of X; a line of panels each.
        names: names of X's rows, by default the first posterior's.
        components: how many of each row.
        ax: whose place the panels share; a figure of their own by default.

    Returns: axes (row, component).

    Raises:
        ValueError: there is no posterior, or the names are not as many as X has rows.
    """
    require_posteriors("latent_densities", fits)
    matched = _matched(fits)
    names = names_of(next(iter(fits.values())), "rows", names)
    reference = array(next(iter(matched.values())).mean("W"))
    components = min(components, reference.shape[1])
    figure = sheet(ax, max(3.0 * components, 4.0), 1.9 * len(rows) + 1.2)
    axes = grid(figure, len(rows), components)
    for line, row in zip(axes, rows, strict=True):
        strongest = np.argsort(-reference[row], kind="stable")[:components]
        for panel, k in zip(line, strongest, strict=True):
            for n, name in enumerate(fits):
                _density(panel, fits[name], matched[name], int(row), int(k), n, shortened(name))
            _finish(panel)
            panel.set_title(f"{row_title(names, int(row), NAME)}: component {k + 1}")
    for panel in axes[-1]:
        panel.set_xlabel("part of the row's sum (units of X)")
    figure.supylabel("posterior density")
    legend_below(figure, axes.flat)
    several = any(fit.chains > 1 and fit.n_draws > 1 for fit in fits.values())
    entitle(figure, "Loadings and how sure each method is of them" + (" (thin: each chain's part)" if several else ""))
    return panels(axes)


def _finish(ax: Axes) -> None:
    low, high = span(ax.dataLim.x0, ax.dataLim.x1, room=0.02)
    ax.set_xlim(max(0.0, low), high)
    ax.set_ylim(0, 1.05 * ax.dataLim.y1 if np.isfinite(ax.dataLim.y1) else 1.0)  # of modes alone nothing has a height
    ax.set_yticks([])
    ax.xaxis.set_major_locator(MaxNLocator(nbins=4))
    plain(ax)


def _matched(fits: Mapping[str, Posterior]) -> dict[str, Posterior]:
    """Each fit aligned, its rows of H summing to one, its components in the order of the first's."""
    out: dict[str, Posterior] = {}
    for name, post in fits.items():
        own = align(post.typical(), scale=True)
        if out:
            first = next(iter(out.values()))
            reference = {site: first.mean(site).to(own.draws[site]) for site in ("W", "H")}
            own = align(own, reference, scale=True)
        else:
            own = _strongest_first(own)
        out[name] = own
    return out


def _strongest_first(post: Posterior) -> Posterior:
    """The components in the order of `components`."""
    order = post.mean("W").sum(0).argsort(descending=True, stable=True)
    return replace(post, draws={**post.draws, "W": post.draws["W"][..., order], "H": post.draws["H"][..., order, :]})


def _density(ax: Axes, fit: Posterior, shown: Posterior, row: int, k: int, place: int, name: str) -> None:
    """One fit's; `place` is the fit's number, which gives it a colour and a line."""
    by_chain = array(shown.draws["W"])[..., row, k]
    look: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)], "linewidth": 1.5}
    if by_chain.size == 1:
        what = "mode" if fit.kind is Kind.MODES else "one draw"
        ax.axvline(by_chain.item(), linestyle=(0, (4, 2)), label=f"{name} ({what})", **look)
    elif hasattr(fit.model, "encode"):
        low, high = np.quantile(by_chain, [0.001, 0.999])  # not down to zero, where it may be infinite
        x = np.linspace(0.7 * low, 1.3 * high, POINTS + 1)[1:]
        ax.plot(x, _weibull_density(x, fit, shown, row, k), linestyle="-.", label=f"{name} (its Weibull)", **look)
    else:
        _kernel_curves(ax, by_chain, LINES[place % len(LINES)], name, look)


def _kernel_curves(ax: Axes, by_chain: np.ndarray, line: str, name: str, look: dict[str, Any]) -> None:
    x, density = _kernel_density(by_chain.ravel())
    ax.plot(x, density, linestyle=line, label=name, **look)
    ax.fill_between(x, density, color=look["color"], alpha=0.15, linewidth=0)
    for chain in by_chain if min(by_chain.shape) > 1 else ():
        ax.plot(*_kernel_density(chain, len(by_chain)), color=look["color"], linewidth=0.6, alpha=0.6)


def _weibull_density(x: np.ndarray, fit: Posterior, shown: Posterior, row: int, k: int) -> np.ndarray:
    """The guide's density of what component k, as `shown` orders and scales it, adds to a row."""
    own = fit.X.part(range(row, row + 1))
    guide = fit.model.encode(own.values, own.mask)  # type: ignore[attr-defined]
    H = array(fit.draws["H"])[0, 0]
    total = H.sum(1)
    own = int(np.abs(H / np.maximum(total, 1e-300)[:, None] - array(shown.mean("H"))[k]).sum(1).argmin())
    concentration = float(guide.concentration[0, own])
    scale = float(guide.scale[0, own]) * total[own]
    z = x / scale
    return concentration / scale * z ** (concentration - 1) * np.exp(-(z**concentration))


def _kernel_density(draws: np.ndarray, parts: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian kernels, reflected at zero, where the density of a loading may end abruptly; divided by `parts`."""
    from scipy.stats import gaussian_kde

    low, high = np.quantile(draws, [0.0, 0.999])
    spread = max(float(draws.std()), 1e-9 * max(abs(high), 1e-300))
    if draws.std() == 0:
        draws = draws + spread * np.linspace(-1, 1, len(draws))
    x = np.linspace(max(0.0, low - 2 * spread), high + spread, POINTS)
    kernel = gaussian_kde(draws)
    return x, (kernel(x) + kernel(-x)) / parts
