"""The importance-weighted bound of rows: against quadrature, its order, its errors, its warnings, and what it must not read."""

import math
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import integrate
from scipy.special import log_ndtr

from ppnmf.data.matrix import as_matrix
from ppnmf.distributions import RectifiedNormal
from ppnmf.inference import svi
from ppnmf.models import PAENMF, importance
from ppnmf.models.importance import weigh

N, D = 40, 5


def problem(K, noise=1.0, seed=0):
    """Rows X (N, D) with about as much noise as signal, and a mask that hides a quarter."""
    generator = np.random.default_rng(seed)
    X = generator.exponential(size=(N, K)) @ generator.exponential(size=(K, D)) + noise * generator.normal(size=(N, D))
    mask = generator.random((N, D)) > 0.25
    mask[:, 0] = True
    return torch.from_numpy(np.abs(X)), torch.from_numpy(mask)


@cache
def fitted(K, masked=False, noise=1.0, **options):
    X, mask = problem(K, noise)
    mask = mask if masked else None
    return svi.run(PAENMF(K, **options), as_matrix(X, mask), steps=150, draws=1, progress=False).model


def log_mass(a, b):
    """log ∫ exp(-a w²/2 + b w) dw over w > 0."""
    return 0.5 * math.log(2 * math.pi / a) + 0.5 * b * b / a + log_ndtr(b / math.sqrt(a))


def exact(model, X, mask=None):
    """log p(x_i) of each row for K = 1, in closed form, and for K = 2, one loading in closed form and one by quadrature."""
    H, sigma2 = model.H.detach().numpy(), model.sigma2.detach().expand(D).numpy()
    values = []
    for i, x in enumerate(X.numpy()):
        seen = np.ones(D, dtype=bool) if mask is None else mask[i].numpy()
        own, h, v = x[seen], H[:, seen], sigma2[seen]
        Q, b = (h / v) @ h.T, (h / v) @ own - 1
        constant = -0.5 * (np.log(2 * np.pi * v) + own**2 / v).sum()
        if len(Q) == 1:
            values.append(constant + log_mass(Q[0, 0], b[0]))
            continue
        log_density = lambda w, Q=Q, b=b: b[0] * w - 0.5 * Q[0, 0] * w * w + log_mass(Q[1, 1], b[1] - Q[0, 1] * w)
        top = max(log_density(w) for w in np.linspace(0, 20, 2001))
        mass = integrate.quad(lambda w, f=log_density, top=top: math.exp(f(w) - top), 0, 20, limit=500)[0]
        values.append(constant + top + math.log(mass))
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("sigma2", [None, "per column"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("K", [1, 2])
def test_it_matches_quadrature(K, masked, sigma2):
    X, mask = problem(K)
    mask = mask if masked else None
    model = fitted(K, masked, sigma2=sigma2)
    found = weigh(model, as_matrix(X, mask), draws=4000, seed=1)
    good = found.effective > 100  # a linear encoder knows little of a row of which it sees one entry
    assert int(good.sum()) >= (0.7 if masked else 1.0) * N
    z = ((found.values - exact(model, X, mask)) / found.errors)[good]
    assert float(z.abs().max()) < 5.5
    assert abs(float(z.sum())) < 4 * math.sqrt(len(z))
    assert float(z.square().mean()) < 1 + 4 * math.sqrt(2 / len(z))


@pytest.mark.parametrize("masked", [False, True])
def test_the_bound_rises_with_the_draws_from_the_elbo_to_the_log_likelihood(masked):
    X, mask = problem(2)
    mask = mask if masked else None
    model = fitted(2, masked)
    data = as_matrix(X, mask)
    steps = [svi.elbo(model, data)]
    many = lambda draws: torch.stack(
        [weigh(model, data, draws=draws, widened=False, seed=seed).values.sum() for seed in range(4096 // draws)]
    )
    errors = [0.0]
    for draws in (32, 128, 512):
        sums = many(draws)
        steps.append(float(sums.mean()))
        errors.append(float(sums.std()) / math.sqrt(len(sums)))
    steps.append(float(exact(model, X, mask).sum()))
    errors.append(0.0)
    gains = np.diff(steps)
    assert (gains > -2 * np.hypot(errors[1:], errors[:-1])).all()
    assert gains[0] > 5 * max(errors)


def test_the_elbo_is_the_mean_log_weight():
    X, mask = problem(3)
    model = fitted(3, masked=True)
    logs = []
    importance_of = importance._summary
    spy = lambda weights: (logs.append(weights), importance_of(weights))[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importance, "_summary", spy)
        weigh(model, as_matrix(X, mask), draws=4000, widened=False)
    every = torch.cat(logs, 1).sum(1)  # of all rows
    assert abs(float(every.mean()) - svi.elbo(model, as_matrix(X, mask))) < 4 * float(every.std()) / math.sqrt(4000)


class Exact(PAENMF):
    """K = 1, its guide the posterior itself: what a second autoencoder has to offer is what is defined here."""

    def coordinates(self, X, mask=None):
        seen = torch.ones_like(X) if mask is None else mask.to(X)
        weighted = seen * self.H[0] / self.sigma2
        return torch.stack([weighted @ self.H[0], (weighted * X).sum(1) - 1], 1)

    def posterior(self, coordinates):
        density = RectifiedNormal(coordinates[:, :1], coordinates[:, 1:])
        return SimpleNamespace(icdf=lambda u: density.survival_inverse(1 - u), log_prob=density.log_prob)


@pytest.mark.parametrize("masked", [False, True])
def test_weights_of_the_posterior_itself_are_equal_and_the_value_exact(masked):
    X, mask = problem(1)
    mask = mask if masked else None
    model = Exact(1)
    model.load_state_dict(fitted(1).state_dict())
    found = weigh(model, as_matrix(X, mask), draws=25, widened=False)
    assert torch.allclose(found.values, exact(model, X, mask), rtol=0, atol=1e-9)
    assert torch.allclose(found.effective, torch.full((N,), 25.0).double(), rtol=1e-9)
    assert float(found.errors.max()) < 1e-6


def test_errors_are_the_spread_over_seeds():
    X, _ = problem(1)
    model = fitted(1)
    runs = [weigh(model, as_matrix(X), draws=400, seed=seed) for seed in range(60)]
    spread = torch.stack([run.values for run in runs]).std(0)
    told = torch.stack([run.errors for run in runs]).square().mean(0).sqrt()
    assert float((spread / told).log().mean().abs()) < 0.1  # 40 rows, each to √(1/120): 0.014, and the errors' own


def test_poor_weights_are_told_and_good_ones_are_not():
    X, _ = problem(1)
    found = weigh(fitted(1, sigma2=100.0), as_matrix(X))
    assert found.doubts() == ()
    assert float(found.effective.min()) > 800  # the guide is nearly the prior, and so nearly the posterior
    poor = problem(4, noise=0.02)[0]
    (sentence,) = weigh(fitted(4, noise=0.02, sigma2=4e-4), as_matrix(poor), draws=100).doubts()
    assert f"of {N} rows are poor" in sentence and "take more draws" in sentence


def test_a_rows_numbers_are_its_own_for_any_threads_and_blocks(monkeypatch):
    X, mask = problem(3)
    model, threads = fitted(3, masked=True), torch.get_num_threads()
    before = torch.get_rng_state()
    try:
        monkeypatch.setattr(importance, "AT_ONCE", 3 * 50 * 7)  # seven rows
        torch.set_num_threads(1)
        one = weigh(model, as_matrix(X, mask), draws=50)
        torch.set_num_threads(2)
        monkeypatch.setattr("ppnmf.threads.WORTH_A_THREAD", 0)
        two = weigh(model, as_matrix(X, mask), draws=50)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    monkeypatch.setattr(importance, "AT_ONCE", 2**20)
    whole = weigh(model, as_matrix(X, mask), draws=50)
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(one, whole, strict=True))
    fewer = weigh(model, as_matrix(X[:9], mask[:9]), draws=50)
    assert torch.allclose(fewer.values, one.values[:9], rtol=1e-9, atol=1e-9)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(weigh(model, as_matrix(X, mask), draws=50, seed=1).values, whole.values)


@pytest.mark.filterwarnings("ignore:log_likelihood")
def test_what_lies_under_the_mask_is_never_read():
    X, mask = problem(2)
    model = fitted(2, masked=True)
    one, other = (model.log_likelihood(torch.where(mask, X, hole), mask, draws=400)[0] for hole in (math.nan, 1e9))
    assert torch.equal(one, other)


def test_single_precision_gives_what_double_does():
    X, _ = problem(2)
    double = fitted(2)
    single = PAENMF(**double.config())
    single.load_state_dict({name: value.float() for name, value in double.state_dict().items()})
    one, other = weigh(double, as_matrix(X), draws=200), weigh(single, as_matrix(X.float()), draws=200)
    assert other.values.dtype == torch.float64
    assert torch.allclose(one.values, other.values, atol=1e-4)


def test_the_models_own_function_warns_and_checks():
    X = problem(4, noise=0.02)[0]
    model = fitted(4, noise=0.02, sigma2=4e-4)
    with pytest.warns(UserWarning, match="log_likelihood: the weights of .* rows are poor"):
        values, errors = model.log_likelihood(X, draws=100)
    assert values.shape == errors.shape == (N,) and values.dtype == torch.float64
    assert torch.equal(values, weigh(model, as_matrix(X), draws=100).values)
    assert [part.shape for part in model.log_likelihood(X[:0])] == [(0,), (0,)]
    with pytest.raises(ValueError, match="draws is 1;"):
        model.log_likelihood(X, draws=1)
    with pytest.raises(ValueError, match="negative entries"):
        model.log_likelihood(-X)
    with pytest.raises(RuntimeError, match="no weights yet"):
        PAENMF(2).log_likelihood(X)


def test_draws_that_overflow_have_no_weight():
    X, _ = problem(1)
    model = PAENMF.paper(1).initialise(as_matrix(X))
    with torch.no_grad():
        model.to_concentration.weight.zero_()  # at the floor of the published encoder, k = 0.001, draws are 0 or infinite
    assert bool(weigh(model, as_matrix(X), draws=100).values.isfinite().all())
