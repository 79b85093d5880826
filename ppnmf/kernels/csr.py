"""Products of rows of a compressed sparse matrix with the factors, in time that grows with the entries they store.

Each call works on one thread, in a fixed order, and releases the GIL; callers run blocks of rows on several threads.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from ppnmf.kernels.lanes import COMPILED, fused

__all__ = ["squared_residuals", "times", "transposed_times"]

WIDE = 8  # components that a pass over a row keeps in registers


@njit(**COMPILED)
def times(data, indices, indptr, Ht, out):  # type: ignore[no-untyped-def]
    """out (K, B) = H Xᵀ over the rows of X that indptr (B + 1,) delimits; Ht (D, K)."""
    K = Ht.shape[1]
    total = np.empty(K + WIDE, dtype=out.dtype)
    for i in range(len(indptr) - 1):
        low, high = indptr[i], indptr[i + 1]
        for k in range(K):
            total[k] = 0
        pairs = high - (high - low) % 2
        for at in range(low, pairs, 2):
            x, y = data[at], data[at + 1]
            g, h = Ht[indices[at]], Ht[indices[at + 1]]
            for k in range(K):
                total[k] = fused(x, g[k], fused(y, h[k], total[k]))
        for at in range(pairs, high):
            x, h = data[at], Ht[indices[at]]
            for k in range(K):
                total[k] = fused(x, h[k], total[k])
        for k in range(K):
            out[k, i] = total[k]


@njit(**COMPILED)
def transposed_times(data, indices, indptr, W, out):  # type: ignore[no-untyped-def]
    """out (D, K) += Xᵀ W over the rows of X that indptr (B + 1,) delimits; W (K, B)."""
    K = W.shape[0]
    own = np.empty(K, dtype=W.dtype)
    for i in range(len(indptr) - 1):
        for k in range(K):
            own[k] = W[k, i]
        for at in range(indptr[i], indptr[i + 1]):
            x, row = data[at], out[indices[at]]
            for k in range(K):
                row[k] = fused(x, own[k], row[k])


@njit(**COMPILED)
def squared_residuals(data, indices, indptr, weight, per_row, per_column, W, Ht, stored_only):  # type: ignore[no-untyped-def]
    """Σ over stored entries of weight ((x - w·h)² - (w·h)²), or of weight (x - w·h)² where only they are observed.

    W (K, B) and Ht (D, K) in float64; the weight of an entry is that of its place, row and column, each (0,) for ones.
    """
    K, total = W.shape[0], 0.0
    own = np.empty(K)
    for i in range(len(indptr) - 1):
        for k in range(K):
            own[k] = W[k, i]
        of_row = 0.0
        for at in range(indptr[i], indptr[i + 1]):
            j, x, told = indices[at], np.float64(data[at]), 0.0
            for k in range(K):
                told = fused(own[k], Ht[j, k], told)
            term = (x - told) * (x - told) if stored_only else x * (x - 2.0 * told)
            if len(weight):
                term *= weight[at]
            if len(per_column):
                term *= per_column[j]
            of_row += term
        total += of_row * per_row[i] if len(per_row) else of_row
    return total
