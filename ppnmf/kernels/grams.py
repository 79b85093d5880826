"""A Gram matrix a row: sums of F_j F_jᵀ over the j that each row lists, or over all j but those.

With missing entries every row of a factor has a Gram matrix of its own. It is added up over the row's observed entries,
or starts from that of all entries and loses the missing ones, whichever are fewer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ppnmf.kernels.lanes import COMPILED, INNER, fused

__all__ = ["TABLE", "Listed", "add_grams", "grams", "listed", "packed_products", "unpacked"]

# A diagonal of which so little is left is added up anew. In float64 the subtraction errs by about eps of the full
# diagonal, and adding up by eps of what is left: what is kept is at most 1 / LEFT times less exact than the direct sum.
LEFT = 1e-3
TABLE = 2**17  # products that are kept at hand: 1 MB
TOGETHER = 8  # rows whose matrices are written at once: a cache line of each entry


class Listed(NamedTuple):
    """For each of n rows some of the numbers 0 ... m - 1, ascending."""

    starts: np.ndarray  # (n + 1,)
    entries: np.ndarray  # (number of them,)
    missing: np.ndarray  # (n,) boolean: they are the ones that do not count
    weight: np.ndarray  # (number of them,) float64, or (0,): all one. Only of those that count


def listed(mask: np.ndarray) -> Listed:
    """From a mask (n, m), True where observed: of each row the fewer of its observed and its missing entries."""
    n, m = mask.shape
    missing = 2 * mask.sum(1) > m
    rows, index = np.nonzero(mask ^ missing[:, None])
    starts = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=n), out=starts[1:])
    return Listed(starts, index.astype(np.int32), missing, np.empty(0))


def grams(F: Tensor, lists: Listed) -> Tensor:
    """Gram matrices of the n rows of the lists, (C, n, K, K) and stored rows-last, of F's dtype.

    Args:
        F: (C, K, m), on the CPU.
    """
    C, K, _ = F.shape
    exact = F.double()
    own, every = exact.mT.contiguous().numpy(), (exact @ exact.mT).numpy()
    out = torch.empty(C, K, K, len(lists.missing), dtype=F.dtype)
    at_hand = max(1, TABLE // (K * (K + 1) // 2))  # not a number that is compiled in: a cached function would keep it
    for c in range(C):
        add_grams(own[c], every[c], *lists, at_hand, out[c].numpy())
    return out.permute(0, 3, 1, 2)


@njit(**COMPILED)
def add_grams(F, full, starts, index, missing, weight, at_hand, out):  # type: ignore[no-untyped-def]
    """out (K, K, n) for the n rows of the lists; F (m, K), full (K, K).

    The products of each F_j are formed once, above the diagonal, for `at_hand` j at a time, as many as the cache holds; a
    row's matrix is then a sum of long vectors.
    """
    (m, K), n = F.shape, out.shape[2]
    size = K * (K + 1) // 2
    some = min(m, at_hand)
    room = np.empty((some + 1, size))
    table, every = room[:some], room[some]
    sums = np.empty((n, size))
    at = starts[:n].copy()
    for i in range(n):
        for t in range(size):
            sums[i, t] = 0.0
    for begin in range(0, m, some):
        end = min(begin + some, m)
        for j in range(begin, end):
            _products(F[j], table[j - begin])
        for i in range(n):
            low, high = at[i], starts[i + 1]
            if end < m:
                high = _first_from(index, low, high, end)
            _add(table, index, weight, begin, low, high, sums[i])
            at[i] = high
    position = 0
    for k in range(K):
        for l in range(k, K):
            every[position] = full[k, l]
            position += 1
    for i in range(n):
        if missing[i]:
            for t in range(size):
                sums[i, t] = every[t] - sums[i, t]
            if _cancelled(sums[i], every, K):
                _add_others(F, index, starts[i], starts[i + 1], sums[i], table[0])
    for start in range(0, n, TOGETHER):
        stop, position = min(start + TOGETHER, n), 0
        for k in range(K):
            for l in range(k, K):
                for i in range(start, stop):
                    out[k, l, i] = sums[i, position]
                    out[l, k, i] = sums[i, position]
                position += 1


@njit(**INNER)
def _first_from(index, low, high, end):  # type: ignore[no-untyped-def]
    """The first place from `low` on, or else `high`, where index[place] >= end; index[low:high] ascends."""
    while low < high:
        middle = (low + high) // 2
        if index[middle] < end:
            low = middle + 1
        else:
            high = middle
    return low


@njit(**INNER)
def _products(f, out):  # type: ignore[no-untyped-def]
    """out = the products of the pairs of entries of f (K,), above the diagonal, (K (K + 1) / 2,)."""
    position = 0
    for k in range(len(f)):
        for l in range(k, len(f)):
            out[position] = f[k] * f[l]
            position += 1


@njit(**INNER)
def _add(table, index, weight, begin, low, high, total):  # type: ignore[no-untyped-def]
    """total += Σ weight · table[index - begin] over index[low:high], four at a time."""
    size = len(total)
    fours = high - (high - low) % 4
    for p in range(low, fours, 4):
        a, b, c, d = index[p] - begin, index[p + 1] - begin, index[p + 2] - begin, index[p + 3] - begin
        if len(weight) == 0:
            for t in range(size):
                total[t] += (table[a, t] + table[b, t]) + (table[c, t] + table[d, t])
        else:
            u, v, w, x = weight[p], weight[p + 1], weight[p + 2], weight[p + 3]
            for t in range(size):
                four = fused(v, table[b, t], u * table[a, t]) + fused(x, table[d, t], w * table[c, t])
                total[t] += four
    for p in range(fours, high):
        a, u = index[p] - begin, 1.0 if len(weight) == 0 else weight[p]
        for t in range(size):
            total[t] = fused(u, table[a, t], total[t])


@njit(**INNER)
def _cancelled(left, every, K) -> bool:  # type: ignore[no-untyped-def]
    position = 0
    for k in range(K):
        if left[position] < LEFT * every[position]:
            return True
        position += K - k
    return False


@njit(**INNER)
def _add_others(F, index, low, high, total, own):  # type: ignore[no-untyped-def]
    """total = the sum of products over the j that are not listed; `own` is room for one."""
    for t in range(len(total)):
        total[t] = 0.0
    at = low
    for j in range(len(F)):
        if at < high and index[at] == j:
            at += 1
            continue
        _products(F[j], own)
        for t in range(len(total)):
            total[t] += own[t]


# What follows does the same by products of whole matrices, on any device and with any weights.


def packed_products(F: Tensor) -> Tensor:
    """Products of the pairs of rows of F (C, K, R), shape (C, K (K + 1) / 2, R)."""
    i, j = torch.triu_indices(F.shape[-2], F.shape[-2], device=F.device)
    return F[:, i] * F[:, j]


def unpacked(packed: Tensor, K: int) -> Tensor:
    """A symmetric matrix for each row, (C, R, K, K), from their upper triangles (C, K (K + 1) / 2, R)."""
    i, j = torch.triu_indices(K, K, device=packed.device)
    place = torch.empty(K, K, dtype=torch.int64, device=packed.device)
    place[i, j] = place[j, i] = torch.arange(len(i), device=packed.device)
    return packed[:, place.flatten()].unflatten(1, (K, K)).permute(0, 3, 1, 2)
