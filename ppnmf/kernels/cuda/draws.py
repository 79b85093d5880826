"""Random numbers inside kernels: uniforms of an address, and draws that are made of them."""

import math

import triton.language as tl

from ppnmf.kernels.coefficients import CENTRE, FAR, MILLS, SHOULDER, TAIL
from ppnmf.kernels.cuda.language import (
    beyond_line,
    constant,
    device_function,
    expm1,
    least_of,
    log1p,
    polynomial,
    sum_of,
)
from ppnmf.rng import MULTIPLIERS, WEYL

__all__ = [
    "first_accepted",
    "log_generalized_inverse_gaussian",
    "quantile",
    "survival_inverse",
    "truncated_exponential",
    "uniform_pair",
]

MULTIPLIER_0 = constant(MULTIPLIERS[0])
MULTIPLIER_1 = constant(MULTIPLIERS[1])
WEYL_0 = constant(WEYL[0])
WEYL_1 = constant(WEYL[1])
CENTRE_ABOVE = constant(CENTRE[0])
CENTRE_BELOW = constant(CENTRE[1])
SHOULDER_ABOVE = constant(SHOULDER[0])
SHOULDER_BELOW = constant(SHOULDER[1])
FAR_ABOVE = constant(FAR[0])
FAR_BELOW = constant(FAR[1])
MILLS_POLYNOMIAL = constant(MILLS)
TAIL_BEGINS = constant(TAIL)
COSH_1 = constant(math.cosh(1))
E = constant(math.e)


@device_function
def _unit(high, low):  # type: ignore[no-untyped-def]
    """`rng._to_unit`: 52 bits of two words, moved to the middle of their cell."""
    return (high.to(tl.float64) * 1048576.0 + (low >> 12).to(tl.float64) + 0.5) * 2.220446049250313e-16


@device_function
def uniform_pair(keys, pair, row, step, site: tl.constexpr):  # type: ignore[no-untyped-def]
    """The uniforms of columns 2 pair and 2 pair + 1, bit for bit those of `Stream.uniforms`; keys points at a chain's."""
    k0 = tl.load(keys).to(tl.uint32)
    k1 = tl.load(keys + 1).to(tl.uint32)
    c0 = tl.cast(pair, tl.uint32)
    c1 = tl.cast(row, tl.uint32)
    c2 = tl.cast(step, tl.uint32)
    c3 = tl.cast(site, tl.uint32)
    for _ in tl.static_range(10):
        high0 = tl.umulhi(c0, MULTIPLIER_0)
        low0 = tl.mul(c0, MULTIPLIER_0, sanitize_overflow=False)
        high1 = tl.umulhi(c2, MULTIPLIER_1)
        low1 = tl.mul(c2, MULTIPLIER_1, sanitize_overflow=False)
        c0 = high1 ^ c1 ^ k0
        c1 = low1
        c2 = high0 ^ c3 ^ k1
        c3 = low0
        k0 = tl.add(k0, WEYL_0, sanitize_overflow=False)
        k1 = tl.add(k1, WEYL_1, sanitize_overflow=False)
    return _unit(c0, c1), _unit(c2, c3)


@device_function
def quantile(q, r, is_below):  # type: ignore[no-untyped-def]
    """Φ⁻¹(½ + q) (Wichura 1988, AS 241), given √(-log p) of the smaller side's p and whether that is the lower one."""
    c = 0.180625 - q * q
    s = r - 1.6
    f = r - 5.0
    is_central = tl.abs(q) <= 0.425
    is_far = r > 5.0
    above = tl.where(is_far, polynomial(f, FAR_ABOVE), polynomial(s, SHOULDER_ABOVE))
    below = tl.where(is_far, polynomial(f, FAR_BELOW), polynomial(s, SHOULDER_BELOW))
    above = tl.where(is_central, q * polynomial(c, CENTRE_ABOVE), tl.where(is_below, -above, above))
    return above / tl.where(is_central, polynomial(c, CENTRE_BELOW), below)


@device_function
def _survival_factor(x):  # type: ignore[no-untyped-def]
    """P(Z > x) exp(x²/2) for a standard normal Z and x >= 0."""
    return polynomial((x - 5.6) / (x + 5.6), MILLS_POLYNOMIAL) / (1.0 + 1.4142135623730951 * x)


@device_function
def _excess_in_the_tail(bound, target):  # type: ignore[no-untyped-def]
    """e with log P(Z > bound) - log P(Z > bound + e) = target: two steps of Halley's, as in `distributions.rectified_normal`."""
    alpha = tl.maximum(bound, TAIL_BEGINS)
    mills = 2.5066282746310002 * _survival_factor(alpha)
    e = 2.0 * target / (1.0 / mills + tl.sqrt(1.0 / (mills * mills) + 2.0 * target))
    for _ in tl.static_range(2):
        x = alpha + e
        mills_x = 2.5066282746310002 * _survival_factor(x)
        newton = (e * (alpha + 0.5 * e) + tl.log(mills / mills_x) - target) * mills_x
        e -= newton / (1.0 - 0.5 * newton * (1.0 / mills_x - x))
    return e


@device_function
def survival_inverse(precision, linear, u):  # type: ignore[no-untyped-def]
    """The w with P(w' > w) = u under the density ∝ exp(-precision w²/2 + linear w) on w >= 0."""
    root = tl.maximum(tl.sqrt(precision), -1e-10 * linear)  # a smaller one changes no digit
    bound = -linear / root  # in standard deviations past the mode
    x = tl.abs(bound)
    fall = tl.maximum(-0.5 * x * x, -600.0)  # clear of denormals
    beyond = _survival_factor(x) * tl.exp(fall)  # P(Z > |bound|)
    p = u * tl.where(bound > 0, beyond, 1.0 - beyond)  # P(Z > z)
    q = p - 0.5
    other = tl.where(bound < 0, (1.0 - u) + u * beyond, 1.0 - p)
    r = tl.sqrt(-tl.log(tl.where(q < 0, p, other)))
    e = quantile(-q, r, q > 0) - bound
    if tl.reduce(bound, 0, tl.standard._elementwise_max) > TAIL_BEGINS:
        e = tl.where(bound > TAIL_BEGINS, _excess_in_the_tail(bound, -tl.log(u)), e)
    return tl.maximum(e, 0.0) / root


@device_function
def first_accepted(values, is_accepted, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    """The first of the values that is accepted; the first of all where none is."""
    place = tl.arange(0, COUNT)
    index = least_of(tl.where(is_accepted, place, COUNT), 0) % COUNT
    return sum_of(tl.where(place == index, values, 0.0), 0)


@device_function
def _psi(order, alpha, y):  # type: ignore[no-untyped-def]
    """`distributions.inverse_gaussian._psi`; 2 sinh²(y/2) = (eʸ - 1)² / (2 eʸ)."""
    grown = expm1(y)
    return -0.5 * alpha * grown * grown / (1.0 + grown) - order * beyond_line(y)


@device_function
def _psi_slope(order, alpha, y):  # type: ignore[no-untyped-def]
    """The derivative of `_psi` by y."""
    grown = expm1(y)
    return -0.5 * alpha * (grown + grown / (1.0 + grown)) - order * grown


@device_function
def _ends(order, alpha):  # type: ignore[no-untyped-def]
    """Where the exponential tails of the cover begin, as distances from the mode: to its right and to its left."""
    drop = alpha * (COSH_1 - 1.0) + order * (E - 2.0)  # -ψ(1)
    right = tl.where(drop < 0.5, tl.log(4.0 / (alpha + 2.0 * order)), 1.0)
    right = tl.where(drop > 2, tl.sqrt(2.0 / (alpha + order)), right)
    drop = alpha * (COSH_1 - 1.0) + order / E  # -ψ(-1)
    far = tl.log(1.0 + 1.0 / alpha + (1.0 / alpha) * tl.sqrt(1.0 + 2.0 * alpha))
    left = tl.where(drop < 0.5, tl.minimum(1.0 / order, far), 1.0)
    return right, tl.where(drop > 2, tl.sqrt(4.0 / (alpha * COSH_1 + order)), left)


@device_function
def log_generalized_inverse_gaussian(order, rate, omega, u, v, w, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    """log X of the density ∝ x^(order - 1) exp(-(rate x + omega² / (rate x)) / 2): `_shape` there and `_propose`."""
    radius = tl.sqrt(omega * omega + order * order)
    alpha = omega * (omega / (radius + order))
    right, left = _ends(order, alpha)
    width_right = -1.0 / _psi_slope(order, alpha, right)
    width_left = 1.0 / _psi_slope(order, alpha, -left)
    end = right + width_right * _psi(order, alpha, right)
    start = left + width_left * _psi(order, alpha, -left)
    flat = start + end
    place = u * (width_left + flat + width_right)
    in_flat = place < flat
    tail = tl.log(v)
    outside = tl.where(place < flat + width_right, end - width_right * tail, width_left * tail - start)
    y = tl.where(in_flat, flat * v - start, outside)
    is_accepted = tl.log(w) + tl.where(in_flat, 0.0, tail) <= _psi(order, alpha, y)
    return first_accepted(y, is_accepted, COUNT) + tl.log(order + radius) - tl.log(rate)


@device_function
def truncated_exponential(slope, low, high, u):  # type: ignore[no-untyped-def]
    """`reference.truncated_exponential`: t with density ∝ exp(-slope t) on [low, high]; 0 where that is unbounded."""
    steep = tl.abs(slope)
    width = high - low
    is_flat = steep * width < 1e-12
    curved = -log1p(u * expm1(-steep * width)) / tl.where(is_flat, 1.0, steep)
    e = tl.minimum(tl.where(is_flat, u * width, curved), width)
    t = tl.where(slope >= 0, low + e, high - e)
    return tl.where(t - t == 0, t, 0.0)
