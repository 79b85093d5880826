"""Stepping stones of a model with a random rate a component: each step's law, and the estimate by other routes."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

import ppnmf
from ppnmf.data.matrix import Dense, as_matrix
from ppnmf.diagnostics.calibration import SideBySide
from ppnmf.distributions import RectifiedNormal
from ppnmf.evidence.orders import axes_of, reordered
from ppnmf.gaussian import path, relevance_path, sweep
from ppnmf.gaussian.noise import NoisePrior
from ppnmf.gaussian.relevance_path import Gammas
from ppnmf.gaussian.sweep import Story
from ppnmf.models import ARDGaussian, ExponentialGaussian
from ppnmf.priors import Exponential
from ppnmf.protocols import Address, Sweeps
from ppnmf.rng import Site, Stream
from tests.evidence.exact import assert_near, assert_smc_says_the_same, by_prior_draws, rank_one
from tests.scenarios import LUCK, drawn, mask_of

X = torch.tensor([[1.0, 2.5], [0.2, 0.9], [2.0, 3.2]], dtype=torch.float64)
CAUGHT = 1e-9
MASK = torch.tensor([[1, 1], [1, 0], [0, 1]]).bool()
NODES = torch.linspace(-2.0, 1.6, 19, dtype=torch.float64)  # of log rate: the density falls by 9 nats to either end
KNOWN = {"H": torch.tensor([[0.8, torch.nan]], dtype=torch.float64)}
pytestmark = pytest.mark.filterwarnings("ignore:log_evidence by")  # few particles


def small(rank):
    return ARDGaussian(rank, 4.0, 3.0, noise_shape=3.0, noise_scale=2.0)


def estimate(model, mask=None, **options):
    settings = {"particles": 100, "draws": 200, "warmup": 100, "replicates": 6, "seed": 1, "progress": False}
    return ppnmf.log_evidence(model, X, method="stepping_stone", mask=mask, **(settings | options))


def quadrature(model, mask=None):
    """log p(X) at rank 1: the rate by the trapezoidal rule in its logarithm, the rest by quadrature given it."""

    def log_density(y):
        rate = math.exp(y)
        log_prior = float(model.hyperprior((3, 2)).log_prob(torch.tensor([rate], dtype=torch.float64))) + y
        return rank_one(ExponentialGaussian(1, rate, rate, 3.0, 2.0), X, mask, step=0.8, fall=12.0) + log_prior

    logs = torch.tensor([log_density(float(y)) for y in NODES], dtype=torch.float64)
    return float(logs.logsumexp(0)) + math.log(float(NODES[1] - NODES[0]))


def reference_of(model, X, seed=5):
    """Fitted to draws of the prior, which are as wide as any."""
    return model.reference(model.prior_draws(tuple(X.shape), 200, Stream.of(seed)), 1.0)


# The law of each step


@pytest.mark.parametrize("fixed", [None, {"H": torch.tensor([[0.5, torch.nan, 2.0, torch.nan]], dtype=torch.float64)}])
def test_the_rates_of_a_step_follow_the_density_of_the_path(fixed):
    """On a grid of rates, the log joint and the reference themselves, against draws given one W and H."""
    model, power, many = ARDGaussian(2, 6.0, 5.0, compression=0.5, empty=1.3).holding(fixed), 0.4, 4000
    data = as_matrix(drawn(5, 4, 2)[0])
    reference = reference_of(model, data)
    params = model.prior_draws((5, 4), 1, Stream.of(3))
    own = {site: values.expand(many, *values.shape[1:]) for site, values in params.items()}
    at = Address(Stream.of(1, many), 7)
    rates = relevance_path._drawn_rates(model.hyperprior((5, 4)), reference.rates, own, power, at)
    y = torch.linspace(-6, 4, 20_001, dtype=torch.float64)
    for k in range(2):
        on_grid = {site: values.expand(len(y), *values.shape[1:]).clone() for site, values in params.items()}
        on_grid["rate"][:, k] = y.exp()
        log_joint = model.log_prior(on_grid)  # the likelihood does not see the rates
        logs = power * log_joint + (1 - power) * reference.log_prob(on_grid) + y
        mass = (logs - logs.max()).exp().cumsum(0)
        law = partial(np.interp, xp=y.numpy(), fp=(mass / mass[-1]).numpy())
        assert stats.kstest(rates[:, k].log().numpy(), law).pvalue > LUCK


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("power", [0.3, 1.0])
def test_given_its_rates_a_step_is_that_of_the_exponential_model(hidden, power):
    """Particle by particle, with rates of its own: the same draws as those of `path`, moves along the ridge included."""
    values, C = drawn(7, 5, 3)[0], 4
    data = as_matrix(values, mask=mask_of((7, 5)) if hidden else None)
    model = ARDGaussian(3, 6.0, 5.0)
    reference = reference_of(model, data)
    params = model.prior_draws((7, 5), C, Stream.of(3))
    asked, stream = Sweeps(power=power), Stream.of(1, C)
    ours = model.sweep_between(reference, params, data, asked, Address(stream, 2))
    for c in range(C):
        rate = params["rate"][c]
        priors = {"W": Exponential(rate[None]), "H": Exponential(rate[:, None])}
        target = path.between(Story(priors.__getitem__, model.noise), reference.factors, power)
        own = {site: params[site][c : c + 1] for site in ("W", "H", "sigma2")}
        theirs = sweep.swept(target, data, own, asked, Address(Stream(stream.keys[c : c + 1]), 2))
        for site in own:
            torch.testing.assert_close(ours.params[site][c : c + 1], theirs.params[site], rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(ours.log_likelihood[c : c + 1], theirs.log_likelihood)


def test_a_reference_has_the_moments_of_the_draws_and_draws_what_it_says():
    rate = torch.distributions.Gamma(torch.tensor([5.0, 40.0]), torch.tensor([2.0, 9.0])).sample((4000,)).double()
    gammas = Gammas.matched(rate, 1.5)
    torch.testing.assert_close(gammas.shape / gammas.scale, rate.mean(0))
    torch.testing.assert_close(gammas.shape / gammas.scale.square(), 1.5 * rate.var(0))
    again = gammas.draws(Stream.of(2, 4000))
    for k in range(2):
        law = stats.gamma(float(gammas.shape[k]), scale=1 / float(gammas.scale[k]))
        assert stats.kstest(again[:, k].numpy(), law.cdf).pvalue > LUCK
        for l in range(2):
            mine = stats.gamma(float(gammas.shape[l]), scale=1 / float(gammas.scale[l])).logpdf(again[:, k].numpy())
            torch.testing.assert_close(gammas.log_places(again)[:, k, l], torch.from_numpy(mine))


def test_places_and_orders_have_the_rates():
    """Components in another order have the density that their places say."""
    model, C = ARDGaussian(3, 6.0, 5.0, noise_shape=5.0, noise_scale=20.0), 6
    reference, params = reference_of(model, X), model.prior_draws((3, 2), C, Stream.of(4))
    places = reference.log_places(params)
    order = torch.rand(C, 3, generator=torch.Generator().manual_seed(0)).argsort(1)
    assert len(set(map(tuple, order.tolist()))) > 2
    other = reordered(params, order, axes_of(model))
    of_noise = reference.factors.noise.log_prob(params["sigma2"])
    told = places.gather(1, order[:, None]).squeeze(1).sum(-1)
    torch.testing.assert_close(reference.log_prob(other), told + of_noise)


def invariance(power, sweeps=20, C=3000):
    """Least of the p-values that quantities are as they were after sweeps at β, from exact draws of π_β and X together.

    With X_ij ~ Normal((W H)_ij, σ² / β), π_β ∝ p(X | θ) where σ² has n (1 - β) / 2 less in its shape.
    """
    model = ARDGaussian(2, 6.0, 5.0, noise_shape=9.0, noise_scale=20.0)
    reference = reference_of(model, torch.empty(4, 3))
    begun = drawn_from_the_path(model, reference, power, C, Stream.of(11))
    another = drawn_from_the_path(model, reference, power, 10 * C, Stream.of(12))
    noise = torch.randn(C, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    matrices = begun["W"] @ begun["H"] + (begun["sigma2"] / power).sqrt()[:, None, None] * noise
    data = SideBySide(tuple(Dense(own, None) for own in matrices))
    asked = Sweeps(number=sweeps, kept=range(sweeps - 1, sweeps), power=power)
    after = model.sweep_between(reference, begun, data, asked, Address(Stream.of(13, C), 1)).params
    told = [[*own["rate"].T, own["W"].mean((1, 2)), own["H"].mean((1, 2)), own["sigma2"]] for own in (after, another)]
    return min(stats.ks_2samp(mine.numpy(), theirs.numpy()).pvalue for mine, theirs in zip(*told, strict=True))


def drawn_from_the_path(model, reference, power, C, stream):
    """Draws of π_β's θ where X is integrated out: rates on a grid, factors given them."""
    y = torch.linspace(-6, 5, 4001, dtype=torch.float64)
    hyper, factors = model.hyperprior((4, 3)), reference.factors
    target = path.between(relevance_path.flattened(hyper, model.noise), factors, power)
    u = stream.uniforms(0, Site.DATA, range(C), 3 + 7 * 2)[0]
    shape = power * (hyper.shape + 7) + (1 - power) * reference.rates.shape
    scale = power * hyper.scale + (1 - power) * reference.rates.scale
    rates, given = [], {"W": [], "H": []}
    for k in range(2):
        logs = shape[k] * y - scale[k] * y.exp()
        naturals = {"W": [own[:, k] for own in target.prior("W").natural("cpu")]}
        naturals["H"] = [own[k] for own in target.prior("H").natural("cpu")]
        for a, b in naturals.values():
            law = RectifiedNormal(a, b - power * y.exp()[:, None], validate_args=False)
            logs = logs + law.log_normalizer.sum(-1)
        mass = (logs - logs.max()).exp().cumsum(0)
        log_rate = np.interp(u[:, k].numpy(), (mass / mass[-1]).numpy(), y.numpy())
        rates.append(torch.from_numpy(log_rate).exp())
        v = u[:, 3 + 7 * k : 10 + 7 * k].split([4, 3], 1)
        for (site, (a, b)), own in zip(naturals.items(), v, strict=True):
            law = RectifiedNormal(a, b - power * rates[-1][:, None], validate_args=False)
            given[site].append(law.survival_inverse(own))
    noise = NoisePrior(target.noise.shape - 12 * (1 - power) / 2, target.noise.scale)
    draws = {"W": torch.stack(given["W"], 2), "H": torch.stack(given["H"], 1)}
    return {**draws, "sigma2": noise.prior_draws(u[:, 2]), "rate": torch.stack(rates, 1)}


def test_steps_leave_the_density_of_the_path_as_it_is():
    assert invariance(0.5) > LUCK


@pytest.mark.parametrize("off", [1, pytest.param(-1, marks=pytest.mark.slow)])
def test_n_plus_d_off_by_one_on_the_path_is_found(off, monkeypatch):
    right = relevance_path._drawn_rates

    def wrong(hyper, reference, params, power, at):
        return right(hyper._replace(shape=hyper.shape + off), reference, params, power, at)

    monkeypatch.setattr(relevance_path, "_drawn_rates", wrong)
    assert invariance(0.5) < CAUGHT


# The estimate


@pytest.mark.parametrize("mask", [None, pytest.param(MASK, marks=pytest.mark.slow)], ids=["full", "masked"])
def test_stepping_stones_match_quadrature_at_rank_one(mask):
    assert_near(estimate(small(1), mask), quadrature(small(1), mask))


@pytest.mark.slow
@pytest.mark.parametrize("mask", [None, MASK], ids=["full", "masked"])
@pytest.mark.parametrize("fixed", [None, KNOWN], ids=["free", "known"])
@pytest.mark.parametrize("sigma2", [None, 0.3])
def test_stepping_stones_match_brute_force_at_rank_two(mask, fixed, sigma2):
    model = ARDGaussian(2, 4.0, 3.0, noise_shape=3.0, noise_scale=2.0, sigma2=sigma2).holding(fixed)
    assert_near(estimate(model, mask, particles=400, draws=1000), *by_prior_draws(model, X, mask))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 2])
def test_particles_from_the_prior_say_the_same(rank):
    assert_smc_says_the_same(small(rank))
