"""Variational Bayes by coordinate ascent: the sweep of the Gibbs sampler with the moments of each conditional in place of a draw.

The approximation is a product of independent conditionals' kind for every entry of W and H and every other site. A step
maximises the evidence lower bound (ELBO) over one of them, so it never falls; it is exact, and lies below log p(X). The
approximation keeps to one mode and is too narrow, the more so the more components share the data: its k-hat (Yao et al.
2018), from importance weights of its draws, says how far it can be trusted in place of the posterior.

References: Brouwer, Frellsen, Lió (2016), arXiv:1610.08127; Yao, Vehtari, Simpson, Gelman (2018), arXiv:1802.02538.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ppnmf.checks import whole_numbers
from ppnmf.data.matrix import Dense
from ppnmf.inference import climbs, icm
from ppnmf.inference.chain import State, log_joint
from ppnmf.inference.climbs import Climb, Ends, Plan
from ppnmf.inference.room import require_room
from ppnmf.inference.start import Start
from ppnmf.posterior import Kind, Posterior
from ppnmf.protocols import Drawn, Matrix, Params, Read, Sweeps, Variational, require_ability
from ppnmf.rng import Stream
from ppnmf.settings import own_settings

__all__ = ["Bound", "ascended", "run", "step"]

ONE_SWEEP = Sweeps(read=Read.MOMENTS)
LEAST_WEIGHTS = 100  # draws below which k-hat is not asked for
LOT = 2**22  # numbers of W and H whose log joint is worked out together


class Bound(NamedTuple):
    """What a sweep reached."""

    elbo: Tensor  # (C,), float64


@own_settings()
def step(model: Variational, state: State, X: Matrix) -> tuple[State, Bound]:
    """One sweep of moments; the state's parameters are an approximation (`protocols.Variational`)."""
    swept = model.sweep(state.params, X, ONE_SWEEP, None)
    elbo = swept.log_likelihood[:, -1] - model.divergence(swept.params, X)
    return State(swept.params, state.sweep + 1), Bound(elbo)


@own_settings()
def run(
    model: Variational,
    X: Dense,
    *,
    draws: int = 1000,
    restarts: int = 1,
    tol: float = 1e-6,
    max_sweeps: int = 2000,
    seed: int = 0,
    init: Start = "scaled",
    checkpoint: str | Path | None = None,
    every: int | None = None,
    resume: str | Path | None = None,
    progress: bool = True,
) -> Posterior:
    """Raise the ELBO from each of `restarts` starts, side by side, and draw from the best approximation.

    Args:
        model: with moments of its conditionals (`protocols.Variational`) and proper priors.
        X: data (N, D).
        draws: independent draws from the approximation; one chain.
        tol: a restart has converged when a sweep raises its ELBO by less than this, relatively.
        max_sweeps: a restart that has not converged by then is left there, with a warning.
        init: where the means begin: a named start, then ten sweeps of ordinary NMF; given values are taken as they are.
        checkpoint, every, resume: for long runs, see `record.open`.

    Returns: a Posterior; attrs hold "elbo", "elbo_curve" (of many sweeps, a thousand) and "converged" of the best
        restart, "restarts", the ELBO of each, "k_hat", and "interrupted": after Ctrl-C every restart is where it stood.

    Raises:
        TypeError: the model has no such moments.
        ValueError: a count or a tolerance out of its range, an improper prior.
        KeyboardInterrupt: Ctrl-C before the first sweep was done.
    """
    require_ability("vb", model, Variational)
    whole_numbers(draws=(draws, 1))
    model.require_proper()
    require_room(model, X, 1, draws)
    began = time.perf_counter()
    plan = Plan(restarts, tol, max_sweeps, seed, init, checkpoint, every, resume, progress)
    ends = ascended(model, X, plan)
    best = int(ends.lp.argmax())
    climbs.warn("vb", ends, [0], plan)
    climbed = time.perf_counter()
    q = {name: values[best : best + 1] for name, values in ends.params.items()}
    drawn = model.approximate_draws(q, X, draws, Stream.of(seed, replicates=(1,)))
    lp = _log_joints(model, X, drawn.params)
    end = time.perf_counter()
    return Posterior(
        draws={site: values[None] for site, values in drawn.params.items()},
        stats={"lp": lp[None], "log_q": drawn.log_density[None]},
        model=model,
        X=X,
        method="vb",
        kind=Kind.APPROXIMATION,
        seed=seed,
        timings={"climb": climbed - began, "draw": end - climbed, "total": end - began},
        attrs={
            "elbo": float(ends.lp[best]),
            "elbo_curve": _curve(ends, best),
            "restarts": ends.lp.tolist(),
            "steps": ends.sweeps[best],
            "sweeps": ends.sweeps,
            "converged": ends.converged[best],
            "tol": tol,
            "k_hat": k_hat(lp, drawn),
            "interrupted": ends.interrupted,
        },
    )


def ascended(model: Variational, X: Matrix, plan: Plan) -> Ends:
    """Where the restarts end: the approximations, and the ELBO of each."""
    stream = Stream.of(plan.seed, plan.restarts)

    def foot() -> State:
        begun = icm.begin(model, X, stream, plan.init, range(plan.restarts))
        return State(model.approximated(begun.params, X), 1)

    return climbs.climbed("vb", _several, model, X, foot, plan, curve=True)


def _several(model: Variational, climb: Climb, X: Matrix, tol: float, most: int) -> tuple[Climb, list[int], list[bool]]:
    """One sweep of every restart."""
    state, bound = step(model, climb.state, X)
    near = (bound.elbo - climb.lp).abs() <= tol * bound.elbo.abs().clamp(min=1.0)
    return climb.after(state, bound.elbo), [1] * len(near), near.tolist()


def _curve(ends: Ends, best: int) -> list[float]:
    assert ends.curve is not None
    own = ends.curve[best]
    return own[own.isfinite()].tolist()


def _log_joints(model: Variational, X: Matrix, draws: Params) -> Tensor:
    """The log joint of draws (n, *site), (n,), some at a time."""
    size = max(1, LOT // (draws["W"][0].numel() + draws["H"][0].numel()))
    lots = zip(*(values.split(size) for values in draws.values()), strict=True)
    return torch.cat([log_joint(model, X, dict(zip(draws, lot, strict=True))) for lot in lots])


def k_hat(lp: Tensor, drawn: Drawn) -> float | None:
    """The shape of the tail of the draws' importance weights p / q; None where there are too few of them.

    Above 0.7 the approximation is too narrow to stand for the posterior, even with weights.
    """
    from arviz_stats.base import array_stats

    logs = lp - drawn.log_density
    if len(logs) < LEAST_WEIGHTS or not bool(logs.isfinite().all()):
        return None
    shape = float(array_stats.psislw(-logs.cpu().numpy())[1])  # it takes the logarithms with their signs changed
    return shape if math.isfinite(shape) else None
