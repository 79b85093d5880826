"""Sweeps of many particles on the way from a reference to a posterior, for a matrix in memory, compiled whole.

What `gaussian.sweep` does with `gaussian.path.between`'s priors, the moves along the ridge included, and what stepping stones ask
for afterwards: one call from Python for all particles of a step. Priors are stored a component a row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ppnmf.kernels.cpu.positive import address_of_standard_gamma, call_standard_gamma
from ppnmf.kernels.cpu.ridge import room_for_moves
from ppnmf.kernels.cpu.room import Room
from ppnmf.kernels.cpu.sweeps import Data, Factors, Side, Turn, factors_swept
from ppnmf.kernels.dense import Problem, copied
from ppnmf.kernels.lanes import COMPILED, ENTRY, INNER, inner, inner_of_three, total_of
from ppnmf.kernels.masked import RoomForGrams, masked_swept
from ppnmf.kernels.natural import Free, kind_of, move
from ppnmf.protocols import Address, Params
from ppnmf.rng import Site, uniform_pair
from ppnmf.threads import lots, ordered_map

__all__ = ["After", "Between", "Way", "order_uniforms", "swept"]

Natural = tuple[np.ndarray, np.ndarray]
MISFIT, PRIOR = range(2)  # what stands where in a particle's numbers
FIRST_ROW: Any = np.int64(0)
SITE_SWAP: Any = np.int64(Site.SWAP)


class Way(NamedTuple):
    """What the particles of all steps share.

    Args:
        problem: X, and the natural parameters of the posterior's own priors.
        W, H: those of the reference, a component a row, (K, N) and (K, D).
        log_peaks: minus the logs of ∫ exp(-a w² / 2 + b w) dw, summed over the reference's entries of a component, (K,).
        free: the moves that are made.
    """

    problem: Problem
    W: Natural
    H: Natural
    log_peaks: np.ndarray
    free: Free


class After(NamedTuple):
    """Particles after their sweeps."""

    params: dict[str, Tensor]
    misfit: Tensor  # (C,), float64
    log_prior: Tensor  # of the factors, up to a constant, (C,), float64
    places: Tensor  # log density of component k as the reference's l-th, (C, K, K), float64


class Between(NamedTuple):
    """What sweeps at a power β leave as it is: the "priors" of W and H, (K, N) and (K, D), and the noise.

    Args:
        noise: shape and scale of σ²'s conditional, but for β / 2 times the misfit in the scale; None: σ² is known.
    """

    power: float
    W: Natural
    H: Natural
    noise: tuple[float, float] | None


def swept(way: Way, params: Params, target: Between, sweeps: int, at: Address) -> After:
    """So many sweeps of every particle; `params` stay as they are.

    Args:
        params: W (C, N, K), H (C, K, D), sigma2 (C,).
        at: where their random numbers are.
    """
    problem = way.problem
    power, of_W, of_H, noise = target
    W, H, sigma2 = copied(params["W"].mT), copied(params["H"]), copied(params["sigma2"])
    C, K, N = W.shape
    D = H.shape[2]
    sides = tuple(
        tuple(Side.of(_rows_leading(own), site, W.dtype, 0, 1, 1)) for own, site in ((of_W, Site.W), (of_H, Site.H))
    )
    keys = np.array(at.stream.keys, np.int64)
    numbers, places = np.empty((C, 2)), np.empty((C, K, K))
    shape, scale = noise if noise is not None else (0.0, 0.0)
    finish = float(shape), float(scale), float(power), kind_of(of_W, of_H), address_of_standard_gamma()
    data = problem.X, problem.block, float(problem.squares[0]), problem.cancels
    own = _rows_leading_both(problem)
    ends = (*own, *way.W, *way.H, way.log_peaks)
    missing = None if problem.missing is None else problem.missing.plain

    def together(group: range) -> None:
        room = Room.of(N, D, K, problem.block, W.dtype)
        wide = None if missing is None else tuple(RoomForGrams.of(N, D, K, W.dtype))
        rooms = tuple(room), room_for_moves(K), np.empty(max(N, D))
        chains = W, H, sigma2, keys, at.step
        priors = sides, of_W, of_H
        some = data, chains, priors, finish, way.free, ends, numbers, places, rooms
        _sweep_particles((group.start, group.stop), sweeps, missing, wide, *some)

    groups = lots(C)
    ordered_map(together, groups, 4.0 * N * D * K * sweeps * len(groups[0]))
    after = {"W": torch.from_numpy(W).mT, "H": torch.from_numpy(H), "sigma2": torch.from_numpy(sigma2)}
    columns = torch.from_numpy(numbers)
    return After(after, columns[:, MISFIT], columns[:, PRIOR], torch.from_numpy(places))


def order_uniforms(at: Address, K: int) -> np.ndarray:
    """Uniforms (C, K) by which particles draw an order: those of `Stream.uniforms` at the site SWAP."""
    keys = np.array(at.stream.keys, np.int64)
    out = np.empty((len(keys), K + K % 2))
    _uniforms(keys, at.step, out)
    return out[:, :K]


def _rows_leading(natural: Natural) -> Natural:
    a, b = (np.ascontiguousarray(values.T) for values in natural)
    return a, b


def _rows_leading_both(problem: Problem) -> tuple[np.ndarray, ...]:
    """The own priors' parameters, a component a row, (1 | K, 1 | R)."""
    return tuple(np.ascontiguousarray(values.T) for values in (*problem.natural_W, *problem.natural_H))


@njit(**INNER)
def _log_prior(F, a, b):  # type: ignore[no-untyped-def]
    """Σ b F - a F² / 2 over a factor F (K, R); a, b (1 | K, 1 | R)."""
    total = 0.0
    for k in range(len(F)):
        own_a = a[k if len(a) > 1 else 0]
        own_b = b[k if len(b) > 1 else 0]
        total += own_b[0] * total_of(F[k]) if len(own_b) == 1 else inner(own_b, F[k])
        total -= 0.5 * (own_a[0] * inner(F[k], F[k]) if len(own_a) == 1 else inner_of_three(own_a, F[k], F[k]))
    return total


@njit(**INNER)
def _add_places(F, a, b, squares, places):  # type: ignore[no-untyped-def]
    """places[k, l] += Σ_i b_li F_ki - a_li F_ki² / 2; F, a and b (K, R), squares: room for (R,)."""
    K, R = F.shape
    own = squares[:R]
    for k in range(K):
        for i in range(R):
            own[i] = np.float64(F[k, i]) * np.float64(F[k, i])
        for l in range(K):
            places[k, l] += inner(b[l], F[k]) - 0.5 * inner(a[l], own)


@njit(**COMPILED)
def _say(factors, own, reference, log_peaks, squares, numbers, places):  # type: ignore[no-untyped-def]
    """What is asked of a particle where it stands."""
    W, H = factors
    numbers[PRIOR] = _log_prior(W, own[0], own[1]) + _log_prior(H, own[2], own[3])
    for k in range(len(W)):
        for l in range(len(W)):
            places[k, l] = log_peaks[l]
    _add_places(W, reference[0], reference[1], squares, places)
    _add_places(H, reference[2], reference[3], squares, places)


@njit(**ENTRY)
def _sweep_particles(group, sweeps, missing, wide, data, chains, priors, finish, free, ends, numbers, places, rooms):  # type: ignore[no-untyped-def]
    """Sweeps of particles group[0] to group[1], in place; records come as plain tuples, as in `cpu.sweeps.sweep_chains`."""
    X, block, squares, cancels = data
    sides, of_W, of_H = priors
    W, H, sigma2, keys, first_step = chains
    shape, scale, power, kind, gamma = finish
    room, room_for_moves, room_for_squares = rooms
    both = (Side(*sides[0]), Side(*sides[1]))
    matrix = Data(X[0], block, squares, cancels)
    for c in range(group[0], group[1]):
        factors = Factors(W[c], H[c])
        key0 = keys[c, 0]
        key1 = keys[c, 1]
        for s in range(sweeps):
            step = first_step + s
            turn = Turn(power / np.float64(sigma2[c]), key0, key1, step)
            if missing is None:  # what follows is then not compiled
                misfit = factors_swept(matrix, factors, both, turn, Room(*room))
            else:
                misfit = masked_swept(matrix, missing, factors, both, turn, RoomForGrams(*wide))
            numbers[c, MISFIT] = misfit
            if shape > 0.0:
                sigma2[c] = (scale + power * misfit / 2) / call_standard_gamma(gamma, (shape, key0, key1, step))
            move(W[c], H[c], of_W, of_H, kind, free, (key0, key1, step), room_for_moves)
        own = (ends[0], ends[1], ends[2], ends[3])
        reference = (ends[4], ends[5], ends[6], ends[7])
        _say(factors, own, reference, ends[8], room_for_squares, numbers[c], places[c])


@njit(**ENTRY)
def _uniforms(keys, step, out):  # type: ignore[no-untyped-def]
    for c in range(len(out)):
        for pair in range(out.shape[1] // 2):
            even, odd = uniform_pair(keys[c, 0], keys[c, 1], pair, FIRST_ROW, step, SITE_SWAP)
            out[c, 2 * pair] = even
            out[c, 2 * pair + 1] = odd
