"""A matrix on disk, read a block of rows at a time: a memory-mapped .npy file, or a Zarr array."""

from __future__ import annotations

import math
import threading
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppnmf.data.dense import Dense, in_memory
from ppnmf.data.labelled import NO_NAMES, Names
from ppnmf.data.noise import Noise
from ppnmf.data.sources import Source
from ppnmf.data.survey import Survey, Surveyed

__all__ = ["Blocked", "survey", "warn_of_nothing_observed"]

BLOCK_ENTRIES = 2**21  # entries in a row block: 16 MB of float64, one for each thread that works
ALIGNED = 4  # times as large a block may be to hold whole chunks of a Zarr array


@dataclass(frozen=True, eq=False)
class Blocked(Surveyed):
    """A matrix that is read from disk block by block, perhaps with missing entries.

    One block lies in memory for each thread at work. Its checks were made, once, by `as_matrix`: the file must stay as
    it is.

    Args:
        source: where X is.
        survey: of its observed entries.
        mask: boolean (N, D) in memory or on disk, True where observed, or None.
        nan_missing: NaN entries are missing.
        noise: known relative noise variances, or None; those of single entries are in memory.
        where: the device to work on.
        names: of the rows and columns.
    """

    source: Source
    survey: Survey
    mask: Source | Tensor | None = None
    nan_missing: bool = False
    noise: Noise | None = None
    where: torch.device = torch.device("cpu")  # noqa: RUF009
    names: Names = field(default=NO_NAMES, compare=False, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        return self.source.shape

    @property
    def dtype(self) -> torch.dtype:
        return _float_type(self.source.dtype)

    @property
    def device(self) -> torch.device:
        return self.where

    @cached_property
    def blocks(self) -> list[range]:
        """Borders depend on the shape, and on the chunks of the file, which are read whole where that is not too much."""
        return _blocks(self.source)

    def part(self, rows: range) -> Dense:
        """Some of the rows, in memory."""
        values = _read(self.source, rows, self.where)
        mask = None if self.mask is None else _read_mask(self.mask, rows, self.where)
        if self.nan_missing:
            mask = ~values.isnan() if mask is None else mask & ~values.isnan()
        if mask is not None:
            values = torch.where(mask, values, torch.zeros_like(values))
        return Dense(values, mask, None if self.noise is None else self.noise.part(rows))

    def filled(self) -> Tensor:
        """X (N, D) in memory, a missing entry as its column's observed mean."""
        dense = in_memory(self, "a start by nndsvd")
        return dense.values if dense.mask is None else torch.where(dense.mask, dense.values, self.column_means())

    @property
    def uneven(self) -> bool:
        """Whether the entries of a row have different weights: a mask, or noise that is not one a row."""
        masked = self.mask is not None or self.nan_missing
        return masked or (self.noise is not None and self.noise.along != "rows")

    @cached_property
    def nothing(self) -> Dense:
        """A block without rows, for which nothing is read."""
        values = torch.zeros(0, self.shape[1], dtype=self.dtype, device=self.where)
        masked = self.mask is not None or self.nan_missing
        return Dense(values, values > 0 if masked else None, None if self.noise is None else self.noise.part(range(0)))

    def block(self, rows: range) -> Dense:
        """Some rows, kept by this thread until it asks for others: what follows in a sweep is not read again."""
        if getattr(self._kept, "rows", None) != rows:
            self._kept.rows = None
            self._kept.part = None  # let go of the old ones first
            self._kept.part = self.part(rows)
            self._kept.rows = rows
        return self._kept.part

    @cached_property
    def _kept(self) -> threading.local:
        return threading.local()


def survey(source: Source, mask: Source | Tensor | None, nan_missing: bool, noise: Noise | None) -> Survey:
    """Pass through X once: what `as_matrix` checks, and what is known of X afterwards.

    Raises:
        ValueError: entries that are not finite, or nothing is observed.
    """
    nothing = Survey(0, 0.0, 0.0, 0.0, 0.0, 0, 0.0, np.zeros(source.shape[1]))
    X = Blocked(source, nothing, mask, nan_missing, noise)
    found = _Sums(source.shape[1])
    for rows in X.blocks:
        found.add(X.part(rows))
    if found.nan:
        raise ValueError(
            f"X has {found.nan} NaN entries; if they are missing, say so with missing='nan' or a mask (True where observed)"
        )
    if found.inf:
        raise ValueError(
            f"X has {found.inf} infinite entries; finite numbers are needed: check the input, or mask them"
        )
    if not found.n:
        raise ValueError("no entry of X is observed; at least one is needed")
    warn_of_nothing_observed(found.empty_rows, int((found.counts == 0).sum()))
    return found.survey()


class _Moments(NamedTuple):
    """Of the observed entries of a block, deviations d being from its mean and v their noise."""

    n: int
    mean: float
    squares: float  # Σ d² / v
    linear: float  # Σ d / v
    ones: float  # Σ 1 / v


class _Sums:
    """What is known of the blocks so far."""

    def __init__(self, D: int) -> None:
        self.n = 0
        self.n_negative = 0
        self.nan = 0
        self.inf = 0
        self.empty_rows = 0
        self.squares = 0.0
        self.log_noise = 0.0
        self.least = math.inf
        self.columns = np.zeros(D)
        self.counts = np.zeros(D, dtype=np.int64)
        self.blocks: list[_Moments] = []

    def add(self, part: Dense) -> None:
        values = part.values.double()
        column = values.sum(0)
        if not bool(column.sum().isfinite()):
            self.nan += int(values.isnan().sum())
            self.inf += int(values.isinf().sum())
        if self.nan or self.inf:
            return
        of_rows, of_columns = part.observed()
        self.counts += of_columns.numpy()
        self.empty_rows += int((of_rows == 0).sum())
        if not part.n_observed:
            return
        self.n += part.n_observed
        self.least = min(self.least, part.least)
        self.n_negative += part.n_negative
        self.columns += column.numpy()
        self.log_noise += part.log_noise
        self.squares += part.sum_of_squares
        mean = float(column.sum()) / part.n_observed
        self.blocks.append(_moments(part, mean, values - mean))

    def survey(self) -> Survey:
        mean = math.fsum(block.n * block.mean for block in self.blocks) / self.n
        total = math.fsum(_squares_about(mean, block) for block in self.blocks)
        means = np.where(self.counts > 0, self.columns / np.maximum(self.counts, 1), mean)
        variance = total / self.n
        return Survey(self.n, mean, variance, self.squares, self.log_noise, self.n_negative, self.least, means)


def _moments(part: Dense, mean: float, deviations: Tensor) -> _Moments:
    seen = deviations if part.mask is None else deviations * part.mask
    if part.noise is None:
        return _Moments(part.n_observed, mean, float(seen.square().sum()), 0.0, float(part.n_observed))
    over = part.observed_over_noise(torch.ones_like(seen))
    squares = float((seen.square() * over).sum())
    return _Moments(part.n_observed, mean, squares, float((seen * over).sum()), float(over.sum()))


def _squares_about(mean: float, block: _Moments) -> float:
    """Σ (x - mean)² / v over the block."""
    apart = block.mean - mean
    return block.squares + 2 * apart * block.linear + apart**2 * block.ones


def warn_of_nothing_observed(rows: int, columns: int) -> None:
    if rows or columns:
        what = " and ".join(f"{n} {name}" for n, name in ((rows, "row(s)"), (columns, "column(s)")) if n)
        warnings.warn(f"{what} of X have nothing observed: their factors follow the prior alone", stacklevel=6)


def _blocks(source: Source) -> list[range]:
    N, D = source.shape
    size, chunk = max(1, BLOCK_ENTRIES // D), source.chunk_rows()
    if chunk * D <= ALIGNED * BLOCK_ENTRIES:
        size = -(-size // chunk) * chunk
    return [range(start, min(start + size, N)) for start in range(0, N, size)]


def _float_type(dtype: np.dtype) -> torch.dtype:
    return torch.float32 if dtype.kind == "f" and dtype.itemsize <= 4 else torch.float64


def _read(source: Source, rows: range, device: torch.device) -> Tensor:
    read = source.read(rows)
    wanted = np.float32 if _float_type(source.dtype) == torch.float32 else np.float64
    return torch.from_numpy(read.astype(wanted, copy=False)).to(device)


def _read_mask(mask: Source | Tensor, rows: range, device: torch.device) -> Tensor:
    part = mask[rows.start : rows.stop] if isinstance(mask, Tensor) else torch.from_numpy(mask.read(rows))
    return part.to(device)
