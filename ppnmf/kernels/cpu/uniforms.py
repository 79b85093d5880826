"""`rng.uniform_pair` as compiled functions that are called: for one address, and for many rows at once."""

from __future__ import annotations

from numba import njit

from ppnmf.kernels.lanes import INNER
from ppnmf.rng import uniform_pair

__all__ = ["pair_of_uniforms", "uniforms_of_rows"]


@njit(**INNER)
def pair_of_uniforms(key0, key1, pair, row, step, site):  # type: ignore[no-untyped-def]
    """`uniform_pair` as a function that is called, where no lanes are filled."""
    return uniform_pair(key0, key1, pair, row, step, site)


@njit(**INNER)
def uniforms_of_rows(key0, key1, pair, first_row, step, site, n, even, odd):  # type: ignore[no-untyped-def]
    """The uniforms of columns 2 pair and 2 pair + 1 in n rows from `first_row` on, into even[:n] and odd[:n].

    All lanes are filled at once.

    Args:
        key0, key1: the words of a stream's key (`rng.Stream.keys`).
        step, site: the rest of the address.
    """
    for i in range(n):
        even[i], odd[i] = uniform_pair(key0, key1, pair, first_row + i, step, site)
