"""What a survey of starts found."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ppnmf.plots.factors import label_of
from ppnmf.plots.style import COLOURS, entitle, legend_below, new_figure, plain, styled
from ppnmf.posterior import Posterior
from ppnmf.required import require_posterior


@styled
def survey(post: Posterior, title: str | None = None) -> Figure:
    """How far each start of the survey lies below the best one, sorted; where chains began, and what was left out.

    Raises:
        ValueError: the chains did not begin at a survey's starts.
    """
    require_posterior("survey", post)
    found = post.survey
    if found is None:
        raise ValueError(
            f"{post.method} made no survey of starts: fit with init='survey', and in a run that is not short"
        )
    below = np.asarray(found.below)
    order = np.argsort(below, kind="stable")
    chosen = np.isin(order, found.chosen)
    here = np.asarray(found.here)[order]
    place = np.arange(1, found.starts + 1)
    figure = new_figure(8.5, 3.6)
    ax = figure.subplots()
    kinds = {
        "where a chain began": (chosen, COLOURS[0], "D"),
        "in the mode of a chain": (here & ~chosen, COLOURS[0], "o"),
        "left out": (~here, COLOURS[1], "x"),
    }
    for name, (own, colour, marker) in kinds.items():
        if own.any():
            ax.plot(place[own], below[order][own], marker, color=colour, label=name, markersize=6)
    ax.invert_yaxis()
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("start, the best first")
    ax.set_ylabel("below the best one\n(nats of log joint)")
    plain(ax)
    legend_below(figure, [ax])
    entitle(figure, title or f"{label_of(post)}: survey of {found.starts} starts")
    return figure
