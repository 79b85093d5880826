"""A sweep of the factors of a matrix in memory with missing entries, compiled whole: every row of a factor has its Gram matrix.

What `gaussian.sweep` does with `gaussian.of_dense`'s statistics, all rows at once.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
from numba import njit

from ppnmf.kernels.cpu.rows import call_update_rows, room_for_rows
from ppnmf.kernels.cpu.sweeps import Chains, Factors, Finish, Shelf, Side, data_of, ended, turn_of
from ppnmf.kernels.grams import TABLE, Listed, add_grams, listed
from ppnmf.kernels.lanes import ENTRY, INNER, inner, inner_of_three

__all__ = ["Missing", "RoomForGrams", "masked_swept", "sweep_masked_chains"]


class Missing(NamedTuple):
    """Which entries of X (N, D) are missing."""

    seen: np.ndarray  # (N, D) boolean
    rows: Listed
    columns: Listed

    @classmethod
    def of(cls, seen: np.ndarray) -> Self:
        """From a mask, True where observed."""
        return cls(seen, listed(seen), listed(seen.T))

    @property
    def plain(self) -> tuple:
        """Plain tuples, which Numba takes from Python faster."""
        return self.seen, tuple(self.rows), tuple(self.columns)


class RoomForGrams(NamedTuple):
    """What a sweep works in."""

    lanes: np.ndarray  # `rows.room_for_rows`
    P: np.ndarray  # H Xᵀ, (K, N)
    R: np.ndarray  # W X, (K, D)
    of_W: np.ndarray  # a Gram matrix for each row of W, (K, K, N)
    of_H: np.ndarray  # and for each column of H, (K, K, D)
    turned_W: np.ndarray  # (N, K), float64
    turned_H: np.ndarray  # (D, K), float64
    full: np.ndarray  # a Gram matrix of all rows, (K, K), float64
    at_hand: int  # products that the cache holds

    @classmethod
    def of(cls, N: int, D: int, K: int, dtype: np.dtype) -> Self:
        """For factors of this type."""
        at_hand = max(1, TABLE // (K * (K + 1) // 2))
        sums = np.empty((K, N), dtype), np.empty((K, D), dtype), np.empty((K, K, N), dtype), np.empty((K, K, D), dtype)
        return cls(room_for_rows(K), *sums, np.empty((N, K)), np.empty((D, K)), np.empty((K, K)), at_hand)


@njit(**INNER)
def _turn(F, turned, full):  # type: ignore[no-untyped-def]
    """turned (R, K) = Fᵀ of F (K, R), and full = F Fᵀ, both in double precision."""
    for k in range(len(F)):
        for i in range(F.shape[1]):
            turned[i, k] = F[k, i]
    np.dot(turned.T, turned, full)


@njit(**INNER)
def _update(F, P, Q, side, turn, lanes):  # type: ignore[no-untyped-def]
    """All rows of F (K, R), in place, by P (K, R) and Q (K, K, R)."""
    address = (turn.key0, turn.key1, turn.step, side.site, np.int64(0))
    place = (np.int64(0), F.shape[1], np.int64(0))
    arguments = (F, P, Q, side.prior, turn.weight, address, place, side.first, side.passes, side.sample, lanes)
    call_update_rows(side.update_rows, arguments)


@njit(**INNER)
def _left_over(data, seen, H, room):  # type: ignore[no-untyped-def]
    """The residual sum of squares, off the products unless so little is left that the subtraction would cancel."""
    left = data.squares
    for k in range(len(H)):
        left -= 2 * inner(room.R[k], H[k])
        for l in range(len(H)):
            left += inner_of_three(room.of_H[k, l], H[k], H[l])
    if left > data.cancels * data.squares:
        return left
    left = 0.0
    fitted = np.dot(room.turned_W, H.astype(np.float64))
    for i in range(fitted.shape[0]):
        for j in range(fitted.shape[1]):
            if seen[i, j]:
                residual = np.float64(data.X[i, j]) - fitted[i, j]
                left += residual * residual
    return left


@njit(**INNER)
def masked_swept(data, missing, factors, sides, turn, room):  # type: ignore[no-untyped-def]
    """One sweep of a chain's factors, in place; gives the misfit over what is observed.

    Args:
        data: `cpu.sweeps.Data`; X is zero where an entry is missing.
        missing: `Missing`, as plain tuples.
        sides: of W and of H. room: `RoomForGrams`.
    """
    W, H = factors
    seen, rows, columns = missing
    _turn(H, room.turned_H, room.full)
    np.dot(H, data.X.T, room.P)
    add_grams(room.turned_H, room.full, rows[0], rows[1], rows[2], rows[3], room.at_hand, room.of_W)
    _update(W, room.P, room.of_W, sides[0], turn, room.lanes)
    _turn(W, room.turned_W, room.full)
    np.dot(W, data.X, room.R)
    add_grams(room.turned_W, room.full, columns[0], columns[1], columns[2], columns[3], room.at_hand, room.of_H)
    _update(H, room.R, room.of_H, sides[1], turn, room.lanes)
    return _left_over(data, seen, H, room)


@njit(**ENTRY)
def sweep_masked_chains(group, sweeps, data, missing, chains, sides, finish, shelf, room, room_for_moves):  # type: ignore[no-untyped-def]
    """`cpu.sweeps.sweep_chains` with missing entries.

    The records come as plain tuples. missing: `Missing`. room: `RoomForGrams`.
    """
    now = Chains(*chains)
    end = Finish(*finish)
    own_shelf = Shelf(*shelf)
    own_room = RoomForGrams(*room)
    both = (Side(*sides[0]), Side(*sides[1]))
    for c in range(group[0], group[1]):
        own = data_of(c, data)
        factors = Factors(now.W[c], now.H[c])
        for s in range(sweeps):
            turn = turn_of(c, s, now, end)
            misfit = masked_swept(own, missing, factors, both, turn, own_room)
            ended(c, s, misfit, now, end, own_shelf, room_for_moves)
