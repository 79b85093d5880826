"""Whole sweeps of a complete matrix in memory, compiled in one piece for the CPU.

What a Gaussian model's `step` does block by block for any `Matrix`, with the products taken inside (Numba's `dot` calls SciPy's
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

from ppnmf.kernels.cpu import (
    Parts,
    call_move,
    call_standard_gamma,
    call_update_rows,
    room_for_moves,
    room_for_rows,
)
from ppnmf.kernels.lanes import COMPILED, INNER, inner
from ppnmf.kernels.reference import Natural
from ppnmf.protocols import Params
from ppnmf.rng import Site, Stream
from ppnmf.threads import allowed_threads, ordered_map, ordered_results

__all__ = ["Data", "Kept", "Plan", "Problem", "Room", "Side", "cancels", "copied", "factors", "sweep", "update_W"]

SITE_W, SITE_H = np.int64(Site.W), np.int64(Site.H)
BAND = 1024  # columns of H in a task
LOT = 8  # blocks of rows in a task
ALL_ROWS, A_LOT, A_BLOCK, GRAM_OF_H = 0, 1, 2, 3  # whose sums stand where in a `Room`
LOTS = 4  # of chains for each thread: enough to even out how long they take
NO_RATE = np.zeros((1, 1))


@dataclass(frozen=True, eq=False)
class Problem:
    """X and the priors, float64, as the compiled functions want them; `Problem.of` makes one."""

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


class Side(NamedTuple):
    """How the components of a factor are updated."""

    prior: tuple[np.ndarray, np.ndarray]  # precision and linear, (1 | R, 1 | K)
    first: int  # the first that is updated
    passes: int
    sample: bool  # draw, or else take the modes


class Data(NamedTuple):
    """A complete matrix."""

    X: np.ndarray  # (N, D)
    block: int  # rows in a block
    squares: float  # Σ x²
    cancels: float  # the share of them below which a misfit got by subtraction is not trusted


class Room(NamedTuple):
    """What the update of some rows of W works in, a block of n rows at a time; few arrays, since Numba lowers each one."""

    lanes: np.ndarray  # `cpu.room_for_rows`
    block: np.ndarray  # H Xᵀ and the rows of W, (2, K, n)
    last_block: np.ndarray  # the same for the last block
    R: np.ndarray  # W X of all rows, of a lot, of a block, (3, K, D)
    G: np.ndarray  # W Wᵀ of the same three, and H Hᵀ, (4, K, K)
    each_G: np.ndarray  # the same memory, (4, K, K, 1)

    @classmethod
    def of(cls, rows: int, D: int, K: int, block: int, dtype: np.dtype) -> Room:
        whole = np.empty((2, K, min(block, rows)), dtype)
        last = whole if rows % block == 0 else np.empty((2, K, rows % block), dtype)
        G = np.empty((4, K, K), dtype)
        return cls(room_for_rows(K), whole, last, np.empty((3, K, D), dtype), G, G[..., None])


class Ending(NamedTuple):
    """What follows the factors in a sweep: σ² unless the shape is 0, and moves among the components from `among` on."""

    shape: float
    scale: float
    power: float  # temperature β of the likelihood
    moves: bool
    among: int
    rates: tuple[np.ndarray, np.ndarray]  # of those components, (1 | K', 1 | N) and (1 | K', 1 | D)


class Keeping(NamedTuple):
    """Which sweeps are kept, and where."""

    first: int
    thin: int
    W: np.ndarray  # as in `Kept`
    H: np.ndarray
    sigma2: np.ndarray
    misfit: np.ndarray


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
    C, K, N = chains.moving.W.shape
    operations, threads = 4.0 * N * problem.X.shape[2] * K * sweeps, allowed_threads()
    if C == 1 and LOT * problem.block < N and threads > 1:
        for s in range(sweeps):
            chains.divided(s)
    else:
        size = max(1, C // (LOTS * threads))
        groups = [(c, min(c + size, C)) for c in range(0, C, size)]
        ordered_map(lambda group: chains.run(group, sweeps), groups, operations * size)
    W, H, sigma2 = map(torch.from_numpy, chains.moving[:3])
    return {"W": W.mT, "H": H, "sigma2": sigma2}, Kept(*map(torch.from_numpy, chains.keeping[2:]))


class Moving(NamedTuple):
    """Chains while they are swept; the arrays are written to."""

    W: np.ndarray  # (C, K, N)
    H: np.ndarray  # (C, K, D)
    sigma2: np.ndarray  # (C,)
    keys: np.ndarray  # (C, 2)


@dataclass(frozen=True, eq=False)
class _Chains:
    """The chains, and all that their sweeps need."""

    problem: Problem
    moving: Moving
    step: int
    sides: tuple[Side, Side]  # of W and of H
    ending: Ending
    keeping: Keeping
    parts: Parts

    @classmethod
    def of(cls, problem: Problem, params: Params, draw: tuple[Stream, int] | None, plan: Plan) -> _Chains:
        W, H, sigma2 = (copied(values) for values in (params["W"].mT, params["H"], params["sigma2"]))
        (C, K, N), D, n = W.shape, H.shape[2], len(plan.kept)
        stream, step = draw if draw is not None else (Stream(((0, 0),) * C), 0)
        out = np.empty((C, n, N, K), W.dtype), np.empty((C, n, K, D), W.dtype), np.empty((C, n), W.dtype)
        keeping = Keeping(plan.kept.start, plan.kept.step, *out, np.empty((C, n)))
        sample, first, passes = draw is not None, plan.first, plan.passes
        side_W = Side(problem.natural_W, first[0], passes[0], sample)
        side_H = Side(problem.natural_H, first[1], passes[1], sample)
        moving = Moving(W, H, sigma2, np.array(stream.keys, np.int64))
        parts = Parts.of(W.dtype, plan.moves, plan.noise is not None)
        return cls(problem, moving, step, (side_W, side_H), _ending(problem, plan), keeping, parts)

    def run(self, group: tuple[int, int], sweeps: int) -> None:
        """All sweeps of a group of chains, on this thread."""
        p, (K, D) = self.problem, self.moving.H.shape[1:]
        room = Room.of(p.X.shape[1], D, K, p.block, p.X.dtype)
        data = p.X, p.block, p.squares, cancels(np.finfo(p.X.dtype).eps)
        sides = tuple(self.sides[0]), tuple(self.sides[1])
        ends = tuple(self.ending), tuple(self.keeping), tuple(self.parts)
        moving = tuple(self.moving)
        _sweep_chains(group, sweeps, data, moving, self.step, sides, *ends, tuple(room), self._room_for_moves)

    def divided(self, s: int) -> None:
        """Sweep s of the only chain, its blocks of rows on several threads; the bits are those of `run`."""
        p, W, H = self.problem, self.moving.W[0], self.moving.H[0]
        data = Data(p.X[0], p.block, float(p.squares[0]), cancels(np.finfo(p.X.dtype).eps))
        address = (*self.moving.keys[0].tolist(), self.step + s)
        weight = self.ending.power / float(self.moving.sigma2[0])
        R, G = _summed_rows(data, W, H, self.sides[0], weight, address, 0, self.parts)

        def columns(lo: int) -> None:
            rows = (lo, min(lo + BAND, H.shape[1]))
            _columns_alone(H, R, G[..., None], self.sides[1], weight, address, rows, room_for_rows(len(H)), self.parts)

        ordered_map(columns, range(0, H.shape[1], BAND), 100.0 * min(H.shape[1], BAND) * len(H))
        misfit = _left_alone(data, W, H, R, G, np.empty_like(R))
        _finish_alone(s, misfit, self.moving, self.step, self.ending, self.keeping, self.parts, self._room_for_moves)

    @property
    def _room_for_moves(self) -> tuple:
        return room_for_moves(self.moving.H.shape[1] - self.ending.among if self.ending.moves else 0)


def _ending(problem: Problem, plan: Plan) -> Ending:
    shape, scale = plan.noise or (0.0, 0.0)
    among = max(plan.first)
    rates = problem.rates if plan.moves and problem.rates is not None else (NO_RATE, NO_RATE)
    if among > 0:
        of_W, of_H = rates
        rates = of_W[among if len(of_W) > 1 else 0 :], of_H[among if len(of_H) > 1 else 0 :]
    return Ending(float(shape), float(scale), float(plan.power), plan.moves, among, rates)


def update_W(
    X: np.ndarray,
    block: int,
    W: np.ndarray,
    H: np.ndarray,
    side: Side,
    weight: float,
    key: tuple[int, int],
    step: int,
    first_row: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Update W (K, n) in place, lots of blocks of its rows on several threads; what X and W then tell about H.

    Args:
        X: (n, D).
        weight: β / σ².
        first_row: the number of W's first row in the whole factor.

    Returns: W X (K, D) and W Wᵀ (K, K), added up over the lots in their order.
    """
    parts = Parts.of(X.dtype, moves=False, noise=False)
    return _summed_rows(Data(X, block, 0.0, 0.0), W, H, side, weight, (*key, step), first_row, parts)


def _summed_rows(
    data: Data,
    W: np.ndarray,
    H: np.ndarray,
    side: Side,
    weight: float,
    address: tuple[int, int, int],
    first_row: int,
    parts: Parts,
) -> tuple[np.ndarray, np.ndarray]:
    """`update_W`; address: the two words of the key, and the step."""
    (N, D), K, block = data.X.shape, len(H), data.block
    Q = np.empty((K, K), W.dtype)
    _gram(H, Q)

    def rows(lo: int) -> tuple[np.ndarray, np.ndarray]:
        hi = min(lo + LOT * block, N)
        room = Room.of(hi - lo, D, K, block, W.dtype)
        _lot_alone(data, W, H, Q[..., None], side, weight, address, (lo, hi, first_row), room, parts)
        return room.R[ALL_ROWS], room.G[ALL_ROWS]

    R, G = np.zeros((K, D), W.dtype), np.zeros((K, K), W.dtype)
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
    return a.double().contiguous().numpy(), b.double().contiguous().numpy()


@njit(**COMPILED)
def _gram(H, out):  # type: ignore[no-untyped-def]
    """out = H Hᵀ."""
    np.dot(H, H.T, out)


@njit(**INNER)
def _add(total, part):  # type: ignore[no-untyped-def]
    """total += part, both matrices."""
    for k in range(len(total)):
        for j in range(total.shape[1]):
            total[k, j] += part[k, j]


@njit(**INNER)
def _lot(data, W, H, Q, side, weight, address, rows, room, into, parts):  # type: ignore[no-untyped-def]
    """Update the rows of W (K, N) from rows[0] to rows[1]; room.R[into] and room.G[into] tell then what they say about H.

    The sums of the blocks are added in their order. rows[2] is the number that W's first row has in the whole factor.
    """
    key0, key1, step = address
    for lo in range(rows[0], rows[1], data.block):
        hi = min(lo + data.block, rows[1])
        room_of_block = room.block if hi - lo == data.block else room.last_block
        P, own = room_of_block[0], room_of_block[1]
        values = data.X[lo:hi]
        np.dot(H, values.T, P)
        for _ in range(side.passes):
            each = (key0, key1, step, SITE_W, rows[2])
            arguments = (W, P, Q, side.prior, weight, each, (lo, hi, lo), side.first, side.sample, room.lanes)
            call_update_rows(parts.update_rows, arguments)
        for k in range(len(own)):
            for i in range(hi - lo):
                own[k, i] = W[k, lo + i]
        place = into if lo == rows[0] else A_BLOCK
        np.dot(own, values, room.R[place])
        _gram(own, room.G[place])
        if lo > rows[0]:
            _add(room.R[into], room.R[A_BLOCK])
            _add(room.G[into], room.G[A_BLOCK])


@njit(**INNER)
def _columns(H, R, Q, side, weight, address, rows, lanes, parts):  # type: ignore[no-untyped-def]
    """Update columns rows[0] to rows[1] of H (K, D), by R (K, D) and Q (K, K, 1)."""
    key0, key1, step = address
    for _ in range(side.passes):
        each = (key0, key1, step, SITE_H, 0)
        arguments = (H, R, Q, side.prior, weight, each, (rows[0], rows[1], 0), side.first, side.sample, lanes)
        call_update_rows(parts.update_rows, arguments)


@njit(**INNER)
def _left(data, W, H, R, G, GH):  # type: ignore[no-untyped-def]
    """The residual sum of squares, off the products unless so little is left that the subtraction would cancel.

    GH: room for (K, D).
    """
    np.dot(G, H, GH)
    left = data.squares
    for k in range(len(H)):
        left += inner(GH[k], H[k]) - 2 * inner(R[k], H[k])
    if left > data.cancels * data.squares:
        return left
    left = 0.0
    for lo in range(0, len(data.X), data.block):
        values = data.X[lo : lo + data.block]
        own = np.empty((len(values), len(W)), W.dtype)
        for i in range(len(own)):
            for k in range(len(W)):
                own[i, k] = W[k, lo + i]
        fitted = np.empty(values.shape, W.dtype)
        np.dot(own, H, fitted)
        for i in range(values.shape[0]):
            for j in range(values.shape[1]):
                residual = np.float64(values[i, j]) - np.float64(fitted[i, j])
                left += residual * residual
    return left


@njit(**INNER)
def factors(data, W, H, sides, weight, address, room, parts):  # type: ignore[no-untyped-def]
    """One chain's W (K, N) and H (K, D), in place; gives the misfit.

    Args:
        data: `Data`. sides: of W and of H. room: `Room` for all rows.
        weight: β / σ².
        address: the two words of the key, and the step.
    """
    N, size = len(data.X), LOT * data.block
    _gram(H, room.G[GRAM_OF_H])
    Q = room.each_G[GRAM_OF_H]
    for lo in range(0, N, size):
        rows = (lo, min(lo + size, N), 0)
        _lot(data, W, H, Q, sides[0], weight, address, rows, room, ALL_ROWS if lo == 0 else A_LOT, parts)
        if lo > 0:
            _add(room.R[ALL_ROWS], room.R[A_LOT])
            _add(room.G[ALL_ROWS], room.G[A_LOT])
    R = room.R[ALL_ROWS]
    _columns(H, R, room.each_G[ALL_ROWS], sides[1], weight, address, (0, H.shape[1]), room.lanes, parts)
    return _left(data, W, H, R, room.G[ALL_ROWS], room.R[A_BLOCK])


@njit(**INNER)
def _finish(c, s, misfit, moving, step, ending, keeping, parts, room):  # type: ignore[no-untyped-def]
    """After chain c's factors in sweep s: σ², moves, and the draw where it is kept. room: `cpu.room_for_moves`."""
    W, H = moving.W[c], moving.H[c]
    key0, key1, now = moving.keys[c, 0], moving.keys[c, 1], step + s
    if ending.shape > 0:
        gamma = call_standard_gamma(parts.standard_gamma, (ending.shape, key0, key1, now))
        moving.sigma2[c] = (ending.scale + ending.power * misfit / 2) / gamma
    if ending.moves:
        free_W, free_H = W[ending.among :], H[ending.among :]
        call_move(parts.move, (free_W, free_H, ending.rates, (key0, key1, now), True, True, room))
    n = (s - keeping.first) // keeping.thin
    if s >= keeping.first and (s - keeping.first) % keeping.thin == 0 and n < keeping.misfit.shape[1]:
        keeping.sigma2[c, n] = moving.sigma2[c]
        keeping.misfit[c, n] = misfit
        for k in range(len(H)):
            for j in range(H.shape[1]):
                keeping.H[c, n, k, j] = H[k, j]
            for i in range(W.shape[1]):
                keeping.W[c, n, i, k] = W[k, i]


@njit(**COMPILED)
def _sweep_chains(group, sweeps, data, moving, step, sides, ending, keeping, parts, room, room_for_moves):  # type: ignore[no-untyped-def]
    """Sweeps of chains group[0] to group[1], in place; data: X (1 | C, N, D), block, squares (1 | C,) and cancels.

    The records come as plain tuples, which Numba takes from Python far faster: a call is some hundred microseconds.
    """
    X, block, squares, cancels = data
    now, end, keep, own_parts, own_room = (
        Moving(*moving),
        Ending(*ending),
        Keeping(*keeping),
        Parts(*parts),
        Room(*room),
    )
    both = Side(*sides[0]), Side(*sides[1])
    for c in range(group[0], group[1]):
        own = Data(X[c if len(X) > 1 else 0], block, squares[c if len(squares) > 1 else 0], cancels)
        for s in range(sweeps):
            weight = end.power / np.float64(now.sigma2[c])
            address = (now.keys[c, 0], now.keys[c, 1], step + s)
            misfit = factors(own, now.W[c], now.H[c], both, weight, address, own_room, own_parts)
            _finish(c, s, misfit, now, step, end, keep, own_parts, room_for_moves)


# What threads call when they share a sweep of one chain


@njit(**COMPILED)
def _lot_alone(data, W, H, Q, side, weight, address, rows, room, parts):  # type: ignore[no-untyped-def]
    _lot(data, W, H, Q, side, weight, address, rows, room, ALL_ROWS, parts)


@njit(**COMPILED)
def _columns_alone(H, R, Q, side, weight, address, rows, lanes, parts):  # type: ignore[no-untyped-def]
    _columns(H, R, Q, side, weight, address, rows, lanes, parts)


@njit(**COMPILED)
def _left_alone(data, W, H, R, G, GH):  # type: ignore[no-untyped-def]
    return _left(data, W, H, R, G, GH)


@njit(**COMPILED)
def _finish_alone(s, misfit, moving, step, ending, keeping, parts, room):  # type: ignore[no-untyped-def]
    _finish(0, s, misfit, moving, step, ending, keeping, parts, room)
