"""Deep NMF: all layers are refined together after they were fitted one by one, each in turn at its least squares given the rest.

The last factor S is free: it is what explains X best given the layers, and no function of X and the layers as in Neural NMF
(`inference.neural`). Labels bend S, and B is their least squares under its sign.

Deep semi-NMF (`signs="free"`) leaves the signs of the layers A_0, A_1 ... free, and only S >= 0. Each row of a layer is then at its
unbounded least squares given the other rows, so that the loss never rises. Theirs starts from semi-NMF of each layer, ours from
ordinary NMF.

References: Trigeorgis, Bousmalis, Zafeiriou, Schuller (2017), "A deep matrix factorization method for learning attribute
representations", doi:10.1109/TPAMI.2016.2554555; Ding, Li, Jordan (2010), "Convex and semi-nonnegative matrix factorizations",
doi:10.1109/TPAMI.2008.277.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ppnmf.checks import meant, real_number, whole_number
from ppnmf.data.matrix import Dense, as_matrix
from ppnmf.gaussian import layers, statistics
from ppnmf.gaussian.sweep import flat
from ppnmf.inference.layering import LABEL_WEIGHT, Layering, Problem, fitted, relative_loss
from ppnmf.inference.layerwise import layer_by_layer
from ppnmf.kernels import kernels_for
from ppnmf.posterior import Posterior
from ppnmf.priors import Natural
from ppnmf.protocols import Layered, Statistics, require_ability
from ppnmf.rng import Stream
from ppnmf.settings import own_settings

__all__ = ["run"]

PASSES = 4  # through a factor's entries with the same products of X
SIGNS = ("non-negative", "free")  # of the layers
Update = Callable[[list[Tensor], int, Dense], Tensor]  # factors, the place of a layer, and X -> the layer


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
    signs: str = "non-negative",
    seed: int = 0,
    progress: bool = True,
) -> Posterior:
    """Fit the layers one by one, and then together; the other options and what is returned are those of `layerwise.run`.

    Args:
        signs: of the layers A_0, A_1 ...: "non-negative", or "free" for deep semi-NMF. The model's priors say nothing of negative
            entries: "lp" is then the log likelihood alone.

    Raises:
        TypeError: the model has no layers.
        ValueError: a count or a tolerance out of its range, labels that do not fit, or other signs.
    """
    require_ability("deep", model, Layered)
    real_number("tol", tol, 0)
    whole_number("max_sweeps", max_sweeps, 1)
    if signs not in SIGNS:
        raise ValueError(f"signs is {signs!r}{meant(signs, SIGNS)}; give {SIGNS[0]!r} or {SIGNS[1]!r}")
    update = _bounded if signs == SIGNS[0] else _unbounded
    train = partial(_train, update=update, tol=tol, max_sweeps=max_sweeps)
    steps = max_sweeps * (len(model.ranks) + 1)
    post = fitted("deep", train, model, X, labels, label_weight, restarts, steps, seed, progress)
    return post if signs == SIGNS[0] else _of_likelihood(post)


def _of_likelihood(post: Posterior) -> Posterior:
    """The same with the log likelihood as its "lp", which is that of a model without priors."""
    params = {site: values[:, 0] for site, values in post.draws.items()}
    model: Any = post.model
    lp = model.log_likelihood_at(params, post.X)[:, None]
    return replace(post, stats={**post.stats, "lp": lp}, attrs={**post.attrs, "signs": "free"})


def _train(
    problem: Problem, stream: Stream, tick: Callable[[], object], update: Update, tol: float, max_sweeps: int
) -> Layering:
    start = layer_by_layer(problem, stream, tick, tol, max_sweeps)
    factors = [factor[None] for factor in start.factors]
    B = start.B[None]
    data = as_matrix(problem.X, problem.seen)
    losses = [start.curve[-1]]
    for _ in range(max_sweeps):
        for place in range(len(factors) - 1):
            factors[place] = update(factors, place, data)
        factors[-1] = _last(problem, data, factors, B)
        if problem.has_labels:
            B = _of_labels(problem, factors[-1], B)
        tick()
        W = layers.product(factors[:-1])[0]
        losses.append(float(relative_loss(problem, W, factors[-1][0], B[0])))
        if losses[-2] - losses[-1] <= tol * losses[-1]:
            break
    return Layering([factor[0] for factor in factors], B[0], losses, start.converged and len(losses) <= max_sweeps)


def _bounded(factors: list[Tensor], place: int, data: Dense) -> Tensor:
    """A layer >= 0, each entry at its least squares given the others."""
    return layers.updated(factors, place, _no_prior(data.values), data, data.values.new_ones(1), None)


def _unbounded(factors: list[Tensor], place: int, data: Dense) -> Tensor:
    """A layer of any sign, each row at its least squares given the others."""
    about = statistics.of_all_rows(data, layers.product(factors[place + 1 :]))
    if place == 0:
        return _solved(about)
    before = layers.product(factors[:place])
    return layers.by_rows(factors[place], before, about, lambda row, told, k: _solved(told))


def _solved(about: Statistics) -> Tensor:
    """F (1, R, K) with F_i Q_i = P_i, of several the shortest: P (1, R, K), Q (1, K, K) or (1, R, K, K)."""
    inverse = torch.linalg.pinv(about.Q, hermitian=True)
    if inverse.ndim == about.P.ndim:
        return about.P @ inverse
    return (inverse @ about.P[..., None]).squeeze(-1)


def _no_prior(like: Tensor) -> Natural:
    return Natural(*flat("").natural(like.device))


def _descended(F: Tensor, about: Statistics, prior: Natural) -> Tensor:
    """A factor F (1, R, K), each entry at its least squares in turn, several times."""
    for _ in range(PASSES):
        F = kernels_for(F.device).half_sweep(F, about, tuple(prior), None)
    return F


def _last(problem: Problem, data: Dense, factors: list[Tensor], B: Tensor) -> Tensor:
    """S (1, K, D), given the layers and B (1, c, K)."""
    P, Q = statistics.of_all_columns(data, layers.product(factors[:-1]))
    if problem.has_labels:
        weight = problem.label_weight
        seen = problem.known.to(P.dtype)
        P = P + weight * problem.scores @ B
        own = weight * (B.mT @ B)[:, None] * seen[:, None, None]
        Q = (Q[:, None] if Q.ndim == P.ndim else Q) + own
    return _descended(factors[-1].mT, Statistics(P, Q), _no_prior(problem.X)).mT


def _of_labels(problem: Problem, S: Tensor, B: Tensor) -> Tensor:
    """B (1, c, K), given S (1, K, D)."""
    own = S * problem.known
    return _descended(B, Statistics((own @ problem.scores).mT, own @ own.mT), _no_prior(problem.X))
