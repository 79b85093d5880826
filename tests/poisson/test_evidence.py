"""Evidence of models of counts against quadrature and brute force."""

import math

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy import special
from scipy.stats import t as student

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.inference import smc
from ppnmf.models import GammaPoisson, NegativeBinomialGamma
from ppnmf.poisson.arrivals import Arrivals
from ppnmf.rng import Stream
from tests.poisson.exact import RankOne
from tests.scenarios import mask_of, uneven_counts

X = torch.tensor([[3.0, 0.0], [11.0, 4.0], [0.0, 1.0], [2.0, 2.0]], dtype=torch.float64)
loose = pytest.mark.filterwarnings("ignore:log_evidence by smc")  # few particles


def estimate(model, X, **options):
    options = {"replicates": 6, "particles": 200, "progress": False} | options
    return ppnmf.log_evidence(model, X, method="smc", **options)


def assert_near(evidence, exact, error=0.0, least=0.03):
    limit = student.ppf(1 - 5e-5, len(evidence.replicates) - 1)
    assert abs(evidence.log_evidence - exact) < max(limit * np.hypot(evidence.mcse, error), least)


@loose
@pytest.mark.parametrize("mask", [None, mask_of((4, 2))], ids=["full", "masked"])
def test_smc_by_time_matches_quadrature_at_rank_one(mask):
    model = uneven_counts(GammaPoisson, 4, 2, 1)
    evidence, exact = estimate(model, X, mask=mask, particles=500), RankOne(model, X, mask).log_evidence()
    assert_near(evidence, exact)
    assert evidence.mcse < 0.3
    assert np.mean(evidence.attrs["integrals"]) == pytest.approx(exact, abs=0.6)


@loose
@pytest.mark.parametrize("exposures", [1.0, 0.7])
def test_smc_by_time_of_complete_counts_with_one_exposure_matches_quadrature(exposures):
    model = GammaPoisson(1, 2.0, 2.0, exposures=exposures)
    evidence, exact = estimate(model, X, particles=300), RankOne(model, X, None).log_evidence()
    assert_near(evidence, exact, least=0.1)
    assert evidence.mcse < 0.3


@pytest.mark.parametrize("name", ["gamma_poisson", "negative_binomial_gamma"])
@pytest.mark.parametrize("mask", [None, mask_of((4, 2))], ids=["full", "masked"])
def test_one_exposure_for_all_is_that_of_each(name, mask):
    model = ppnmf.models.REGISTRY[name](2)
    data = as_matrix(X, mask)
    params = model.prior_draws((4, 2), 3, Stream.of(1))
    one = model.with_exposures(0.7).log_likelihood_at(params, data)
    for exposures in (np.full(2, 0.7), np.full((4, 1), 0.7), np.full((4, 2), 0.7)):
        torch.testing.assert_close(model.with_exposures(exposures).log_likelihood_at(params, data), one)
    program = model.with_exposures(0.7).likelihood(params).log_prob(X)
    torch.testing.assert_close(one, (program if mask is None else program * mask).sum((-2, -1)))


@loose
def test_smc_by_time_of_a_sparse_matrix_is_that_of_the_dense_one():
    model = uneven_counts(GammaPoisson, 4, 2, 1)
    dense = estimate(model, X, replicates=2, particles=30)
    sparse = estimate(model, scipy.sparse.csr_array(X.numpy()), replicates=2, particles=30)
    assert sparse.log_evidence == pytest.approx(dense.log_evidence, rel=1e-9)


def over_the_prior(model, X, draws, seed=0):
    """log p(X) at rank 2 and its standard error: H, W's second column and every allocation are averaged over."""
    generator, x = np.random.default_rng(seed), X.numpy()
    N, D = x.shape
    logs = []
    for _ in range(20):
        size = draws // 20
        W = generator.gamma(model.shape_W, size=(size, N, 2)) / model.rate_W
        H = generator.gamma(model.shape_H, size=(size, 2, D)) / model.rate_H
        mean = W @ H
        each = special.xlogy(x, mean) - mean - special.gammaln(x + 1)
        logs.append(special.logsumexp(each.sum((-2, -1))) - math.log(size))
    means = np.exp(np.array(logs) - max(logs))
    return max(logs) + math.log(means.mean()), means.std(ddof=1) / means.mean() / math.sqrt(20)


SMALL = torch.tensor([[1.0, 0.0], [3.0, 2.0], [0.0, 1.0]], dtype=torch.float64)


@loose
def test_smc_by_time_matches_brute_force_at_rank_two():
    model = GammaPoisson(2, 0.8, 1.2, 1.0, 1.5)
    exact, error = over_the_prior(model, SMALL, 400_000)
    assert error < 0.02
    assert_near(estimate(model, SMALL), exact, error)


@loose
def test_smc_of_overdispersed_counts_matches_brute_force():
    """The dispersion, W and H from the prior."""
    model = NegativeBinomialGamma(1, 0.9, 1.2, 1.0, 1.5, dispersion_shape=2.0, dispersion_rate=1.0)
    draws = model.prior_draws((3, 2), 400_000, Stream.of(3))
    logs = model.likelihood(draws).log_prob(SMALL).sum((-2, -1)).reshape(20, -1)
    means = logs.logsumexp(1).exp() / logs.shape[1]
    exact, error = float(means.mean().log()), float(means.std() / means.mean()) / 20**0.5
    assert error < 0.02
    assert_near(estimate(model, SMALL), exact, error)


@loose
@pytest.mark.parametrize("mistake", ["a ladder without the events", "exposures of the whole time"])
def test_a_planted_mistake_is_found(mistake, monkeypatch):
    model = uneven_counts(GammaPoisson, 4, 2, 1)
    if mistake == "exposures of the whole time":
        monkeypatch.setattr(GammaPoisson, "at_time", lambda self, time: self)
    else:
        monkeypatch.setattr(Arrivals, "constant", property(lambda self: 0.0))
    evidence = estimate(model, X)
    assert abs(evidence.log_evidence - RankOne(model, X).log_evidence()) > 6 * evidence.mcse


def test_events_arrive_once_and_nested():
    model, data = GammaPoisson(2), as_matrix(7 * X)
    arrivals = model.arrivals(data, Stream.of(1))
    before = torch.zeros_like(X)
    for step, time in enumerate((0.1, 0.15, 0.7, 1.0)):
        arrivals.advance(time, step)
        now = arrivals.data().values
        assert bool((now >= before).all()) and bool((now == now.round()).all())
        before = now
    assert torch.equal(before, 7 * X)


def test_the_share_that_has_arrived_is_the_time():
    data = as_matrix(torch.full((200, 10), 40.0, dtype=torch.float64))
    arrivals = GammaPoisson(1).arrivals(data, Stream.of(2))
    for step, time in enumerate((0.2, 0.65)):
        arrivals.advance(time, step)
        share = float(arrivals.arrived.sum()) / 80_000
        assert abs(share - time) < 4 * math.sqrt(time * (1 - time) / 80_000)


def test_a_power_of_the_likelihood_is_refused():
    model, stream = GammaPoisson(2), Stream.of(1, 3)
    from ppnmf.inference import gibbs

    with pytest.raises(ValueError, match="a power of a Poisson likelihood has no exact sweep"):
        gibbs.step(model, gibbs.init(model, as_matrix(X), stream), as_matrix(X), stream, power=0.5)


def test_a_run_is_a_posterior_that_agrees_with_gibbs():
    model = uneven_counts(GammaPoisson, 4, 2, 2)
    by_smc = ppnmf.fit(model, X, method="smc", particles=300, replicates=4, progress=False)
    by_gibbs = ppnmf.fit(model, X, draws=1500, warmup=100, progress=False)
    for function in (lambda post: post.stats["lp"], lambda post: post.reconstruction()[1, 0].expand(4, 1)):
        ours, theirs = function(by_smc).mean(1), function(by_gibbs)
        error = float(ours.std()) / 2
        assert abs(float(ours.mean() - theirs.mean())) < 6 * max(error, float(theirs.std()) / 30, 0.05)


def test_a_seed_fixes_the_climb():
    model, data = uneven_counts(GammaPoisson, 4, 2, 1), as_matrix(X)
    one, two = (smc.climb(model, data, 5, 1, 20, 2) for _ in range(2))
    assert one.log_evidence == two.log_evidence and one.ladder == two.ladder
    assert smc.climb(model, data, 5, 1, 20, 2, one.ladder).log_evidence == one.log_evidence
