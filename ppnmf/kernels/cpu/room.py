"""What the update of some rows of W works in, and how many rows of X are multiplied at once."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np

from ppnmf.kernels.cpu.rows import room_for_rows

__all__ = ["ALL_ROWS", "A_BLOCK", "A_LOT", "GRAM_OF_H", "LOT", "Room"]

LOT = 8  # blocks of rows in a task
ALL_ROWS, A_LOT, A_BLOCK, GRAM_OF_H = range(4)  # whose sums stand where in a `Room`
SMALL = 10**6  # multiplications up to which OpenBLAS takes a product without copying its matrices into order first


def _rows_at_once(block: int, D: int, K: int) -> int:
    """The rows of X that are multiplied together: a block, so that X stays in the cache from one product to the other.

    Where that is no small product any more, copying pays for many rows alone, and they are as many as a lot has.

    Args:
        block: rows in a block, of D columns.
        K: components.
    """
    return block if block * D * K <= SMALL else LOT * block


class Room(NamedTuple):
    """What the update of some rows of W works in, n rows at a time; few arrays, since Numba lowers each one."""

    lanes: np.ndarray  # `rows.room_for_rows`
    block: np.ndarray  # H Xᵀ and the rows of W, (2, K, n)
    last_block: np.ndarray  # the same for the last of the rows
    R: np.ndarray  # W X of all rows, of a lot, of n rows, (3, K, D)
    G: np.ndarray  # W Wᵀ of the same three, and H Hᵀ, (4, K, K)
    each_G: np.ndarray  # the same memory, (4, K, K, 1)

    @classmethod
    def of(cls, rows: int, D: int, K: int, block: int, dtype: np.dtype) -> Self:
        """For so many rows of W, where X (N, D) has blocks of `block` rows."""
        n = min(_rows_at_once(block, D, K), rows)
        whole = np.empty((2, K, n), dtype)
        last = whole if rows % n == 0 else np.empty((2, K, rows % n), dtype)
        G = np.empty((4, K, K), dtype)
        return cls(room_for_rows(K), whole, last, np.empty((3, K, D), dtype), G, G[..., None])
