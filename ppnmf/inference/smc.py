r"""Tempered sequential Monte Carlo: particles go from the prior to the posterior, and log p(X) falls out on the way.

.. math:: \pi_\beta(W, H, \sigma^2) \propto p(W, H, \sigma^2) \, p(X \mid W, H, \sigma^2)^\beta, \quad \beta = 0 \dots 1

A step from β to β' weighs the particles by p(X | ·)^(β' - β), draws them anew where the weights have become uneven, and
moves each by sweeps of the Gibbs sampler at β', moves along the ridge included. The product of the mean weights is an
unbiased estimate of p(X) once the ladder of temperatures is fixed. The first run finds the ladder, each step as long as the
conditional effective sample size allows; the runs that count climb the same ladder.

It needs no point θ* and no order of the components, so it checks Chib's estimate. The same runs give thermodynamic
integration, ∫ E_β[log p(X | ·)] dβ, which checks the estimate within itself.

References: Del Moral, Doucet, Jasra (2006), doi:10.1111/j.1467-9868.2006.00553.x; conditional effective sample size: Zhou,
Johansen, Aston (2016), doi:10.1080/10618600.2015.1060885; the corrected rule for the integral: Friel, Hurn, Wyse (2014),
doi:10.1007/s11222-013-9397-1.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ppnmf.checks import whole_numbers
from ppnmf.inference.chain import State, init, log_joint, several
from ppnmf.inference.room import require_room
from ppnmf.posterior import Kind, Posterior
from ppnmf.progress import bar
from ppnmf.protocols import Matrix, Params, Sweeping, Sweeps, require_ability
from ppnmf.rng import Site, Stream
from ppnmf.settings import own_settings
from ppnmf.threads import single_threaded

__all__ = ["Climb", "climb", "climbs", "run"]

KEPT_EFFICIENCY = 0.95  # conditional effective sample size, over the particles, that a step of the ladder keeps
UNEVEN = 0.6  # effective sample size, over the particles, below which they are drawn anew
LEAST_STEP = 1e-12


@dataclass(frozen=True, eq=False)
class Climb:
    """One run from the prior to the posterior.

    Args:
        params: of the particles at β = 1, equally weighted, (C, *site).
        lp: their log joint, (C,).
        log_evidence: the log of the product of mean weights.
        ladder: β after each step, the last one 1.
        integral: log p(X) by thermodynamic integration.
        least_effective: the least effective sample size met, over the particles.
    """

    params: Params
    lp: Tensor
    log_evidence: float
    ladder: tuple[float, ...]
    integral: float
    least_effective: float


@own_settings()
def climb(
    model: Sweeping,
    X: Matrix,
    seed: int,
    replicate: int,
    particles: int,
    sweeps: int,
    ladder: tuple[float, ...] | None = None,
    tick: Callable[[float], Any] = lambda share: None,
) -> Climb:
    """Bring particles from the prior to the posterior, up a given ladder or one that is found on the way.

    Args:
        replicate: with the seed, fixes every random number.
        sweeps: of the Gibbs sampler at each temperature.
        tick: is told the share of the way after each step.
    """
    stream, resampling = Stream.of(seed, particles, [replicate]), Stream.of(seed, [particles], [replicate])
    params = init(model, X, stream, "prior").params
    log_likelihood = log_joint(model, X, params) - model.log_prior(params)
    weights = torch.full((particles,), 1 / particles, dtype=torch.float64, device=X.device)
    betas, path, log_evidence, least = [0.0], [_moments(weights, log_likelihood)], 0.0, 1.0
    while betas[-1] < 1:
        step = _next(weights, log_likelihood, betas[-1]) if ladder is None else ladder[len(betas) - 1]
        increments = (step - betas[-1]) * log_likelihood
        top = float(increments.max())
        raised = weights * (increments - top).exp()
        log_evidence += top + math.log(float(raised.sum()))
        weights = raised / raised.sum()
        effective = float(1 / weights.square().sum()) / particles
        least = min(least, effective)
        if effective < UNEVEN or step == 1:
            chosen = _systematic(weights, resampling, len(betas))
            params = {site: values[chosen] for site, values in params.items()}
            weights = torch.full_like(weights, 1 / particles)
        state = State(params, 1 + (len(betas) - 1) * sweeps)
        asked = Sweeps(number=sweeps, kept=range(sweeps - 1, sweeps), power=step)
        state, _, lp = several(model, state, X, stream, asked)
        params, lp = state.params, lp[:, 0]
        log_likelihood = lp - model.log_prior(params)
        betas.append(step)
        path.append(_moments(weights, log_likelihood))
        tick(step)
    return Climb(params, lp, log_evidence, tuple(betas[1:]), _integral(betas, path), least)


def climbs(
    model: Sweeping, X: Matrix, particles: int, replicates: int, sweeps: int, seed: int, progress: bool
) -> Iterator[Climb]:
    """One run that finds the ladder, which is not given, and then `replicates` that climb it.

    Raises:
        TypeError: the model has no full conditionals.
        ValueError: a count below its least value, an improper prior.
    """
    require_ability("smc", model, Sweeping)
    whole_numbers(particles=(particles, 2), sweeps=(sweeps, 1), replicates=(replicates, 1))
    model.require_proper()
    require_room(model, X, particles, replicates)
    ladder = None
    with single_threaded(), bar(1 + replicates, f"smc, rank {model.rank}", progress) as ticker:
        for replicate in range(1 + replicates):
            done = 0.0

            def tick(beta: float) -> None:
                nonlocal done
                share = 1 + math.log10(max(beta, 1e-6)) / 6  # the first steps are the smallest by far
                ticker.update(share - done)
                done = share

            one = climb(model, X, seed, replicate, particles, sweeps, ladder, tick)
            ladder = one.ladder
            if replicate > 0:
                yield one


@own_settings()
def run(
    model: Sweeping,
    X: Matrix,
    *,
    particles: int = 500,
    replicates: int = 4,
    sweeps: int = 3,
    seed: int = 0,
    progress: bool = True,
) -> Posterior:
    """Independent runs of `particles` each; a run is a chain, a particle a draw, all equally weighted.

    Args:
        model: with full conditionals and proper priors.
        X: data (N, D).
        particles: with few of them the evidence errs low.
        replicates: runs, after one more that finds the ladder of temperatures.
        sweeps: of the Gibbs sampler at each temperature.

    Returns: a Posterior; attrs hold "log_evidence", one a run, and "ladder".

    Raises:
        TypeError: the model has no full conditionals.
        ValueError: a count below its least value, an improper prior.
    """
    began = time.perf_counter()
    found = list(climbs(model, X, particles, replicates, sweeps, seed, progress))
    return Posterior(
        draws={site: torch.stack([one.params[site] for one in found]) for site in found[0].params},
        stats={"lp": torch.stack([one.lp for one in found])},
        model=model,
        X=X,
        method="smc",
        kind=Kind.INDEPENDENT,
        seed=seed,
        timings={"total": time.perf_counter() - began},
        attrs={
            "particles": particles,
            "sweeps": sweeps,
            "ladder": list(found[0].ladder),
            "log_evidence": [one.log_evidence for one in found],
            "interrupted": False,
        },
    )


def _next(weights: Tensor, log_likelihood: Tensor, beta: float) -> float:
    """The next β: its step keeps the conditional effective sample size; found by bisection of the step's logarithm."""

    def kept(step: float) -> float:
        raised = (step * (log_likelihood - log_likelihood.max())).exp()
        return float((weights * raised).sum().square() / (weights * raised.square()).sum())

    if kept(1 - beta) >= KEPT_EFFICIENCY:
        return 1.0
    low, high = math.log(LEAST_STEP), math.log(1 - beta)
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if kept(math.exp(middle)) >= KEPT_EFFICIENCY else (low, middle)
    return beta + math.exp(low)


def _systematic(weights: Tensor, stream: Stream, step: int) -> Tensor:
    """Particles drawn by their weights, (C,): one uniform places a comb of equal distances on the cumulative weights."""
    u = stream.uniforms(step, Site.RESAMPLING, range(1), 1, weights.device)[0, 0, 0]
    comb = (torch.arange(len(weights), dtype=torch.float64, device=weights.device) + u) / len(weights)
    return torch.searchsorted(weights.cumsum(0), comb).clamp(max=len(weights) - 1)


def _moments(weights: Tensor, log_likelihood: Tensor) -> tuple[float, float]:
    """Mean and variance of the log likelihood."""
    mean = float((weights * log_likelihood).sum())
    return mean, float((weights * (log_likelihood - mean).square()).sum())


def _integral(betas: list[float], path: list[tuple[float, float]]) -> float:
    """∫ mean dβ by the trapezoidal rule with its correction: the mean's slope in β is the variance."""
    total = 0.0
    for (low, a), (high, b) in pairwise(zip(betas, path, strict=True)):
        step = high - low
        total += 0.5 * step * (a[0] + b[0]) - step * step / 12 * (b[1] - a[1])
    return total
