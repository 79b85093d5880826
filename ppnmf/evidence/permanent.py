r"""Sums over the orders of K components, and draws of an order, by permanents.

Where r(θ) is a density of K components, each with a place of its own, r(πθ) is a product over the components for every
order π, and Σ_π r(πθ)^t is the permanent of the K × K matrix of the densities of component k in place l, to the power t.

*Scaling.* With the potentials of a best assignment taken off, no entry of the matrix is above one, and those of the
assignment are one. *Splitting.* Entries below e^-SMALL are left out; the permanent of what remains is the product of
those of its strongly connected blocks, most of which are single components. *Subsets.* The permanent of a block of m is
found row after row, over the sets of columns that the rows so far may fill: no term has a sign. That is m 2^m steps if all
sets matter, and few where the matrix is near its diagonal: what cannot bring more than `LEAST` of the permanent is left out,
and less than 1e-12 of it in all. Read backwards, the same table draws an order.

Where a block has more than `MOST` components, greater entries are left out too, until none has.

*Two powers.* A step of a path needs the permanents of the densities to two powers, and a draw of an order at the second: one walk
over the sets gives all three. Those that matter at the smaller power are those that are met, and more than matter at the greater.

References: Kuhn (1955), doi:10.1002/nav.3800020109, for assignments and their potentials; Dulmage and Mendelsohn (1958) for the
splitting; Bellman (1962), doi:10.1145/321105.321111, and Held and Karp for sums over subsets.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from ppnmf.compilation import can_be_kept
from ppnmf.threads import lots, ordered_map

__all__ = ["MOST", "log_permanents", "stepped"]

SMALL = 60.0  # nats below the best assignment that a component may cost in another's place before that is left out
MOST = 20  # components that a block may have; 21 take twice the time, and memory
LEAST = 1e-20  # of a permanent, which a step towards a set of columns can bring: m 2^m such steps are below 1e-12
KEPT: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "cache": can_be_kept(),
}  # compiled, for other processes too
STEPS = 24  # of the halving towards a threshold that keeps blocks small


def log_permanents(logs: np.ndarray) -> tuple[np.ndarray, bool]:
    """Logs of the permanents of matrices (C, K, K) whose logarithms these are; and whether no entry above e^-SMALL was left out.

    >>> values, _ = log_permanents(np.log([[[1.0, 2.0], [3.0, 4.0]]]))
    >>> round(float(np.exp(values[0])), 12)
    10.0
    """
    values = np.empty((len(logs), 2))
    largest = _in_lots(logs, 1.0, 1.0, values, np.empty((len(logs), 0)), np.empty((len(logs), 0), np.int64))
    return values[:, 1], largest <= MOST


def stepped(logs: np.ndarray, power: float, to: float, uniforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log permanents (C, 2) of matrices to two powers, and places (C, K) of the components at the second.

    Places have probability in proportion to the product of the entries [k, place of k] to the power `to`.

    Args:
        logs: of the entries, (C, K, K). uniforms: (C, K).
        power, to: the first no smaller than the second, which is above 0.
    """
    values, places = np.empty((len(logs), 2)), np.empty(uniforms.shape, np.int64)
    _in_lots(logs, power, to, values, uniforms, places)
    return values, places


def _in_lots(
    logs: np.ndarray, steep: float, flat: float, values: np.ndarray, uniforms: np.ndarray, places: np.ndarray
) -> int:
    """`_each`, over threads; the size of the largest block."""
    C, K, _ = logs.shape

    def some(lot: range) -> int:
        own = slice(lot.start, lot.stop)
        return int(_each(logs[own], steep, flat, values[own], uniforms[own], places[own]))

    groups = lots(C)
    return max(ordered_map(some, groups, float(len(groups[0]) * K * 2 ** min(K, MOST))))


@njit(**KEPT)
def _each(logs, steep, flat, values, uniforms, places):  # type: ignore[no-untyped-def]
    """The log permanents to either power, and places at the second where there are uniforms; the size of the largest block."""
    largest = 0
    K = logs.shape[1]
    filled, beside = np.zeros(2), np.zeros(2)
    sets = np.empty(2, np.int64)
    small = SMALL / flat
    for c in range(len(logs)):
        if _one_order(logs[c], small):
            values[c, 0] = steep * np.trace(logs[c])
            values[c, 1] = flat * np.trace(logs[c])
            largest = max(largest, 1)
            if uniforms.shape[1] > 0:
                places[c] = np.arange(K)
            continue
        of_row, of_column, columns = _potentials(logs[c])
        scaled = np.empty((K, K))
        best = 0.0
        for k in range(K):
            best += of_row[k] + of_column[k]
            for l in range(K):  # the best assignment goes on the diagonal
                scaled[k, l] = min(logs[c, k, columns[l]] - of_row[k] - of_column[columns[l]], 0.0)
        values[c, 0] = steep * best
        values[c, 1] = flat * best
        block_of, most = _blocks(scaled, small)
        largest = max(largest, most)
        if most > MOST:
            block_of = _small_blocks(scaled, small)
        if 1 << min(most, MOST) > len(filled):
            filled, beside = np.zeros(1 << min(most, MOST)), np.zeros(1 << min(most, MOST))
            sets = np.empty(len(filled), np.int64)
        for first in range(K):
            if block_of[first] != first:
                continue
            block = np.flatnonzero(block_of == first)
            met = _fill(scaled, steep, flat, block, filled, beside, sets)
            full = (1 << len(block)) - 1
            values[c, 1] += math.log(filled[full])
            values[c, 0] += math.log(beside[full] if steep != flat else filled[full])
            if uniforms.shape[1] > 0:
                _draw(scaled, flat, block, filled, columns, uniforms[c], places[c])
            for i in range(met):
                filled[sets[i]] = 0.0
                beside[sets[i]] = 0.0
    return largest


@njit(**KEPT)
def _one_order(logs, small):  # type: ignore[no-untyped-def]
    """Whether each component costs more than `small` in any other's place, so that the order they have is the only one."""
    for k in range(len(logs)):
        for l in range(len(logs)):
            if l != k and logs[k, l] > logs[k, k] - small:
                return False
    return True


@njit(**KEPT)
def _potentials(logs):  # type: ignore[no-untyped-def]
    """u and v with logs[k, l] <= u_k + v_l and equality on an assignment; and the column of each row in it.

    The Hungarian method by shortest augmenting paths: a row at a time, the least costs being those of -logs.
    """
    K = len(logs)
    u, v = np.zeros(K + 1), np.zeros(K + 1)
    row_of = np.full(K + 1, K)  # of each column; the last column is the one that the new row comes from
    before = np.zeros(K + 1, np.int64)
    for k in range(K):
        row_of[K] = k
        at = K
        reached = np.full(K + 1, np.inf)
        done = np.zeros(K + 1, np.bool_)
        while row_of[at] != K:
            done[at] = True
            row, gap, following = row_of[at], np.inf, K
            for l in range(K):
                if done[l]:
                    continue
                cost = -logs[row, l] - u[row] - v[l]
                if cost < reached[l]:
                    reached[l] = cost
                    before[l] = at
                if reached[l] < gap or following == K:
                    gap = reached[l]
                    following = l
            for l in range(K + 1):
                if done[l]:
                    u[row_of[l]] += gap
                    v[l] -= gap
                else:
                    reached[l] -= gap
            at = following
        while at != K:
            row_of[at] = row_of[before[at]]
            at = before[at]
    columns = np.empty(K, np.int64)
    for l in range(K):
        columns[row_of[l]] = l
    return -u[:K], -v[:K], columns


@njit(**KEPT)
def _blocks(scaled, least):  # type: ignore[no-untyped-def]
    """For each component the first one of its block, and the size of the largest: what entries above -least connect both ways."""
    K = len(scaled)
    reach = scaled > -least
    for m in range(K):
        for k in range(K):
            if reach[k, m]:
                for l in range(K):
                    reach[k, l] |= reach[m, l]
    block_of = np.empty(K, np.int64)
    largest = 0
    for k in range(K):
        size = 0
        block_of[k] = k
        for l in range(K - 1, -1, -1):
            if l == k or (reach[k, l] and reach[l, k]):
                block_of[k] = l
                size += 1
        largest = max(largest, size)
    return block_of, largest


@njit(**KEPT)
def _small_blocks(scaled, small):  # type: ignore[no-untyped-def]
    """The blocks at the greatest threshold at which none has more than `MOST` components."""
    low, high = 0.0, small
    for _ in range(STEPS):
        middle = 0.5 * (low + high)
        if _blocks(scaled, middle)[1] <= MOST:
            low = middle
        else:
            high = middle
    return _blocks(scaled, low)[0]


@njit(**KEPT)
def _fill(scaled, steep, flat, block, filled, beside, sets):  # type: ignore[no-untyped-def]
    """filled[S] = the sum over the ways to put the first |S| rows of a block into its columns of S; the last is the permanent.

    Args:
        filled, beside: zeros, (2^m,) or more, for the powers `flat` and, where it is another, `steep`.
        sets: takes the sets that are met, those of one size together; their number is given.
    """
    m = len(block)
    A, B = np.empty((m, m)), np.empty((m, m))
    for k in range(m):
        for l in range(m):
            A[k, l] = math.exp(flat * scaled[block[k], block[l]])
            B[k, l] = math.exp(steep * scaled[block[k], block[l]])
    both = steep != flat
    most = np.ones(m + 1)  # that the rows from the k-th on can bring
    for k in range(m - 1, -1, -1):
        most[k] = most[k + 1] * A[k].sum()
    filled[0] = beside[0] = 1.0
    sets[0] = 0
    begin = 0
    met = 1
    for k in range(m):
        end = met
        for i in range(begin, end):
            S = sets[i]
            for l in range(m):
                if S >> l & 1:
                    continue
                share = filled[S] * A[k, l]
                if share * most[k + 1] < LEAST:
                    continue
                T = S | 1 << l
                if filled[T] == 0.0:
                    sets[met] = T
                    met += 1
                filled[T] += share
                if both:
                    beside[T] += beside[S] * B[k, l]
        begin = end
    return met


@njit(**KEPT)
def _draw(scaled, flat, block, filled, columns, uniforms, places):  # type: ignore[no-untyped-def]
    """The places of a block's components, from the last row to the first."""
    m = len(block)
    S = (1 << m) - 1
    for k in range(m - 1, -1, -1):
        left = uniforms[block[k]] * filled[S]
        chosen = -1
        for l in range(m):
            if S >> l & 1:
                share = math.exp(flat * scaled[block[k], block[l]]) * filled[S ^ (1 << l)]
                if share > 0.0:
                    chosen = l
                    left -= share
                    if left <= 0.0:
                        break
        places[block[k]] = columns[block[chosen]]
        S ^= 1 << chosen
