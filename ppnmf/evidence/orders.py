"""Orders of the components of many draws at once, each within classes of equal priors.

Which sites go by component, and on which of their axes, a model says by its `sites` (`axes_of`); those of W and H are known.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ppnmf.matching import gathered
from ppnmf.protocols import Model, Params

__all__ = ["Axes", "axes_of", "in_one_order", "ordered_like", "reordered", "strongest_first"]

Axes = Mapping[str, int]  # on which a site has its components, counted from its last one, -1, on
FACTORS = {"W": -1, "H": -2}


def axes_of(model: Model, kind: str = "component") -> dict[str, int]:
    """Of each of the model's sites that goes by component, or by what else its dimensions are called.

    >>> from ppnmf.models import ARDGaussian
    >>> axes_of(ARDGaussian(3))
    {'W': -1, 'H': -2, 'rate': -1}
    """
    each = {site: list(dims) for site, dims in model.sites(1, 1).items()}
    return {site: dims.index(kind) - len(dims) for site, dims in each.items() if kind in dims}


def ordered_like(
    reference: Params, params: Params, classes: list[int], first: int = 0, axes: Axes = FACTORS
) -> dict[str, Tensor]:
    """The components from `first` on in the order that brings them nearest to the reference's, within their classes.

    Nearest by Σ_k ‖W_k H_k - W_k^ref H_k^ref‖², as in `ppnmf.align`; here each chain has a reference of its own.

    Args:
        axes: of the sites that go by component (`axes_of`), where there are others than W and H.
    """
    if first == len(classes):
        return dict(params)
    W, H = params["W"][..., first:], params["H"][:, first:]
    likeness = (reference["W"][..., first:].mT @ W) * (reference["H"][:, first:] @ H.mT)  # (C, reference's, own)
    gains = likeness.double().cpu()
    own = torch.tensor(classes[first:])
    apart = own[:, None] != own  # a component may not take a place whose priors are others
    gains = gains - torch.where(apart, 2 * len(classes) * gains.amax((-2, -1), keepdim=True) + 1, 0.0)
    found = _best_assignments(gains.numpy()) + first
    kept = np.broadcast_to(np.arange(first), (len(found), first))
    order = torch.from_numpy(np.concatenate([kept, found], 1))  # (C, K)
    return reordered(params, order, axes)


def _best_assignments(gains: np.ndarray) -> np.ndarray:
    """The column of each row with the greatest sum of gains (C, K, K), (C, K).

    Where each row has its greatest gain on the diagonal no sum can be above that of the diagonal.
    """
    K = gains.shape[1]
    found = np.tile(np.arange(K), (len(gains), 1))
    for c in np.flatnonzero((gains.argmax(2) != found).any(1)):
        found[c] = linear_sum_assignment(gains[c], maximize=True)[1]
    return found


def in_one_order(draws: Params, first: Params, classes: list[int], axes: Axes = FACTORS) -> dict[str, Tensor]:
    """Draws (S, *site) whose components are in the order that suits their mean.

    Args:
        first: a draw (*site), whose order they take first.
    """
    begun = ordered_like({site: values[None] for site, values in first.items()}, draws, classes, axes=axes)
    means = {site: values.mean(0, keepdim=True) for site, values in begun.items()}
    return ordered_like(means, begun, classes, axes=axes)


def strongest_first(params: Params, classes: list[int]) -> dict[str, Tensor]:
    """The components by falling ‖W_k‖‖H_k‖ within their classes: those the data need, which hardly vary, are pinned first.

    Any order is right. This one leaves the superfluous components to the end, where their ordinates average over far
    fewer rare events: at one rank above the truth it took nats off both the error and the bias.
    """
    strength = (params["W"].norm(dim=-2) * params["H"].norm(dim=-1)).cpu()  # (C, K)
    order = torch.empty_like(strength, dtype=torch.int64)
    for one in set(classes):
        members = torch.tensor([m for m, its in enumerate(classes) if its == one])
        order[:, members] = members[strength[:, members].argsort(-1, descending=True)]
    return reordered(params, order)


def reordered(params: Params, order: Tensor, axes: Axes = FACTORS) -> dict[str, Tensor]:
    """Component order[c, k] of chain c in place k, of the sites that go by component."""
    if bool((order == torch.arange(order.shape[1], device=order.device)).all()):
        return dict(params)
    return {site: gathered(own, order, axes[site]) if site in axes else own for site, own in params.items()}
