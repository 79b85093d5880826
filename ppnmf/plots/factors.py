"""The components: rows of H, as pictures or as profiles over X's columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from ppnmf.plots.names import SINGLE, label_columns, names_of, number_pixels, shortened, width_of_named
from ppnmf.plots.places import Panels, grid, panels, sheet, width_of_panel
from ppnmf.plots.style import (
    CHARACTER,
    COLOURS,
    INK,
    PANEL,
    POINT,
    array,
    entitle,
    frame,
    lowest,
    plain,
    span,
    styled,
    x_label,
)
from ppnmf.posterior import Posterior
from ppnmf.required import require_posterior
from ppnmf.tables import aligned

PAGE = 11.5  # inches: the width of a full grid of pictures
LARGEST = 3  # columns that a title names, where an axis cannot name all
LARGEST_NAME = 16  # characters of such a name
LEVEL = 0.9  # of the draws lie between the bounds of an entry
DRAWS = 400  # from which the bounds are taken, at most


@styled
def components(
    post: Posterior,
    picture: tuple[int, int] | None = None,
    order: str = "C",
    columns: Sequence[str] | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> Panels:
    """The rows of H, strongest first, each divided by its sum: pictures where a row is one, else stems or lines.

    The mean over aligned draws, and in a profile the bounds that hold 90 % of them; of several modes, the best one. A
    percentage is the component's share of the sum of W @ H.

    Args:
        picture: (height, width) of a row of X; by default the data set's, where the fit knows of one, and else a row with a
            square number of pixels, at least 64, counts as a square picture, unless the columns have names that say more
            than a pixel's number.
        order: "C", pixels row by row, or "F", column by column; the data set's goes with its picture.
        columns: names of X's columns, by default the posterior's.
        ax: whose place the panels share; a figure of their own by default.

    Returns: axes, one a component, strongest first.

    Raises:
        ValueError: a picture of another number of pixels, or names of another number of columns.
    """
    require_posterior("components", post)
    names = names_of(post, "columns", columns)
    parts = _mean_components(post)
    picture, order = _as_the_data(post, picture, order)
    picture = picture or picture_of(parts.H.shape[1], names)
    axes = _image_grid(parts, picture, order, ax) if picture else _profile_grid(parts, names, ax)
    entitle(axes[0].figure, title or f"{label_of(post)}: components (rows of H), strongest first")
    return panels(axes)


def label_of(post: Posterior) -> str:
    """The model, the method and the rank, as a title says them."""
    return f"{post.model.name} by {post.method}, rank {post.model.rank}"


def _as_the_data(post: Posterior, picture: tuple[int, int] | None, order: str) -> tuple[tuple[int, int] | None, str]:
    """The picture that is asked for, or the one that the fit's data set has."""
    own = post.attrs.get("picture")
    if picture is not None or own is None:
        return picture, order
    height, width = own["shape"]
    return (height, width), own["order"]


def picture_of(D: int, names: Sequence[str] | None) -> tuple[int, int] | None:
    """The square that D pixels fill, if they fill one and their names, where they have any, only number them."""
    side = math.isqrt(D)
    square = side * side == D and side >= 8
    return (side, side) if square and (names is None or number_pixels(names)) else None


def as_picture(values: np.ndarray, picture: tuple[int, int], order: str) -> np.ndarray:
    """A row of X as its pixels lie, (height, width). Raises ValueError where it has another number of cells."""
    if len(values) != picture[0] * picture[1]:
        raise ValueError(
            f"a row has {len(values)} cells and a picture of {picture[0]} × {picture[1]} has others in number"
        )
    return values.reshape(picture, order="F" if order == "F" else "C")


def size_of(picture: tuple[int, int]) -> tuple[float, float]:
    """(height, width) in inches of one of many pictures: about the same area, wide enough for a title."""
    height, width = picture
    shape = math.sqrt(height / width)
    return float(np.clip(1.1 * shape, 0.4, 3.0)), float(np.clip(1.1 / shape, 0.75, 3.0))


class Parts(NamedTuple):
    """Components that sum to one, in the order of `Posterior.components`."""

    H: np.ndarray  # (K, D)
    share: np.ndarray  # (K,), of the sum of W @ H
    bounds: np.ndarray | None  # (2, K, D), of H; None where one draw has none

    def name(self, k: int) -> str:
        """Component k's title: its place from 1, and its share in per cent."""
        percent = f"{self.share[k]:.0%}" if not 0 < self.share[k] < 0.005 else "<1%"
        return f"{k + 1}: {percent}"


def _mean_components(post: Posterior) -> Parts:
    W, draws = aligned(post, scale=True)
    H = array(draws.mean(0))
    total = array(W.mean(0)).sum(0) * H.sum(1)  # the sums of H are one, or zero of a dead component
    return Parts(H, total / (total.sum() or 1.0), _bounds(draws))


def _bounds(draws: Tensor) -> np.ndarray | None:
    """What holds LEVEL of the draws (S, K, D) of each entry of H, (2, K, D)."""
    if len(draws) == 1:
        return None
    some = draws[:: -(-len(draws) // DRAWS)]
    return np.quantile(array(some), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)


def _image_grid(parts: Parts, picture: tuple[int, int], order: str, place: Axes | None) -> list[Axes]:
    """Each component as a picture of its own scale, in few lines of many."""
    K = len(parts.H)
    height, width = size_of(picture)
    fit = max(1, int(PAGE / width))
    across = min(K, fit if fit >= K or K > 24 else math.ceil(K / 2), fit)
    down = -(-K // across)
    figure = sheet(place, max(width * across + 0.3, 4.0), (height + 0.25) * down + 0.7)
    axes = list(grid(figure, down, across).flat)
    for k, ax in enumerate(axes):
        if k >= K:
            ax.set_axis_off()
            continue
        ax.imshow(as_picture(parts.H[k], picture, order), vmin=0, vmax=parts.H[k].max() or 1.0)
        ax.set_title(parts.name(k), loc="center", pad=3)
        frame(ax)
    x_label(figure, "percent: share of the sum of W @ H; white: 0, black: the component's largest pixel")
    return axes[:K]


def _profile_grid(parts: Parts, names: Sequence[str] | None, place: Axes | None) -> list[Axes]:
    """Each component over X's columns, all of one scale; few columns of many panels."""
    K, D = parts.H.shape
    named = names is not None and D <= SINGLE
    across = _columns_of_panels(K, named and D > SINGLE // 3)
    down = -(-K // across)
    width = max((6.5, 5.0, 4.2, 3.6)[across - 1], width_of_named(D) + 1 if named else 0)
    lettering = 0.0 if names is None else 0.06 * min(24, max(map(len, names)))
    figure = sheet(place, width * across, 1.25 * down + 0.9 + lettering)
    width = width_of_panel(figure, across)
    lines = grid(figure, down, across, sharex=True, sharey=True)
    axes = list(lines.T.flat)
    for k, ax in enumerate(axes):
        if k >= K:
            ax.set_axis_off()
            continue
        _profile(ax, parts.H[k], None if parts.bounds is None else parts.bounds[:, k])
        ax.set_title(parts.name(k) + _largest(parts.H[k], names, width - 0.8), pad=3)
        plain(ax)
    highest = parts.H if parts.bounds is None else parts.bounds
    axes[0].set_ylim(0, span(0, float(highest.max()))[1])
    for ax in lowest(lines):
        label_columns(ax, names, D, width - 0.8)
    figure.supylabel("row of H / its sum")
    if parts.bounds is not None:
        x_label(figure, f"bounds: {LEVEL:.0%} of the draws")
    return axes[:K]


def _columns_of_panels(K: int, wide: bool) -> int:
    if K <= 5:
        return 1
    if K <= 12 or wide:
        return 2
    return 3 if K <= 24 else 4


def _profile(ax: Axes, values: np.ndarray, bounds: np.ndarray | None) -> None:
    """Entries of a component over X's columns (D,), and their bounds (2, D)."""
    at = np.arange(len(values))
    few = len(at) <= SINGLE
    if few:
        ax.vlines(at, 0, values, color=COLOURS[0], linewidth=2)
    else:
        ax.plot(at, values, color=COLOURS[0], linewidth=0.7)
    if bounds is None:
        return
    if few:
        ax.vlines(at, *bounds, color=INK, linewidth=0.8)
    else:
        ax.fill_between(at, *bounds, color=COLOURS[0], alpha=0.25, linewidth=0)


def _largest(values: np.ndarray, names: Sequence[str] | None, width: float) -> str:
    """The names of the largest entries, where the axis has no room for all names: as many as fit a width in inches."""
    if names is None or len(names) <= SINGLE:
        return ""
    character = CHARACTER * PANEL * POINT
    fit = int(width / character - len("100: 100%; largest: ")) // (LARGEST_NAME + 2)
    first = np.argsort(-values, kind="stable")[: min(LARGEST, fit)]
    return "; largest: " + ", ".join(shortened(names[j], LARGEST_NAME) for j in first) if fit > 0 else ""
