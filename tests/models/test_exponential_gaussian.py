import math

import pyro
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import Predictive
from scipy import stats

from ppnmf.data.matrix import as_matrix
from ppnmf.gaussian.noise import log_likelihood
from ppnmf.gaussian.statistics import squared_residuals
from ppnmf.models import ExponentialGaussian
from tests.scenarios import drawn, per_entry_model

N, D, K = 5, 4, 3


def traced_log_joint(model, params, X, mask=None):
    conditioned = pyro.condition(model, data={site: values[0] for site, values in params.items()})
    return float(poutine.trace(conditioned).get_trace(X, mask).log_prob_sum())


def some_params(seed=0):
    X, W, H = drawn(N, D, K, seed=seed)
    return X, {"W": W[None], "H": H[None], "sigma2": torch.tensor([1.7], dtype=torch.float64)}


MASK = torch.arange(N * D).reshape(N, D) % 3 != 1


@pytest.mark.parametrize("mask", [None, MASK], ids=["full", "masked"])
@pytest.mark.parametrize("model", [ExponentialGaussian(K, 0.5, 2.0, 3.0, 4.0), per_entry_model(N, D, K)])
def test_every_conditional_is_the_traced_program_s(model, mask):
    """Differences of log joints equal differences of log conditionals, site by site, entry by entry."""
    X, params = some_params()
    data = as_matrix(X, mask)
    for site, component in [("sigma2", None)] + [(s, k) for s in ("W", "H") for k in range(K)]:
        other = {name: values.clone() for name, values in params.items()}
        if site == "sigma2":
            other["sigma2"] *= 1.9
            before, after = params["sigma2"], other["sigma2"]
        else:
            column = (..., component) if site == "W" else (..., component, slice(None))
            other[site][column] *= torch.linspace(0.2, 1.9, N if site == "W" else D, dtype=torch.float64)
            before, after = params[site][column], other[site][column]
        conditional = model.conditional(site, params, data, component)
        by_conditional = float((conditional.log_prob(after) - conditional.log_prob(before)).sum())
        by_program = traced_log_joint(model, other, X, mask) - traced_log_joint(model, params, X, mask)
        assert by_conditional == pytest.approx(by_program, rel=1e-10), (site, component)


@pytest.mark.parametrize("mask", [None, MASK], ids=["full", "masked"])
def test_the_log_joint_is_the_traced_program_s(mask):
    X, params = some_params()
    for model in (ExponentialGaussian(K, 0.5, torch.tensor([1.0, 2.0, 3.0]), 3.0, 4.0), per_entry_model(N, D, K)):
        data = as_matrix(X, mask)
        misfit = squared_residuals(data, params["W"], params["H"])
        lp = log_likelihood(misfit, params["sigma2"], data.n_observed) + model.log_prior(params)
        assert float(lp[0]) == pytest.approx(traced_log_joint(model, params, X, mask), rel=1e-12)


def test_the_temperature_multiplies_the_likelihood_alone():
    X, params = some_params()
    model, data = per_entry_model(N, D, K), as_matrix(X)
    cold = model.conditional("W", params, data, 1, power=0.0)
    prior = model.prior("W").rectified
    torch.testing.assert_close(cold.linear[0], prior.linear[:, 1])
    assert float(cold.precision.abs().max()) == 0
    noise = model.conditional("sigma2", params, data, power=0.0)
    assert float(noise.concentration) == 5.0 and float(noise.rate) == 20.0


def test_the_program_draws_from_its_prior():
    model = ExponentialGaussian(2, torch.tensor([0.5, 4.0]), 3.0, noise_shape=6.0, noise_scale=10.0)
    pyro.set_rng_seed(0)
    draws = Predictive(model, num_samples=400, parallel=False)(shape=(6, 5))
    assert draws["X"].shape == (400, 6, 5)
    for k, rate in enumerate((0.5, 4.0)):
        assert stats.kstest(draws["W"][..., k].flatten().numpy(), stats.expon(scale=1 / rate).cdf).pvalue > 1e-4
    assert stats.kstest(draws["H"].flatten().numpy(), stats.expon(scale=1 / 3).cdf).pvalue > 1e-4
    assert stats.kstest(draws["sigma2"].flatten().numpy(), stats.invgamma(6, scale=10).cdf).pvalue > 1e-4
    noise = (draws["X"] - draws["W"] @ draws["H"]) / draws["sigma2"].reshape(-1, 1, 1).sqrt()
    assert stats.kstest(noise.flatten().numpy(), "norm").pvalue > 1e-4


def test_predictive_draws_in_parallel_too():
    pyro.set_rng_seed(0)
    draws = Predictive(ExponentialGaussian(2), num_samples=7, parallel=True)(shape=(6, 5))
    assert draws["X"].shape == (7, 6, 5) and draws["W"].shape == (7, 6, 2)


def test_calling_the_model_returns_x_observed_or_drawn():
    X, _ = some_params()
    assert torch.equal(ExponentialGaussian(K)(X), X)
    assert ExponentialGaussian(K)(shape=(3, 2)).shape == (3, 2)
    with pytest.raises(ValueError, match="neither X nor shape"):
        ExponentialGaussian(K)()


def test_nan_under_the_mask_does_not_leak_into_gradients():
    X, _ = some_params()
    dirty = torch.where(MASK, X, torch.nan)
    W = torch.rand(N, K, dtype=torch.float64, requires_grad=True)
    conditioned = pyro.condition(ExponentialGaussian(K), data={"W": W})
    poutine.trace(conditioned).get_trace(dirty, MASK).log_prob_sum().backward()
    assert bool(W.grad.isfinite().all())


def test_the_plate_picture_can_be_drawn():
    graph = pyro.render_model(ExponentialGaussian(K), model_kwargs={"shape": (N, D)}, render_distributions=True)
    assert all(site in graph.source for site in ("W", "H", "sigma2", "X"))


def test_priors_scaled_to_the_data_match_its_mean():
    X, _, _ = drawn(40, 30, 3)
    model = ExponentialGaussian.scaled_to(X, rank=3)
    assert model.rate_W == model.rate_H == pytest.approx(math.sqrt(3 / float(X.mean())))
    assert model.rank / (model.rate_W * model.rate_H) == pytest.approx(float(X.mean()))
    assert model.noise_shape == 1 and model == ExponentialGaussian.for_data(X, rank=3)
    assert model.noise_scale == ExponentialGaussian.for_data(X, rank=7).noise_scale == pytest.approx(1.0, rel=0.3)
    mask = X > 1
    masked = ExponentialGaussian.scaled_to(X, rank=3, mask=mask)
    assert masked.rate_W == pytest.approx(math.sqrt(3 / float(X[mask].mean())))
    with pytest.raises(ValueError, match="must be positive to scale"):
        ExponentialGaussian.scaled_to(-X, rank=3)


@pytest.mark.parametrize(
    "options,sentence",
    [
        ({"rank": 0}, "rank is 0"),
        ({"rank": 2.0}, "rank is 2.0"),
        ({"rank": 2, "rate_W": -1.0}, "rate_W has entries that are not >= 0 and finite"),
        ({"rank": 2, "rate_H": torch.ones(3)}, r"rate_H has shape \(3,\)"),
        ({"rank": 2, "rate_W": torch.ones(2, 5)}, r"rate_W has shape \(2, 5\)"),
        ({"rank": 2, "noise_shape": 0.0}, "noise_shape is 0.0"),
        ({"rank": 2, "noise_scale": float("nan")}, "noise_scale is nan"),
    ],
)
def test_bad_hyperparameters_get_their_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        ExponentialGaussian(**options)


def test_a_zero_rate_is_refused_by_the_program():
    with pytest.raises(ValueError, match="rate_W is 0 somewhere"):
        ExponentialGaussian(2, rate_W=0.0)(shape=(3, 3))
