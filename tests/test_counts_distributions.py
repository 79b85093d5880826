"""Distributions of counts: densities and quantiles are SciPy's, and draws have their moments."""

import pytest
import torch
from scipy import stats

from ppnmf.distributions.counts import NegativeBinomial, Poisson

U = torch.tensor([1e-9, 0.003, 0.2, 0.5, 0.77, 0.9999, 1 - 1e-9], dtype=torch.float64)[:, None]
MEANS = torch.tensor([1e-6, 0.3, 1.0, 7.5, 80.0, 4e5], dtype=torch.float64)
X = torch.tensor([0.0, 1, 2, 9, 83, 400_321], dtype=torch.float64)[:, None]


def test_poisson_quantiles_are_those_of_scipy():
    expected = torch.from_numpy(stats.poisson.ppf(U.numpy(), MEANS.numpy()))
    assert torch.equal(Poisson(MEANS).icdf(U.expand(7, 6)), expected)


@pytest.mark.parametrize("phi", [0.05, 0.9, 12.0, 1e4])
def test_negative_binomials_are_those_of_scipy(phi):
    dispersion = torch.tensor(phi, dtype=torch.float64)
    found = NegativeBinomial(MEANS, dispersion)
    known = stats.nbinom(phi, phi / (phi + MEANS.numpy()))
    quantiles = found.icdf(U.expand(7, 6)).numpy()
    assert (known.cdf(quantiles) >= U.numpy() - 1e-13).all() and (known.cdf(quantiles - 1) < U.numpy() + 1e-13).all()
    expected = torch.from_numpy(known.logpmf(X.numpy()))
    finite = expected > -1e5
    torch.testing.assert_close(found.log_prob(X)[finite], expected[finite], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.variance, torch.from_numpy(known.var()))


def test_draws_of_negative_binomials_have_their_moments():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        own = NegativeBinomial(torch.tensor([0.5, 9.0], dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64))
        drawn = own.sample((200_000,))
    z = (drawn.mean(0) - own.mean) / (own.variance / len(drawn)).sqrt()
    assert float(z.abs().max()) < 4
    torch.testing.assert_close(drawn.var(0), own.variance, rtol=0.03, atol=0)
    assert own.expand((3, 2)).batch_shape == (3, 2)


def test_large_counts_in_single_precision_have_their_density():
    value = torch.tensor([999_000.0, 1_001_000.0])
    mean, phi = torch.full((2,), 1e6), torch.full((2,), 50.0)
    for single, double in (
        (Poisson(mean), Poisson(mean.double())),
        (NegativeBinomial(mean, phi), NegativeBinomial(mean.double(), phi.double())),
    ):
        found = single.log_prob(value)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), double.log_prob(value.double()), rtol=1e-6, atol=0)


def test_quantiles_of_a_mean_of_zero_are_zero():
    mean, u = torch.tensor([0.0, 2.0]).double(), torch.tensor([0.3, 0.9]).double()
    assert Poisson(mean).icdf(u).tolist() == [0.0, 4.0]
    assert NegativeBinomial(mean, torch.ones(2).double()).icdf(u)[0] == 0.0


def test_quantiles_end_where_neighbouring_numbers_lie_more_than_one_apart():
    mean = torch.tensor([1e16, 1e17]).double()
    torch.testing.assert_close(Poisson(mean).icdf(torch.full((2,), 0.5).double()), mean, rtol=1e-7, atol=0)
