r"""Non-negative least squares in normal form, a row at a time: the w >= 0 that minimises ½ w Q wᵀ - P · w.

The active-set method of Lawson and Hanson (1974), chapter 23, on Q and P alone (Bro and de Jong 1997,
doi:10.1002/(SICI)1099-128X(199709/10)11:5<393::AID-CEM483>3.0.CO;2-L), begun at the entries that are positive already. Each step
lowers the function or ends, and a row that would not be better than it was stays as it was, so that the function never
rises, rounding included. Where Q is singular, an entry that the others make up is left out of the system.

Compiled for the CPU; what lies on another device is brought there and back.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ppnmf.kernels.lanes import COMPILED, INNER
from ppnmf.protocols import Statistics

__all__ = ["NO_SLOPE", "SINGULAR", "descend", "solved"]

SINGULAR = 1e-12  # share of its own Q_kk that an entry must add to the others for it to be solved for
NO_SLOPE = 1e-12  # relative to the terms that balance in it, a gradient that counts as none


def solved(F: Tensor, told: Statistics) -> Tensor:
    """Each row of F (C, R, K) at its minimum, begun where it is; P (C, R, K), Q (C, K, K) or (C, R, K, K)."""
    start, P, Q = (values.detach().cpu().double().contiguous().numpy() for values in (F, *told))
    out = np.empty_like(start)
    K = start.shape[-1]
    room = np.empty((K + 3, K))
    for c in range(len(start)):
        _solve(start[c], P[c], Q[c][None] if Q[c].ndim == 2 else Q[c], out[c], room)
    return torch.from_numpy(out).to(F)


@njit(**COMPILED)
def _solve(start, P, Q, out, room):  # type: ignore[no-untyped-def]
    """All rows of one chain; Q (1 | R, K, K), room (K + 3, K)."""
    K = start.shape[1]
    free = np.empty(K, np.int64)
    is_free = np.empty(K, np.bool_)
    for i in range(len(start)):
        own = Q[i if len(Q) > 1 else 0]
        for k in range(K):
            out[i, k] = start[i, k]
        descend(out[i], P[i], own, free, is_free, room)
        if not _value(out[i], P[i], own) <= _value(start[i], P[i], own):
            for k in range(K):
                out[i, k] = start[i, k]


@njit(**INNER)
def _value(w, P, Q):  # type: ignore[no-untyped-def]
    """½ w Q w - P · w."""
    total = 0.0
    for k in range(len(w)):
        explained = 0.0
        for l in range(len(w)):
            explained += Q[k, l] * w[l]
        total += w[k] * (0.5 * explained - P[k])
    return total


@njit(**INNER)
def descend(w, P, Q, free, is_free, room):  # type: ignore[no-untyped-def]
    """w at its minimum, in place."""
    K = len(w)
    for k in range(K):
        is_free[k] = w[k] > 0.0
    n = _chosen(is_free, free)
    _settle(w, P, Q, n, free, is_free, room)
    for _ in range(3 * K):
        best, steepest = -1, 0.0
        for k in range(K):
            if is_free[k] or Q[k, k] <= 0.0:
                continue
            explained, size = 0.0, abs(P[k])
            for l in range(K):
                explained += Q[k, l] * w[l]
                size = max(size, abs(Q[k, l] * w[l]))
            slope = P[k] - explained
            if slope > NO_SLOPE * size and slope * slope > steepest * Q[k, k]:
                best, steepest = k, slope * slope / Q[k, k]
        if best < 0:
            return
        is_free[best] = True
        n = _chosen(is_free, free)
        _settle(w, P, Q, n, free, is_free, room)
        if not is_free[best]:  # rounding: it went straight back
            return


@njit(**INNER)
def _chosen(is_free, free):  # type: ignore[no-untyped-def]
    """The numbers of the free entries; how many there are."""
    n = 0
    for k in range(len(is_free)):
        if is_free[k]:
            free[n] = k
            n += 1
    return n


@njit(**INNER)
def _settle(w, P, Q, n, free, is_free, room):  # type: ignore[no-untyped-def]
    """Go to the minimum over the free entries; where that would make some negative, as far as to the first, which is fixed."""
    s = room[len(w)]
    while n > 0:
        _minimise(w, P, Q, n, free, room, s)
        share, first = 1.0, -1
        for m in range(n):
            k = free[m]
            if s[m] <= 0.0:
                reach = w[k] / (w[k] - s[m]) if w[k] > s[m] else 0.0
                if reach <= share or first < 0:
                    share, first = min(reach, share), m
        for m in range(n):
            k = free[m]
            w[k] = max(w[k] + share * (s[m] - w[k]), 0.0)
        if first < 0:
            return
        for m in range(n):
            k = free[m]
            if m == first or (s[m] <= 0.0 and w[k] <= 0.0):
                w[k] = 0.0
                is_free[k] = False
        n = _chosen(is_free, free)


@njit(**INNER)
def _minimise(w, P, Q, n, free, room, s):  # type: ignore[no-untyped-def]
    """s[:n], the free entries at the minimum over them alone, by Cholesky's factor L in the first rows of `room`.

    An entry that those before it make up stays at w.
    """
    L, z = room, room[len(w) + 1]
    for m in range(n):
        k = free[m]
        for l in range(m):
            total = Q[k, free[l]]
            for t in range(l):
                total -= L[m, t] * L[l, t]
            L[m, l] = total / L[l, l] if L[l, l] > 0.0 else 0.0
        total = Q[k, k]
        for t in range(m):
            total -= L[m, t] * L[m, t]
        L[m, m] = np.sqrt(total) if total > SINGULAR * Q[k, k] else 0.0
    for m in range(n):
        if L[m, m] == 0.0:
            z[m] = 0.0
            continue
        total = P[free[m]]
        for l in range(n):  # what stays is taken off the right-hand side
            if L[l, l] == 0.0:
                total -= Q[free[m], free[l]] * w[free[l]]
        for t in range(m):
            total -= L[m, t] * z[t]
        z[m] = total / L[m, m]
    for m in range(n - 1, -1, -1):
        if L[m, m] == 0.0:
            s[m] = w[free[m]]
            continue
        total = z[m]
        for t in range(m + 1, n):
            if L[t, t] > 0.0:
                total -= L[t, m] * s[t]
        s[m] = total / L[m, m]
