"""Variational Bayes: its bound is exact and rises, lies below the evidence, and its kernel is the plain one."""

import math

import numpy as np
import pytest
import torch
from scipy import optimize, stats
from scipy.sparse import csr_array

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.distributions import RectifiedNormal
from ppnmf.gaussian import moments
from ppnmf.inference import icm, vb
from ppnmf.inference.chain import State, log_joint
from ppnmf.kernels import cpu
from ppnmf.kernels import moments as kernel
from ppnmf.models import ExponentialGaussian, HalfNormalGaussian, TruncatedNormalGaussian
from ppnmf.protocols import Statistics
from ppnmf.rng import Stream
from tests.evidence.exact import rank_one
from tests.scenarios import drawn, uneven

X = drawn(30, 20, 3, rate=0.3, noise=0.5)[0].abs()
HIDDEN = (torch.arange(600) % 7 != 0).reshape(30, 20)
KINDS = [ExponentialGaussian, HalfNormalGaussian, TruncatedNormalGaussian]
every = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
masked = pytest.mark.parametrize("mask", [None, HIDDEN], ids=["full", "masked"])
pytestmark = pytest.mark.filterwarnings("ignore:vb:UserWarning")


def fitted(model, data=X, **options):
    return ppnmf.fit(model, data, method="vb", **({"draws": 100, "progress": False} | options))


def ascended(model, data, sweeps):
    """An approximation after some sweeps, and its bound."""
    begun = icm.begin(model, data, Stream.of(0), "scaled", [0])
    state, bound = State(model.approximated(begun.params, data), 1), None
    for _ in range(sweeps):
        state, bound = vb.step(model, state, data)
    return state.params, float(bound.elbo)


@masked
@every
def test_the_bound_is_the_mean_over_draws(kind, mask):
    """E_q[log p - log q], for an approximation that is far from the top as for one near it."""
    model, data = uneven(kind, 30, 20, 4), as_matrix(X, mask)
    for sweeps in (2, 60):
        q, elbo = ascended(model, data, sweeps)
        drawn = model.approximate_draws(q, data, 1500, Stream.of(5))
        logs = log_joint(model, data, drawn.params) - drawn.log_density
        assert abs(float(logs.mean()) - elbo) < 4 * float(logs.std()) / 1500**0.5


@every
def test_the_bound_is_exact_under_known_noise(kind):
    noise = 0.5 + torch.arange(600, dtype=torch.float64).reshape(30, 20) / 300
    for known in (noise, noise[:1], noise[:, :1]):
        model, data = uneven(kind, 30, 20, 3), as_matrix(X, noise=known)
        q, elbo = ascended(model, data, 10)
        drawn = model.approximate_draws(q, data, 1500, Stream.of(5))
        logs = log_joint(model, data, drawn.params) - drawn.log_density
        assert abs(float(logs.mean()) - elbo) < 4 * float(logs.std()) / 1500**0.5


@masked
@every
def test_no_step_lowers_the_bound(kind, mask):
    """Not a sweep, nor any of its steps: each component of W and of H, and σ², one at a time."""
    model, data = uneven(kind, 30, 20, 4), as_matrix(X, mask)
    q, _ = ascended(model, data, 3)
    story, n = model._story, data.n_observed

    def bound(q):
        square = square_at(data, q)
        noise = moments.of_noise(q, story.noise, n)
        expected = -0.5 * (n * (moments.LOG_2PI + noise.mean_log) + square / noise.typical + data.log_noise)
        return float(expected - model.divergence(q, data))

    def square_at(data, q):
        m = q["W"] @ q["H"]
        second = (q["W"].square() + q["W.variance"]) @ (q["H"].square() + q["H.variance"])
        spread = second - q["W"].square() @ q["H"].square()
        seen = torch.ones_like(X) if mask is None else mask.double()
        return (((X - m).square() + spread) * seen).sum((-2, -1))

    reached = bound(q)
    assert reached == pytest.approx(ascended(model, data, 3)[1], rel=1e-10)
    for _ in range(2):
        for site in ("W", "H"):
            for k in range(4):
                q = component_updated(story, data, q, site, k, mask)
                now = bound(q)
                assert now >= reached - 1e-9 * abs(reached), (site, k)
                reached = now
        shape = story.noise.given(n).shape
        q = {**q, "sigma2": (story.noise.scale + square_at(data, q) / 2) / shape}
        assert bound(q) >= reached - 1e-9 * abs(reached)
        reached = bound(q)


def component_updated(story, data, q, site, k, mask):
    """One component of a factor at its best, by the formulas as they are written, entry by entry."""
    at = (lambda name: q[name]) if site == "W" else (lambda name: q[name].mT)
    other = "H" if site == "W" else "W"
    G = q[other] if site == "W" else q[other].mT  # (1, K, S)
    spread = q[f"{other}.variance"] if site == "W" else q[f"{other}.variance"].mT
    values = X if site == "W" else X.mT
    seen = torch.ones_like(values) if mask is None else (mask if site == "W" else mask.mT).double()
    F, weight = at(site)[0], 1 / q["sigma2"][0]
    own = seen @ (G[0, k].square() + spread[0, k])
    left = (values - F @ G[0] + F[:, k : k + 1] * G[0, k]) * seen
    natural = [n if site == "W" else n.mT for n in story.prior(site).natural("cpu")]
    column = [n.expand(F.shape)[:, k] for n in natural]
    best = RectifiedNormal(column[0] + weight * own, column[1] + weight * (left @ G[0, k]))
    parts = {"": best.mean, ".variance": best.variance, ".precision": best.precision, ".linear": best.linear}
    changed = dict(q)
    for part, new in {**parts, ".entropy": best.entropy()}.items():
        whole = at(site + part).clone()
        whole[0, :, k] = new
        changed[site + part] = whole if site == "W" else whole.mT
    return changed


@masked
@every
def test_the_bound_rises_from_sweep_to_sweep(kind, mask):
    post = fitted(uneven(kind, 30, 20, 4), mask=mask, restarts=2, max_sweeps=150, tol=0.0)
    curve = torch.tensor(post.attrs["elbo_curve"])
    assert len(curve) == 150 and bool((curve[1:] >= curve[:-1] - 1e-10 * curve[1:].abs()).all())
    assert post.attrs["elbo"] == pytest.approx(float(curve[-1])) == max(post.attrs["restarts"])


@pytest.mark.parametrize(
    "mask", [None, torch.tensor([[1, 1], [0, 1], [1, 1]], dtype=torch.bool)], ids=["full", "masked"]
)
@every
def test_the_bound_lies_below_the_exact_evidence_at_rank_one(kind, mask):
    small = torch.tensor([[1.0, 2.5], [0.2, 0.9], [2.0, 3.2]], dtype=torch.float64)
    model = uneven(kind, 3, 2, 1, 3.0, 2.0)
    exact = rank_one(model, small, mask)
    reached = fitted(model, small, mask=mask, tol=1e-12).attrs["elbo"]
    assert exact - 3 < reached < exact


def test_where_only_the_noise_is_uncertain_the_bound_is_the_evidence():
    """With the factors all but fixed by their priors, q is the posterior: the bound meets log p(X)."""
    small, W, H = drawn(6, 4, 1, noise=0.3)
    small, W = small + 3 * H, W + 3
    model = TruncatedNormalGaussian(1, W, H, 1e-5, 1e-5, 3.0, 2.0)
    n, square = small.numel(), float((small - W @ H).square().sum())
    exact = -0.5 * n * math.log(2 * math.pi) + 3 * math.log(2) - math.lgamma(3) + math.lgamma(3 + n / 2)
    exact -= (3 + n / 2) * math.log(2 + square / 2)
    assert fitted(model, small, tol=1e-13).attrs["elbo"] == pytest.approx(exact, abs=1e-3)


def test_every_kind_of_matrix_gives_the_same():
    thin = torch.where((torch.arange(30)[:, None] + torch.arange(20)) % 3 == 0, X, 0.0)
    model, options = ExponentialGaussian(3), {"max_sweeps": 40, "tol": 0.0}
    dense, sparse = fitted(model, thin, **options), fitted(model, csr_array(thin.numpy()), **options)
    assert sparse.attrs["elbo"] == pytest.approx(dense.attrs["elbo"], rel=1e-9)
    stored = fitted(model, csr_array(thin.numpy()), missing="unstored", **options)
    hidden = fitted(model, thin, mask=thin > 0, **options)
    assert stored.attrs["elbo"] == pytest.approx(hidden.attrs["elbo"], rel=1e-9)
    single = fitted(model, thin.float(), **options)
    assert (
        single.attrs["elbo"] == pytest.approx(dense.attrs["elbo"], rel=1e-4)
        and single.draws["W"].dtype == torch.float32
    )


def test_what_is_hidden_does_not_leak():
    one, two = (
        fitted(ExponentialGaussian(3), data, mask=HIDDEN, max_sweeps=50)
        for data in (X, torch.where(HIDDEN, X, torch.nan))
    )
    assert one.attrs["elbo"] == two.attrs["elbo"] and torch.equal(one.draws["W"], two.draws["W"])


def statistics(shared, C=2, R=300, K=5):
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(C, 1 if shared else R, K, 8, dtype=torch.float64, generator=generator)
    gram = half @ half.mT
    P = 20 * torch.randn(C, R, K, dtype=torch.float64, generator=generator)
    mean = torch.rand(C, R, K, dtype=torch.float64, generator=generator)
    return mean, Statistics(P, gram[:, 0] if shared else gram)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("precision", [0.0, 0.3])
@pytest.mark.parametrize("weight", [1e-6, 1.0, 1e6])
def test_the_compiled_kernel_is_the_plain_one(shared, precision, weight):
    """From priors that rule to data that do: far into both tails."""
    mean, told = statistics(shared)
    rate = 0.2 + torch.arange(300 * 5, dtype=torch.float64).reshape(300, 5) / 100
    prior = (torch.full((1, 1), precision, dtype=torch.float64), -rate)
    weights = torch.tensor([weight, 3 * weight], dtype=torch.float64)
    assert kernel.kernels_for(mean.device) is cpu
    ours, plain = kernel.half_sweep(mean, told, prior, weights), kernel.reference(mean, told, prior, weights)
    for name, one, two in zip(kernel.Moments._fields, ours, plain, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-11 if name == "entropy" else 1e-300, msg=name)


def test_a_prior_of_each_chain_is_that_chain_s():
    mean, told = statistics(True)
    rates = torch.rand(2, 1, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    zero, weight = torch.zeros(1, 1, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    together = kernel.half_sweep(mean, told, (zero, -rates), weight)
    for c in range(2):
        own = Statistics(told.P[c : c + 1], told.Q[c : c + 1])
        alone = kernel.half_sweep(mean[c : c + 1], own, (zero, -rates[c]), weight[:1])
        assert all(torch.equal(one[c], two[0]) for one, two in zip(together, alone, strict=True))


def test_a_planted_mistake_in_the_spread_is_found(monkeypatch):
    """Without the variances in E‖X - WH‖² the bound is too high, and the mean over draws says so."""
    right = moments.refined

    def without_spread(story, X, q):
        q, _ = right(story, X, q)
        return q, moments.misfit(X, q["W"], q["H"])

    monkeypatch.setattr(moments, "refined", without_spread)
    model, data = uneven(ExponentialGaussian, 30, 20, 4), as_matrix(X)
    q, elbo = ascended(model, data, 5)
    drawn = model.approximate_draws(q, data, 1000, Stream.of(5))
    logs = log_joint(model, data, drawn.params) - drawn.log_density
    assert elbo - float(logs.mean()) > 20 * float(logs.std()) / 1000**0.5


def test_draws_are_those_of_the_approximation():
    model, data = uneven(TruncatedNormalGaussian, 30, 20, 2), as_matrix(X)
    q, _ = ascended(model, data, 20)
    drawn = model.approximate_draws(q, data, 3000, Stream.of(6))
    for site in ("W", "H"):
        z = (drawn.params[site].mean(0) - q[site][0]) / (q[f"{site}.variance"][0] / 3000).sqrt()
        assert float(z.abs().max()) < 5.5
    shape = model.noise.given(600).shape
    law = stats.invgamma(shape, scale=float(q["sigma2"]) * shape)
    assert stats.kstest(drawn.params["sigma2"].numpy(), law.cdf).pvalue > 1e-4
    log_q = law.logpdf(drawn.params["sigma2"].numpy())
    others = sum(moments.factor_of(q, site).log_prob(drawn.params[site]).sum((-2, -1)) for site in ("W", "H"))
    np.testing.assert_allclose(drawn.log_density.numpy(), others.numpy() + log_q, rtol=1e-10)


def test_the_posterior_says_what_its_draws_are():
    post = fitted(ExponentialGaussian(3), draws=500)
    assert post.kind == "approximation" and post.stats["log_q"].shape == post.stats["lp"].shape == (1, 500)
    assert post.attrs["k_hat"] > 0.7 and post.attrs["converged"]
    assert "from the fitted approximation" in (said := ppnmf.summary(post).sentence) and "too narrow" in said
    assert "needs 100" in ppnmf.summary(fitted(ExponentialGaussian(3), draws=10, max_sweeps=30)).sentence
    late = fitted(ExponentialGaussian(4), max_sweeps=3)
    assert "had not converged after 3 sweeps" in ppnmf.summary(late).sentence
    assert len(ppnmf.plots.loss(post)) == 2


def test_one_entry_s_approximation_is_the_best_of_its_family():
    """At rank 1 with σ² all but known: no other rectified normals give a greater bound, by numerical search."""
    small = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    model = HalfNormalGaussian(1, 1.0, 1.0, 3.0, 2.0)
    data = as_matrix(small)
    q, elbo = ascended(model, data, 400)

    def bound(z):
        a, b = np.exp(z[:3]), z[3:]
        law = RectifiedNormal(torch.from_numpy(a), torch.from_numpy(b))
        parts = {"": law.mean, ".variance": law.variance, ".entropy": law.entropy()}
        own = dict(q)
        for part, values in parts.items():
            own["W" + part], own["H" + part] = values[:1].reshape(1, 1, 1), values[1:].reshape(1, 1, 2)
        second = (own["W"].square() + own["W.variance"]) * (own["H"].square() + own["H.variance"])
        square = ((small - own["W"] * own["H"]).square() + second - (own["W"] * own["H"]).square()).sum()
        noise = moments.of_noise(own, model.noise, 2)
        return -float(-(moments.LOG_2PI + noise.mean_log) - 0.5 * square / noise.typical - model.divergence(own, data))

    at = [
        np.log([float(q["W.precision"]), *q["H.precision"].flatten()]),
        [float(q["W.linear"]), *q["H.linear"].flatten()],
    ]
    start = np.concatenate(at)
    assert -bound(start) == pytest.approx(elbo, rel=1e-9)
    assert -optimize.minimize(bound, start + 0.3).fun <= elbo + 1e-6


def test_a_run_resumes_to_the_same_bits(tmp_path, monkeypatch):
    model, options = ExponentialGaussian(3), {"restarts": 2, "max_sweeps": 40, "tol": 0.0}
    whole, several, calls = fitted(model, **options), vb._several, []

    def interrupted(*arguments):
        calls.append(0)
        if len(calls) == 25:
            raise KeyboardInterrupt
        return several(*arguments)

    monkeypatch.setattr(vb, "_several", interrupted)
    assert fitted(model, checkpoint=tmp_path / "run", every=5, **options).attrs["interrupted"]
    monkeypatch.undo()
    again = fitted(model, checkpoint=tmp_path / "run", resume=tmp_path / "run", **options)
    assert torch.equal(again.draws["W"], whole.draws["W"]) and again.attrs["elbo_curve"] == whole.attrs["elbo_curve"]


def test_the_training_error_on_gdsc_is_the_published_one(real_data, monkeypatch):
    """Rank 20, rates 0.1, noise (1, 1), 200 sweeps from the prior; published 475.6, without a step that balances scales."""
    R = real_data("drug_sensitivity/gdsc_ic50.npz")["R"]
    R = R[(~np.isnan(R)).sum(1) >= 3]
    data, model = as_matrix(R, missing="nan"), ExponentialGaussian(20, 0.1, 0.1)
    plan = vb.Plan(1, 0.0, 200, 0, "prior", None, None, None, False)
    ours = vb.ascended(model, data, plan)
    monkeypatch.setattr(moments, "_balanced", lambda story, q: q)
    as_published = vb.ascended(model, data, plan)
    error = lambda ends: float(moments.misfit(data, ends.params["W"], ends.params["H"])) / data.n_observed
    assert abs(error(as_published) - 475.6) < 6
    assert 455 < error(ours) < error(as_published) and float(ours.lp) > float(as_published.lp)


def test_the_criterion_elbo_takes_gaussian_models():
    found = ppnmf.select_rank(
        "exponential_gaussian",
        drawn(20, 15, 2, rate=0.3, noise=0.2, seed=3)[0].abs(),
        [1, 2, 3],
        method="elbo",
        restarts=2,
        progress=False,
    )
    assert found.best == 2
    best = found.scores["elbo"][2]
    assert best.value == pytest.approx(-best.attrs["elbo"] / math.log(2))


@pytest.mark.slow
def test_the_bound_chooses_the_true_rank_of_the_published_toy(real_data):
    toy = real_data("toy/bnmtf_toy.npz")
    found = ppnmf.select_rank(
        ExponentialGaussian(1, 0.1, 0.1),
        toy["R"],
        range(8, 13),
        method="elbo",
        mask=toy["M"].astype(bool),
        progress=False,
    )
    assert found.best == 10
