"""Variational Bayes for counts: its bound by quadrature, and below the evidence by little at rank 1."""

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy import integrate, stats

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.inference import icm, vb
from ppnmf.inference.chain import State
from ppnmf.models import GammaPoisson
from ppnmf.poisson import moments
from ppnmf.protocols import Read, Sweeps
from ppnmf.rng import Stream
from tests.poisson.exact import RankOne
from tests.scenarios import mask_of, uneven_counts

X = torch.tensor([[3.0, 0.0], [11.0, 4.0], [0.0, 1.0], [2.0, 2.0]], dtype=torch.float64)


def ascended(model, X, mask=None, sweeps=200):
    data = as_matrix(X, mask)
    begun = icm.begin(model, data, Stream.of(0), "scaled", [0])
    state = State(model.approximated(begun.params, data), 1)
    for _ in range(sweeps):
        state, bound = vb.step(model, state, data)
    return state.params, float(bound.elbo)


def expectation(function, q):
    """E_q of a function of one entry, by quadrature in its logarithm."""
    weighted = lambda u: function(np.exp(u)) * q.pdf(np.exp(u)) * np.exp(u)
    return integrate.quad(weighted, np.log(q.ppf(1e-13)) - 5, np.log(q.isf(1e-15)) + 1, epsabs=1e-12, limit=500)[0]


@pytest.mark.parametrize("mask", [None, mask_of((4, 2))], ids=["full", "masked"])
def test_the_bound_at_rank_one_is_that_by_quadrature(mask):
    model = uneven_counts(GammaPoisson, 4, 2, 1)
    q, elbo = ascended(model, X, mask, sweeps=3)
    seen = np.ones((4, 2)) if mask is None else mask.double().numpy()
    means, logs, divergence = {}, {}, 0.0
    for site in ("W", "H"):
        prior = model.prior(site).on(torch.device("cpu"))
        size, rate = (values.expand(q[site].shape[1:]).flatten() for values in prior)
        shape, mean = q[f"{site}.shape"].flatten(), q[site].flatten()
        of_q = [stats.gamma(float(a), scale=float(m / a)) for a, m in zip(shape, mean, strict=True)]
        of_p = [stats.gamma(float(a), scale=float(1 / b)) for a, b in zip(size, rate, strict=True)]
        means[site] = np.array([expectation(lambda w: w, own) for own in of_q])
        logs[site] = np.array([expectation(np.log, own) for own in of_q])
        pairs = zip(of_q, of_p, strict=True)
        divergence += sum(expectation(lambda w, q=q, p=p: q.logpdf(w) - p.logpdf(w), q) for q, p in pairs)
    e = model.exposure(X).expand(4, 2).numpy()
    log_mean = np.log(e) + logs["W"][:, None] + logs["H"]
    fit = X.numpy() * log_mean - e * np.outer(means["W"], means["H"]) - torch.lgamma(X + 1).numpy()
    assert elbo == pytest.approx(float((seen * fit).sum() - divergence), abs=1e-7)


@pytest.mark.parametrize("mask", [None, mask_of((4, 2))], ids=["full", "masked"])
def test_the_bound_at_rank_one_lies_little_below_the_evidence(mask):
    model = uneven_counts(GammaPoisson, 4, 2, 1)
    exact = RankOne(model, X, mask).log_evidence()
    _, elbo = ascended(model, X, mask)
    assert exact - 1.0 < elbo < exact


def test_a_sweep_leaves_the_bound_greatest_over_the_scales():
    model = uneven_counts(GammaPoisson, 4, 2, 2)
    data = as_matrix(X)
    q, _ = ascended(model, X, sweeps=4)
    W, H = moments.of_factor(q, "W"), moments.of_factor(q, "H")
    at = model.divergence(q, data)
    for factor in (0.97, 1.03):
        c = torch.tensor(factor, dtype=torch.float64)
        other = moments.named(W.stretched(c), H.stretched(1 / c))
        assert bool(model.divergence(other, data) > at)


def test_vb_of_a_sparse_matrix_is_that_of_the_dense_one():
    generator = np.random.default_rng(0)
    counts = generator.poisson(0.3 * generator.gamma(0.5, size=(30, 2)) @ generator.gamma(0.5, size=(2, 20)))
    model = GammaPoisson.for_data(counts, 2)
    options = {"method": "vb", "draws": 50, "max_sweeps": 40, "tol": 0.0, "progress": False, "init": "prior"}
    with pytest.warns(UserWarning, match="had not converged"):
        dense = ppnmf.fit(model, counts, **options)
    with pytest.warns(UserWarning, match="had not converged"):
        sparse = ppnmf.fit(model, scipy.sparse.csr_array(counts), **options)
    assert dense.attrs["elbo"] == pytest.approx(sparse.attrs["elbo"], rel=1e-9)
    torch.testing.assert_close(dense.draws["W"], sparse.draws["W"], rtol=1e-6, atol=1e-12)


def test_superfluous_components_are_paid_for():
    generator = np.random.default_rng(2)
    counts = generator.poisson(40 * generator.gamma(0.7, size=(30, 2)) @ generator.gamma(0.7, size=(2, 20)))
    table = ppnmf.select_rank("gamma_poisson", counts, ranks=range(1, 5), method="elbo", restarts=3, progress=False)
    assert table.best == 2


def test_moments_are_read_as_they_are_asked_for():
    model, data = GammaPoisson(2), as_matrix(X)
    q = model.approximated(model.begin(data, Stream.of(1), "scaled"), data)
    one = model.sweep(q, data, Sweeps(read=Read.MOMENTS, number=3), None)
    for _ in range(3):
        q = model.sweep(q, data, Sweeps(read=Read.MOMENTS), None).params
    assert torch.equal(one.params["W"], q["W"])
