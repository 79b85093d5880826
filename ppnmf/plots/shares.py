"""Tables of shares between 0 and 1, as pictures: of topics, of labels, of loadings, of chains that are alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from ppnmf.plots.names import shortened
from ppnmf.plots.places import single
from ppnmf.plots.style import CHARACTER, POINT, TICK, plain

__all__ = ["by_largest", "draw_shares", "room"]

MOST_NAMED = 40  # rows of a panel that carry their names
ROW = 0.22  # inches
LONGEST = 30  # characters of a name


def room(ax: Axes | None, rows: int, columns: Sequence[str]) -> Axes:
    """`ax`, or a sheet with room for the rows, and for the columns' names below them."""
    below = min(LONGEST, max(map(len, columns))) * CHARACTER * TICK * POINT
    return single(ax, max(4.5, 3.0 + 0.4 * len(columns)), 1.2 + below + min(7.0, max(1.8, ROW * rows)))


def draw_shares(
    ax: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], words: str = "share"
) -> None:
    """Shares (rows, columns) between 0, white, and 1, black, with a name a row and a column where there is room."""
    image = ax.imshow(values, vmin=0, vmax=1, aspect="auto")
    ax.set_xticks(range(len(columns)), [shortened(name, LONGEST) for name in columns], rotation=90)
    every = -(-len(rows) // MOST_NAMED)
    ax.set_yticks(range(0, len(rows), every), [shortened(name, LONGEST) for name in rows[::every]])
    plain(ax)
    bar = ax.figure.colorbar(image, ax=ax, label=words)
    plain(bar.ax)


def by_largest(values: np.ndarray) -> np.ndarray:
    """The rows of shares in the order of the column that is largest in them, and of how large it is."""
    return np.lexsort((-values.max(1), values.argmax(1)))
