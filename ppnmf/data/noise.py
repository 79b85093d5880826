"""Known relative noise variances of the entries of X."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppnmf.checks import borrowed

__all__ = ["Noise", "as_noise"]


class Noise(NamedTuple):
    """Variances v of X_ij ~ Normal((WH)_ij, σ² v_ij): one a row, one a column, one an entry, or one a stored entry."""

    variance: Tensor  # (N, 1), (1, D), (N, D), or (number of stored entries,)
    along: str  # "rows", "columns", "entries" or "stored"

    def of(self, rows: range) -> Tensor:
        """Those of some rows, broadcastable to (B, D)."""
        return self.variance if self.along == "columns" else self.variance[rows.start : rows.stop]

    def part(self, rows: range) -> Noise:
        return Noise(self.of(rows), self.along)

    def to(self, like: Tensor) -> Noise:
        return self._replace(variance=self.variance.to(like))


def as_noise(noise: Any, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Noise | None:
    """Check relative noise variances that are broadcastable to (N, D); None where they are all one.

    Raises:
        ValueError: another shape, or entries that are not positive and finite numbers.
    """
    if noise is None:
        return None
    given = noise if isinstance(noise, Tensor) else borrowed("noise", noise)
    N, D = shape
    wide = given.reshape((1,) * (2 - given.ndim) + tuple(given.shape)) if given.ndim <= 2 else given
    if wide.ndim > 2 or wide.shape[0] not in (1, N) or wide.shape[1] not in (1, D):
        raise ValueError(
            f"noise has shape {tuple(given.shape)} and X {shape}; give ({D},) for its columns, ({N}, 1) for its rows, or {shape}"
        )
    variance = wide.to(device, dtype)
    if not bool((variance > 0).all()) or not bool(variance.isfinite().all()):
        raise ValueError(
            f"noise has entries that are not positive and finite (least {float(variance.min()):.6g}); it holds relative "
            "variances"
        )
    if bool((variance == 1).all()):
        return None
    if variance.shape[0] == 1:
        return Noise(variance.expand(1, D).contiguous(), "columns")
    return Noise(variance.contiguous(), "rows" if variance.shape[1] == 1 else "entries")
