"""A matrix in memory, some of its entries perhaps missing or noisier than others."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppnmf.data.grams import Listed, grams, listed, packed_products, unpacked
from ppnmf.data.labelled import NO_NAMES, Names, names_of
from ppnmf.data.noise import Noise
from ppnmf.kernels import kernels_for
from ppnmf.protocols import Matrix, Statistics
from ppnmf.threads import single_threaded

__all__ = ["IN_MEMORY", "Dense", "in_memory", "without_noise"]

BLOCK_ENTRIES = 2**15  # entries of X in a row block: 256 kB of float64, which stay in cache between its two products
FEW_BLOCKS = 16  # at most, where every one of them makes a Gram matrix a column
IN_MEMORY = (
    2**26
)  # entries (512 MB of float64) up to which a matrix of another kind is made dense where a method needs it


@dataclass(frozen=True, eq=False)
class Dense:
    """A dense matrix in memory.

    Args:
        values: shape (N, D), zero where an entry is missing; make one with `as_matrix`.
        mask: boolean (N, D), True where observed, or None when everything is.
        noise: known relative noise variances, or None when all are one.
        names: of the rows and columns; a part of the rows goes without.
    """

    values: Tensor
    mask: Tensor | None = None
    noise: Noise | None = None
    names: Names = field(default=NO_NAMES, compare=False, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.shape[0], self.values.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        return self.values.device

    @cached_property
    def n_observed(self) -> int:
        return self.values.numel() if self.mask is None else int(self.mask.sum())

    @cached_property
    def sum_of_squares(self) -> float:
        with single_threaded():
            return float(sum(self.over_noise(self._double(rows).square(), rows).sum() for rows in self.blocks))

    @cached_property
    def log_noise(self) -> float:
        if self.noise is None:
            return 0.0
        log = self.noise.variance.double().log().expand(self.shape)
        with single_threaded():
            return float((log if self.mask is None else log * self.mask).sum())

    @property
    def n_negative(self) -> int:
        return int((self.values < 0).sum())

    @property
    def least(self) -> float:
        return float(self.values.min())

    @cached_property
    def blocks(self) -> list[range]:
        N, D = self.shape
        size = N if self.device.type == "cuda" else max(1, BLOCK_ENTRIES // D)
        if self._grams_by_column:
            size = max(size, -(-N // FEW_BLOCKS))
        return [range(start, min(start + size, N)) for start in range(0, N, size)]

    @cached_property
    def plain(self) -> Tensor | None:
        """The values (1, N, D) where they are all there is to know and lie in memory, for sweeps compiled whole."""
        bare = self.mask is None and self.noise is None and self.device.type == "cpu"
        return self.values[None] if bare else None

    def mean(self) -> float:
        """Mean of the observed entries."""
        with single_threaded():
            return float(self.values.double().sum()) / self.n_observed

    def variance(self) -> float:
        """Mean of the squared deviations of the observed entries, each over its relative noise variance."""
        mean, total = self.mean(), 0.0
        with single_threaded():
            for rows in self.blocks:
                part = self.part(rows)
                squared = (part.values.double() - mean).square()
                total += float(part.over_noise(squared if part.mask is None else squared * part.mask).sum())
        return total / self.n_observed

    def column_means(self) -> Tensor:
        """Mean of the observed entries of each column, shape (D,); the overall mean where a column has none."""
        overall = torch.as_tensor(self.mean(), dtype=self.dtype, device=self.device)
        with single_threaded():
            if self.mask is None:
                return self.values.mean(0)
            count = self.mask.sum(0)
            return torch.where(count > 0, self.values.sum(0) / count.clamp(min=1), overall)

    def filled(self) -> Tensor:
        """The values, a missing entry as its column's observed mean."""
        return self.values if self.mask is None else torch.where(self.mask, self.values, self.column_means())

    def hide(self, kept: Tensor) -> Dense:
        """The same data with only the entries that are True in `kept` (N, D) observed."""
        mask = kept if self.mask is None else self.mask & kept
        return Dense(torch.where(mask, self.values, torch.zeros_like(self.values)), mask, self.noise, self.names)

    def part(self, rows: range) -> Dense:
        """Some of the rows."""
        block = slice(rows.start, rows.stop)
        mask = None if self.mask is None else self.mask[block]
        return Dense(self.values[block], mask, None if self.noise is None else self.noise.part(rows))

    def over_noise(self, squared: Tensor, rows: range | None = None) -> Tensor:
        """Squares of all entries, or of some rows', (*C, B, D), over their relative noise variances."""
        own = range(self.shape[0]) if rows is None else rows
        return squared if self.noise is None else squared / self.noise.of(own).double()

    def prepare(self, H: Tensor) -> Statistics:
        weighted, rooted = (H, H) if self.noise is None else self.noise.over_columns(H)
        if self._weights is not None:
            return Statistics(weighted, packed_products(rooted))
        if self.mask is not None:
            return Statistics(weighted, rooted)
        return Statistics(weighted, rooted @ rooted.mT)

    def row_statistics(self, rows: range, shared: Statistics) -> Statistics:
        block, K = slice(rows.start, rows.stop), shared.P.shape[-2]
        P = _times(shared.P, self._over_own_noise(block).mT).mT
        Q = shared.Q
        if self._weights is not None:
            Q = unpacked(_times(Q, self._weights[block].mT), K)
        elif self.mask is not None:
            Q = grams(Q, self._listed_by_row, rows.start, rows.stop)
        told = Statistics(P, Q)
        return told if self.noise is None else self.noise.of_rows(rows, told)

    def column_statistics(self, rows: range, W: Tensor) -> Statistics:
        block, K = slice(rows.start, rows.stop), W.shape[-1]
        weighted, rooted = (W, W) if self.noise is None else self.noise.over_rows(rows, W)
        P = _times(weighted.mT, self._over_own_noise(block)).mT
        if self._weights is not None:
            Q = unpacked(_times(packed_products(rooted.mT), self._weights[block]), K)
        elif self.mask is not None:
            Q = grams(rooted.mT, self._listed_by_column(rows))
        else:
            Q = rooted.mT @ rooted
        told = Statistics(P, Q)
        return told if self.noise is None else self.noise.of_columns(told)

    def residual_sum_of_squares(self, rows: range, W: Tensor, H: Tensor) -> Tensor:
        if self.device.type == "cpu" and len(W) > 1:  # chain by chain: the residuals of many take much memory
            return torch.cat(
                [self.residual_sum_of_squares(rows, w, h) for w, h in zip(W.split(1), H.split(1), strict=True)]
            )
        squared = (self._double(rows) - W.double() @ H.double()).square()
        if self.mask is not None:
            squared = squared * self.mask[rows.start : rows.stop]
        return self.over_noise(squared, rows).sum((-2, -1))

    def residual_where_small(self, left: Tensor, least: float, W: Tensor, H: Tensor) -> Tensor:
        """Misfits `left` (C,), formed anew where they are not above `least`: `kernels.reference.residual_where_small`."""
        kernels = kernels_for(self.device)
        return kernels.residual_where_small(left, least, self.values, self._observed_over_noise, W, H)

    @cached_property
    def _observed_over_noise(self) -> Tensor | None:
        seen = None if self.mask is None else self.mask.to(self.dtype)
        if self.noise is None:
            return seen
        return (1 if seen is None else seen) / self.noise.variance

    @property
    def _grams_by_column(self) -> bool:
        return self.mask is not None or (self.noise is not None and self.noise.along != "rows")

    @cached_property
    def _weights(self) -> Tensor | None:
        """Of the entries (N, D), where Gram matrices are added up by products of whole matrices."""
        by_entry = self.noise is not None and self.noise.along == "entries"
        lists_serve = self.device.type == "cpu" and os.environ.get("PPNMF_KERNEL") != "reference"
        if not by_entry and (self.mask is None or lists_serve):
            return None
        weights = 1 / self.noise.variance if by_entry else torch.ones_like(self.values)  # type: ignore[union-attr]
        return weights if self.mask is None else weights * self.mask

    def _over_own_noise(self, block: slice) -> Tensor:
        """Values over the noise of each entry; what rows or columns share is on the factors' side."""
        by_entry = self.noise is not None and self.noise.along == "entries"
        return self.values[block] / self.noise.variance[block] if by_entry else self.values[block]  # type: ignore[union-attr]

    def _double(self, rows: range) -> Tensor:
        return self.values[rows.start : rows.stop].double()

    @cached_property
    def _listed_by_row(self) -> Listed:
        return listed(self._mask_array)

    def _listed_by_column(self, rows: range) -> Listed:
        key = (rows.start, rows.stop)
        if key not in self._column_lists:
            self._column_lists[key] = listed(self._mask_array[rows.start : rows.stop].T)
        return self._column_lists[key]

    @cached_property
    def _column_lists(self) -> dict[tuple[int, int], Listed]:
        return {}

    @property
    def _mask_array(self) -> np.ndarray:
        assert self.mask is not None
        return self.mask.numpy()


def in_memory(X: Any, who: str) -> Dense:
    """X as a `Dense`, for a method that needs it so.

    Raises:
        TypeError: X is of another kind and has more than `IN_MEMORY` entries.
    """
    if isinstance(X, Dense):
        return X
    N, D = X.shape
    if not hasattr(X, "part"):
        raise TypeError(f"{who} needs X in memory as one matrix; a {type(X).__name__} of {N} × {D} cannot be that")
    if N * D > IN_MEMORY:
        raise TypeError(
            f"{who} needs X in memory as a dense matrix, and this {type(X).__name__} of {N} × {D} is not made dense, for that "
            f"would take more than {IN_MEMORY} entries: pass it as a dense array if there is room, or use gibbs or icm"
        )
    return replace(X.part(range(N)), names=names_of(X))


def without_noise(X: Matrix, who: str) -> Matrix:
    """X, unless its entries have known noise variances, for methods that cannot use them. Raises TypeError."""
    if getattr(X, "noise", None) is not None:
        raise TypeError(f"{who} takes all entries of X as equally noisy and cannot use noise=; use gibbs or icm")
    return X


def _times(A: Tensor, B: Tensor) -> Tensor:
    """A (C, R, S) @ B (S, T), each chain's product by itself: its bits do not depend on how many others there are.

    The few components lead and the many rows or columns of X come last, in the products here as in what is made of
    them: the other way round a product took up to 30 times as long, and the kernels want components a row.
    """
    return torch.bmm(A, B.expand(len(A), -1, -1))
