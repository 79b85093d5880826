"""The strongest entries of each component, and how sure they are."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ppnmf.checks import whole_number
from ppnmf.plots.factors import label_of
from ppnmf.plots.names import shortened
from ppnmf.plots.places import Panels, grid, panels, sheet
from ppnmf.plots.style import CHARACTER, COLOURS, POINT, TICK, entitle, plain, styled, x_label
from ppnmf.posterior import Posterior
from ppnmf.required import require_posterior
from ppnmf.tables import Table

__all__ = ["uncertainty"]

UNSURE = 0.9  # congruence below which a component is several at once
ACROSS = 4  # panels


@styled
def uncertainty(
    post: Posterior, entries: int = 8, level: float = 0.9, title: str | None = None, ax: Axes | None = None
) -> Panels:
    """The largest entries of each component by their names, with the bounds that hold a share of the draws.

    Components are scaled to sum to one, strongest first. A component that is not the same one in every draw (congruence
    below 0.9) is orange.

    Args:
        entries: how many of each component.
        level: the share of the draws between the bounds.
        ax: whose place the panels share; a figure of their own by default.

    Returns: axes, one a component.

    Raises:
        ValueError: entries is below one, or level is not between 0 and 1.
    """
    require_posterior("uncertainty", post)
    table = post.components(level=level)
    shown = min(whole_number("entries", entries, 1), len(table.columns))
    K = len(table.rows)
    across = min(ACROSS, math.ceil(math.sqrt(K)))
    down = -(-K // across)
    lettering = min(24, max(map(len, table.columns))) * CHARACTER * TICK * POINT
    figure = sheet(ax, (2.2 + lettering) * across, (0.2 * shown + 0.6) * down + 0.8)
    axes = list(grid(figure, down, across).flat)
    for k, panel in enumerate(axes[:K]):
        _forest(panel, table, k, shown)
        panel.set_title(f"{k + 1}: congruence {table.congruence[k]:.2f}")
        plain(panel)
    for panel in axes[K:]:
        panel.set_axis_off()
    figure.supylabel("column of X")
    bounds = "one draw: no bounds" if np.isnan(table.sd).all() else f"bounds: {level:.0%} of the draws"
    x_label(figure, f"row of H / its sum; {bounds}")
    entitle(figure, title or f"{label_of(post)}: the largest entries of each component")
    return panels(axes[:K])


def _forest(ax: Axes, table: Table, k: int, shown: int) -> None:
    """Means as points and bounds as lines, the largest entry on top."""
    largest = np.argsort(-table.mean[k], kind="stable")[:shown]
    place = np.arange(shown)
    colour = COLOURS[0] if table.congruence[k] >= UNSURE else COLOURS[1]
    ax.hlines(place, table.lower[k, largest], table.upper[k, largest], color=colour, linewidth=1.5)
    ax.plot(table.mean[k, largest], place, "o", color=colour, markersize=4)
    ax.set_yticks(place, [shortened(table.columns[j]) for j in largest])
    ax.set_ylim(shown - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=4))
