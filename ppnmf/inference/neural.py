r"""Neural NMF: all layers are trained together through q(X; A) = argmin over S >= 0 of ‖X - A S‖², which is differentiable.

Forward: S_0 = q(X; A_0), S_1 = q(S_0; A_1), and so on: each S is a function of X and the layers alone. Backward: the gradient of
the loss with respect to every A, through the free sets of the columns (`ppnmf.nn`). Layers start where `inference.layerwise` ends;
after each step of Adam they are brought back to A >= 0, and their columns to unit length, which the next S takes up. B of the
labels is their least squares on S at every step, so that its own derivative vanishes.

References: Gao, Haddock, Molitor, Needell, Sadovnik, Will, Zhang (2019), doi:10.1109/CAMSAP45676.2019.9022678; Will, Zhang,
Sadovnik, Gao, Vendrow, Haddock, Molitor, Needell (2023), arXiv:2303.00058.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ppnmf.checks import real_number
from ppnmf.data.matrix import Dense
from ppnmf.gaussian import layers
from ppnmf.inference.layering import LABEL_WEIGHT, Layering, Problem, fitted, relative_loss, scored
from ppnmf.inference.layerwise import layer_by_layer
from ppnmf.nn import non_negative_least_squares
from ppnmf.posterior import Posterior
from ppnmf.protocols import Layered, require_ability
from ppnmf.rng import Stream
from ppnmf.settings import own_settings

__all__ = ["run"]

START_TOL = 1e-6  # of the layers one by one
START_SWEEPS = 500
MOMENTA = (0.9, 0.99)  # of Adam
LEAST_STEPS = 40  # before a training may end for want of gain
LOOK_BACK = 20  # steps over which a gain is measured


@own_settings()
def run(
    model: Layered,
    X: Dense,
    *,
    labels: Any = None,
    label_weight: float = LABEL_WEIGHT,
    restarts: int = 1,
    steps: int = 400,
    learning_rate: float = 0.02,
    tol: float = 1e-6,
    seed: int = 0,
    progress: bool = True,
) -> Posterior:
    """Train all layers together.

    Args:
        labels: of X's columns, a name each, None where it is not known; or scores (D, c).
        label_weight: λ, what they count beside X (`inference.layering`).
        restarts: from starts of their own, each a chain of one draw.
        steps: of Adam, at most.
        learning_rate: of its first step; it falls to zero along a cosine. Columns of the layers have unit length.
        tol: a training ends when twenty steps gain less than this share of its loss.

    Returns: a Posterior, whose stats hold "lp" and "loss", and attrs "loss_curve" and, with labels, "labels".

    Raises:
        TypeError: the model has no layers.
        ValueError: a count or a rate out of its range, labels that do not fit.
    """
    require_ability("neural", model, Layered)
    real_number("tol", tol, 0)
    train = partial(_train, steps=steps, rate=real_number("learning_rate", learning_rate), tol=tol)
    return fitted("neural", train, model, X, labels, label_weight, restarts, steps, seed, progress)


def _train(
    problem: Problem, stream: Stream, tick: Callable[[], object], steps: int, rate: float, tol: float
) -> Layering:
    """The best of all steps from one start."""
    begun = layer_by_layer(problem, stream, lambda: None, START_TOL, START_SWEEPS)
    with torch.enable_grad():
        A = [_unit(factor).requires_grad_() for factor in begun.factors[:-1]]
        optimiser = torch.optim.Adam(A, lr=rate, betas=MOMENTA)
        curve: list[float] = []
        best = (math.inf, [layer.detach().clone() for layer in A])
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = 0.5 * rate * (1 + math.cos(math.pi * step / steps))
            loss = _loss(problem, A)
            curve.append(float(loss.detach()))
            if curve[-1] < best[0]:
                best = (curve[-1], [layer.detach().clone() for layer in A])
            if _has_ended(curve, tol):
                break
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            _bring_back(A)
            tick()
    S = _forward(problem, best[1])
    return Layering([*best[1], S], scored(S, problem), curve, True)


def _has_ended(curve: list[float], tol: float) -> bool:
    """Whether the last steps gained nothing."""
    if len(curve) < LEAST_STEPS:
        return False
    before = min(curve[:-LOOK_BACK])
    return before - min(curve) <= tol * before


def _loss(problem: Problem, A: list[Tensor]) -> Tensor:
    S = _forward(problem, A)
    return relative_loss(problem, layers.product(A), S, scored(S, problem))


def _forward(problem: Problem, A: list[Tensor]) -> Tensor:
    """S (K, D) of the last layer; of a column with missing entries, from those that are observed."""
    if problem.seen is None:
        S = non_negative_least_squares(A[0], problem.X)
    else:
        own = problem.seen.mT[..., None] * A[0]  # (D, N, K_0)
        S = non_negative_least_squares(own, problem.X.mT[..., None]).squeeze(-1).mT
    for layer in A[1:]:
        S = non_negative_least_squares(layer, S)
    return S


def _unit(A: Tensor) -> Tensor:
    """Its columns of unit length, but for those of zeros."""
    size = A.norm(dim=0)
    return A / torch.where(size > 0, size, torch.ones_like(size))


@torch.no_grad()
def _bring_back(A: list[Tensor]) -> None:
    """Every layer to A >= 0 and columns of unit length, in place."""
    for layer in A:
        layer.clamp_(min=0)
        layer.copy_(_unit(layer))
