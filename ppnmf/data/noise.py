"""Known relative noise variances of the entries of X, and what sharing them by rows or columns saves."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppnmf.checks import borrowed
from ppnmf.protocols import Statistics

__all__ = ["Noise", "as_noise"]


class Noise(NamedTuple):
    """Variances v of X_ij ~ Normal((WH)_ij, σ² v_ij): one a row, one a column or one an entry."""

    variance: Tensor  # (N, 1), (1, D) or (N, D)
    along: str  # "rows", "columns" or "entries"

    def of(self, rows: range) -> Tensor:
        """Those of some rows, broadcastable to (B, D)."""
        return self.variance if self.along == "columns" else self.variance[rows.start : rows.stop]

    def part(self, rows: range) -> Noise:
        return Noise(self.of(rows), self.along)

    def over_columns(self, H: Tensor) -> tuple[Tensor, Tensor]:
        """H / v and H / √v: with them products of X and of H are those of weighted columns."""
        return (H / self.variance, H / self.variance.sqrt()) if self.along == "columns" else (H, H)

    def over_rows(self, rows: range, W: Tensor) -> tuple[Tensor, Tensor]:
        """W / v and W / √v, the same for rows of X."""
        return (W / self.of(rows), W / self.of(rows).sqrt()) if self.along == "rows" else (W, W)

    def of_rows(self, rows: range, told: Statistics) -> Statistics:
        """What X tells about its rows, each over its own variance."""
        return _divided(told, self.of(rows)[:, 0]) if self.along == "rows" else told

    def of_columns(self, told: Statistics) -> Statistics:
        return _divided(told, self.variance[0]) if self.along == "columns" else told


def _divided(told: Statistics, v: Tensor) -> Statistics:
    """Both over the variance v (R,) of a row; a Gram matrix that the rows shared becomes one each, stored rows-last."""
    last = told.Q[..., None] if told.Q.ndim == told.P.ndim else told.Q.permute(0, 2, 3, 1)
    return Statistics((told.P.mT / v).mT, (last / v).permute(0, 3, 1, 2))


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
