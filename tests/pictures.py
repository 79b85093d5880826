"""What no picture may do, found by drawing it: cut data or text off, lay text on text or on data, leave axes without words."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from ppnmf.plots.places import Picture, figure_of

SLACK = 0.5  # pixels


def drawn(picture: Picture) -> Figure:
    """The whole figure, laid out."""
    figure = figure_of(picture)
    FigureCanvasAgg(figure).draw()
    return figure


def panels(picture: Picture) -> list[Axes]:
    return [ax for ax in figure_of(picture).axes if ax.axison and ax.get_visible()]


def texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every text that is seen, and the pixels that it takes."""
    renderer = figure.canvas.get_renderer()
    seen = [text for text in _texts(figure) if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in seen]


def _texts(figure: Figure) -> Iterator[Text]:
    yield from (text for text in (figure._suptitle, figure._supxlabel, figure._supylabel) if text is not None)
    for legend in figure.legends:
        yield from legend.get_texts()
    for ax in panels(figure):
        yield from _texts_of_panel(ax)
        for other in ax.child_axes:
            yield from _tick_labels(other.xaxis)


def _texts_of_panel(ax: Axes) -> Iterator[Text]:
    yield from (ax.title, ax._left_title, ax._right_title, *ax.texts)
    for axis in (ax.xaxis, ax.yaxis):
        yield axis.label
        yield axis.offsetText
        yield from _tick_labels(axis)
    if ax.get_legend() is not None:
        yield from ax.get_legend().get_texts()


def _tick_labels(axis) -> Iterator[Text]:
    """Of the ticks that are drawn; an axis keeps others."""
    low, high = sorted(axis.get_view_interval())
    for tick in axis.get_major_ticks():
        if low <= tick.get_loc() <= high:
            yield from (tick.label1, tick.label2)


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that lie on each other."""
    pairs = itertools.combinations(texts(figure), 2)
    return [(a, b) for (a, one), (b, other) in pairs if _meet(one, other)]


def on_data(figure: Figure) -> list[str]:
    """Texts that lie where a panel draws its data."""
    areas = [ax.get_window_extent() for ax in panels(figure)]
    return [text for text, box in texts(figure) if any(_meet(box, area) for area in areas)]


def clipped(figure: Figure) -> list[str]:
    """Texts that reach beyond the figure."""
    page = figure.bbox
    return [
        text
        for text, box in texts(figure)
        if min(box.x0 - page.x0, box.y0 - page.y0, page.x1 - box.x1, page.y1 - box.y1) < -SLACK
    ]


def cut(figure: Figure) -> list[tuple[str, Bbox]]:
    """Panels whose data reach beyond their axes."""
    found = []
    for ax in panels(figure):
        data, view = ax.dataLim, ax.viewLim
        slack = 1e-9 + 1e-6 * max(abs(view.width), abs(view.height))
        for low, high, (least, most) in (
            (data.x0, data.x1, sorted(view.intervalx)),
            (data.y0, data.y1, sorted(view.intervaly)),
        ):
            if low <= high and (low < least - slack or high > most + slack):  # an axis without data has low > high
                found.append((ax.get_title(loc="left"), data))
    return found


def unlabelled(figure: Figure) -> list[str]:
    """Axes with ticks of which nothing says what they count."""
    found = []
    for k, ax in enumerate(panels(figure)):
        x = [label for label in _tick_labels(ax.xaxis) if label.get_visible() and label.get_text()]
        y = [label for label in _tick_labels(ax.yaxis) if label.get_visible() and label.get_text()]
        named = any(
            not label.get_text().lstrip("−-").replace(".", "").isdigit() for label in x
        )  # names say it themselves
        if x and not named and figure._supxlabel is None and not _words_below(ax, figure):
            found.append(f"x of panel {k}")
        if y and not ax.get_ylabel() and figure._supylabel is None and not _shares_words(ax, figure):
            found.append(f"y of panel {k}")
    return found


def _words_below(ax: Axes, figure: Figure) -> bool:
    """Whether it, or a panel of the same column of panels, has the words."""
    column = ax.get_subplotspec().colspan
    return any(other.get_xlabel() for other in panels(figure) if other.get_subplotspec().colspan == column)


def _shares_words(ax: Axes, figure: Figure) -> bool:
    """Whether another panel of the same line shares the y axis and has the words."""
    line = ax.get_shared_y_axes().get_siblings(ax)
    return any(other.get_ylabel() for other in line)


def faults(picture: Picture) -> dict[str, list]:
    """All of these that the figure has."""
    figure = drawn(picture)
    checks = {
        "overlapping": overlaps, "on data": on_data, "clipped": clipped, "cut": cut, "unlabelled": unlabelled,
    }  # fmt: skip
    return {name: found for name, check in checks.items() if (found := check(figure))}


def _meet(one: Bbox, other: Bbox) -> bool:
    shared = Bbox.intersection(one, other)
    return shared is not None and shared.width > SLACK and shared.height > SLACK
