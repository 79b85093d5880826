"""Whole climbs to a mode of a complete matrix in memory, compiled in one piece: what `inference.icm.advance` does, many times.

For matrices so small that a sweep takes no longer than the calls from Python around it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ppnmf.kernels.dense import Problem, cancels, copied, factors, sums_like
from ppnmf.kernels.lanes import COMPILED, inner, select, total_of
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
    now, earlier = ((copied(own["W"].mT), copied(own["H"])) for own in (params, before))
    zero = torch.zeros_like(lp)
    numbers = torch.stack([params["sigma2"].double(), zero, lp, constant, *pace, zero], -1).numpy()
    how = (*problem.natural_W, 0, rules.passes[0], False), (*problem.natural_H, 0, rules.passes[1], False)
    data = problem.X[0], problem.block, float(problem.squares[0]), cancels(np.finfo(problem.X.dtype).eps)

    def one(c: int) -> int:
        own, own_before = (now[0][c], now[1][c]), (earlier[0][c], earlier[1][c])
        return _climb(data, how, rules.noise, rules.pace, float(rules.tol), own, own_before, numbers[c], sweeps)

    K, N = now[0].shape[1:]
    done = ordered_map(one, range(len(lp)), 4.0 * N * problem.X.shape[2] * K * sweeps)
    found = torch.from_numpy(numbers)
    after, after_before = ({"W": torch.from_numpy(W).mT, "H": torch.from_numpy(H)} for W, H in (now, earlier))
    sigma2 = found[:, 0].to(params["sigma2"].dtype)
    ends = found[:, 1], found[:, 4], found[:, 5], done, (found[:, 6] > 0).tolist()
    return Climbed(after | {"sigma2": sigma2}, after_before, *ends)


def log_joint(problem: Problem, rules: Rules, params: Params) -> Tensor:
    """log p(X, W, H, σ²) for a misfit of 0 as the climbs have it, which is up to a constant; (C,)."""
    each = zip(copied(params["W"].mT), copied(params["H"]), params["sigma2"].tolist(), strict=True)
    of_W, of_H = problem.natural_W, problem.natural_H
    lp = [_balanced_log_prior(W, H, of_W, of_H, False) + _log_noise(rules.noise, s, 0.0) for W, H, s in each]
    return torch.tensor(lp, dtype=torch.float64)


@njit(**COMPILED)
def _weighted(F, k, natural, squared):  # type: ignore[no-untyped-def]
    """Σ natural · F[k] (or F[k]²) over the rows; F (K, R), natural (1 | R, 1 | K)."""
    column = k if natural.shape[1] > 1 else 0
    if natural.shape[0] == 1:
        weight = natural[0, column]
        if weight == 0.0:
            return 0.0
        return weight * (inner(F[k], F[k]) if squared else total_of(F[k]))
    total = 0.0
    for i in range(F.shape[1]):
        value = np.float64(F[k, i])
        total += natural[i, column] * (value * value if squared else value)
    return total


@njit(**COMPILED)
def _balanced_log_prior(W, H, of_W, of_H, exponential):  # type: ignore[no-untyped-def]
    """W_k ← c W_k, H_k ← H_k / c at the best c where both priors are exponential; log p(W, H) up to a constant."""
    total = 0.0
    for k in range(len(W)):
        a, b = _weighted(W, k, of_W[1], False), _weighted(H, k, of_H[1], False)
        if exponential and a < 0.0 and b < 0.0:
            c = np.sqrt(b / a)
            for i in range(W.shape[1]):
                W[k, i] *= c
            for j in range(H.shape[1]):
                H[k, j] /= c
            total += c * a + b / c
        else:
            total += a + b - 0.5 * (_weighted(W, k, of_W[0], True) + _weighted(H, k, of_H[0], True))
    return total


@njit(**COMPILED)
def _log_noise(noise, sigma2, misfit):  # type: ignore[no-untyped-def]
    """log p(X, σ² | W, H) up to a constant."""
    return -noise[1] * np.log(sigma2) - (noise[0] + misfit / 2) / sigma2


@njit(**COMPILED)
def _sweep(data, how, noise, exponential, W, H, sigma2, room, sums):  # type: ignore[no-untyped-def]
    """One sweep of modes in place: σ², the misfit, and the log joint up to a constant."""
    X, block, squares, cancels = data
    misfit = factors(X, block, squares, cancels, W, H, 1.0 / sigma2, (0, 0), 0, how, room, sums)
    sigma2 = (noise[0] + misfit / 2) / noise[1]
    log_prior = _balanced_log_prior(W, H, how[0], how[1], exponential)
    return sigma2, misfit, log_prior + _log_noise(noise, sigma2, misfit)


@njit(**COMPILED)
def _put_beyond(before, now, reach, out):  # type: ignore[no-untyped-def]
    """out = now + reach · (now - before), cut off at zero."""
    for k in range(now.shape[0]):
        for i in range(now.shape[1]):
            there = np.float64(now[k, i]) + reach * (np.float64(now[k, i]) - np.float64(before[k, i]))
            out[k, i] = select(there > 0.0, there, 0.0)


@njit(**COMPILED)
def _climb(data, how, noise, pace, tol, given, given_before, numbers, sweeps):  # type: ignore[no-untyped-def]
    """Up to so many sweeps of one climb, in place; the number of those done.

    numbers: σ², the misfit, the log joint but for a constant, that constant, the reach, its bound, has it converged.
    """
    (W, H), (W_before, H_before), X = given, given_before, data[0]
    K, size = len(H), len(H) * min(data[1], W.shape[1])
    room = (np.empty(size, X.dtype), np.empty(size, X.dtype))
    sums = sums_like(X, K)
    W_next, H_next = np.empty_like(W), np.empty_like(H)
    exponential = not how[0][0].any() and not how[1][0].any()
    sigma2, misfit, lp, constant, reach, bound, _ = numbers
    done, converged = 0, False
    while done < sweeps and not converged:
        _put_beyond(W_before, W, reach, W_next)
        _put_beyond(H_before, H, reach, H_next)
        after, misfit, lp_after = _sweep(data, how, noise, exponential, W_next, H_next, sigma2, room, sums)
        if lp_after - lp > tol * max(abs(lp_after + constant), 1.0):
            reach, bound = min(pace[0] * reach, bound), min(pace[1] * bound, 1.0)
        else:
            W_next[:], H_next[:] = W, H
            after, misfit, lp_after = _sweep(data, how, noise, exponential, W_next, H_next, sigma2, room, sums)
            reach, bound = reach / pace[2], reach
        converged = abs(lp_after - lp) <= tol * max(abs(lp_after + constant), 1.0)
        W_before[:], H_before[:] = W, H
        W[:], H[:] = W_next, H_next
        sigma2, lp = after, lp_after
        done += 1
    numbers[0], numbers[1], numbers[2], numbers[4], numbers[5] = sigma2, misfit, lp, reach, bound
    numbers[6] = 1.0 if converged else 0.0
    return done
