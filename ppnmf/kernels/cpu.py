"""The kernels for the CPU, compiled by Numba: what `reference` defines, a row at a time with all its K steps in cache.

Every function releases the GIL, works on one thread and computes in float64 whatever the arrays hold; the callers run
blocks and chains on several threads. The draws are the reference's, address by address, to rounding.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ppnmf.kernels.reference import GAMMA_PROPOSALS, Natural, shear_rounds
from ppnmf.protocols import Statistics
from ppnmf.rng import Site, Stream, uniform_pair

__all__ = ["half_sweep", "inverse_gamma", "scale_move", "shear_move"]

SITE_SIGMA2, SITE_SCALE, SITE_PAIRS, SITE_SHEAR = (
    int(site) for site in (Site.SIGMA2, Site.SCALE, Site.SHEAR_PAIRS, Site.SHEAR)
)
TAIL = 12.0  # standard deviations past the mode where the bound's excess is solved for instead of the quantile

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
# fmt: on


@njit(cache=True, nogil=True)
def _rational(coefficients, r):  # type: ignore[no-untyped-def]
    above, below = 0.0, 0.0
    for a, b in zip(*coefficients):  # noqa: B905  # Numba's zip takes no strict
        above, below = above * r + a, below * r + b
    return above / below


@njit(cache=True, nogil=True)
def _ndtri(p: float) -> float:
    """Quantile of the standard normal (AS 241), relative error about 1e-16."""
    q = p - 0.5
    if abs(q) <= 0.425:
        return q * _rational(CENTRE, 0.180625 - q * q)
    r = math.sqrt(-math.log(p if q < 0 else 1 - p))
    z = _rational(SHOULDER, r - 1.6) if r <= 5.0 else _rational(FAR, r - 5.0)
    return -z if q < 0 else z


@njit(cache=True, nogil=True)
def _mills_tail(z: float) -> float:
    """z · (1 - Φ(z)) / φ(z) for z >= TAIL, by its continued fraction."""
    f = z
    for n in range(8, 0, -1):
        f = z + n / f
    return z / f


@njit(cache=True, nogil=True)
def survival_inverse(precision: float, linear: float, u: float) -> float:
    """The w with P(w' > w) = u under the density ∝ exp(-precision w²/2 + linear w) on w >= 0."""
    if precision <= 0.0 or -linear > 1e8 * math.sqrt(precision):
        return math.log(u) / linear
    root = math.sqrt(precision)
    alpha = -linear / root  # the bound, in standard deviations past the mode
    if alpha < TAIL:
        z = -_ndtri(u * 0.5 * math.erfc(alpha * 0.7071067811865476))
        return max(z - alpha, 0.0) / root
    # log survival at alpha + e: alpha e + e²/2 - log(mills(alpha + e) / mills(alpha)) = -log u; Newton in the excess e
    target = -math.log(u)
    e = 2 * target / (alpha + math.sqrt(alpha * alpha + 2 * target))
    at_bound = _mills_tail(alpha)
    for _ in range(3):
        z = alpha + e
        mills = _mills_tail(z)
        value = e * (alpha + 0.5 * e) + math.log(at_bound / mills) + math.log1p(e / alpha) - target
        e -= value * mills / z
    return max(e, 0.0) / root


@njit(cache=True, nogil=True)
def _half_sweep(F, P, Q, precision, linear, key0, key1, step, site, first_row, first, sample):  # type: ignore[no-untyped-def]
    """Rows of F (R, K) in place; Q (1 | R, K, K), precision and linear (1 | R, 1 | K)."""
    R, K = F.shape
    own_Q, own_rows = Q.shape[0] > 1, precision.shape[0] > 1
    own_columns = precision.shape[1] > 1
    rows_of_linear, columns_of_linear = linear.shape[0] > 1, linear.shape[1] > 1
    u, other = 0.0, 0.0
    for i in range(R):
        q = i if own_Q else 0
        for k in range(first, K):
            own = np.float64(Q[q, k, k])
            total = 0.0
            for l in range(K):
                total += np.float64(F[i, l]) * np.float64(Q[q, k, l])
            a = precision[i if own_rows else 0, k if own_columns else 0] + own
            b = linear[i if rows_of_linear else 0, k if columns_of_linear else 0] + np.float64(P[i, k])
            b -= total - np.float64(F[i, k]) * own
            if sample:
                if k % 2 == 0 or k == first:
                    u, other = uniform_pair(key0, key1, k // 2, first_row + i, step, site)
                F[i, k] = survival_inverse(a, b, u if k % 2 == 0 else other)
            elif a > 0.0:
                F[i, k] = max(b / a, 0.0)
            elif b != 0.0:
                F[i, k] = 0.0


def half_sweep(
    F: Tensor,
    statistics: Statistics,
    prior: Natural,
    draw: tuple[Stream, int, Site] | None,
    first_row: int = 0,
    first: int = 0,
) -> Tensor:
    """`reference.half_sweep`, compiled."""
    F = F.contiguous().clone()
    precision, linear = (natural.numpy() for natural in prior)
    P, Q = statistics.P.contiguous().numpy(), statistics.Q.contiguous()
    if Q.ndim == F.ndim:
        Q = Q[:, None]
    out, gram = F.numpy(), Q.numpy()
    stream, step, site = draw if draw is not None else (None, 0, Site.W)
    for c in range(F.shape[0]):
        key = stream.keys[c] if stream is not None else (0, 0)
        _half_sweep(
            out[c], P[c], gram[c], precision, linear, *key, step, int(site), first_row, first, stream is not None
        )
    return F


@njit(cache=True, nogil=True)
def _standard_gamma(shape: float, key0: int, key1: int, step: int) -> float:
    boosted = shape if shape >= 1 else shape + 1
    d = boosted - 1 / 3
    v = 0.0
    for trial in range(GAMMA_PROPOSALS):
        u, w = uniform_pair(key0, key1, 0, trial, step, SITE_SIGMA2)
        z = _ndtri(u)
        v = (1 + z / math.sqrt(9 * d)) ** 3
        if v > 0 and math.log(w) < 0.5 * z * z + d * (1 - v + math.log(v)):
            break
    if shape < 1:
        return d * v * uniform_pair(key0, key1, 0, GAMMA_PROPOSALS, step, SITE_SIGMA2)[0] ** (1 / shape)
    return d * v


def inverse_gamma(shape: float, scale: Tensor, stream: Stream, step: int) -> Tensor:
    """`reference.inverse_gamma`, compiled."""
    draws = [_standard_gamma(float(shape), *key, step) for key in stream.keys]
    return scale.double() / torch.tensor(draws, dtype=torch.float64)


@njit(cache=True, nogil=True)
def _psi(x: float, alpha: float, order: float) -> float:
    """Log density of log X past its mode, Devroye (2014); its two terms are written so that neither cancels near 0."""
    half = math.sinh(0.5 * x)
    growth = (
        math.expm1(x) - x if abs(x) > 1e-2 else x * x * (0.5 + x * (1 / 6 + x * (1 / 24 + x * (1 / 120 + x / 720))))
    )
    return -2.0 * alpha * half * half - order * growth


@njit(cache=True, nogil=True)
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
        u, v = uniform_pair(key0, key1, 0, trial * K + k, step, SITE_SCALE)
        w, _ = uniform_pair(key0, key1, 1, trial * K + k, step, SITE_SCALE)
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


@njit(cache=True, nogil=True)
def _scale_move(W, H, rate_W, rate_H, key0, key1, step):  # type: ignore[no-untyped-def]
    N, K = W.shape
    D = H.shape[1]
    for k in range(K):
        a, b = 0.0, 0.0
        for i in range(N):
            a += W[i, k] * rate_W[i if rate_W.shape[0] > 1 else 0, k if rate_W.shape[1] > 1 else 0]
        for j in range(D):
            b += H[k, j] * rate_H[k if rate_H.shape[0] > 1 else 0, j if rate_H.shape[1] > 1 else 0]
        if a > 0 and b > 0:
            c = generalized_inverse_gaussian(float(N - D), 2 * a, 2 * b, key0, key1, step, k, K)
            for i in range(N):
                W[i, k] *= c
            for j in range(D):
                H[k, j] /= c


def scale_move(W: Tensor, H: Tensor, rates: tuple[Tensor, Tensor], stream: Stream, step: int) -> tuple[Tensor, Tensor]:
    """`reference.scale_move`, compiled."""
    W, H = W.contiguous().clone(), H.contiguous().clone()
    rate_W, rate_H = rates[0].numpy(), rates[1].numpy()
    for c, key in enumerate(stream.keys):
        _scale_move(W[c].numpy(), H[c].numpy(), rate_W, rate_H, *key, step)
    return W, H


@njit(cache=True, nogil=True)
def _truncated_exponential(slope: float, low: float, high: float, u: float) -> float:
    steep, width = abs(slope), high - low
    e = u * width if steep * width < 1e-12 else -math.log1p(u * math.expm1(-steep * width)) / steep
    e = min(e, width)
    t = low + e if slope >= 0 else high - e
    return t if math.isfinite(t) else 0.0


@njit(cache=True, nogil=True)
def _shear_move(W, H, rate_W, rate_H, key0, key1, step, rounds):  # type: ignore[no-untyped-def]
    """In place; W here is Wᵀ (K, N), so that a component is contiguous in both factors."""
    K, N = W.shape
    D = H.shape[1]
    order = np.empty(K)
    for turn in range(rounds):
        for pair in range((K + 1) // 2):
            first, second = uniform_pair(key0, key1, pair, turn, step, SITE_PAIRS)
            order[2 * pair] = first
            if 2 * pair + 1 < K:
                order[2 * pair + 1] = second
        permutation = np.argsort(order)
        for m in range(K // 2):
            k, l = permutation[2 * m], permutation[2 * m + 1]
            slope, least_W, least_H = 0.0, np.inf, np.inf
            for i in range(N):
                slope += W[k, i] * rate_W[i if rate_W.shape[0] > 1 else 0, l if rate_W.shape[1] > 1 else 0]
                if W[k, i] > 0:
                    least_W = min(least_W, np.float64(W[l, i]) / np.float64(W[k, i]))
            for j in range(D):
                slope -= H[l, j] * rate_H[k if rate_H.shape[0] > 1 else 0, j if rate_H.shape[1] > 1 else 0]
                if H[l, j] > 0:
                    least_H = min(least_H, np.float64(H[k, j]) / np.float64(H[l, j]))
            first, second = uniform_pair(key0, key1, m // 2, turn, step, SITE_SHEAR)
            t = _truncated_exponential(slope, -least_W, least_H, first if m % 2 == 0 else second)
            for i in range(N):
                W[l, i] = max(W[l, i] + t * W[k, i], 0.0)
            for j in range(D):
                H[k, j] = max(H[k, j] - t * H[l, j], 0.0)


def shear_move(
    W: Tensor, H: Tensor, rates: tuple[Tensor, Tensor], stream: Stream, step: int, effort: int = 1
) -> tuple[Tensor, Tensor]:
    """`reference.shear_move`, compiled."""
    Wt, H = W.mT.contiguous().clone(), H.contiguous().clone()
    rate_W, rate_H = rates[0].numpy(), rates[1].numpy()
    for c, key in enumerate(stream.keys):
        _shear_move(Wt[c].numpy(), H[c].numpy(), rate_W, rate_H, *key, step, shear_rounds(W.shape[-1], effort))
    return Wt.mT.contiguous(), H
