"""Sweeps of a complete matrix, compiled: the factors by blocks and lots of rows, σ², the moves, and what is kept.
Numba's `dot` calls SciPy's BLAS. `kernels.dense` and `kernels.ascent` call what stands here.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
from numba import njit

from ppnmf.kernels.cpu.collapsed import Collapsed, call_shears
from ppnmf.kernels.cpu.positive import address_of_standard_gamma, call_standard_gamma
from ppnmf.kernels.cpu.ridge import address_of_move, call_move
from ppnmf.kernels.cpu.room import A_BLOCK, A_LOT, ALL_ROWS, GRAM_OF_H, LOT, Room
from ppnmf.kernels.cpu.rows import address_of_update_rows, call_update_rows
from ppnmf.kernels.lanes import COMPILED, ENTRY, INLINED, INNER, inner
from ppnmf.rng import Site

__all__ = [
    "Chains",
    "Data",
    "Factors",
    "Finish",
    "Rows",
    "Shelf",
    "Side",
    "Turn",
    "collapsed_H",
    "collapsed_W",
    "data_of",
    "ended",
    "factors_swept",
    "finished",
    "gram",
    "left_over",
    "lot_updated",
    "lots_updated",
    "sweep_chains",
    "turn_of",
    "updated",
]

# NumPy's numbers, or a function that takes them would be compiled once more for just these
NOT_SHIFTED: Any = np.int64(0)
ROWS_OF_W: Any = np.int64(0)  # where the addresses of shears begin
ROWS_OF_H: Any = np.int64(2**30)
FIRST_ROW: Any = np.int64(0)

Natural = tuple[np.ndarray, np.ndarray]  # precision and linear of a prior


class Data(NamedTuple):
    """A complete matrix."""

    X: np.ndarray  # (N, D)
    block: int  # rows in a block
    squares: float  # Σ x²
    cancels: float  # the share of them below which a misfit got by subtraction is not trusted


class Factors(NamedTuple):
    """The factors of a chain; the arrays are written to."""

    W: np.ndarray  # (K, N)
    H: np.ndarray  # (K, D)


class Side(NamedTuple):
    """How the components of a factor are updated."""

    prior: Natural  # (1 | R, 1 | K)
    site: int
    first: int  # the first that is updated
    passes: int
    sample: int  # as in `rows.update_rows`
    update_rows: int  # the address of the compiled function

    @classmethod
    def of(cls, prior: Natural, site: Site, dtype: np.dtype, first: int, passes: int, sample: int) -> Self:
        """For a factor of this type."""
        return cls(prior, int(site), first, passes, sample, address_of_update_rows(dtype))


class Turn(NamedTuple):
    """What one sweep of one chain has for itself."""

    weight: float  # β / σ²
    key0: int
    key1: int
    step: int


class Rows(NamedTuple):
    """Some rows of a factor."""

    lo: int
    hi: int
    shift: int  # the row with which the statistics begin
    first_row: int  # the number that the factor's first row has in the whole factor


class Chains(NamedTuple):
    """Chains while they are swept; the arrays are written to."""

    W: np.ndarray  # (C, K, N)
    H: np.ndarray  # (C, K, D)
    sigma2: np.ndarray  # (C,)
    keys: np.ndarray  # (C, 2)
    step: int  # of the first sweep


class Finish(NamedTuple):
    """What follows the factors in a sweep: σ² unless the shape is 0, and moves among the components that are free."""

    shape: float
    scale: float
    power: float  # temperature β of the likelihood
    moves: bool
    first_free: int  # component
    rates: Natural  # of the free components, (1 | K', 1 | N) and (1 | K', 1 | D)
    standard_gamma: int  # addresses of compiled functions, 0 where they are not called
    move: int

    @classmethod
    def of(
        cls,
        noise: tuple[float, float] | None,
        power: float,
        rates: Natural | None,
        first_free: int,
        dtype: np.dtype,
    ) -> Self:
        """For factors of this type; noise: `Plan.noise`. rates: of all components; None: there are no moves."""
        shape, scale = noise or (0.0, 0.0)
        free = _NO_RATES if rates is None else _of_free(rates, first_free)
        gamma = 0 if noise is None else address_of_standard_gamma()
        move = 0 if rates is None else address_of_move(dtype)
        return cls(float(shape), float(scale), float(power), rates is not None, first_free, free, gamma, move)


_NO_RATES = (np.zeros((1, 1)), np.zeros((1, 1)))


def _of_free(rates: Natural, first: int) -> Natural:
    """The rates of the components from `first` on."""
    of_W, of_H = rates
    return of_W[first if len(of_W) > 1 else 0 :], of_H[first if len(of_H) > 1 else 0 :]


class Shelf(NamedTuple):
    """Which sweeps are kept, and where: n of each of C chains."""

    first: int
    thin: int
    W: np.ndarray  # (C, n, N, K)
    H: np.ndarray  # (C, n, K, D)
    sigma2: np.ndarray  # (C, n)
    misfit: np.ndarray  # (C, n), float64


@njit(**COMPILED)
def gram(H, out):  # type: ignore[no-untyped-def]
    """out = H Hᵀ."""
    np.dot(H, H.T, out)


@njit(**INNER)
def _add(total, part):  # type: ignore[no-untyped-def]
    """total += part, both matrices."""
    for k in range(len(total)):
        for j in range(total.shape[1]):
            total[k, j] += part[k, j]


@njit(**INNER)
def _copy(F, start, out):  # type: ignore[no-untyped-def]
    """out (K, n) = rows start ... start + n of F (K, R)."""
    for k in range(len(out)):
        for i in range(out.shape[1]):
            out[k, i] = F[k, start + i]


@njit(**INNER)
def _transposed(F, start, out):  # type: ignore[no-untyped-def]
    """out (n, K) = rows start ... start + n of F (K, R)."""
    for i in range(len(out)):
        for k in range(len(F)):
            out[i, k] = F[k, start + i]


@njit(**INLINED)
def _update(F, P, Q, side, turn, rows, lanes):  # type: ignore[no-untyped-def]
    """Update some rows of F (K, R), in place, by P (K, n) and Q (K, K, 1). lanes: `rows.room_for_rows`."""
    address = (turn.key0, turn.key1, turn.step, side.site, rows.first_row)
    place = (rows.lo, rows.hi, rows.shift)
    arguments = (F, P, Q, side.prior, turn.weight, address, place, side.first, side.passes, side.sample, lanes)
    call_update_rows(side.update_rows, arguments)


@njit(**INNER)
def _lot(data, factors, side, turn, rows, room, into):  # type: ignore[no-untyped-def]
    """Update some rows of W; room.R[into] and room.G[into] say then what they tell about H.

    The sums of the blocks are added in their order. H Hᵀ stands in the room.
    """
    W, H = factors
    at_once = room.block.shape[2]
    for lo in range(rows.lo, rows.hi, at_once):
        hi = min(lo + at_once, rows.hi)
        room_of_block = room.block if hi - lo == at_once else room.last_block
        P = room_of_block[0]
        own = room_of_block[1]
        values = data.X[lo:hi]
        np.dot(H, values.T, P)
        _update(W, P, room.each_G[GRAM_OF_H], side, turn, Rows(lo, hi, lo, rows.first_row), room.lanes)
        _copy(W, lo, own)
        place = into if lo == rows.lo else A_BLOCK
        np.dot(own, values, room.R[place])
        gram(own, room.G[place])
        if lo > rows.lo:
            _add(room.R[into], room.R[A_BLOCK])
            _add(room.G[into], room.G[A_BLOCK])


@njit(**INNER)
def _lots(data, factors, side, turn, first_row, room):  # type: ignore[no-untyped-def]
    """Update all rows of W, a lot after another; the room's sums of all rows say then what they tell about H."""
    N = len(data.X)
    size = LOT * data.block
    for lo in range(0, N, size):
        rows = Rows(lo, min(lo + size, N), NOT_SHIFTED, first_row)
        _lot(data, factors, side, turn, rows, room, ALL_ROWS if lo == 0 else A_LOT)
        if lo > 0:
            _add(room.R[ALL_ROWS], room.R[A_LOT])
            _add(room.G[ALL_ROWS], room.G[A_LOT])


@njit(**INNER)
def _left_over(data, factors, R, G, GH):  # type: ignore[no-untyped-def]
    """The residual sum of squares, off the products unless so little is left that the subtraction would cancel.

    R: W X (K, D). G: W Wᵀ (K, K). GH: room for (K, D).
    """
    H = factors.H
    np.dot(G, H, GH)
    left = data.squares
    for k in range(len(H)):
        left += inner(GH[k], H[k]) - 2 * inner(R[k], H[k])
    if left > data.cancels * data.squares:
        return left
    return _sum_of_residuals(data, factors)


@njit(**INLINED)
def _sum_of_residuals(data, factors):  # type: ignore[no-untyped-def]
    """The sum of the squared residuals, each formed."""
    W, H = factors
    left = 0.0
    rows = np.empty((data.block, len(W)), W.dtype)
    residuals = np.empty((data.block, H.shape[1]), W.dtype)
    for lo in range(0, len(data.X), data.block):
        values = data.X[lo : lo + data.block]
        own = rows[: len(values)]
        residual = residuals[: len(values)]
        _transposed(W, lo, own)
        np.dot(own, H, residual)
        for i in range(values.shape[0]):
            for j in range(values.shape[1]):
                residual[i, j] -= values[i, j]
            left += inner(residual[i], residual[i])
    return left


@njit(**INLINED)
def factors_swept(data, factors, sides, turn, room):  # type: ignore[no-untyped-def]
    """One sweep of a chain's factors, in place; gives the misfit.

    Args:
        sides: of W and of H. room: `Room` for all rows.
    """
    H = factors.H
    gram(H, room.G[GRAM_OF_H])
    _lots(data, factors, sides[0], turn, FIRST_ROW, room)
    columns = Rows(NOT_SHIFTED, H.shape[1], NOT_SHIFTED, FIRST_ROW)
    _update(H, room.R[ALL_ROWS], room.each_G[ALL_ROWS], sides[1], turn, columns, room.lanes)
    return _left_over(data, factors, room.R[ALL_ROWS], room.G[ALL_ROWS], room.R[A_BLOCK])


@njit(**COMPILED)
def collapsed_W(data, factors, turn, own, room):  # type: ignore[no-untyped-def]
    """The shears with rows of W integrated out, before a sweep, in place."""
    W, H = factors
    np.dot(H, data.X.T, own.P)
    G = room.each_G[GRAM_OF_H]
    gram(H, room.G[GRAM_OF_H])
    address = (turn.key0, turn.key1, turn.step, FIRST_ROW)
    call_shears(own.shears, (H, W, own.P, G, turn.weight, own.prior_H, own.prior_W, address, own.jumps, own.room))


@njit(**COMPILED)
def collapsed_H(data, factors, turn, own, room):  # type: ignore[no-untyped-def]
    """The shears with rows of H integrated out, after a sweep whose sums are still in the room; gives the misfit."""
    W, H = factors
    R = room.R[ALL_ROWS]
    address = (turn.key0, turn.key1, turn.step, ROWS_OF_H)
    G = room.each_G[ALL_ROWS]
    call_shears(own.shears, (W, H, R, G, turn.weight, own.prior_W, own.prior_H, address, own.jumps, own.room))
    return _left_over(data, factors, R, room.G[ALL_ROWS], room.R[A_BLOCK])


@njit(**INLINED)
def ended(c, s, misfit, chains, finish, shelf, room):  # type: ignore[no-untyped-def]
    """After chain c's factors in sweep s: σ², moves, and the draw where it is kept. room: `ridge.room_for_moves`."""
    key0 = chains.keys[c, 0]
    key1 = chains.keys[c, 1]
    step = chains.step + s
    if finish.shape > 0:
        gamma = call_standard_gamma(finish.standard_gamma, (finish.shape, key0, key1, step))
        chains.sigma2[c] = (finish.scale + finish.power * misfit / 2) / gamma
    if finish.moves:
        free_W = chains.W[c][finish.first_free :]
        free_H = chains.H[c][finish.first_free :]
        call_move(finish.move, (free_W, free_H, finish.rates, (key0, key1, step), True, True, room))
    n = (s - shelf.first) // shelf.thin
    if s >= shelf.first and (s - shelf.first) % shelf.thin == 0 and n < shelf.misfit.shape[1]:
        _keep(c, n, misfit, chains, shelf)


@njit(**INLINED)
def _keep(c, n, misfit, chains, shelf):  # type: ignore[no-untyped-def]
    """Put chain c on the shelf, as its n-th draw."""
    shelf.sigma2[c, n] = chains.sigma2[c]
    shelf.misfit[c, n] = misfit
    _copy(chains.H[c], FIRST_ROW, shelf.H[c, n])
    _transposed(chains.W[c], FIRST_ROW, shelf.W[c, n])


@njit(**INLINED)
def data_of(c, data):  # type: ignore[no-untyped-def]
    """Chain c's matrix; data: X (1 | C, N, D), block, squares (1 | C,) and cancels."""
    X, block, squares, cancels = data
    return Data(X[c if len(X) > 1 else 0], block, squares[c if len(squares) > 1 else 0], cancels)


@njit(**INLINED)
def turn_of(c, s, chains, finish):  # type: ignore[no-untyped-def]
    """What sweep s of chain c has for itself."""
    weight = finish.power / np.float64(chains.sigma2[c])
    return Turn(weight, chains.keys[c, 0], chains.keys[c, 1], chains.step + s)


@njit(**ENTRY)
def sweep_chains(group, sweeps, data, chains, sides, finish, shelf, room, room_for_moves, collapsed):  # type: ignore[no-untyped-def]
    """Sweeps of chains group[0] to group[1], in place; data: as in `data_of`.

    The records come as plain tuples, which Numba takes from Python far faster: a call is some hundred microseconds.
    """
    now = Chains(*chains)
    end = Finish(*finish)
    own_shelf = Shelf(*shelf)
    own_room = Room(*room)
    shears = Collapsed(*collapsed)
    both = (Side(*sides[0]), Side(*sides[1]))
    for c in range(group[0], group[1]):
        own = data_of(c, data)
        factors = Factors(now.W[c], now.H[c])
        for s in range(sweeps):
            turn = turn_of(c, s, now, end)
            if shears.of_W:
                collapsed_W(own, factors, turn, shears, own_room)
            misfit = factors_swept(own, factors, both, turn, own_room)
            if shears.of_H:
                misfit = collapsed_H(own, factors, turn, shears, own_room)
            ended(c, s, misfit, now, end, own_shelf, room_for_moves)


# What threads call when they share a sweep of one chain


@njit(**ENTRY)
def lot_updated(data, factors, side, turn, rows, room):  # type: ignore[no-untyped-def]
    """`_lot` into the room's sums of all rows."""
    _lot(data, factors, side, turn, rows, room, ALL_ROWS)


@njit(**ENTRY)
def lots_updated(data, factors, side, turn, first_row, room):  # type: ignore[no-untyped-def]
    """`_lots`, where there is one thread."""
    _lots(data, factors, side, turn, first_row, room)


@njit(**ENTRY)
def updated(F, P, Q, side, turn, rows, lanes):  # type: ignore[no-untyped-def]
    """`_update`."""
    _update(F, P, Q, side, turn, rows, lanes)


@njit(**ENTRY)
def left_over(data, factors, R, G, GH):  # type: ignore[no-untyped-def]
    """`_left_over`."""
    return _left_over(data, factors, R, G, GH)


@njit(**ENTRY)
def finished(s, misfit, chains, finish, shelf, room):  # type: ignore[no-untyped-def]
    """`ended` of the only chain."""
    ended(0, s, misfit, chains, finish, shelf, room)
