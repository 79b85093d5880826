"""Whole climbs of a complete matrix in memory, compiled in one piece: what `inference.icm.advance` does, many times.

A climb raises the log joint, or minus the squared error (ordinary NMF), by sweeps of modes.

For matrices so small that a sweep takes no longer than the calls from Python around it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ppnmf.kernels.cpu.ridge import divide, scale
from ppnmf.kernels.cpu.room import Room
from ppnmf.kernels.cpu.sweeps import Data, Factors, Side, Turn, factors_swept
from ppnmf.kernels.dense import Problem, copied
from ppnmf.kernels.lanes import COMPILED, ENTRY, INNER, inner, select, total_of
from ppnmf.kernels.natural import EXPONENTIAL, HALF_NORMAL, OTHER, kind_of
from ppnmf.protocols import Params, Standing
from ppnmf.rng import Site
from ppnmf.threads import ordered_map

__all__ = ["Climbed", "Rules", "climb", "log_joint"]


# What stands where in the numbers of a climb: σ², misfit, log joint but for a constant, that constant, reach, its bound, and
# whether it has converged
SIGMA2, MISFIT, LP, CONSTANT, REACH, BOUND, CONVERGED = range(7)
NO_ADDRESS: Any = np.int64(0)  # modes are not drawn


class Rules(NamedTuple):
    """How to climb, and when to stop."""

    passes: tuple[int, int]  # over W's components, and H's
    noise: tuple[
        float, float
    ]  # σ² is at (noise[0] + misfit / 2) / noise[1]; not read where the squared error is lowered
    pace: tuple[float, float, float]  # growth of the reach, growth of its bound, what a failure divides the reach by
    tol: float  # relative to what is raised
    unit: float  # minus the misfit over it is raised, and σ² stays; 0 where the log joint is raised


class Climbed(NamedTuple):
    """Where C climbs stand after some sweeps."""

    params: Params
    before: Params  # W and H a sweep earlier
    misfit: Tensor  # (C,), float64
    reach: Tensor  # (C,), float64
    bound: Tensor  # (C,), float64
    sweeps: list[int]  # done
    converged: list[bool]
    path: Tensor  # what was raised, after each sweep, but for its constant: (C, sweeps), NaN where there was none


def climb(
    problem: Problem,
    rules: Rules,
    begun: Standing,
    constant: Tensor,
    sweeps: int,
) -> Climbed:
    """So many sweeps of each climb, fewer where it converges; what is given stays as it is.

    Args:
        begun: W (C, N, K), H (C, K, D), sigma2 (C,); its lp is the log joint as `log_joint` has it, or minus the loss.
        constant: what is to be added to that, (C,); the tolerance is relative to the sum.

    Each sweep starts beyond the place where the climb stands, in the direction of its last step (reach times as far), and
    where that ends no higher it is taken again from the place itself: what is raised never falls.
    """
    params, lp = begun.params, begun.lp
    now = _stacked(params)
    earlier = _stacked(begun.before)
    trial = _stacked(params)
    zero = torch.zeros_like(lp)
    path = np.full((len(lp), sweeps), np.nan)
    numbers = torch.stack([params["sigma2"].double(), zero, lp, constant, begun.reach, begun.bound, zero], -1).numpy()
    data = problem.only
    N, D = data.X.shape
    K = now.H.shape[1]
    dtype = data.X.dtype
    side_W = Side.of(problem.natural_W, Site.W, dtype, 0, rules.passes[0], sample=0)
    side_H = Side.of(problem.natural_H, Site.H, dtype, 0, rules.passes[1], sample=0)
    kind = kind_of(problem.natural_W, problem.natural_H)

    sides = (tuple(side_W), tuple(side_H))

    def one(c: int) -> int:
        room = tuple(Room.of(N, D, K, problem.block, dtype))
        places = tuple((stacked.W[c], stacked.H[c]) for stacked in (now, earlier, trial))
        return _climb(tuple(data), sides, tuple(rules), kind, places, numbers[c], path[c], room)

    done = ordered_map(one, range(len(lp)), 4.0 * N * D * K * sweeps)
    found = torch.from_numpy(numbers)
    after = _tensors(now) | {"sigma2": found[:, SIGMA2].to(params["sigma2"].dtype)}
    converged = (found[:, CONVERGED] > 0).tolist()
    return Climbed(
        after,
        _tensors(earlier),
        found[:, MISFIT],
        found[:, REACH],
        found[:, BOUND],
        sweeps=done,
        converged=converged,
        path=torch.from_numpy(path),
    )


def _stacked(params: Params) -> Factors:
    """Copies of the factors of all climbs, W (C, K, N) and H (C, K, D)."""
    return Factors(copied(params["W"].mT), copied(params["H"]))


def _of_chain(stacked: Factors, c: int) -> Factors:
    return Factors(stacked.W[c], stacked.H[c])


def _tensors(stacked: Factors) -> dict[str, Tensor]:
    return {"W": torch.from_numpy(stacked.W).mT, "H": torch.from_numpy(stacked.H)}


def log_joint(problem: Problem, rules: Rules, params: Params) -> Tensor:
    """log p(X, W, H, σ²) for a misfit of 0 as the climbs have it, which is up to a constant; (C,)."""
    stacked = _stacked(params)
    lp = []
    for c, sigma2 in enumerate(params["sigma2"].tolist()):
        log_prior = _balanced_log_prior(_of_chain(stacked, c), problem.natural_W, problem.natural_H, OTHER)
        lp.append(log_prior + _log_noise(rules.noise, sigma2, 0.0))
    return torch.tensor(lp, dtype=torch.float64)


@njit(**INNER)
def _sum(F, natural, k):  # type: ignore[no-untyped-def]
    """Σ_i natural_ik F_i; F (R,), natural (1 | R, 1 | K)."""
    column = k if natural.shape[1] > 1 else 0
    if natural.shape[0] == 1:
        weight = natural[0, column]
        return 0.0 if weight == 0.0 else weight * total_of(F)
    total = 0.0
    for i in range(len(F)):
        total += natural[i, column] * np.float64(F[i])
    return total


@njit(**INNER)
def _sum_of_squares(F, natural, k):  # type: ignore[no-untyped-def]
    """Σ_i natural_ik F_i²; F (R,), natural (1 | R, 1 | K)."""
    column = k if natural.shape[1] > 1 else 0
    if natural.shape[0] == 1:
        weight = natural[0, column]
        return 0.0 if weight == 0.0 else weight * inner(F, F)
    total = 0.0
    for i in range(len(F)):
        value = np.float64(F[i])
        total += natural[i, column] * (value * value)
    return total


@njit(**COMPILED)
def _balanced_log_prior(factors, of_W, of_H, kind):  # type: ignore[no-untyped-def]
    """W_k ← c W_k, H_k ← H_k / c at the best c where both priors are exponential, or half-normal; log p(W, H) up to a constant.

    of_W, of_H: precision and linear, (1 | R, 1 | K).
    """
    W, H = factors
    total = 0.0
    for k in range(len(W)):
        a = _sum(W[k], of_W[1], k)
        b = _sum(H[k], of_H[1], k)
        if kind == EXPONENTIAL and a < 0.0 and b < 0.0:
            c = math.sqrt(b / a)
            scale(W[k], c)
            divide(H[k], c)
            total += c * a + b / c
            continue
        A = _sum_of_squares(W[k], of_W[0], k)
        B = _sum_of_squares(H[k], of_H[0], k)
        if kind == HALF_NORMAL and A > 0.0 and B > 0.0:
            c = math.sqrt(math.sqrt(B / A))
            scale(W[k], c)
            divide(H[k], c)
            total -= math.sqrt(A * B)
        else:
            total += a + b - 0.5 * (A + B)
    return total


@njit(**COMPILED)
def _log_noise(noise, sigma2, misfit):  # type: ignore[no-untyped-def]
    """log p(X, σ² | W, H) up to a constant."""
    return -noise[1] * math.log(sigma2) - (noise[0] + misfit / 2) / sigma2


@njit(**INNER)
def _copy_beyond(before, now, reach, out):  # type: ignore[no-untyped-def]
    """out = now + reach · (now - before), cut off at zero."""
    for k in range(now.shape[0]):
        for i in range(now.shape[1]):
            there = np.float64(now[k, i]) + reach * (np.float64(now[k, i]) - np.float64(before[k, i]))
            out[k, i] = select(there > 0.0, there, 0.0)


@njit(**INNER)
def _step(before, now, trial):  # type: ignore[no-untyped-def]
    """before = now and now = trial."""
    for k in range(now.shape[0]):
        for i in range(now.shape[1]):
            before[k, i] = now[k, i]
            now[k, i] = trial[k, i]


class Reached(NamedTuple):
    """What a sweep from some place gives."""

    sigma2: float
    misfit: float
    lp: float  # what is raised, but for a constant


@njit(**INNER)
def _sweep_from(reach, data, sides, rules, kind, now, before, trial, sigma2, room):  # type: ignore[no-untyped-def]
    """Sweep from `reach` steps beyond `now`, as it was reached from `before`; `trial` is then where that leads."""
    _copy_beyond(before.W, now.W, reach, trial.W)
    _copy_beyond(before.H, now.H, reach, trial.H)
    turn = Turn(1.0 / sigma2, NO_ADDRESS, NO_ADDRESS, NO_ADDRESS)
    misfit = factors_swept(data, trial, sides, turn, room)
    if rules.unit > 0.0:
        return Reached(sigma2, misfit, -misfit / rules.unit)
    scale_of_noise, shape_of_noise = rules.noise
    sigma2_after = (scale_of_noise + misfit / 2) / shape_of_noise
    log_prior = _balanced_log_prior(trial, sides[0].prior, sides[1].prior, kind)
    return Reached(sigma2_after, misfit, log_prior + _log_noise(rules.noise, sigma2_after, misfit))


@njit(**ENTRY)
def _climb(given, given_sides, given_rules, kind, places, numbers, path, given_room):  # type: ignore[no-untyped-def]
    """As many sweeps of one climb as its path is long, at most, in place; the number of those done.

    The records come as plain tuples, as in `cpu.sweeps.sweep_chains`.

    Args:
        given: `Data`. given_sides: `Side` of W and of H. given_rules: `Rules`. given_room: `Room`.
        kind: of both priors.
        places: three times W and H: where the climb stands, where it stood a sweep earlier, and room for its next place.
        numbers: see above.
        path: what is raised, after each sweep.
    """
    data = Data(*given)
    sides = (Side(*given_sides[0]), Side(*given_sides[1]))
    rules = Rules(*given_rules)
    room = Room(*given_room)
    now = Factors(*places[0])
    before = Factors(*places[1])
    trial = Factors(*places[2])
    growth, bound_growth, retreat = rules.pace
    at = Reached(numbers[SIGMA2], numbers[MISFIT], numbers[LP])
    constant = numbers[CONSTANT]
    reach = numbers[REACH]
    bound = numbers[BOUND]
    done = 0
    converged = False
    while done < len(path) and not converged:
        after = _sweep_from(reach, data, sides, rules, kind, now, before, trial, at.sigma2, room)
        if after.lp - at.lp > rules.tol * max(abs(after.lp + constant), 1.0):
            reach = min(growth * reach, bound)
            bound = min(bound_growth * bound, 1.0)
        elif reach > 0.0:  # no better from beyond: from here
            after = _sweep_from(0.0, data, sides, rules, kind, now, before, trial, at.sigma2, room)
            bound = reach
            reach = reach / retreat
        converged = abs(after.lp - at.lp) <= rules.tol * max(abs(after.lp + constant), 1.0)
        _step(before.W, now.W, trial.W)
        _step(before.H, now.H, trial.H)
        at = after
        path[done] = after.lp
        done += 1
    numbers[SIGMA2] = at.sigma2
    numbers[MISFIT] = at.misfit
    numbers[LP] = at.lp
    numbers[REACH] = reach
    numbers[BOUND] = bound
    numbers[CONVERGED] = 1.0 if converged else 0.0
    return done
