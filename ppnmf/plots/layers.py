"""Which components of a layer gather in which of the next, and predicted labels with their probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from ppnmf.checks import whole_number
from ppnmf.labelling import PredictedLabels
from ppnmf.plots.factors import label_of
from ppnmf.plots.shares import by_largest, draw_shares, room
from ppnmf.plots.style import array, name_single, styled
from ppnmf.posterior import Posterior
from ppnmf.required import require_posterior

__all__ = ["labels", "topics"]


@styled
def topics(
    post: Posterior,
    layer: int = 1,
    names: Sequence[str] | None = None,
    wider: Sequence[str] | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """The topic tree between a layer and the one before: how each component is shared out among the wider ones.

    Row k is divided by its sum, after every wider component has got the strength that it has in X; rows are ordered by where
    most of them goes. Of several modes the best one; of chains the best draw, since layers of different draws have no common order.

    Args:
        layer: l, of A_l, from 1 on.
        names: of the components of layer l - 1; wider: of those of layer l; numbers from 0 by default.
        ax: where to draw; a figure of its own by default.

    Raises:
        ValueError: the fit has no such layer, or names are not one for each component.
    """
    require_posterior("topics", post)
    whole_number("layer", layer, 1)
    best = post.best()
    site = f"A{layer}"
    if site not in best.draws:
        raise ValueError(f"{post.model.name} has no layer {layer}: there are {', '.join(best.draws)}")
    share, order = _shares(best, layer)
    below = _named("names", names, share.shape[0])
    above = _named("wider", wider, share.shape[1])
    own = room(ax, len(share), above)
    draw_shares(own, share[order], [below[k] for k in order], above)
    own.set(xlabel=f"component of layer {layer}", ylabel=f"component of layer {layer - 1}")
    name_single(own, ax, title, f"{label_of(post)}: what gathers in layer {layer}")
    return own


@styled
def labels(predicted: PredictedLabels, title: str | None = None, ax: Axes | None = None) -> Axes:
    """The probabilities of the classes for each observation whose label the fit was not told, ordered by the likeliest class.

    Args:
        predicted: of `ppnmf.predicted_labels`; where all labels were known, all are shown.
        ax: where to draw; a figure of its own by default.
    """
    rows = (~predicted.known).nonzero()[:, 0].numpy()
    rows = rows if len(rows) else np.arange(len(predicted.known))
    p = predicted.probabilities.numpy()[rows]
    order = by_largest(p)
    names = [str(row) if predicted.names is None else predicted.names[row] for row in rows[order]]
    own = room(ax, len(rows), predicted.classes)
    draw_shares(own, p[order], names, list(predicted.classes))
    own.set(xlabel="class", ylabel="observation")
    name_single(own, ax, title, f"{len(rows)} predicted labels: probability of each class")
    return own


def _shares(best: Posterior, layer: int) -> tuple[np.ndarray, list[int]]:
    """How each component of the layer before is shared out, (K_before, K), rows of sum one; and an order of them."""
    right = best.draws[f"A{layer}"][0, 0].double()
    rest = best.draws["H"][0, 0].double()
    sites = [f"A{number}" for number in range(layer + 1, len(best.draws))]
    for site in reversed([site for site in sites if site in best.draws]):
        rest = best.draws[site][0, 0].double() @ rest
    strength = array(right * rest.sum(-1))
    total = strength.sum(1, keepdims=True)
    share = strength / np.where(total > 0, total, 1.0)
    return share, by_largest(share).tolist()


def _named(what: str, names: Sequence[str] | None, count: int) -> list[str]:
    if names is None:
        return [str(k) for k in range(count)]
    if len(names) != count:
        raise ValueError(f"{what} holds {len(names)} names and there are {count} components")
    return list(names)
