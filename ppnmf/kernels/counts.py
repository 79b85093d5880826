"""The kernels of the Poisson family for the CPU, compiled by Numba; `counts_reference` defines them in plain torch.

A block of X is the compressed rows of its positive counts: `data`, `indices`, `starts`, float64, int32, int64; starts (1, B + 1)
where all chains have the same X, or (C, B + 1) where each has its own. Factors have their rows leading, W (C, B, K) and Hᵀ
(C, D, K), in float64. Each call works on one thread and releases the GIL.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from ppnmf.kernels.binomial import binomial
from ppnmf.kernels.lanes import COMPILED, INNER, log
from ppnmf.rng import NEXT, Site, uniform_pair

__all__ = ["FEW", "allocate", "expect", "log_means"]

FEW = 2.0  # events for each component that is left, up to which they are placed one by one
SITE_COUNTS, TURN = np.int64(Site.COUNTS), np.int64(NEXT)


@njit(**INNER)
def _suffixes(w, h, weights, rest):  # type: ignore[no-untyped-def]
    """weights = w h of each component, rest[k] = the sum of the weights from k on."""
    K = len(w)
    for k in range(K):
        weights[k] = w[k] * h[k]
    total = 0.0
    for k in range(K - 1, -1, -1):
        total += weights[k]
        rest[k] = total


@njit(**INNER)
def _place(number, k, rest, of_row, of_column, key0, key1, column, row, step, site):  # type: ignore[no-untyped-def]
    """Events one by one to the components from k on."""
    K = len(rest)
    second = 0.0
    for event in range(int(number)):
        if event % 2 == 0:
            u, second = uniform_pair(key0, key1, column, row, step, site)
            site += TURN
        else:
            u = second
        target = u * rest[k]
        chosen = k
        for m in range(k + 1, K):
            chosen += rest[m] > target
        of_row[chosen] += 1.0
        of_column[chosen] += 1.0


@njit(**INNER)
def _share(x, weights, rest, of_row, of_column, key0, key1, column, row, step):  # type: ignore[no-untyped-def]
    """A count to the components: by binomials while it is large for those that are left, then event by event."""
    K = len(rest)
    site = SITE_COUNTS
    for k in range(K):
        if k == K - 1 or rest[k] <= 0.0:
            of_row[k] += x
            of_column[k] += x
            return
        if x <= FEW * (K - k):
            _place(x, k, rest, of_row, of_column, key0, key1, column, row, step, site)
            return
        small = min(weights[k], rest[k + 1])
        drawn = 0.0
        if small > 0.0:
            drawn, site = binomial(x, small / rest[k], key0, key1, column, row, step, site)
        if weights[k] > rest[k + 1]:
            drawn = x - drawn
        of_row[k] += drawn
        of_column[k] += drawn
        x -= drawn


@njit(**INNER)
def _allocate(data, indices, starts, W, Ht, key0, key1, step, first_row, of_W, of_H):  # type: ignore[no-untyped-def]
    K = W.shape[1]
    weights, rest = np.empty(K), np.empty(K)
    for i in range(len(starts) - 1):
        for at in range(starts[i], starts[i + 1]):
            j = indices[at]
            _suffixes(W[i], Ht[j], weights, rest)
            _share(data[at], weights, rest, of_W[i], of_H[j], key0, key1, j, first_row + i, step)


@njit(**COMPILED)
def allocate(data, indices, starts, W, Ht, keys, step, first_row, of_W, of_H):  # type: ignore[no-untyped-def]
    """Multinomial draws of every count's components, of which only the sums are kept.

    Args:
        keys: (C, 2), of the chains. first_row: the number of the first row in the whole.
        of_W (C, B, K), of_H (C, D, K): the sums over columns and over rows are added to these.
    """
    for c in range(len(W)):
        own = starts[c if len(starts) > 1 else 0]
        _allocate(data, indices, own, W[c], Ht[c], keys[c, 0], keys[c, 1], step, first_row, of_W[c], of_H[c])


@njit(**INNER)
def _inner(w, h):  # type: ignore[no-untyped-def]
    total = 0.0
    for k in range(len(w)):
        total += w[k] * h[k]
    return total


@njit(**INNER)
def _expect(data, indices, starts, W, Ht, of_W, of_H):  # type: ignore[no-untyped-def]
    K = W.shape[1]
    own = np.empty(K)
    for i in range(len(starts) - 1):
        for k in range(K):
            own[k] = 0.0
        for at in range(starts[i], starts[i + 1]):
            j = indices[at]
            mean = _inner(W[i], Ht[j])
            if mean <= 0.0:
                continue
            ratio = data[at] / mean
            for k in range(K):
                own[k] += ratio * Ht[j, k]
            if len(of_H):
                for k in range(K):
                    of_H[j, k] += ratio * W[i, k] * Ht[j, k]
        for k in range(K):
            of_W[i, k] += own[k] * W[i, k]


@njit(**COMPILED)
def expect(data, indices, starts, W, Ht, of_W, of_H):  # type: ignore[no-untyped-def]
    """The same sums of the components' expected shares: Σ_j x w_k h_k / (w·h) to of_W (C, B, K), Σ_i to of_H (C, D, K).

    An of_H (C, 0, K) is left out.
    """
    for c in range(len(W)):
        _expect(data, indices, starts[c if len(starts) > 1 else 0], W[c], Ht[c], of_W[c], of_H[c])


@njit(**INNER)
def _log_means(data, indices, starts, W, Ht, per_row, per_column, per_entry, means):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(starts) - 1):
        low, n = starts[i], starts[i + 1] - starts[i]
        for m in range(n):
            j = indices[low + m]
            mean = _inner(W[i], Ht[j])
            if len(per_row):
                mean *= per_row[i]
            if len(per_column):
                mean *= per_column[j]
            if len(per_entry):
                mean *= per_entry[low + m]
            if mean < 1e-300 and data[low + m] > 0.0:
                return -math.inf
            means[m] = mean
        for m in range(n):
            means[m] = data[low + m] * log(means[m])
        for m in range(n):
            total += means[m]
    return total


@njit(**COMPILED)
def log_means(data, indices, starts, W, Ht, per_row, per_column, per_entry, out):  # type: ignore[no-untyped-def]
    """out (C,) = Σ x log(e w·h) over the counts, e the product of the exposures of row, column and place, each (0,) for ones."""
    means = np.empty(len(Ht[0]) + 1)
    for c in range(len(W)):
        own = starts[c if len(starts) > 1 else 0]
        out[c] = _log_means(data, indices, own, W[c], Ht[c], per_row, per_column, per_entry, means)
