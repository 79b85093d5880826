"""Gamma draws of a factor's entries for the CPU, compiled by Numba; `counts_reference.gammas` defines them.

Marsaglia and Tsang (2000), doi:10.1145/358407.358414: the entries are lanes of the vector registers at their first proposal,
and the few that reject it go on one by one. An entry of shape a < 1 is one of a + 1 times u^(1 / a).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from ppnmf.kernels.coefficients import CENTRE, SHOULDER
from ppnmf.kernels.cpu.normal import quantile
from ppnmf.kernels.lanes import COMPILED, INLINED, INNER, log, polynomial, select
from ppnmf.kernels.reference import GAMMA_PROPOSALS
from ppnmf.rng import NEXT, uniform_pair

__all__ = ["gammas", "standard_gamma"]

LANES = 128
TURN = np.int64(NEXT)
RARE = 1e-11  # a uniform within this of 0 or 1 leads past the quantile's second range
_centre_above = polynomial(CENTRE[0])
_centre_below = polynomial(CENTRE[1])
_shoulder_above = polynomial(SHOULDER[0])
_shoulder_below = polynomial(SHOULDER[1])
EXTRA = np.int64(GAMMA_PROPOSALS)  # the turn of the uniform for shapes below one


@njit(**INLINED)
def _quantile(p: float) -> float:
    """Of the standard normal where p and 1 - p are above `RARE`, without a branch (Wichura 1988)."""
    q = p - 0.5
    r = math.sqrt(-log(select(q < 0.0, p, 1.0 - p)))
    c, s = 0.180625 - q * q, r - 1.6
    central = abs(q) <= 0.425
    above = select(central, q * _centre_above(c), select(q < 0.0, -1.0, 1.0) * _shoulder_above(s))
    return above / select(central, _centre_below(c), _shoulder_below(s))


@njit(**INNER)
def _later(d, key0, key1, column, row, step, site, first):  # type: ignore[no-untyped-def]
    """The accepted proposal of one entry, from the turn `first` on."""
    v = 1.0
    for trial in range(first, GAMMA_PROPOSALS):
        u, w = uniform_pair(key0, key1, column, row, step, site + trial * TURN)
        z = quantile(u)
        v = (1.0 + z / math.sqrt(9.0 * d)) ** 3
        if v > 0.0 and math.log(w) < 0.5 * z * z + d * (1.0 - v + math.log(v)):
            break
    return d * abs(v)


@njit(**INNER)
def standard_gamma(a, key0, key1, column, row, step, site):  # type: ignore[no-untyped-def]
    """A draw of Gamma(a, 1) of one entry, from the turns of its numbers up to `EXTRA`."""
    drawn = _later((a + 1.0 if a < 1.0 else a) - 1.0 / 3.0, key0, key1, column, row, step, site, 0)
    if a < 1.0:
        u, _ = uniform_pair(key0, key1, column, row, step, site + EXTRA * TURN)
        drawn *= math.exp(math.log(u) / a)
    return drawn


@njit(**INNER)
def _lot(shapes, columns, rows, key0, key1, step, site, room, n):  # type: ignore[no-untyped-def]
    """room[2, :n] = standard gamma draws of n entries."""
    even, odd, drawn, failed = room[0], room[1], room[2], room[3]
    for m in range(n):
        even[m], odd[m] = uniform_pair(key0, key1, columns[m], rows[m], step, site)
    for m in range(n):
        a = shapes[m]
        d = select(a < 1.0, a + 1.0, a) - 1.0 / 3.0
        u = even[m]
        z = _quantile(select(u < RARE, RARE, select(u > 1.0 - RARE, 1.0 - RARE, u)))
        t = 1.0 + z / math.sqrt(9.0 * d)
        v = t * t * t
        positive = select(v > 1e-300, v, 1e-300)
        slack = 0.5 * z * z + d * (1.0 - v + log(positive)) - log(odd[m])
        rare = (v <= 0.0) | (slack <= 0.0) | (u < RARE) | (u > 1.0 - RARE)
        failed[m] = select(rare, 1.0, 0.0)
        drawn[m] = d * v
    for m in range(n):
        a = shapes[m]
        if failed[m] > 0.0:
            d = (a + 1.0 if a < 1.0 else a) - 1.0 / 3.0
            drawn[m] = _later(d, key0, key1, columns[m], rows[m], step, site, 0)
        if a < 1.0:
            u, _ = uniform_pair(key0, key1, columns[m], rows[m], step, site + EXTRA * TURN)
            drawn[m] *= math.exp(math.log(u) / a)


@njit(**INNER)
def _gammas(shape, rate, key0, key1, step, site, first_row, least, out, room, shapes, columns, rows):  # type: ignore[no-untyped-def]
    R, K = shape.shape
    i, k = 0, 0
    for start in range(0, R * K, LANES):
        n = min(LANES, R * K - start)
        begun, at = i, k
        for m in range(n):
            shapes[m] = shape[i, k]
            columns[m] = k
            rows[m] = first_row + i
            k += 1
            if k == K:
                i, k = i + 1, 0
        _lot(shapes, columns, rows, key0, key1, step, site, room, n)
        i, k = begun, at
        for m in range(n):
            own = rate[i if len(rate) > 1 else 0, k]
            out[i, k] = max(room[2, m] / own, least)
            k += 1
            if k == K:
                i, k = i + 1, 0


@njit(**COMPILED)
def gammas(shape, rate, keys, address, least, out):  # type: ignore[no-untyped-def]
    """out (C, R, K) = draws of Gamma(shape, rate), at least `least`.

    Args:
        shape: (C, R, K). rate: (C, R, K), or (C, 1, K) for all rows.
        keys: (C, 2), of the chains. address: the step, the site, and the number of the first row.
    """
    step, site, first_row = address
    room, shapes = np.empty((4, LANES)), np.empty(LANES)
    columns, rows = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    for c in range(len(shape)):
        key0, key1 = keys[c, 0], keys[c, 1]
        _gammas(shape[c], rate[c], key0, key1, step, site, first_row, least, out[c], room, shapes, columns, rows)
