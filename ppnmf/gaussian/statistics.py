"""What X tells about one factor given the other one: P and Q of the quadratic log likelihood, and the misfit.

The log likelihood in row i of W is W_i · P_i - ½ W_i Q_i W_iᵀ up to a constant, with P = X Hᵀ and Q = H Hᵀ, each entry over
its noise and the missing ones left out; the same for H with Xᵀ W and Wᵀ W. Blocks of rows give them one by one
(`of_W`, `of_H`), by what kind of block they are.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ppnmf.data.dense import Dense
from ppnmf.gaussian import of_dense, of_sparse
from ppnmf.gaussian.given import Given
from ppnmf.protocols import Matrix, Statistics

__all__ = [
    "given_H",
    "of_H",
    "of_W",
    "of_all_columns",
    "of_all_rows",
    "of_every_process",
    "squared_residuals",
    "squared_residuals_of_columns",
]


def given_H(X: Matrix, H: Tensor) -> Given:
    """What the blocks of X share when H (C, K, D) is given."""
    return _kind(X.nothing).given_H(X.nothing, H)


def of_W(block: Any, given: Given) -> Statistics:
    """About the block's rows of W: P (C, B, K), and Q (C, K, K) that they share, or (C, B, K, K)."""
    return _kind(block).of_W(block, given)


def of_H(block: Any, W: Tensor) -> Statistics:
    """About H, from the block's rows of W (C, B, K): P (C, D, K), and Q (C, K, K), or (C, D, K, K)."""
    return _kind(block).of_H(block, W)


def squared_residuals(block: Any, W: Tensor, H: Tensor) -> Tensor:
    """Σ (x - (WH))² over the observed entries of a block, each over its noise: float64, (C,)."""
    return _kind(block).squared_residuals(block, W, H)


def squared_residuals_of_columns(block: Any, W: Tensor, H: Tensor) -> Tensor:
    """The same of each column: float64, (C, D)."""
    return _kind(block).squared_residuals_of_columns(block, W, H)


def of_all_rows(X: Matrix, H: Tensor) -> Statistics:
    """About all of this process's rows of W."""
    given = given_H(X, H)
    parts = X.by_block(lambda rows, block: of_W(block, given), 2.0 * H[0].numel() * len(H) * X.shape[0])
    if len(parts) == 1:
        return parts[0]
    P = torch.cat([part.P.mT for part in parts], 2).mT
    if parts[0].Q.ndim == P.ndim:
        return Statistics(P, parts[0].Q)
    return Statistics(P, torch.cat([part.Q.permute(0, 2, 3, 1) for part in parts], 3).permute(0, 3, 1, 2))


def of_all_columns(X: Matrix, W: Tensor) -> Statistics:
    """About H, from this process's rows of W."""
    own = X.fold_here(lambda rows, block, _: of_H(block, _rows(W, rows)), [None], 2.0 * W.numel() * X.shape[1])
    return of_every_process(X, own[0])


def of_every_process(X: Matrix, own: Statistics) -> Statistics:
    """The sum of what all processes tell about H, P stored a component a row."""
    P, Q = own.P.mT.contiguous().mT, own.Q
    if X.here is X:
        return Statistics(P, Q)
    if X.uneven and Q.ndim == P.ndim:  # where another process has a Gram matrix for each column; they are stored last
        Q = Q[..., None].expand(-1, -1, -1, P.shape[1]).contiguous().permute(0, 3, 1, 2)
    return X.add_up(Statistics(P, Q))


def _rows(W: Tensor, rows: range) -> Tensor:
    return W[:, rows.start : rows.stop]


def _kind(block: Any) -> ModuleType:
    return of_dense if isinstance(block, Dense) else of_sparse
