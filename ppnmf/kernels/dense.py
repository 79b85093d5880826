"""Whole sweeps of a complete matrix in memory, compiled in one piece for the CPU.

What `inference.sweep` does block by block for any `Matrix`, with the products taken inside (Numba's `dot` calls SciPy's
BLAS), so that a sweep of a small matrix costs no call from Python and many chains run on as many threads. Blocks are
those of `Matrix.blocks`, eight of them a lot; they are added up in order, so the bits do not depend on how the work is divided.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ppnmf.kernels.cpu import move_scales, move_shears, standard_gamma, update_rows
from ppnmf.kernels.lanes import COMPILED, inner
from ppnmf.kernels.reference import Natural, shear_rounds
from ppnmf.protocols import Params
from ppnmf.rng import Site, Stream
from ppnmf.threads import allowed_threads, ordered_map, ordered_results

__all__ = ["Kept", "Plan", "Problem", "cancels", "copied", "factors", "sums_like", "sweep", "update_W"]

SITE_W, SITE_H = int(Site.W), int(Site.H)
BAND = 1024  # columns of H in a task
LOT = 8  # blocks of rows in a task
LOTS = 4  # of chains for each thread: enough to even out how long they take
NO_RATE = np.zeros((1, 1))


@dataclass(frozen=True, eq=False)
class Problem:
    """X and the priors as the compiled functions want them; `Problem.of` makes one."""

    X: np.ndarray  # (1 | C, N, D), one for all chains or one each
    block: int  # rows in a block
    squares: np.ndarray  # Σ x², (1 | C,)
    natural_W: tuple[np.ndarray, np.ndarray]  # of the priors, (1 | N, 1 | K)
    natural_H: tuple[np.ndarray, np.ndarray]  # (1 | D, 1 | K)
    rates: tuple[np.ndarray, np.ndarray] | None  # of exponential priors, (1 | K, 1 | N) and (1 | K, 1 | D)

    @classmethod
    def of(
        cls, X: Tensor, block: int, squares: float | Tensor, W: Natural, H: Natural, rates: Natural | None = None
    ) -> Problem:
        """From the priors' natural parameters and rates, broadcastable to (N, K) and (K, D)."""
        return cls(
            X.contiguous().numpy(),
            block,
            np.atleast_1d(np.asarray(squares, dtype=np.float64)),
            _numpy(*W),
            _numpy(H[0].mT, H[1].mT),
            None if rates is None else _numpy(rates[0].mT, rates[1]),
        )


@dataclass(frozen=True)
class Plan:
    """What happens in each sweep, and which sweeps are kept.

    Args:
        power: temperature β of the likelihood.
        first: the first component of W, and of H, that is updated.
        passes: at the mode, how often the components of W, and of H, are gone through.
        noise: shape and scale of σ²'s conditional, but for β / 2 times the misfit in the scale; None leaves σ² alone.
        moves: move along the ridge, among the components that are free in both.
        kept: of the sweeps 0, 1, 2 ...
    """

    power: float = 1.0
    first: tuple[int, int] = (0, 0)
    passes: tuple[int, int] = (1, 1)
    noise: tuple[float, float] | None = None
    moves: bool = False
    kept: range = range(1)


class Kept(NamedTuple):
    """The draws of each chain that are kept, one after another."""

    W: Tensor  # (C, n, N, K)
    H: Tensor  # (C, n, K, D)
    sigma2: Tensor  # (C, n)
    misfit: Tensor  # (C, n), float64


def sweep(
    problem: Problem, params: Params, sweeps: int, draw: tuple[Stream, int] | None, plan: Plan
) -> tuple[dict[str, Tensor], Kept]:
    """So many sweeps of every chain; `params` stay as they are.

    Args:
        params: W (C, N, K), H (C, K, D), sigma2 (C,).
        draw: the stream of the chains, and the first step; None takes the modes instead of draws.

    Returns: the parameters after the last sweep, and those that are kept.
    """
    chains = _Chains.of(problem, params, draw, plan)
    C, K, N = chains.W.shape
    operations, threads = 4.0 * N * problem.X.shape[2] * K * sweeps, allowed_threads()
    if C == 1 and LOT * problem.block < N and threads > 1:
        for s in range(sweeps):
            chains.divided(s)
    else:
        size = max(1, C // (LOTS * threads))
        groups = [(c, min(c + size, C)) for c in range(0, C, size)]
        ordered_map(lambda group: chains.run(group, sweeps), groups, operations * size)
    after = {"W": torch.from_numpy(chains.W).mT, "H": torch.from_numpy(chains.H)}
    return after | {"sigma2": torch.from_numpy(chains.sigma2)}, Kept(*map(torch.from_numpy, chains.out))


@dataclass(frozen=True, eq=False)
class _Chains:
    """The chains while they are swept."""

    problem: Problem
    plan: Plan
    keys: np.ndarray  # (C, 2)
    step: int
    sample: bool
    W: np.ndarray  # (C, K, N)
    H: np.ndarray  # (C, K, D)
    sigma2: np.ndarray  # (C,)
    out: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, problem: Problem, params: Params, draw: tuple[Stream, int] | None, plan: Plan) -> _Chains:
        W, H, sigma2 = (copied(values) for values in (params["W"].mT, params["H"], params["sigma2"]))
        (C, K, N), D, n = W.shape, H.shape[2], len(plan.kept)
        stream, step = draw if draw is not None else (Stream(((0, 0),) * C), 0)
        out = np.empty((C, n, N, K), W.dtype), np.empty((C, n, K, D), W.dtype), np.empty((C, n), W.dtype)
        keys = np.array(stream.keys, np.int64)
        return cls(problem, plan, keys, step, draw is not None, W, H, sigma2, (*out, np.empty((C, n))))

    @property
    def _ending(self) -> tuple[tuple, tuple]:
        """What follows a sweep's factors, and which sweeps are kept."""
        plan, rates = self.plan, self.problem.rates
        noise = (*map(float, plan.noise or (0.0, 0.0)), float(plan.power))
        among = max(plan.first)
        rounds = shear_rounds(self.W.shape[1] - among) if plan.moves else -1
        return (rates or (NO_RATE, NO_RATE), among, rounds, noise), (plan.kept.start, plan.kept.step, self.out)

    @property
    def _how(self) -> tuple[tuple, tuple]:
        """How W's components are updated, and H's."""
        plan = self.plan
        each = zip((self.problem.natural_W, self.problem.natural_H), plan.first, plan.passes, strict=True)
        of_W, of_H = ((*natural, first, passes, self.sample) for natural, first, passes in each)
        return of_W, of_H

    def run(self, group: tuple[int, int], sweeps: int) -> None:
        """All sweeps of a group of chains, on this thread."""
        p = self.problem
        data = p.X, p.block, p.squares, cancels(np.finfo(p.X.dtype).eps)
        _chains(group, sweeps, data, self.W, self.H, self.sigma2, self.keys, self.step, self._how, *self._ending)

    def divided(self, s: int) -> None:
        """Sweep s of the only chain, its blocks of rows on several threads; the bits are those of `run`."""
        p, X, W, H, (of_W, of_H) = self.problem, self.problem.X[0], self.W[0], self.H[0], self._how
        D, key, step = X.shape[1], (self.keys[0, 0], self.keys[0, 1]), self.step + s
        weight = self.plan.power / float(self.sigma2[0])

        def columns(lo: int) -> None:
            _columns(H, R, G, of_H, weight, key, step, lo, min(lo + BAND, D))

        R, G = update_W(X, p.block, W, H, of_W, weight, key, step)
        ordered_map(columns, range(0, D, BAND), 100.0 * min(D, BAND) * len(H))
        misfit = _left(X, W, H, R, G, p.squares[0], p.block, cancels(np.finfo(X.dtype).eps))
        ending, keeping = self._ending
        _finish(0, self.W, self.H, self.sigma2, misfit, key, step, s, ending, keeping)


def update_W(
    X: np.ndarray,
    block: int,
    W: np.ndarray,
    H: np.ndarray,
    how: tuple,
    weight: float,
    key: tuple[int, int],
    step: int,
    first_row: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Update W (K, N) in place, lots of blocks of its rows on several threads; what X and W then tell about H.

    Args:
        how: precision and linear of W's prior, the first component, the passes, whether to draw.
        weight: β / σ².
        first_row: the number of W's first row in the whole factor.

    Returns: X W (K, D) and W Wᵀ (K, K), added up over the lots in their order.
    """
    (N, D), K, Q = X.shape, len(H), _gram(H)

    def rows(lo: int) -> tuple[np.ndarray, np.ndarray]:
        return _rows(X, block, W, H, Q, how, weight, key, step, (lo, min(lo + LOT * block, N), first_row))

    R, G = np.zeros((K, D), X.dtype), np.zeros((K, K), X.dtype)
    for R_lot, G_lot in ordered_results(rows, range(0, N, LOT * block), 4.0 * min(LOT * block, N) * D * K):
        R += R_lot
        G += G_lot
    return R, G


def cancels(eps: float) -> float:
    """The share of Σ x² below which a misfit got by subtraction is not trusted."""
    return 100 * float(eps) ** 0.5


def copied(values: Tensor) -> np.ndarray:
    return values.clone(memory_format=torch.contiguous_format).numpy()


def _numpy(a: Tensor, b: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return a.contiguous().numpy(), b.contiguous().numpy()


@njit(**COMPILED)
def _gram(H):  # type: ignore[no-untyped-def]
    return np.dot(H, H.T).reshape(len(H), len(H), 1)


@njit(**COMPILED)
def _block(X, W, H, Q, how, weight, key, step, rows, room, R, G):  # type: ignore[no-untyped-def]
    """Update the rows of W (K, N) from rows[0] to rows[1]; R (K, D) = W X and G (K, K) = W Wᵀ over them.

    room: two arrays for K numbers a row. rows[2] is the number that W's first row has in the whole factor.
    """
    K, lo, hi = len(H), rows[0], rows[1]
    precision, linear, first, passes, sample = how
    P, own = room[0][: K * (hi - lo)].reshape(K, hi - lo), room[1][: K * (hi - lo)].reshape(K, hi - lo)
    values = X[lo:hi]
    np.dot(H, values.T, P)
    for _ in range(passes):
        update_rows(
            W, P, Q, precision, linear, weight, key[0], key[1], step, SITE_W, rows[2], first, sample, lo, hi, lo
        )
    for k in range(K):
        for i in range(hi - lo):
            own[k, i] = W[k, lo + i]
    np.dot(own, values, R)
    np.dot(own, own.T, G)


@njit(**COMPILED)
def _lot(X, block, W, H, Q, how, weight, key, step, rows, room, R, G, R_block, G_block):  # type: ignore[no-untyped-def]
    """`_block` for a lot of blocks, whose sums are added in their order."""
    for lo in range(rows[0], rows[1], block):
        own = (lo, min(lo + block, rows[1]), rows[2])
        if lo == rows[0]:
            _block(X, W, H, Q, how, weight, key, step, own, room, R, G)
        else:
            _block(X, W, H, Q, how, weight, key, step, own, room, R_block, G_block)
            R += R_block
            G += G_block


@njit(**COMPILED)
def sums_like(X, K):  # type: ignore[no-untyped-def]
    """Room for R (K, D) and G (K, K): of all, of a lot, and of a block."""
    D = X.shape[1]
    return (np.empty((K, D), X.dtype), np.empty((K, K), X.dtype), np.empty((K, D), X.dtype),
            np.empty((K, K), X.dtype), np.empty((K, D), X.dtype), np.empty((K, K), X.dtype))  # fmt: skip


@njit(**COMPILED)
def _rows(X, block, W, H, Q, how, weight, key, step, rows):  # type: ignore[no-untyped-def]
    """`_lot` with room of its own, for a thread: R and G."""
    K, size = len(H), len(H) * min(block, rows[1] - rows[0])
    room = (np.empty(size, X.dtype), np.empty(size, X.dtype))
    R, G, R_block, G_block = sums_like(X, K)[:4]
    _lot(X, block, W, H, Q, how, weight, key, step, rows, room, R, G, R_block, G_block)
    return R, G


@njit(**COMPILED)
def _columns(H, R, G, how, weight, key, step, lo, hi):  # type: ignore[no-untyped-def]
    """Update columns lo to hi of H (K, D)."""
    precision, linear, first, passes, sample = how
    Q = G.reshape(len(G), len(G), 1)
    for _ in range(passes):
        update_rows(H, R, Q, precision, linear, weight, key[0], key[1], step, SITE_H, 0, first, sample, lo, hi, 0)


@njit(**COMPILED)
def _left(X, W, H, R, G, squares, block, cancels):  # type: ignore[no-untyped-def]
    """The residual sum of squares, off the products unless so little is left that the subtraction would cancel."""
    GH = np.dot(G, H)
    left = squares
    for k in range(H.shape[0]):
        left += inner(GH[k], H[k]) - 2 * inner(R[k], H[k])
    if left > cancels * squares:
        return left
    left = 0.0
    for lo in range(0, X.shape[0], block):
        values = X[lo : lo + block]
        fitted = np.dot(np.ascontiguousarray(W[:, lo : lo + block].T), H)
        for i in range(values.shape[0]):
            for j in range(values.shape[1]):
                residual = np.float64(values[i, j]) - np.float64(fitted[i, j])
                left += residual * residual
    return left


@njit(**COMPILED)
def factors(X, block, squares, cancels, W, H, weight, key, step, how, room, sums):  # type: ignore[no-untyped-def]
    """One chain's W (K, N) and H (K, D), in place; gives the misfit. sums: `sums_like`."""
    Q = _gram(H)
    R, G, R_lot, G_lot, R_block, G_block = sums
    for lo in range(0, X.shape[0], LOT * block):
        rows = (lo, min(lo + LOT * block, X.shape[0]), 0)
        if lo == 0:
            _lot(X, block, W, H, Q, how[0], weight, key, step, rows, room, R, G, R_block, G_block)
        else:
            _lot(X, block, W, H, Q, how[0], weight, key, step, rows, room, R_lot, G_lot, R_block, G_block)
            R += R_lot
            G += G_lot
    _columns(H, R, G, how[1], weight, key, step, 0, H.shape[1])
    return _left(X, W, H, R, G, squares, block, cancels)


@njit(**COMPILED)
def _finish(c, W, H, sigma2, misfit, key, step, s, ending, keeping):  # type: ignore[no-untyped-def]
    """After chain c's factors: σ² unless its shape is 0, moves unless rounds < 0, and the draw where it is kept.

    The moves go among the components from `among` on.
    """
    (rate_W, rate_H), among, rounds, (shape, scale, power) = ending
    if shape > 0:
        sigma2[c] = (scale + power * misfit / 2) / standard_gamma(shape, key[0], key[1], step)
    if rounds >= 0:
        rate_W, rate_H = rate_W[among if len(rate_W) > 1 else 0 :], rate_H[among if len(rate_H) > 1 else 0 :]
        move_scales(W[c, among:], H[c, among:], rate_W, rate_H, key[0], key[1], step)
        move_shears(W[c, among:], H[c, among:], rate_W, rate_H, key[0], key[1], step, rounds)
    first, thin, (out_W, out_H, out_sigma2, out_misfit) = keeping
    kept = (s - first) // thin
    if s >= first and (s - first) % thin == 0 and kept < out_misfit.shape[1]:
        out_sigma2[c, kept], out_misfit[c, kept] = sigma2[c], misfit
        for k in range(H.shape[1]):
            for j in range(H.shape[2]):
                out_H[c, kept, k, j] = H[c, k, j]
            for i in range(W.shape[2]):
                out_W[c, kept, i, k] = W[c, k, i]


@njit(**COMPILED)
def _chains(group, sweeps, data, W, H, sigma2, keys, step, how, ending, keeping):  # type: ignore[no-untyped-def]
    """Sweeps of chains group[0] to group[1], in place: W (C, K, N), H (C, K, D), sigma2 (C,)."""
    X, block, squares, cancels = data
    K, size = H.shape[1], H.shape[1] * min(block, W.shape[2])
    room = (np.empty(size, X.dtype), np.empty(size, X.dtype))
    sums = sums_like(X[0], K)
    for c in range(group[0], group[1]):
        values, whole = X[c if len(X) > 1 else 0], squares[c if len(squares) > 1 else 0]
        key = (keys[c, 0], keys[c, 1])
        for s in range(sweeps):
            weight = ending[3][2] / np.float64(sigma2[c])
            misfit = factors(values, block, whole, cancels, W[c], H[c], weight, key, step + s, how, room, sums)
            _finish(c, W, H, sigma2, misfit, key, step + s, s, ending, keeping)
