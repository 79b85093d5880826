r"""Non-negative least squares in normal form by block principal pivoting: many rows, each in a few exchanges of its free set.

For each row the w >= 0 that minimises ½ w Q wᵀ - P · w. Kim and Park (2011) exchange all entries that break a condition at
once: those that are free and negative, and those that are fixed at zero and would rather rise. Here the system is kept as a
tableau in which an exchange is one sweep (Goodnight 1979), K² operations that fill vector registers, in place of a
factorisation. The tableau is in single precision, whose registers hold twice as many; steps of refinement in double precision
then bring the solution to rounding, and what holds at the minimum is looked at there. A row for which it does not hold, whose
free set goes round in circles, or in which an entry is made up by others, is left to the active-set method of `kernels.nnls`,
which always ends.

References: Kim and Park (2011), "Fast nonnegative matrix factorization", doi:10.1137/110821172, algorithm 2; Goodnight (1979),
"A tutorial on the SWEEP operator", doi:10.1080/00031305.1979.10482685; Portugal, Júdice, Vicente (1994).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ppnmf.kernels.lanes import COMPILED, INLINED, INNER
from ppnmf.kernels.nnls import descend
from ppnmf.threads import ordered_map

__all__ = ["least"]

REFINEMENTS = 2  # of a solution, each of which takes away all but κ(Q) times the rounding of single precision
NO_SLOPE_HERE = 1e-5  # relative to P, a slope in single precision that counts as none
SINGULAR_HERE = 1e-6  # as `SINGULAR`, in single precision
LANES = 8  # that a row of the tableau is a multiple of
PATIENCE = 3  # exchanges of everything that may pass without fewer conditions broken
ROUNDING = 1e-11  # relative to the terms that balance in it, a slope at the minimum that counts as none
ROWS_AT_ONCE = 256  # of a task; rows are independent, so this changes nothing but who does them


def least(P: Tensor, Q: Tensor) -> Tensor:
    """The minimum of each row, (C, R, K), float64.

    Args:
        P: (C, R, K). Q: (C, K, K), symmetric and positive semidefinite. Both float64, on the CPU.
    """
    C, R, K = P.shape
    linear = np.ascontiguousarray(P.numpy())
    unbound = np.ascontiguousarray(_unbound(P, Q).numpy())
    quadratic = np.ascontiguousarray(Q.numpy())
    out = np.empty((C, R, K))

    def solve(task: tuple[int, int]) -> None:
        c, first = task
        rows = slice(first, first + ROWS_AT_ONCE)
        _solve(linear[c, rows], quadratic[c], unbound[c, rows], out[c, rows])

    tasks = [(c, first) for c in range(C) for first in range(0, R, ROWS_AT_ONCE)]
    ordered_map(solve, tasks, 20.0 * ROWS_AT_ONCE * K * K)
    return torch.from_numpy(out)


class Desk(NamedTuple):
    """What a row is worked out on, one after another.

    Args:
        tableau: float32, (K, K + 1) and columns of zeros beyond; of the free entries F it holds the inverse of Q_FF, w_F in column
            K, and there the slopes of the others.
        row: as long as one of its rows. slope, step: (K,), P - Q w, and a step of w.
        is_free, change: (K,), whether an entry is free, and whether it changes sides.
    """

    tableau: np.ndarray
    row: np.ndarray
    slope: np.ndarray
    step: np.ndarray
    is_free: np.ndarray
    change: np.ndarray


def _unbound(P: Tensor, Q: Tensor) -> Tensor:
    """Where the minima would be without bounds, whose positive entries are free at first; P itself where Q is singular."""
    factor, failed = torch.linalg.cholesky_ex(Q)
    if bool((failed > 0).any()):
        return P
    return torch.cholesky_solve(P.mT, factor).mT


@njit(**COMPILED)
def _solve(P, Q, unbound, out):  # type: ignore[no-untyped-def]
    """The rows of P (R, K)."""
    R, K = P.shape
    is_free = np.empty(K, np.bool_)
    wide = (K + LANES) // LANES * LANES
    tableau = np.zeros((K, wide), np.float32)
    desk = Desk(tableau, np.zeros(wide, np.float32), np.empty(K), np.zeros(K), is_free, np.empty(K, np.bool_))
    free = np.empty(K, np.int64)
    room = np.empty((K + 3, K))
    for i in range(R):
        if not _pivoted(out[i], P[i], Q, unbound[i], desk):
            for k in range(K):
                out[i, k] = 0.0
            descend(out[i], P[i], Q, free, is_free, room)


@njit(**INLINED)
def _pivoted(w, P, Q, unbound, desk):  # type: ignore[no-untyped-def]
    """Whether w, in place, could be brought to its minimum by exchanges."""
    K = len(w)
    for k in range(K):
        desk.is_free[k] = False
        desk.change[k] = unbound[k] > 0.0
        own = desk.tableau[k]
        given = Q[k]
        for l in range(K):
            own[l] = given[l]
        own[K] = P[k]
    fewest = K + 1
    patience = PATIENCE
    for _ in range(8 * K + 8):
        if not _exchanged(Q, desk):
            return False
        broken = _look(P, desk)
        if broken == 0:
            return _refined(w, P, Q, desk)
        if broken < fewest:
            fewest = broken
            patience = PATIENCE
        elif patience > 0:
            patience -= 1
        else:
            _leave_the_last(desk.change)
    return False


@njit(**INLINED)
def _look(P, desk):  # type: ignore[no-untyped-def]
    """How many entries break their condition; `desk.change` is those that do: free and negative, or fixed and drawn upwards."""
    K = len(P)
    number = 0
    for k in range(K):
        value = desk.tableau[k, K]
        breaks = value < 0.0 if desk.is_free[k] else value > NO_SLOPE_HERE * abs(P[k])
        desk.change[k] = breaks
        number += breaks
    return number


@njit(**INLINED)
def _leave_the_last(change):  # type: ignore[no-untyped-def]
    """Of the entries that would change, the last alone: the rule under which no set comes twice."""
    found = False
    for k in range(len(change) - 1, -1, -1):
        if found:
            change[k] = False
        found = found or change[k]


@njit(**INLINED)
def _exchanged(Q, desk):  # type: ignore[no-untyped-def]
    """Let entries change sides; False where the system of the free ones would be singular."""
    for k in range(len(Q)):
        if not desk.change[k]:
            continue
        if not desk.is_free[k] and desk.tableau[k, k] <= SINGULAR_HERE * Q[k, k]:
            return False
        _sweep(desk.tableau, k, desk.row)
        desk.is_free[k] = not desk.is_free[k]
    return True


@njit(**INLINED)
def _sweep(tableau, k, row):  # type: ignore[no-untyped-def]
    """Goodnight's sweep on entry k; doing it twice undoes it. `row` is room: apart from the tableau, for vector lanes."""
    K = len(tableau)
    pivot = np.float32(1.0) / tableau[k, k]
    for j in range(len(row)):
        row[j] = tableau[k, j] * pivot
    for i in range(K):
        own = tableau[i]
        factor = own[k]
        for j in range(len(row)):
            own[j] -= factor * row[j]
        own[k] = -factor * pivot
    for j in range(len(row)):
        tableau[k, j] = row[j]
    tableau[k, k] = pivot


@njit(**INLINED)
def _refined(w, P, Q, desk):  # type: ignore[no-untyped-def]
    """w from the tableau and steps of refinement, in place; whether every condition of a minimum then holds."""
    K = len(w)
    tableau = desk.tableau
    slope = desk.slope
    is_free = desk.is_free
    for k in range(K):
        w[k] = tableau[k, K] if is_free[k] else 0.0
    for _ in range(REFINEMENTS):
        _slopes(w, P, Q, slope)
        for l in range(K):
            if is_free[l]:
                own = tableau[l]
                value = slope[l]
                for k in range(K):
                    desk.step[k] += own[k] * value
        for k in range(K):
            w[k] = w[k] + desk.step[k] if is_free[k] else 0.0
            desk.step[k] = 0.0
    for k in range(K):
        w[k] = max(w[k], 0.0)
    size = _slopes(w, P, Q, slope)
    for k in range(K):
        off = abs(slope[k]) if is_free[k] else slope[k]
        if not off <= ROUNDING * size:
            return False
    return True


@njit(**INNER)
def _slopes(w, P, Q, slope):  # type: ignore[no-untyped-def]
    """slope = P - Q w, in place, and the greatest of the terms of P and of Q w."""
    K = len(w)
    size = 0.0
    for k in range(K):
        slope[k] = P[k]
        size = max(size, abs(P[k]))
    for l in range(K):
        value = w[l]
        if value != 0.0:
            own = Q[l]
            for k in range(K):
                slope[k] -= own[k] * value
    return size
