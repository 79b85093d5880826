"""What is done with a fitted PAE-NMF: encode, decode, interpolate, generate, log densities, calibration, files."""

import math
from functools import cache
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Normal, kl_divergence

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.diagnostics import amortised
from ppnmf.distributions import RectifiedNormal
from ppnmf.evidence import bound
from ppnmf.models import PAENMF
from ppnmf.models.weibull import Weibull, Widened

N, D, K = 40, 8, 3
OPTIONS = {
    "learned": {},
    "given": {"sigma2": 0.5},
    "per column": {"sigma2": "per column"},
    "deep": {"encoder": (6, 4)},
}


def problem(seed=0):
    generator = np.random.default_rng(seed)
    X = generator.exponential(size=(N, K)) @ generator.exponential(size=(K, D)) + 0.3 * generator.normal(size=(N, D))
    return torch.from_numpy(np.abs(X)), torch.from_numpy(generator.random((N, D)) > 0.2)


@cache
def fitted(kind="learned", dtype=torch.float64, masked=False, steps=100):
    X, mask = problem()
    model = PAENMF(K, **OPTIONS[kind])
    return ppnmf.fit(
        model, X.to(dtype), method="svi", mask=mask if masked else None, steps=steps, draws=20, progress=False
    )


# The Weibull


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [0.1, 0.5, 1.0, 7.0, 100.0])
def test_the_weibull_is_right_for_any_concentration(k, dtype):
    ours = Weibull(torch.tensor(0.7, dtype=dtype), torch.tensor(k, dtype=dtype))
    accuracy = 40 * torch.finfo(dtype).eps
    with mpmath.workdps(40):
        k, scale = mpmath.mpf(float(ours.concentration)), mpmath.mpf(float(ours.scale))
        close = lambda value, exact, times=1: float(value) == pytest.approx(float(exact), rel=times * accuracy)
        assert close(ours.mean, scale * mpmath.gamma(1 + 1 / k))
        assert close(ours.mode, scale * (1 - 1 / k) ** (1 / k) if k > 1 else 0)
        for q in (1e-3, 0.025, 0.5, 0.975):
            q = torch.tensor(q, dtype=dtype)
            exact = scale * (-mpmath.log1p(-mpmath.mpf(float(q)))) ** (1 / k)
            assert close(ours.icdf(q), exact, 10)
        for w in (0.01, 0.3, 0.7, 0.8):
            w = torch.tensor(w, dtype=dtype)
            ratio = mpmath.mpf(float(w)) / scale
            log_density = mpmath.log(k / scale) + (k - 1) * mpmath.log(ratio) - ratio**k
            assert close(ours.log_prob(w), log_density, 20)
            exact = -mpmath.expm1(-(ratio**k))
            assert float(ours.cdf(w)) == pytest.approx(
                float(exact), rel=float(20 * (k + 1) * accuracy), abs=torch.finfo(dtype).tiny
            )


@pytest.mark.parametrize("k", [0.1, 1.0, 100.0])
def test_samples_of_the_weibull_follow_it_and_are_positive(k):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ours = Weibull(torch.tensor(0.7), torch.tensor(k))
        drawn = ours.sample((200_000,))
    assert drawn.dtype == torch.float32 and float(drawn.min()) > 0 and bool(drawn.isfinite().all())
    uniform = -np.expm1(-((drawn.double().numpy() / float(ours.scale)) ** float(ours.concentration)))
    # single precision has few values near 1 where k is large
    assert stats.kstest(uniform, "uniform").pvalue > 1e-4
    assert ours.expand((3, 2)).sample().shape == (3, 2)


def test_the_weibulls_divergence_is_that_of_torchs():
    one, other = Weibull(torch.tensor(2.0), torch.tensor(3.0)), torch.distributions.Weibull(1.0, 1.0)
    assert float(kl_divergence(one, other)) == float(kl_divergence(torch.distributions.Weibull(2.0, 3.0), other))


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_widened_guide_has_the_density_of_its_draws(share):
    guide = Weibull(torch.tensor([0.7]).double(), torch.tensor([8.0]).double())
    source = Widened(guide, share)
    n = 100_000
    drawn = source.at(((torch.arange(n, dtype=torch.float64) + 0.5) / n)[:, None])[:, 0].sort().values
    grid = torch.linspace(1e-6, 3, 300_001, dtype=torch.float64)
    mass = torch.cumulative_trapezoid(source.log_prob(grid[:, None])[:, 0].exp(), grid)
    assert float(mass[-1]) == pytest.approx(1, abs=1e-4)
    for w in (0.2, 0.5, 0.7, 0.9):
        assert float((drawn < w).double().mean()) == pytest.approx(
            float(mass[torch.searchsorted(grid, w) - 1]), abs=1e-4
        )


# Encoding and decoding


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_encoding_gives_mean_median_interval_and_samples(dtype):
    X, _ = problem()
    guide = fitted(dtype=dtype).model.encode(X)
    assert guide.batch_shape == (N, K) and guide.mean.dtype == dtype
    low, median, high = (guide.icdf(torch.tensor(q, dtype=dtype)) for q in (0.05, 0.5, 0.95))
    assert bool((low < median).all()) and bool((median < high).all())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = guide.sample((4000,))
    inside = ((drawn > low) & (drawn < high)).double().mean(0)
    assert float((inside - 0.9).abs().max()) < 5 * math.sqrt(0.09 / 4000)
    z = (drawn.mean(0) - guide.mean) / (drawn.std(0) / math.sqrt(4000))
    assert float(z.abs().max()) < 5


def test_decoding_wants_a_loading_for_each_component():
    model = fitted().model
    assert torch.equal(model.decode(np.eye(K)), model.H.detach())
    with pytest.raises(ValueError, match=r"W has shape \(2, 4\); loadings \(N, 3\) are needed"):
        model.decode(torch.ones(2, 4))
    with pytest.raises(ValueError, match="W has shape"):
        model.decode(1.0)


def test_interpolation_goes_straight_from_one_reconstruction_to_the_other():
    X, _ = problem()
    model = fitted().model
    way = model.interpolate(X[0], X[1].numpy(), steps=5)
    ends = model.decode(model.encode(X[:2]).mean)
    assert way.shape == (5, D)
    torch.testing.assert_close(way[[0, -1]], ends)
    torch.testing.assert_close(way[1:] - way[:-1], (ends[1] - ends[0]).expand(4, D) / 4)
    with pytest.raises(ValueError, match="steps is 1"):
        model.interpolate(X[0], X[1], steps=1)
    with pytest.raises(ValueError, match="7 columns are asked"):
        model.interpolate(X[0, :7], X[1, :7])


# Generating


@pytest.mark.parametrize("kind", ["learned", "per column"])
def test_rows_from_the_aggregated_posterior_have_its_moments(kind):
    post, n = fitted(kind), 40_000
    rows = post.generate(n, seed=1, latent="aggregated")
    W, H, sigma2 = post.draws["W"][0], post.model.H.detach(), post.model.sigma2.detach()
    means = (W @ H).reshape(-1, D)
    mean, variance = means.mean(0), means.var(0) + sigma2
    assert ((rows.mean(0) - mean).abs() < 5 * (variance / n).sqrt()).all()
    fourth = ((rows - rows.mean(0)) ** 4).mean(0)
    assert ((rows.var(0) - variance).abs() < 5 * ((fourth - variance**2) / n).sqrt()).all()
    assert torch.equal(rows, post.generate(n, seed=1, latent="aggregated"))
    assert not torch.equal(rows[:5], post.generate(5, seed=2, latent="aggregated"))


def test_the_aggregated_posterior_is_nearer_to_the_data_than_the_prior():
    X, _ = problem()
    post = fitted(steps=400)
    correlation = lambda rows: np.corrcoef(rows.numpy().T)
    off = [
        np.abs(correlation(post.generate(20_000, latent=kind)) - correlation(X)).mean()
        for kind in ("aggregated", "prior")
    ]
    assert off[0] < 0.7 * off[1]


def test_bad_numbers_of_rows_and_other_latents_are_refused():
    post = fitted()
    assert post.generate(0).shape == post.generate(0, latent="aggregated").shape == (0, D)
    for n in (-1, 2.5):
        with pytest.raises(ValueError, match=f"n is {n}"):
            post.generate(n)
        with pytest.raises(ValueError, match=f"n is {n}"):
            post.model.generate(n)
    with pytest.raises(ValueError, match="'prior', 'aggregated'"):
        post.generate(3, latent="posterior")


# Densities


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["learned", "given", "per column"])
def test_the_log_joint_of_rows_is_the_formula(kind, masked):
    X, mask = problem()
    mask = mask if masked else None
    model = fitted(kind).model
    W = torch.rand(5, N, K, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.05
    entries = Normal(W @ model.H.detach(), model.sigma2.detach().sqrt()).log_prob(X)
    formula = (entries if mask is None else entries * mask).sum(-1) - W.sum(-1)
    torch.testing.assert_close(model.log_joint(X, W, mask), formula, rtol=1e-11, atol=1e-9)
    poisoned = X if mask is None else torch.where(mask, X, math.nan)
    torch.testing.assert_close(model.log_joint(poisoned, W, mask), formula, rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("kind", ["learned", "per column"])
def test_the_likelihood_of_the_posterior_is_that_of_the_model(kind):
    X, _ = problem()
    post = fitted(kind)
    entries = Normal(post.draws["W"] @ post.model.H.detach(), post.model.sigma2.detach().sqrt()).log_prob(X)
    torch.testing.assert_close(post.log_likelihood(), entries)
    assert not post.log_likelihood().requires_grad
    replicates = post.predictive(seed=2)
    z = (replicates - post.draws["W"] @ post.model.H.detach()) / post.model.sigma2.detach().sqrt()
    assert float((z.square().mean((0, 1, 2)) - 1).abs().max()) < 5 * math.sqrt(2 / (20 * N))


def test_arviz_gets_the_posterior_like_any_other():
    post = fitted("per column", masked=True)
    tree = post.to_datatree(log_likelihood=True, posterior_predictive=True)
    assert tree["posterior"]["W"].dims == ("chain", "draw", "row", "component")
    assert tree["posterior"]["H"].dims == ("chain", "draw", "component", "column")
    assert tree["posterior"]["sigma2"].dims == ("chain", "draw")
    observed = int(problem()[1].sum())
    assert tree["log_likelihood"]["X"].shape == tree["posterior_predictive"]["X"].shape == (1, 20, observed)
    assert np.isfinite(tree["observed_data"]["X"].values).sum() == observed
    assert str(ppnmf.summary(post)).startswith(f"pae_nmf by svi: X {N} × {D}, rank {K};")


# Files


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", OPTIONS)
def test_a_loaded_model_is_the_model_to_the_bit(kind, dtype, tmp_path):
    X, mask = problem(seed=1)
    post = fitted(kind, dtype, masked=True)
    back = ppnmf.Posterior.load(post.save(tmp_path / "fit.nc"))
    assert back.model.config() == post.model.config()
    for seen in (None, mask):
        mine, theirs = post.model.encode(X, seen), back.model.encode(X, seen)
        assert torch.equal(mine.scale, theirs.scale) and torch.equal(mine.concentration, theirs.concentration)
    assert mine.scale.dtype == theirs.scale.dtype == dtype
    assert torch.equal(post.model.sigma2, back.model.sigma2)
    assert all(torch.equal(value, back.model.state_dict()[name]) for name, value in post.model.state_dict().items())
    for latent in ("prior", "aggregated"):
        assert torch.equal(post.generate(6, latent=latent), back.generate(6, latent=latent))
    with pytest.warns(UserWarning, match="rows are poor"):
        one = post.model.log_likelihood(X, draws=40)
    with pytest.warns(UserWarning, match="rows are poor"):
        assert torch.equal(one[0], back.model.log_likelihood(X, draws=40)[0])


def test_a_model_in_the_published_setting_comes_back_too(tmp_path):
    X, _ = problem()
    post = ppnmf.fit(PAENMF.paper(2, training="median"), X, method="svi", steps=20, draws=2, progress=False)
    back = ppnmf.Posterior.load(post.save(tmp_path / "fit.nc"))
    assert back.model.config() == post.model.config()
    assert torch.equal(back.model.encode(X).scale, post.model.encode(X).scale)


# Description length


def test_the_description_length_pays_for_each_parameter_and_a_polished_guide_shortens_it():
    X = as_matrix(problem()[0])
    length = lambda model, **options: bound.run(model, X, restarts=1, steps=60, progress=False, **options)
    priced, given = length(PAENMF(K, "per column")), length(PAENMF(K, "per column"), price=False)
    assert priced.sign == given.sign == -1 and "(bits)" in priced.label
    assert given.value == pytest.approx(-given.attrs["elbo"] / math.log(2))
    assert priced.value - given.value == pytest.approx(0.5 * (D * K + D) * math.log2(N))
    assert length(PAENMF(K, 0.5)).attrs["price"] == pytest.approx(0.5 * D * K * math.log(N))
    polished = length(PAENMF(K, "per column"), polish=50)
    assert polished.value < priced.value - 1


# Calibration


class Exact(PAENMF):
    """K = 1, its guide the posterior itself, perhaps with a mistake in it."""

    mistake = "none"

    def coordinates(self, X, mask=None):
        seen = torch.ones_like(X) if mask is None else mask.to(X)
        weighted = seen * self.H[0] / self.sigma2
        rate = 0.0 if self.mistake == "prior left out" else 1.0
        return torch.stack([weighted @ self.H[0], (weighted * X).sum(1) - rate], 1)

    def posterior(self, coordinates):
        wide = {"too narrow": 1.3, "too wide": 0.7}.get(self.mistake, 1.0)
        a, b = (wide * coordinates).split(1, dim=1)
        density = RectifiedNormal(a, b)
        return SimpleNamespace(icdf=lambda u: density.survival_inverse(1 - u), log_prob=density.log_prob)


def exact(mistake):
    model = Exact(1, sigma2=0.5)
    X = np.random.default_rng(0).exponential(size=(30, 1)) * np.array([0.5, 0.2, 0.0, 0.4])
    model.load_state_dict(PAENMF(1, sigma2=0.5).initialise(as_matrix(X)).state_dict())
    model.mistake = mistake
    return model


@pytest.mark.parametrize("mask", [None, torch.tensor([True, False, True, True])])
def test_a_guide_that_is_the_posterior_is_calibrated(mask):
    found = amortised.sbc(exact("none"), 3000, seed=1, mask=mask)
    assert set(found.ranks) == {"W[0]", "log joint"} and found.draws == 99
    assert found.p_value > 1e-4
    for level in (0.5, 0.9):
        error = math.sqrt(level * (1 - level) / 3000)
        assert all(abs(share - level) < 4.5 * error for share in amortised.coverage(found, level).values())


@pytest.mark.parametrize("mistake", ["prior left out", "too narrow", "too wide"])
def test_a_planted_mistake_shows(mistake):
    found = amortised.sbc(exact(mistake), 3000, seed=1)
    assert found.p_value < 1e-9
    if mistake != "prior left out":
        assert (amortised.coverage(found)["W[0]"] < 0.9) == (mistake == "too narrow")


def test_an_encoder_that_gives_the_prior_is_calibrated_where_the_data_say_nothing():
    X, _ = problem()
    model = PAENMF(K, sigma2=1e6).initialise(as_matrix(X))
    with torch.no_grad():
        for layer, output in ((model.to_scale, 1.0), (model.to_concentration, math.log(0.5))):  # λ = 1, k = 1
            layer.weight.zero_(), layer.bias.fill_(output)
    guide = model.encode(X[:1])
    assert float(guide.concentration[0, 0]) == pytest.approx(1) and float(guide.scale[0, 0]) == pytest.approx(
        1, abs=1e-3
    )
    assert amortised.sbc(model, 2000, seed=2).p_value > 1e-4
    with torch.no_grad():
        model.to_scale.bias.fill_(1.3)
    assert amortised.sbc(model, 2000, seed=2).p_value < 1e-9


def test_a_linear_encoder_is_found_to_be_too_narrow():
    found = amortised.sbc(fitted(steps=400).model, 1000, seed=2)
    assert found.p_value < 1e-4
    shares = amortised.coverage(found)
    assert 0.4 < min(shares[f"W[{k}]"] for k in range(K)) < 0.88


def test_calibration_depends_on_the_seed_alone():
    model, before = fitted().model, torch.get_rng_state()
    one, two = (amortised.sbc(model, 20, draws=9, seed=3) for _ in range(2))
    assert all(torch.equal(one.ranks[name], two.ranks[name]) for name in one.ranks)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(0 < float(ranks.min()) and float(ranks.max()) < 1 for ranks in one.ranks.values())
    seen = np.arange(D) > 2
    same = [amortised.sbc(model, 20, draws=9, mask=mask) for mask in (seen, torch.from_numpy(np.tile(seen, (20, 1))))]
    assert all(torch.equal(same[0].ranks[name], same[1].ranks[name]) for name in one.ranks)
    with pytest.raises(ValueError, match="draws is 0"):
        amortised.sbc(model, draws=0)
    for mask in (seen[1:], seen.astype(int)):
        with pytest.raises(ValueError, match="mask .*booleans"):
            amortised.sbc(model, 20, mask=mask)
    with pytest.raises(TypeError, match="sbc needs a guide and an encoder; exponential_gaussian offers neither"):
        amortised.sbc(ppnmf.models.ExponentialGaussian(3))
