"""The moves along the ridge for any rectified-normal priors, compiled for the CPU; `gaussian.ridge` states and defines them.

Factors are stored a component a row, and so are the priors' natural parameters.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from ppnmf.kernels.cpu.normal import SQRT_HALF, survival_factor, survival_inverse
from ppnmf.kernels.cpu.positive import generalized_inverse_gaussian
from ppnmf.kernels.cpu.ridge import divide, least_ratio, permute, scale, shift, truncated_exponential
from ppnmf.kernels.lanes import COMPILED, INNER, fused, inner, inner_of_three
from ppnmf.rng import Site, uniform_pair

__all__ = ["Free", "kind_of", "move", "products", "truncated"]

SITE_SCALE = int(Site.SCALE)
SITE_SHEAR = int(Site.SHEAR)
FLAT = 1e-7  # of a truncated density's logarithm: how far it falls over an interval that is taken as flat
STEPS_OUT = 100_000  # of a slice, at most
SHRINKAGES = 200  # likewise
EXPONENTIAL, HALF_NORMAL, OTHER = 1, 2, 0  # kinds of a pair of priors


def kind_of(of_W: tuple[Any, Any], of_H: tuple[Any, Any]) -> int:
    """The kind of a pair of priors, from the precision and linear parameter of either."""
    if not (of_W[0].any() or of_H[0].any()):
        return EXPONENTIAL
    return OTHER if of_W[1].any() or of_H[1].any() else HALF_NORMAL


class Free(NamedTuple):
    """Which moves leave what is known as it is."""

    scaled: np.ndarray  # (K,) boolean: components whose scale moves
    size: np.ndarray  # (K,): entries of W_k that are not known, less those of H_k; N - D where none is
    sheared: np.ndarray  # (K, K) boolean: W_l ← W_l + t W_k and H_k ← H_k - t H_l, at [k, l]


class ScaleDensity(NamedTuple):
    """The density of c in the scale move, ∝ c^(p - 1) exp(-A c² / 2 + B c - A' / (2 c²) + B' / c)."""

    p: float
    A: float
    B: float
    A_H: float
    B_H: float


@njit(**INNER)
def products(a, F, G, k):  # type: ignore[no-untyped-def]
    """Σ_i a[k, i] F_i G_i."""
    own = a[k if len(a) > 1 else 0]
    if len(own) > 1:
        return inner_of_three(own, F, G)
    total = 0.0
    for i in range(len(F)):
        total = fused(np.float64(F[i]), np.float64(G[i]), total)
    return own[0] * total


@njit(**INNER)
def _sums(b, F, k):  # type: ignore[no-untyped-def]
    """Σ_i b[k, i] F_i."""
    own = b[k if len(b) > 1 else 0]
    if len(own) > 1:
        return inner(own, F)
    total = 0.0
    for i in range(len(F)):
        total += np.float64(F[i])
    return own[0] * total


@njit(**INNER)
def _log_density(y, density):  # type: ignore[no-untyped-def]
    """Of y = log c, up to a constant."""
    c = math.exp(y)
    d = math.exp(-y)
    of_W = c * (density.B - 0.5 * density.A * c)
    return density.p * y + of_W + d * (density.B_H - 0.5 * density.A_H * d)


@njit(**INNER)
def _stepped_out(y, step, density, level):  # type: ignore[no-untyped-def]
    """The first of y, y + step, y + 2 step ... where the log density is not above the level."""
    for _ in range(STEPS_OUT):
        if _log_density(y, density) <= level:
            break
        y += step
    return y


@njit(**INNER)
def _slice(density, width, key0, key1, step, k, K):  # type: ignore[no-untyped-def]
    """log c by a slice step from 0 (Neal 2003, doi:10.1214/aos/1056562461): steps out by `width`, and shrinks what was missed."""
    u, v = uniform_pair(key0, key1, 0, k, step, SITE_SCALE)
    level = _log_density(0.0, density) + math.log(u)
    low = -width * v
    high = low + width
    low = _stepped_out(low, -width, density, level)
    high = _stepped_out(high, width, density, level)
    for trial in range(1, SHRINKAGES):
        u, _ = uniform_pair(key0, key1, 0, trial * K + k, step, SITE_SCALE)
        y = low + u * (high - low)
        if _log_density(y, density) > level:
            return y
        if y < 0.0:
            low = y
        else:
            high = y
    return 0.0


@njit(**INNER)
def _drawn_scale(density, kind, width, key0, key1, step, k, K):  # type: ignore[no-untyped-def]
    """c of component k of K, from its density: a generalised inverse Gaussian in c or in c², or else by a slice."""
    p, A, B, A_H, B_H = density
    if kind == EXPONENTIAL:
        return generalized_inverse_gaussian(p, -2 * B, -2 * B_H, key0, key1, step, k, K)
    if kind == HALF_NORMAL:
        return math.sqrt(generalized_inverse_gaussian(0.5 * p, A, A_H, key0, key1, step, k, K))
    return math.exp(_slice(density, width, key0, key1, step, k, K))


@njit(**INNER)
def _move_scales(W, H, of_W, of_H, kind, free, key0, key1, step):  # type: ignore[no-untyped-def]
    """W_k ← c W_k, H_k ← H_k / c."""
    K = len(W)
    width = 4.0 / math.sqrt(W.shape[1] + H.shape[1])
    for k in range(K):
        if not free.scaled[k]:
            continue
        p = free.size[k]
        A = products(of_W[0], W[k], W[k], k)
        B = _sums(of_W[1], W[k], k)
        A_H = products(of_H[0], H[k], H[k], k)
        B_H = _sums(of_H[1], H[k], k)
        if W[k].any() and H[k].any():
            c = _drawn_scale(ScaleDensity(p, A, B, A_H, B_H), kind, width, key0, key1, step, k, K)
            scale(W[k], c)
            divide(H[k], c)


@njit(**INNER)
def _survival(bound, width):  # type: ignore[no-untyped-def]
    """P(Z > bound + width) / P(Z > bound) of a standard normal Z."""
    if width == math.inf:
        return 0.0
    if bound > 0.0:
        ratio = survival_factor(bound + width) / survival_factor(bound)
        return math.exp(-width * (bound + 0.5 * width)) * ratio
    return math.erfc((bound + width) * SQRT_HALF) / math.erfc(bound * SQRT_HALF)


@njit(**COMPILED)
def truncated(square, slope, low, high, u):  # type: ignore[no-untyped-def]
    """t with density ∝ exp(-square t² / 2 + slope t) on [low, high], an increasing or decreasing function of u."""
    if square <= 0.0:
        return truncated_exponential(-slope, low, high, u)
    if low == -math.inf and high == math.inf:
        return 0.0
    root = math.sqrt(square)
    middle = slope / square
    width = (high - low) * root
    flipped = (low - middle) + (high - middle) < 0.0  # measured from the end that lies nearer to the mode
    bound = (middle - high) * root if flipped else (low - middle) * root
    if width * max(abs(bound), abs(bound + width), 1.0) < FLAT:
        return low + u * (high - low)
    share = 1.0 - u * (1.0 - _survival(bound, width))
    excess = min(survival_inverse(1.0, -bound, share) / root, high - low)
    return high - excess if flipped else low + excess


@njit(**INNER)
def _slope(W, H, of_W, of_H, k, l):  # type: ignore[no-untyped-def]
    """The linear part of the shear's log density, W_l ← W_l + t W_k and H_k ← H_k - t H_l."""
    slope = _sums(of_W[1], W[k], l) - products(of_W[0], W[l], W[k], l)
    slope -= _sums(of_H[1], H[l], k) - products(of_H[0], H[k], H[l], k)
    return slope


@njit(**INNER)
def _move_shears(W, H, of_W, of_H, free, key0, key1, step, room):  # type: ignore[no-untyped-def]
    """W_l ← W_l + t W_k, H_k ← H_k - t H_l for the pairs of each round."""
    order, uniforms, _ = room
    rounds, K = order.shape
    permute(key0, key1, step, uniforms, order)
    for turn in range(rounds):
        for m in range(K // 2):
            k = order[turn, 2 * m]
            l = order[turn, 2 * m + 1]
            if not free.sheared[k, l]:
                continue
            pair = uniform_pair(key0, key1, m // 2, turn, step, SITE_SHEAR)
            u = pair[0] if m % 2 == 0 else pair[1]
            square = products(of_W[0], W[k], W[k], l) + products(of_H[0], H[l], H[l], k)
            slope = _slope(W, H, of_W, of_H, k, l)
            t = truncated(square, slope, -least_ratio(W[l], W[k]), least_ratio(H[k], H[l]), u)
            shift(W[l], W[k], t)
            shift(H[k], H[l], -t)


@njit(**COMPILED)
def move(W, H, of_W, of_H, kind, free, address, room):  # type: ignore[no-untyped-def]
    """Both moves, in place.

    Args:
        W, H: (K, N) and (K, D), a component a row.
        of_W, of_H: precision and linear of their priors, (1 | K, 1 | N) and (1 | K, 1 | D).
        kind: 1 where both priors are exponential, 2 where both are half-normal, 0 for all others.
        free: `Free`.
        address: the two words of the key, and the step.
        room: `cpu.room_for_moves(K)`.
    """
    key0, key1, step = address
    _move_scales(W, H, of_W, of_H, kind, free, key0, key1, step)
    _move_shears(W, H, of_W, of_H, free, key0, key1, step, room)
