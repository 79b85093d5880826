"""Ordinary NMF, from which PAE-NMF starts, and the other numbers that its training begins with."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ppnmf.nndsvd import nndsvd
from ppnmf.rng import Site, Stream

__all__ = ["LEAST_NOISE", "OrdinaryNMF", "first_noise", "ordinary_nmf", "random_weights"]

LEAST_NOISE = 1e-10  # of the mean square of X: keeps a learned σ² positive where X is explained exactly
LEAST_START = 1e-4  # likewise, of the σ² that is begun with: Adam does not come back from a tiny one
SWEEPS = 100
LEAST_ENTRY = 1e-9  # zero would absorb
DEAD = 1e-6  # mean below which a component of W counts as dead


class OrdinaryNMF(NamedTuple):
    """X ≈ W @ H, and what is left."""

    W: Tensor  # (N, K), columns of mean one
    H: Tensor  # (K, D)
    errors: Tensor  # (D,), the squared errors of each column


def ordinary_nmf(X: Tensor, mask: Tensor | None, rank: int, stream: Stream) -> OrdinaryNMF:
    """Hierarchical least squares from NNDSVD.

    Missing entries of X hold a first guess, and are filled with W @ H before every sweep.

    Args:
        X: (N, D), without NaN.
        mask: boolean (N, D), True where observed.
    """
    W, H = nndsvd(X, rank, stream)
    for _ in range(SWEEPS):
        W = _least_squares_sweep(W, X @ H.mT, H @ H.mT)
        H = _least_squares_sweep(H.mT, X.mT @ W, W.mT @ W).mT
        if mask is not None:
            X = torch.where(mask, X, W @ H)
    mean = W.mean(0)
    alive = mean > DEAD
    W = torch.where(alive, W / mean, 1.0)
    H = torch.where(alive[:, None], H * mean[:, None], 0.01 / rank)
    return OrdinaryNMF(W, H, (X - W @ H).square().sum(0))


def _least_squares_sweep(F: Tensor, P: Tensor, Q: Tensor) -> Tensor:
    """Each column of F (R, K) at its least squares given the others, in turn; P (R, K) and Q (K, K) as in `kernels`."""
    F = F.clone(memory_format=torch.contiguous_format)
    for k in range(F.shape[1]):
        F[:, k] = (F[:, k] + (P[:, k] - F @ Q[:, k]) / Q[k, k].clamp(min=1e-12)).clamp(min=LEAST_ENTRY)
    return F


def first_noise(errors: Tensor, squares: Tensor, observed: Tensor | int, per_column: bool) -> Tensor:
    """The noise variance to begin with, () or (D,).

    Args:
        errors, squares: of each column (D,): the sums of its squared errors, and of its squares.
        observed: how many entries of it are.
    """
    seen = torch.as_tensor(observed, device=errors.device).expand(errors.shape)
    noise = LEAST_NOISE + torch.maximum(errors.sum(), LEAST_START * squares.sum()) / seen.sum()
    if not per_column:
        return noise
    own = LEAST_NOISE + torch.maximum(errors, LEAST_START * squares) / seen.clamp(min=1)
    return torch.where(seen > 0, own, noise)


def random_weights(body: nn.Module, stream: Stream) -> None:
    """Hidden layers uniform on ±√(3 / fan-in), biases on ±1: features of about unit variance."""
    layers = [layer for layer in body.modules() if isinstance(layer, nn.Linear)]
    for number, layer in enumerate(layers, start=1):
        rows = range(layer.out_features)
        u = 2 * stream.uniforms(number, Site.START, rows, layer.in_features + 1, layer.weight.device)[0] - 1
        layer.weight.copy_(u[:, :-1] * math.sqrt(3 / layer.in_features))
        layer.bias.copy_(u[:, -1])
