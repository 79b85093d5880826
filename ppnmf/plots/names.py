"""The names of X's rows and columns, on axes and in titles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ppnmf.diagnostics.names import shortened as on_one_line
from ppnmf.plots.style import CHARACTER, POINT, TICK
from ppnmf.posterior import Posterior

LONGEST = 24  # characters of a name that are shown
SINGLE = 100  # columns that are drawn and named each by itself; more become a line, and some of their names are shown
ROOM = 1.3 * TICK * POINT  # inches that an upright name takes
PIXEL = re.compile(r"(pixel|px)?[ _]?\d+([ _x,]\d+)*", re.IGNORECASE)


def names_of(post: Posterior, axis: str, given: Any = None) -> list[str] | None:
    """Names of X's "rows" or "columns": those given, else the posterior's own, else None.

    Raises:
        ValueError: they are not as many as X has rows or columns.
    """
    names = post.names.get(axis) if given is None else given
    if names is None:
        return None
    size = post.X.shape[0 if axis == "rows" else 1]
    if len(names) != size:
        raise ValueError(f"{axis} holds {len(names)} names and X has {size} {axis}: give one name for each")
    return [str(name) for name in names]


def shortened(name: str, longest: int = LONGEST) -> str:
    """The name as a picture can hold it: on one line, a long one without its middle, a dollar sign as it is."""
    return on_one_line(name, longest).replace("$", r"\$")


def row_title(names: Sequence[str] | None, row: int, longest: int = LONGEST) -> str:
    """The row's name, shortened, or its number from 0."""
    return f"row {row}" if names is None else shortened(names[row], longest)


def number_pixels(names: Sequence[str]) -> bool:
    """Whether the names only number pixels ("pixel_0_7", "28x28", "783"), so that a row can still be a picture."""
    return all(PIXEL.fullmatch(name.strip()) for name in names)


def width_of_named(D: int) -> float:
    """Inches that D names ask of an axis."""
    return ROOM * D


def label_columns(ax: Axes, names: Sequence[str] | None, D: int, width: float) -> None:
    """X's columns on the lower axis of a panel of a width in inches: every name, some of very many, or numbers."""
    ax.set_xlim(-0.6, D - 0.4)
    if names is None:
        ax.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True))
        ax.set_xlabel("column of X")
        return
    shown = [shortened(name) for name in names]
    level = max(map(len, shown)) * CHARACTER * TICK * POINT < 0.9 * width / D
    if D <= SINGLE:
        ax.set_xticks(np.arange(D), shown)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(nbins=max(1, min(25, int(width / ROOM / 2))), integer=True))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda at, _: shown[int(at)] if 0 <= at < D else ""))
    ax.tick_params(axis="x", labelrotation=0 if level and D <= SINGLE else 90)
