"""Rows of a factor by the rule of Lee and Seung (2001), many rows at once: `gaussian.descent.multiplied`, compiled.

A part with the arguments of `rows.update_rows`, so that a sweep of modes becomes one of multiplicative updates by its
address alone.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from ppnmf.kernels.cpu.rows import signature_of_update_rows
from ppnmf.kernels.lanes import COMPILED, INLINED, select, weighted_rows
from ppnmf.kernels.parts import address_of

__all__ = ["address_of_multiply_rows", "multiply_rows"]


@njit(**COMPILED)
def multiply_rows(F, P, Q, prior, weight, address, rows, first, passes, sample, room):  # type: ignore[no-untyped-def]
    """F_ik ← F_ik P⁺_ik / (F Q + P⁻)_ik, in place; an entry whose divisor is 0 stays as it is.

    Args:
        F: (K, R), a component a row. P: (K, R - shift), and Q (K, K, 1), one for all rows.
        rows: lo, hi and shift, as in `update_rows`; the other arguments are not read.
        room: `room_for_rows(K)`.
    """
    K = len(F)
    lo, hi, shift = rows
    before = room[:K]
    explained = room[K]
    together = room.shape[1]
    for start in range(lo, hi, together):
        n = min(together, hi - start)
        for k in range(K):
            for i in range(n):
                before[k, i] = F[k, start + i]
        for k in range(first, K):
            weighted_rows(Q[k, :, 0], before, n, explained)
            own = P[k, start - shift : start - shift + n]
            _multiply(before[k], own, explained, F[k, start : start + n])


@njit(**INLINED)
def _multiply(before, P, explained, after):  # type: ignore[no-untyped-def]
    """The rule for a component, in each lane."""
    for i in range(len(after)):
        told = np.float64(P[i])
        below = explained[i] + max(-told, 0.0)
        changes = below > 0.0
        quotient = before[i] * max(told, 0.0) / select(changes, below, 1.0)
        after[i] = select(changes, quotient, before[i])


def address_of_multiply_rows(dtype: np.dtype) -> int:
    """For `rows.call_update_rows`, of factors of this type."""
    return address_of(multiply_rows, signature_of_update_rows, dtype)
