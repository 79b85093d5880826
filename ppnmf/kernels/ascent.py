"""Whole climbs to a mode of a complete matrix in memory, compiled in one piece: what `inference.icm.advance` does, many times.

For matrices so small that a sweep takes no longer than the calls from Python around it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ppnmf.kernels.cpu import Parts
from ppnmf.kernels.dense import Data, Problem, Room, Side, cancels, copied, factors
from ppnmf.kernels.lanes import COMPILED, INNER, inner, select, total_of
from ppnmf.protocols import Params
from ppnmf.threads import ordered_map

__all__ = ["Climbed", "Rules", "climb", "log_joint"]


class Rules(NamedTuple):
    """How to climb, and when to stop."""

    passes: tuple[int, int]  # over W's components, and H's
    noise: tuple[float, float]  # σ² is at (noise[0] + misfit / 2) / noise[1]
    pace: tuple[
        float, float, float
    ]  # growth of the reach, growth of its bound, and what a failure divides the reach by
    tol: float


class Climbed(NamedTuple):
    """Where C climbs stand after some sweeps."""

    params: Params
    before: Params  # W and H a sweep earlier
    misfit: Tensor  # (C,), float64
    reach: Tensor  # (C,), float64
    bound: Tensor  # (C,), float64
    sweeps: list[int]  # done
    converged: list[bool]


def climb(
    problem: Problem,
    rules: Rules,
    params: Params,
    before: Params,
    pace: tuple[Tensor, Tensor],
    lp: Tensor,
    constant: Tensor,
    sweeps: int,
) -> Climbed:
    """So many sweeps of each climb, fewer where it converges; what is given stays as it is.

    Args:
        params: W (C, N, K), H (C, K, D), sigma2 (C,). before: W and H a sweep earlier.
        pace: the reach and its bound, (C,).
        lp: log joint as `log_joint` has it, (C,).
        constant: what is to be added to it, (C,); the tolerance is relative to the sum.
    """
    now, earlier, trial = (_Pair.of_params(own) for own in (params, before, params))
    zero = torch.zeros_like(lp)
    numbers = torch.stack([params["sigma2"].double(), zero, lp, constant, *pace, zero], -1).numpy()
    X = problem.X[0]
    data = Data(X, problem.block, float(problem.squares[0]), cancels(np.finfo(X.dtype).eps))
    natural = problem.natural_W, problem.natural_H
    sides = tuple(Side(own, 0, passes, False) for own, passes in zip(natural, rules.passes, strict=True))
    exponential = not any(precision.any() for precision, _ in natural)
    parts = Parts.of(X.dtype, moves=False, noise=False)
    K, (N, D) = now.H.shape[1], X.shape

    def one(c: int) -> int:
        room = Room.of(N, D, K, problem.block, X.dtype)
        pairs = now.one(c), earlier.one(c), trial.one(c)
        how = rules.noise, rules.pace, float(rules.tol), exponential
        return _climb(data, sides, how, *pairs, numbers[c], sweeps, room, parts)

    done = ordered_map(one, range(len(lp)), 4.0 * N * D * K * sweeps)
    found = torch.from_numpy(numbers)
    after, after_before = ({"W": torch.from_numpy(F.W).mT, "H": torch.from_numpy(F.H)} for F in (now, earlier))
    sigma2 = found[:, 0].to(params["sigma2"].dtype)
    ends = found[:, 1], found[:, 4], found[:, 5], done, (found[:, 6] > 0).tolist()
    return Climbed(after | {"sigma2": sigma2}, after_before, *ends)


class _Pair(NamedTuple):
    """Factors, written to: W (C, K, N) and H (C, K, D), or of one climb (K, N) and (K, D)."""

    W: np.ndarray
    H: np.ndarray

    @classmethod
    def of_params(cls, params: Params) -> _Pair:
        return cls(copied(params["W"].mT), copied(params["H"]))

    def one(self, c: int) -> _Pair:
        return _Pair(self.W[c], self.H[c])


def log_joint(problem: Problem, rules: Rules, params: Params) -> Tensor:
    """log p(X, W, H, σ²) for a misfit of 0 as the climbs have it, which is up to a constant; (C,)."""
    each = zip(copied(params["W"].mT), copied(params["H"]), params["sigma2"].tolist(), strict=True)
    of_W, of_H = problem.natural_W, problem.natural_H
    lp = [_balanced_log_prior(W, H, of_W, of_H, False) + _log_noise(rules.noise, s, 0.0) for W, H, s in each]
    return torch.tensor(lp, dtype=torch.float64)


@njit(**INNER)
def _sum(F, natural, column):  # type: ignore[no-untyped-def]
    """Σ_i natural_i F_i; F (R,), natural (1 | R, 1 | K)."""
    if natural.shape[0] == 1:
        weight = natural[0, column]
        return 0.0 if weight == 0.0 else weight * total_of(F)
    total = 0.0
    for i in range(len(F)):
        total += natural[i, column] * np.float64(F[i])
    return total


@njit(**INNER)
def _sum_of_squares(F, natural, column):  # type: ignore[no-untyped-def]
    """Σ_i natural_i F_i²; F (R,), natural (1 | R, 1 | K)."""
    if natural.shape[0] == 1:
        weight = natural[0, column]
        return 0.0 if weight == 0.0 else weight * inner(F, F)
    total = 0.0
    for i in range(len(F)):
        value = np.float64(F[i])
        total += natural[i, column] * (value * value)
    return total


@njit(**COMPILED)
def _balanced_log_prior(W, H, of_W, of_H, exponential):  # type: ignore[no-untyped-def]
    """W_k ← c W_k, H_k ← H_k / c at the best c where both priors are exponential; log p(W, H) up to a constant.

    of_W, of_H: precision and linear, (1 | R, 1 | K).
    """
    total = 0.0
    columns_W, columns_H = of_W[1].shape[1], of_H[1].shape[1]
    squares_W, squares_H = of_W[0].shape[1], of_H[0].shape[1]
    for k in range(len(W)):
        a = _sum(W[k], of_W[1], k if columns_W > 1 else 0)
        b = _sum(H[k], of_H[1], k if columns_H > 1 else 0)
        if exponential and a < 0.0 and b < 0.0:
            c = math.sqrt(b / a)
            for i in range(W.shape[1]):
                W[k, i] *= c
            for j in range(H.shape[1]):
                H[k, j] /= c
            total += c * a + b / c
        else:
            of_squares_W = _sum_of_squares(W[k], of_W[0], k if squares_W > 1 else 0)
            of_squares_H = _sum_of_squares(H[k], of_H[0], k if squares_H > 1 else 0)
            total += a + b - 0.5 * (of_squares_W + of_squares_H)
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


@njit(**COMPILED)
def _climb(data, sides, how, now, before, trial, numbers, sweeps, room, parts):  # type: ignore[no-untyped-def]
    """Up to so many sweeps of one climb, in place; the number of those done.

    Args:
        how: `Rules.noise`, `Rules.pace`, `Rules.tol`, and whether both priors are exponential.
        now, before, trial: `_Pair`s: where the climb stands, where it stood a sweep earlier, and room for its next place.
        numbers: σ², the misfit, the log joint but for a constant, that constant, the reach, its bound, has it converged.
    """
    noise, pace, tol, exponential = how
    sigma2, misfit, lp, constant, reach, bound, _ = numbers
    done, converged = 0, False
    while done < sweeps and not converged:
        sigma2_after, lp_after = sigma2, lp
        went_beyond = False
        for attempt in range(2):  # from beyond, and where that is no better from here
            stretch = reach if attempt == 0 else 0.0
            _copy_beyond(before.W, now.W, stretch, trial.W)
            _copy_beyond(before.H, now.H, stretch, trial.H)
            misfit = factors(data, trial.W, trial.H, sides, 1.0 / sigma2, (0, 0, 0), room, parts)
            sigma2_after = (noise[0] + misfit / 2) / noise[1]
            log_prior = _balanced_log_prior(trial.W, trial.H, sides[0].prior, sides[1].prior, exponential)
            lp_after = log_prior + _log_noise(noise, sigma2_after, misfit)
            if attempt == 0 and lp_after - lp > tol * max(abs(lp_after + constant), 1.0):
                went_beyond = True
                break
        if went_beyond:
            reach, bound = min(pace[0] * reach, bound), min(pace[1] * bound, 1.0)
        else:
            reach, bound = reach / pace[2], reach
        converged = abs(lp_after - lp) <= tol * max(abs(lp_after + constant), 1.0)
        _step(before.W, now.W, trial.W)
        _step(before.H, now.H, trial.H)
        sigma2, lp = sigma2_after, lp_after
        done += 1
    numbers[0], numbers[1], numbers[2], numbers[4], numbers[5] = sigma2, misfit, lp, reach, bound
    numbers[6] = 1.0 if converged else 0.0
    return done
