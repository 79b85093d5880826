"""The best of several modes: where the criteria that judge one fit look."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ppnmf.checks import whole_numbers
from ppnmf.gaussian import columns
from ppnmf.gaussian.sweep import misfit
from ppnmf.inference import icm
from ppnmf.protocols import Matrix, Sweeping, require_ability

__all__ = ["Modes", "deviance", "deviance_of_columns", "found", "shortfall"]


class Modes(NamedTuple):
    """Modes by ICM from several starts, each with how well it fits; rows with a dead component count as any other."""

    W: Tensor  # (R, N, K)
    H: Tensor  # (R, K, D)
    squared_error: np.ndarray  # (R,), over the observed entries, each over its relative noise variance
    deviance: np.ndarray  # (R,), -2 log p(X | ·) at the mode


def found(who: str, model: Sweeping, X: Matrix, restarts: int, seed: int, progress: bool) -> Modes:
    """Modes from so many starts. Raises TypeError when the model has no full conditionals."""
    require_ability(who, model, Sweeping)
    whole_numbers(restarts=(restarts, 1))
    post = icm.run(model, X, restarts=restarts, seed=seed, progress=progress)  # type: ignore[arg-type]
    params = {site: values[:, 0] for site, values in post.draws.items()}
    W, H = params["W"], params["H"]
    if "sigma2" in params and getattr(model, "sigma2", None) is None:
        if model.sites(*X.shape)["sigma2"]:
            of_columns = columns.misfits(X, W, H).cpu().numpy()
            return Modes(W, H, of_columns.sum(1), deviance_of_columns(of_columns, X))
        squared_error = misfit(X, W, H).double().cpu().numpy()
        return Modes(W, H, squared_error, deviance(squared_error, X))
    each = [
        replace(post, draws=_one(post.draws, n), stats=_one(post.stats, n)).squared_error() for n in range(restarts)
    ]
    return Modes(W, H, np.array(each), -2 * model.log_likelihood_at(params, X).double().cpu().numpy())


def _one(values: dict[str, Tensor], chain: int) -> dict[str, Tensor]:
    return {name: own[chain : chain + 1] for name, own in values.items()}


def deviance(squared_error: np.ndarray, X: Matrix) -> np.ndarray:
    """-2 log p(X | W, H, σ²) at σ² = squared error / n, from the squared error over relative noise variances."""
    return _least(squared_error, X.n_observed) + X.log_noise


def deviance_of_columns(squared_errors: np.ndarray, X: Matrix) -> np.ndarray:
    """The same of columns with a variance each, from their squared errors (R, D)."""
    n = columns.about(X).observed.cpu().numpy()
    return _least(squared_errors[:, n > 0], n[n > 0]).sum(1) + X.log_noise


def _least(squared_error: np.ndarray, n: np.ndarray | int) -> np.ndarray:
    """-2 log of a normal likelihood at the variance that is best for it."""
    return n * (np.log(2 * math.pi * squared_error / n) + 1)


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
