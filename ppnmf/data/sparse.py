"""Compressed sparse rows: the entries that are not stored are observed zeros, or are missing."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppnmf.data.dense import FEW_BLOCKS, Dense, in_memory
from ppnmf.data.labelled import NO_NAMES, Names
from ppnmf.data.noise import Noise
from ppnmf.data.survey import Survey, Surveyed

__all__ = ["Rows", "Sparse"]

LEAST_ROWS, MOST_BLOCKS = 4096, 64


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

    def part(self, rows: range) -> Rows:
        """Some of the rows."""
        span = self.span(rows)
        return Rows(self.data[span], self.indices[span], self.indptr[rows.start : rows.stop + 1] - span.start)

    def span(self, rows: range) -> slice:
        """Where the entries of some rows stand."""
        return slice(int(self.indptr[rows.start]), int(self.indptr[rows.stop]))

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What compiled products take."""
        return self.data.numpy(), self.indices.numpy(), self.indptr.numpy()

    def tensor(self, columns: int, data: Tensor | None = None) -> Tensor:
        """The rows, or the same pattern with other values, as a sparse tensor, for other devices."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
            size = (len(self.indptr) - 1, columns)
            values = self.data if data is None else data
            return torch.sparse_csr_tensor(self.indptr, self.indices, values, size, check_invariants=False)

    def places(self) -> tuple[Tensor, Tensor]:
        """The row and the column of each stored entry."""
        counts = self.indptr.diff()
        return torch.arange(len(counts), device=counts.device).repeat_interleave(counts), self.indices.long()

    def dense(self, columns: int) -> tuple[Tensor, Tensor]:
        """Values (B, D), zero where nothing is stored, and where something is."""
        row, column = self.places()
        values = self.data.new_zeros(len(self.indptr) - 1, columns)
        stored = torch.zeros_like(values, dtype=torch.bool)
        values[row, column] = self.data
        stored[row, column] = True
        return values, stored


@dataclass(frozen=True, eq=False)
class Sparse(Surveyed):
    """Compressed sparse rows, or a block of them; the cost of a sweep grows with what is stored.

    Args:
        stored: the rows.
        size: (N, D).
        missing: entries that are not stored are missing, as in tables of ratings, and a stored zero is a zero; otherwise
            they are zeros, observed like any.
        noise: known relative noise variances, or None: of rows or columns; where entries are missing, of those stored.
        names: of the rows and columns.
    """

    stored: Rows
    size: tuple[int, int]
    missing: bool = False
    noise: Noise | None = None
    names: Names = field(default=NO_NAMES, compare=False, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        return self.size

    @property
    def dtype(self) -> torch.dtype:
        return self.stored.data.dtype

    @property
    def device(self) -> torch.device:
        return self.stored.data.device

    @property
    def uneven(self) -> bool:
        """Whether the entries of a row have different weights: some are missing, or noise is not one a row."""
        return self.missing or (self.noise is not None and self.noise.along != "rows")

    @cached_property
    def weights(self) -> Tensor | None:
        """One over the noise of each stored entry, float64; None where all are one."""
        if self.noise is None:
            return None
        if self.missing:
            return 1 / self.noise.variance.double()
        return (1 / self.noise.variance.double()).expand(self.size)[self.stored.places()]

    @cached_property
    def blocks(self) -> list[range]:
        N, D = self.size
        size = max(LEAST_ROWS, -(-N // MOST_BLOCKS), 0 if self.missing else D // 4)
        if self.uneven:
            size = max(size, -(-N // FEW_BLOCKS))
        return [range(start, min(start + size, N)) for start in range(0, N, size)]

    def block(self, rows: range) -> Sparse:
        if rows not in self._blocks:
            size = (len(rows), self.size[1])
            self._blocks[rows] = Sparse(self.stored.part(rows), size, self.missing, self._noise_of(rows))
        return self._blocks[rows]

    @cached_property
    def _blocks(self) -> dict[range, Sparse]:
        return {}

    def _noise_of(self, rows: range) -> Noise | None:
        if self.noise is None or not self.missing:
            return None if self.noise is None else self.noise.part(rows)
        return self.noise._replace(variance=self.noise.variance[self.stored.span(rows)])

    def part(self, rows: range) -> Dense:
        """Some of the rows, dense; with a mask where entries are missing."""
        values, stored = self.stored.part(rows).dense(self.size[1])
        noise = self._noise_of(rows)
        if not self.missing:
            return Dense(values, None, noise)
        if noise is not None:
            variance = torch.ones_like(values)
            variance[stored] = noise.variance
            noise = Noise(variance, "entries")
        return Dense(values, stored, noise)

    def filled(self) -> Tensor:
        """X (N, D) in memory, a missing entry as its column's observed mean."""
        dense = in_memory(self, "a start by nndsvd")
        return dense.values if dense.mask is None else torch.where(dense.mask, dense.values, self.column_means())

    def observed(self) -> tuple[Tensor, Tensor]:
        """How many entries of each row (N,), and of each column (D,), are observed."""
        N, D = self.size
        if self.missing:
            return self.stored.indptr.diff(), torch.bincount(self.stored.indices.long(), minlength=D)
        return torch.full((N,), D, device=self.device), torch.full((D,), N, device=self.device)

    @cached_property
    def survey(self) -> Survey:  # type: ignore[override]
        found = _Sums(self.size[1])
        for rows in self.blocks:
            found.add(self.block(rows))
        return self._survey_of_stored(found) if self.missing else self._survey_with_zeros(found)

    def _survey_of_stored(self, found: _Sums) -> Survey:
        mean, deviations, log_noise = found.total / found.n, 0.0, 0.0
        for rows in self.blocks:
            block = self.block(rows)
            squared = (block.stored.data.double() - mean).square()
            deviations += float((squared if block.weights is None else squared * block.weights).sum())
            if block.weights is not None:
                log_noise -= float(block.weights.log().sum())
        means = np.where(found.counts > 0, found.columns / np.maximum(found.counts, 1), mean)
        variance = deviations / found.n
        return Survey(found.n, mean, variance, found.squares, log_noise, found.n_negative, found.least, means)

    def _survey_with_zeros(self, found: _Sums) -> Survey:
        N, D = self.size
        entries = N * D
        over, log_noise = float(entries), 0.0  # Σ 1 / v and Σ log v over all entries
        if self.noise is not None:
            v = self.noise.variance.double()
            others = D if self.noise.along == "rows" else N
            over = float((1 / v).sum()) * others
            log_noise = float(v.log().sum()) * others
        mean = found.total / entries
        deviations = found.squares - 2 * mean * found.linear + mean**2 * over
        least = found.least if found.n == entries else min(found.least, 0.0)
        variance = max(deviations, 0.0) / entries
        return Survey(entries, mean, variance, found.squares, log_noise, found.n_negative, least, found.columns / N)


class _Sums:
    """Sums over the stored entries, a block of rows at a time."""

    def __init__(self, D: int) -> None:
        self.n = 0
        self.n_negative = 0
        self.least = float("inf")
        self.total = 0.0
        self.squares = 0.0  # over the noise
        self.linear = 0.0  # over the noise
        self.columns = np.zeros(D)
        self.counts = np.zeros(D, dtype=np.int64)

    def add(self, block: Sparse) -> None:
        x = block.stored.data.double()
        if not len(x):
            return
        weight = torch.ones_like(x) if block.weights is None else block.weights
        self.n += len(x)
        self.n_negative += int((x < 0).sum())
        self.least = min(self.least, float(x.min()))
        self.total += float(x.sum())
        self.squares += float((x.square() * weight).sum())
        self.linear += float((x * weight).sum())
        where = block.stored.indices.cpu().numpy()
        self.columns += np.bincount(where, x.cpu().numpy(), minlength=len(self.columns))
        self.counts += np.bincount(where, minlength=len(self.counts))
