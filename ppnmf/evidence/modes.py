"""The best of several modes: where the criteria that judge one fit look."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ppnmf.checks import whole_numbers
from ppnmf.gaussian.sweep import misfit
from ppnmf.inference import icm
from ppnmf.protocols import Matrix, Sweeping, require_ability

__all__ = ["Modes", "found", "shortfall"]


class Modes(NamedTuple):
    """Modes by ICM from several starts, each with its squared error; rows with a dead component count as any other."""

    W: Tensor  # (R, N, K)
    H: Tensor  # (R, K, D)
    squared_error: np.ndarray  # (R,), over the observed entries, each over its relative noise variance


def found(who: str, model: Sweeping, X: Matrix, restarts: int, seed: int, progress: bool) -> Modes:
    """Modes from so many starts. Raises TypeError when the model has no full conditionals."""
    require_ability(who, model, Sweeping)
    whole_numbers(restarts=(restarts, 1))
    post = icm.run(model, X, restarts=restarts, seed=seed, progress=progress)  # type: ignore[arg-type]
    W, H = post.draws["W"][:, 0], post.draws["H"][:, 0]
    return Modes(W, H, misfit(X, W, H).double().cpu().numpy())


def shortfall(values: np.ndarray) -> float:
    """How far the least of several values may lie above the least there is: as far as the second lies above it.

    NaN for a single value. Robson and Whitlock (1964), doi:10.1093/biomet/51.1-2.33, for the end of a range.

    >>> shortfall(np.array([3.0, 1.0, 1.5]))
    0.5
    """
    if len(values) < 2:
        return math.nan
    first, second = np.sort(values)[:2]
    return float(second - first)
