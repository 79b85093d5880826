"""One factor as it enters the statistics of the other one, and noise that whole rows or columns share.

Noise of a column stands beside that column of H, and noise of a row beside that row of W, so that products of X need no
weighted copy of it.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ppnmf.data.noise import Noise
from ppnmf.protocols import Statistics

__all__ = ["Given", "of_columns", "of_rows", "over_columns", "over_rows"]


class Given(NamedTuple):
    """What blocks share of a factor."""

    factor: Tensor  # by which X is multiplied
    squares: Tensor  # of which Gram matrices are made, or the one that all rows share


class Weighted(NamedTuple):
    """A factor F over noise v that its rows or columns share: with them products of X, and of F, are those over v."""

    over: Tensor  # F / v
    rooted: Tensor  # F / √v


def over_columns(noise: Noise | None, H: Tensor) -> Weighted:
    """H over noise of its columns."""
    if noise is None or noise.along != "columns":
        return Weighted(H, H)
    return Weighted(H / noise.variance, H / noise.variance.sqrt())


def over_rows(noise: Noise | None, W: Tensor) -> Weighted:
    """W over noise of its rows."""
    if noise is None or noise.along != "rows":
        return Weighted(W, W)
    return Weighted(W / noise.variance, W / noise.variance.sqrt())


def of_rows(noise: Noise | None, of_W: Statistics) -> Statistics:
    """About rows of W, each over its own noise."""
    return _divided(of_W, noise.variance[:, 0]) if noise is not None and noise.along == "rows" else of_W


def of_columns(noise: Noise | None, of_H: Statistics) -> Statistics:
    """About columns of H, each over its own noise."""
    return _divided(of_H, noise.variance[0]) if noise is not None and noise.along == "columns" else of_H


def _divided(given: Statistics, v: Tensor) -> Statistics:
    """Both over the variance v (R,) of a row; a Gram matrix that the rows shared becomes one each, stored rows-last."""
    last = given.Q[..., None] if given.Q.ndim == given.P.ndim else given.Q.permute(0, 2, 3, 1)
    return Statistics((given.P.mT / v).mT, (last / v).permute(0, 3, 1, 2))
