"""What a data matrix must offer to a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = ["Matrix", "Params", "Statistics"]


Params = Mapping[str, Tensor]  # site name -> values; the chain axis C, where there is one, leads


class Statistics(NamedTuple):
    """What X tells about one factor F (R, K) given the other one, per unit of precision.

    The log likelihood in row i of F is F_i · P_i - ½ F_i Q_i F_iᵀ up to a constant.
    """

    P: Tensor  # (C, R, K)
    Q: Tensor  # (C, K, K), shared by the rows, or (C, R, K, K)

    def weighted(self, weight: Tensor) -> Statistics:
        """Both times β / σ² (C,), as a conditional wants them."""
        w = weight[..., None, None]
        return Statistics(self.P * w, self.Q * (w if self.Q.ndim == self.P.ndim else w[..., None]))


class Matrix(Protocol):
    """Data X (N, D), read by row blocks whose borders depend on the shape alone."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def n_observed(self) -> int: ...
    @property
    def sum_of_squares(self) -> float:
        """Σ x² over the observed entries, each over its relative noise variance."""
        ...

    @property
    def log_noise(self) -> float:
        """Σ log v over the observed entries, v their known relative noise variances; 0 where all are 1."""
        ...

    @property
    def n_negative(self) -> int:
        """How many observed entries are negative."""
        ...

    @property
    def least(self) -> float:
        """The least entry."""
        ...

    def mean(self) -> float:
        """Mean of the observed entries."""
        ...

    def variance(self) -> float:
        """Mean of the squared deviations of the observed entries, each over its relative noise variance."""
        ...

    def part(self, rows: range) -> Any:
        """Some of the rows in memory, a `ppnmf.data.dense.Dense`."""
        ...

    def filled(self) -> Tensor:
        """X (N, D) in memory, a missing entry as its column's observed mean."""
        ...

    @property
    def blocks(self) -> list[range]: ...

    @property
    def plain(self) -> Tensor | None:
        """The values (1, N, D) where they are all there is to know and lie in memory, for sweeps compiled whole."""
        ...

    def prepare(self, H: Tensor) -> Statistics:
        """What the row blocks share, given H (C, K, D)."""
        ...

    def row_statistics(self, rows: range, shared: Statistics) -> Statistics:
        """P = X Hᵀ and Q = H Hᵀ for a block of rows of W."""
        ...

    def column_statistics(self, rows: range, W: Tensor) -> Statistics:
        """P = Xᵀ W and Q = Wᵀ W over a block of rows, W (C, B, K); sum them over the blocks."""
        ...

    def residual_sum_of_squares(self, rows: range, W: Tensor, H: Tensor) -> Tensor:
        """Σ (x - (WH))² over the observed entries of a block, float64, shape (C,)."""
        ...
