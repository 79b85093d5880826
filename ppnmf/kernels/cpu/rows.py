"""Half a sweep: the rows of a factor through their components in turn, many rows at once."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numba import njit, types
from numba.core.typing import Signature
from torch import Tensor

from ppnmf.kernels.cpu.normal import draw_lanes, reflected_lanes
from ppnmf.kernels.cpu.uniforms import uniforms_of_rows
from ppnmf.kernels.lanes import COMPILED, INLINED, INNER, fused, select, weighted_rows
from ppnmf.kernels.parts import address_of, called_by_address
from ppnmf.kernels.reference import Natural
from ppnmf.protocols import Statistics
from ppnmf.rng import Site, Stream

__all__ = [
    "address_of_update_rows",
    "call_update_rows",
    "half_sweep",
    "room_for_rows",
    "signature_of_update_rows",
    "update_rows",
]

LANES = 128  # rows that go through a component together, at most
FEW = 28  # components of which so many rows fit into 40 kB
DOUBLES = types.Array(types.float64, 2, "C")


class Lanes(NamedTuple):
    """Some rows that go through the components together."""

    row: int  # the first, in the factor
    at: int  # the same, in the statistics
    n: int


@njit(**COMPILED)
def update_rows(F, P, Q, prior, weight, address, rows, first, passes, sample, room):  # type: ignore[no-untyped-def]
    """Rows lo to hi of F (K, R), a component a row, in place, by P and Q times `weight`.

    Args:
        P, Q: (K, R - shift) and (K, K, 1 | R - shift); they begin at row `shift` of F.
        prior: precision and linear, (1 | R, 1 | K).
        address: the two words of the key, the step, the site, and the number that F's first row has in the whole factor.
        rows: lo, hi and shift.
        first: the first component that is updated.
        passes: how often the components are gone through: once, where they are drawn.
        sample: 0 takes the modes, 1 draws, and n > 1 draws in the steps that n divides, and reflects in the others.
        room: `room_for_rows(K)`; as many rows go together as it is wide.
    """
    K = len(F)
    precision, linear = prior
    key0, key1, step, site, first_row = address
    lo, hi, shift = rows
    reflects = sample > 1 and step % sample != 0
    part = room[:K]  # the rows that are worked on, in double precision
    total = room[K]
    own = room[K + 1]
    a = room[K + 2]
    b = room[K + 3]
    even = room[K + 4]
    odd = room[K + 5]
    drawn = room[K + 6]
    per_root = room[K + 7]
    tails = room[K + 8 :]
    alike = Q.shape[2] == 1 and precision.shape[0] == 1  # one precision for all rows
    together = room.shape[1]
    for start in range(lo, hi, together):
        lanes = Lanes(start, start - shift, min(together, hi - start))
        n = lanes.n
        for k in range(K):
            _copy(F[k, start : start + n], part[k])
        for _ in range(passes):
            for k in range(first, K):
                _explain(Q, part, k, lanes, total, own)
                _likelihood(P[k, lanes.at : lanes.at + n], total, part[k], own, weight, a, b)
                _add_prior(precision, k, lanes, a)
                _add_prior(linear, k, lanes, b)
                if sample > 0:
                    u = even if k % 2 == 0 or reflects else odd
                    _reciprocal_roots(a, alike, per_root, n)
                    if reflects:
                        reflected_lanes(b, per_root, part[k], u, n)
                    elif k % 2 == 0 or k == first:
                        uniforms_of_rows(key0, key1, k // 2, first_row + start, step, site, n, even, odd)
                    draw_lanes(a, b, per_root, u, drawn, tails, n)
                    _copy(drawn[:n], part[k])
                else:
                    _modes(a, b, part[k, :n])
        for k in range(first, K):
            _copy(part[k, :n], F[k, start : start + n])


@njit(**INNER)
def _copy(source, target):  # type: ignore[no-untyped-def]
    for i in range(len(source)):
        target[i] = source[i]


@njit(**INLINED)
def _explain(Q, F, k, lanes, total, own):  # type: ignore[no-untyped-def]
    """Σ_l Q_kl F_l into total[:n], and Q_kk into own[:n], in each lane."""
    n = lanes.n
    if Q.shape[2] == 1:
        weighted_rows(Q[k, :, 0], F, n, total)
        for i in range(n):
            own[i] = Q[k, k, 0]
    else:
        _explained_row_by_row(Q[k], F, lanes.at, n, total)
        _copy(Q[k, k, lanes.at : lanes.at + n], own)


@njit(**INLINED)
def _explained_row_by_row(Q, F, start, n, total):  # type: ignore[no-untyped-def]
    """total[:n] = Σ_l Q[l, start:start + n] F[l, :n]; Q (K, R)."""
    for i in range(n):
        total[i] = 0.0
    for l in range(len(Q)):
        for i in range(n):
            total[i] = fused(np.float64(Q[l, start + i]), F[l, i], total[i])


@njit(**INLINED)
def _likelihood(P, total, w, own, weight, a, b):  # type: ignore[no-untyped-def]
    """The likelihood's natural parameters of a component, in each lane."""
    for i in range(len(P)):
        a[i] = weight * own[i]
        b[i] = weight * (np.float64(P[i]) - fused(-w[i], own[i], total[i]))


@njit(**INNER)
def _add_prior(natural, k, lanes, total):  # type: ignore[no-untyped-def]
    """total[:n] += the natural parameter (1 | R, 1 | K) of component k, in each lane."""
    column = k if natural.shape[1] > 1 else 0
    if natural.shape[0] > 1:
        for i in range(lanes.n):
            total[i] += natural[lanes.row + i, column]
    else:
        one = natural[0, column]
        for i in range(lanes.n):
            total[i] += one


@njit(**INLINED)
def _reciprocal_roots(a, alike, out, n):  # type: ignore[no-untyped-def]
    """out[:n] = 1 / √a, one root for all where they are alike."""
    if alike:
        root = 1.0 / math.sqrt(a[0])
        for i in range(n):
            out[i] = root
    else:
        for i in range(n):
            out[i] = 1.0 / math.sqrt(a[i])


@njit(**INNER)
def _modes(a, b, w):  # type: ignore[no-untyped-def]
    """max(b / a, 0), where anything is said about w."""
    for i in range(len(w)):
        mode = select(b[i] > 0.0, b[i] / a[i], 0.0)
        w[i] = select((a[i] > 0.0) | (b[i] != 0.0), mode, w[i])


def room_for_rows(K: int) -> np.ndarray:
    """What `update_rows` works in, (K + 11, lanes): torch's memory, which begins where a vector does; across two it costs twice.

    Of many components fewer rows go together, so that the room stays in the nearest cache.
    """
    return torch.empty(K + 11, LANES if K <= FEW else LANES // 2, dtype=torch.float64).numpy()


def half_sweep(
    F: Tensor,
    statistics: Statistics,
    prior: Natural,
    draw: tuple[Stream, int, Site] | None,
    first_row: int = 0,
    first: int = 0,
    weight: Tensor | None = None,
    fresh: int = 1,
) -> Tensor:
    """`reference.half_sweep`, compiled; factors and statistics are best stored a component a row (F.mT contiguous).

    Args:
        F: (C, R, K). statistics: P (C, R, K), and Q (C, K, K) or (C, R, K, K).
        prior: precision and linear, (1 | R, 1 | K).
        draw, first_row, first, fresh: as there.
        weight: what the statistics are taken times, (C,).

    Returns: the factor after it, a new tensor whose components lie a row each.
    """
    C, R, K = F.shape
    out = F.mT.clone(memory_format=torch.contiguous_format).numpy()
    natural = tuple(values.double().contiguous().numpy() for values in prior)
    P = statistics.P.mT.contiguous().numpy()
    Q = _gram_a_row(statistics.Q, F.ndim)
    stream, step, site = draw if draw is not None else (Stream(((0, 0),) * C), 0, Site.W)
    weights = [1.0] * C if weight is None else weight.tolist()
    sample = fresh if draw is not None else 0
    room = room_for_rows(K)
    for c, key in enumerate(stream.keys):
        address = (*key, step, int(site), first_row)
        update_rows(out[c], P[c], Q[c], natural, weights[c], address, (0, R, 0), first, 1, sample, room)
    return torch.from_numpy(out).mT


def _gram_a_row(Q: Tensor, n_dims: int) -> np.ndarray:
    """Q (C, K, K) or (C, R, K, K) with the rows last, (C, K, K, 1 | R)."""
    last = Q[..., None] if Q.ndim == n_dims else Q.permute(0, 2, 3, 1)
    rows_last: np.ndarray = last.contiguous().numpy()
    return rows_last


def signature_of_update_rows(real: types.Float) -> Signature:
    """Of `update_rows`, for factors of this type."""
    matrix = types.Array(real, 2, "C")
    cube = types.Array(real, 3, "C")
    prior = types.UniTuple(DOUBLES, 2)
    address = types.UniTuple(types.int64, 5)
    rows = types.UniTuple(types.int64, 3)
    number = types.int64
    return types.void(matrix, matrix, cube, prior, types.float64, address, rows, number, number, number, DOUBLES)


call_update_rows = called_by_address(signature_of_update_rows)


def address_of_update_rows(dtype: np.dtype) -> int:
    """For `call_update_rows`, of factors of this type."""
    return address_of(update_rows, signature_of_update_rows, dtype)
