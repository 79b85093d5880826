"""Statistics of a dense block of X."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from ppnmf.data.dense import Dense
from ppnmf.gaussian import given as shared
from ppnmf.gaussian.given import Given
from ppnmf.kernels.grams import Listed, grams, listed, packed_products, unpacked
from ppnmf.protocols import Statistics

__all__ = ["given_H", "of_H", "of_W", "squared_residuals", "squared_residuals_of_columns"]


def given_H(block: Dense, H: Tensor) -> Given:
    over, rooted = shared.over_columns(block.noise, H)
    if _by_products(block):
        return Given(over, packed_products(rooted))
    return Given(over, rooted if block.mask is not None else rooted @ rooted.mT)


def of_W(block: Dense, given: Given) -> Statistics:
    P = _times(given.factor, _over_own_noise(block).mT).mT
    Q = given.squares
    if _by_products(block):
        Q = unpacked(_times(Q, _weights(block).mT), P.shape[-1])
    elif block.mask is not None:
        Q = grams(Q, _listed(block, "rows"))
    return shared.of_rows(block.noise, Statistics(P, Q))


def of_H(block: Dense, W: Tensor) -> Statistics:
    over, rooted = shared.over_rows(block.noise, W)
    P = _times(over.mT, _over_own_noise(block)).mT
    if _by_products(block):
        Q = unpacked(_times(packed_products(rooted.mT), _weights(block)), W.shape[-1])
    elif block.mask is not None:
        Q = grams(rooted.mT, _listed(block, "columns"))
    else:
        Q = rooted.mT @ rooted
    return shared.of_columns(block.noise, Statistics(P, Q))


def squared_residuals(block: Dense, W: Tensor, H: Tensor) -> Tensor:
    if block.device.type != "cpu" or len(W) == 1:
        return _squared_residuals(block, block.values, W, H)
    values = block.values.expand(len(W), -1, -1)  # chain by chain: the residuals of many take much memory
    each = zip(values.split(1), W.split(1), H.split(1), strict=True)
    return torch.cat([_squared_residuals(block, own, w, h) for own, w, h in each])


def squared_residuals_of_columns(block: Dense, W: Tensor, H: Tensor) -> Tensor:
    return block.observed_over_noise((block.values.double() - W.double() @ H.double()).square()).sum(-2)


def _squared_residuals(block: Dense, values: Tensor, W: Tensor, H: Tensor) -> Tensor:
    left = (W.double() @ H.double()).sub_(values.double())  # in its place: fresh memory costs more than the product
    return block.observed_over_noise(left.square_()).sum((-2, -1))


def _by_products(block: Dense) -> bool:
    """Whether Gram matrices are added up by products of whole matrices, which any weights and devices allow."""
    if block.noise is not None and block.noise.along == "entries":
        return True
    lists_serve = block.device.type == "cpu" and os.environ.get("PPNMF_KERNEL") != "reference"
    return block.mask is not None and not lists_serve


def _weights(block: Dense) -> Tensor:
    """Of each entry (B, D); what rows or columns share stands beside the factors."""
    if block.noise is not None and block.noise.along == "entries":
        assert block.weights is not None
        return block.weights
    assert block.mask is not None
    return block.mask.to(block.dtype)


def _over_own_noise(block: Dense) -> Tensor:
    """Values over the noise of each entry."""
    by_entry = block.noise is not None and block.noise.along == "entries"
    return block.values / block.noise.variance if by_entry else block.values  # type: ignore[union-attr]


def _listed(block: Dense, axis: str) -> Listed:
    """Of each row, or column, the fewer of its observed and its missing entries; kept with the block."""
    kept: dict[str, Listed] = block.kept
    if axis not in kept:
        assert block.mask is not None
        mask = block.mask.numpy()
        kept[axis] = listed(mask if axis == "rows" else mask.T)
    return kept[axis]


def _times(A: Tensor, B: Tensor) -> Tensor:
    """A (C, R, S) @ B (S, T) or (C, S, T), each chain's product by itself: its bits do not depend on how many there are.

    The few components lead and the many rows or columns of X come last, in the products here as in what is made of
    them: the other way round a product took up to 30 times as long, and the kernels want components a row.
    """
    return torch.bmm(A, B.expand(len(A), -1, -1))
