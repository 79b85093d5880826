r"""Binomial draws for compiled functions, exact for counts up to 2^53, each from the numbers of a cell (row, column).

Where n p < 10 the distribution function is inverted; else proposals are rejected (Hörmann 1993, algorithm BTRS). The
probability of a proposal is that of a Poisson count k of mean n p and one n - k of mean n q, over a constant; such a logarithm is
written by Stirling's error and the deviance (Loader 2000), so that no digits are lost where n is large: by differences of
log Γ they all are at n = 2^53.

References: Hörmann (1993), doi:10.1080/00949659308811496; Loader (2000), "Fast and accurate computation of binomial
probabilities".
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from ppnmf.kernels.lanes import COMPILED, INNER
from ppnmf.rng import NEXT, uniform_pair

__all__ = ["LARGE", "MOST_INVERTED", "STIRLING", "binomial", "thinned"]

LARGE = 10.0  # n p from which on proposals are rejected
MOST_INVERTED = 110.0  # a mean below `LARGE` leads beyond it less than once in 1e70
TURN = np.int64(NEXT)
UNKNOWN = np.inf
# log(k!) less Stirling's formula for it, k = 0 ... 15; beyond, the series is exact to double precision
STIRLING = np.array(
    [0.0] + [math.lgamma(k + 1) - (k + 0.5) * math.log(k) + k - 0.5 * math.log(2 * math.pi) for k in range(1, 16)]
)


@njit(**INNER)
def _stirling_error(k: float) -> float:
    """log(k!) - log(√(2πk) (k/e)^k), k >= 1."""
    if k < 16.0:
        return STIRLING[int(k)]
    square = k * k
    return (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680 - 1 / 1188 / square) / square) / square) / square) / k


@njit(**INNER)
def _deviance(k: float, mean: float) -> float:
    """k log(k / mean) + mean - k without cancellation, k >= 1."""
    apart, total = k - mean, k + mean
    if abs(apart) >= 0.1 * total:
        return k * math.log(k / mean) - apart
    v = apart / total
    square = v * v
    series = 1 / 15
    for power in (13.0, 11.0, 9.0, 7.0, 5.0, 3.0):
        series = series * square + 1 / power
    return apart * v + 2 * k * v * square * series


@njit(**INNER)
def log_poisson(k: float, mean: float) -> float:
    """Log probability of a Poisson count, but for log √(2π)."""
    if k == 0.0:
        return 0.5 * math.log(2 * math.pi) - mean
    return -_stirling_error(k) - _deviance(k, mean) - 0.5 * math.log(k)


@njit(**INNER)
def _by_inversion(n: float, p: float, u: float) -> float:
    """The least k whose distribution function is at least u."""
    odds = p / (1.0 - p)
    mass = math.exp(n * math.log1p(-p))
    most = min(n, MOST_INVERTED)
    k = 0.0
    while u > mass and k < most:
        u -= mass
        k += 1.0
        mass *= odds * (n - k + 1.0) / k
    return k


@njit(**COMPILED)
def binomial(n, p, key0, key1, column, row, step, site):  # type: ignore[no-untyped-def]
    """A draw for n >= 1 and 0 < p <= 1/2, and the site from which the cell's next numbers come.

    Each trial takes a pair of the cell's uniforms, of the sites `site`, `site` + `rng.NEXT`, ...
    """
    mean = n * p
    if mean < LARGE:
        u, _ = uniform_pair(key0, key1, column, row, step, site)
        return _by_inversion(n, p, u), site + TURN
    q = 1.0 - p
    deviation = math.sqrt(mean * q)
    b = 1.15 + 2.53 * deviation
    a = -0.0873 + 0.0248 * b + 0.01 * p
    limit = 0.92 - 4.2 / b
    alpha = (2.83 + 5.1 / b) * deviation
    at_mode = UNKNOWN  # most proposals are judged without it
    while True:
        u, v = uniform_pair(key0, key1, column, row, step, site)
        site += TURN
        u -= 0.5
        inside = 0.5 - abs(u)
        k = float(math.floor((2.0 * a / inside + b) * u + mean + 0.5))
        if inside >= 0.07 and v <= limit:
            return k, site
        if k < 0.0 or k > n:
            continue
        if at_mode == UNKNOWN:
            mode = float(math.floor((n + 1.0) * p))
            at_mode = log_poisson(mode, mean) + log_poisson(n - mode, n * q)
        cover = math.log(v * alpha / (a / (inside * inside) + b))
        if cover <= log_poisson(k, mean) + log_poisson(n - k, n * q) - at_mode:
            return k, site


@njit(**COMPILED)
def thinned(data, indices, indptr, p, address, out):  # type: ignore[no-untyped-def]
    """out = how many of each stored count's events stay, each with probability p (0 < p < 1).

    Args:
        data, indices, indptr: compressed rows of counts; out is like data.
        address: the two words of the key, the step, the site, and the number of the first row.
    """
    key0, key1, step, site, first_row = address
    small = min(p, 1.0 - p)
    for i in range(len(indptr) - 1):
        for at in range(indptr[i], indptr[i + 1]):
            n = data[at]
            if n > 0.0:
                drawn, _ = binomial(n, small, key0, key1, indices[at], first_row + i, step, site)
                out[at] = drawn if p <= 0.5 else n - drawn
            else:
                out[at] = 0.0
