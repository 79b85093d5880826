"""PAE-NMF as a Pyro program, its exact objective, and what a fitted model offers."""

import math
import random

import mpmath
import numpy as np
import pyro
import pytest
import torch
from pyro.infer import MCMC, NUTS, Predictive, TraceMeanField_ELBO
from scipy import integrate, stats
from torch.distributions import Weibull, kl_divergence

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.models.elbo import analytic_elbo, weibull_moments
from ppnmf.models.encoding import LEAST, MOST
from ppnmf.models.pae_nmf import PAENMF

N, D, K = 12, 7, 3


def problem(seed=0, hidden=0.25):
    """X (N, D) with noise, and a mask in which each row and column has something observed."""
    generator = np.random.default_rng(seed)
    X = generator.exponential(size=(N, K)) @ generator.exponential(size=(K, D)) + 0.1 * generator.normal(size=(N, D))
    mask = generator.random((N, D)) > hidden
    mask[:, 0] = True
    mask[0] = True
    return torch.from_numpy(np.abs(X)), torch.from_numpy(mask)


def started(X, mask=None, **options):
    """A model somewhat off its start, so that nothing is special."""
    model = PAENMF(K, **options).initialise(as_matrix(X, mask))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.rand(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)
    return model


def plain_elbo(model, X, mask=None):
    X = X if mask is None else torch.where(mask, X, 0.0)
    return analytic_elbo(X, model.posterior(model.coordinates(X, mask)), model.H, model.sigma2, mask)


def gradients(value, model):
    grads = torch.autograd.grad(value, tuple(model.parameters()))
    return torch.cat([grad.flatten() for grad in grads])


@pytest.mark.parametrize("k", [0.1, 0.7, 1.0, 3.0, 30.0, 100.0])
def test_moments_are_those_of_the_weibull(k):
    mean, variance = weibull_moments(
        Weibull(torch.tensor(0.3, dtype=torch.float64), torch.tensor(k, dtype=torch.float64))
    )
    assert float(mean) == pytest.approx(stats.weibull_min.mean(k, scale=0.3), rel=1e-11)
    with mpmath.workdps(40):
        exact = mpmath.mpf(0.3) ** 2 * (mpmath.gamma(1 + 2 / mpmath.mpf(k)) - mpmath.gamma(1 + 1 / mpmath.mpf(k)) ** 2)
    assert float(variance) == pytest.approx(float(exact), rel=1e-10)


def test_the_variance_keeps_its_accuracy_in_single_precision():
    k = torch.tensor([1.0, 10.0, 100.0])
    single = weibull_moments(Weibull(torch.ones(3), k))[1]
    double = weibull_moments(Weibull(torch.ones(3).double(), k.double()))[1]
    assert torch.allclose(single.double(), double, rtol=2e-3, atol=0)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sigma2", [None, 0.3, "per column"])
def test_the_analytic_elbo_is_the_mean_of_trace_mean_field_elbo(masked, sigma2):
    X, mask = problem()
    mask = mask if masked else None
    model = started(X, mask, sigma2=sigma2)
    pyros = TraceMeanField_ELBO(num_particles=50, vectorize_particles=True, max_plate_nesting=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        losses, sampled = [], []
        for _ in range(100):
            value = -pyros.differentiable_loss(model, model.guide, X, mask)
            losses.append(value.detach())
            sampled.append(gradients(value, model))
    exact = plain_elbo(model, X, mask).value
    for many, one in (
        (torch.stack(losses)[:, None], exact.detach()[None]),
        (torch.stack(sampled), gradients(exact, model)),
    ):
        error = many.std(0) / math.sqrt(len(many))
        z = (many.mean(0) - one) / error.clamp(min=1e-9)
        assert float(z.abs().max()) < 5.2  # 100 gradients, 99 degrees of freedom: one false alarm in ten thousand


def test_the_divergence_is_pyros_to_rounding():
    X, mask = problem()
    model = started(X, mask)
    guide = pyro.poutine.trace(model.guide).get_trace(X, mask)
    story = pyro.poutine.trace(pyro.poutine.replay(model, trace=guide)).get_trace(X, mask)
    pyros = kl_divergence(guide.nodes["W"]["fn"], story.nodes["W"]["fn"]).sum().detach()
    assert float(pyros) > 1
    assert float(plain_elbo(model, X, mask).divergence.detach()) == pytest.approx(float(pyros), rel=1e-12)


def test_the_divergence_is_that_to_an_exponential_by_quadrature():
    guide = Weibull(*(torch.tensor([[v]], dtype=torch.float64) for v in (0.4, 2.3)))
    H = torch.ones(1, D, dtype=torch.float64)
    ours = analytic_elbo(torch.ones(1, D, dtype=torch.float64), guide, H, torch.tensor(1.0).double()).divergence
    density = stats.weibull_min(2.3, scale=0.4)
    exact = integrate.quad(lambda w: density.pdf(w) * (density.logpdf(w) + w), 0, 3)[0]
    assert float(ours) == pytest.approx(exact, rel=1e-8)


@pytest.mark.parametrize("options", [{}, {"encoder": (5,)}, {"encoder": (6, 4)}, {"sigma2": "per column"}])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_are_those_of_finite_differences(options, masked):
    X, mask = problem()
    mask = mask if masked else None
    model = started(X, mask, **options)
    exact = gradients(plain_elbo(model, X, mask).value, model)
    parameters = list(model.parameters())
    flat, step, numeric = torch.nn.utils.parameters_to_vector(parameters).detach(), 1e-5, []
    for at in range(len(flat)):
        values = []
        for sign in (1, -1):
            moved = flat.clone()
            moved[at] += sign * step
            torch.nn.utils.vector_to_parameters(moved, parameters)
            values.append(plain_elbo(model, X, mask).value.detach())
        numeric.append((values[0] - values[1]) / (2 * step))
    numeric = torch.stack(numeric)
    assert torch.allclose(exact, numeric, rtol=1e-5, atol=1e-6 * float(exact.abs().max()))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("per_column", [False, True])
def test_the_bound_and_its_gradient_are_those_of_the_plain_formula(masked, per_column):
    X, mask = problem()
    u = torch.from_numpy(np.random.default_rng(5).random((4, N, K)))
    scale, concentration = (0.01 + 3 * u[0]).requires_grad_(), (LEAST * (MOST / LEAST) ** u[1]).requires_grad_()
    H = u[2, :D].mT.clone().requires_grad_()
    sigma2 = (0.2 + u[3, :D, 0]).requires_grad_() if per_column else torch.tensor(0.7).double().requires_grad_()
    guide = Weibull(scale, concentration)
    seen = mask.double() if masked else torch.ones(N, D).double()
    first, second = torch.lgamma(1 + 1 / concentration).exp(), torch.lgamma(1 + 2 / concentration).exp()
    errors = seen * ((X - scale * first @ H).square() + (scale.square() * (second - first.square())) @ H.square())
    likelihood = -0.5 * (errors / sigma2 + seen * (2 * math.pi * sigma2).log()).sum()
    plain = likelihood - kl_divergence(guide, Weibull(torch.ones(()).double(), torch.ones(()).double())).sum()
    ours = analytic_elbo(X, guide, H, sigma2, mask if masked else None)
    scaled = analytic_elbo(X, guide, H, sigma2 / 9, mask if masked else None, unit=3.0)
    assert float(scaled.value.detach()) == pytest.approx(float(ours.value.detach()), rel=1e-12)
    assert float(ours.value.detach()) == pytest.approx(float(plain.detach()), rel=1e-10)
    inputs = (scale, concentration, H, sigma2)
    for one, other in zip(torch.autograd.grad(3 * ours.value, inputs), torch.autograd.grad(plain, inputs), strict=True):
        assert torch.allclose(one / 3, other, rtol=1e-8, atol=1e-8 * float(other.abs().max()))


@pytest.mark.parametrize("dtype,wild", [(torch.float64, 12), (torch.float32, 6)])
def test_a_thousand_random_guides_and_scalings_give_finite_bounds_and_gradients(dtype, wild):
    generator = np.random.default_rng(6)
    for _ in range(1000):
        unit = 10.0 ** generator.uniform(-6, 6)
        X, H = unit * generator.exponential(size=(4, 5)), unit * generator.exponential(size=(K, 5))
        sigma2 = unit**2 * 10.0 ** generator.uniform(-wild, 1)
        k = LEAST * (MOST / LEAST) ** generator.uniform(0, 1, size=(4, K))
        scale = 10.0 ** generator.uniform(-8, 2, size=(4, K))
        values = [torch.tensor(value, dtype=dtype).requires_grad_() for value in (scale, k, H, sigma2)]
        value = analytic_elbo(torch.tensor(X, dtype=dtype), Weibull(*values[:2]), *values[2:]).value
        assert value.isfinite()
        assert all(bool(slope.isfinite().all()) for slope in torch.autograd.grad(value, values))


def test_what_lies_under_the_mask_leaks_nowhere():
    X, mask = problem()
    model = started(X, mask)
    poisoned = torch.where(mask, X, torch.nan)
    for run in (
        lambda X: plain_elbo(model, X, mask).value,
        lambda X: TraceMeanField_ELBO().differentiable_loss(model, model.guide, X, mask),
        lambda X: TraceMeanField_ELBO().differentiable_loss(model, model.guide, X, mask, rows=torch.tensor([1, 5])),
    ):
        results = []
        for data in (X, poisoned, torch.where(mask, X, 1e9)):
            with torch.random.fork_rng():
                torch.manual_seed(0)
                value = run(data)
            results.append(torch.cat([value.detach()[None], gradients(value, model)]))
        assert results[0].isfinite().all()
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[0], results[2])
    assert torch.equal(model.encode(poisoned, mask).scale, model.encode(X, mask).scale)


def test_the_encoder_sees_a_missing_entry_as_its_columns_mean():
    X, mask = problem()
    model = started(X, mask)
    filled = torch.where(mask, X, as_matrix(X, mask).column_means())
    assert torch.allclose(model.encode(X, mask).scale, model.encode(filled).scale, rtol=1e-12)


def test_mini_batches_are_unbiased():
    X, mask = problem()
    model = started(X, mask)
    parts: list[torch.Tensor] = []
    for rows in torch.arange(N).split(4):
        guide = pyro.poutine.trace(model.guide).get_trace(X, mask, rows=rows)
        assert guide.nodes["W"]["value"].shape == (4, K)
        story = pyro.poutine.trace(pyro.poutine.replay(model, trace=guide)).get_trace(X, mask, rows=rows)
        assert story.nodes["W"]["scale"] == N / 4
        parts.append(kl_divergence(guide.nodes["W"]["fn"], story.nodes["W"]["fn"]).sum() * guide.nodes["W"]["scale"])
    assert float(sum(parts).detach() / 3) == pytest.approx(
        float(plain_elbo(model, X, mask).divergence.detach()), rel=1e-12
    )


def test_the_traced_log_joint_is_the_formula():
    X, mask = problem()
    model = started(X, mask, sigma2=0.7)
    W = torch.rand(N, K, dtype=torch.float64) + 0.1
    trace = pyro.poutine.trace(pyro.condition(model, {"W": W})).get_trace(X, mask)
    residual = (X - W @ model.H.detach())[mask]
    exact = -W.sum() - 0.5 * residual.square().sum() / 0.7 - 0.5 * len(residual) * math.log(2 * math.pi * 0.7)
    assert float(trace.log_prob_sum().detach()) == pytest.approx(float(exact), rel=1e-12)
    assert {frame.name for frame in trace.nodes["X"]["cond_indep_stack"]} == {"row", "column"}
    assert {frame.name for frame in trace.nodes["W"]["cond_indep_stack"]} == {"row", "component"}
    assert torch.equal(trace.nodes["H"]["value"], model.H)
    assert float(trace.nodes["sigma2"]["value"]) == pytest.approx(0.7)


def test_prior_draws_have_the_priors_moments_through_predictive_and_generate():
    X, _ = problem()
    model = started(X, sigma2=0.5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = Predictive(model, num_samples=400)(shape=(30, D))
        assert model(shape=(30, D)).shape == (30, D)
    assert drawn["W"].shape == (400, 30, K)
    assert drawn["H"].shape[-2:] == (K, D)
    H = model.H.detach()
    mean, variance = H.sum(0), H.square().sum(0) + 0.5
    for rows in (drawn["X"].reshape(-1, D).detach(), model.generate(12_000, seed=3)):
        assert ((rows.mean(0) - mean).abs() < 5 * (variance / 12_000).sqrt()).all()
        assert (rows.var(0) / variance - 1).abs().max() < 5 * math.sqrt(8 / 12_000)
    assert torch.equal(model.generate(5, seed=3), model.generate(5, seed=3))


def test_nuts_agrees_with_the_exact_posterior_of_one_loading():
    X = torch.tensor([[1.2, 0.4]], dtype=torch.float64)
    model = PAENMF(1, sigma2=0.3).initialise(as_matrix(X))
    h = model.H.detach()[0]
    density = lambda w: math.exp(-w - float((X[0] - w * h).square().sum()) / 0.6)
    mass, first = (integrate.quad(lambda w, p=p: w**p * density(w), 0, 20)[0] for p in (0, 1))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sampler = MCMC(NUTS(model), num_samples=200, warmup_steps=50, disable_progbar=True)
        sampler.run(X)
    W = sampler.get_samples()["W"]
    assert W.shape == (200, 1, 1)
    n_eff = float(sampler.diagnostics()["W"]["n_eff"])
    assert abs(float(W.mean()) - first / mass) < 4.5 * float(W.std()) / math.sqrt(n_eff)


def test_it_can_be_drawn_as_a_graph():
    pytest.importorskip("graphviz")
    X, _ = problem()
    source = pyro.render_model(started(X), model_args=(X,)).source
    assert "W -> X" in source
    assert all(plate in source for plate in ("row", "column", "component"))


def test_the_start_is_near_ordinary_nmf():
    from sklearn.decomposition import NMF

    generator = np.random.default_rng(3)
    X = generator.exponential(size=(200, 3)) @ generator.exponential(size=(3, 20)) + 0.3 * generator.random((200, 20))
    model = PAENMF(3).initialise(as_matrix(X))
    best = NMF(3, init="nndsvda", max_iter=1000, tol=1e-6).fit(X).reconstruction_err_ ** 2
    assert float(model.sigma2.detach()) * X.size < 1.5 * best
    assert (model.H >= 0).all()
    error = (torch.from_numpy(X) - model.decode(model.encode(X).mean)).square().sum()
    assert float(error) < 0.02 * np.square(X).sum()


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_scaling_x_scales_h_and_leaves_the_encoder(scale):
    X, mask = problem()
    one, other = PAENMF(K).initialise(as_matrix(X, mask)), PAENMF(K).initialise(as_matrix(X * scale, mask))
    assert torch.allclose(other.H / scale, one.H, rtol=1e-6, atol=1e-9)
    assert float(other.sigma2.detach()) / scale**2 == pytest.approx(float(one.sigma2.detach()), rel=1e-6)
    assert torch.allclose(other.encode(X * scale, mask).scale, one.encode(X, mask).scale, rtol=1e-6)


def test_the_start_is_repeatable_and_leaves_the_global_generators():
    X, _ = problem()
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    one, two, other = (PAENMF(K, encoder=(8,)).initialise(as_matrix(X), seed) for seed in (4, 4, 5))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.body[0].weight, other.body[0].weight)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]


@pytest.mark.parametrize("sigma2", [None, "per column"])
def test_the_noise_starts_at_no_less_than_a_ten_thousandth_of_the_mean_square(sigma2):
    X = np.random.default_rng(0).exponential(size=(30, 1)) * 2.0 ** np.arange(-2, 3)
    found = PAENMF(1, sigma2).initialise(X).sigma2.detach()
    squares = torch.from_numpy(np.square(X).mean(0))
    assert torch.allclose(found, 1e-4 * (squares.mean() if sigma2 is None else squares), rtol=1e-3, atol=0)


def test_an_array_starts_it_as_its_matrix_does():
    X, _ = problem()
    one, other = PAENMF(K).initialise(X.numpy()), PAENMF(K).initialise(as_matrix(X))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("X", [torch.zeros(6, 4), torch.eye(4, 5), torch.ones(3, 9), torch.ones(1, 1)])
@pytest.mark.parametrize("rank", [1, 6])
def test_degenerate_data_give_a_finite_start(X, rank):
    model = PAENMF(rank).initialise(as_matrix(X.double()))
    elbo = plain_elbo(model, X.double()).value
    assert elbo.isfinite()
    assert gradients(elbo, model).isfinite().all()


def test_concentration_and_scale_stay_in_their_bounds():
    X, _ = problem()
    model = started(X.float())
    for size in (1e-3, 1.0, 1e6):
        guide = model.encode(torch.randn(50, D, generator=torch.Generator().manual_seed(0)).abs() * size)
        assert (guide.concentration >= LEAST).all()
        assert (guide.concentration <= MOST).all()
        assert (guide.scale > 0).all()
        assert all(moment.isfinite().all() for moment in weibull_moments(guide))


def test_whole_numbers_are_cast():
    X, _ = problem()
    model = started(X.float())
    guide = model.encode(np.arange(2 * D).reshape(2, D))
    assert guide.batch_shape == (2, K)
    assert guide.scale.dtype == torch.float32
    assert not guide.scale.requires_grad
    assert model.decode(np.ones((2, K), dtype=int)).shape == (2, D)


@pytest.mark.parametrize(
    "options",
    [{}, {"sigma2": 0.5, "encoder": (8, 4)}, {"sigma2": "per column"}, {"published": ("median", False, True)}],
)
def test_configuration_and_state_rebuild_the_model(options):
    X, _ = problem()
    model = started(X.float(), **options)
    copy = PAENMF(**model.config())
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy.encode(X).scale, model.encode(X).scale)
    assert torch.equal(copy.H, model.H)
    assert torch.equal(copy.sigma2, model.sigma2)


def test_bad_input_gets_its_sentence():
    X, _ = problem()
    for options, words in (
        ({"rank": 0}, "rank is 0"),
        ({"rank": 2.0}, "rank is 2.0"),
        ({"rank": 2, "sigma2": 0.0}, "sigma2 is 0.0"),
        ({"rank": 2, "sigma2": "per row"}, "sigma2 is 'per row'.*'per column'"),
        ({"rank": 2, "encoder": "deep"}, "encoder is 'deep'"),
        ({"rank": 2, "published": ("mean", True, False)}, "training is 'mean'.*'random', 'median'"),
        ({"rank": 2, "published": ("random", True, False), "encoder": (8,)}, "the published one is 'linear'"),
        ({"rank": 2, "encoder": (0,)}, "widths"),
        ({"rank": 2, "encoder": 64}, "encoder is 64; .*widths"),
        ({"rank": 2, "sigma2": [1, 2]}, r"sigma2 is \[1, 2\]"),
        ({"rank": 2, "sigma2": True}, "sigma2 is True"),
        ({"rank": 2, "published": "random"}, r"published is 'random'; give \(training, divergence, released\)"),
        ({"rank": 2, "published": ("random", "no")}, "divergence is 'no'"),
    ):
        with pytest.raises(ValueError, match=words):
            PAENMF(**options)
    with pytest.raises(RuntimeError, match="no weights yet"):
        PAENMF(2).encode(X)
    model = started(X)
    with pytest.raises(ValueError, match="neither X nor shape"):
        model()
    with pytest.raises(ValueError, match="8 columns are asked"):
        model.encode(torch.ones(2, 8))
    with pytest.raises(ValueError, match="not finite"):
        model.encode(torch.full((2, D), torch.nan))


@pytest.mark.parametrize(
    "rows,mask,sentence",
    [
        (torch.ones(6), None, r"pass X\[None\]"),
        (-torch.ones(2, 6), None, "12 negative entries"),
        (torch.full((2, 6), torch.nan), None, "not finite"),
        (torch.ones(2, 6), torch.ones(6, dtype=torch.bool), "mask has shape"),
        (torch.ones(2, 6), torch.ones(2, 6, dtype=torch.int64), "booleans are needed"),
    ],
)
def test_bad_rows_to_encode_get_their_sentence(rows, mask, sentence):
    model = PAENMF(2).initialise(as_matrix(torch.rand(9, 6, generator=torch.Generator().manual_seed(0))))
    assert model.encode(torch.ones(2, 6)).scale.shape == (2, 2)
    with pytest.raises(ValueError, match=sentence):
        model.encode(rows, mask)


def test_training_on_takes_data_of_another_type():
    X = torch.rand(20, 6, generator=torch.Generator().manual_seed(0))
    first = ppnmf.fit(PAENMF(2), X, method="svi", steps=5, draws=2)
    second = ppnmf.fit(first.model, X.double(), method="svi", steps=5, draws=2)
    assert second.draws["W"].dtype == torch.float64 and first.model.H.dtype == torch.float32


def test_the_published_encoder_is_linear_without_bias_and_has_floors():
    X, mask = problem()
    model = started(X, published=("random", True, False))
    assert model.to_scale.bias is None and model.to_concentration.bias is None
    with torch.no_grad():
        model.to_scale.weight[0] = -1.0
    guide, weights = model.encode(X), (model.to_scale.weight, model.to_concentration.weight)
    for ours, weight in zip((guide.scale, guide.concentration), weights, strict=True):
        assert np.allclose(ours.numpy(), np.maximum(X.numpy() @ weight.detach().numpy().T, 1e-3), rtol=1e-12)
    assert (guide.scale[:, 0] == 1e-3).all()
    assert torch.equal(
        model.encode(torch.where(mask, X, torch.nan), mask).scale, model.encode(_filled(X, mask, model)).scale
    )


def _filled(X, mask, model):
    return torch.where(mask, X, model.centre)


def test_the_published_start_is_ordinary_nmf_with_noise_and_the_authors_weights():
    X, _ = problem()
    ours, model = PAENMF(K).initialise(as_matrix(X)), PAENMF.paper(K).initialise(as_matrix(X))
    noise = (model.H - ours.H).detach() / ours.H.detach().mean()
    assert (noise > 0).all() and (noise < 0.1).all() and float(noise.std()) > 0.02
    for layer in (model.to_scale, model.to_concentration):
        of_mean = layer.weight.detach() * D * X.mean()
        assert (of_mean > 0.3).all() and (of_mean < 0.7).all() and float(of_mean.std()) > 0.08
    assert not torch.equal(model.to_scale.weight, model.to_concentration.weight)
    assert model.config() == {"rank": K, "sigma2": 0.5, "encoder": "linear", "published": ("random", True, False)}
