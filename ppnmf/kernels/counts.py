"""The kernels of the Poisson family for the CPU, compiled by Numba; `counts_reference` defines them in plain torch.

A block of X is the compressed rows of its positive counts: `data`, `indices`, `starts`, float64, int32, int64; starts (1, B + 1)
where all chains have the same X, or (C, B + 1) where each has its own. Factors have their rows leading, W (C, B, K) and Hᵀ
(C, D, K), in float64. Each call works on one thread and releases the GIL.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from ppnmf.kernels.binomial import binomial
from ppnmf.kernels.lanes import COMPILED, INNER, log, total_of
from ppnmf.rng import NEXT, Site, uniform_pair

__all__ = ["SPLITS", "allocate", "costs", "expect", "log_means"]

LOT = 64  # counts that are worked on together
SPLITS = 2**20  # the turn of a cell's numbers from which on those of its binomials are
TURN = np.int64(NEXT)
SITE_COUNTS = np.int64(Site.COUNTS)
SITE_SPLITS = SITE_COUNTS + np.int64(SPLITS) * TURN


class Room(NamedTuple):
    """Where a lot of counts is worked on."""

    weights: np.ndarray  # (LOT, K), of the components that are left
    sums: np.ndarray  # (LOT, K), these added up
    left: np.ndarray  # (LOT,), events that are to be placed one by one
    columns: np.ndarray  # of each pair of events, and the site of its numbers
    sites: np.ndarray
    even: np.ndarray  # the pair's uniforms
    odd: np.ndarray


def costs(K: int) -> tuple[float, float]:
    """Nanoseconds, about: of an event that is placed by itself, and of a binomial, which places many."""
    return 3.0 + 0.15 * K, 100.0 + 0.5 * K


_costs = njit(**INNER)(costs)


@njit(**INNER)
def _room(K):  # type: ignore[no-untyped-def]
    by_event, by_binomial = _costs(K)
    pairs = LOT * int(1.0 + 0.5 * K * by_binomial / by_event)
    whole, single = np.empty((2, LOT, K)), np.empty(LOT)
    numbers, uniforms = np.empty((2, pairs), np.int64), np.empty((2, pairs))
    return Room(whole[0], whole[1], single, numbers[0], numbers[1], uniforms[0], uniforms[1])


@njit(**INNER)
def _greatest(weights):  # type: ignore[no-untyped-def]
    most = 0.0
    for k in range(len(weights)):
        most = max(most, weights[k])
    return most


@njit(**INNER)
def _split(x, weights, of_row, of_column, key0, key1, column, row, step):  # type: ignore[no-untyped-def]
    """The shares of the greatest components by binomials, while that pays; their weights become 0. What is left of x."""
    by_event, by_binomial = _costs(len(weights))
    site = SITE_SPLITS
    total = total_of(weights)
    while True:
        most = _greatest(weights)
        if x * most * by_event <= by_binomial * total and total > 0.0:
            return x
        k = 0
        while weights[k] < most:
            k += 1
        weights[k] = 0.0
        total = total_of(weights)
        small = min(most, total)
        drawn = 0.0
        if small > 0.0:
            drawn, site = binomial(x, small / (most + total), key0, key1, column, row, step, site)
        if most > total or total <= 0.0:
            drawn = x - drawn
        of_row[k] += drawn
        of_column[k] += drawn
        x -= drawn
        if x <= 0.0:
            return 0.0


@njit(**INNER)
def _prepare(data, indices, w, Ht, key0, key1, row, step, of_row, of_H, room):  # type: ignore[no-untyped-def]
    """What is left of a lot of counts, and where the numbers of its events are: how many pairs there are."""
    weights, added, left, columns, sites, _, _ = room
    K = len(w)
    by_event, by_binomial = _costs(K)
    few = by_binomial / by_event  # whose greatest component, however great, is not worth a binomial
    pairs = 0
    for m in range(len(data)):
        j = indices[m]
        own = weights[m]
        for k in range(K):
            own[k] = w[k] * Ht[j, k]
        x = data[m]
        if x > few:
            x = _split(x, own, of_row, of_H[j], key0, key1, j, row, step)
        total = 0.0
        for k in range(K):
            total += own[k]
            added[m, k] = total
        left[m] = x
        site = SITE_COUNTS
        for _ in range((int(x) + 1) // 2):
            columns[pairs] = j
            sites[pairs] = site
            site += TURN
            pairs += 1
    return pairs


@njit(**INNER)
def _place(indices, of_row, of_H, room):  # type: ignore[no-untyped-def]
    """The events of a lot one by one."""
    _, added, left, _, _, even, odd = room
    last = len(of_row) - 1
    pair = 0
    for m in range(len(indices)):
        sums, of_column = added[m], of_H[indices[m]]
        for event in range(int(left[m])):
            u = even[pair]
            if event % 2 == 1:
                u = odd[pair]
                pair += 1
            target = u * sums[last]
            chosen = 0
            for k in range(last):
                chosen += sums[k] <= target
            of_row[chosen] += 1.0
            of_column[chosen] += 1.0
        pair += int(left[m]) % 2


@njit(**INNER)
def _allocate(data, indices, starts, W, Ht, key0, key1, step, first_row, of_W, of_H, room):  # type: ignore[no-untyped-def]
    _, _, _, columns, sites, even, odd = room
    for i in range(len(starts) - 1):
        row = first_row + i
        for low in range(starts[i], starts[i + 1], LOT):
            lot = slice(low, min(low + LOT, starts[i + 1]))
            pairs = _prepare(data[lot], indices[lot], W[i], Ht, key0, key1, row, step, of_W[i], of_H, room)
            for n in range(pairs):
                even[n], odd[n] = uniform_pair(key0, key1, columns[n], row, step, sites[n])
            _place(indices[lot], of_W[i], of_H, room)


@njit(**COMPILED)
def allocate(data, indices, starts, W, Ht, keys, step, first_row, of_W, of_H):  # type: ignore[no-untyped-def]
    """Multinomial draws of every count's components, of which only the sums are kept.

    The greatest components of a large count get their shares by binomials; what is left is placed event by event, the uniforms of
    many counts made together. Which way is quicker is judged by `costs`; both are exact.

    Args:
        keys: (C, 2), of the chains. first_row: the number of the first row in the whole.
        of_W (C, B, K), of_H (C, D, K): the sums over columns and over rows are added to these.
    """
    room = _room(W.shape[2])
    for c in range(len(W)):
        own = starts[c if len(starts) > 1 else 0]
        _allocate(data, indices, own, W[c], Ht[c], keys[c, 0], keys[c, 1], step, first_row, of_W[c], of_H[c], room)


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
