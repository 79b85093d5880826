"""Where a picture is drawn: on a sheet of its own, or in the place of somebody else's axes.

Every plot takes `ax=`. A plot of one panel draws in it; a plot of several divides its place among them. What comes back are the
axes, which show their picture in a notebook although no window knows of them.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from ppnmf.checks import described
from ppnmf.disk import replacing

__all__ = [
    "Panel",
    "Panels",
    "Picture",
    "Sheet",
    "figure_of",
    "grid",
    "panels",
    "png",
    "save",
    "sheet",
    "single",
    "width_of_panel",
]


class Panel(Axes):
    """Axes that show their whole picture in a notebook."""

    def _repr_png_(self) -> bytes:
        return png(self)


class Panels(np.ndarray):
    """The axes of a picture's panels; in a notebook, the picture.

    `panels.figure` is the figure that they are on.
    """

    @property
    def figure(self) -> Figure:
        """The whole figure."""
        return figure_of(self)

    def _repr_png_(self) -> bytes:
        return png(self)

    def __repr__(self) -> str:
        return f"<{self.size} panels>"


Picture = Figure | Axes | Panels
Sheet = Figure | SubFigure


def figure_of(picture: Picture) -> Figure:
    """The whole figure that panels are on. Raises TypeError for what is no picture."""
    if isinstance(picture, Figure):
        return picture
    first = picture.flat[0] if isinstance(picture, np.ndarray) and picture.size else picture
    if not isinstance(first, Axes):
        raise TypeError(f"a figure, axes or an array of axes is needed, not {described(picture)}")
    return first.figure.figure  # of a part of a figure, the whole


def png(picture: Picture, dpi: int = 110) -> bytes:
    """The whole figure as a PNG file."""
    file = io.BytesIO()
    figure_of(picture).savefig(file, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return file.getvalue()


def save(picture: Picture, path: str | Path) -> Path:
    """Write the whole figure to a file, whose suffix says the format.

    Args:
        picture: what a plot returned, or a figure.

    Raises:
        TypeError: it is no picture.
        ValueError: matplotlib has no such format.
        OSError: the file cannot be written, in a sentence; what was there stays.
    """
    path = Path(path)
    figure = figure_of(picture)
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix.lstrip(".") or None, dpi=130, facecolor="white")
    return path


def sheet(ax: Axes | None, width: float, height: float) -> Sheet:
    """An empty figure of a size in inches, or the place of `ax` in its own, which several panels then share.

    Constrained layout keeps apart what panels carry; a figure without a layout gets it.

    Raises:
        TypeError: ax is no axes.
        ValueError: ax was put down by hand, so that nothing says how its place is divided.
    """
    if ax is None:
        figure = Figure(figsize=(width, height), layout="constrained")
        engine = figure.get_layout_engine()
        assert engine is not None
        engine.set(w_pad=0.06, h_pad=0.05, wspace=0.02, hspace=0.03)  # type: ignore[call-arg]
        return figure
    _require_axes(ax)
    place = ax.get_subplotspec()
    if place is None:
        raise ValueError("ax does not lie in a grid, and several panels are to share its place: make it by subplots")
    parent = ax.figure
    if parent.figure.get_layout_engine() is None:
        parent.figure.set_layout_engine("constrained")
    ax.remove()
    return parent.add_subfigure(place)


def width_of_panel(figure: Sheet, across: int) -> float:
    """Inches of each of so many panels beside each other, their axes' labels included."""
    return float(figure.bbox.width / figure.dpi / across)


def single(ax: Axes | None, width: float, height: float) -> Axes:
    """`ax`, or the one panel of a figure of its own, inches. Raises TypeError where ax is no axes."""
    if ax is not None:
        return _require_axes(ax)
    return sheet(None, width, height).subplots(subplot_kw={"axes_class": Panel})


def grid(figure: Sheet, down: int, across: int, **options: Any) -> Any:
    """The panels of a figure, (down, across); options as of `Figure.subplots`."""
    return figure.subplots(down, across, squeeze=False, subplot_kw={"axes_class": Panel}, **options)


def panels(axes: Iterable[Axes] | np.ndarray[Any, Any]) -> Panels:
    """Axes, in whatever shape they come, as what a plot of several panels returns."""
    return np.asarray(axes if isinstance(axes, np.ndarray) else list(axes), dtype=object).view(Panels)


def _require_axes(ax: Any) -> Axes:
    if not isinstance(ax, Axes):
        raise TypeError(f"ax is {described(ax)}; give matplotlib axes, or leave it out")
    return ax
