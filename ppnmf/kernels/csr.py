"""Products of rows of a compressed sparse matrix with the factors, in time that grows with the entries they store.

Each call works on one thread, in a fixed order, and releases the GIL; callers run blocks of rows on several threads.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from ppnmf.kernels.chunks import gathering, scattering
from ppnmf.kernels.lanes import COMPILED, fused

__all__ = ["squared_residuals", "times", "transposed_times"]

# What a pass over a row takes at once: of 20 components 16 and then 4
_gather_32, _gather_16, _gather_8, _gather_4, _gather_2, _gather_1 = map(gathering, (32, 16, 8, 4, 2, 1))
_scatter_32, _scatter_16, _scatter_8, _scatter_4, _scatter_2, _scatter_1 = map(scattering, (32, 16, 8, 4, 2, 1))


@njit(**COMPILED)
def times(data, indices, indptr, Ht, out):  # type: ignore[no-untyped-def]
    """out (K, B) = H Xᵀ over the rows of X that indptr (B + 1,) delimits; Ht (D, K)."""
    K = Ht.shape[1]
    total = np.empty(K, dtype=Ht.dtype)
    for i in range(len(indptr) - 1):
        low = np.int64(indptr[i])
        high = np.int64(indptr[i + 1])
        k = 0
        while k + 32 <= K:
            _gather_32(data, indices, low, high, Ht, k, total)
            k += 32
        if K & 16:
            _gather_16(data, indices, low, high, Ht, k, total)
            k += 16
        if K & 8:
            _gather_8(data, indices, low, high, Ht, k, total)
            k += 8
        if K & 4:
            _gather_4(data, indices, low, high, Ht, k, total)
            k += 4
        if K & 2:
            _gather_2(data, indices, low, high, Ht, k, total)
            k += 2
        if K & 1:
            _gather_1(data, indices, low, high, Ht, k, total)
        for k in range(K):
            out[k, i] = total[k]


@njit(**COMPILED)
def transposed_times(data, indices, indptr, W, out):  # type: ignore[no-untyped-def]
    """out (D, K) += Xᵀ W over the rows of X that indptr (B + 1,) delimits; W (K, B)."""
    K = W.shape[0]
    own = np.empty(K, dtype=out.dtype)
    for i in range(len(indptr) - 1):
        for k in range(K):
            own[k] = W[k, i]
        low = np.int64(indptr[i])
        high = np.int64(indptr[i + 1])
        k = 0
        while k + 32 <= K:
            _scatter_32(data, indices, low, high, out, k, own)
            k += 32
        if K & 16:
            _scatter_16(data, indices, low, high, out, k, own)
            k += 16
        if K & 8:
            _scatter_8(data, indices, low, high, out, k, own)
            k += 8
        if K & 4:
            _scatter_4(data, indices, low, high, out, k, own)
            k += 4
        if K & 2:
            _scatter_2(data, indices, low, high, out, k, own)
            k += 2
        if K & 1:
            _scatter_1(data, indices, low, high, out, k, own)


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
