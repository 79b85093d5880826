"""What a survey of starts found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ppnmf.plots.factors import label_of
from ppnmf.plots.places import single
from ppnmf.plots.style import COLOURS, legend_of_single, name_single, plain, styled
from ppnmf.posterior import Posterior
from ppnmf.required import require_posterior
from ppnmf.surveyed import Survey

if TYPE_CHECKING:
    from ppnmf.diagnostics.modes import Masses


@styled
def survey(post: Posterior, title: str | None = None, masses: Masses | None = None, ax: Axes | None = None) -> Axes:
    """How far each start of the survey lies below the best one, sorted; where chains began, and what was left out.

    Args:
        masses: of the chains' modes (`mode_masses`): where chains began is then marked by mode, with the mode's log mass.
        ax: where to draw; a figure of its own by default.

    Raises:
        ValueError: the chains did not begin at a survey's starts, or the masses are those of other chains.
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
    panel = single(ax, 8.5, 3.6)
    began = {"where a chain began": (chosen, COLOURS[0], "D")} if masses is None else _by_mode(found, masses, order)
    kinds = {
        **began,
        "in the mode of a chain": (here & ~chosen, COLOURS[0], "o"),
        "left out": (~here, COLOURS[1], "x"),
    }
    for name, (own, colour, marker) in kinds.items():
        if own.any():
            panel.plot(place[own], below[order][own], marker, color=colour, label=name, markersize=6)
    panel.invert_yaxis()
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_xlabel("start, the best first")
    panel.set_ylabel("below the best one\n(nats of log mass, about)")
    plain(panel)
    legend_of_single(panel, ax)
    name_single(panel, ax, title, f"{label_of(post)}: survey of {found.starts} starts")
    return panel


def _by_mode(found: Survey, masses: Masses, order: np.ndarray) -> dict[str, tuple[np.ndarray, str, str]]:
    """Where the chains of each mode began, with its mass: label -> the starts, as they are sorted, colour and marker."""
    if sum(map(len, masses.groups)) != len(found.chosen):
        raise ValueError(
            f"masses are of {sum(map(len, masses.groups))} chain(s), and {len(found.chosen)} began at starts of the survey: "
            "give mode_masses of this posterior"
        )
    kinds = {}
    for mode, group in enumerate(masses.groups):
        starts = [found.chosen[chain] for chain in group]
        label = f"mode {mode} began, log mass {masses.log_mass[mode]:.1f} ± {masses.error[mode]:.2g}"
        colour = COLOURS[0] if mode == 0 else COLOURS[2 + (mode - 1) % (len(COLOURS) - 2)]
        kinds[label] = (np.isin(order, starts), colour, "D")
    return kinds
