"""Shears with a row of one factor integrated out, compiled: `gaussian.collapsed` states and defines them.

F is the factor whose rows are integrated out and drawn anew, E the other one; both are stored a component a row.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import numpy as np
from numba import njit, types
from numba.core.typing import Signature

from ppnmf.kernels.cpu.concave import Density, drawn
from ppnmf.kernels.cpu.normal import draw_lanes
from ppnmf.kernels.cpu.ridge import least_ratio, rated, shift
from ppnmf.kernels.cpu.uniforms import uniforms_of_rows
from ppnmf.kernels.lanes import COMPILED, INLINED, INNER, fused, total_of
from ppnmf.kernels.natural import products
from ppnmf.kernels.parts import address_of, called_by_address
from ppnmf.rng import Site

__all__ = ["Collapsed", "address_of_shears", "call_shears", "room_for_shears", "shears"]

SITE_ROW = int(Site.COLLAPSED_ROW)
CUT = 8.0  # standard deviations above zero from which an entry is looked at only where t goes far
CERTAIN = 7.0  # of them, above which the logarithm of Φ is zero, to 2e-12
LANES = 128
ROWS = 17  # of a room


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
        draw_lanes(a, linear, per_root, even if k % 2 == 0 else odd, room[4], room[14:], n)
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
            t, farthest = drawn(density, key0, key1, step, row)
            if farthest > reach:
                t, _ = drawn(_whole(l, F, density, room), key0, key1, step, row)
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


# What compiled sweeps are told of them

Natural = tuple[np.ndarray, np.ndarray]  # precision and linear of a prior


class Collapsed(NamedTuple):
    """The shears that integrate a row of W or of H out (`gaussian.collapsed`), and what they work in."""

    of_W: bool
    of_H: bool
    shears: int  # the address of the compiled function
    prior_W: Natural  # (1 | K, 1 | N)
    prior_H: Natural  # (1 | K, 1 | D)
    P: np.ndarray  # H Xᵀ, (K, N), where rows of W are integrated out
    jumps: np.ndarray  # (K, K)
    room: np.ndarray  # `room_for_shears`

    @classmethod
    def of(
        cls, sites: tuple[str, ...], prior_W: Natural, prior_H: Natural, shape: tuple[int, int, int], dtype: np.dtype
    ) -> Self:
        """For factors of these shapes (K, N, D); priors: (1 | R, 1 | K), as sweeps have them. Empty where no site is asked for."""
        K, N, D = shape
        of_W, of_H = _transposed_prior(prior_W), _transposed_prior(prior_H)
        if not sites:
            return cls(False, False, 0, of_W, of_H, np.empty((0, 0), dtype), np.empty((0, 0)), np.empty((0, 0)))
        P = np.empty((K, N if "W" in sites else 0), dtype)
        room = room_for_shears(max(N, D))
        return cls("W" in sites, "H" in sites, address_of_shears(dtype), of_W, of_H, P, np.empty((K, K)), room)


def _transposed_prior(prior: Natural) -> Natural:
    precision, linear = prior
    return np.ascontiguousarray(precision.T), np.ascontiguousarray(linear.T)
