"""The kernels for the CPU, compiled by Numba: what `reference` defines, a block of rows at a time with its K steps in cache.

The rows of a block are the lanes of the vector registers; factors are stored a component a row, so that lanes lie side
by side. Every function releases the GIL, works on one thread and computes in float64 whatever the arrays hold; callers
run blocks and chains on several threads. The draws are the reference's, address by address, to rounding.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numba import njit, types
from numba.core.typing import Signature
from torch import Tensor

from ppnmf.kernels.lanes import (
    COMPILED,
    INLINED,
    INNER,
    bits,
    exp,
    from_bits,
    fused,
    inner,
    log,
    polynomial,
    select,
    total_of,
)
from ppnmf.kernels.parts import address_of, called_by_address
from ppnmf.kernels.reference import GAMMA_PROPOSALS, Natural, shear_rounds
from ppnmf.protocols import Statistics
from ppnmf.rng import Site, Stream, uniform_pair

__all__ = ["half_sweep", "inverse_gamma", "moved", "scale_move", "shear_move", "survival_factor"]

# NumPy's numbers: one of Python's would be part of the type of the function called, and each be compiled for itself
SITE_SIGMA2, SITE_SCALE, SITE_PAIRS, SITE_SHEAR = (
    np.int64(site) for site in (Site.SIGMA2, Site.SCALE, Site.SHEAR_PAIRS, Site.SHEAR)
)
FIRST_PAIR, SECOND_PAIR, FIRST_ROW, EXTRA_ROW = (np.int64(number) for number in (0, 1, 0, GAMMA_PROPOSALS))
LANES = 128  # rows that go through a component together
TAIL = 5.0  # standard deviations past the mode where the bound's excess is solved for instead of the quantile
LOT = 128  # ratios that are looked at together
DOUBLES = types.Array(types.float64, 2, "C")
RARE = 1e-4  # below this a uniform may lead past the quantile's second range

# Wichura (1988), algorithm AS 241: numerators and denominators, highest power first, of the quantile's three ranges
# fmt: off
CENTRE = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
     13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.3871328727963666080),
    (5226.4952788528545610, 28729.085735721942674, 39307.895800092710610, 21213.794301586595867,
     5394.1960214247511077, 687.18700749205790830, 42.313330701600911252, 1.0),
)
SHOULDER = (
    (7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258,
     3.64784832476320460504, 5.76949722146069140550, 4.63033784615654529590, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
     6.89767334985100004550e-1, 1.67638483018380384940, 2.05319162663775882187, 1.0),
)
FAR = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2,
     2.96560571828504891230e-1, 1.78482653991729133580, 5.46378491116411436990, 6.65790464350110377720),
    (2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
     1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0),
)
# (1 + √2 x) erfcx(x / √2) / 2 on x >= 0 as a polynomial in (x - 5.6) / (x + 5.6), within 8e-15 of itself
MILLS = (
    -1.061260178420146e-09, 2.7843168903633132e-08, -7.840391135907725e-09, -3.3502926713451015e-07,
    3.8857414935969546e-07, 2.337320461375576e-06, -6.457707532995282e-06, -7.3160496328980594e-06,
    6.981896304325495e-05, -0.00012027157212121321, -0.00026526681917654735, 0.0022158628726059175,
    -0.007561343144989484, 0.017903156417489005, -0.03262697707034075, 0.04683604399663786,
    -0.05117851077797585, 0.035149106871919175, 0.0068128100344873235, -0.06988382089737939, 0.616850338623865,
)
# fmt: on
_centre_above, _centre_below = polynomial(CENTRE[0]), polynomial(CENTRE[1])
_shoulder_above, _shoulder_below = polynomial(SHOULDER[0]), polynomial(SHOULDER[1])
_far_above, _far_below = polynomial(FAR[0]), polynomial(FAR[1])
_mills = polynomial(MILLS)


@njit(**INNER)
def _ndtri(p: float) -> float:
    """Quantile of the standard normal (AS 241), relative error about 1e-16."""
    q = p - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        return q * _centre_above(r) / _centre_below(r)
    r = math.sqrt(-math.log(p if q < 0 else 1 - p))
    z = _shoulder_above(r - 1.6) / _shoulder_below(r - 1.6) if r <= 5.0 else _far_above(r - 5.0) / _far_below(r - 5.0)
    return -z if q < 0 else z


@njit(**INLINED)
def survival_factor(x: float) -> float:
    """P(Z > x) exp(x²/2) for a standard normal Z and x >= 0: `_mills` over 1 + √2 x, with one division for both quotients."""
    below, other = x + 5.6, 1.0 + 1.4142135623730951 * x
    shared = 1.0 / (below * other)
    return _mills((x - 5.6) * (other * shared)) * (below * shared)


@njit(**INLINED)
def _excess(bound: float, target: float) -> float:
    """e with log P(Z > bound) - log P(Z > bound + e) = target, bound >= TAIL: three steps of Halley.

    The left side is e (bound + e / 2) - log(f(bound + e) / f(bound)), f the survival factor; its slope is the hazard
    h = 1 / (√(2π) f), and the hazard's own slope is h (h - bound - e).
    """
    e = 2 * target / (bound + math.sqrt(bound * bound + 2 * target))
    at_bound = 1.0 / survival_factor(bound)
    for _ in range(3):
        factor = survival_factor(bound + e)
        mean = 2.5066282746310002 * factor  # 1 / h
        newton = (e * (bound + 0.5 * e) - log(factor * at_bound) - target) * mean
        e -= newton / (1.0 - 0.5 * newton * (1.0 / mean - bound - e))
    return select(e > 0.0, e, 0.0)


@njit(**INNER)
def survival_inverse(precision: float, linear: float, u: float) -> float:
    """The w with P(w' > w) = u under the density ∝ exp(-precision w²/2 + linear w) on w >= 0."""
    if precision <= 0.0 or -linear > 1e8 * math.sqrt(precision):
        return math.log(u) / linear
    root = math.sqrt(precision)
    bound = -linear / root  # in standard deviations past the mode
    if bound > TAIL:
        return _excess(bound, -math.log(u)) / root
    z = -_ndtri(u * 0.5 * math.erfc(bound * 0.7071067811865476))
    return max(z - bound, 0.0) / root


@njit(**INNER)
def _draw(precision, linear, per_root, u, w, n):  # type: ignore[no-untyped-def]
    """w[:n] = survival_inverse(precision, linear, u), all lanes at once; the rare cases are then done one by one.

    per_root: 1 / √precision.
    """
    tails, rare = 0, 0
    for i in range(n):
        bound = -linear[i] * per_root[i]
        x = abs(bound)
        fall = -0.5 * x * x
        beyond = survival_factor(x) * exp(select(fall > -600.0, fall, -600.0))  # P(Z > |bound|), clear of denormals
        p = u[i] * select(bound > 0.0, beyond, 1.0 - beyond)  # P(Z > z)
        q = p - 0.5
        other = select(bound < 0.0, (1.0 - u[i]) + u[i] * beyond, 1.0 - p)
        r = math.sqrt(-log(select(q < 0.0, p, other)))
        sign = select(q < 0.0, 1.0, -1.0)
        c, s = 0.180625 - q * q, r - 1.6
        central = abs(q) <= 0.425
        above = select(central, -q * _centre_above(c), sign * _shoulder_above(s))
        e = above / select(central, _centre_below(c), _shoulder_below(s)) - bound
        w[i] = select(e > 0.0, e, 0.0) * per_root[i]
        tails += bound > TAIL
        rare += (precision[i] <= 0.0) | (u[i] < RARE)
    if tails > n // 8:
        for i in range(n):
            bound, target = -linear[i] * per_root[i], -log(u[i])
            near = _excess(select(bound < 1e8, bound, 1e8), target) * per_root[i]
            w[i] = select(bound > TAIL, select(bound > 1e8, -target / linear[i], near), w[i])
        tails = 0
    if tails + rare > 0:
        for i in range(n):
            if precision[i] <= 0.0 or u[i] < RARE or (tails > 0 and -linear[i] > TAIL * math.sqrt(precision[i])):
                w[i] = survival_inverse(precision[i], linear[i], u[i])


@njit(**INNER)
def _uniforms(key0, key1, pair, first_row, step, site, n, even, odd):  # type: ignore[no-untyped-def]
    """`uniform_pair` of n rows, all lanes at once."""
    for i in range(n):
        even[i], odd[i] = uniform_pair(key0, key1, pair, first_row + i, step, site)


@njit(**INNER)
def _explained(Q, F, n, total):  # type: ignore[no-untyped-def]
    """total[:n] = Σ_l Q[l] F[l, :n], four components at a time; Q (K,)."""
    K = len(Q)
    for i in range(n):
        total[i] = 0.0
    for l in range(0, K - 3, 4):
        a, b, c, d = np.float64(Q[l]), np.float64(Q[l + 1]), np.float64(Q[l + 2]), np.float64(Q[l + 3])
        for i in range(n):
            two = fused(b, F[l + 1, i], fused(a, F[l, i], total[i]))
            total[i] = fused(d, F[l + 3, i], fused(c, F[l + 2, i], two))
    for l in range(K - K % 4, K):
        a = np.float64(Q[l])
        for i in range(n):
            total[i] = fused(a, F[l, i], total[i])


@njit(**INNER)
def _explained_row_by_row(Q, F, start, n, total):  # type: ignore[no-untyped-def]
    """total[:n] = Σ_l Q[l, start:start + n] F[l, :n]; Q (K, R)."""
    for i in range(n):
        total[i] = 0.0
    for l in range(len(Q)):
        for i in range(n):
            total[i] = fused(np.float64(Q[l, start + i]), F[l, i], total[i])


@njit(**COMPILED)
def update_rows(F, P, Q, prior, weight, address, rows, first, sample, room):  # type: ignore[no-untyped-def]
    """Rows lo to hi of F (K, R), a component a row, in place, by P and Q times `weight`.

    Args:
        P, Q: (K, R - shift) and (K, K, 1 | R - shift); they begin at row `shift` of F.
        prior: precision and linear, (1 | R, 1 | K).
        address: the two words of the key, the step, the site, and the number that F's first row has in the whole factor.
        rows: lo, hi and shift.
        first: the first component that is updated.
        sample: draw, or else take the modes.
        room: `room_for_rows(K)`.
    """
    K = len(F)
    precision, linear = prior
    key0, key1, step, site, first_row = address
    lo, hi, shift = rows
    part = room[:K]  # the rows that are worked on, in double precision
    total, own, a, b = room[K], room[K + 1], room[K + 2], room[K + 3]
    even, odd, drawn, per_root = room[K + 4], room[K + 5], room[K + 6], room[K + 7]
    alike = Q.shape[2] == 1 and precision.shape[0] == 1  # one precision for all rows
    for start in range(lo, hi, LANES):
        n = min(LANES, hi - start)
        at = start - shift
        for k in range(K):
            _copy(F[k, start : start + n], part[k])
        for k in range(first, K):
            if Q.shape[2] == 1:
                _explained(Q[k, :, 0], part, n, total)
                for i in range(n):
                    own[i] = Q[k, k, 0]
            else:
                _explained_row_by_row(Q[k], part, at, n, total)
                _copy(Q[k, k, at : at + n], own)
            _likelihood(P[k, at : at + n], total, part[k], own, weight, a, b)
            _add_prior(precision, start, k, n, a)
            _add_prior(linear, start, k, n, b)
            if sample:
                if k % 2 == 0 or k == first:
                    _uniforms(key0, key1, k // 2, first_row + start, step, site, n, even, odd)
                if alike:
                    root = 1.0 / math.sqrt(a[0])
                    for i in range(n):
                        per_root[i] = root
                else:
                    for i in range(n):
                        per_root[i] = 1.0 / math.sqrt(a[i])
                _draw(a, b, per_root, even if k % 2 == 0 else odd, drawn, n)
                _copy(drawn[:n], part[k])
            else:
                _modes(a, b, part[k, :n])
        for k in range(first, K):
            _copy(part[k, :n], F[k, start : start + n])


@njit(**INNER)
def _copy(source, target):  # type: ignore[no-untyped-def]
    for i in range(len(source)):
        target[i] = source[i]


@njit(**INNER)
def _likelihood(P, total, w, own, weight, a, b):  # type: ignore[no-untyped-def]
    """The likelihood's natural parameters of a component, in each lane."""
    for i in range(len(P)):
        a[i] = weight * own[i]
        b[i] = weight * (np.float64(P[i]) - fused(-w[i], own[i], total[i]))


@njit(**INNER)
def _add_prior(natural, start, k, n, total):  # type: ignore[no-untyped-def]
    """total[:n] += the natural parameter (1 | R, 1 | K) of component k in rows start ... start + n."""
    column = k if natural.shape[1] > 1 else 0
    if natural.shape[0] > 1:
        for i in range(n):
            total[i] += natural[start + i, column]
    else:
        one = natural[0, column]
        for i in range(n):
            total[i] += one


@njit(**INNER)
def _modes(a, b, w):  # type: ignore[no-untyped-def]
    """max(b / a, 0), where anything is said about w."""
    for i in range(len(w)):
        mode = select(b[i] > 0.0, b[i] / a[i], 0.0)
        w[i] = select((a[i] > 0.0) | (b[i] != 0.0), mode, w[i])


def half_sweep(
    F: Tensor,
    statistics: Statistics,
    prior: Natural,
    draw: tuple[Stream, int, Site] | None,
    first_row: int = 0,
    first: int = 0,
    weight: Tensor | None = None,
) -> Tensor:
    """`reference.half_sweep`, compiled; factors and statistics are best stored a component a row (F.mT contiguous)."""
    out = F.mT.clone(memory_format=torch.contiguous_format).numpy()
    precision, linear = (natural.double().contiguous().numpy() for natural in prior)
    P, Q = statistics.P.mT.contiguous().numpy(), statistics.Q
    gram = (Q[..., None] if Q.ndim == F.ndim else Q.permute(0, 2, 3, 1)).contiguous().numpy()
    stream, step, site = draw if draw is not None else (None, 0, Site.W)
    weights = [1.0] * len(F) if weight is None else weight.tolist()
    rows = (0, F.shape[1], 0)
    room = room_for_rows(F.shape[2])
    for c in range(F.shape[0]):
        key = stream.keys[c] if stream is not None else (0, 0)
        address = (*key, step, int(site), first_row)
        update_rows(
            out[c], P[c], gram[c], (precision, linear), weights[c], address, rows, first, draw is not None, room
        )
    return torch.from_numpy(out).mT


def room_for_rows(K: int) -> np.ndarray:
    """What `update_rows` works in, (K + 8, LANES): torch's memory, which begins where a vector does; across two it costs twice."""
    return torch.empty(K + 8, LANES, dtype=torch.float64).numpy()


@njit(**INNER)
def _pair(key0, key1, pair, row, step, site):  # type: ignore[no-untyped-def]
    """`uniform_pair` as a function that is called, where no lanes are filled."""
    return uniform_pair(key0, key1, pair, row, step, site)


@njit(**COMPILED)
def standard_gamma(shape: float, key0: int, key1: int, step: int) -> float:
    boosted = shape if shape >= 1 else shape + 1
    d = boosted - 1 / 3
    v = 0.0
    for trial in range(GAMMA_PROPOSALS):
        u, w = _pair(key0, key1, FIRST_PAIR, trial, step, SITE_SIGMA2)
        z = _ndtri(u)
        v = (1 + z / math.sqrt(9 * d)) ** 3
        if v > 0 and math.log(w) < 0.5 * z * z + d * (1 - v + math.log(v)):
            break
    if shape < 1:
        return d * v * _pair(key0, key1, FIRST_PAIR, EXTRA_ROW, step, SITE_SIGMA2)[0] ** (1 / shape)
    return d * v


def inverse_gamma(shape: float, scale: Tensor, stream: Stream, step: int) -> Tensor:
    """`reference.inverse_gamma`, compiled."""
    draws = [standard_gamma(float(shape), *key, step) for key in stream.keys]
    return scale.double() / torch.tensor(draws, dtype=torch.float64)


@njit(**INNER)
def _psi(x: float, alpha: float, order: float) -> float:
    """Log density of log X past its mode, Devroye (2014); its two terms are written so that neither cancels near 0."""
    half = math.sinh(0.5 * x)
    growth = (
        math.expm1(x) - x if abs(x) > 1e-2 else x * x * (0.5 + x * (1 / 6 + x * (1 / 24 + x * (1 / 120 + x / 720))))
    )
    return -2.0 * alpha * half * half - order * growth


@njit(**COMPILED)
def generalized_inverse_gaussian(p, a, b, key0, key1, step, k, K):  # type: ignore[no-untyped-def]
    """Density ∝ x^(p-1) exp(-(a x + b / x) / 2): Devroye (2014), doi:10.1007/s11222-012-9367-z."""
    order, omega = abs(p), math.sqrt(a) * math.sqrt(b)
    radius = math.hypot(omega, order)
    alpha = omega * (omega / (radius + order))
    at = -_psi(1.0, alpha, order)
    if at > 2:
        t = math.sqrt(2 / (alpha + order))
    elif at < 0.5:
        t = math.log(4 / (alpha + 2 * order))
    else:
        t = 1.0
    at = -_psi(-1.0, alpha, order)
    if at > 2:
        s = math.sqrt(4 / (alpha * math.cosh(1.0) + order))
    elif at < 0.5:
        s = math.log(1 + 1 / alpha + math.sqrt(1 / (alpha * alpha) + 2 / alpha))
        if order > 0:
            s = min(1 / order, s)
    else:
        s = 1.0
    eta, zeta = -_psi(t, alpha, order), alpha * math.sinh(t) + order * math.expm1(t)
    theta, xi = -_psi(-s, alpha, order), alpha * math.sinh(s) - order * math.expm1(-s)
    left, right = 1 / xi, 1 / zeta
    t_in, s_in = t - right * eta, s - left * theta
    middle = t_in + s_in
    x = 0.0
    for trial in range(1000):
        u, v = _pair(key0, key1, FIRST_PAIR, trial * K + k, step, SITE_SCALE)
        w, _ = _pair(key0, key1, SECOND_PAIR, trial * K + k, step, SITE_SCALE)
        u *= left + middle + right
        if u < middle:
            x, log_cover = -s_in + middle * v, 0.0
        elif u < middle + right:
            x = t_in - right * math.log(v)
            log_cover = -eta - zeta * (x - t)
        else:
            x = -s_in + left * math.log(v)
            log_cover = -theta + xi * (x + s)
        if math.log(w) + log_cover <= _psi(x, alpha, order):
            break
    log_mode = math.log((order + radius) / omega) + x
    return math.sqrt(b / a) * math.exp(log_mode if p >= 0 else -log_mode)


@njit(**INNER)
def _rated(F, total, rates, k):  # type: ignore[no-untyped-def]
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
def _least_ratio(above, below):  # type: ignore[no-untyped-def]
    """`_least_quotient`, a lot at a time: few lots hold one below the least so far, and telling so takes no division."""
    least = np.inf
    for start in range(0, len(above), LOT):
        a, b = above[start : start + LOT], below[start : start + LOT]
        if least == np.inf or _any_below(a, b, least):
            least = min(least, _least_quotient(a, b))
    return least


@njit(**INNER)
def _shift(F, G, t):  # type: ignore[no-untyped-def]
    """F ← max(F + t G, 0), and the sum of that."""
    for i in range(len(F)):
        moved = fused(t, np.float64(G[i]), np.float64(F[i]))
        F[i] = select(moved > 0.0, moved, 0.0)
    return total_of(F)


@njit(**INNER)
def _scale(F, c):  # type: ignore[no-untyped-def]
    """F ← c F."""
    for i in range(len(F)):
        F[i] *= c


@njit(**INNER)
def _divide(F, c):  # type: ignore[no-untyped-def]
    """F ← F / c."""
    for i in range(len(F)):
        F[i] /= c


@njit(**INNER)
def _move_scales(W, H, rate_W, rate_H, key0, key1, step):  # type: ignore[no-untyped-def]
    K = len(W)
    order = float(W.shape[1] - H.shape[1])
    for k in range(K):
        a = 2 * _rated(W[k], total_of(W[k]), rate_W, k)
        b = 2 * _rated(H[k], total_of(H[k]), rate_H, k)
        if a > 0 and b > 0:
            c = generalized_inverse_gaussian(order, a, b, key0, key1, step, k, K)
            _scale(W[k], c)
            _divide(H[k], c)


@njit(**INNER)
def _truncated_exponential(slope: float, low: float, high: float, u: float) -> float:
    steep, width = abs(slope), high - low
    e = u * width if steep * width < 1e-12 else -math.log1p(u * math.expm1(-steep * width)) / steep
    e = min(e, width)
    t = low + e if slope >= 0 else high - e
    return t if math.isfinite(t) else 0.0


@njit(**INNER)
def _permute(key0, key1, step, uniforms, order):  # type: ignore[no-untyped-def]
    """order (rounds, K) = the order of K uniforms in each round, by insertion; uniforms: room for (K + 1, rounds)."""
    rounds, K = order.shape
    for pair in range((K + 1) // 2):
        even, odd = uniforms[2 * pair], uniforms[2 * pair + 1]
        _uniforms(key0, key1, pair, FIRST_ROW, step, SITE_PAIRS, rounds, even, odd)
    for turn in range(rounds):
        for k in range(K):
            place = k
            while place > 0 and uniforms[order[turn, place - 1], turn] > uniforms[k, turn]:
                order[turn, place] = order[turn, place - 1]
                place -= 1
            order[turn, place] = k


@njit(**INNER)
def _move_shears(W, H, rate_W, rate_H, key0, key1, step, order, uniforms, totals):  # type: ignore[no-untyped-def]
    rounds, K = order.shape
    _permute(key0, key1, step, uniforms, order)
    for pair in range((K // 2 + 1) // 2):
        even, odd = uniforms[2 * pair], uniforms[2 * pair + 1]
        _uniforms(key0, key1, pair, FIRST_ROW, step, SITE_SHEAR, rounds, even, odd)
    total_W, total_H = totals
    for k in range(K):
        total_W[k] = total_of(W[k])
        total_H[k] = total_of(H[k])
    for turn in range(rounds):
        for m in range(K // 2):
            k, l = order[turn, 2 * m], order[turn, 2 * m + 1]
            slope = _rated(W[k], total_W[k], rate_W, l) - _rated(H[l], total_H[l], rate_H, k)
            low, high = -_least_ratio(W[l], W[k]), _least_ratio(H[k], H[l])
            t = _truncated_exponential(slope, low, high, uniforms[m, turn])
            total_W[l] = _shift(W[l], W[k], t)
            total_H[k] = _shift(H[k], H[l], -t)


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
        order, uniforms, totals = room
        _move_shears(W, H, rate_W, rate_H, key0, key1, step, order, uniforms, totals)


def room_for_moves(K: int) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """What `move` works in: the pairs of each round, their uniforms, and the sums of W's and H's components."""
    rounds = shear_rounds(K)
    return np.empty((rounds, K), np.int64), np.empty((K + 2, rounds)), (np.empty(K), np.empty(K))


def scale_move(W: Tensor, H: Tensor, rates: tuple[Tensor, Tensor], stream: Stream, step: int) -> tuple[Tensor, Tensor]:
    """`reference.scale_move`, compiled."""
    return _moved(W, H, rates, stream, step, True, False)


def shear_move(W: Tensor, H: Tensor, rates: tuple[Tensor, Tensor], stream: Stream, step: int) -> tuple[Tensor, Tensor]:
    """`reference.shear_move`, compiled."""
    return _moved(W, H, rates, stream, step, False, True)


def moved(W: Tensor, H: Tensor, rates: tuple[Tensor, Tensor], stream: Stream, step: int) -> tuple[Tensor, Tensor]:
    """`reference.moved`, compiled; W and H are copied once."""
    return _moved(W, H, rates, stream, step, True, True)


def _moved(
    W: Tensor, H: Tensor, rates: tuple[Tensor, Tensor], stream: Stream, step: int, scales: bool, shears: bool
) -> tuple[Tensor, Tensor]:
    moved_W, moved_H, *natural = _component_a_row(W, H, rates)
    room = room_for_moves(W.shape[-1])
    for c, key in enumerate(stream.keys):
        move(moved_W[c], moved_H[c], tuple(natural), (*key, step), scales, shears, room)
    return torch.from_numpy(moved_W).mT, torch.from_numpy(moved_H)


def _component_a_row(W: Tensor, H: Tensor, rates: tuple[Tensor, Tensor]) -> tuple[np.ndarray, ...]:
    """Copies of Wᵀ (C, K, N) and H (C, K, D), and the rates in the same layout."""
    copies = (F.clone(memory_format=torch.contiguous_format).numpy() for F in (W.mT, H))
    return *copies, rates[0].mT.double().contiguous().numpy(), rates[1].double().contiguous().numpy()


class Parts(NamedTuple):
    """The addresses of the parts of a sweep for factors of one type; 0 for those that it does not need."""

    update_rows: int
    move: int
    standard_gamma: int

    @classmethod
    def of(cls, dtype: np.dtype, moves: bool, noise: bool) -> Parts:
        """Those of a sweep of factors of this type, with moves along the ridge and draws of σ² if asked."""
        return _parts(dtype, moves, noise)


@cache
def _parts(dtype: np.dtype, moves: bool, noise: bool) -> Parts:
    return Parts(
        address_of(update_rows, _signature_of_update_rows, dtype),
        address_of(move, _signature_of_move, dtype) if moves else 0,
        address_of(standard_gamma, _signature_of_standard_gamma, dtype) if noise else 0,
    )


def _signature_of_update_rows(real: types.Float) -> Signature:
    matrix, cube = types.Array(real, 2, "C"), types.Array(real, 3, "C")
    prior, address, rows = types.UniTuple(DOUBLES, 2), types.UniTuple(types.int64, 5), types.UniTuple(types.int64, 3)
    return types.void(matrix, matrix, cube, prior, types.float64, address, rows, types.int64, types.boolean, DOUBLES)


def _signature_of_move(real: types.Float) -> Signature:
    matrix, rates, address = types.Array(real, 2, "C"), types.UniTuple(DOUBLES, 2), types.UniTuple(types.int64, 3)
    order, totals = types.Array(types.int64, 2, "C"), types.UniTuple(types.Array(types.float64, 1, "C"), 2)
    room = types.Tuple((order, DOUBLES, totals))
    return types.void(matrix, matrix, rates, address, types.boolean, types.boolean, room)


def _signature_of_standard_gamma(_: types.Float) -> Signature:
    return types.float64(types.float64, types.int64, types.int64, types.int64)


call_update_rows = called_by_address(_signature_of_update_rows)
call_move = called_by_address(_signature_of_move)
call_standard_gamma = called_by_address(_signature_of_standard_gamma)
