"""The moves along the ridge for any rectified-normal priors, compiled for the CPU; `gaussian.ridge` states and defines them.

Factors are stored a component a row, and so are the priors' natural parameters.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from ppnmf.kernels.cpu import (
    _divide,
    _least_ratio,
    _permute,
    _scale,
    _shift,
    _truncated_exponential,
    generalized_inverse_gaussian,
    survival_factor,
    survival_inverse,
)
from ppnmf.kernels.lanes import COMPILED, INNER, fused
from ppnmf.rng import Site, uniform_pair

__all__ = ["move", "truncated"]

SITE_SCALE, SITE_SHEAR = int(Site.SCALE), int(Site.SHEAR)
FLAT = 1e-7  # of a truncated density's logarithm: how far it falls over an interval that is taken as flat
STEPS_OUT, SHRINKAGES = 100_000, 200  # of a slice, at most


@njit(**INNER)
def _products(a, F, G, k):  # type: ignore[no-untyped-def]
    """Σ_i a[k, i] F_i G_i."""
    own = a[k if len(a) > 1 else 0]
    total = 0.0
    if len(own) == 1:
        for i in range(len(F)):
            total = fused(np.float64(F[i]), np.float64(G[i]), total)
        return own[0] * total
    for i in range(len(F)):
        total = fused(own[i] * np.float64(F[i]), np.float64(G[i]), total)
    return total


@njit(**INNER)
def _sums(b, F, k):  # type: ignore[no-untyped-def]
    """Σ_i b[k, i] F_i."""
    own = b[k if len(b) > 1 else 0]
    total = 0.0
    if len(own) == 1:
        for i in range(len(F)):
            total += np.float64(F[i])
        return own[0] * total
    for i in range(len(F)):
        total = fused(own[i], np.float64(F[i]), total)
    return total


@njit(**INNER)
def _log_density(y, p, A, B, A_H, B_H):  # type: ignore[no-untyped-def]
    """Of y = log c, up to a constant."""
    c = math.exp(y)
    d = math.exp(-y)
    return p * y + c * (B - 0.5 * A * c) + d * (B_H - 0.5 * A_H * d)


@njit(**INNER)
def _slice(p, A, B, A_H, B_H, width, key0, key1, step, k, K):  # type: ignore[no-untyped-def]
    """log c by a slice step from 0 (Neal 2003): steps out by `width`, and shrinks what was missed."""
    u, v = uniform_pair(key0, key1, 0, k, step, SITE_SCALE)
    level = _log_density(0.0, p, A, B, A_H, B_H) + math.log(u)
    low = -width * v
    high = low + width
    for _ in range(STEPS_OUT):
        if _log_density(low, p, A, B, A_H, B_H) <= level:
            break
        low -= width
    for _ in range(STEPS_OUT):
        if _log_density(high, p, A, B, A_H, B_H) <= level:
            break
        high += width
    for trial in range(1, SHRINKAGES):
        u, _ = uniform_pair(key0, key1, 0, trial * K + k, step, SITE_SCALE)
        y = low + u * (high - low)
        if _log_density(y, p, A, B, A_H, B_H) > level:
            return y
        if y < 0.0:
            low = y
        else:
            high = y
    return 0.0


@njit(**INNER)
def _move_scales(W, H, a_W, b_W, a_H, b_H, kind, key0, key1, step):  # type: ignore[no-untyped-def]
    """W_k ← c W_k, H_k ← H_k / c."""
    size = float(W.shape[1] - H.shape[1])
    width = 4.0 / math.sqrt(W.shape[1] + H.shape[1])
    K = len(W)
    for k in range(K):
        A, B = _products(a_W, W[k], W[k], k), _sums(b_W, W[k], k)
        A_H, B_H = _products(a_H, H[k], H[k], k), _sums(b_H, H[k], k)
        if not (W[k].any() and H[k].any()):
            continue
        if kind == 1:
            c = generalized_inverse_gaussian(size, -2 * B, -2 * B_H, key0, key1, step, k, K)
        elif kind == 2:
            c = math.sqrt(generalized_inverse_gaussian(0.5 * size, A, A_H, key0, key1, step, k, K))
        else:
            c = math.exp(_slice(size, A, B, A_H, B_H, width, key0, key1, step, k, K))
        _scale(W[k], c)
        _divide(H[k], c)


@njit(**INNER)
def _survival(bound, width):  # type: ignore[no-untyped-def]
    """P(Z > bound + width) / P(Z > bound) of a standard normal Z."""
    if width == math.inf:
        return 0.0
    if bound > 0.0:
        ratio = survival_factor(bound + width) / survival_factor(bound)
        return math.exp(-width * (bound + 0.5 * width)) * ratio
    return math.erfc((bound + width) * 0.7071067811865476) / math.erfc(bound * 0.7071067811865476)


@njit(**COMPILED)
def truncated(square, slope, low, high, u):  # type: ignore[no-untyped-def]
    """t with density ∝ exp(-square t² / 2 + slope t) on [low, high], an increasing or decreasing function of u."""
    if square <= 0.0:
        return _truncated_exponential(-slope, low, high, u)
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
def _move_shears(W, H, a_W, b_W, a_H, b_H, key0, key1, step, order, uniforms):  # type: ignore[no-untyped-def]
    """W_l ← W_l + t W_k, H_k ← H_k - t H_l for the pairs of each round."""
    rounds, K = order.shape
    _permute(key0, key1, step, uniforms, order)
    for turn in range(rounds):
        for m in range(K // 2):
            k, l = order[turn, 2 * m], order[turn, 2 * m + 1]
            pair = uniform_pair(key0, key1, m // 2, turn, step, SITE_SHEAR)
            u = pair[0] if m % 2 == 0 else pair[1]
            square = _products(a_W, W[k], W[k], l) + _products(a_H, H[l], H[l], k)
            slope = _sums(b_W, W[k], l) - _products(a_W, W[l], W[k], l)
            slope -= _sums(b_H, H[l], k) - _products(a_H, H[k], H[l], k)
            low, high = -_least_ratio(W[l], W[k]), _least_ratio(H[k], H[l])
            t = truncated(square, slope, low, high, u)
            _shift(W[l], W[k], t)
            _shift(H[k], H[l], -t)


@njit(**COMPILED)
def move(W, H, of_W, of_H, kind, address, room):  # type: ignore[no-untyped-def]
    """Both moves, in place.

    Args:
        W, H: (K, N) and (K, D), a component a row.
        of_W, of_H: precision and linear of their priors, (1 | K, 1 | N) and (1 | K, 1 | D).
        kind: 1 where both priors are exponential, 2 where both are half-normal, 0 for all others.
        address: the two words of the key, and the step.
        room: `cpu.room_for_moves(K)`.
    """
    a_W, b_W = of_W
    a_H, b_H = of_H
    key0, key1, step = address
    order, uniforms, _ = room
    _move_scales(W, H, a_W, b_W, a_H, b_H, kind, key0, key1, step)
    _move_shears(W, H, a_W, b_W, a_H, b_H, key0, key1, step, order, uniforms)
