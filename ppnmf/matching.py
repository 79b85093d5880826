"""Which component of one factorisation belongs to which of another: the likelihood sees them only up to order and scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import permutations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ppnmf.settings import own_settings

__all__ = ["all_orders", "apart", "best_orders", "crossed_orders", "furthest_apart", "gathered", "in_order"]

Total = Callable[[Tensor], Tensor]  # the sum over the processes that share the rows of W


def _own(part: Tensor) -> Tensor:
    return part


@own_settings()
def best_orders(W: Tensor, H: Tensor, V: Tensor, G: Tensor, total: Total = _own) -> Tensor:
    r"""Orders of the components of the draws W (S, N, K), H (S, K, D) that fit V (N, K), G (K, D) best.

    Least is :math:`\sum_k \|W_{o(k)} H_{o(k)} - V_k G_k\|^2`, which order and nothing else can change through
    :math:`\sum_k (W_{o(k)} \cdot V_k) (H_{o(k)} \cdot G_k)`: two K × K products and an assignment a draw, no N × D
    matrix. The scale of a component plays no part, and one that is zero throughout takes the place that is left.

    Args:
        V, G: also one a draw, (S, N, K) and (S, K, D).
        total: adds up what the processes find, where each has some rows of W and V.

    Returns: (S, K), on the CPU: entry [s, k] is the component of draw s that belongs in place k.

    References: Kuhn (1955), the Hungarian method; Stephens (2000), doi:10.1111/1467-9868.00265, for such relabelling.
    """
    K = W.shape[-1]
    gain = (total(V.mT @ W) * (G @ H.mT)).double().cpu().numpy()  # (S, K of the reference, K of the draw)
    orders = np.empty((len(gain), K), dtype=np.int64)
    for s, of_draw in enumerate(gain):
        orders[s] = linear_sum_assignment(of_draw, maximize=True)[1]
    return torch.from_numpy(orders)


def in_order(W: Tensor, H: Tensor, orders: Tensor) -> tuple[Tensor, Tensor]:
    """W (S, N, K) and H (S, K, D) with component orders[s, k] in place k."""
    return gathered(W, orders, -1), gathered(H, orders, -2)


@cache
def all_orders(size: int) -> Tensor:
    """The orders of so many components, (size!, size); the first leaves them where they are."""
    return torch.tensor(list(permutations(range(size))))


def crossed_orders(sizes: Sequence[int]) -> list[Tensor]:
    """All combinations of orders of components of several kinds, T of them: (T, size) of each kind; the first leaves all in place.

    >>> [orders.tolist() for orders in crossed_orders([2, 1])]
    [[[0, 1], [1, 0]], [[0], [0]]]
    """
    each = [all_orders(size) for size in sizes]
    grid = torch.cartesian_prod(*(torch.arange(len(orders)) for orders in each)).view(-1, len(each)) if each else None
    return [] if grid is None else [orders[grid[:, n]] for n, orders in enumerate(each)]


def gathered(values: Tensor, orders: Tensor, axis: int) -> Tensor:
    """Values of a site, with entry orders[..., k] of an axis in place k.

    Args:
        values: (*S, *site). orders: (*S, K).
        axis: of the site, counted from its last one, -1, on.
    """
    lead = orders.ndim - 1
    shape = [1] * (values.ndim - lead)
    shape[axis] = -1
    index = orders.to(values.device).view(*orders.shape[:-1], *shape)
    return values.gather(values.ndim + axis, index.expand(values.shape))


def apart(W: Tensor, H: Tensor, V: Tensor, G: Tensor, total: Total = _own) -> Tensor:
    r"""How far factorisations lie from another, component by component, (S,), float64.

    That is :math:`\sum_k \|W_k H_k - V_k G_k\|^2 / \sum_k \|V_k G_k\|^2` in the best order: W @ H may be nearly the same
    where this is not small. The arguments are those of `best_orders`.
    """
    each, size = _each_apart(W, H, V, G, total)
    return (each.sum(-1) / size).clamp(min=0)


@own_settings()
def furthest_apart(W: Tensor, H: Tensor, V: Tensor, G: Tensor, total: Total = _own) -> Tensor:
    r"""How far the component that differs most lies from the other factorisation's, (S,), float64.

    That is :math:`\max_k \|W_k H_k - V_k G_k\|^2` over the mean of :math:`\|V_k G_k\|^2`, in the best order: where one component
    of many is another, `apart` is small and this is not; a weak one does not count. The arguments are those of `best_orders`.
    """
    each, size = _each_apart(W, H, V, G, total)
    return (each.amax(-1) * each.shape[-1] / size).clamp(min=0)


def _each_apart(W: Tensor, H: Tensor, V: Tensor, G: Tensor, total: Total) -> tuple[Tensor, Tensor]:
    """‖W_k H_k - V_k G_k‖² in the best order (S, K), and the sum of ‖V_k G_k‖² (S,) or ()."""
    W, H = in_order(W, H, best_orders(W, H, V, G, total))
    W, H, V, G = (factor.double() for factor in (W, H, V, G))
    own = total(W.square().sum(-2)) * H.square().sum(-1)
    theirs = total(V.square().sum(-2)) * G.square().sum(-1)
    both = total((W * V).sum(-2)) * (H * G).sum(-1)
    size = theirs.sum(-1).clamp(min=torch.finfo(torch.float64).tiny)
    return own + theirs - 2 * both, size
