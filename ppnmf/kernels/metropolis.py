r"""A factor's entries one after another, each by a Metropolis step from a gamma that has its conditional's slope and curvature.

Of the entry w = F_ik, with everything else as it is, the log conditional under a power β of the likelihood is

.. math:: \beta \sum_j x_j \log(m_j + (w' - w) G_{jk}) - E w' + (a - 1) \log w' - b w',
    \quad m = F_i G^\top, \; E = \beta \sum_j e_j G_{jk}.

A gamma's s log w' - t w' with the same slope and curvature at w stands for the sum: s = w² β Σ x G²/m² and
t = s / w - β Σ x G/m + E. Where that would be no gamma, far from the mode, the counts are shared out by expectations instead:
s = w β Σ x G/m, t = E. The step is accepted or not with the same done at w', so it is exact at any power: no count is divided
among components, and what it costs does not grow with the counts.

F (R, K) and G (S, K) have their rows leading; the counts are compressed rows of X, or of its transpose.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from ppnmf.kernels.gammas import EXTRA, TURN, standard_gamma
from ppnmf.kernels.lanes import COMPILED, INNER, inner, log, select, total_of
from ppnmf.rng import uniform_pair

__all__ = ["JUDGED", "LEAST_RATE", "log_gamma", "stepped"]

LEAST_RATE = 0.05  # of prior and exposures: a proposal's rate below it is that of expectations
JUDGED = EXTRA + np.int64(1)  # the turn of the uniform by which a step is accepted


@njit(**INNER)
def _slopes(data, g, means, power, room):  # type: ignore[no-untyped-def]
    """β Σ x G/m and β Σ x G²/m²."""
    share, weighted = room[0], room[1]
    n = len(data)
    for m in range(n):
        share[m] = g[m] / means[m]
        weighted[m] = data[m] * share[m]
    return power * total_of(weighted[:n]), power * inner(weighted[:n], share[:n])


@njit(**INNER)
def _proposal(w, slope, curvature, exposed, size, rate):  # type: ignore[no-untyped-def]
    """The shape and the rate of the gamma from which w's successor is drawn."""
    below = rate + exposed + curvature * w - slope
    if below < LEAST_RATE * (rate + exposed):
        return size + slope * w, rate + exposed
    return size + curvature * w * w, below


@njit(**INNER)
def log_gamma(w, shape, rate):  # type: ignore[no-untyped-def]
    """Log density of a gamma at w."""
    return shape * math.log(rate) - math.lgamma(shape) + (shape - 1.0) * math.log(w) - rate * w


@njit(**INNER)
def _gain(data, means, moved, room):  # type: ignore[no-untyped-def]
    """Σ x log(m' / m)."""
    n = len(data)
    for m in range(n):
        room[m] = data[m] * log(moved[m] / means[m])
    return total_of(room[:n])


@njit(**INNER)
def _entry(w, data, g, means, moved, about, power, least, numbers, room):  # type: ignore[no-untyped-def]
    """The entry after its step; `means` are brought along."""
    exposed, size, rate = about
    slope, curvature = _slopes(data, g, means, power, room)
    shape, below = _proposal(w, slope, curvature, exposed, size, rate)
    new = max(standard_gamma(shape, *numbers) / below, least)
    for m in range(len(data)):
        after = means[m] + (new - w) * g[m]
        own = new * g[m]
        moved[m] = select(after > own, after, own)  # what the other components give is not negative
    gain = power * _gain(data, means, moved, room[0]) - (exposed + rate) * (new - w)
    gain += (size - 1.0) * (math.log(new) - math.log(w))
    slope, curvature = _slopes(data, g, moved, power, room)
    gain += log_gamma(w, *_proposal(new, slope, curvature, exposed, size, rate)) - log_gamma(new, shape, below)
    key0, key1, column, row, step, site = numbers
    u, _ = uniform_pair(key0, key1, column, row, step, site + JUDGED * TURN)
    if not gain > math.log(u):
        return w
    for m in range(len(data)):
        means[m] = moved[m]
    return new


@njit(**COMPILED)
def stepped(data, indices, starts, F, G, exposed, size, rate, power, address, least, out):  # type: ignore[no-untyped-def]
    """out (R, K) = the entries of F after a step of each.

    Args:
        data, indices, starts: the counts of each row of F, float64, int32, int64.
        exposed: E, (R, K), or (1, K) where it is that of all rows. size, rate: of the prior, (R, K).
        power: β, which E has in it.
        address: the two words of the key, the step, the site, and the number of the first row.
        least: that an entry may be.
    """
    key0, key1, step, site, first_row = address
    K, most = F.shape[1], 1
    for i in range(len(starts) - 1):
        most = max(most, starts[i + 1] - starts[i])
    gathered, room = np.empty((K, most)), np.empty((2, most))
    means, moved = np.empty(most), np.empty(most)
    for i in range(len(starts) - 1):
        low, n = starts[i], starts[i + 1] - starts[i]
        counts = data[low : low + n]
        for m in range(n):
            means[m] = 0.0
        for k in range(K):
            g = gathered[k]
            for m in range(n):
                g[m] = G[indices[low + m], k]
            for m in range(n):
                means[m] += F[i, k] * g[m]
        of_row = i if len(exposed) > 1 else 0
        for k in range(K):
            about = (exposed[of_row, k], size[i, k], rate[i, k])
            numbers = (key0, key1, k, first_row + i, step, site)
            out[i, k] = _entry(
                F[i, k], counts, gathered[k, :n], means[:n], moved[:n], about, power, least, numbers, room
            )
