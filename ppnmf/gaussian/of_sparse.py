"""Statistics of a block of compressed sparse rows, in time that grows with what is stored."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ppnmf.data.dense import BLOCK_ENTRIES, Dense
from ppnmf.data.sparse import Rows, Sparse
from ppnmf.gaussian import given as shared
from ppnmf.gaussian import of_dense
from ppnmf.gaussian.given import Given
from ppnmf.kernels import csr
from ppnmf.kernels.grams import Listed, grams, packed_products, unpacked
from ppnmf.protocols import Statistics

__all__ = ["given_H", "of_H", "of_W", "squared_residuals", "squared_residuals_of_columns"]

CANCELS = 1e-9  # share of ‖X‖² that the residual must exceed to be read off the stored entries alone
NONE = np.empty(0)


def given_H(block: Sparse, H: Tensor) -> Given:
    if block.missing:
        return Given(H.mT.contiguous(), H)
    over, rooted = shared.over_columns(block.noise, H)
    return Given(over.mT.contiguous(), rooted @ rooted.mT)


def of_W(block: Sparse, given: Given) -> Statistics:
    P = _row_products(_over_stored_noise(block), given.factor)
    if not block.missing:
        return shared.of_rows(block.noise, Statistics(P, given.squares))
    H = given.squares
    if _compiled(H):
        return Statistics(P, grams(H, _by_row(block)))
    return Statistics(P, _grams_by_products(_pattern(block), H))


def of_H(block: Sparse, W: Tensor) -> Statistics:
    D = block.size[1]
    if not block.missing:
        over, rooted = shared.over_rows(block.noise, W)
        of_all = Statistics(_column_products(block.stored, D, over), rooted.mT @ rooted)
        return shared.of_columns(block.noise, of_all)
    P = _column_products(_over_stored_noise(block), D, W)
    if _compiled(W):
        return Statistics(P, grams(W.mT, _by_column(block)))
    return Statistics(P, _grams_by_products(_turned(_pattern(block)), W.mT))


def squared_residuals(block: Sparse, W: Tensor, H: Tensor) -> Tensor:
    """Σ (x - wh)² = Σ stored (x² - 2 x wh) + ‖WH‖² where zeros are observed, or over all entries where that cancels."""
    W, H = W.double(), H.double()
    if not _compiled(W):
        return _by_tiles(block, W, H)
    if block.missing:
        return _of_stored(block, W, H)
    over_H = shared.over_columns(block.noise, H).rooted
    over_W = shared.over_rows(block.noise, W).rooted
    explained = ((over_W.mT @ over_W) * (over_H @ over_H.mT)).sum((-2, -1))
    found = explained + _of_stored(block, W, H)
    trusted = found > CANCELS * explained
    return found if bool(trusted.all()) else torch.where(trusted, found, _by_tiles(block, W, H))


def squared_residuals_of_columns(block: Sparse, W: Tensor, H: Tensor) -> Tensor:
    return _by_tiles(block, W, H, of_dense.squared_residuals_of_columns)


def _of_stored(block: Sparse, W: Tensor, H: Tensor) -> Tensor:
    """Σ over the stored entries of (x - wh)², less (wh)² where the others are zeros: each over its noise."""
    weight, per_row, per_column = NONE, NONE, NONE
    if block.noise is not None:
        inverse = (1 / block.noise.variance.double()).flatten().numpy()
        if block.missing:
            weight = inverse
        elif block.noise.along == "rows":
            per_row = inverse
        else:
            per_column = inverse
    weights = (weight, per_row, per_column)
    arrays = block.stored.arrays()
    pairs = zip(W.mT.contiguous().numpy(), H.mT.contiguous().numpy(), strict=True)
    each = [csr.squared_residuals(*arrays, *weights, w, h, block.missing) for w, h in pairs]
    return torch.tensor(each, dtype=torch.float64)


def _by_tiles(
    block: Sparse, W: Tensor, H: Tensor, of_tile: Callable[[Dense, Tensor, Tensor], Tensor] = of_dense.squared_residuals
) -> Tensor:
    """Residual sums of squares, added up over dense tiles of rows."""
    N, D = block.size
    size = max(1, BLOCK_ENTRIES // D)
    tiles = [range(start, min(start + size, N)) for start in range(0, max(N, 1), size)]
    return sum((of_tile(block.part(tile), W[:, tile.start : tile.stop], H) for tile in tiles), W.new_zeros(()))


def _row_products(X: Rows, Ht: Tensor) -> Tensor:
    """X H (C, B, K) from Hᵀ (C, D, K), stored a component a row."""
    C, D, K = Ht.shape
    if not _compiled(Ht):
        pattern = X.tensor(D)
        return torch.stack([(pattern @ own).mT.contiguous() for own in Ht]).mT
    P = torch.empty(C, K, len(X.indptr) - 1, dtype=Ht.dtype)
    for c in range(C):
        csr.times(*X.arrays(), Ht[c].numpy(), P[c].numpy())
    return P.mT


def _column_products(X: Rows, D: int, W: Tensor) -> Tensor:
    """Xᵀ W (C, D, K) from W (C, B, K); stored a column of X a row, as it is added up, where that is compiled."""
    C, _, K = W.shape
    if not _compiled(W):
        turned = _turned(X.tensor(D))
        return torch.stack([(turned @ own).mT.contiguous() for own in W]).mT
    P = torch.zeros(C, D, K, dtype=W.dtype)
    Wt = W.mT.contiguous()
    for c in range(C):
        csr.transposed_times(*X.arrays(), Wt[c].numpy(), P[c].numpy())
    return P


def _grams_by_products(pattern: Tensor, F: Tensor) -> Tensor:
    """A Gram matrix a row of the pattern (R, m), (C, R, K, K), from F (C, K, m), on any device."""
    each = torch.stack([(pattern @ own.mT).mT for own in packed_products(F)])
    return unpacked(each, F.shape[-2])


def _pattern(block: Sparse) -> Tensor:
    """The weights of the stored entries, as a sparse tensor."""
    data = block.stored.data
    return block.stored.tensor(
        block.size[1], torch.ones_like(data) if block.weights is None else block.weights.to(data)
    )


def _turned(pattern: Tensor) -> Tensor:
    return pattern.to_sparse_coo().mT.coalesce().to_sparse_csr()


def _over_stored_noise(block: Sparse) -> Rows:
    """The values over the noise of each stored entry; what rows or columns share stands beside the factors."""
    if not block.missing or block.weights is None:
        return block.stored
    if "over noise" not in block.kept:
        block.kept["over noise"] = block.stored._replace(data=block.stored.data * block.weights.to(block.dtype))
    return block.kept["over noise"]


def _by_row(block: Sparse) -> Listed:
    """The stored entries of each row; kept with the block."""
    if "rows" not in block.kept:
        starts = block.stored.indptr.numpy().astype(np.int64)
        entries = block.stored.indices.numpy().astype(np.int32, copy=False)
        block.kept["rows"] = Listed(starts, entries, np.zeros(block.size[0], dtype=bool), _weight(block))
    return block.kept["rows"]


def _by_column(block: Sparse) -> Listed:
    """The stored entries of each column; kept with the block."""
    if "columns" not in block.kept:
        row, column = (part.numpy() for part in block.stored.places())
        order = np.argsort(column, kind="stable")
        starts = np.zeros(block.size[1] + 1, dtype=np.int64)
        np.cumsum(np.bincount(column, minlength=block.size[1]), out=starts[1:])
        weight = _weight(block)
        listed = weight if len(weight) == 0 else weight[order]
        block.kept["columns"] = Listed(starts, row[order].astype(np.int32), np.zeros(block.size[1], dtype=bool), listed)
    return block.kept["columns"]


def _weight(block: Sparse) -> np.ndarray:
    return NONE if block.weights is None else block.weights.numpy()


def _compiled(F: Tensor) -> bool:
    return F.device.type == "cpu" and os.environ.get("PPNMF_KERNEL") != "reference"
