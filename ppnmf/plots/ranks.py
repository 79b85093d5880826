"""The criteria for the number of components, against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from ppnmf.checks import described
from ppnmf.evidence.table import RankTable
from ppnmf.plots.places import Panels, grid, panels, sheet
from ppnmf.plots.style import COLOURS, POINT, TICK, entitle, plain, styled

ACROSS = 3  # panels
WIDTH = 4.2  # inches of a panel
AXIS = 3.2  # inches of its lower axis
EVEN = 3.0  # ranks spread unevenly, by more than this, stand on a logarithmic axis


@styled
def rank(table: RankTable, title: str | None = None, ax: Axes | None = None) -> Panels:
    """The criteria of `ppnmf.select_rank` against the rank, with their standard errors.

    The best is ringed; points that do not differ from it by more than their errors are open, failed estimates are
    left out. Above each rank stands how far it is from the best; of many ranks, above some. Where every estimate of a
    criterion has failed, crosses show them, and the title says so.

    Args:
        ax: whose place the panels share; a figure of their own by default.

    Returns: axes, one a criterion.

    Raises:
        TypeError: it is no such table.
        ValueError: the table holds no score.
    """
    if not isinstance(table, RankTable):
        raise TypeError(f"rank takes the table that ppnmf.select_rank returns, not {described(table)}")
    curves = {method: by_rank for method, by_rank in table.scores.items() if by_rank}
    if not curves:
        raise ValueError("the table holds no score of any rank: look at its `failed`")
    across = 2 if len(curves) == 4 else min(len(curves), ACROSS)
    down = -(-len(curves) // across)
    figure = sheet(ax, max(WIDTH * across, 6), 3.6 * down + 0.3)
    axes = list(grid(figure, down, across).flat)
    for panel, method in zip(axes, curves, strict=False):
        _of_method(panel, table, method)
    for panel in axes[len(curves) :]:
        panel.set_axis_off()
    known = (
        "bars: one standard error either way; ringed: the best; open: not separable from it; above: distance from it"
    )
    entitle(figure, title or f"Choosing the rank ({known})")
    return panels(axes[: len(curves)])


def _of_method(ax: Axes, table: RankTable, method: str) -> None:
    judged = table.judged(method)
    if not judged:
        _crosses(ax, table.scores[method])
        ax.set_title(f"{method}: every estimate failed", pad=4)
        return
    _rank_curve(ax, judged, table.best_by(method), table.rivals(method))
    ax.set_title(f"{method}: best at {table.best_by(method)}", pad=4)


def _crosses(ax: Axes, by_rank: Mapping[int, Any]) -> None:
    """Failed estimates, those that are finite."""
    ranks = np.array(sorted(by_rank))
    ax.plot(ranks, [by_rank[rank].value for rank in ranks], "x", color=COLOURS[1])
    ax.margins(x=0.08, y=0.08)
    _spread(ax, ranks)
    shown = _apart(_places(ranks), 0, 2 * TICK * POINT / AXIS)
    _mark_ranks(ax, ranks[shown])
    _name_values(ax, by_rank[int(ranks[0])].label)


def _rank_curve(ax: Axes, by_rank: Mapping[int, Any], best: int, rivals: Sequence[int]) -> None:
    ranks = np.array(sorted(by_rank))
    values = np.array([by_rank[rank].value for rank in ranks])
    errors = np.array([by_rank[rank].error for rank in ranks], float)
    known = np.isfinite(errors)
    ax.plot(ranks, values, color=COLOURS[0], marker="o", markersize=4)
    ax.errorbar(ranks[known], values[known], errors[known], color=COLOURS[0], linestyle="none", capsize=3)
    open_ones = np.isin(ranks, rivals)
    ax.plot(ranks[open_ones], values[open_ones], "o", markersize=5, color=COLOURS[0], markerfacecolor="white", zorder=4)
    here = by_rank[best].value
    ax.plot(best, here, "o", markersize=12, markerfacecolor="none", markeredgecolor=COLOURS[1], markeredgewidth=1.8)
    ax.margins(x=0.08, y=0.08)
    _label_ranks(ax, ranks, values - here, best)
    _name_values(ax, by_rank[best].label)


def _name_values(ax: Axes, label: str) -> None:
    ax.set_ylabel(f"{label} (nats)" if "log" in label and "(" not in label else label)
    ax.ticklabel_format(axis="y", style="plain")  # a power of ten would stand where the distances do
    plain(ax)


def _label_ranks(ax: Axes, ranks: np.ndarray, behind: np.ndarray, best: int) -> None:
    """Ranks below, their distance from the best above: of those that have room beside each other."""
    _spread(ax, ranks)
    at = int(np.flatnonzero(ranks == best)[0])
    shown = _apart(_places(ranks), at, 2 * TICK * POINT / AXIS)
    _mark_ranks(ax, ranks[shown])
    above = ax.secondary_xaxis("top")
    above.xaxis.set_minor_locator(NullLocator())
    above.set_xticks(ranks[shown], ["best" if k == at else _difference(behind[k]) for k in shown])
    above.tick_params(labelsize=TICK - 1, labelrotation=90, length=2)
    above.spines["top"].set_visible(False)


def _places(ranks: np.ndarray) -> np.ndarray:
    """Where they stand on their axis."""
    return np.log(ranks) if _is_uneven(ranks) else ranks.astype(float)


def _spread(ax: Axes, ranks: np.ndarray) -> None:
    """A logarithmic axis where ranks are uneven."""
    if _is_uneven(ranks):
        ax.set_xscale("log")
        ax.xaxis.set_minor_locator(NullLocator())


def _mark_ranks(ax: Axes, ranks: np.ndarray) -> None:
    ax.set_xticks(ranks, [str(rank) for rank in ranks])
    ax.set_xlabel("rank K")


def _is_uneven(ranks: np.ndarray) -> bool:
    gaps = np.diff(ranks)
    return len(gaps) > 1 and gaps.max() > EVEN * gaps.min()


def _apart(places: np.ndarray, first: int, least: float) -> list[int]:
    """Which places are a share of the whole extent away from each other, `first` being one of them."""
    kept = [first]
    extent = np.ptp(places) or 1.0
    for place in range(len(places)):
        if np.abs(places[kept] - places[place]).min() > least * extent:
            kept.append(place)
    return sorted(kept)


def _difference(value: float) -> str:
    return f"{value:+.0f}" if abs(value) >= 100 else f"{value:+.3g}"
