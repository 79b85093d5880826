"""Rows of X beside what the fits make of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from ppnmf.plots.factors import as_picture, size_of
from ppnmf.plots.names import SINGLE, label_columns, names_of, row_title, shortened, width_of_named
from ppnmf.plots.places import Panels, Sheet, grid, panels, sheet, width_of_panel
from ppnmf.plots.style import (
    COLOURS,
    INK,
    PALE,
    array,
    entitle,
    finite,
    frame,
    legend_below,
    lowest,
    plain,
    styled,
    x_label,
)
from ppnmf.posterior import Posterior
from ppnmf.required import require_posteriors

HIDDEN = COLOURS[1]
OF_FITS = (COLOURS[0], *COLOURS[2:])
CELL = 12  # characters of a row's name above a picture
PANEL = 20  # above a panel, beside the fit's name
WIDEST = 14.0  # inches, beyond which the fits stand below, not beside each other


class Shown(NamedTuple):
    """What is drawn: the chosen rows alone."""

    X: np.ndarray  # (rows, D)
    seen: np.ndarray  # (rows, D), True where the fits saw X
    means: dict[str, np.ndarray]  # fit -> mean of W @ H, (rows, D)
    titles: list[str]
    columns: list[str] | None


@styled
def reconstructions(
    fits: Mapping[str, Posterior],
    X: np.ndarray,
    seen: np.ndarray,
    rows: Sequence[int],
    picture: tuple[int, int] | None = None,
    order: str = "C",
    names: Any = None,
    columns: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Panels:
    """Rows of X beside each method's W @ H: pictures, hidden pixels marked; or curves, hidden cells as open circles.

    A panel shows one fit, so that none hides another. Of very many columns with names, whose order says nothing, the
    panels show X against W @ H.

    Args:
        X: data (N, D), hidden cells too.
        seen: boolean (N, D), the cells that were fitted.
        rows: which rows to show.
        picture, order: as in `components`.
        names: names of X's rows; columns: of its columns; by default the first posterior's.
        ax: whose place the panels share; a figure of their own by default.

    Returns: axes in their grid.

    Raises:
        ValueError: there is no posterior, a picture of another number of pixels, or names of another number.
    """
    require_posteriors("reconstructions", fits)
    first = next(iter(fits.values()))
    names = names_of(first, "rows", names)
    columns = names_of(first, "columns", columns)
    at = [int(row) for row in rows]
    means = {name: _rows_of_mean(post, at) for name, post in fits.items()}
    titles = [row_title(names, row, CELL if picture else PANEL) for row in at]
    shown = Shown(np.asarray(X, float)[at], np.asarray(seen, bool)[at], means, titles, columns)
    if picture:
        return panels(_pictures(shown, picture, order, ax))
    named = columns is not None and len(columns) > SINGLE
    return panels(_scatters(shown, ax) if named else _curves(shown, ax))


def _rows_of_mean(post: Posterior, rows: list[int]) -> np.ndarray:
    own = post.typical()
    return np.concatenate([array(own.reconstruction(range(row, row + 1))) for row in rows])


def _pictures(shown: Shown, picture: tuple[int, int], order: str, place: Axes | None) -> Any:
    """A column a row of X, a line for the data, for what of it was seen, and for each fit."""
    height, width = size_of(picture)
    lines = {"data": shown.X, "seen": shown.X, **shown.means}
    figure = sheet(place, max((width + 0.05) * len(shown.X) + 0.6, 3.6), (height + 0.05) * len(lines) + 0.9)
    axes = grid(figure, len(lines), len(shown.X))
    tops = [float(finite(row).max(initial=0.0)) or 1.0 for row in shown.X]
    for line, (name, values) in zip(axes, lines.items(), strict=True):
        for ax, pixels, top in zip(line, values, tops, strict=True):
            ax.imshow(as_picture(pixels, picture, order), vmin=0, vmax=top)
            frame(ax)
        line[0].set_ylabel(shortened(name))
    for ax, seen in zip(axes[1], shown.seen, strict=True):
        _cover(ax, as_picture(seen, picture, order))
    for ax, name in zip(axes[0], shown.titles, strict=True):
        ax.set_title(name, loc="center", pad=3)
    x_label(figure, "grey: white is 0, black the largest pixel of the data above")
    marked = " (orange: pixels that no method saw)" if not shown.seen.all() else ""
    entitle(figure, f"Data and reconstructions{marked}")
    return axes


def _cover(ax: Axes, seen: np.ndarray) -> None:
    """Colour the pixels that the fits did not see."""
    ax.imshow(np.where(seen, np.nan, 1.0), cmap=ListedColormap([HIDDEN]), vmin=0, vmax=1)


def _curves(shown: Shown, place: Axes | None) -> Any:
    """A line a row of X, a column a fit, both of one scale."""
    D = shown.X.shape[1]
    panel = max(8.5 / len(shown.means), 4.0, width_of_named(D) + 0.8 if shown.columns is not None else 0.0)
    lettering = 0.0 if shown.columns is None else 0.06 * min(24, max(map(len, shown.columns)))
    figure, axes = _grid(shown, (panel, 1.7, lettering), True, place)
    for (ax, row, name), colour in _each(shown, axes):
        ax.yaxis.set_major_locator(MaxNLocator(nbins=4))
        _data(ax, np.arange(D), shown.X[row], shown.seen[row])
        _fitted(ax, shown.means[name][row], shown.columns is not None, colour, shortened(name))
    for ax in lowest(axes):
        label_columns(ax, shown.columns, D, width_of_panel(figure, axes.shape[1]) - 0.8)
    figure.supylabel("X and W @ H")
    legend_below(figure, axes.flat)
    return axes


def _data(ax: Axes, at: np.ndarray, row: np.ndarray, seen: np.ndarray) -> None:
    """X as a pale line where columns are many, else as points; hidden cells as open circles."""
    few = len(at) <= SINGLE
    look: dict[str, Any] = {"marker": ".", "linestyle": "none"} if few else {"color": PALE, "linewidth": 3}
    ax.plot(at, np.where(seen, row, np.nan), label="data", **{"color": INK, "markersize": 6, **look})
    hidden = np.where(seen, np.nan, row)
    if np.isfinite(hidden).any():
        size = 6 if few else 2.5
        look = {"color": HIDDEN, "markerfacecolor": "none", "markeredgewidth": 0.9 if few else 0.5}
        ax.plot(at, hidden, "o", markersize=size, label="data, hidden from the fits", **look)


def _fitted(ax: Axes, mean: np.ndarray, unordered: bool, colour: str, name: str) -> None:
    """A fit's W @ H, as a line or as a dash a column."""
    if unordered:  # no line joins columns whose order says nothing
        ax.plot(mean, "_", color=colour, markersize=7, markeredgewidth=1.5, label=name)
    else:
        ax.plot(mean, color=colour, linewidth=1.0, label=name)


def _scatters(shown: Shown, place: Axes | None) -> Any:
    """X against W @ H: a line of panels a row of X, a column a fit."""
    figure, axes = _grid(shown, (max(8.5 / len(shown.means), 3.0), 2.6, 0.0), False, place)
    for (ax, row, name), colour in _each(shown, axes):
        x = shown.means[name][row]
        y = shown.X[row]
        seen = shown.seen[row]
        ax.plot(x[seen], y[seen], ".", color=colour, markersize=2.5, alpha=0.5, label=shortened(name))
        if np.isfinite(y[~seen]).any():
            look: dict[str, Any] = {"color": HIDDEN, "markerfacecolor": "none", "markeredgewidth": 0.6}
            ax.plot(x[~seen], y[~seen], "o", markersize=3, label="hidden from the fits", **look)
        known = finite(np.concatenate([x, y]))
        ends = [float(known.min()), float(known.max())]
        ax.plot(ends, ends, color=INK, linewidth=0.8, label="equal")
        _spread(ax, known)
    for ax in axes[-1]:
        ax.set_xlabel("W @ H")
    figure.supylabel("X")
    legend_below(figure, axes.flat)
    return axes


def _spread(ax: Axes, values: np.ndarray) -> None:
    """Scales that are linear up to the median and logarithmic beyond, where the values have so long a tail."""
    sizes = np.abs(values[values != 0])
    median = float(np.median(sizes)) if len(sizes) else 1.0
    powers = np.arange(np.ceil(np.log10(2 * median)), np.log10(sizes.max(initial=median)) + 1e-9)
    if len(powers) < 2:
        return
    ax.set_xscale("asinh", linear_width=median)
    ax.set_yscale("asinh", linear_width=median)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(FixedLocator([0.0, *10.0**powers]))
        axis.set_minor_locator(NullLocator())


def _grid(
    shown: Shown, size: tuple[float, float, float], share_x: bool, place: Axes | None
) -> tuple[Sheet, np.ndarray]:
    """Panels of a width and a height in inches, with room below all; a line a row of X and a column a fit; of wide panels all in
    one column."""
    width, height, below = size
    rows = len(shown.X)
    across = len(shown.means)
    if width * across > WIDEST:
        rows = rows * across
        across = 1
    figure = sheet(place, width * across, height * rows + 1.0 + below)
    axes = grid(figure, rows, across, sharex=share_x)
    for line in axes.reshape(len(shown.X), -1):
        for ax in line[1:]:
            ax.sharey(line[0])
    entitle(figure, "Data and reconstructions")
    return figure, axes


def _each(shown: Shown, axes: np.ndarray) -> Iterator[tuple[tuple[Axes, int, str], str]]:
    """((panel, row, fit), colour), each with its title."""
    for row, line in enumerate(axes.reshape(len(shown.X), -1)):
        for n, (ax, name) in enumerate(zip(line, shown.means, strict=True)):
            ax.set_title(f"{shown.titles[row]}, {shortened(name)}")
            yield (ax, row, name), OF_FITS[n % len(OF_FITS)]
            plain(ax)
