"""The kernels of counts: binomials and gammas have their distributions, and the compiled ones equal the plain ones."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ppnmf.kernels import binomial, counts, counts_reference, gammas
from ppnmf.rng import NEXT, Site, Stream

LUCK = 1e-4
KEY = Stream.of(5)
KEYS = np.array(KEY.keys)
NONE = np.empty(0)


def thinned(n, p, M, step=1):
    """M binomial draws, each of its own cell."""
    out = np.empty(M)
    address = (*KEY.keys[0], step, int(Site.THINNING), 0)
    binomial.thinned(np.full(M, float(n)), np.arange(M, dtype=np.int32), np.array([0, M]), p, address, out)
    return out


@pytest.mark.parametrize(
    ("n", "p"),
    [(1, 0.3), (7, 0.8), (19, 0.5), (20, 0.5), (25, 0.45), (101, 0.1), (400, 0.7), (2000, 0.0051), (100_000, 1.1e-4)],
)
def test_binomials_have_their_distribution(n, p):
    M = 400_000
    found = np.bincount(thinned(n, p, M).astype(int), minlength=n + 1)
    expected = M * stats.binom(n, p).pmf(np.arange(n + 1))
    often = expected > 10
    table = np.append(found[often], found[~often].sum()), np.append(expected[often], expected[~often].sum())
    keep = table[1] > 5
    assert stats.chisquare(table[0][keep], table[1][keep] * table[0][keep].sum() / table[1][keep].sum()).pvalue > LUCK


@pytest.mark.parametrize(("n", "p"), [(2.0**53, 0.25), (2.0**53, 0.75), (2.0**50, 0.4999), (1e15, 1e-4)])
def test_binomials_of_counts_as_large_as_a_double_holds_are_normal(n, p):
    drawn = thinned(n, p, 100_000)
    z = ((drawn - n * p) - 0.0) / math.sqrt(n * p * (1 - p))
    assert stats.kstest(z, "norm").pvalue > LUCK
    assert len(np.unique(drawn % 2)) == 2  # to the last event


def test_binomials_of_large_counts_and_small_means_are_poisson():
    M = 200_000
    found = np.bincount(thinned(2.0**53, 3 / 2.0**53, M).astype(int), minlength=20)[:20]
    expected = M * stats.poisson(3).pmf(np.arange(20))
    assert stats.chisquare(found[:12], expected[:12] * found[:12].sum() / expected[:12].sum()).pvalue > LUCK


def drawn(shape, rate, address, least, out):
    gammas.gammas(shape[None], rate[None], KEYS, address, least, out[None])


@pytest.mark.parametrize("shape", [0.05, 0.5, 1.0, 1.7, 30.0, 1e6])
def test_gammas_have_their_distribution(shape):
    out = np.empty((5000, 7))
    drawn(np.full((5000, 7), shape), np.full((1, 7), 2.0), (3, 0, 0), 0.0, out)
    assert stats.kstest(out.ravel(), stats.gamma(shape, scale=0.5).cdf).pvalue > LUCK


def test_a_gamma_that_would_be_zero_is_the_least():
    out = np.empty((2000, 2))
    drawn(np.full((2000, 2), 1e-3), np.ones((2000, 2)), (3, 0, 0), 1e-150, out)
    share = float((out == 1e-150).mean())
    exact = stats.gamma(1e-3).cdf(1e-150)
    assert abs(share - exact) < 4 * math.sqrt(exact * (1 - exact) / out.size)


def test_compiled_gammas_are_the_plain_ones():
    generator = np.random.default_rng(0)
    shape = generator.choice([0.02, 0.6, 1.0, 3.0, 500.0], size=(300, 5))
    rate = generator.random((300, 5)) + 0.1
    out = np.empty((300, 5))
    drawn(shape, rate, (4, int(Site.H), 11), 1e-100, out)
    plain = counts_reference.gammas(torch.from_numpy(shape), torch.from_numpy(rate), KEY, 0, 4, Site.H, 11, 1e-100)
    torch.testing.assert_close(torch.from_numpy(out), plain, rtol=1e-11, atol=0)


def block(K, seed=0, B=40, D=30):
    """Counts from none to millions, and factors with zeros among them."""
    generator = np.random.default_rng(seed)
    X = np.floor(10 ** generator.uniform(-1, 6, (B, D))) * (generator.random((B, D)) < 0.5)
    W, Ht = generator.gamma(0.3, size=(B, K)), generator.gamma(0.3, size=(D, K))
    W[generator.random((B, K)) < 0.1] = 0.0
    row, column = np.nonzero(X)
    indptr = np.concatenate([[0], np.cumsum((X > 0).sum(1))])
    return X[row, column], row, column, indptr, W, Ht


def allocate(data, columns, indptr, W, Ht, step, first_row, of_W, of_H):
    given = (indptr[None], W[None], Ht[None], KEYS, step, first_row)
    counts.allocate(data, columns, *given, of_W[None], of_H[None])


def log_means(data, column, indptr, W, Ht, *exposures):
    out = np.empty(1)
    counts.log_means(data, column.astype(np.int32), indptr[None], W[None], Ht[None], *exposures, out)
    return out[0]


@pytest.mark.parametrize("K", [1, 2, 3, 9])
def test_compiled_allocations_are_the_plain_ones(K):
    data, row, column, indptr, W, Ht = block(K)
    of_W, of_H = np.zeros_like(W), np.zeros_like(Ht)
    allocate(data, column.astype(np.int32), indptr, W, Ht, 9, 100, of_W, of_H)
    rows, columns = torch.from_numpy(row), torch.from_numpy(column)
    cells = counts_reference.Cells(KEY, 0, 9, Site.COUNTS, rows + 100, columns)
    factors = torch.from_numpy(W)[rows], torch.from_numpy(Ht)[columns]
    shares = counts_reference.allocated(torch.from_numpy(data), *factors, cells)
    assert torch.equal(shares.sum(1), torch.from_numpy(data))
    assert torch.equal(torch.zeros_like(torch.from_numpy(W)).index_add(0, rows, shares), torch.from_numpy(of_W))
    assert torch.equal(torch.zeros_like(torch.from_numpy(Ht)).index_add(0, columns, shares), torch.from_numpy(of_H))


@pytest.mark.parametrize("x", [1, 3, 8, 20, 300])
def test_allocations_are_multinomial(x):
    """Each component's share is binomial, and so is the sum of two of them."""
    M, weights = 40_000, np.array([0.5, 1e-3, 2.0, 0.7])
    W, Ht = np.tile(weights, (M, 1)), np.ones((1, 4))
    of_W, of_H = np.zeros((M, 4)), np.zeros((1, 4))
    columns, indptr = np.zeros(M, dtype=np.int32), np.arange(M + 1)
    allocate(np.full(M, float(x)), columns, indptr, W, Ht, x, 0, of_W, of_H)
    assert np.array_equal(of_W.sum(0), of_H[0]) and float(of_W.sum()) == M * x
    p = weights / weights.sum()
    for some in ([0], [1], [2], [3], [0, 2], [1, 3]):
        expected = M * stats.binom(x, p[some].sum()).pmf(np.arange(x + 1))
        found = np.bincount(of_W[:, some].sum(1).astype(int), minlength=x + 1)
        often = expected > 10
        table = np.append(found[often], found[~often].sum()), np.append(expected[often], expected[~often].sum())
        keep = table[1] > 5
        if keep.sum() > 1:
            scaled = table[1][keep] * table[0][keep].sum() / table[1][keep].sum()
            assert stats.chisquare(table[0][keep], scaled).pvalue > LUCK / 6


def test_numbers_of_a_cell_do_not_depend_on_the_block():
    data, _row, column, indptr, W, Ht = block(3)
    whole, halves = np.zeros_like(W), np.zeros_like(W)
    of_H, of_halves = np.zeros_like(Ht), np.zeros_like(Ht)
    columns = column.astype(np.int32)
    allocate(data, columns, indptr, W, Ht, 2, 0, whole, of_H)
    for lo, hi in ((0, 13), (13, 40)):
        span = slice(indptr[lo], indptr[hi])
        part = data[span], columns[span], indptr[lo : hi + 1] - indptr[lo]
        allocate(*part, W[lo:hi], Ht, 2, lo, halves[lo:hi], of_halves)
    assert np.array_equal(whole, halves) and np.array_equal(of_H, of_halves)


def test_expected_shares_and_log_means_are_those_of_products():
    data, row, column, indptr, W, Ht = block(4)
    of_W, of_H = np.zeros_like(W), np.zeros_like(Ht)
    counts.expect(data, column.astype(np.int32), indptr[None], W[None], Ht[None], of_W[None], of_H[None])
    mean = (W @ Ht.T)[row, column]
    shares = (data / mean)[:, None] * W[row] * Ht[column]
    by_row, by_column = np.zeros_like(W), np.zeros_like(Ht)
    np.add.at(by_row, row, shares)
    np.add.at(by_column, column, shares)
    np.testing.assert_allclose(of_W, by_row, rtol=1e-12)
    np.testing.assert_allclose(of_H, by_column, rtol=1e-12)
    generator = np.random.default_rng(1)
    per_row, per_column, per_entry = generator.random(len(W)), generator.random(len(Ht)), generator.random(len(data))
    found = log_means(data, column, indptr, W, Ht, per_row, per_column, per_entry)
    expected = (data * np.log(mean * per_row[row] * per_column[column] * per_entry)).sum()
    assert found == pytest.approx(expected, rel=1e-12)
    assert log_means(data, column, indptr, 0 * W, Ht, NONE, NONE, NONE) == -math.inf


def test_sites_are_below_the_step_to_a_cell_s_next_numbers():
    assert max(Site) < NEXT
