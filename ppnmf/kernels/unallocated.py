r"""Densities of gamma entries given counts, summed over all the ways in which the counts may be allocated to the components.

Of an entry t of a factor, with everything else as it is, the density is in proportion to

.. math:: f(t) = t^{a-1} e^{-c t} \prod_j (m_j + g_j t)^{x_j},

x_j the counts that it has a part in, m_j what the other components give to their means and g_j what a unit of t gives; a is the
prior's shape, c the prior's rate and the exposures together. It is a sum of gamma densities with positive weights, one for each
number of events that may be the entry's own, and in log t each of them is entire, so the trapezoidal rule errs by less than a
millionth once its step is below a standard deviation of the narrowest that counts. Where nothing is left but t^(a - 1) the rest
of the rule is a geometric series.

*A component whose length is integrated out.* Given the row h (R,) of one factor, the column that goes with it is w = c u, u fixed.
With A the sum of w's shapes and B = Σ b_i w_i, at the w at hand where c = 1,

.. math:: p(c, h \mid u) \propto c^{A-1} e^{-cB}
   \prod_j h_j^{a_j-1} e^{-(b_j + c E_j) h_j} \prod_i (m_{ij} + c \, w_i h_j)^{x_{ij}},

E_j the exposures of w. With h given that is an f of c. Integrated over h, with t_j = c h_j, it is

.. math:: c^{A - 1 - \sum_j a_j} e^{-cB} \prod_j \int t^{a_j-1} e^{-(E_j + b_j / c) t} \prod_i (m_{ij} + w_i t)^{x_{ij}} \, dt,

and all its integrals, for every c, are sums over the same nodes.

Factors have their rows leading, F (R, K) and G (S, K); counts are compressed rows of X, or of its transpose.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from ppnmf.kernels.lanes import COMPILED, INNER, exp, fused, log, select, total_of

__all__ = ["components", "entries", "log_mass"]

STEP = 0.65  # standard deviations of the narrowest gamma that counts, between nodes
WIDE_STEP = 0.5  # standard deviations of log c between its nodes
NEGLIGIBLE = 20.0  # nats below the greatest at which no more nodes are taken
NEWTON, NEAR = 60, 0.2  # steps towards a mode at most, and the standard deviations below which one is the last
NOTHING = 1e-7  # events, expected of an entry, that are none
MOST = 4096  # nodes of an entry at most; some dozens are taken
OUT = 700.0  # an exponent that is none
REACH = 12.0  # standard deviations of log c for which nodes are made at first
FARTHEST = 12.0  # of log c from the w at hand, at most


class Entry(NamedTuple):
    """What the density of an entry is made of."""

    size: float  # a
    counts: np.ndarray  # x, (J,)
    others: np.ndarray  # m
    own: np.ndarray  # g


class Nodes(NamedTuple):
    """Room for the nodes of many entries, one after another: t, and log f(t) t of a rule with unit step."""

    t: np.ndarray
    log_f: np.ndarray


@njit(**INNER)
def _log_means(t, entry, room):  # type: ignore[no-untyped-def]
    """Σ x log(m + g t)."""
    n = len(entry.counts)
    for j in range(n):
        room[j] = entry.counts[j] * log(fused(entry.own[j], t, entry.others[j]))
    return total_of(room[:n])


@njit(**INNER)
def _events(t, entry, room):  # type: ignore[no-untyped-def]
    """How many events are expected to be the entry's own, and the sum of their variances."""
    n = len(entry.counts)
    for j in range(n):
        part = entry.own[j] * t
        room[0, j] = part / (entry.others[j] + part)
        room[1, j] = entry.counts[j] * room[0, j]
    number = total_of(room[1, :n])
    for j in range(n):
        room[1, j] *= 1.0 - room[0, j]
    return number, total_of(room[1, :n])


@njit(**INNER)
def _mode(rate, entry, room):  # type: ignore[no-untyped-def]
    """log t where f(t) t is greatest, sought from above, and how many events are the entry's there."""
    y = math.log((entry.size + entry.counts.sum()) / rate)
    number = 0.0
    for _ in range(NEWTON):
        t = math.exp(y)
        number, variance = _events(t, entry, room)
        slope = entry.size + number - rate * t
        curvature = rate * t - variance
        step = math.log((entry.size + number) / (rate * t))  # of EM: never past the greatest mode
        if curvature > 0.1 * rate * t:
            step = min(max(slope / curvature, -1.0), 1.0)
        y += step
        if abs(step) * math.sqrt(entry.size + number) < NEAR:
            break
    return y, number


@njit(**INNER)
def _laid(rate, least, most, entry, nodes, first, room):  # type: ignore[no-untyped-def]
    """The nodes of one entry from place `first` on, for rates from `least` to `most`: how many, and the log of their step.

    `rate` is the one under which log f is noted.
    """
    y, number = _mode(least, entry, room)
    step = STEP / math.sqrt(max(entry.size + number, 1.0))
    count = 0
    highest = -np.inf  # under the rate `most`
    for side in (1.0, -1.0):
        slope = least if side > 0.0 else most
        greatest = highest if side < 0.0 else -np.inf
        before = -np.inf
        here = y if side > 0.0 else y - step
        while count < MOST:
            t = math.exp(here)
            plain = entry.size * here + _log_means(t, entry, room[0])
            nodes.t[first + count] = t
            nodes.log_f[first + count] = plain - rate * t
            count += 1
            value = plain - slope * t
            greatest = max(greatest, value)
            highest = max(highest, plain - most * t)
            if value < before and value < greatest - NEGLIGIBLE:
                break
            if side < 0.0 and most * t < NOTHING and _events(t, entry, room)[0] < NOTHING:
                nodes.t[first + count] = 0.0
                nodes.log_f[first + count] = plain - math.log(math.expm1(entry.size * step))
                count += 1
                break
            before = value
            here += side * step
    return count, math.log(step)


@njit(**INNER)
def _log_mass(rate, entry, nodes, room):  # type: ignore[no-untyped-def]
    """log ∫ f(t) dt."""
    count, log_step = _laid(rate, rate, rate, entry, nodes, 0, room)
    logs = nodes.log_f[:count]
    greatest = logs.max()
    total = 0.0
    for n in range(count):
        total += math.exp(logs[n] - greatest)
    return greatest + math.log(total) + log_step


@njit(**INNER)
def _room(longest):  # type: ignore[no-untyped-def]
    return np.empty((2, max(longest, 1))), Nodes(np.empty(MOST + 1), np.empty(MOST + 1))


@njit(**COMPILED)
def log_mass(size, rate, counts, others, own):  # type: ignore[no-untyped-def]
    """log ∫ t^(size - 1) exp(-rate t) Π (others + own t)^counts dt over t > 0."""
    room, nodes = _room(len(counts))
    return _log_mass(rate, Entry(size, counts, others, own), nodes, room)


@njit(**INNER)
def _others(indices, f, G, k, out):  # type: ignore[no-untyped-def]
    """out = what the components other than k give to the means of a row's counts."""
    for m in range(len(indices)):
        total = 0.0
        for other in range(len(f)):
            if other != k:
                total += f[other] * G[indices[m], other]
        out[m] = total


@njit(**COMPILED)
def entries(data, indices, starts, F, G, k, exposed, size, rate, at, out):  # type: ignore[no-untyped-def]
    """out (R,) = the log density of F[:, k] at the points `at` (R,), given the other entries of F (R, K), G (S, K) and the counts.

    Args:
        data, indices, starts: the counts of each row of F, float64, int32, int64.
        exposed: of column k, (R,) or (1,). size, rate: of its prior, (R,).
    """
    longest = 1
    for i in range(len(F)):
        longest = max(longest, starts[i + 1] - starts[i])
    room, nodes = _room(longest)
    others, own = np.empty(longest), np.empty(longest)
    for i in range(len(F)):
        low, n = starts[i], starts[i + 1] - starts[i]
        seen = indices[low : low + n]
        _others(seen, F[i], G, k, others)
        for m in range(n):
            own[m] = G[seen[m], k]
        entry = Entry(size[i], data[low : low + n], others[:n], own[:n])
        slope = rate[i] + exposed[i if len(exposed) > 1 else 0]
        point = (size[i] - 1.0) * math.log(at[i]) - slope * at[i] + _log_means(at[i], entry, room[0])
        out[i] = point - _log_mass(slope, entry, nodes, room)


class Length(NamedTuple):
    """What is known of a component's length: A, B, and of the entries of its row their shapes, rates and exposures, (R,)."""

    size: float
    rate: float
    sizes: np.ndarray
    rates: np.ndarray
    exposed: np.ndarray


@njit(**INNER)
def _all_laid(length, starts, data, others, own, reach, nodes, ends, steps, room):  # type: ignore[no-untyped-def]
    """The nodes of all entries for log c within `reach` of 0; ends (R + 1,), steps (R,) the logs of theirs. Grown where short."""
    high, low = math.exp(reach), math.exp(-reach)
    ends[0] = 0
    for j in range(len(length.sizes)):
        if ends[j] + MOST + 1 > len(nodes.t):
            t, log_f = np.empty(2 * len(nodes.t) + MOST + 1), np.empty(2 * len(nodes.t) + MOST + 1)
            t[: ends[j]] = nodes.t[: ends[j]]
            log_f[: ends[j]] = nodes.log_f[: ends[j]]
            nodes = Nodes(t, log_f)
        span = slice(starts[j], starts[j + 1])
        entry = Entry(length.sizes[j], data[span], others[span], own[span])
        e, b = length.exposed[j if len(length.exposed) > 1 else 0], length.rates[j]
        count, steps[j] = _laid(e + b, e + b * low, e + b * high, entry, nodes, ends[j], room)
        ends[j + 1] = ends[j] + count
        greatest = nodes.log_f[ends[j] : ends[j + 1]].max()
        for n in range(ends[j], ends[j + 1]):
            nodes.log_f[n] -= greatest
        steps[j] += greatest
    return nodes


@njit(**INNER)
def _of_length(z, length, nodes, ends, weights):  # type: ignore[no-untyped-def]
    """Of log c = z: log density with h integrated out, but for `steps`, its slope, and minus its curvature."""
    c = math.exp(z)
    v = 1.0 / c
    value = (length.size - length.sizes.sum()) * z - c * length.rate
    slope = length.size - length.sizes.sum() - c * length.rate
    curvature = c * length.rate
    for j in range(len(length.sizes)):
        tilt = length.rates[j] * (v - 1.0)
        low, n = ends[j], ends[j + 1] - ends[j]
        for m in range(n):
            x = nodes.log_f[low + m] - tilt * nodes.t[low + m]
            weights[m] = exp(select(x > -OUT, x, -OUT))
        total = total_of(weights[:n])
        for m in range(n):
            weights[m] *= nodes.t[low + m]
        mean = total_of(weights[:n]) / total
        for m in range(n):
            weights[m] *= nodes.t[low + m]
        spread = total_of(weights[:n]) / total - mean * mean
        turned = v * length.rates[j]
        value += math.log(total)
        slope += turned * mean
        curvature += turned * mean - turned * turned * spread
    return value, slope, curvature


@njit(**INNER)
def _centre(length, nodes, ends, weights, reach):  # type: ignore[no-untyped-def]
    """log c at its mode within reach, and its standard deviation there."""
    z, deviation = 0.0, 1.0
    for _ in range(NEWTON):
        _, slope, curvature = _of_length(z, length, nodes, ends, weights)
        deviation = 1.0 / math.sqrt(max(curvature, 0.1 * math.exp(z) * length.rate))
        step = min(max(slope * deviation * deviation, -2.0 * deviation), 2.0 * deviation)
        z = min(max(z + step, -reach), reach)
        if abs(step) < NEAR * deviation:
            break
    return z, deviation


@njit(**INNER)
def _over_length(length, nodes, ends, weights, reach):  # type: ignore[no-untyped-def]
    """log ∫ of c's density with h integrated out, but for `steps`; and whether it lies within reach."""
    centre, deviation = _centre(length, nodes, ends, weights, reach)
    greatest = _of_length(centre, length, nodes, ends, weights)[0]
    total, inside = 1.0, True
    for side in (-1.0, 1.0):
        z, before = centre, greatest
        while True:
            z += side * WIDE_STEP * deviation
            if abs(z) > reach:
                inside = False
                break
            here = _of_length(z, length, nodes, ends, weights)[0]
            if here > greatest:
                total = total * math.exp(greatest - here) + 1.0
                greatest = here
            else:
                total += math.exp(here - greatest)
            if here < before and here < greatest - NEGLIGIBLE:
                break
            before = here
    return greatest + math.log(total * WIDE_STEP * deviation), inside


@njit(**INNER)
def _below(length, h, starts, data, others, own, nodes, room):  # type: ignore[no-untyped-def]
    """log ∫ of the density of c and h over both; the nodes' room as it is afterwards."""
    R = len(length.sizes)
    ends, steps = np.empty(R + 1, np.int64), np.empty(R)
    weights = np.empty(MOST + 1)
    about = length.rate
    for j in range(R):
        about += length.rates[j] * h[j]
    reach = min(REACH / math.sqrt(about), FARTHEST)
    while True:
        nodes = _all_laid(length, starts, data, others, own, reach, nodes, ends, steps, room)
        value, inside = _over_length(length, nodes, ends, weights, reach)
        if inside or reach >= FARTHEST:
            return value + steps.sum(), nodes
        reach = min(2.0 * reach, FARTHEST)


@njit(**COMPILED)
def components(data, indices, starts, F, G, exposed, row, column, labels, at, out):  # type: ignore[no-untyped-def]
    """out (B, L) = the log density of a column of F at the points `at` (B, R), with the length of G's column integrated out.

    Args:
        data, indices, starts: the counts of each row of F, float64, int32, int64.
        F (B, R, K), G (B, S, K): draws. exposed: Σ e G, (B, R, K) or (B, 1, K).
        row: the shapes and rates (K, R) of F's prior. column: those of G's, (K, S).
        labels: the components that may play the part, (L,).
    """
    sizes, rates = row
    others, own, scaled = np.empty(len(data)), np.empty(len(data)), np.empty(len(data))
    room, nodes = _room(len(data))
    for d in range(len(F)):
        for m in range(len(labels)):
            k = labels[m]
            h = at[d]
            for j in range(F.shape[1]):
                span = slice(starts[j], starts[j + 1])
                _others(indices[span], F[d, j], G[d], k, others[span])
                for n in range(starts[j], starts[j + 1]):
                    own[n] = G[d, indices[n], k]
                    scaled[n] = own[n] * h[j]
            rate = 0.0
            for i in range(G.shape[1]):
                rate += column[1][k, i] * G[d, i, k]
            length = Length(column[0][k].sum(), rate, sizes[k], rates[k], np.ascontiguousarray(exposed[d, :, k]))
            slope, prior = rate, 0.0
            for j in range(len(h)):
                slope += length.exposed[j if len(length.exposed) > 1 else 0] * h[j]
                prior += (sizes[k, j] - 1.0) * math.log(h[j]) - rates[k, j] * h[j]
            above = _log_mass(slope, Entry(length.size, data, others, scaled), nodes, room)
            below, nodes = _below(length, F[d, :, k], starts, data, others, own, nodes, room)
            out[d, m] = prior + above - below
