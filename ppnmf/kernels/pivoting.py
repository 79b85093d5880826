r"""Non-negative least squares in normal form by block principal pivoting: many rows, each in a few exchanges of its free set.

For each row the w >= 0 that minimises ½ w Q wᵀ - P · w. Kim and Park (2011) exchange all entries that break a condition at
once: those that are free and negative, and those that are fixed at zero and would rather rise. With y = P - w Q the slopes, F the
free entries and B the fixed ones, each exchange solves one of two systems,

.. math:: Q_{FF} w_F = P_F, \quad y = P - w Q \qquad\text{or}\qquad V_{BB} y_B = u_B, \quad w = u - y V,

where V = Q⁻¹ and u = P V, the minimum without bounds, are there once for all rows. The two are one another's mirror image, and
the smaller is taken: with half of the entries free at most an eighth of the work of a whole system. V is used where Q is far
from singular, and what it gives is looked at: where the slopes of free entries are not zero to rounding, the first system is
solved as well. A row whose free set goes round in circles, or in which an entry is made up by others, is left to the active-set
method of `kernels.nnls`, which always ends.

References: Kim and Park (2011), "Fast nonnegative matrix factorization", doi:10.1137/110821172, algorithm 2; Portugal, Júdice,
Vicente (1994), "A comparison of block pivoting and interior-point algorithms for linear least squares problems with nonnegative
variables", doi:10.1090/S0025-5718-1994-1250776-4.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ppnmf.kernels.lanes import COMPILED, INLINED, fused
from ppnmf.kernels.nnls import NO_SLOPE, SINGULAR, descend
from ppnmf.threads import ordered_map

__all__ = ["PATIENCE", "ROUNDING", "least"]

FAR_FROM_SINGULAR = 1e6  # bound of ‖Q‖ ‖Q⁻¹‖, greatest sums of rows, up to which the inverse is used
PATIENCE = 3  # exchanges of everything that may pass without fewer conditions broken
ROUNDING = 1e-11  # relative to the greatest entry of P, a slope at the minimum that counts as none
SHARP = 2e-14  # the same for what the inverse gave: as little as the system of the free entries leaves
ROWS_AT_ONCE = 256  # of a task; rows are independent, so this changes nothing but who does them


def least(P: Tensor, Q: Tensor) -> Tensor:
    """The minimum of each row, (C, R, K), float64.

    Args:
        P: (C, R, K). Q: (C, K, K), symmetric and positive semidefinite. Both float64, on the CPU.
    """
    C, R, K = P.shape
    linear = np.ascontiguousarray(P.numpy())
    systems = [_systems(own) for own in Q]
    out = np.empty((C, R, K))

    def solve(task: tuple[int, int]) -> None:
        c, first = task
        rows = slice(first, first + ROWS_AT_ONCE)
        _solve(linear[c, rows], systems[c], out[c, rows])

    tasks = [(c, first) for c in range(C) for first in range(0, R, ROWS_AT_ONCE)]
    ordered_map(solve, tasks, 20.0 * ROWS_AT_ONCE * K * K)
    return torch.from_numpy(out)


def _systems(Q: Tensor) -> np.ndarray:
    """Q, and Q⁻¹ where Q is far from singular: (1 | 2, K, K)."""
    factor, failed = torch.linalg.cholesky_ex(Q)
    if int(failed) == 0:
        inverse = torch.cholesky_inverse(factor)
        if float(Q.abs().sum(-1).max() * inverse.abs().sum(-1).max()) <= FAR_FROM_SINGULAR:
            return torch.stack([Q, inverse]).numpy()
    return Q[None].contiguous().numpy()


class Desk(NamedTuple):
    """What a row is worked out on, one after another.

    Args:
        factor: (K, K), its upper triangle: of the members of a system, as Gauss's elimination leaves it.
        inverse, solution: (K,), of its pivots; and of the system.
        members: (K + 1,), which entries are in the system, in order.
        right: (2, K), P and u, the right-hand sides of the two systems.
        found: (2, K), w and y = P - w Q. left: (K,), y once more, computed from w.
        is_free, change: (K,), whether an entry is free, and whether it changes sides.
    """

    factor: np.ndarray
    inverse: np.ndarray
    solution: np.ndarray
    members: np.ndarray
    right: np.ndarray
    found: np.ndarray
    left: np.ndarray
    is_free: np.ndarray
    change: np.ndarray


@njit(**COMPILED)
def _solve(P, systems, out):  # type: ignore[no-untyped-def]
    """The rows of P (R, K)."""
    R, K = P.shape
    is_free = np.zeros(K, np.bool_)
    desk = Desk(
        np.zeros((K, K)),
        np.zeros(K),
        np.zeros(K),
        np.zeros(K + 1, np.int64),
        np.zeros((2, K)),
        np.zeros((2, K)),
        np.zeros(K),
        is_free,
        np.zeros(K, np.bool_),
    )
    free = np.empty(K, np.int64)
    room = np.empty((K + 3, K))
    for i in range(R):
        if not _pivoted(out[i], P[i], systems, desk):
            for k in range(K):
                out[i, k] = 0.0
            descend(out[i], P[i], systems[0], free, is_free, room)


@njit(**INLINED)
def _pivoted(w, P, systems, desk):  # type: ignore[no-untyped-def]
    """Whether w, in place, could be brought to its minimum by exchanges."""
    K = len(w)
    number = _begin(P, systems, desk)
    mirrored = len(systems) > 1
    fewest = K + 1
    patience = PATIENCE
    is_done = False
    goes_on = (
        True  # a loop without a return in it: with one, rows of arrays are counted in and out, a fifth of the time
    )
    exchanges = 0
    while goes_on and exchanges < 8 * K + 8:
        exchanges += 1
        side = 1 if mirrored and 2 * number > K else 0
        goes_on = _solved(systems[side], side, desk)
        broken = _look(P, desk)
        if broken == 0:
            is_done = goes_on and _is_least(w, P, systems[0], SHARP if side == 1 else ROUNDING, desk)
            goes_on = goes_on and side == 1 and not is_done
            mirrored = False  # the same set again, by the first system
        if broken < fewest:
            fewest = broken
            patience = PATIENCE
        elif patience > 0:
            patience -= 1
        else:
            _leave_the_last(desk.change)
        number = _exchanged(desk)
    return is_done


@njit(**INLINED)
def _begin(P, systems, desk):  # type: ignore[no-untyped-def]
    """Free are the entries that are positive without bounds, or drawn upwards from zero; how many they are."""
    K = len(P)
    unbound = desk.right[1]
    for k in range(K):
        desk.right[0, k] = P[k]
        unbound[k] = 0.0 if len(systems) > 1 else P[k]
    if len(systems) > 1:
        for l in range(K):
            own = systems[1, l]
            value = P[l]
            for k in range(K):
                unbound[k] = fused(own[k], value, unbound[k])
    number = 0
    for k in range(K):
        desk.is_free[k] = unbound[k] > 0.0
        number += desk.is_free[k]
    return number


@njit(**INLINED)
def _solved(M, side, desk):  # type: ignore[no-untyped-def]
    """w and y in `desk.found`, from the system of the free entries (side 0) or of the fixed ones (1); False if it is singular."""
    n = _gathered(M, side, desk)
    is_regular = _eliminated(M, n, desk)
    outside = desk.found[1 - side]
    for i in range(n):
        own = M[desk.members[i]]
        less = -desk.solution[i]
        desk.found[side, desk.members[i]] = -less
        for k in range(len(outside)):
            outside[k] = fused(own[k], less, outside[k])
    return is_regular


@njit(**INLINED)
def _gathered(M, side, desk):  # type: ignore[no-untyped-def]
    """How many members there are; their part of M in the upper triangle of `desk.factor`, of the right in `desk.solution`."""
    K = len(M)
    right = desk.right[side]
    n = 0
    for k in range(K):
        desk.members[n] = k
        n += desk.is_free[k] != (side == 1)
        desk.found[side, k] = 0.0
        desk.found[1 - side, k] = right[k]
    for i in range(n):
        k = desk.members[i]
        own = M[k]
        row = desk.factor[i]
        desk.solution[i] = right[k]
        for j in range(i, n):
            row[j] = own[desk.members[j]]
    return n


@njit(**INLINED)
def _eliminated(M, n, desk):  # type: ignore[no-untyped-def]
    """Gauss's elimination of the first n rows, symmetric, and their solution; False where those before make up a member."""
    solution = desk.solution
    for j in range(n):
        row = desk.factor[j]
        inverse = 1.0 / row[j]
        value = solution[j]
        desk.inverse[j] = inverse
        for i in range(j + 1, n):
            share = -row[i] * inverse
            below = desk.factor[i]
            solution[i] = fused(share, value, solution[i])
            for l in range(i, n):
                below[l] = fused(share, row[l], below[l])
    for i in range(n - 1, -1, -1):
        row = desk.factor[i]
        total = solution[i]
        for j in range(i + 1, n):
            total -= row[j] * solution[j]
        solution[i] = total * desk.inverse[i]
    greatest = 0.0
    for j in range(n):
        k = desk.members[j]
        share = SINGULAR * M[k, k] * desk.inverse[j]
        greatest = max(greatest, share if share > 0.0 else 1.0)
    return greatest < 1.0


@njit(**INLINED)
def _look(P, desk):  # type: ignore[no-untyped-def]
    """How many entries break their condition; `desk.change` is those that do: free and negative, or fixed and drawn upwards."""
    number = 0
    for k in range(len(P)):
        breaks = desk.found[0, k] < 0.0 if desk.is_free[k] else desk.found[1, k] > NO_SLOPE * abs(P[k])
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
def _exchanged(desk):  # type: ignore[no-untyped-def]
    """Let entries change sides; how many are free then."""
    number = 0
    for k in range(len(desk.change)):
        desk.is_free[k] = desk.is_free[k] != desk.change[k]
        number += desk.is_free[k]
    return number


@njit(**INLINED)
def _is_least(w, P, Q, limit, desk):  # type: ignore[no-untyped-def]
    """w in place; whether its slopes are at most so much, over the greatest entry of P, where they should not be there."""
    K = len(w)
    left = desk.left
    for k in range(K):
        w[k] = max(desk.found[0, k], 0.0) if desk.is_free[k] else 0.0
        left[k] = P[k]
    for l in range(K):
        own = Q[l]
        less = -w[l]
        for k in range(K):
            left[k] = fused(own[k], less, left[k])
    off = 0.0
    size = 0.0
    for k in range(K):
        off = max(off, abs(left[k]) if desk.is_free[k] else left[k])
        size = max(size, abs(P[k]))
    return off <= limit * size
