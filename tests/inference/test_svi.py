"""Training PAE-NMF: both objectives, mini-batches, stopping, and draws that depend on the seed alone."""

import math
import random

import numpy as np
import pytest
import torch
from scipy import stats

from ppnmf.data.matrix import as_matrix
from ppnmf.inference import svi
from ppnmf.models.pae_nmf import PAENMF

K = 3


def problem(N=60, D=12, noise=0.2, seed=0):
    generator = np.random.default_rng(seed)
    W, H = generator.exponential(size=(N, K)), generator.exponential(size=(K, D)) * (generator.random((K, D)) < 0.6)
    return np.abs(W @ H + noise * generator.normal(size=(N, D)))


def fitted(X=None, model=None, mask=None, **options):
    X = as_matrix(problem() if X is None else X, mask)
    return svi.run(model or PAENMF(K), X, **({"steps": 300, "draws": 20, "seed": 0, "progress": False} | options))


def test_training_raises_the_elbo_and_learns_the_noise():
    post = fitted(steps=2000)
    assert post.attrs["elbo"] > post.attrs["elbo_curve"][0] + 50
    assert post.attrs["elbo"] == pytest.approx(post.attrs["elbo_curve"][-1], abs=0.1)
    assert post.attrs["converged"]
    assert 0.02 < float(post.mean("sigma2")) < 0.06  # the truth is 0.04, before H and the encoder take their share
    assert len(post.attrs["elbo_curve"]) <= 1000


def test_the_fit_is_near_ordinary_nmf():
    from sklearn.decomposition import NMF

    X = problem(N=300)
    post = fitted(X, steps=600, draws=200)
    best = NMF(K, init="nndsvda", max_iter=2000).fit(X).reconstruction_err_ ** 2
    assert best * 0.99 < post.squared_error() < 1.25 * best


def test_draws_have_the_posteriors_shapes_and_h_is_broadcast():
    post = fitted()
    assert post.draws["W"].shape == (1, 20, 60, K)
    assert post.draws["H"].shape == (1, 20, K, 12)
    assert post.draws["sigma2"].shape == post.stats["lp"].shape == (1, 20)
    assert torch.equal(post.draws["H"][0, 3], post.model.H.detach())
    assert (post.draws["H"] >= 0).all()
    assert (post.draws["H"] == 0).any()  # the projection, not a positive map
    assert (post.draws["W"] > 0).all()


def test_draws_follow_the_guide():
    post = fitted(draws=2000)
    guide = post.model.encode(post.X.values)
    uniform = guide.cdf(post.draws["W"][0])
    p_values = [stats.kstest(uniform[:, i, k].numpy(), "uniform").pvalue for i in range(5) for k in range(K)]
    assert min(p_values) * len(p_values) > 1e-4


@pytest.mark.parametrize("masked", [False, True])
def test_lp_is_the_full_log_joint(masked):
    X = problem()
    mask = np.random.default_rng(1).random(X.shape) > 0.2 if masked else None
    post = fitted(np.where(mask, X, np.nan) if masked else X, mask=mask, steps=50, draws=4)
    for s in range(4):
        W, H, sigma2 = post.draws["W"][0, s], post.model.H.detach(), post.model.sigma2.detach()
        entries = torch.distributions.Normal(W @ H, sigma2.sqrt()).log_prob(post.X.values)
        exact = (entries if mask is None else entries[post.X.mask]).sum() - W.sum()
        assert float(post.stats["lp"][0, s]) == pytest.approx(float(exact), rel=1e-10)


def test_the_sampled_objective_reaches_what_the_analytic_one_reaches():
    exact = fitted(steps=400)
    start = PAENMF(K).initialise(exact.X)
    before = svi.elbo(start, exact.X)
    sampled = fitted(model=start, steps=400, objective="sampled")
    assert exact.attrs["elbo"] - sampled.attrs["elbo"] < 0.1 * (exact.attrs["elbo"] - before)


def test_mini_batches_have_the_right_expectation():
    model = fitted(steps=20).model
    X = as_matrix(problem())
    parts = [svi.OBJECTIVES["analytic"](model, X, rows, None) for rows in torch.arange(60).split(15)]
    assert float(torch.stack(parts).mean().detach()) == pytest.approx(svi.elbo(model, X), rel=1e-12)
    epoch = svi._batches(range(61), 5, svi.Stream.of(0), "cpu")
    sizes = [next(epoch) for _ in range(5)]
    assert sorted(torch.cat(sizes).tolist()) == list(range(61))
    assert {len(rows) for rows in sizes} == {12, 13}


def test_mini_batches_end_near_the_full_batch():
    X = problem(N=200)
    full, batches = fitted(X, steps=500), fitted(X, steps=500, batch_size=40)
    assert batches.attrs["elbo"] == pytest.approx(full.attrs["elbo"], abs=0.03 * abs(full.attrs["elbo"]))


def test_single_precision_ends_where_double_does():
    X = problem()
    double, single = fitted(X, steps=400), fitted(X.astype(np.float32), steps=400)
    assert single.draws["W"].dtype == torch.float32
    assert single.attrs["elbo"] == pytest.approx(double.attrs["elbo"], abs=1.0)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"sigma2": 0.5}, {"encoder": (6,)}])
def test_data_of_any_scale_train_without_nan(scale, dtype, options):
    X = (problem() * scale).astype(dtype)
    post = fitted(X, PAENMF(K, **options), steps=100, draws=5)
    assert math.isfinite(post.attrs["elbo"])
    assert all(values.isfinite().all() for values in (*post.draws.values(), *post.stats.values()))


def test_scaling_the_data_scales_the_fit():
    one, other = fitted(steps=100), fitted(problem() * 1e4, steps=100)
    assert torch.allclose(other.reconstruction() / 1e4, one.reconstruction(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("X", [np.zeros((6, 4)), np.eye(5), np.ones((1, 3)), np.ones((4, 1))])
@pytest.mark.parametrize("model", [PAENMF(1), PAENMF(6), PAENMF(2, encoder=(4,))])
def test_degenerate_data_train_without_nan(X, model):
    post = fitted(X, model, steps=60, draws=3)
    assert all(values.isfinite().all() for values in (*post.draws.values(), *post.stats.values()))


def test_missing_entries_are_predicted_and_never_read():
    X = problem(N=200)
    mask = np.random.default_rng(2).random(X.shape) > 0.1
    nan, zero = (fitted(np.where(mask, X, hole), mask=mask, steps=300) for hole in (np.nan, 0.0))
    assert torch.equal(nan.draws["W"], zero.draws["W"])
    hidden = torch.from_numpy(X)[~torch.from_numpy(mask)]
    error = (nan.reconstruction()[~torch.from_numpy(mask)] - hidden).square().mean()
    assert float(error) < 0.25 * float(hidden.var())


@pytest.mark.parametrize("options", [{}, {"objective": "sampled"}, {"batch_size": 16}])
def test_the_same_seed_gives_the_same_draws_for_any_threads_and_leaves_the_global_state(options):
    threads = torch.get_num_threads()
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    try:
        torch.set_num_threads(1)
        one = fitted(steps=40, **options)
        torch.set_num_threads(2)
        two = fitted(steps=40, **options)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one.draws["W"], two.draws["W"])
    assert torch.equal(one.stats["lp"], two.stats["lp"])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]
    other = fitted(steps=40, seed=1, **options)
    assert not torch.equal(one.draws["W"], other.draws["W"])


def test_the_model_given_is_not_changed_and_a_fitted_one_goes_on():
    model = PAENMF(K)
    first = fitted(model=model, steps=60)
    assert not model.is_initialised
    state = {name: value.clone() for name, value in first.model.state_dict().items()}
    second = fitted(model=first.model, steps=200)
    assert all(torch.equal(value, first.model.state_dict()[name]) for name, value in state.items())
    assert second.attrs["elbo"] > first.attrs["elbo"]


@pytest.mark.parametrize("at", [0, 7])
def test_ctrl_c_returns_what_was_reached(monkeypatch, at):
    calls = iter(range(1000))

    def interrupted(*arguments):
        if next(calls) == at:
            raise KeyboardInterrupt
        return svi._analytic(*arguments)

    monkeypatch.setitem(svi.OBJECTIVES, "analytic", interrupted)
    post = fitted()
    assert post.attrs["interrupted"]
    assert post.attrs["steps"] == len(post.attrs["elbo_curve"]) == at
    assert post.draws["W"].shape == (1, 20, 60, K)
    assert (post.draws["H"] >= 0).all()


def test_bad_options_get_their_sentence():
    for options, words in (
        ({"steps": -1}, "steps is -1"),
        ({"draws": 0}, "draws is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"objective": "exact"}, "analytic, sampled"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
    ):
        with pytest.raises(ValueError, match=words):
            fitted(**options)
    with pytest.raises(TypeError, match="guide and an encoder"):
        fitted(model=object())
    with pytest.raises(ValueError, match="5 columns"):
        fitted(problem(D=5), fitted(steps=1).model)


def test_posterior_generates_through_the_model():
    post = fitted()
    assert post.generate(7, seed=3).shape == (7, 12)
    assert torch.equal(post.generate(7, seed=3), post.model.generate(7, seed=3))
