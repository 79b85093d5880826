r"""Coordinate ascent through a factor whose entries are independent rectified normals: their moments in place of draws.

Entry (i, k) of a factor given the others' means m and the statistics P and Q of the other factor, times β E[1/σ²], is
RectifiedNormal(a₀ + Q_kk, b₀ + P_ik - Σ_{l≠k} m_il Q_kl), where Q holds products of means off its diagonal and second
moments on it. `half_sweep` goes through the components in turn, as the other kernels do; `reference` defines it.

Mean and variance in the compiled one: with α = -b / √a and the hazard h(α) of the standard normal, (h - α) / √a and
(1 - h (h - α)) / a for α <= 2.5; beyond, where these cancel, by the backward recurrence of Mills' ratio, as in
`distributions.rectified_normal`, where the entropy is from too.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ppnmf.distributions import RectifiedNormal
from ppnmf.kernels import cpu, kernels_for
from ppnmf.kernels.cpu.normal import survival_factor
from ppnmf.kernels.cpu.rows import LANES, Lanes, _add_prior, _copy, _explain, _likelihood
from ppnmf.kernels.lanes import COMPILED, INNER, exp, log, select
from ppnmf.kernels.reference import column
from ppnmf.protocols import Statistics

__all__ = ["Moments", "half_sweep", "reference"]

BEYOND = 2.5  # α above it uses the recurrence
TERMS = 48  # of it: exact to rounding there
INVERSE_ROOT, HALF_LOG_2PI = 1 / math.sqrt(2 * math.pi), 0.5 * math.log(2 * math.pi)

Natural = tuple[Tensor, Tensor]  # (precision, linear) of a prior, (1 | R, 1 | K), perhaps with a leading axis of chains


class Moments(NamedTuple):
    """Independent rectified normals for the entries of a factor, float64, (C, R, K) each."""

    mean: Tensor
    variance: Tensor
    precision: Tensor
    linear: Tensor
    entropy: Tensor


def half_sweep(mean: Tensor, told: Statistics, prior: Natural, weight: Tensor) -> Moments:
    """The components in turn, each given the means of those before it.

    Args:
        mean: (C, R, K), float64; it stays as it is.
        told: P (C, R, K), and Q (C, K, K) or (C, R, K, K) with second moments on its diagonal, float64.
        weight: what they are taken times, (C,).
    """
    if kernels_for(mean.device) is not cpu:
        return reference(mean, told, prior, weight)
    C, R, K = mean.shape
    found = np.empty((5, C, K, R))
    found[0] = mean.mT.numpy()
    P, Q = told.P.mT.contiguous().numpy(), told.Q
    gram = (Q[..., None] if Q.ndim == 3 else Q.permute(0, 2, 3, 1)).contiguous().numpy()
    own = [values.expand(C, *values.shape[-2:]).double().contiguous().numpy() for values in prior]
    room = torch.empty(K + 6, LANES, dtype=torch.float64).numpy()
    for c, each in enumerate(weight.tolist()):
        _update(found[:, c], P[c], gram[c], own[0][c], own[1][c], each, room)
    return Moments(*(torch.from_numpy(part).mT for part in found))


def reference(mean: Tensor, told: Statistics, prior: Natural, weight: Tensor) -> Moments:
    """The same in plain torch, for any device."""
    statistics = told.weighted(weight)
    m, v, a, b, entropy = (mean.clone() for _ in range(5))
    for k in range(mean.shape[-1]):
        of_likelihood = column(k, m, statistics, (mean.new_zeros(1, 1), mean.new_zeros(1, 1)))
        own = [values[..., k if values.shape[-1] > 1 else 0].to(mean.device) for values in prior]
        each = RectifiedNormal(of_likelihood.precision + own[0], of_likelihood.linear + own[1], validate_args=False)
        a[..., k], b[..., k] = each.precision, each.linear
        m[..., k], v[..., k], entropy[..., k] = each.mean, each.variance, each.entropy()
    return Moments(m, v, a, b, entropy)


@njit(**COMPILED)
def _update(found, P, Q, precision, linear, weight, room):  # type: ignore[no-untyped-def]
    """found (5, K, R): means, in place, and what else `Moments` has, which is written."""
    _, K, R = found.shape
    part = room[:K]
    total = room[K]
    own = room[K + 1]
    a = room[K + 2]
    b = room[K + 3]
    s = room[K + 4]
    above = room[K + 5]
    for start in range(0, R, LANES):
        n = min(LANES, R - start)
        lanes = Lanes(start, start, n)
        for k in range(K):
            _copy(found[0, k, start : start + n], part[k])
        for k in range(K):
            _explain(Q, part, k, lanes, total, own)
            _likelihood(P[k, start : start + n], total, part[k], own, weight, a, b)
            _add_prior(precision, k, lanes, a)
            _add_prior(linear, k, lanes, b)
            _copy(a[:n], found[2, k, start : start + n])
            _copy(b[:n], found[3, k, start : start + n])
            outputs = part[k], found[1, k, start : start + n], found[4, k, start : start + n]
            _moments(a, b, n, outputs, s, above)
        for k in range(K):
            _copy(part[k, :n], found[0, k, start : start + n])


@njit(**INNER)
def _moments(a, b, n, outputs, s, above):  # type: ignore[no-untyped-def]
    """The first n means, variances and entropies of rectified normals; s, above: room."""
    mean, variance, entropy = outputs
    tails = 0
    for i in range(n):
        root = 1.0 / math.sqrt(select(a[i] > 0.0, a[i], 1.0))
        bound = -b[i] * root
        x = select(bound > BEYOND, BEYOND, abs(bound))
        fall = -0.5 * x * x
        factor, density = survival_factor(x), exp(select(fall > -600.0, fall, -600.0))
        share = 1.0 - density * factor  # P(Z > bound), where the bound is below 0
        hazard = INVERSE_ROOT * select(bound > 0.0, 1.0 / factor, density / share)
        excess = hazard - bound
        above_zero = select(bound > 0.0, bound, 0.0)
        drop = 0.5 * (
            1.0 + select(x < 40.0, bound * hazard, 0.0) - above_zero * above_zero
        )  # below the peak, on average
        entropy[i] = HALF_LOG_2PI + log(root * select(bound > 0.0, factor, share)) + drop
        mean[i] = excess * root
        variance[i] = (1.0 - hazard * excess) * root * root
        tails += -b[i] > BEYOND * math.sqrt(a[i])
    if tails == 0:
        return
    for i in range(n):
        ratio = a[i] / (b[i] * b[i])
        s[i] = 2.0 * (TERMS + 1) / (1.0 + math.sqrt(1.0 + 4.0 * (TERMS + 1) * ratio))
        above[i] = s[i]
    for term in range(TERMS, 0, -1):
        for i in range(n):
            above[i] = s[i]
            s[i] = term / (1.0 + a[i] / (b[i] * b[i]) * s[i])
    for i in range(n):
        if -b[i] > BEYOND * math.sqrt(a[i]):
            mean[i] = -s[i] / b[i]
            inverse_mass = -b[i] * (1.0 + a[i] / (b[i] * b[i]) * s[i])
            entropy[i] = 0.5 + 0.5 * s[i] - math.log(inverse_mass)
            variance[i] = s[i] * (above[i] - s[i]) / (b[i] * b[i])
