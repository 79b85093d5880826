"""Densities of gamma entries with no count allocated: against sums over fine grids."""

import math

import numpy as np
import pytest

from ppnmf.kernels import unallocated

ENTRIES = [  # shape, rate, counts, what others give, what a unit gives
    (1.0, 1.0, [], [], []),
    (0.6, 2.0, [3, 1], [0.1, 2.0], [1.0, 0.3]),
    (0.1, 0.5, [40], [30.0], [1.0]),
    (2.0, 3.0, [100, 2, 50], [0.0, 0.0, 0.0], [1.0, 0.2, 0.4]),
    (0.3, 5.0, [60, 60], [50.0, 0.001], [0.1, 0.0001]),
    (5.0, 0.01, [7, 1, 1], [0.001, 1000.0, 1.0], [1.0, 1.0, 1.0]),
]


def log_sum(logs, axis=-1):
    most = logs.max(axis, keepdims=True)
    return (most + np.log(np.exp(logs - most).sum(axis, keepdims=True))).squeeze(axis)


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_mass_of_an_entry_is_its_integral(entry):
    size, rate, *others = entry
    counts, given, own = (np.array(values, dtype=float) for values in others)
    y = np.linspace(-40 / size - 10, 20, 400_001)
    means = [x * np.log(m + g * np.exp(y)) for x, m, g in zip(counts, given, own, strict=True)]
    exact = log_sum(size * y - rate * np.exp(y) + sum(means)) + math.log(y[1] - y[0])
    assert abs(unallocated.log_mass(size, rate, counts, given, own) - exact) < 1e-5


class Drawn:
    """F (R, K) and G (S, K), priors and exposures for each entry, counts (R, S), and a point h (R,)."""

    def __init__(self, R, S, K, size, seed=0):
        rng = np.random.default_rng(seed)
        self.row, self.column = (rng.uniform(0.6, 1.5, (2, K, n)) for n in (R, S))
        self.F, self.G = rng.gamma(1, size=(R, K)), size * rng.gamma(1, size=(S, K))
        self.e = rng.uniform(0.5, 2.0, (R, S))
        self.x = rng.poisson(self.e * (self.F @ self.G.T)).astype(float)
        self.h = rng.gamma(1, size=R)

    @property
    def counts(self):
        rows, columns = self.x.nonzero()
        starts = np.concatenate([[0], np.bincount(rows, minlength=len(self.x)).cumsum()])
        return self.x[rows, columns], columns.astype(np.int32), starts.astype(np.int64)

    def density(self, labels):
        out, exposed = np.empty((1, len(labels))), (self.e @ self.G)[None]
        factors = self.F[None], self.G[None], exposed
        row, column = tuple(self.row), tuple(self.column)
        unallocated.components(*self.counts, *factors, row, column, np.array(labels), self.h[None], out)
        return out[0]

    def by_grids(self, k):
        """Over the length of G's column and each entry of F's."""
        z, y = np.linspace(-4, 4, 401), np.linspace(-35, 7, 1201)
        c, t, w = np.exp(z), np.exp(y), self.G[:, k]
        others, E = self.F @ self.G.T - np.outer(self.F[:, k], w), self.e @ w
        both = self.column[0, k].sum() * z - c * (self.column[1, k] * w).sum()
        above, below = both.copy(), both.copy()
        for j, h in enumerate(self.h):
            size, rate = self.row[0, k, j], self.row[1, k, j] + c * E[j]
            above += (size - 1) * np.log(h) - rate * h + self._fit(j, others[j], c[:, None] * w * h)
            logs = size * y - rate[:, None] * t + self._fit(j, others[j], c[:, None, None] * t[:, None] * w)
            below += log_sum(logs) + math.log(y[1] - y[0])
        return log_sum(above) - log_sum(below)

    def _fit(self, j, others, own):
        return (self.x[j] * np.log(others + own)).sum(-1)


@pytest.mark.parametrize("shape", [(2, 3, 2, 1.0), (3, 4, 2, 10.0), (2, 2, 1, 5.0)])
def test_the_density_of_a_component_is_the_ratio_of_two_integrals(shape):
    drawn = Drawn(*shape)
    exact = [drawn.by_grids(k) for k in range(shape[2])]
    np.testing.assert_allclose(drawn.density(range(shape[2])), exact, atol=1e-5)


def test_the_density_of_an_entry_integrates_to_one():
    drawn, total = Drawn(3, 4, 2, 3.0), np.zeros(3)
    y = np.linspace(-30, 6, 2001)
    given = (drawn.row[0, 1], drawn.row[1, 1])
    for t in np.exp(y):
        out = np.empty(3)
        exposed = (drawn.e @ drawn.G)[:, 1].copy()
        unallocated.entries(*drawn.counts, drawn.F, drawn.G, 1, exposed, *given, np.full(3, t), out)
        total += np.exp(out) * t * (y[1] - y[0])
    np.testing.assert_allclose(total, 1, atol=1e-5)
