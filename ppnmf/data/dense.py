"""A matrix in memory, some of its entries perhaps missing or noisier than others."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ppnmf.data.folded import Folded
from ppnmf.data.labelled import NO_NAMES, Names, names_of
from ppnmf.data.noise import Noise
from ppnmf.protocols import Matrix
from ppnmf.threads import single_threaded

__all__ = ["IN_MEMORY", "Dense", "in_memory", "without_noise"]

BLOCK_ENTRIES = 2**15  # entries of X in a row block: 256 kB of float64, which stay in cache between its two products
FEW_BLOCKS = 16  # at most, where every one of them makes a Gram matrix a column
IN_MEMORY = (
    2**26
)  # entries (512 MB of float64) up to which another kind of matrix is made dense where a method needs it


@dataclass(frozen=True, eq=False)
class Dense(Folded):
    """A dense matrix in memory, or a block of rows.

    Args:
        values: shape (N, D), zero where an entry is missing; make one with `as_matrix`. A block may have one matrix a
            chain, (C, N, D).
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
        return self.values.shape[-2], self.values.shape[-1]

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
            if not self.uneven and self.noise is None:
                values = [self.values[..., rows.start : rows.stop, :] for rows in self.blocks]
                return sum(float(part.double().square().sum()) for part in values)
            parts = [self.block(rows) for rows in self.blocks]
            return float(sum(part.observed_over_noise(part.values.double().square()).sum() for part in parts))

    @cached_property
    def log_noise(self) -> float:
        if self.noise is None:
            return 0.0
        log = self.noise.variance.double().log().expand(self.shape)
        with single_threaded():
            return float((log if self.mask is None else log * self.mask).sum())

    @property
    def n_negative(self) -> int:
        return 0 if self.least >= 0 else int((self.values < 0).sum())

    @property
    def least(self) -> float:
        return self.extremes[0]

    @cached_property
    def extremes(self) -> tuple[float, float]:
        """The least and the greatest value; NaN where one is NaN."""
        least, greatest = self.values.aminmax()
        return float(least), float(greatest)

    @property
    def uneven(self) -> bool:
        """Whether the entries of a row have different weights: a mask, or noise that is not one a row."""
        return self.mask is not None or (self.noise is not None and self.noise.along != "rows")

    @cached_property
    def weights(self) -> Tensor | None:
        """One over the noise of what is observed, zero elsewhere, broadcastable to (N, D); None where all are one."""
        seen = None if self.mask is None else self.mask.to(self.dtype)
        if self.noise is None:
            return seen
        return (1 if seen is None else seen) / self.noise.variance

    @cached_property
    def blocks(self) -> list[range]:
        N, D = self.shape
        size = N if self.device.type == "cuda" else max(1, BLOCK_ENTRIES // D)
        if self.uneven:
            size = max(size, -(-N // FEW_BLOCKS))
        return [range(start, min(start + size, N)) for start in range(0, N, size)]

    def block(self, rows: range) -> Dense:
        if rows not in self._blocks:
            self._blocks[rows] = self.part(rows)
        return self._blocks[rows]

    @cached_property
    def _blocks(self) -> dict[range, Dense]:
        return {}

    @cached_property
    def plain(self) -> Tensor | None:
        """The values (1, N, D) where they are all there is to know and lie in memory, for sweeps compiled whole."""
        bare = self.mask is None and self.noise is None and self.device.type == "cpu"
        return self.values[None] if bare else None

    @property
    def masked(self) -> tuple[Tensor, Tensor] | None:
        """The same where some entries are missing: the values, zero there, and what is observed, (N, D)."""
        if self.mask is None or self.noise is not None or self.device.type != "cpu":
            return None
        return self.values[None], self.mask

    def mean(self) -> float:
        """Mean of the observed entries."""
        with single_threaded():
            return float(self.values.double().sum()) / self.n_observed

    def variance(self) -> float:
        """Mean of the squared deviations of the observed entries, each over its relative noise variance."""
        mean, total = self.mean(), 0.0
        with single_threaded():
            for rows in self.blocks:
                part = self.block(rows)
                total += float(part.observed_over_noise((part.values.double() - mean).square()).sum())
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
        return Dense(self.values[..., block, :], mask, None if self.noise is None else self.noise.part(rows))

    def observed_over_noise(self, squared: Tensor) -> Tensor:
        """Squares (*C, N, D) of what is observed, over its relative noise variances; zero elsewhere."""
        seen = squared if self.mask is None else squared * self.mask
        return seen if self.noise is None else seen / self.noise.variance.double()

    def observed(self) -> tuple[Tensor, Tensor]:
        """How many entries of each row (N,), and of each column (D,), are observed."""
        if self.mask is not None:
            return self.mask.sum(1), self.mask.sum(0)
        N, D = self.shape
        return torch.full((N,), D, device=self.device), torch.full((D,), N, device=self.device)


def in_memory(X: Any, who: str) -> Dense:
    """X as a `Dense`, for a method that needs it so.

    Raises:
        TypeError: X is of another kind and has more than `IN_MEMORY` entries, or is spread over processes.
    """
    if isinstance(X, Dense):
        return X
    N, D = X.shape
    if X.here is not X:
        raise TypeError(f"{who} needs X in memory as one matrix; a {type(X).__name__} of {N} × {D} cannot be that")
    if N * D > IN_MEMORY:
        raise TypeError(
            f"{who} needs X in memory as a dense matrix, and this {type(X).__name__} of {N} × {D} is not made dense, for that "
            f"would take more than {IN_MEMORY} entries: pass it as a dense array if there is room, or use gibbs or icm"
        )
    return replace(X.part(range(N)), names=names_of(X))


def without_noise(X: Matrix, who: str) -> Matrix:
    """X, unless its entries have known noise variances, for methods that cannot use them. Raises TypeError."""
    if X.noise is not None:
        raise TypeError(f"{who} takes all entries of X as equally noisy and cannot use noise=; use gibbs or icm")
    return X
