"""Draws of t from log Σ_j log Φ(z_j - t d_j) + slope t - square t² / 2 on [low, ∞), a log-concave density, by rejection.

`gaussian.concave` is the same in torch. Two tangents lie above the log density, a chord of it below, so that few points are
looked at, and none of them changes what is drawn.

References: Gilks and Wild (1992), doi:10.2307/2347565.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from ppnmf.kernels.cpu.normal import survival_factor
from ppnmf.kernels.cpu.uniforms import pair_of_uniforms
from ppnmf.kernels.lanes import INNER, exp, fused, log, select, total_of
from ppnmf.rng import Site

__all__ = ["ATTEMPTS", "AWAY", "CLOSE", "FAR", "FLAT", "MOST_STEPS", "NEAR", "PATIENCE", "Density", "drawn"]

SITE_SHEAR = int(Site.COLLAPSED_SHEAR)
CLOSE = 1.5  # widths of a last step of Newton's method, after which the mode is near enough
FAR = 3.0  # widths of a step from which it may lead past all that there is
NEAR, AWAY = 0.5, 1.8  # widths between which a point that was looked at serves for a tangent
MOST_STEPS = 60  # of Newton's method, or of doubling
ATTEMPTS = 100  # to draw from under the tangents
PATIENCE = 10  # of them before the tangents are brought closer
FLAT = 1e-9  # fall of an envelope's piece that is taken as flat
PER_ROOT = 0.3989422804014327  # 1 / √(2π)


class Density(NamedTuple):
    """log density of t, Σ_j log Φ(z_j - t d_j) + slope t - square t² / 2 on [low, ∞), of the first n entries."""

    z: np.ndarray
    d: np.ndarray
    n: int
    slope: float
    square: float
    low: float
    out: np.ndarray  # (3, n), room for the terms


class Tangent(NamedTuple):
    """Value, slope and curvature (of the opposite sign) of the log density at t."""

    t: float
    value: float
    slope: float
    bend: float


@njit(**INNER)
def _value(density, t):  # type: ignore[no-untyped-def]
    """The log density at t."""
    z, d, n, slope, square, _, out = density
    value = out[0]
    for j in range(n):
        x = fused(-t, d[j], z[j])
        far = abs(x)
        fall = -0.5 * far * far
        beyond = survival_factor(far)
        below = select(x < 0.0, beyond, 1.0 - beyond * exp(select(fall > -600.0, fall, -600.0)))
        value[j] = select(x < 0.0, fall, 0.0) + log(below)
    return total_of(value[:n]) + t * (slope - 0.5 * square * t)


@njit(**INNER)
def _tangent(density, t):  # type: ignore[no-untyped-def]
    """The log density at t with its derivatives."""
    z, d, n, slope, square, _, out = density
    value, first, second = out[0], out[1], out[2]
    for j in range(n):
        x = fused(-t, d[j], z[j])
        far = abs(x)
        fall = -0.5 * far * far
        beyond = survival_factor(far)
        near = exp(select(fall > -600.0, fall, -600.0))
        below = select(x < 0.0, beyond, 1.0 - beyond * near)
        hazard = d[j] * PER_ROOT * select(x < 0.0, 1.0, near) / below
        value[j] = select(x < 0.0, fall, 0.0) + log(below)
        first[j] = -hazard
        second[j] = hazard * (d[j] * x + hazard)
    at = total_of(value[:n]) + t * (slope - 0.5 * square * t)
    return Tangent(t, at, total_of(first[:n]) + slope - square * t, total_of(second[:n]) + square)


@njit(**INNER)
def _bound(density):  # type: ignore[no-untyped-def]
    """Beyond which the mode cannot lie: no entry alone outweighs the greatest slope there is."""
    z, d, n, slope, square, low, _ = density
    steepest = slope - square * low
    if steepest <= 0.0:
        return low
    bound = slope / square if square > 0.0 else math.inf
    for j in range(n):
        if d[j] > 0.0:
            bound = min(bound, (z[j] + steepest / d[j]) / d[j])
    return max(bound, low)


class Mode(NamedTuple):
    """A point near the mode, how wide the density is there, 0 where there is none, and the last tangent on the way."""

    t: float
    width: float
    last: Tangent
    farthest: float  # of all points that were looked at


@njit(**INNER)
def _near_mode(density):  # type: ignore[no-untyped-def]
    """Newton's steps from t = 0, or from the wall where the density falls from there on; bounded where they are long."""
    low = density.low
    t = low if density.slope - density.square * low <= 0.0 else max(0.0, low)
    bound = math.inf
    farthest = t
    at = _tangent(density, t)
    for _ in range(MOST_STEPS):
        root = math.sqrt(max(at.bend, 0.0))
        step = at.slope / at.bend if at.bend > 0.0 else math.copysign(math.inf, at.slope)
        if not step * root < FAR:
            bound = min(bound, _bound(density))
        t = min(max(at.t + step, low), bound)
        if t == math.inf:
            return Mode(0.0, 0.0, at, t)
        farthest = max(farthest, t)
        if abs(t - at.t) * root < CLOSE and not (
            t == bound and t < at.t + step
        ):  # a step that was cut short has not arrived
            break
        at = _tangent(density, t)
    slope = at.slope if t == low else 0.0
    rate = max(at.bend, 0.0) + slope * slope
    return Mode(t, 1.0 / math.sqrt(rate) if rate > 0.0 else 0.0, at, farthest)


class Chord(NamedTuple):
    """A line below a log density, between two of its points: value + slope x, x from where the tangents meet."""

    low: float
    high: float
    slope: float
    value: float


class Tent(NamedTuple):
    """Two tangents that lie above a log density, which meet at `cross`; `top` is how high.

    The masses under their exponentials are those of [low, cross] and of [cross, ∞), over exp(top).
    """

    cross: float
    top: float
    left: float  # slopes
    right: float
    room: float  # from low to cross
    mass_left: float
    mass_right: float
    under: Chord


@njit(**INNER)
def _serves(mode, side):  # type: ignore[no-untyped-def]
    """Whether the last tangent on the way lies about a width to this side of the mode, -1 or 1."""
    away = side * (mode.last.t - mode.t)
    return (away > NEAR * mode.width) & (away < AWAY * mode.width)


@njit(**INNER)
def _sides(density, mode):  # type: ignore[no-untyped-def]
    """Tangents about a width to the left, where the density rises or at its wall, and to the right, where it falls."""
    left = mode.last
    if not (_serves(mode, -1.0) and left.slope >= 0.0):
        left = _tangent(density, max(mode.t - mode.width, density.low))
    stride = mode.width
    for _ in range(MOST_STEPS):
        if left.slope >= 0.0 or left.t <= density.low:
            break
        stride *= 2.0
        left = _tangent(density, max(mode.t - stride, density.low))
    stride = mode.width
    right = mode.last
    if not (_serves(mode, 1.0) and right.slope < 0.0):
        right = _tangent(density, mode.t + stride)
    for _ in range(MOST_STEPS):
        if right.slope < 0.0:
            break
        stride *= 2.0
        right = _tangent(density, mode.t + stride)
    return left, right


@njit(**INNER)
def _tent(left, right, low):  # type: ignore[no-untyped-def]
    """What lies under two tangents."""
    cross = right.t
    if left.slope > right.slope:
        cross = (right.value - left.value + left.slope * left.t - right.slope * right.t) / (left.slope - right.slope)
        cross = min(max(cross, left.t), right.t)
    room = cross - low
    is_flat = abs(left.slope) * room < FLAT
    mass_left = room if is_flat else -math.expm1(-left.slope * room) / left.slope
    top = left.value + left.slope * (cross - left.t)
    slope = 0.0 if is_flat else left.slope
    chord = (right.value - left.value) / (right.t - left.t)
    under = Chord(left.t - cross, right.t - cross, chord, left.value - chord * (left.t - cross))
    return Tent(cross, top, slope, right.slope, room, mass_left, -1.0 / right.slope, under)


@njit(**INNER)
def _log_mass(tent):  # type: ignore[no-untyped-def]
    return tent.top + math.log(tent.mass_left + tent.mass_right)


@njit(**INNER)
def _below(tent, u):  # type: ignore[no-untyped-def]
    """A point drawn under the tent by a uniform, as its distance from where the tangents meet, and the tent's height there."""
    place = u * (tent.mass_left + tent.mass_right)
    if place >= tent.mass_left:
        away = math.log1p(-(place - tent.mass_left) / tent.mass_right) / tent.right
        return away, tent.top + tent.right * away
    share = place / tent.mass_left
    if tent.left == 0.0:
        return -share * tent.room, tent.top
    away = math.log1p(share * math.expm1(-tent.left * tent.room)) / tent.left
    away = max(away, -tent.room)
    return away, tent.top + tent.left * away


@njit(**INNER)
def drawn(density, key0, key1, step, row):  # type: ignore[no-untyped-def]
    """t from its log-concave density, by rejection, and the farthest that was looked at; 0 where there is no density.

    After `PATIENCE` points that were rejected each further one gives a tangent, which is taken where less then lies below both.
    """
    mode = _near_mode(density)
    if mode.width == 0.0:
        return 0.0, mode.farthest
    left, right = _sides(density, mode)
    farthest = max(mode.farthest, right.t)
    if not right.slope < 0.0:
        return 0.0, farthest
    tent = _tent(left, right, density.low)
    for attempt in range(ATTEMPTS):
        under = tent.under
        u, v = pair_of_uniforms(key0, key1, attempt, row, step, SITE_SHEAR)
        away, height = _below(tent, u)
        t = tent.cross + away
        farthest = max(farthest, t)
        level = height + math.log(v)
        if under.low <= away <= under.high and level <= under.value + under.slope * away:
            return t, farthest  # below the density without looking
        if attempt < PATIENCE:
            if level <= _value(density, t):
                return t, farthest
            continue
        looked = _tangent(density, t)
        if level <= looked.value:
            return t, farthest
        one = looked if looked.slope >= 0.0 and looked.t > left.t else left
        other = looked if looked.slope < 0.0 and looked.t < right.t else right
        closer = _tent(one, other, density.low)
        if _log_mass(closer) < _log_mass(tent):
            left, right, tent = one, other, closer
    return 0.0, farthest
