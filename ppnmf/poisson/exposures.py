"""Known exposures e of the entries of X, and what of them is observed: E[X_ij] = e_ij (W H)_ij.

An entry that is missing has an exposure of zero: that is all that a mask changes. Exposures that are a product of one
a row and one a column need no entry for each cell.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ppnmf.checks import borrowed
from ppnmf.data.containers import opened
from ppnmf.data.dense import Dense
from ppnmf.data.labelled import listed
from ppnmf.kernels import csr
from ppnmf.poisson.allocation import Counts, Known, counts_of, is_compiled
from ppnmf.protocols import Matrix

__all__ = ["Exposed", "checked", "exposed", "mean_exposure", "require_fits", "table"]


def checked(value: Any) -> float | Tensor:
    """Exposures as a model holds them: a number, or float64 (D,), (N, 1) or (N, D).

    Raises:
        ValueError: another shape, or numbers that are not positive and finite; names of rows, which nothing here can be
            matched with.
    """
    given = opened("exposures", value)
    if given.names.rows is not None:
        raise ValueError(
            f"exposures have names of rows ({listed(given.names.rows)}), and a model holds none to match them with: pass "
            "exposures.to_numpy() in the order of X's, or give them to for_data beside X"
        )
    values = torch.as_tensor(borrowed("exposures", given.values), dtype=torch.float64).clone()
    if values.ndim > 2:
        raise ValueError(f"exposures has shape {tuple(values.shape)}; give a number, (D,), (N, 1) or (N, D)")
    if not bool((values > 0).all()) or not bool(values.isfinite().all()):
        raise ValueError(
            f"exposures has entries that are not positive and finite (least {values.min():.6g}): mask what cannot be observed"
        )
    return float(values) if values.ndim == 0 else values


def table(value: float | Tensor) -> Tensor:
    """Checked exposures as (1 | N, 1 | D), float64."""
    values = torch.as_tensor(value, dtype=torch.float64)
    return values.reshape((1,) * (2 - values.ndim) + values.shape)


def require_fits(table: Tensor, shape: tuple[int, int]) -> None:
    """Raise ValueError when exposures (1 | N, 1 | D) are not for X of this shape."""
    own = tuple(table.shape)
    if own[0] not in (1, shape[0]) or own[1] not in (1, shape[1]):
        raise ValueError(f"exposures has shape {own} and X {tuple(shape)}; give a number, (D,), (N, 1) or (N, D)")


class Exposed(Protocol):
    """The exposures of what is observed of a block."""

    def over_columns(self, Ht: Tensor) -> Tensor:
        """Σ_j e_ij H_kj (C, B, K), or (C, 1, K) where it is the same for all rows, from Hᵀ (C, D, K)."""
        ...

    def over_rows(self, W: Tensor) -> Tensor:
        """Σ_i e_ij W_ik (C, D, K), or (C, 1, K), from the block's rows W (C, B, K)."""
        ...

    def of_counts(self, counts: Counts) -> Known:
        """The exposures at the counts: of their rows, of their columns, and of their places."""
        ...


class Product(NamedTuple):
    """Of rows (B, 1) times those of columns (1, D), either of which may be one number for all."""

    rows: Tensor
    columns: Tensor

    def over_columns(self, Ht: Tensor) -> Tensor:
        return self.rows * (self.columns.mT * Ht).sum(-2, keepdim=True)

    def over_rows(self, W: Tensor) -> Tensor:
        return self.columns.mT * (self.rows * W).sum(-2, keepdim=True)

    def of_counts(self, counts: Counts) -> Known:
        one = self.columns.shape[1] == 1
        rows = self.rows[:, 0] * self.columns[0, 0] if one else self.rows[:, 0]
        return rows.expand(counts.starts.shape[1] - 1), None if one else self.columns[0], None


class Entries(NamedTuple):
    """Of each entry, (B, D), or (C, B, D) where each chain has its own."""

    values: Tensor

    def over_columns(self, Ht: Tensor) -> Tensor:
        return self.values @ Ht

    def over_rows(self, W: Tensor) -> Tensor:
        return self.values.mT @ W

    def of_counts(self, counts: Counts) -> Known:
        if len(counts.starts) == 1:
            return None, None, self.values[counts.rows, counts.columns.long()]
        each = [self.values[own.rows, own.columns.long()] for own in map(counts.of, range(len(counts.starts)))]
        places = counts.data.new_ones(len(counts.data))
        places[int(counts.starts[0, 0]) : int(counts.starts[-1, -1])] = torch.cat(each)
        return None, None, places


class Stored(NamedTuple):
    """Of the entries that are stored, where all others are missing."""

    counts: Counts
    values: Tensor  # (M,)
    width: int

    def over_columns(self, Ht: Tensor) -> Tensor:
        return torch.stack([self._over_columns(own) for own in Ht])

    def over_rows(self, W: Tensor) -> Tensor:
        return torch.stack([self._over_rows(own) for own in W])

    def of_counts(self, counts: Counts) -> Known:
        return None, None, self.values

    def _over_columns(self, Ht: Tensor) -> Tensor:
        B, K = self.counts.starts.shape[1] - 1, Ht.shape[1]
        if is_compiled(Ht):
            out = torch.empty(K, B, dtype=Ht.dtype)
            csr.times(*self._arrays(), Ht.numpy(), out.numpy())
            return out.mT
        rows, columns = self.counts.rows, self.counts.columns.long()
        return Ht.new_zeros(B, K).index_add(0, rows, self.values[:, None] * Ht[columns])

    def _over_rows(self, W: Tensor) -> Tensor:
        out = W.new_zeros(self.width, W.shape[1])
        if is_compiled(W):
            csr.transposed_times(*self._arrays(), W.mT.contiguous().numpy(), out.numpy())
            return out
        rows, columns = self.counts.rows, self.counts.columns.long()
        return out.index_add(0, columns, self.values[:, None] * W[rows])

    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        _, columns, starts = self.counts.arrays()
        return self.values.numpy(), columns, starts[0]


def exposed(block: Any, rows: range, e: Tensor) -> Exposed:
    """The exposures of what is observed of a block, whose rows these are among those of e (1 | N, 1 | D)."""
    own = (e if len(e) == 1 else e[rows.start : rows.stop]).to(block.device)
    if not isinstance(block, Dense):
        return _of_stored(block, own) if block.missing else _of_all(own)
    if block.mask is None:
        return _of_all(own)
    if "seen" not in block.kept:
        block.kept["seen"] = block.mask.double()
    seen: Tensor = block.kept["seen"]
    return Entries(seen if own.numel() == 1 and float(own) == 1.0 else own * seen)


def _of_all(own: Tensor) -> Exposed:
    one = own.new_ones(1, 1)
    if len(own) == 1:
        return Product(one, own)
    return Product(own, one) if own.shape[1] == 1 else Entries(own)


def _of_stored(block: Any, own: Tensor) -> Stored:
    counts = counts_of(block)
    values = own.expand(counts.starts.shape[1] - 1, block.shape[1])[counts.rows, counts.columns.long()]
    return Stored(counts, values, block.shape[1])


def mean_exposure(X: Matrix, e: Tensor) -> float:
    """The mean of e over the observed entries of X."""

    def of_block(rows: range, block: Any) -> Tensor:
        ones = torch.ones(1, len(rows), 1, dtype=torch.float64, device=X.device)
        return exposed(block, rows, e).over_rows(ones).expand(1, X.shape[1], 1).sum()

    return float(X.fold(of_block)) / X.n_observed
