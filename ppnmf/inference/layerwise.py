"""Hierarchical NMF: one layer after another by ordinary NMF, X ≈ A_0 S_0, S_0 ≈ A_1 S_1, and so on.

Each layer is at its own least squares (alternating, from a jittered NNDSVD), and none knows of those behind it: so what all
together leave of X is more than it has to be. Labels take part in the last layer, as further rows of what it explains.

References: Cichocki, Zdunek (2006), doi:10.1049/el:20060983; labels: Lee, Yoo, Choi (2010), doi:10.1109/LSP.2009.2027163.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ppnmf.checks import real_number, whole_number
from ppnmf.data.matrix import Dense, as_matrix
from ppnmf.inference.layering import LABEL_WEIGHT, Layering, Problem, fitted, relative_loss
from ppnmf.models import ExponentialGaussian
from ppnmf.posterior import Posterior
from ppnmf.protocols import Layered, Matrix, require_ability
from ppnmf.rng import Stream
from ppnmf.settings import own_settings

__all__ = ["layer_by_layer", "run"]


@own_settings()
def run(
    model: Layered,
    X: Dense,
    *,
    labels: Any = None,
    label_weight: float = LABEL_WEIGHT,
    restarts: int = 1,
    tol: float = 1e-5,
    max_sweeps: int = 500,
    seed: int = 0,
    progress: bool = True,
) -> Posterior:
    """Fit the layers one by one.

    Args:
        labels: of X's columns, a name each, None where it is not known; or scores (D, c).
        label_weight: λ, what they count beside X (`inference.layering`).
        restarts: from starts of their own, each a chain of one draw.
        tol: a layer has converged when a sweep lowers its loss by a lesser share.
        max_sweeps: of each layer.

    Returns: a Posterior, whose stats hold "lp" and "loss", and attrs "loss_curve" (of layer after layer, each
        its own, and that of all at the end), "converged" and, with labels, "labels".

    Raises:
        TypeError: the model has no layers.
        ValueError: a count or a tolerance out of its range, labels that do not fit.
    """
    require_ability("layerwise", model, Layered)
    real_number("tol", tol, 0)
    whole_number("max_sweeps", max_sweeps, 1)
    train = partial(_train, tol=tol, max_sweeps=max_sweeps)
    steps = max_sweeps * len(model.ranks)
    return fitted("layerwise", train, model, X, labels, label_weight, restarts, steps, seed, progress)


def _train(problem: Problem, stream: Stream, tick: Callable[[], object], tol: float, max_sweeps: int) -> Layering:
    return layer_by_layer(problem, stream, tick, tol, max_sweeps)


def layer_by_layer(
    problem: Problem, stream: Stream, tick: Callable[[], object], tol: float, max_sweeps: int
) -> Layering:
    """All layers, each given those before it."""
    data: Any = as_matrix(problem.X, problem.seen)
    factors: list[Tensor] = []
    curve: list[float] = []
    converged = True
    B = problem.X.new_zeros(problem.scores.shape[1], problem.ranks[-1])
    for layer, K in enumerate(problem.ranks):
        if layer == len(problem.ranks) - 1 and problem.has_labels:
            data = _beside_labels(data, problem)
        A, S, losses = ordinary(data, K, stream, tick, tol, max_sweeps)
        converged = converged and len(losses) < max_sweeps
        curve += losses
        factors.append(A)
        data = as_matrix(S)
    if problem.has_labels:
        rows = len(factors[-1]) - len(B)
        factors[-1], B = factors[-1].split([rows, len(B)])
    factors.append(S)
    left = relative_loss(problem, torch.linalg.multi_dot(factors[:-1]) if len(factors) > 2 else factors[0], S, B)
    return Layering(factors, B, [*curve, float(left)], converged)


def _beside_labels(data: Dense, problem: Problem) -> Dense:
    """The rows that a layer explains, and those of the labels below them, over the noise that their weight stands for."""
    rows, D = data.shape
    c = problem.scores.shape[1]
    size = data.values.square().sum() / problem.scores.square().sum().clamp(min=1e-12)
    noise = torch.cat([data.values.new_ones(rows, 1), (1 / (problem.weight * size)).expand(c, 1)])
    seen = torch.ones(rows, D, dtype=torch.bool, device=problem.known.device) if data.mask is None else data.mask
    mask = torch.cat([seen, problem.known.expand(c, D)])
    return as_matrix(torch.cat([data.values, problem.scores.mT]), None if bool(mask.all()) else mask, noise=noise)


def ordinary(
    X: Matrix, rank: int, stream: Stream, tick: Callable[[], object], tol: float, max_sweeps: int
) -> tuple[Tensor, Tensor, list[float]]:
    """Ordinary NMF of X (N, D) by alternating least squares: A (N, K), its columns of unit length, S (K, D), and the losses."""
    story = ExponentialGaussian(rank)
    params: Any = story.begin(X, stream, "nndsvd")
    losses: list[float] = []
    for _ in range(max_sweeps):
        params, loss = story.by_rows(params, X)
        tick()
        losses.append(float(loss[0]))
        if len(losses) > 1 and losses[-2] - losses[-1] <= tol * losses[-1]:
            break
    A = params["W"][0]
    size = A.norm(dim=0)
    size = torch.where(size > 0, size, torch.ones_like(size))
    return A / size, params["H"][0] * size[:, None], losses
