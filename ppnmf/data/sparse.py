"""Compressed sparse rows: the entries that are not stored are observed zeros (`Sparse`), or are missing (`Stored`)."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppnmf.data.csr import squared_residuals, times, transposed_times
from ppnmf.data.dense import BLOCK_ENTRIES, FEW_BLOCKS, Dense, in_memory
from ppnmf.data.grams import Listed, grams, packed_products, unpacked
from ppnmf.data.labelled import NO_NAMES, Names
from ppnmf.data.noise import Noise
from ppnmf.data.survey import Survey, Surveyed
from ppnmf.protocols import Statistics

__all__ = ["Rows", "Sparse", "Stored"]

LEAST_ROWS, MOST_BLOCKS = 4096, 64
CANCELS = 1e-9  # share of ‖X‖² that the residual must exceed to be read off the stored entries alone
NONE = np.empty(0)


class Rows(NamedTuple):
    """Compressed sparse rows, columns ascending in each."""

    data: Tensor  # (number of stored entries,)
    indices: Tensor
    indptr: Tensor  # (N + 1,)

    @classmethod
    def of(cls, X: Any, device: torch.device | str | None = None) -> Rows:
        """Of a SciPy matrix in CSR whose entries are float32 or float64; memory is shared where it can be."""
        parts = (X.data, X.indices, X.indptr)
        return cls(*(torch.from_numpy(p if p.flags.writeable else p.copy()).to(device) for p in parts))

    def arrays(self, rows: range) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the compiled products take for some of the rows."""
        return self.data.numpy(), self.indices.numpy(), self.indptr[rows.start : rows.stop + 1].numpy()

    def tensor(self, rows: range, columns: int, data: Tensor | None = None) -> Tensor:
        """Some of the rows as a sparse tensor, for other devices."""
        span = self.span(rows)
        values, starts = (
            (self.data if data is None else data)[span],
            self.indptr[rows.start : rows.stop + 1] - span.start,
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
            size = (len(rows), columns)
            return torch.sparse_csr_tensor(starts, self.indices[span], values, size, check_invariants=False)

    def span(self, rows: range) -> slice:
        """Where the entries of some rows stand."""
        return slice(int(self.indptr[rows.start]), int(self.indptr[rows.stop]))

    def entries(self, rows: range) -> tuple[Tensor, Tensor, Tensor]:
        """The stored values of some rows, in float64, their rows (from the first of these on) and their columns."""
        own = torch.arange(len(rows), device=self.data.device)
        row, span = own.repeat_interleave(self.indptr[rows.start : rows.stop + 1].diff()), self.span(rows)
        return self.data[span].double(), row, self.indices[span].long()

    def dense(self, rows: range, columns: int) -> tuple[Tensor, Tensor]:
        """Values (B, D), zero where nothing is stored, and where something is."""
        _, row, column = self.entries(rows)
        values = self.data.new_zeros(len(rows), columns)
        stored = torch.zeros(len(rows), columns, dtype=torch.bool, device=self.data.device)
        values[row, column], stored[row, column] = self.data[self.span(rows)], True
        return values, stored


def row_products(X: Rows, rows: range, Ht: Tensor) -> Tensor:
    """X_rows H (C, B, K) from Hᵀ (C, D, K), stored a component a row."""
    C, D, K = Ht.shape
    if not _compiled(Ht):
        block = X.tensor(rows, D)
        return torch.stack([(block @ own).mT.contiguous() for own in Ht]).mT
    P = torch.empty(C, K, len(rows), dtype=Ht.dtype)
    for c in range(C):
        times(*X.arrays(rows), Ht[c].numpy(), P[c].numpy())
    return P.mT


def column_products(X: Rows, rows: range, D: int, W: Tensor) -> Tensor:
    """X_rowsᵀ W (C, D, K) from W (C, B, K), stored a component a row."""
    C, _, K = W.shape
    if not _compiled(W):
        block = X.tensor(rows, D).to_sparse_coo().mT.coalesce().to_sparse_csr()
        return torch.stack([(block @ own).mT.contiguous() for own in W]).mT
    P, Wt = torch.zeros(C, D, K, dtype=W.dtype), W.mT.contiguous()
    for c in range(C):
        transposed_times(*X.arrays(rows), Wt[c].numpy(), P[c].numpy())
    return P.mT.contiguous().mT


@dataclass(frozen=True, eq=False)
class Sparse(Surveyed):
    """Compressed sparse rows whose other entries are zeros, observed like any; the cost grows with what is stored.

    Args:
        stored: the rows.
        size: (N, D).
        noise: known relative noise variances of rows or columns, or None.
        names: of the rows and columns.
    """

    stored: Rows
    size: tuple[int, int]
    noise: Noise | None = None
    names: Names = field(default=NO_NAMES, compare=False, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        return self.size

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        return self.stored.data.dtype

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.stored.data.device

    @cached_property
    def survey(self) -> Survey:  # type: ignore[override]
        N, D = self.size
        log_noise, per_row, per_column = 0.0, float(N), float(D)
        if self.noise is not None:
            v = self.noise.variance.double()
            log_noise = float(v.log().sum()) * (N * D / v.numel())
            per_row, per_column = (float((1 / v).sum()), D) if self.noise.along == "rows" else (N, float((1 / v).sum()))
        found = _Sums(D)
        for rows in self.blocks:
            x, row, column = self.stored.entries(rows)
            weight = (
                torch.ones_like(x)
                if self.noise is None
                else 1 / self.noise.of(rows).double().expand(len(rows), D)[row, column]
            )
            found.add(x, column, weight)
        mean = found.total / (N * D)
        deviations = found.squares - 2 * mean * found.linear + mean**2 * per_row * per_column
        all_stored = found.n == N * D
        return Survey(
            N * D,
            mean,
            max(deviations, 0.0) / (N * D),
            found.squares,
            log_noise,
            found.n_negative,
            found.least if all_stored else min(found.least, 0.0),
            found.columns / N,
        )

    @cached_property
    def blocks(self) -> list[range]:
        N, D = self.shape
        size = max(LEAST_ROWS, -(-N // MOST_BLOCKS), D // 4)
        if self.noise is not None and self.noise.along == "columns":
            size = max(size, -(-N // FEW_BLOCKS))
        return [range(start, min(start + size, N)) for start in range(0, N, size)]

    def part(self, rows: range) -> Dense:
        """Some of the rows, in memory."""
        values, _ = self.stored.dense(rows, self.size[1])
        return Dense(values, None, None if self.noise is None else self.noise.part(rows))

    def filled(self) -> Tensor:
        """X (N, D) in memory."""
        return in_memory(self, "a start by nndsvd").values

    def prepare(self, H: Tensor) -> Statistics:
        weighted, rooted = (H, H) if self.noise is None else self.noise.over_columns(H)
        return Statistics(weighted.mT.contiguous(), rooted @ rooted.mT)

    def row_statistics(self, rows: range, shared: Statistics) -> Statistics:
        told = Statistics(row_products(self.stored, rows, shared.P), shared.Q)
        return told if self.noise is None else self.noise.of_rows(rows, told)

    def column_statistics(self, rows: range, W: Tensor) -> Statistics:
        weighted, rooted = (W, W) if self.noise is None else self.noise.over_rows(rows, W)
        told = Statistics(column_products(self.stored, rows, self.size[1], weighted), rooted.mT @ rooted)
        return told if self.noise is None else self.noise.of_columns(told)

    def residual_sum_of_squares(self, rows: range, W: Tensor, H: Tensor) -> Tensor:
        """Σ (x - wh)² = Σ stored (x² - 2 x wh) + ‖WH‖², in float64; over all entries where that cancels."""
        W, H = W.double(), H.double()
        if not _compiled(W):
            return _by_tiles(self, rows, W, H)
        over_H = H if self.noise is None else self.noise.over_columns(H)[1]
        over_W = W if self.noise is None else self.noise.over_rows(rows, W)[1]
        explained = ((over_W.mT @ over_W) * (over_H @ over_H.mT)).sum((-2, -1))
        per_row, per_column = NONE, NONE
        if self.noise is not None:
            inverse = (1 / self.noise.of(rows).double()).flatten().numpy()
            per_row, per_column = (inverse, NONE) if self.noise.along == "rows" else (NONE, inverse)
        Wt, Ht = W.mT.contiguous().numpy(), H.mT.contiguous().numpy()
        weights, X = (NONE, per_row, per_column), self.stored.arrays(rows)
        each = [squared_residuals(*X, *weights, w, h, False) for w, h in zip(Wt, Ht, strict=True)]
        found = explained + torch.tensor(each, dtype=torch.float64)
        trusted = found > CANCELS * explained
        return found if bool(trusted.all()) else torch.where(trusted, found, _by_tiles(self, rows, W, H))


@dataclass(frozen=True, eq=False)
class Stored(Surveyed):
    """Compressed sparse rows whose other entries are missing, as in tables of ratings; a stored zero is a zero.

    Args:
        stored: the rows.
        size: (N, D).
        relative: known relative noise variances of the stored entries, or None.
        names: of the rows and columns.
    """

    stored: Rows
    size: tuple[int, int]
    relative: Tensor | None = None
    names: Names = field(default=NO_NAMES, compare=False, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        return self.size

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        return self.stored.data.dtype

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.stored.data.device

    @property
    def noise(self) -> Tensor | None:
        return self.relative

    @cached_property
    def survey(self) -> Survey:  # type: ignore[override]
        found, deviations, log_noise = _Sums(self.size[1]), 0.0, 0.0
        for rows in self.blocks:
            x, _, column = self.stored.entries(rows)
            found.add(x, column, self._weights_of(rows))
        mean = found.total / found.n
        for rows in self.blocks:
            x, weight = self.stored.entries(rows)[0], self._weights_of(rows)
            deviations += float(((x - mean).square() * weight).sum())
            log_noise -= float(weight.log().sum())
        means = np.where(found.counts > 0, found.columns / np.maximum(found.counts, 1), mean)
        variance, n = deviations / found.n, found.n
        return Survey(n, mean, variance, found.squares, log_noise, found.n_negative, found.least, means)

    @cached_property
    def blocks(self) -> list[range]:
        N = self.size[0]
        size = max(LEAST_ROWS, -(-N // FEW_BLOCKS))
        return [range(start, min(start + size, N)) for start in range(0, N, size)]

    def part(self, rows: range) -> Dense:
        """Some of the rows, in memory, with a mask."""
        values, stored = self.stored.dense(rows, self.size[1])
        noise = None
        if self.relative is not None:
            variance = torch.ones_like(values)
            variance[stored] = self.relative[self.stored.span(rows)]
            noise = Noise(variance, "entries")
        return Dense(values, stored, noise)

    def filled(self) -> Tensor:
        """X (N, D) in memory, a missing entry as its column's observed mean."""
        dense = in_memory(self, "a start by nndsvd")
        return torch.where(dense.mask, dense.values, self.column_means())  # type: ignore[arg-type]

    def prepare(self, H: Tensor) -> Statistics:
        return Statistics(H.mT.contiguous(), H)

    def row_statistics(self, rows: range, shared: Statistics) -> Statistics:
        P, H = row_products(self._over_noise, rows, shared.P), shared.Q
        if _compiled(H):
            return Statistics(P, grams(H, self._by_row, rows.start, rows.stop))
        pattern = self.stored.tensor(rows, self.size[1], self._weights)
        each = torch.stack([(pattern @ own.mT).mT for own in packed_products(H)])
        return Statistics(P, unpacked(each, H.shape[-2]))

    def column_statistics(self, rows: range, W: Tensor) -> Statistics:
        P = column_products(self._over_noise, rows, self.size[1], W)
        if _compiled(W):
            return Statistics(P, grams(W.mT, self._by_column(rows)))
        pattern = self.stored.tensor(rows, self.size[1], self._weights).to_sparse_coo().mT.coalesce().to_sparse_csr()
        each = torch.stack([(pattern @ own.mT).mT for own in packed_products(W.mT)])
        return Statistics(P, unpacked(each, W.shape[-1]))

    def residual_sum_of_squares(self, rows: range, W: Tensor, H: Tensor) -> Tensor:
        W, H = W.double(), H.double()
        if not _compiled(W):
            return _by_tiles(self, rows, W, H)
        weight = NONE if self.relative is None else self._weights.double().numpy()
        Wt, Ht, X = W.mT.contiguous().numpy(), H.mT.contiguous().numpy(), self.stored.arrays(rows)
        each = [squared_residuals(*X, weight, NONE, NONE, w, h, True) for w, h in zip(Wt, Ht, strict=True)]
        return torch.tensor(each, dtype=torch.float64)

    @cached_property
    def _weights(self) -> Tensor:
        """One over the noise of each stored entry."""
        return torch.ones_like(self.stored.data) if self.relative is None else 1 / self.relative

    def _weights_of(self, rows: range) -> Tensor:
        span = self.stored.span(rows)
        return (
            torch.ones_like(self.stored.data[span]).double()
            if self.relative is None
            else 1 / self.relative[span].double()
        )

    @cached_property
    def _over_noise(self) -> Rows:
        return self.stored if self.relative is None else self.stored._replace(data=self.stored.data * self._weights)

    @cached_property
    def _by_row(self) -> Listed:
        """The stored entries of each row."""
        weight = NONE if self.relative is None else self._weights.double().numpy()
        every = np.zeros(self.size[0], dtype=bool)
        return Listed(
            self.stored.indptr.numpy().astype(np.int64),
            self.stored.indices.numpy().astype(np.int32, copy=False),
            every,
            weight,
        )

    def _by_column(self, rows: range) -> Listed:
        """The stored entries of each column, among some rows, counted from the first of these."""
        key = (rows.start, rows.stop)
        if key not in self._column_lists:
            _, row, column = (part.numpy() for part in self.stored.entries(rows))
            order = np.argsort(column, kind="stable")
            starts = np.zeros(self.size[1] + 1, dtype=np.int64)
            np.cumsum(np.bincount(column, minlength=self.size[1]), out=starts[1:])
            weight = NONE if self.relative is None else self._weights_of(rows).numpy()[order]
            every = np.zeros(self.size[1], dtype=bool)
            self._column_lists[key] = Listed(starts, row[order].astype(np.int32), every, weight)
        return self._column_lists[key]

    @cached_property
    def _column_lists(self) -> dict[tuple[int, int], Listed]:
        return {}


class _Sums:
    """Sums over the stored entries, a block of rows at a time."""

    def __init__(self, D: int) -> None:
        self.n, self.n_negative, self.least = 0, 0, float("inf")
        self.total, self.squares, self.linear = 0.0, 0.0, 0.0
        self.columns, self.counts = np.zeros(D), np.zeros(D, dtype=np.int64)

    def add(self, x: Tensor, column: Tensor, weight: Tensor) -> None:
        if not len(x):
            return
        self.n, self.n_negative, self.least = (
            self.n + len(x),
            self.n_negative + int((x < 0).sum()),
            min(self.least, float(x.min())),
        )
        self.total += float(x.sum())
        self.squares, self.linear = (
            self.squares + float((x.square() * weight).sum()),
            self.linear + float((x * weight).sum()),
        )
        where = column.cpu().numpy()
        self.columns += np.bincount(where, x.cpu().numpy(), minlength=len(self.columns))
        self.counts += np.bincount(where, minlength=len(self.counts))


def _by_tiles(X: Any, rows: range, W: Tensor, H: Tensor) -> Tensor:
    """The residual sum of squares over dense tiles of rows."""
    size = max(1, BLOCK_ENTRIES // X.size[1])
    tiles = [range(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size)]
    own = [W[:, tile.start - rows.start : tile.stop - rows.start] for tile in tiles]
    each = [X.part(t).residual_sum_of_squares(range(len(t)), w, H) for t, w in zip(tiles, own, strict=True)]
    return torch.stack(each).sum(0)


def _compiled(F: Tensor) -> bool:
    return F.device.type == "cpu" and os.environ.get("PPNMF_KERNEL") != "reference"
