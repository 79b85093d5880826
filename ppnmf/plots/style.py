"""How every picture looks: its colours, its sizes of type, and what stands around the data.

Colours are Okabe and Ito's, which colour-blind readers can tell apart. No text stands among the data: what a panel shows is
said above it, names and numbers stand on its axes, and the legend is below the panels.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase, SubFigure
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK = "#333333"
PALE = "#BBBBBB"
# Sizes of type, points
TITLE = 10.0
PANEL = 8.5
LABEL = 9.0
TICK = 8.0
POINT = 1 / 72  # inch
CHARACTER = 0.62  # its mean width over the size of type, rather too much than too little

STYLE: Any = {
    "axes.edgecolor": INK,
    "axes.facecolor": "white",
    "axes.formatter.limits": (-4, 6),
    "axes.formatter.useoffset": False,
    "axes.grid": False,
    "axes.labelcolor": INK,
    "axes.labelsize": LABEL,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": PANEL,
    "figure.facecolor": "white",
    "figure.labelsize": LABEL,
    "figure.titlesize": TITLE,
    "image.cmap": "gray_r",
    "image.interpolation": "nearest",
    "legend.fontsize": TICK,
    "legend.frameon": False,
    "legend.markerscale": 1.5,
    "lines.linewidth": 1.2,
    "text.color": INK,
    "text.usetex": False,
}
_one_at_a_time = threading.RLock()  # matplotlib's settings are one dict for all threads


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """The function drawing in our style, whatever the reader's own is; that one is put back."""

    @functools.wraps(draw)
    def drawing(*args: P.args, **options: P.kwargs) -> T:
        with _one_at_a_time, matplotlib.rc_context(STYLE):
            return draw(*args, **options)

    return drawing


def entitle(figure: FigureBase, text: str) -> None:
    """Above everything, in as many lines as the width asks for."""
    figure.suptitle(text, x=0.01, ha="left", wrap=True)


def x_label(figure: FigureBase, text: str) -> None:
    """Of all panels, in as many lines as the width asks for."""
    figure.supxlabel(text, wrap=True)


def plain(ax: Axes) -> None:
    """Ticks as in every picture; they are made late, when the style is no longer set."""
    ax.tick_params(labelsize=TICK, color=INK, labelcolor=INK)


def frame(ax: Axes) -> None:
    """A pale frame and no ticks: round a picture, whose pixels need none."""
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(True)
        spine.set_color(PALE)


def name_single(ax: Axes, given: Axes | None, title: str | None, otherwise: str) -> None:
    """The title of a picture of one panel: above the sheet, or on axes that were given, where it was asked for."""
    if given is None:
        entitle(ax.figure, title or otherwise)
    elif title is not None:
        ax.set_title(title)


def legend_below(figure: Figure | SubFigure, panels: Iterable[Axes]) -> None:
    """What the lines of all panels are, below them, each name once; none for a single one that needs no name."""
    found: dict[str, Any] = {}
    for ax in panels:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if not found:
        return
    entry = max(map(len, found)) * CHARACTER * TICK * POINT + 0.55  # inches, with its sample
    across = max(1, min(len(found), int(figure.bbox.width / figure.dpi / entry)))
    figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=across)


def legend_of_single(ax: Axes, given: Axes | None) -> None:
    """What the lines of the only panel are: below it on a sheet of its own, else in it, where it covers least."""
    if given is None:
        legend_below(ax.figure, [ax])
    elif ax.get_legend_handles_labels()[1]:
        ax.legend(loc="best")


def lowest(grid: np.ndarray) -> list[Axes]:
    """The lowest panel in use of each column of a grid, which alone of its column carries the numbers below."""
    found = []
    for column in grid.T:
        used = [ax for ax in column if ax.axison]
        for ax in used:
            ax.tick_params(labelbottom=ax is used[-1])
        found += used[-1:]
    return found


def span(low: float, high: float, room: float = 0.05) -> tuple[float, float]:
    """Limits that leave some room beyond; of no extent at all, a unit's worth."""
    extent = (high - low) or abs(high) or 1.0
    return low - room * extent, high + room * extent


def array(values: Tensor) -> np.ndarray:
    """The numbers as an array of doubles, wherever the tensor lies."""
    return values.detach().double().cpu().numpy()


def finite(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Those that are neither NaN nor infinite, flat."""
    values = np.asarray(values, float)
    return values[np.isfinite(values)]
