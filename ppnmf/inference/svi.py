"""Stochastic variational inference of a model with an encoder: its parameters and the guide's raise the ELBO.

The ELBO is a sum over rows. Where they are spread over processes (`ppnmf.data.sharded`), each works out the sum and the
gradient of its own, these are added up, and all take the same step of Adam.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor

from ppnmf.checks import whole_numbers
from ppnmf.data.matrix import Dense, in_memory, without_noise
from ppnmf.data.sharded import Sharded, add_up, here, rows_here
from ppnmf.models.pae_nmf import MOST_ROWS, PAENMF, analytic_elbo, weibull_moments
from ppnmf.posterior import Posterior
from ppnmf.progress import bar
from ppnmf.protocols import Amortised, Matrix
from ppnmf.rng import Site, Stream, forked
from ppnmf.threads import single_threaded

__all__ = ["OBJECTIVES", "elbo", "run"]

WINDOW = 50  # steps, at least and in whole epochs, whose mean ELBO is compared with the best before
DECAY = 0.3  # of the learning rate, when a window brings nothing
LEAST_RATE = 0.01  # of the first learning rate: when a window brings nothing there, the training has converged
MOST_POINTS = 1000  # of the ELBO curve that is kept
AT_ONCE = 2**22  # entries of a block when the whole data are passed through

Objective = Callable[[PAENMF, Dense, Tensor | None, Tensor | None], Tensor]


class Training(NamedTuple):
    """What the training did."""

    curve: Tensor  # ELBO of each step, float64; of a mini-batch, an unbiased estimate
    converged: bool
    interrupted: bool


def run(
    model: PAENMF,
    X: Matrix,
    *,
    steps: int = 2000,
    batch_size: int | None = None,
    draws: int = 1000,
    learning_rate: float = 0.01,
    objective: str = "analytic",
    tol: float = 1e-7,
    seed: int = 0,
    progress: bool = True,
) -> Posterior:
    """Train a copy of `model` on X by Adam, then draw from its guide.

    The learning rate follows a cosine to zero at `steps`, and is multiplied by 0.3 whenever 50 steps, or the next whole
    number of epochs, have not raised the ELBO by `tol`; when it has fallen to a hundredth and still nothing is gained,
    the training ends. H stays >= 0 by projection. A model that has weights already is trained on from where it is.
    Ctrl-C ends the training; the draws are then of what was reached, and `attrs["interrupted"]` is True.

    Args:
        model: offers `guide` (`protocols.Amortised`); it is not changed.
        X: data, shape (N, D).
        steps: at most so many steps of Adam.
        batch_size: rows in a mini-batch, over all processes, or None: all rows in every step.
        draws: independent draws of W from the guide; one chain. H and sigma2 are parameters, and are broadcast.
        learning_rate: of Adam, on parameters of order one.
        objective: "analytic", the exact ELBO, or "sampled", the paper's: one draw of W a step, through Pyro.
        tol: least gain of the ELBO, in nats per observed entry, that such a window of steps must bring.

    Raises:
        TypeError: the model has no encoder.
        ValueError: an option that is out of its range.
    """
    _check(model, X, steps, batch_size, draws, learning_rate, objective, tol)
    start = time.perf_counter()
    model = copy.deepcopy(model).to(dtype=X.dtype, device=X.device)
    data, rank = _in_memory(X), X.rank if isinstance(X, Sharded) else 0
    with single_threaded(), forked(seed, X.device, rank):  # the sampled objective draws through Pyro, for its own rows
        if not model.is_initialised:
            model.initialise(data.excerpt(MOST_ROWS) if isinstance(data, Sharded) else data, seed)
        training = _train(
            model.train(), data, OBJECTIVES[objective], batch_size, steps, learning_rate, tol, seed, progress
        )
        trained = time.perf_counter()
        model.eval().zero_grad()
        final, W = elbo(model, data), _draw(model, data, draws, Stream.of(seed))
        lp = _log_joint(model, data, W)
    end = time.perf_counter()
    H, sigma2 = model.H.detach(), model.sigma2.detach()
    return Posterior(
        draws={"W": W[None], "H": H.expand(1, draws, *H.shape), "sigma2": sigma2.expand(1, draws)},
        stats={"lp": lp[None]},
        model=model,
        X=X,
        method="svi",
        seed=seed,
        timings={"train": trained - start, "draw": end - trained, "total": end - start},
        attrs={
            "elbo": final,
            "elbo_curve": training.curve[:: -(-len(training.curve) // MOST_POINTS) or 1].tolist(),
            "steps": len(training.curve),
            "converged": training.converged,
            "interrupted": training.interrupted,
            "objective": objective,
        },
    )


@torch.no_grad()
def elbo(model: PAENMF, X: Dense | Sharded) -> float:
    """The analytic ELBO of all of X, in nats."""
    own, total = here(X), 0.0
    for rows in _row_blocks(own):
        total += float(_analytic(model, own, rows, None)) * len(rows) / len(own.values)
    return float(add_up(X, torch.tensor(total, dtype=torch.float64)))


def _analytic(model: PAENMF, X: Dense, rows: Tensor | None, coordinates: Tensor | None) -> Tensor:
    values, mask = X.values, X.mask
    if rows is not None:
        values, mask = values[rows], None if mask is None else mask[rows]
        coordinates = None if coordinates is None else coordinates[rows]
    if coordinates is None:
        coordinates = model.coordinates(values, mask)
    bound = analytic_elbo(values, model.posterior(coordinates), model.H, model.sigma2, mask).value
    return bound * (len(X.values) / len(values))


def _sampled(model: PAENMF, X: Dense, rows: Tensor | None, coordinates: Tensor | None) -> Tensor:
    return -TraceMeanField_ELBO().differentiable_loss(model, model.guide, X.values, X.mask, rows=rows)


OBJECTIVES: dict[str, Objective] = {"analytic": _analytic, "sampled": _sampled}


def _train(
    model: PAENMF,
    X: Dense | Sharded,
    objective: Objective,
    batch_size: int | None,
    steps: int,
    learning_rate: float,
    tol: float,
    seed: int,
    progress: bool,
) -> Training:
    """Adam with the schedule that `run` describes; the model is changed in place."""
    own, N = here(X), X.shape[0]
    epoch = -(-N // min(N, batch_size or N))  # mini-batches
    window = epoch * -(-WINDOW // epoch)  # whole epochs: what one batch differs from another must not look like a gain
    batches = _batches(rows_here(X), epoch, Stream.of(seed, replicates=(1,)), X.device)
    adam = torch.optim.Adam(model.parameters(), lr=learning_rate, betas=(0.9, 0.99))
    curve, best, decay = torch.zeros(steps, dtype=torch.float64, device=X.device), -math.inf, 1.0
    step, converged, interrupted = 0, False, False
    try:
        coordinates = model.coordinates(own.values, own.mask)
        with bar(steps, "svi", progress) as shown:
            while step < steps and not converged:
                adam.param_groups[0]["lr"] = learning_rate * decay * 0.5 * (1 + math.cos(math.pi * step / steps))
                value = objective(model, own, next(batches), coordinates)
                adam.zero_grad()
                (-value / X.n_observed).backward()
                curve[step] = _summed(X, model, value.detach())
                adam.step()
                model.project()
                step += 1
                if step % window == 0:
                    reached = float(curve[step - window : step].mean())
                    gained, best = reached - best > tol * X.n_observed, max(best, reached)
                    converged = not gained and decay <= LEAST_RATE
                    decay = decay if gained else decay * DECAY
                    shown.update(window)
                    shown.set_postfix_str(f"ELBO {reached:.6g}")
    except KeyboardInterrupt:
        interrupted = True
    model.project()
    return Training(curve[:step].cpu(), converged, interrupted)


def _summed(X: Dense | Sharded, model: PAENMF, value: Tensor) -> Tensor:
    """The objective over the rows of all processes, as are the model's gradients, in place, from here on."""
    if not isinstance(X, Sharded):
        return value
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters()]
    total = add_up(X, torch.cat([value[None], *(gradient.flatten() for gradient in gradients)]))
    value, *parts = total.split([1, *(gradient.numel() for gradient in gradients)])
    for parameter, part in zip(model.parameters(), parts, strict=True):
        parameter.grad = part.view_as(parameter)
    return value[0]


def _batches(rows: range, number: int, stream: Stream, device: torch.device) -> Iterator[Tensor | None]:
    """Rows of each step, counted from the first of `rows`, which are at least one.

    Every row comes once an epoch, in a new order; the sizes of batches differ by one row at most.
    """
    number = min(number, len(rows))
    while number == 1:
        yield None
    epoch = 0
    while True:
        order = stream.uniforms(epoch, Site.GUIDE, rows, 1, device)[0, :, 0].argsort()
        yield from order.tensor_split(number)
        epoch += 1


@torch.no_grad()
def _draw(model: PAENMF, X: Dense | Sharded, draws: int, stream: Stream) -> Tensor:
    """Independent draws of W from the guide (draws, N, K), by its inverse distribution function; never zero."""
    rows, tiny = rows_here(X), torch.finfo(X.dtype).tiny
    W = torch.empty(draws, len(rows), model.rank, dtype=X.dtype, device=X.device)
    guide = _guide(model, here(X))
    scale, power = guide.scale.double(), guide.concentration.double().reciprocal()
    for s in range(draws):
        exponential = -stream.uniforms(s, Site.GUIDE, rows, model.rank, X.device)[0].log()
        W[s] = (scale * exponential**power).clamp(min=tiny)
    return W


@torch.no_grad()
def _guide(model: PAENMF, X: Dense) -> torch.distributions.Weibull:
    return model.posterior(model.coordinates(X.values, X.mask))


@torch.no_grad()
def _log_joint(model: PAENMF, X: Dense | Sharded, W: Tensor) -> Tensor:
    """log p(X, W | H, σ²) of each of the draws W (S, N, K), shape (S,), float64.

    The squared error is expanded around the guide's mean, where nothing cancels: it costs N K² a draw instead of N K D.
    """
    own = here(X)
    exact = Dense(own.values.double(), own.mask)
    H, sigma2 = model.H.double()[None], model.sigma2.double()
    mean = weibull_moments(_guide(model, own))[0].double()
    error, shared = W.new_zeros(len(W), dtype=torch.float64), exact.prepare(H)
    for block in exact.blocks:
        centre = mean[block.start : block.stop]
        P, Q = (part[0] for part in exact.row_statistics(block, shared))  # (B, K); (K, K), or (B, K, K) with a mask
        slope = P - _product(centre, Q)
        changes = [
            part[:, block.start : block.stop].double() - centre for part in W.split(max(1, AT_ONCE // W[0].numel()))
        ]
        error += torch.cat([(change * (_product(change, Q) - 2 * slope)).sum((1, 2)) for change in changes])
        error += exact.residual_sum_of_squares(block, centre[None], H)
    error, size = add_up(X, torch.stack([error, torch.stack([draw.double().sum() for draw in W])]))
    log_likelihood = -0.5 * (X.n_observed * (math.log(2 * math.pi) + sigma2.log()) + error / sigma2)
    return log_likelihood - size  # log p(w) = -w: Weibull(1, 1)


def _product(rows: Tensor, Q: Tensor) -> Tensor:
    """Rows (..., B, K) times the one Q (K, K), or each its own Q (B, K, K)."""
    return rows @ Q if Q.ndim == 2 else (rows[..., None, :] @ Q)[..., 0, :]


def _row_blocks(X: Dense) -> list[Tensor]:
    N, D = X.shape
    return list(torch.arange(N, device=X.device).split(max(1, AT_ONCE // D)))


def _in_memory(X: Matrix) -> Dense | Sharded:
    """X with this process's rows as a dense matrix."""
    own = in_memory(without_noise(here(X), "svi"), "svi")
    return replace(X, local=own) if isinstance(X, Sharded) else own


def _check(
    model: PAENMF,
    X: Matrix,
    steps: int,
    batch_size: int | None,
    draws: int,
    learning_rate: float,
    objective: str,
    tol: float,
) -> None:
    if not isinstance(model, Amortised):
        raise TypeError(
            f"svi needs a guide and an encoder; {getattr(model, 'name', type(model).__name__)} offers neither"
        )
    if model.is_initialised and model.H.shape[1] != X.shape[1]:
        raise ValueError(
            f"X has {X.shape[1]} columns and the model has weights for {model.H.shape[1]}; start from a new model"
        )
    whole_numbers(steps=(steps, 0), draws=(draws, 1), batch_size=(1 if batch_size is None else batch_size, 1))
    if not 0 < learning_rate < math.inf or not 0 <= tol < math.inf:
        raise ValueError(
            f"learning_rate is {learning_rate!r} and tol {tol!r}; one must be positive, the other not negative"
        )
    if objective not in OBJECTIVES:
        raise ValueError(f"objective is {objective!r}; it must be one of {', '.join(OBJECTIVES)}")
