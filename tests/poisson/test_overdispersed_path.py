"""Stepping stones and variational Bayes of counts that vary more than Poisson ones."""

import numpy as np
import pytest
import torch
from scipy import special, stats

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.kernels import overdispersed as compiled
from ppnmf.models import NegativeBinomialGamma
from ppnmf.poisson import overdispersed_path
from ppnmf.poisson.overdispersed_moments import log_masses
from ppnmf.poisson.overdispersion import DispersionPrior
from ppnmf.protocols import Address
from ppnmf.rng import Site, Stream
from tests.poisson.test_evidence import SMALL, assert_near
from tests.scenarios import LUCK

MASK = torch.tensor([[1, 1], [1, 0], [0, 1]]).bool()
PRIOR = DispersionPrior(2.0, 1.0)
loose = pytest.mark.filterwarnings("ignore:log_evidence by stepping_stone")  # few particles


def small(rank):
    return NegativeBinomialGamma(rank, 0.9, 1.2, 1.0, 1.5, dispersion_shape=2.0, dispersion_rate=1.0)


def over_the_prior(model, mask, draws=400_000):
    """log p(SMALL) and its standard error: the dispersion, W and H from the prior."""
    each = model.likelihood(drawn := model.prior_draws((3, 2), draws, Stream.of(3))).log_prob(SMALL)
    assert set(drawn) == {"W", "H", "dispersion"}
    logs = (each if mask is None else each * mask).sum((-2, -1)).reshape(20, -1)
    means = logs.logsumexp(1).exp() / logs.shape[1]
    return float(means.mean().log()), float(means.std() / means.mean()) / 20**0.5


def estimate(model, mask=None, **options):
    options = {"particles": 60, "draws": 600, "warmup": 100, "replicates": 4, "progress": False} | options
    return ppnmf.log_evidence(model, SMALL, method="stepping_stone", mask=mask, **options)


@loose
def test_stepping_stones_of_overdispersed_counts_match_brute_force():
    exact, error = over_the_prior(small(1), None)
    evidence = estimate(small(1))
    assert_near(evidence, exact, error, least=0.1)
    assert evidence.mcse < 0.1


@loose
@pytest.mark.slow
@pytest.mark.parametrize("mask", [None, MASK], ids=["full", "masked"])
def test_stepping_stones_match_brute_force_at_rank_two(mask):
    exact, error = over_the_prior(small(2), mask)
    evidence = estimate(small(2), mask, particles=100, draws=2000, replicates=6)
    assert_near(evidence, exact, error)
    assert evidence.mcse < 0.05


def judged_dispersion(prior, power, chains=250, steps=10):
    """The p-value of φ after steps at a power, in chains of the same W and H, against its density on a grid under PRIOR."""
    X = as_matrix(SMALL)
    own = small(2).prior_draws((3, 2), 1, Stream.of(5))
    params = {site: values.expand(chains, *values.shape[1:]) for site, values in own.items()}
    e = torch.ones(1, 1, dtype=torch.float64)
    for step in range(steps):
        at = Address(Stream.of(6, chains), step)
        params["dispersion"] = overdispersed_path._drawn_dispersion(prior, X, params, e, power, at)
    y = torch.linspace(-12, 8, 4001, dtype=torch.float64)
    phi = y.exp()
    first = {site: own[site] for site in ("W", "H")}
    logs = power * log_masses(X, first, e, phi[None])[0] + PRIOR.log_prob(phi) + y
    below = (logs - logs.logsumexp(0)).exp().cumsum(0)
    return stats.kstest(np.interp(params["dispersion"].log(), y, below), "uniform").pvalue


@pytest.mark.parametrize("power", [0.3, 1.0])
def test_the_dispersion_s_steps_have_its_conditional_at_any_power(power):
    assert judged_dispersion(PRIOR, power) > LUCK


def test_a_prior_of_the_dispersion_that_is_off_by_one_is_found():
    assert judged_dispersion(DispersionPrior(PRIOR.shape + 1, PRIOR.rate), 1.0) < 1e-9


@pytest.mark.parametrize("power", [0.3, 1.0])
def test_an_entry_s_steps_have_its_conditional_at_any_power(power):
    """Many copies of one entry, against its density on a grid; the other component is fixed by its prior."""
    M, phi, size, rate = 2000, 1.7, 0.6, 0.8
    x, g = np.array([4.0, 0.0, 31.0, 1.0]), np.array([[0.2, 1.0], [1.0, 1.0], [0.7, 3.0], [0.1, 0.05]])
    e = np.array([1.0, 0.5, 2.0, 3.0])
    cells = np.tile(x, M), np.tile(e, M), np.tile(np.arange(4, dtype=np.int32), M), 4 * np.arange(M + 1)
    F, sizes, rates = np.tile([1.0, 2.0], (M, 1)), np.tile([size, 1.0], (M, 1)), np.tile([rate, 1.0], (M, 1))
    for step in range(80):
        out = np.empty_like(F)
        address = (*Stream.of(7).keys[0], step, int(Site.W), 0)
        compiled.stepped(*cells, F, g, sizes, rates, phi, power, address, 1e-150, out)
        F = np.column_stack([out[:, 0], np.full(M, 2.0)])
    u = np.linspace(-60, 8, 200_001)
    means = [own * (a * np.exp(u) + 2.0 * b) for own, (a, b) in zip(e, g, strict=True)]
    fit = sum(special.xlogy(c, m) - (c + phi) * np.log(phi + m) for c, m in zip(x, means, strict=True))
    logs = size * u - rate * np.exp(u) + power * fit
    mass = np.exp(logs - logs.max()).cumsum()
    assert stats.kstest(np.log(F[:, 0]), lambda v: np.interp(v, u, mass / mass[-1])).pvalue > LUCK


def test_the_bound_lies_below_the_evidence_and_the_draws_of_the_dispersion_have_its_moments():
    post = ppnmf.fit(small(1), SMALL, method="vb", draws=4000, tol=1e-9, progress=False)
    exact, error = over_the_prior(small(1), None, 100_000)
    assert exact - 2 < post.attrs["elbo"] < exact + 4 * error
    phi = post.draws["dispersion"][0]
    logs = post.stats["lp"][0] - post.stats["log_q"][0]
    assert abs(float(logs.logsumexp(0)) - np.log(4000) - exact) < 0.15
    assert float(phi.min()) > 0 and post.attrs["converged"]


def test_variational_bayes_holds_what_is_known():
    rows = torch.tensor([[0.5, 2.0]], dtype=torch.float64)
    post = ppnmf.fit(small(2), SMALL, method="vb", fixed={"H": rows}, draws=5, progress=False)
    assert torch.equal(post.draws["H"][0, :, :1], rows.expand(5, 1, 2))
