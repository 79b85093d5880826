"""The moves along the ridge W @ H = constant for exponential priors: `reference` states and defines them.

Factors are stored a component a row. Sums over a component are kept up to date by the shifts, so that a rate that is one
for all rows costs no pass over them.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import njit, types
from numba.core.typing import Signature
from torch import Tensor

from ppnmf.kernels.cpu.positive import generalized_inverse_gaussian
from ppnmf.kernels.cpu.uniforms import uniforms_of_rows
from ppnmf.kernels.lanes import COMPILED, INLINED, INNER, bits, from_bits, fused, inner, select, total_of
from ppnmf.kernels.parts import address_of, called_by_address
from ppnmf.kernels.reference import shear_rounds
from ppnmf.rng import Site, Stream

__all__ = [
    "address_of_move",
    "call_move",
    "divide",
    "least_ratio",
    "move",
    "moved",
    "permute",
    "rated",
    "room_for_moves",
    "scale",
    "scale_move",
    "shear_move",
    "shift",
    "truncated_exponential",
]

SITE_PAIRS = np.int64(Site.SHEAR_PAIRS)
SITE_SHEAR = np.int64(Site.SHEAR)
FIRST_ROW = np.int64(0)
LOT = 128  # ratios that are looked at together
FLAT = 1e-12  # how far a truncated density's logarithm falls over an interval that is taken as flat

Rates = tuple[Tensor, Tensor]  # of the priors, broadcastable to (N, K) and (K, D)


# Of one component, or of two


@njit(**INNER)
def rated(F, total, rates, k):  # type: ignore[no-untyped-def]
    """Σ_i rates[k, i] F_i, where `total` = Σ_i F_i; rates (1 | K, 1 | R)."""
    rate = rates[k if len(rates) > 1 else 0]
    return rate[0] * total if len(rate) == 1 else inner(F, rate)


@njit(**INNER)
def _least_quotient(above, below):  # type: ignore[no-untyped-def]
    """The least above_i / below_i where below_i > 0, or infinity; of numbers >= 0, whose order is that of their bits."""
    least = bits(np.inf)
    for i in range(len(above)):
        b = np.float64(below[i])
        least = min(least, bits(select(b > 0.0, np.float64(above[i]) / b, np.inf)))
    return from_bits(least)


@njit(**INNER)
def _any_below(above, below, ratio):  # type: ignore[no-untyped-def]
    """Whether some above_i < ratio · below_i, by the sign bits of the differences."""
    signs = 0
    for i in range(len(above)):
        signs |= bits(fused(-ratio, np.float64(below[i]), np.float64(above[i])))
    return signs < 0


@njit(**INNER)
def least_ratio(above, below):  # type: ignore[no-untyped-def]
    """`_least_quotient`, a lot at a time: few lots hold one below the least so far, and telling so takes no division."""
    least = np.inf
    for start in range(0, len(above), LOT):
        a = above[start : start + LOT]
        b = below[start : start + LOT]
        if least == np.inf or _any_below(a, b, least):
            least = min(least, _least_quotient(a, b))
    return least


@njit(**INNER)
def shift(F, G, t):  # type: ignore[no-untyped-def]
    """F ← max(F + t G, 0), and the sum of that."""
    for i in range(len(F)):
        moved = fused(t, np.float64(G[i]), np.float64(F[i]))
        F[i] = select(moved > 0.0, moved, 0.0)
    return total_of(F)


@njit(**INNER)
def scale(F, c):  # type: ignore[no-untyped-def]
    """F ← c F."""
    for i in range(len(F)):
        F[i] *= c


@njit(**INNER)
def divide(F, c):  # type: ignore[no-untyped-def]
    """F ← F / c."""
    for i in range(len(F)):
        F[i] /= c


@njit(**INNER)
def truncated_exponential(slope: float, low: float, high: float, u: float) -> float:
    """`reference.truncated_exponential` of one number."""
    steep = abs(slope)
    width = high - low
    excess = u * width if steep * width < FLAT else -math.log1p(u * math.expm1(-steep * width)) / steep
    excess = min(excess, width)
    t = low + excess if slope >= 0 else high - excess
    return t if math.isfinite(t) else 0.0


# The two moves


@njit(**INLINED)
def _move_scales(W, H, rate_W, rate_H, key0, key1, step):  # type: ignore[no-untyped-def]
    """W_k ← c W_k, H_k ← H_k / c for every component, unless it is dead."""
    K = len(W)
    order = float(W.shape[1] - H.shape[1])
    for k in range(K):
        a = 2 * rated(W[k], total_of(W[k]), rate_W, k)
        b = 2 * rated(H[k], total_of(H[k]), rate_H, k)
        if a > 0 and b > 0:
            c = generalized_inverse_gaussian(order, a, b, key0, key1, step, k, K)
            scale(W[k], c)
            divide(H[k], c)


@njit(**INLINED)
def _fill(pairs, key0, key1, step, site, uniforms):  # type: ignore[no-untyped-def]
    """uniforms[:2 pairs] (columns, rounds) = those of the step's first columns, a row a round."""
    for pair in range(pairs):
        even = uniforms[2 * pair]
        odd = uniforms[2 * pair + 1]
        uniforms_of_rows(key0, key1, pair, FIRST_ROW, step, site, uniforms.shape[1], even, odd)


@njit(**INNER)
def permute(key0, key1, step, uniforms, order):  # type: ignore[no-untyped-def]
    """order (rounds, K) = the order of K uniforms in each round, by insertion: neighbours in it are the round's pairs.

    Args:
        key0, key1, step: the words of the key, and the step; the uniforms are those of the site SHEAR_PAIRS.
        uniforms: room for (K + 1, rounds).
    """
    rounds, K = order.shape
    _fill((K + 1) // 2, key0, key1, step, SITE_PAIRS, uniforms)
    for turn in range(rounds):
        for k in range(K):
            place = k
            while place > 0 and uniforms[order[turn, place - 1], turn] > uniforms[k, turn]:
                order[turn, place] = order[turn, place - 1]
                place -= 1
            order[turn, place] = k


@njit(**INLINED)
def _move_shears(W, H, rate_W, rate_H, key0, key1, step, room):  # type: ignore[no-untyped-def]
    """W_l ← W_l + t W_k, H_k ← H_k - t H_l for the pairs of each round, whose uniforms are drawn beforehand."""
    order, uniforms, (total_W, total_H) = room
    rounds, K = order.shape
    permute(key0, key1, step, uniforms, order)
    _fill((K // 2 + 1) // 2, key0, key1, step, SITE_SHEAR, uniforms)
    for k in range(K):
        total_W[k] = total_of(W[k])
        total_H[k] = total_of(H[k])
    for turn in range(rounds):
        for m in range(K // 2):
            k = order[turn, 2 * m]
            l = order[turn, 2 * m + 1]
            slope = rated(W[k], total_W[k], rate_W, l) - rated(H[l], total_H[l], rate_H, k)
            low = -least_ratio(W[l], W[k])
            high = least_ratio(H[k], H[l])
            t = truncated_exponential(slope, low, high, uniforms[m, turn])
            total_W[l] = shift(W[l], W[k], t)
            total_H[k] = shift(H[k], H[l], -t)


@njit(**COMPILED)
def move(W, H, rates, address, scales, shears, room):  # type: ignore[no-untyped-def]
    """`reference.scale_move` and `reference.shear_move`, where asked for, in place.

    Args:
        W, H: (K, N) and (K, D), a component a row.
        rates: theirs, (1 | K, 1 | N) and (1 | K, 1 | D).
        address: the two words of the key, and the step.
        room: `room_for_moves(K)`.
    """
    rate_W, rate_H = rates
    key0, key1, step = address
    if scales:
        _move_scales(W, H, rate_W, rate_H, key0, key1, step)
    if shears:
        _move_shears(W, H, rate_W, rate_H, key0, key1, step, room)


def room_for_moves(K: int) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """What `move` works in: the pairs of each round, their uniforms, and the sums of W's and H's components."""
    rounds = shear_rounds(K)
    return np.empty((rounds, K), np.int64), np.empty((K + 2, rounds)), (np.empty(K), np.empty(K))


# On tensors


def scale_move(W: Tensor, H: Tensor, rates: Rates, stream: Stream, step: int) -> tuple[Tensor, Tensor]:
    """`reference.scale_move`, compiled; W (C, N, K) and H (C, K, D) stay as they are."""
    return _moved(W, H, rates, stream, step, True, False)


def shear_move(W: Tensor, H: Tensor, rates: Rates, stream: Stream, step: int) -> tuple[Tensor, Tensor]:
    """`reference.shear_move`, compiled; W (C, N, K) and H (C, K, D) stay as they are."""
    return _moved(W, H, rates, stream, step, False, True)


def moved(W: Tensor, H: Tensor, rates: Rates, stream: Stream, step: int) -> tuple[Tensor, Tensor]:
    """`reference.moved`, compiled; W and H are copied once."""
    return _moved(W, H, rates, stream, step, True, True)


def _moved(
    W: Tensor, H: Tensor, rates: Rates, stream: Stream, step: int, scales: bool, shears: bool
) -> tuple[Tensor, Tensor]:
    moved_W = W.mT.clone(memory_format=torch.contiguous_format).numpy()
    moved_H = H.clone(memory_format=torch.contiguous_format).numpy()
    rates_of_rows = (rates[0].mT.double().contiguous().numpy(), rates[1].double().contiguous().numpy())
    room = room_for_moves(W.shape[-1])
    for c, key in enumerate(stream.keys):
        move(moved_W[c], moved_H[c], rates_of_rows, (*key, step), scales, shears, room)
    return torch.from_numpy(moved_W).mT, torch.from_numpy(moved_H)


# For compiled functions that call `move` by its address


def _signature_of_move(real: types.Float) -> Signature:
    matrix = types.Array(real, 2, "C")
    doubles = types.Array(types.float64, 2, "C")
    rates = types.UniTuple(doubles, 2)
    address = types.UniTuple(types.int64, 3)
    order = types.Array(types.int64, 2, "C")
    totals = types.UniTuple(types.Array(types.float64, 1, "C"), 2)
    room = types.Tuple((order, doubles, totals))
    return types.void(matrix, matrix, rates, address, types.boolean, types.boolean, room)


call_move = called_by_address(_signature_of_move)


def address_of_move(dtype: np.dtype) -> int:
    """For `call_move`, of factors of this type."""
    return address_of(move, _signature_of_move, dtype)
