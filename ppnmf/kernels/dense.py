"""Whole sweeps of a matrix in memory, compiled in one piece for the CPU.

What a Gaussian model's `step` does block by block for any `Matrix`, with the products taken inside (`cpu.sweeps`), so
that a sweep of a small matrix costs no call from Python and many chains run on as many threads. Blocks are those of
`Matrix.blocks`, eight of them a lot; they are added up in order, so the bits do not depend on how the work is divided.
Where entries are missing a sweep is not divided (`kernels.masked`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppnmf.kernels.cpu.collapsed import Collapsed
from ppnmf.kernels.cpu.multiplied import address_of_multiply_rows
from ppnmf.kernels.cpu.ridge import room_for_moves
from ppnmf.kernels.cpu.room import ALL_ROWS, GRAM_OF_H, LOT, Room
from ppnmf.kernels.cpu.rows import room_for_rows
from ppnmf.kernels.cpu.sweeps import (
    Chains,
    Data,
    Factors,
    Finish,
    Rows,
    Shelf,
    Side,
    Turn,
    collapsed_H,
    collapsed_W,
    finished,
    gram,
    left_over,
    lot_updated,
    lots_updated,
    sweep_chains,
    updated,
)
from ppnmf.kernels.masked import Missing, RoomForGrams, sweep_masked_chains
from ppnmf.kernels.reference import Natural
from ppnmf.protocols import Params
from ppnmf.rng import Site, Stream
from ppnmf.threads import allowed_threads, lots, ordered_map, ordered_results

__all__ = ["Kept", "Plan", "Problem", "cancels", "copied", "sweep", "update_W"]

BAND = 1024  # columns of H in a task


@dataclass(frozen=True, eq=False)
class Problem:
    """X and the priors, float64, as the compiled functions want them; `Problem.of` makes one."""

    X: np.ndarray  # (1 | C, N, D), one for all chains or one each
    block: int  # rows in a block
    squares: np.ndarray  # Σ x², (1 | C,)
    natural_W: tuple[np.ndarray, np.ndarray]  # of the priors, (1 | N, 1 | K)
    natural_H: tuple[np.ndarray, np.ndarray]  # (1 | D, 1 | K)
    rates: tuple[np.ndarray, np.ndarray] | None  # of exponential priors, (1 | K, 1 | N) and (1 | K, 1 | D)
    missing: Missing | None  # entries of X, which is zero there

    @classmethod
    def of(
        cls,
        X: Tensor,
        block: int,
        squares: float | Tensor,
        W: Natural,
        H: Natural,
        rates: Natural | None = None,
        missing: Missing | None = None,
    ) -> Problem:
        """From X and the priors.

        Args:
            X: (N, D), or one for each chain (C, N, D).
            block: rows in a block, as `Matrix.blocks` has them.
            squares: Σ x², of each X where there are several.
            W, H: precision and linear of the priors, broadcastable to (N, K) and to (K, D).
            rates: of exponential priors, for the moves; likewise.
            missing: entries of every X.
        """
        return cls(
            X.contiguous().numpy(),
            block,
            np.atleast_1d(np.asarray(squares, dtype=np.float64)),
            (_doubles(W[0]), _doubles(W[1])),
            (_doubles(H[0].mT), _doubles(H[1].mT)),
            None if rates is None else (_doubles(rates[0].mT), _doubles(rates[1])),
            missing,
        )

    @property
    def cancels(self) -> float:
        """`Data.cancels`."""
        return cancels(np.finfo(self.X.dtype).eps)

    @property
    def only(self) -> Data:
        """The one X of all chains."""
        return Data(self.X[0], self.block, float(self.squares[0]), self.cancels)


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
        collapsed: the sites whose shears with a row integrated out are made too.
        multiplied: multiply the factors by the rule of Lee and Seung, instead of going through their components.
        fresh: draw in the steps that this divides, and reflect the conditionals in the others.
    """

    power: float = 1.0
    first: tuple[int, int] = (0, 0)
    passes: tuple[int, int] = (1, 1)
    noise: tuple[float, float] | None = None
    moves: bool = False
    kept: range = range(1)
    collapsed: tuple[str, ...] = ()
    multiplied: bool = False
    fresh: int = 1


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
    run = _Run.of(problem, params, draw, plan)
    C, K, N = run.chains.W.shape
    if C == 1 and LOT * problem.block < N and allowed_threads() > 1 and problem.missing is None:
        for s in range(sweeps):
            run.divided(s)
    else:
        groups = lots(C)
        operations = 4.0 * N * problem.X.shape[2] * K * sweeps * len(groups[0])
        ordered_map(lambda group: run.together(group, sweeps), groups, operations)
    W, H, sigma2 = map(torch.from_numpy, run.chains[:3])
    return {"W": W.mT, "H": H, "sigma2": sigma2}, Kept(*map(torch.from_numpy, run.shelf[2:]))


@dataclass(frozen=True, eq=False)
class _Run:
    """The chains, and all that their sweeps need: `together` and `divided` are two ways that give the same bits."""

    problem: Problem
    chains: Chains
    sides: tuple[Side, Side]  # of W and of H
    finish: Finish
    shelf: Shelf
    sites: tuple[str, ...]  # of the shears with a row integrated out

    @classmethod
    def of(cls, problem: Problem, params: Params, draw: tuple[Stream, int] | None, plan: Plan) -> _Run:
        W = copied(params["W"].mT)
        H = copied(params["H"])
        sigma2 = copied(params["sigma2"])
        sample = plan.fresh if draw is not None else 0
        stream, step = draw if draw is not None else (Stream(((0, 0),) * len(W)), 0)
        chains = Chains(W, H, sigma2, np.array(stream.keys, np.int64), step)
        passes = [
            0 if site in plan.collapsed else own for site, own in zip(("W", "H"), plan.passes, strict=True)
        ]  # the shears draw these rows
        side_W = Side.of(problem.natural_W, Site.W, W.dtype, plan.first[0], passes[0], sample)
        side_H = Side.of(problem.natural_H, Site.H, W.dtype, plan.first[1], passes[1], sample)
        if plan.multiplied:
            by_rule = address_of_multiply_rows(W.dtype)
            side_W = side_W._replace(update_rows=by_rule)
            side_H = side_H._replace(update_rows=by_rule)
        rates = problem.rates if plan.moves else None
        finish = Finish.of(plan.noise, plan.power, rates, max(plan.first), W.dtype)
        return cls(problem, chains, (side_W, side_H), finish, _empty_shelf(chains, plan.kept), plan.collapsed)

    def together(self, group: range, sweeps: int) -> None:
        """All sweeps of a group of chains, on this thread."""
        own = group.start, group.stop
        p = self.problem
        N = p.X.shape[1]
        K, D = self.chains.H.shape[1:]
        data = (p.X, p.block, p.squares, p.cancels)
        sides = (tuple(self.sides[0]), tuple(self.sides[1]))
        ends = (tuple(self.finish), tuple(self.shelf))
        if p.missing is not None:
            grams = tuple(RoomForGrams.of(N, D, K, p.X.dtype))
            some = data, p.missing.plain, tuple(self.chains), sides
            sweep_masked_chains(own, sweeps, *some, *ends, grams, self._room_for_moves)
            return
        room = tuple(Room.of(N, D, K, p.block, p.X.dtype))
        moves = (self._room_for_moves, tuple(self._collapsed))
        sweep_chains(own, sweeps, data, tuple(self.chains), sides, *ends, room, *moves)

    def divided(self, s: int) -> None:
        """Sweep s of the only chain, its blocks of rows on several threads; the bits are those of `together`."""
        data = self.problem.only
        factors = Factors(self.chains.W[0], self.chains.H[0])
        H = factors.H
        weight = self.finish.power / float(self.chains.sigma2[0])
        key0, key1 = self.chains.keys[0].tolist()
        turn = Turn(weight, key0, key1, self.chains.step + s)
        shears = self._collapsed
        if shears.of_W:
            collapsed_W(data, factors, turn, shears, self._room)
        R, G = update_W(data, factors, self.sides[0], turn, 0)

        def columns(lo: int) -> None:
            rows = Rows(lo, min(lo + BAND, H.shape[1]), 0, 0)
            updated(H, R, G[..., None], self.sides[1], turn, rows, room_for_rows(len(H)))

        ordered_map(columns, range(0, H.shape[1], BAND), 100.0 * min(H.shape[1], BAND) * len(H))
        if shears.of_H:
            room = self._room
            room.R[0] = R
            room.G[0] = G
            misfit = collapsed_H(data, factors, turn, shears, room)
        else:
            misfit = left_over(data, factors, R, G, np.empty_like(R))
        finished(s, misfit, self.chains, self.finish, self.shelf, self._room_for_moves)

    @property
    def _collapsed(self) -> Collapsed:
        K, N = self.chains.W.shape[1:]
        shape = (K, N, self.chains.H.shape[2])
        return Collapsed.of(self.sites, self.problem.natural_W, self.problem.natural_H, shape, self.chains.W.dtype)

    @property
    def _room(self) -> Room:
        """For sums of all rows alone."""
        K, D = self.chains.H.shape[1:]
        return Room.of(1, D, K, 1, self.problem.X.dtype)

    @property
    def _room_for_moves(self) -> tuple:
        return room_for_moves(self.chains.H.shape[1] - self.finish.first_free if self.finish.moves else 0)


def _empty_shelf(chains: Chains, kept: range) -> Shelf:
    """Room for the sweeps that are kept."""
    C, K, N = chains.W.shape
    n = len(kept)
    W = np.empty((C, n, N, K), chains.W.dtype)
    H = np.empty((C, n, K, chains.H.shape[2]), chains.W.dtype)
    return Shelf(kept.start, kept.step, W, H, np.empty((C, n), chains.W.dtype), np.empty((C, n)))


def update_W(data: Data, factors: Factors, side: Side, turn: Turn, first_row: int) -> tuple[np.ndarray, np.ndarray]:
    """Update W (K, n) in place, lots of blocks of its rows on several threads; what X and W then tell about H.

    Args:
        data: X (n, D).
        first_row: the number of W's first row in the whole factor.

    Returns: W X (K, D) and W Wᵀ (K, K), added up over the lots in their order.
    """
    N, D = data.X.shape
    K = len(factors.H)
    dtype = factors.W.dtype
    size = LOT * data.block
    Q = np.empty((K, K), dtype)
    gram(factors.H, Q)
    if allowed_threads() == 1:
        room = Room.of(N, D, K, data.block, dtype)
        room.G[GRAM_OF_H] = Q
        lots_updated(data, factors, side, turn, first_row, room)
        return room.R[ALL_ROWS], room.G[ALL_ROWS]

    def sums(lo: int) -> tuple[np.ndarray, np.ndarray]:
        rows = Rows(lo, min(lo + size, N), 0, first_row)
        room = Room.of(rows.hi - lo, D, K, data.block, dtype)
        room.G[GRAM_OF_H] = Q
        lot_updated(data, factors, side, turn, rows, room)
        return room.R[0], room.G[0]

    R = np.zeros((K, D), dtype)
    G = np.zeros((K, K), dtype)
    for R_lot, G_lot in ordered_results(sums, range(0, N, size), 4.0 * min(size, N) * D * K):
        R += R_lot
        G += G_lot
    return R, G


def cancels(eps: float) -> float:
    """The share of Σ x² below which a misfit got by subtraction is not trusted."""
    return 100 * float(eps) ** 0.5


def copied(values: Tensor) -> np.ndarray:
    """A contiguous copy."""
    return values.clone(memory_format=torch.contiguous_format).numpy()


def _doubles(values: Tensor) -> np.ndarray:
    return values.double().contiguous().numpy()
