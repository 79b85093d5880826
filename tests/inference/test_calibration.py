"""The sampler proved right, and mistakes planted in it found: Geweke's joint test, SBC, quadrature, and NUTS."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.diagnostics.calibration import SideBySide, data_draws, geweke, sbc
from ppnmf.diagnostics.convergence import entries, strengths
from ppnmf.distributions import RectifiedNormal
from ppnmf.gaussian import noise, ridge, sweep
from ppnmf.gaussian.noise import NoisePrior
from ppnmf.inference import gibbs
from ppnmf.kernels import cpu, reference
from ppnmf.models import ExponentialGaussian
from ppnmf.protocols import Statistics
from ppnmf.rng import Stream
from tests.scenarios import drawn

SHAPES = [(4, 3), (3, 5)]  # more rows than columns, and fewer
LUCK = 1e-4  # how often a right build may fail
CAUGHT = 1e-9  # what a mistake must be less likely than


def uneven_model(N, D, rank, noise_shape=5.0, noise_scale=20.0):
    """Rates that differ between components and from entry to entry, and a noise far from 1."""
    spread = lambda *size: (
        0.8 + 0.4 * torch.arange(math.prod(size), dtype=torch.float64).reshape(size) / math.prod(size)
    )
    of_component = torch.tensor([0.6, 2.0, 1.2], dtype=torch.float64)[:rank]
    rate_W, rate_H = spread(N, rank) * of_component, spread(rank, D) * of_component[:, None]
    return ExponentialGaussian(rank, rate_W, rate_H, noise_shape, noise_scale)


def mask_of(shape):
    return (torch.arange(math.prod(shape)) % 4 != 1).reshape(shape)


def judged(shape, step=gibbs.step, sweeps=100, chains=200, seed=1, **options):
    return geweke(options.pop("model", uneven_model(*shape, 2)), shape, step, sweeps, seed, chains=chains, **options)


def test_prior_draws_have_the_moments_of_the_prior():
    model = uneven_model(3, 5, 2)
    draws = model.prior_draws((3, 5), 100_000, Stream.of(0))
    X = data_draws(model, draws, Stream.of(1), 0)
    rates = {"W": model.prior("W").rate, "H": model.prior("H").rate}
    alpha, theta = torch.tensor(model.noise_shape), model.noise_scale
    checks = [(draws[site] * rates[site] - 1).flatten(1) for site in rates]
    checks += [((draws[site] * rates[site]).square() - 2).flatten(1) for site in rates]
    checks += [(draws["sigma2"].log() - (math.log(theta) - torch.digamma(alpha)))[:, None]]
    checks += [(1 / draws["sigma2"] - alpha / theta)[:, None]]
    residual = (X - draws["W"] @ draws["H"]) / draws["sigma2"].sqrt()[:, None, None]
    checks += [residual.flatten(1), residual.flatten(1).square() - 1]
    every = torch.cat(checks, -1)
    z = every.mean(0) / (every.std(0) / len(every) ** 0.5)
    assert float(z.abs().max()) < 5.2  # 66 of them: once in ten thousand


@pytest.mark.parametrize("shape", SHAPES)
def test_gibbs_with_its_moves_leaves_the_joint_invariant(shape):
    assert judged(shape).p_value > LUCK


@pytest.mark.parametrize("shape", SHAPES)
def test_gibbs_without_moves_leaves_the_joint_invariant(shape):
    assert judged(shape, partial(gibbs.step, moves=False), seed=2).p_value > LUCK


def test_gibbs_with_missing_entries_leaves_the_joint_invariant():
    assert judged((4, 3), mask=mask_of((4, 3)), seed=3).p_value > LUCK


def test_a_tempered_sweep_leaves_the_tempered_joint_invariant():
    """With s = σ²/β, likelihood^β is Normal(WH, s) · s^(n(1-β)/2): the prior of s loses n(1-β)/2 from its shape."""
    shape, power, n = (4, 3), 0.6, 12
    mine = uneven_model(*shape, 2)

    def step(model, state, X, stream):
        cold = uneven_model(*shape, 2, model.noise_shape + n * (1 - power) / 2, model.noise_scale * power)
        params = {**state.params, "sigma2": state.params["sigma2"] * power}
        moved, info = gibbs.step(cold, gibbs.State(params, state.sweep), X, stream, power=power)
        return gibbs.State({**moved.params, "sigma2": moved.params["sigma2"] / power}, moved.sweep), info

    assert judged(shape, step, model=mine, seed=4).p_value > LUCK


def test_one_chain_alone_gives_the_same_verdicts():
    """The path for a step that takes one X: errors come from batches of the one chain."""
    found = judged((4, 3), sweeps=1500, chains=1)
    assert found.batches == 50 and found.p_value > LUCK


def test_chains_side_by_side_are_chains_alone():
    model = uneven_model(4, 3, 2)
    params = model.prior_draws((4, 3), 3, Stream.of(5))
    X = tuple(as_matrix(own, mask_of((4, 3))) for own in data_draws(model, params, Stream.of(6), 0))
    together, info = gibbs.step(model, gibbs.State(params, 1), SideBySide(X), Stream.of(7, 3))
    for c in range(3):
        own = {site: values[c : c + 1] for site, values in params.items()}
        alone, its_info = gibbs.step(model, gibbs.State(own, 1), X[c], Stream.of(7, [c]))
        for site in params:
            torch.testing.assert_close(together.params[site][c], alone.params[site][0], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(info.lp[c], its_info.lp[0])


# Mistakes: each takes the place of a kernel, and the joint test must see it.


def noise_shape_plus_one(shape, scale, stream, step):
    return cpu.inverse_gamma(shape + 1, scale, stream, step)


def scale_with_one_power_too_many(W, H, rates, stream, step):
    """c^(N-D) for c^(N-D-1): what a further row of zeros does."""
    longer = lambda F: torch.cat([F, torch.zeros_like(F[..., :1, :])], -2)
    W, H = cpu.scale_move(longer(W), H, (longer(rates[0]), rates[1]), stream, step)
    return cpu.shear_move(W[..., :-1, :], H, rates, stream, step)


def shear_with_swapped_rates(W, H, rates, stream, step):
    """Rates of l for those of k and the reverse: with two components, both sets of rates reversed."""
    W, H = cpu.scale_move(W, H, rates, stream, step)
    return cpu.shear_move(W, H, (rates[0].flip(1), rates[1].flip(0)), stream, step)


def half_sweep_with_rate_over_sigma2(state):
    def half_sweep(F, statistics, prior, draw, first_row=0, first=0, weight=None, fresh=1):
        each = []
        for c in range(len(F)):
            wrong = (prior[0], prior[1] / state.params["sigma2"][c])
            own, stream = Statistics(statistics.P[c : c + 1], statistics.Q[c : c + 1]), Stream(draw[0].keys[c : c + 1])
            rest = first_row, first, weight[c : c + 1], fresh
            each.append(cpu.half_sweep(F[c : c + 1], own, wrong, (stream, *draw[1:]), *rest))
        return torch.cat(each)

    return half_sweep


def kernels_with(**wrong):
    right = {name: getattr(cpu, name) for name in cpu.__all__}
    return lambda device: SimpleNamespace(**{**right, **wrong})


MISTAKES = {
    "shape of the noise + 1": {"inverse_gamma": noise_shape_plus_one},
    "one power of c too many": {"moved": scale_with_one_power_too_many},
    "rates swapped in the shear": {"moved": shear_with_swapped_rates},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_found(mistake, shape, monkeypatch):
    monkeypatch.setattr(sweep, "compiled", lambda *whatever: None)  # sweeps that call the kernels one by one
    for module in (noise, ridge):
        monkeypatch.setattr(module, "kernels_for", kernels_with(**MISTAKES[mistake]))
    assert judged(shape, sweeps=50).p_value < CAUGHT


@pytest.mark.parametrize("shape", SHAPES)
def test_a_rate_divided_by_the_noise_is_found(shape, monkeypatch):
    def step(model, state, X, stream):
        monkeypatch.setattr(sweep, "kernels_for", kernels_with(half_sweep=half_sweep_with_rate_over_sigma2(state)))
        return gibbs.step(model, state, X, stream)

    assert judged(shape, step, sweeps=50).p_value < CAUGHT


def sampled(model, X, seed):
    return gibbs.run(model, X, draws=31, thin=3, warmup=40, chains=len(X.each), seed=seed, init="prior", progress=False)


def ranked(simulations=400, mask=None):
    """One set of data a chain; little data for each, so that the shape of the noise counts."""
    return sbc(uneven_model(3, 2, 2, 2.0, 8.0), (3, 2), sampled, simulations, seed=1, mask=mask, at_once=100)


def test_ranks_of_the_truth_are_uniform():
    found = ranked()
    assert found.draws == 31 and len(found.ranks) == 2 + 6 + 4 + 6
    assert found.p_value > LUCK, found.worst


def test_the_slip_in_the_shape_of_the_noise_shows_in_sigma2_and_the_log_likelihood(monkeypatch):
    given = NoisePrior.given
    monkeypatch.setattr(
        NoisePrior, "given", lambda self, n, power=1.0: NoisePrior(given(self, n, power).shape + 1, 8.0)
    )
    found = ranked()
    shown = {name for name, p in found.p_values.items() if p < LUCK / len(found.ranks)}
    assert "sigma2" in shown and shown <= {"sigma2", "log likelihood"}


@pytest.mark.slow
@pytest.mark.parametrize("mask", [None, mask_of((3, 2))], ids=["full", "masked"])
def test_ranks_of_the_truth_are_uniform_in_many_simulations(mask):
    found = ranked(4000, mask)
    assert found.p_value > LUCK, found.worst


@pytest.mark.slow
@pytest.mark.parametrize("kernels", [cpu, reference], ids=["compiled", "reference"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
def test_long_runs_leave_the_joint_invariant(shape, kernels, masked, monkeypatch):
    for module in (noise, ridge, sweep):
        monkeypatch.setattr(module, "kernels_for", lambda device: kernels)
    found = judged(shape, sweeps=500, chains=400, seed=8, mask=mask_of(shape) if masked else None)
    assert found.p_value > LUCK, found.worst


def means_and_errors(post, functions):
    """Mean and Monte Carlo error of functions (chain, draw, M) of the draws."""
    from arviz_stats import mcse

    values = torch.cat([f if f.ndim == 3 else f[..., None] for f in functions(post)], -1).double()
    return values.mean((0, 1)), torch.from_numpy(mcse(values.numpy(), chain_axis=0, draw_axis=1))


def quadrature_at_rank_one(X, model, points=70):
    """E log σ², E 1/σ² and E (WH)_ij for X (N, 2) at K = 1: W is integrated in closed form, log h and log σ² on a grid."""
    grid = lambda low, high: torch.linspace(low, high, points, dtype=torch.float64)
    a, b, s = torch.meshgrid(grid(-9, 3), grid(-9, 3), grid(-4, 5), indexing="ij")
    h, sigma2 = torch.stack([a, b], -1).exp(), s.exp()  # (..., 2), (...)
    rate_W, rate_H = model.prior("W").rate[:, 0], model.prior("H").rate[0]
    w = RectifiedNormal(
        (h.square().sum(-1) / sigma2)[..., None].expand(*s.shape, len(X)), h @ X.T / sigma2[..., None] - rate_W
    )  # (..., N)
    log_density = w.log_normalizer.sum(-1) - 0.5 * X.square().sum() / sigma2 - 0.5 * X.numel() * s
    log_density += -(h * rate_H).sum(-1) + a + b - model.noise_shape * s - model.noise_scale / sigma2
    weight = (log_density - log_density.max()).exp()
    mean = lambda values: float((values * weight).sum() / weight.sum())
    centre = w.mean
    product = [mean(centre[..., i] * h[..., j]) for i in range(len(X)) for j in range(2)]
    return torch.tensor([mean(s), mean(1 / sigma2), *product], dtype=torch.float64)


def test_gibbs_matches_quadrature_at_rank_one():
    model = uneven_model(3, 2, 1, 3.0, 2.0)
    X = torch.tensor([[1.0, 2.5], [0.2, 0.9], [2.0, 3.2]], dtype=torch.float64)
    exact = quadrature_at_rank_one(X, model)
    torch.testing.assert_close(exact, quadrature_at_rank_one(X, model, 50), rtol=1e-4, atol=0)
    post = ppnmf.fit(model, X, draws=1500, warmup=100, chains=8, seed=3, progress=False)
    product = lambda post: (post.draws["W"] @ post.draws["H"]).flatten(2)
    means, errors = means_and_errors(
        post, lambda post: [post.draws["sigma2"].log(), 1 / post.draws["sigma2"], product(post)]
    )
    z = (means - exact) / errors
    assert float(z.abs().max()) < 4.6, z  # 8 of them: once in ten thousand, with room for the errors' own


@pytest.mark.slow
def test_gibbs_agrees_with_nuts():
    X, *_ = drawn(8, 6, 2, noise=2.0, seed=1)
    model = ExponentialGaussian(2, 1.0, 1.0, 2.0, 2.0)
    functions = lambda post: [post.stats["lp"], post.draws["sigma2"], strengths(post), entries(post, 48)]
    one = ppnmf.fit(model, X.abs(), draws=5000, warmup=500, chains=4, seed=1, progress=False)
    options = {"draws": 700, "warmup": 300, "chains": 2, "max_tree_depth": 5}
    two = ppnmf.fit(model, X.abs(), method="nuts", seed=3, progress=False, **options)
    (mean, error), (other, its_error) = means_and_errors(one, functions), means_and_errors(two, functions)
    z = (mean - other) / (error.square() + its_error.square()).sqrt()
    assert float(z.abs().max()) < 5.8, z  # 52 of them, once in ten thousand; the errors of NUTS come out 13 % too small


@pytest.fixture(scope="module")
def large():
    X, *_ = drawn(100, 80, 10, rate=0.1, noise=2.5)
    return X


def of_rank(K, X, **options):
    return ppnmf.fit(ExponentialGaussian(K, 0.1, 0.1, 1.0, 1.0), X, chains=4, seed=0, progress=False, **options)


def worst_strength(found):
    return max(row["rhat"] for row in found.table if row["name"].startswith("strength"))


@pytest.mark.slow
def test_the_moves_let_four_random_starts_agree(large):
    post = of_rank(10, large, draws=2250, warmup=2250)
    found = ppnmf.summary(post)
    assert abs(float(post.mean("sigma2")) - 2.5) < 0.1
    assert worst_strength(found) < 1.05
    assert found.agree is True and "The 4 chains agree" in found.sentence


@pytest.mark.slow
def test_without_the_moves_they_do_not_and_the_summary_says_so(large):
    post = of_rank(10, large, draws=2250, warmup=2250, moves=False)
    found = ppnmf.summary(post)
    assert abs(float(post.mean("sigma2")) - 2.5) < 0.1  # W @ H is right all the same
    assert worst_strength(found) > 2
    assert found.agree is False and "do not agree" in found.sentence


@pytest.mark.slow
def test_at_a_rank_too_high_the_summary_says_that_the_chains_do_not_agree(large):
    found = ppnmf.summary(of_rank(12, large, draws=1500, warmup=1500))
    assert found.agree is False and "do not agree" in found.sentence
