r"""A multiplicative update for the Kullback-Leibler divergence of a complete matrix, compiled in one piece for the CPU.

.. math:: W_{ik} \leftarrow W_{ik} \frac{\sum_j H_{kj} x_{ij} / (WH)_{ij}}{r_i \sum_j c_j H_{kj}}, \quad
   H_{kj} \leftarrow H_{kj} \frac{\sum_i W_{ik} x_{ij} / (WH)_{ij}}{c_j \sum_i r_i W_{ik}},

with exposures r c, and then Σ x log(r c W H). What the blocks of any `Matrix` are told by products of whole matrices is done a tile
of columns at a time, so that neither the means nor the quotients of all cells are ever written down. (Lee and Seung 2001.)
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from ppnmf.kernels.lanes import AT_ONCE, COMPILED, INNER, fused, inner, log, select, total_of, weighted_rows

__all__ = ["multiplied"]

TILE = 4 * AT_ONCE  # columns
ROWS = 4  # that are added to the columns' sums together
TINY = 1e-280  # stands for a mean that is zero
NO_MEAN = 1e-300  # a mean below it makes a count impossible


@njit(**INNER)
def _tile(H, low, tile):  # type: ignore[no-untyped-def]
    """Columns of H from `low` on, (K, TILE), with zeros behind its last; how many there are."""
    n = min(TILE, H.shape[1] - low)
    tile[:, n:] = 0.0
    tile[:, :n] = H[:, low : low + n]
    return n


@njit(**INNER)
def _quotients(x, w, tile, n, means, quotients):  # type: ignore[no-untyped-def]
    """x / mean of a row's cells in a tile."""
    weighted_rows(w, tile, n, means)
    for j in range(n):
        quotients[j] = x[j] / select(means[j] > TINY, means[j], TINY)


@njit(**INNER)
def _rows_updated(X, W, H, columns, rows, tile, out):  # type: ignore[no-untyped-def]
    """out = W after its update."""
    K = len(H)
    means, quotients = np.empty(TILE), np.empty(TILE)
    out[:] = 0.0
    for low in range(0, X.shape[1], TILE):
        n = _tile(H, low, tile)
        for i in range(len(X)):
            _quotients(X[i, low : low + n], W[i], tile, n, means, quotients)
            for k in range(K):
                out[i, k] += inner(quotients[:n], tile[k, :n])
    for k in range(K):
        total = 0.0
        for j in range(H.shape[1]):
            total += columns[j] * H[k, j]
        for i in range(len(X)):
            below = rows[i] * total
            out[i, k] = W[i, k] * out[i, k] / below if below > 0.0 else 0.0


@njit(**INNER)
def _added(weights, quotients, n, sums):  # type: ignore[no-untyped-def]
    """sums[:n] += Σ_l weights[l] quotients[l, :n] of `ROWS` rows, so that the sums are read and written once for all."""
    a, b, c, d = weights[0], weights[1], weights[2], weights[3]
    for j in range(n):
        first = fused(b, quotients[1, j], fused(a, quotients[0, j], sums[j]))
        sums[j] = fused(d, quotients[3, j], fused(c, quotients[2, j], first))


@njit(**INNER)
def _columns_updated(X, W, H, columns, totals, tile, out):  # type: ignore[no-untyped-def]
    """out = H after its update; totals: Σ_i r_i W_ik, (K,)."""
    K = len(H)
    means, quotients, sums = np.empty(TILE), np.zeros((ROWS, TILE)), np.empty((K, TILE))
    weights = np.zeros((K, ROWS))
    for low in range(0, X.shape[1], TILE):
        n = _tile(H, low, tile)
        sums[:] = 0.0
        for start in range(0, len(X), ROWS):
            weights[:] = 0.0
            for i in range(start, min(start + ROWS, len(X))):
                _quotients(X[i, low : low + n], W[i], tile, n, means, quotients[i - start])
                weights[:, i - start] = W[i]
            for k in range(K):
                _added(weights[k], quotients, n, sums[k])
        for k in range(K):
            for j in range(n):
                below = columns[low + j] * totals[k]
                out[k, low + j] = tile[k, j] * sums[k, j] / below if below > 0.0 else 0.0


@njit(**INNER)
def _log_means(X, W, H, columns, rows, tile):  # type: ignore[no-untyped-def]
    """Σ x log(r c W H)."""
    means, room = np.empty(TILE), np.empty((2, TILE))
    impossible, total = 0.0, 0.0
    for low in range(0, X.shape[1], TILE):
        n = _tile(H, low, tile)
        for i in range(len(X)):
            weighted_rows(W[i], tile, n, means)
            for j in range(n):
                x = X[i, low + j]
                mean = means[j] * (rows[i] * columns[low + j])
                room[0, j] = x * log(select(mean > NO_MEAN, mean, 1.0))
                room[1, j] = select(mean > NO_MEAN, 0.0, x)
            total += total_of(room[0, :n])
            impossible += total_of(room[1, :n])
    return -math.inf if impossible > 0.0 else total


@njit(**COMPILED)
def multiplied(X, W, H, rows, columns, new_W, new_H):  # type: ignore[no-untyped-def]
    """new_W (N, K) and new_H (K, D) from W and H, float64. Returns the log likelihood of the counts X (N, D) but for -Σ log x!.

    Args:
        rows, columns: exposures r (N,) and c (D,).
    """
    tile, totals = np.empty((len(H), TILE)), np.zeros(len(H))
    _rows_updated(X, W, H, columns, rows, tile, new_W)
    for i in range(len(X)):
        for k in range(len(H)):
            totals[k] += rows[i] * new_W[i, k]
    _columns_updated(X, new_W, H, columns, totals, tile, new_H)
    of_all = 0.0
    for k in range(len(H)):
        for j in range(X.shape[1]):
            of_all += totals[k] * columns[j] * new_H[k, j]
    return _log_means(X, new_W, new_H, columns, rows, tile) - of_all
