r"""The steps of `metropolis` for counts that vary more than Poisson ones, the latent exposures integrated out.

Of the entry w = F_ik, with everything else and the dispersion φ as they are, the log conditional under a power β of the
likelihood is

.. math:: \beta \sum_j x_j \log m_j - (x_j + \varphi) \log(\varphi + m_j) + (a - 1) \log w - b w, \quad m_j = e_j F_i \cdot G_j.

The proposal is the gamma with the slope there, U - V with U = β Σ x g/m and V = β Σ (x + φ) g / (φ + m), g_j = e_j G_jk, and with
the curvature that is expected there, β Σ φ g² / (m (φ + m)); far from the mode it is that of shares, w U and V. All observed cells
count, zeros too.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from ppnmf.kernels.gammas import TURN, standard_gamma
from ppnmf.kernels.lanes import COMPILED, INNER, log, select, total_of
from ppnmf.kernels.metropolis import JUDGED, LEAST_RATE, log_gamma
from ppnmf.rng import uniform_pair

__all__ = ["stepped"]

LEAST_MEAN = 1e-280  # a mean below it is one


@njit(**INNER)
def _proposal(w, cells, means, phi, power, about, room):  # type: ignore[no-untyped-def]
    """The shape and the rate of the gamma from which w's successor is drawn."""
    x, g = cells
    size, rate = about
    n = len(x)
    up, down, curved = room[0, :n], room[1, :n], room[2, :n]
    for j in range(n):
        over = g[j] / (phi + means[j])
        here = g[j] / means[j]
        up[j] = x[j] * here
        down[j] = (x[j] + phi) * over
        curved[j] = phi * here * over
    U, V, curvature = power * total_of(up), power * total_of(down), power * total_of(curved)
    below = rate + V + curvature * w - U
    if below < LEAST_RATE * (rate + V):
        return size + U * w, rate + V
    return size + curvature * w * w, below


@njit(**INNER)
def _gain(x, means, moved, phi, room):  # type: ignore[no-untyped-def]
    """Σ x log(m' / m) - (x + φ) log((φ + m') / (φ + m))."""
    n = len(x)
    for j in range(n):
        falls = (x[j] + phi) * log((phi + moved[j]) / (phi + means[j]))
        room[0, j] = x[j] * log(moved[j] / means[j]) - falls
    return total_of(room[0, :n])


@njit(**INNER)
def _entry(w, cells, means, moved, about, phi, power, least, numbers, room):  # type: ignore[no-untyped-def]
    """The entry after its step; `means` are brought along."""
    x, g = cells
    size, rate = about
    shape, below = _proposal(w, cells, means, phi, power, about, room)
    new = max(standard_gamma(shape, *numbers) / below, least)
    for j in range(len(x)):
        after = max(means[j] + (new - w) * g[j], new * g[j])  # what the other components give is not negative
        moved[j] = select(after > LEAST_MEAN, after, LEAST_MEAN)
    gain = power * _gain(x, means, moved, phi, room) - rate * (new - w) + (size - 1.0) * (math.log(new) - math.log(w))
    back = _proposal(new, cells, moved, phi, power, about, room)
    gain += log_gamma(w, *back) - log_gamma(new, shape, below)
    key0, key1, column, row, step, site = numbers
    u, _ = uniform_pair(key0, key1, column, row, step, site + JUDGED * TURN)
    if not gain > math.log(u):
        return w
    for j in range(len(x)):
        means[j] = moved[j]
    return new


@njit(**COMPILED)
def stepped(data, exposed, indices, starts, F, G, size, rate, phi, power, address, least, out):  # type: ignore[no-untyped-def]
    """out (R, K) = the entries of F (R, K) after a step of each.

    Args:
        data, exposed, indices, starts: the counts of each row's observed cells, zeros too, their exposures and columns.
        G: the other factor, (S, K). size, rate: of the prior, (R, K). phi: φ.
        power: β. address: the two words of the key, the step, the site, and the number of the first row.
        least: that an entry may be.
    """
    key0, key1, step, site, first_row = address
    K, most = F.shape[1], 1
    for i in range(len(starts) - 1):
        most = max(most, starts[i + 1] - starts[i])
    gathered, room = np.empty((K, most)), np.empty((3, most))
    means, moved = np.empty(most), np.empty(most)
    for i in range(len(starts) - 1):
        low, n = starts[i], starts[i + 1] - starts[i]
        for m in range(n):
            means[m] = 0.0
        for k in range(K):
            g = gathered[k]
            for m in range(n):
                g[m] = exposed[low + m] * G[indices[low + m], k]
                means[m] += F[i, k] * g[m]
        for m in range(n):
            means[m] = max(means[m], LEAST_MEAN)
        for k in range(K):
            cells = (data[low : low + n], gathered[k, :n])
            numbers = (key0, key1, k, first_row + i, step, site)
            about = (size[i, k], rate[i, k])
            out[i, k] = _entry(F[i, k], cells, means[:n], moved[:n], about, phi, power, least, numbers, room)
