"""Draws from a normal distribution cut off at zero, by the inverse of its survival function: one, or many lanes at once.

The density is ∝ exp(-precision w² / 2 + linear w) on w >= 0 (`distributions.RectifiedNormal`); u is a uniform, and the
draw is the w with P(w' > w) = u. "Bound" is where zero lies, in standard deviations past the mode.

References: Wichura (1988), algorithm AS 241, doi:10.2307/2347330, for the quantile.
"""

from __future__ import annotations

import math

from numba import njit

from ppnmf.kernels.coefficients import CENTRE, FAR, MILLS, SHOULDER, TAIL
from ppnmf.kernels.lanes import INLINED, INNER, exp, log, polynomial, select

__all__ = ["draw_lanes", "quantile", "reflected_lanes", "survival_factor", "survival_inverse"]

TOGETHER = 8  # lanes in the tail that are solved together: those of a vector
RARE = 1e-4  # below this a uniform may lead past the quantile's second range
LEAST_CHANCE = 2.0**-53  # of what is reflected, on either side
LEAST_LOG = -700.0  # whose exponential is clear of denormals
FARTHEST = 1e8  # standard deviations past the mode, beyond which the density is an exponential's
SQRT_2 = 1.4142135623730951
SQRT_HALF = 0.7071067811865476
SQRT_2_PI = 2.5066282746310002

_centre_above = polynomial(CENTRE[0])
_centre_below = polynomial(CENTRE[1])
_shoulder_above = polynomial(SHOULDER[0])
_shoulder_below = polynomial(SHOULDER[1])
_far_above = polynomial(FAR[0])
_far_below = polynomial(FAR[1])
_mills = polynomial(MILLS)


@njit(**INNER)
def quantile(p: float) -> float:
    """The z with P(Z < z) = p of a standard normal Z (AS 241), relative error about 1e-16."""
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
    below = x + 5.6
    other = 1.0 + SQRT_2 * x
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
        mean = SQRT_2_PI * factor  # 1 / h
        newton = (e * (bound + 0.5 * e) - log(factor * at_bound) - target) * mean
        e -= newton / (1.0 - 0.5 * newton * (1.0 / mean - bound - e))
    return select(e > 0.0, e, 0.0)


@njit(**INNER)
def survival_inverse(precision: float, linear: float, u: float) -> float:
    """The w with P(w' > w) = u, in every range of the parameters.

    Args:
        precision: >= 0.
        linear: negative where the precision is zero: the density is then an exponential's.
        u: in (0, 1).
    """
    if precision <= 0.0 or -linear > FARTHEST * math.sqrt(precision):
        return math.log(u) / linear
    root = math.sqrt(precision)
    bound = -linear / root
    if bound > TAIL:
        return _excess(bound, -math.log(u)) / root
    z = -quantile(u * 0.5 * math.erfc(bound * SQRT_HALF))
    return max(z - bound, 0.0) / root


@njit(**INLINED)
def draw_lanes(precision, linear, per_root, u, w, room, n):  # type: ignore[no-untyped-def]
    """w[:n] = survival_inverse(precision, linear, u), to rounding, all lanes at once; what a lane gives depends on it alone.

    The lanes whose bound lies in the tail are then put side by side and solved together, and those of uniforms below
    `RARE`, one in ten thousand, one by one.

    Args:
        precision, linear, u: of each lane, (n,) or longer.
        per_root: 1 / √precision.
        w: room for the draws.
        room: more of it, (3, S), S >= n a multiple of `TOGETHER`.
    """
    tails = 0
    rare = 0
    for i in range(n):
        bound = -linear[i] * per_root[i]
        w[i] = _by_quantile(bound, u[i]) * per_root[i]
        tails += bound > TAIL
        rare += u[i] < RARE
    if tails > 0:
        _draw_tails(linear, per_root, u, w, room, n)
    if rare > 0:
        for i in range(n):
            if u[i] < RARE and -linear[i] * per_root[i] <= TAIL:
                w[i] = survival_inverse(precision[i], linear[i], u[i])


@njit(**INLINED)
def _by_quantile(bound: float, u: float) -> float:
    """The draw in standard deviations, right for bounds up to TAIL and uniforms that are not RARE, without branches."""
    x = abs(bound)
    fall = -0.5 * x * x
    beyond = survival_factor(x) * exp(select(fall > -600.0, fall, -600.0))  # P(Z > |bound|), clear of denormals
    p = u * select(bound > 0.0, beyond, 1.0 - beyond)  # P(Z > z)
    q = p - 0.5
    other = select(bound < 0.0, (1.0 - u) + u * beyond, 1.0 - p)
    r = math.sqrt(-log(select(q < 0.0, p, other)))
    sign = select(q < 0.0, 1.0, -1.0)
    c = 0.180625 - q * q
    s = r - 1.6
    central = abs(q) <= 0.425
    above = select(central, -q * _centre_above(c), sign * _shoulder_above(s))
    e = above / select(central, _centre_below(c), _shoulder_below(s)) - bound
    return select(e > 0.0, e, 0.0)


@njit(**INLINED)
def _draw_tails(linear, per_root, u, w, room, n):  # type: ignore[no-untyped-def]
    """The draws anew in the lanes whose bound lies in the tail, an infinite one of an exponential among them."""
    places = room[0]
    bounds = room[1]
    targets = room[2]
    m = 0
    for i in range(n):
        bound = -linear[i] * per_root[i]
        places[m] = i
        bounds[m] = bound
        targets[m] = u[i]
        m += bound > TAIL
    padded = -(-m // TOGETHER) * TOGETHER
    for j in range(m, padded):
        bounds[j] = TAIL
        targets[j] = 0.5
    for j in range(padded):
        targets[j] = -log(targets[j])
        bounds[j] = _excess(select(bounds[j] < FARTHEST, bounds[j], FARTHEST), targets[j])
    for j in range(m):
        i = int(places[j])
        far = -linear[i] * per_root[i] > FARTHEST
        w[i] = -targets[j] / linear[i] if far else bounds[j] * per_root[i]


@njit(**INLINED)
def _fallen(log_value: float) -> float:
    """exp(log_value) of what is at most 0."""
    return exp(select(log_value > LEAST_LOG, select(log_value < 0.0, log_value, 0.0), LEAST_LOG))


@njit(**INLINED)
def reflected_lanes(linear, per_root, w, u, n):  # type: ignore[no-untyped-def]
    """u[:n] = 1 - P(w' > w): the uniforms whose draws lie as far up as w lies down, or as far down as it lies up.

    With e the distance of w from zero in standard deviations and f the survival factor, P(w' > w) is
    f(bound + e) / f(bound) exp(-e (bound + e / 2)) where the bound is above zero, which `linear` w gives without
    cancelling; where it is below, P(w' < w) is the difference of two tails over what lies above the bound.

    Args:
        linear, per_root, w: of each lane, as in `draw_lanes`. u: room for the uniforms.
    """
    for i in range(n):
        bound = -linear[i] * per_root[i]
        bound = select(bound < FARTHEST, bound, FARTHEST)
        e = w[i] / per_root[i]
        z = bound + e
        at_w = survival_factor(abs(z))
        at_zero = survival_factor(abs(bound))
        beyond = at_w / at_zero * _fallen(linear[i] * w[i] - 0.5 * e * e)  # P(w' > w), of a bound above zero
        tail = at_w * _fallen(-0.5 * z * z)
        cut = at_zero * _fallen(-0.5 * bound * bound)
        below = select(z > 0.0, (1.0 - cut) - tail, tail - cut) / (1.0 - cut)  # P(w' < w), of one below
        chance = select(bound > 0.0, 1.0 - beyond, below)
        chance = select(chance > LEAST_CHANCE, chance, LEAST_CHANCE)
        u[i] = select(chance < 1.0 - LEAST_CHANCE, chance, 1.0 - LEAST_CHANCE)
