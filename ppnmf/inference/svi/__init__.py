"""Stochastic variational inference of a model with an encoder: its parameters and the guide's raise the ELBO.

The ELBO is a sum over rows, and so is its gradient: blocks of rows, whose borders depend on X's shape alone, go to
threads, and what comes of them is added in their order. Where rows are spread over processes (`ppnmf.data.sharded`), each
adds up its own, these sums are added up, and all take the same step.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ppnmf.checks import one_of, real_number, whole_numbers, yes_or_no
from ppnmf.data.labelled import names_of
from ppnmf.data.matrix import Dense
from ppnmf.data.sharded import Sharded
from ppnmf.inference.room import require_room
from ppnmf.inference.svi.blocks import Outputs, added, batch_of, bound_of, by_block, held_here
from ppnmf.inference.svi.gradient import OBJECTIVES
from ppnmf.inference.svi.polish import Final, final_guide
from ppnmf.inference.svi.training import Course, Training, train
from ppnmf.posterior import Kind, Posterior
from ppnmf.protocols import Amortised, Matrix, Recipe, require_ability
from ppnmf.rng import Site, Stream
from ppnmf.settings import own_settings
from ppnmf.threads import single_threaded

__all__ = ["OBJECTIVES", "elbo", "run"]

MOST_POINTS = 1000  # of the ELBO curve that is kept
AT_ONCE = 2**22  # entries of the draws that are looked at together


@own_settings()
@torch.enable_grad()
def run(
    model: Amortised,
    X: Matrix,
    *,
    steps: int = 2000,
    batch_size: int | None = None,
    draws: int = 1000,
    learning_rate: float | None = None,
    objective: str | None = None,
    divergence: bool | None = None,
    polish: int = 0,
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
        learning_rate: of the steps, on parameters of order one. It, `objective` and `divergence` are the model's own
            (`Amortised.recipe`) where None is given.
        objective: what stands for the mean log likelihood: "analytic", the exact one; "sampled", that at one draw of W
            a step; or "median", that at the guide's median. The last is no bound.
        divergence: subtract the divergence of the guide to the prior; without it the guide shrinks to points.
        polish: steps, after the training, on a λ and a k of its own for every entry of W, H and σ² kept: what they gain is
            the encoder's amortisation gap (`attrs["amortisation_gap"]`, nats), and the draws, `lp` and `elbo` are those
            of this guide. `model.encode` is the encoder's as before.
        tol: least gain of the ELBO, in nats per observed entry, that such a window of steps must bring.

    Raises:
        TypeError: the model has no encoder.
        ValueError: an option that is out of its range; a polish after a training that is not of the ELBO.
    """
    _check(model, X, steps, batch_size, draws, polish, tol)
    recipe = _recipe(model.recipe, learning_rate=learning_rate, objective=objective, divergence=divergence)
    _check_polish(polish, recipe)
    times = [time.perf_counter()]
    model = copy.deepcopy(model).to(dtype=X.dtype, device=X.device)
    data = held_here(X)
    with single_threaded():
        _begin(model, data, seed)
        training = train(model.train(), data, recipe, Course(steps, batch_size, tol, seed, progress))
        times.append(time.perf_counter())
        model.eval().zero_grad()
        final = final_guide(model, data, polish, progress)
        times.append(time.perf_counter())
        W = _draw(model, final.outputs, data, draws, Stream.of(seed))
        lp = _log_joint(model, data, W)
    times.append(time.perf_counter())
    parameters = {site: values.expand(1, draws, *values.shape) for site, values in model.fitted().items()}
    return Posterior(
        draws={"W": W[None], **parameters},
        stats={"lp": lp[None]},
        model=model,
        X=X,
        method="svi",
        kind=Kind.APPROXIMATION,
        seed=seed,
        timings=_timings(times),
        attrs=_facts(recipe, training, final, polish),
    )


@own_settings()
@torch.no_grad()
def elbo(model: Amortised, X: Dense | Sharded) -> float:
    """The analytic ELBO of all of X, in nats, over all processes."""
    own = X.here
    return added(X, by_block(lambda rows: bound_of(model, batch_of(model, own, rows)), own, model.rank))


def _begin(model: Amortised, X: Dense | Sharded, seed: int) -> None:
    """Weights where there are none, and the names of X's columns."""
    if not model.is_initialised:
        model.initialise(X, seed)
    elif model.columns is None:
        model.columns = names_of(X).columns


def _timings(times: Sequence[float]) -> dict[str, float]:
    """Seconds, from the clock before the training, after it, after the polish, and at the end."""
    begun, trained, polished, ended = times
    return {"train": trained - begun, "polish": polished - trained, "draw": ended - polished, "total": ended - begun}


def _facts(recipe: Recipe, training: Training, final: Final, polish: int) -> dict[str, Any]:
    """What stands beside the draws: the posterior's `attrs`."""
    every = -(-len(training.curve) // MOST_POINTS) or 1
    facts = {
        "elbo": final.elbo,
        "elbo_curve": training.curve[::every].tolist(),
        "steps": len(training.curve),
        "converged": training.converged,
        "interrupted": training.interrupted or final.interrupted,
        "objective": recipe.objective,
        "divergence": recipe.divergence,
    }
    return facts | ({"polish": polish, "amortisation_gap": final.gap} if polish else {})


@torch.no_grad()
def _draw(model: Amortised, outputs: Outputs, X: Dense | Sharded, draws: int, stream: Stream) -> Tensor:
    """Independent draws of W from the guide (draws, N, K), by its inverse distribution function; never zero."""
    rows = X.rows
    quantile = model.quantile(outputs)
    W = torch.empty(draws, len(rows), model.rank, dtype=X.dtype, device=X.device)
    for s in range(draws):
        W[s] = quantile(stream.uniforms(s, Site.GUIDE, rows, model.rank, X.device)[0])
    return W


def _log_joint(model: Amortised, X: Dense | Sharded, W: Tensor) -> Tensor:
    """log p(X, W | H, σ²) of each of the draws W (S, N, K), shape (S,), float64."""
    own = X.here

    def of(rows: slice) -> Tensor:
        values = own.values[rows]
        mask = None if own.mask is None else own.mask[rows]
        draws = W[:, rows]
        some = draws.split(max(1, AT_ONCE // draws[0].numel()))
        return torch.cat([model.log_joint(values, part, mask).sum(1) for part in some])

    return X.add_up(torch.stack(by_block(of, own, model.rank)).sum(0))


def _recipe(own: Recipe, **choices: Any) -> Recipe:
    """The model's recipe with what the caller has chosen otherwise; None is no choice."""
    recipe = own._replace(**{name: choice for name, choice in choices.items() if choice is not None})
    real_number("learning_rate", recipe.learning_rate)
    one_of("objective", recipe.objective, OBJECTIVES)
    yes_or_no(divergence=recipe.divergence)
    return recipe


def _check_polish(polish: int, recipe: Recipe) -> None:
    if polish and (recipe.objective == "median" or not recipe.divergence):
        raise ValueError(
            "polish raises the ELBO, and this training does not: train with objective='analytic' and divergence=True, or "
            "leave polish out"
        )


def _check(
    model: Amortised, X: Matrix, steps: int, batch_size: int | None, draws: int, polish: int, tol: float
) -> None:
    require_ability("svi", model, Amortised)
    model.require_columns(X.shape[1], names_of(X).columns)
    whole_numbers(steps=(steps, 0), draws=(draws, 1), polish=(polish, 0))
    whole_numbers(batch_size=(1 if batch_size is None else batch_size, 1))
    real_number("tol", tol, 0)
    require_room(model, X, 1, draws, ["W"])
