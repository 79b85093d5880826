"""Shears with a row of one factor integrated out, compiled: `gaussian.collapsed` states and defines them.

F is the factor whose rows are integrated out and drawn anew, E the other one; both are stored a component a row.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit, types
from numba.core.typing import Signature

from ppnmf.kernels.cpu.normal import draw_lanes, survival_factor
from ppnmf.kernels.cpu.ridge import least_ratio, rated, shift
from ppnmf.kernels.cpu.uniforms import pair_of_uniforms, uniforms_of_rows
from ppnmf.kernels.lanes import COMPILED, INLINED, INNER, exp, fused, log, select, total_of
from ppnmf.kernels.natural import products
from ppnmf.kernels.parts import address_of, called_by_address
from ppnmf.rng import Site

__all__ = [
    "ATTEMPTS",
    "AWAY",
    "CLOSE",
    "FAR",
    "FLAT",
    "MOST_STEPS",
    "NEAR",
    "address_of_shears",
    "call_shears",
    "room_for_shears",
    "shears",
]

SITE_SHEAR = int(Site.COLLAPSED_SHEAR)
SITE_ROW = int(Site.COLLAPSED_ROW)
CUT = 8.0  # standard deviations above zero from which an entry is looked at only where t goes far
CERTAIN = 7.0  # of them, above which the logarithm of Φ is zero, to 2e-12
CLOSE = 1.5  # widths of a last step of Newton's method, after which the mode is near enough
FAR = 3.0  # widths of a step from which it may lead past all that there is
NEAR, AWAY = 0.5, 1.8  # widths between which a point that was looked at serves for a tangent
MOST_STEPS = 60  # of Newton's method, or of doubling
ATTEMPTS = 100  # to draw from under the tangents
FLAT = 1e-9  # fall of an envelope's piece that is taken as flat
LANES = 128
PER_ROOT = 0.3989422804014327  # 1 / √(2π)
ROWS = 14  # of a room


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
        if abs(t - at.t) * root < CLOSE:
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
def _tent(density, mode):  # type: ignore[no-untyped-def]
    """Tangents about a width to the left and, where the density falls, to the right of the mode; also the farthest point."""
    left = mode.last
    if not _serves(mode, -1.0):
        left = _tangent(density, max(mode.t - mode.width, density.low))
    stride = mode.width
    right = mode.last
    if not (_serves(mode, 1.0) and right.slope < 0.0):
        right = _tangent(density, mode.t + stride)
    for _ in range(MOST_STEPS):
        if right.slope < 0.0:
            break
        stride *= 2.0
        right = _tangent(density, mode.t + stride)
    cross = right.t
    if left.slope > right.slope:
        cross = (right.value - left.value + left.slope * left.t - right.slope * right.t) / (left.slope - right.slope)
        cross = min(max(cross, left.t), right.t)
    room = cross - density.low
    is_flat = abs(left.slope) * room < FLAT
    mass_left = room if is_flat else -math.expm1(-left.slope * room) / left.slope
    top = left.value + left.slope * (cross - left.t)
    slope = 0.0 if is_flat else left.slope
    chord = (right.value - left.value) / (right.t - left.t)
    under = Chord(left.t - cross, right.t - cross, chord, left.value - chord * (left.t - cross))
    return Tent(cross, top, slope, right.slope, room, mass_left, -1.0 / right.slope, under), right.t


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
def _drawn(density, key0, key1, step, row):  # type: ignore[no-untyped-def]
    """t from its log-concave density, by rejection, and the farthest that was looked at; 0 where there is no density."""
    mode = _near_mode(density)
    if mode.width == 0.0:
        return 0.0, mode.farthest
    tent, looked = _tent(density, mode)
    farthest = max(mode.farthest, looked)
    under = tent.under
    if not tent.right < 0.0:
        return 0.0, farthest
    for attempt in range(ATTEMPTS):
        u, v = pair_of_uniforms(key0, key1, attempt, row, step, SITE_SHEAR)
        away, height = _below(tent, u)
        t = tent.cross + away
        farthest = max(farthest, t)
        level = height + math.log(v)
        if under.low <= away <= under.high and level <= under.value + under.slope * away:
            return t, farthest  # below the density without looking
        if level <= _value(density, t):
            return t, farthest
    return 0.0, farthest


@njit(**INNER)
def _explain(g, F, left):  # type: ignore[no-untyped-def]
    """left -= g F; g (1 | n,), F and left (n,)."""
    if len(g) == 1:
        shared = np.float64(g[0])
        for j in range(len(F)):
            left[j] = fused(-shared, np.float64(F[j]), left[j])
    else:
        for j in range(len(F)):
            left[j] = fused(-np.float64(g[j]), np.float64(F[j]), left[j])


@njit(**INLINED)
def _begin(k, F, R, G, weight, of_F, room):  # type: ignore[no-untyped-def]
    """q, share, root and b of component k in each entry, into the room."""
    q, share, root, b = room[0], room[1], room[2], room[3]
    precision = of_F[0][k if len(of_F[0]) > 1 else 0]
    linear = of_F[1][k if len(of_F[1]) > 1 else 0]
    n = F.shape[1]
    for j in range(n):
        b[j] = np.float64(R[k, j])
    for m in range(len(F)):
        if m != k:
            _explain(G[k, m], F[m], b)
    for j in range(n):
        a = precision[j if len(precision) > 1 else 0]
        q[j] = weight * np.float64(G[k, k, j if G.shape[2] > 1 else 0])
        b[j] = weight * b[j] + linear[j if len(linear) > 1 else 0]
        whole = q[j] + a
        share[j] = q[j] / whole if whole > 0.0 else 0.0
        root[j] = 1.0 / math.sqrt(whole) if whole > 0.0 else 0.0


@njit(**INLINED)
def _density(k, l, E, F, of_E, of_F, room):  # type: ignore[no-untyped-def]
    """The density of t for the pair (k, l), of the entries that are near zero alone; also up to where it serves."""
    q, share, root, b, z, d = room[0], room[1], room[2], room[3], room[4], room[5]
    linear = of_F[1][k if len(of_F[1]) > 1 else 0]
    slope = rated(E[k], total_of(E[k]), of_E[1], l)
    square = 0.0
    if of_E[0].any():
        slope -= products(of_E[0], E[l], E[k], l)
        square = products(of_E[0], E[k], E[k], l)
    n = 0
    steepest = 0.0
    for j in range(F.shape[1]):
        f = np.float64(F[l, j])
        slope += f * (b[j] * (1.0 - share[j]) - (linear[j if len(linear) > 1 else 0] if q[j] > 0.0 else b[j]))
        square += f * f * q[j] * (1.0 - share[j])
        away = b[j] * root[j]
        fall = f * q[j] * root[j]
        if away < CUT:
            z[n] = away
            d[n] = fall
            n += 1
        else:
            steepest = max(steepest, fall)
    reach = (CUT - CERTAIN) / steepest if steepest > 0.0 else math.inf
    return Density(z, d, n, slope, square, -least_ratio(E[l], E[k]), room[6:9]), reach


@njit(**INLINED)
def _whole(l, F, density, room):  # type: ignore[no-untyped-def]
    """The same density of all entries."""
    q, root, b, z, d = room[0], room[2], room[3], room[4], room[5]
    n = F.shape[1]
    for j in range(n):
        z[j] = b[j] * root[j]
        d[j] = np.float64(F[l, j]) * q[j] * root[j]
    return Density(z, d, n, density.slope, density.square, density.low, density.out)


@njit(**INLINED)
def _shear(k, l, t, E, F, R, G, room):  # type: ignore[no-untyped-def]
    """E_l ← E_l + t E_k, and what follows for the statistics and for b."""
    q, b = room[0], room[3]
    shift(E[l], E[k], t)
    for j in range(F.shape[1]):
        R[l, j] += t * R[k, j]
        b[j] -= t * np.float64(F[l, j]) * q[j]
    for j in range(G.shape[2]):
        own = G[l, l, j] + t * (2.0 * G[k, l, j] + t * G[k, k, j])
        for m in range(len(E)):
            G[l, m, j] += t * G[k, m, j]
            G[m, l, j] = G[l, m, j]
        G[l, l, j] = own


@njit(**INLINED)
def _draw_row(k, F, key0, key1, step, first_row, room):  # type: ignore[no-untyped-def]
    """F_k from its conditional."""
    root, b = room[2], room[3]
    a, linear, per_root, even, odd = room[9], room[10], room[11], room[12], room[13]
    for start in range(0, F.shape[1], LANES):
        n = min(LANES, F.shape[1] - start)
        uniforms_of_rows(key0, key1, k // 2, first_row + start, step, SITE_ROW, n, even, odd)
        for i in range(n):
            j = start + i
            a[i] = 1.0 / (root[j] * root[j]) if root[j] > 0.0 else 0.0
            per_root[i] = root[j] if root[j] > 0.0 else math.inf
            linear[i] = b[j]
        draw_lanes(a, linear, per_root, even if k % 2 == 0 else odd, room[4], n)
        for i in range(n):
            F[k, start + i] = room[4, i]


@njit(**COMPILED)
def shears(E, F, R, G, weight, of_E, of_F, address, jumps, room):  # type: ignore[no-untyped-def]
    """For each component k the shears with all others, F_k integrated out, and then F_k, in place.

    Args:
        E, F: (K, m) and (K, n).
        R, G: E's products with X (K, n) and with itself (K, K, 1 | n); what follows for them is written to them.
        weight: β / σ².
        of_E, of_F: precision and linear of the priors, (1 | K, 1 | m) and (1 | K, 1 | n).
        address: the two words of the key, the step, and the first row of the addresses.
        jumps: (K, K), t of each pair.
        room: `room_for_shears(n)`.
    """
    key0, key1, step, first_row = address
    K = len(E)
    for k in range(K):
        _begin(k, F, R, G, weight, of_F, room)
        for l in range(K if E[k].any() else 0):
            if l == k:
                continue
            density, reach = _density(k, l, E, F, of_E, of_F, room)
            row = first_row + k * K + l
            t, farthest = _drawn(density, key0, key1, step, row)
            if farthest > reach:
                t, _ = _drawn(_whole(l, F, density, room), key0, key1, step, row)
            jumps[k, l] = t
            _shear(k, l, t, E, F, R, G, room)
        _draw_row(k, F, key0, key1, step, first_row, room)


def room_for_shears(n: int) -> np.ndarray:
    """What `shears` works in, for rows of F of n entries."""
    return np.empty((ROWS, max(n, LANES)))


def _signature_of_shears(real: types.Float) -> Signature:
    matrix = types.Array(real, 2, "C")
    cube = types.Array(real, 3, "C")
    doubles = types.Array(types.float64, 2, "C")
    prior = types.UniTuple(doubles, 2)
    address = types.UniTuple(types.int64, 4)
    return types.void(matrix, matrix, matrix, cube, types.float64, prior, prior, address, doubles, doubles)


call_shears = called_by_address(_signature_of_shears)


def address_of_shears(dtype: np.dtype) -> int:
    """For `call_shears`, of factors of this type."""
    return address_of(shears, _signature_of_shears, dtype)
