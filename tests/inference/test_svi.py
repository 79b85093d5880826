"""Training PAE-NMF: both objectives, mini-batches, stopping, and draws that depend on the seed alone."""

import math
import random

import numpy as np
import pytest
import torch
from scipy import optimize, special, stats

from ppnmf.data.matrix import as_matrix
from ppnmf.inference import svi
from ppnmf.inference.svi import blocks, polish, training
from ppnmf.inference.svi.gradient import Problem, gradient, uniforms_behind
from ppnmf.models.elbo import analytic_elbo
from ppnmf.models.pae_nmf import PAENMF
from ppnmf.posterior import Posterior
from ppnmf.protocols import Recipe
from ppnmf.rng import Stream, generator

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


def test_the_sampled_gradient_has_the_analytic_one_as_its_mean():
    X = as_matrix(problem()[:12])
    model = fitted(X.values, steps=20).model
    analytic, sampled = (Problem.of(model, X, Recipe(name), generator(0)) for name in ("analytic", "sampled"))
    exact = torch.cat([part.flatten() for part in gradient(analytic, None, 1.0)])
    many = torch.stack([torch.cat([part.flatten() for part in gradient(sampled, None, 1.0)]) for _ in range(1500)])
    error = many.std(0) / math.sqrt(len(many))
    assert float(error[0] / exact[0].abs()) < 0.05
    z = (many.mean(0) - exact) / error.clamp(min=1e-9)
    assert float(z.abs().max()) < 5.2  # some 100 numbers: one false alarm in ten thousand


def test_mini_batches_have_the_right_expectation():
    model = fitted(steps=20).model
    X = as_matrix(problem())
    told = Problem.of(model, X, model.recipe, generator(0))
    whole, parts = (
        gradient(told, None, 1.0),
        [gradient(told, rows, 1.0) for rows in torch.arange(60).split(15)],
    )
    for mean, one in zip(zip(*parts, strict=True), whole, strict=True):
        assert torch.allclose(torch.stack(mean).mean(0), one, rtol=1e-9, atol=1e-9)
    assert float(whole[0]) == pytest.approx(svi.elbo(model, X), rel=1e-12)
    epoch = training.batches(range(61), 5, Stream.of(0), "cpu")
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


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"objective": "sampled"},
        {"batch_size": 16},
        {"batch_size": 37, "polish": 15},
        {"model": PAENMF.paper(K, released=True)},
    ],
)
def test_the_same_seed_gives_the_same_draws_for_any_threads_and_leaves_the_global_state(options, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", 12 * 7)  # several blocks ...
    monkeypatch.setattr("ppnmf.threads.WORTH_A_THREAD", 0)  # ... each worth a thread
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


def test_callers_without_gradients_get_the_same_fit():
    with torch.no_grad():
        inside = fitted(steps=20, polish=10)
        assert not torch.is_grad_enabled()
    assert inside.attrs["elbo_curve"] == fitted(steps=20, polish=10).attrs["elbo_curve"]


def test_data_that_are_explained_exactly_are_fitted_as_well_as_by_a_known_small_noise():
    X = np.random.default_rng(0).exponential(size=(30, 1))
    learned, known = (fitted(X, PAENMF(1, sigma2=sigma2), steps=2000) for sigma2 in (None, 0.02))
    assert learned.attrs["elbo"] > known.attrs["elbo"] - 1


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
        return gradient(*arguments)

    monkeypatch.setattr(training, "gradient", interrupted)
    post = fitted()
    assert post.attrs["interrupted"]
    assert post.attrs["steps"] == len(post.attrs["elbo_curve"]) == at
    assert post.draws["W"].shape == (1, 20, 60, K)
    assert (post.draws["H"] >= 0).all()


@pytest.mark.parametrize("objective", ["analytic", "sampled"])
@pytest.mark.parametrize("rows", [None, torch.arange(0, 60, 2)])
def test_blocks_of_rows_add_up_to_the_whole(objective, rows, monkeypatch):
    X, model = as_matrix(problem()), fitted(steps=5).model
    whole = gradient(Problem.of(model, X, Recipe(objective), generator(0)), rows, 1.0)
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", 12 * 7)
    parts = gradient(Problem.of(model, X, Recipe(objective), generator(0)), rows, 1.0)
    assert len(blocks.blocks_of(60, X)) == 9
    for one, other in zip(whole, parts, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-10 * float(one.abs().max()))


# Noise of each column


@pytest.mark.parametrize("masked", [False, True])
def test_noise_per_column_is_learned_and_enters_lp(masked):
    generator = np.random.default_rng(4)
    N, D = 400, 16
    deviation = np.where(np.arange(D) % 2, 0.1, 0.5)
    noise = deviation * generator.normal(size=(N, D))
    X = np.abs(generator.exponential(size=(N, K)) @ generator.exponential(size=(K, D)) + noise)
    mask = generator.random((N, D)) > 0.1 if masked else None
    post = fitted(X, PAENMF(K, sigma2="per column"), mask=mask, steps=600, draws=3)
    equal = fitted(X, PAENMF(K), mask=mask, steps=600, draws=3)
    assert post.attrs["elbo"] > equal.attrs["elbo"] + 100
    found = post.model.sigma2.detach().sqrt().numpy()
    assert found.shape == (D,)
    if not masked:  # where entries are missing, a linear encoder's misses count as noise
        assert np.median(np.abs(np.log(found / deviation))) < 0.2
    assert torch.allclose(post.draws["sigma2"], post.model.sigma2.detach().mean())
    for s in range(3):
        W, H = post.draws["W"][0, s], post.model.H.detach()
        entries = torch.distributions.Normal(W @ H, post.model.sigma2.detach().sqrt()).log_prob(post.X.values)
        exact = (entries if mask is None else entries[post.X.mask]).sum() - W.sum()
        assert float(post.stats["lp"][0, s]) == pytest.approx(float(exact), rel=1e-10)


# The polish


def test_the_polish_finds_each_rows_best_weibulls(tmp_path):
    X = problem()[:25]
    plain, post = (fitted(X, PAENMF(K, sigma2=0.04), steps=150, draws=400, polish=polish) for polish in (0, 400))
    gap = post.attrs["amortisation_gap"]
    assert gap > 0.1
    assert post.attrs["elbo"] == pytest.approx(plain.attrs["elbo"] + gap, rel=1e-9)
    assert all(torch.equal(a, b) for a, b in zip(plain.model.parameters(), post.model.parameters(), strict=True))
    assert "amortisation_gap" not in plain.attrs
    model, best = post.model, 0.0
    H, sigma2 = model.H.detach(), model.sigma2.detach()

    def bound(free, row):  # of one row, by the encoding's own link
        raw = torch.from_numpy(free.reshape(2, 1, K)).requires_grad_()
        value = -analytic_elbo(row, model.encoding.guide(*raw), H, sigma2).value
        return float(value.detach()), torch.autograd.grad(value, raw)[0].numpy().ravel()

    for row in post.X.values:
        first = torch.cat(model.outputs(model.coordinates(row[None]))).detach().numpy().ravel()
        best -= optimize.minimize(bound, first, (row[None],), jac=True, method="L-BFGS-B").fun
    assert post.attrs["elbo"] == pytest.approx(best, abs=0.05 * gap)
    guide = model.encoding.guide(*polish.final_guide(model, post.X, 400, False).outputs)
    uniform = torch.distributions.Weibull(guide.scale, guide.concentration).cdf(post.draws["W"][0])
    p_values = [stats.kstest(uniform[:, i, k].numpy(), "uniform").pvalue for i in range(5) for k in range(K)]
    assert min(p_values) * len(p_values) > 1e-4
    again = Posterior.load(post.save(tmp_path / "fit.nc"))
    assert again.attrs == post.attrs and torch.equal(again.draws["W"], post.draws["W"])


def test_the_polish_of_masked_rows_never_lowers_the_bound_and_ends_by_ctrl_c(monkeypatch):
    X, mask = problem(), np.random.default_rng(2).random((60, 12)) > 0.2
    post = fitted(np.where(mask, X, np.nan), mask=mask, steps=100, polish=100)
    assert post.attrs["amortisation_gap"] >= 0
    after = polish.Free.after
    calls = iter(range(100))

    def interrupted(*arguments, **options):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return after(*arguments, **options)

    monkeypatch.setattr(polish.Free, "after", interrupted)
    cut = fitted(np.where(mask, X, np.nan), mask=mask, steps=100, polish=100)
    assert cut.attrs["interrupted"] and 0 < cut.attrs["amortisation_gap"] < post.attrs["amortisation_gap"]


# The published setting


def transcribed(X, H, scale, concentration, epsilon, divergence):
    """The paper's objective in its letters' order: v is a row of X here, W_f is Hᵀ."""
    k, l = np.maximum(X @ concentration.T, 1e-3), np.maximum(X @ scale.T, 1e-3)
    h = l * (-np.log(epsilon)) ** (1 / k)
    kl = np.log(k / l**k) + (k - 1) * (np.log(l) - np.euler_gamma / k) + l * special.gamma(1 + 1 / k) - 1
    return ((X - h @ H) ** 2).sum() + divergence * kl.sum()


@pytest.mark.parametrize("training", ["random", "median"])
@pytest.mark.parametrize("divergence", [True, False])
def test_the_published_training_is_the_papers_formulas(training, divergence, monkeypatch):
    X, generator, rate, steps = problem(N=7, D=5), np.random.default_rng(1), 0.02, 4
    X = X / X.max()
    drawn = {"random": generator.uniform(size=(7, 2)), "median": np.full((7, 2), 0.5)}[training]
    if training == "random":
        monkeypatch.setattr("ppnmf.inference.svi.gradient.uniforms_behind", lambda *_: torch.from_numpy(drawn))
    model = PAENMF.paper(2, training, divergence)
    first = PAENMF.paper(2).initialise(as_matrix(X))
    own = [part.detach().numpy().copy() for part in first.parameters()]  # H, weights of λ, weights of k
    losses = []
    for step in range(steps):
        losses.append(transcribed(X, *own, drawn, divergence))
        slopes = []
        for part in own:
            slope = np.empty_like(part)
            for at in np.ndindex(part.shape):
                there, values = part[at], []
                for sign in (1, -1):
                    part[at] = there + sign * 1e-6
                    values.append(transcribed(X, *own, drawn, divergence))
                part[at], slope[at] = there, (values[0] - values[1]) / 2e-6
            slopes.append(slope)
        for part, slope in zip(own, slopes, strict=True):
            part -= rate * 0.5 * (1 + np.cos(np.pi * step / steps)) * slope / np.linalg.norm(slope)
        np.maximum(own[0], 0, out=own[0])
    post = fitted(X, model, steps=steps, learning_rate=rate)
    constant = 0.5 * X.size * np.log(np.pi)
    assert np.allclose(-np.array(post.attrs["elbo_curve"]) - constant, losses, rtol=1e-6)
    for ours, theirs in zip(post.model.parameters(), own, strict=True):
        assert np.allclose(ours.detach().numpy(), theirs, rtol=1e-5, atol=1e-7)


def test_published_uniforms_are_whole_released_or_the_median():
    X = as_matrix(np.ones((2000, 1)))
    for model, low, high in (
        (PAENMF.paper(2), 0.0, 1.0),
        (PAENMF.paper(2, released=True), 0.35, 0.65),
        (PAENMF.paper(2, "median"), 0.5, 0.5),
        (PAENMF.paper(2, "median", released=True), 0.5, 0.5),
    ):
        u = uniforms_behind(model.recipe, (2000, 2), X, generator(0))
        assert low <= float(u.min()) <= low + 0.01 and high - 0.01 <= float(u.max()) <= high
    assert uniforms_behind(PAENMF(2).recipe, (2000, 2), X, generator(0)) is None


def test_the_objective_asked_for_overrides_the_released_one():
    posts = {asked: fitted(model=PAENMF.paper(K, released=True), objective=asked, steps=20) for asked in svi.OBJECTIVES}
    plain = {asked: fitted(model=PAENMF.paper(K), objective=asked, steps=20) for asked in svi.OBJECTIVES}
    for asked in ("analytic", "median"):
        assert posts[asked].attrs["elbo_curve"] == plain[asked].attrs["elbo_curve"]
    assert posts["sampled"].attrs["elbo_curve"] != plain["sampled"].attrs["elbo_curve"]  # ε from [0.35, 0.65]


def test_a_step_that_is_not_finite_is_left_out():
    good, bad = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    good.grad, bad.grad = torch.tensor([3.0, -4.0]), torch.tensor([1.0, torch.inf])
    training.Normalised([good, bad], lr=0.5).step()
    assert torch.allclose(good, torch.tensor([0.7, 1.4])) and torch.equal(bad, torch.ones(2))


def test_without_the_divergence_guides_shrink_to_points_and_with_it_random_training_narrows_them():
    X = problem(N=100)
    X /= X.max(1, keepdims=True)
    k = {
        (training, divergence): float(
            fitted(X, PAENMF.paper(K, training, divergence), steps=600, learning_rate=0.02)
            .model.encode(X)
            .concentration.median()
        )
        for training in ("random", "median")
        for divergence in (True, False)
    }
    assert k["random", False] > 3 * k["random", True] and k["random", True] > 1.1 * k["median", True]
    ours = [fitted(X, divergence=divergence).model.encode(X).concentration.median() for divergence in (True, False)]
    assert ours[1] > 2 * ours[0]


# Against ordinary NMF, and the floor below it


@pytest.mark.parametrize("data,rank", [("drawn", K), ("genes", 4), ("prices", 5)])
def test_without_the_divergence_the_error_lies_between_the_floor_and_a_quarter_above_ordinary_nmf(
    data, rank, real_data
):
    from sklearn.decomposition import NMF

    X = problem(N=300) if data == "drawn" else scaled(data, real_data)
    post = fitted(X, PAENMF(rank, sigma2=0.5), steps=300, draws=2, divergence=False)
    mean = post.model.decode(post.model.encode(X).mean)
    error = float((torch.from_numpy(X) - mean).square().sum())
    floor = float(np.square(np.linalg.svd(X, compute_uv=False)[rank:]).sum())
    nmf = NMF(rank, init="nndsvda", max_iter=1000, tol=1e-3).fit(X).reconstruction_err_ ** 2
    assert floor < error < 1.25 * nmf


def scaled(name, real_data):
    """As the authors scale them: each row by its greatest value."""
    path = {"genes": "leukemia/all_aml.npz", "prices": "finance/ftse_prices.npz"}[name]
    V = real_data(path)["V"].T.astype(float)
    return V / V.max(1, keepdims=True)


@pytest.mark.slow
@pytest.mark.parametrize("name,rank,target,polished", [("genes", 4, 190.3, 190.22), ("prices", 5, 1075, 1052)])
def test_the_papers_objective_comes_below_the_target(name, rank, target, polished, real_data):
    X = scaled(name, real_data)
    post = fitted(X, PAENMF(rank, sigma2=0.5), steps=2000, polish=200)
    reached = -post.attrs["elbo"] - 0.5 * X.size * math.log(math.pi)
    assert reached <= polished and reached + post.attrs["amortisation_gap"] <= target


@pytest.mark.parametrize("fits", [24, pytest.param(1000, marks=pytest.mark.slow)])
def test_random_data_of_random_scales_train_without_nan(fits):
    generator = np.random.default_rng(8)
    for fit in range(fits):
        N, D, rank = generator.integers(1, 9, size=3)
        X = 10.0 ** generator.uniform(-6, 6) * generator.exponential(size=(N, D)) * (generator.random((N, D)) < 0.8)
        X[0, 0] += 1e-7
        kind = (np.float32, np.float64)[fit % 2]
        model = PAENMF(int(rank), sigma2=(None, "per column", 0.5)[fit % 3], encoder=("linear", (4,))[fit // 2 % 2])
        post = fitted(X.astype(kind), model, steps=10, draws=2, seed=fit, learning_rate=0.1, polish=2)
        assert math.isfinite(post.attrs["elbo"]), fit
        assert all(values.isfinite().all() for values in (*post.draws.values(), *post.stats.values())), fit


def test_bad_options_get_their_sentence():
    for options, words in (
        ({"steps": -1}, "steps is -1"),
        ({"draws": 0}, "draws is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"objective": "exact"}, "'analytic', 'sampled', 'median'"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"polish": -1}, "polish is -1"),
        ({"tol": -1.0}, "tol is -1.0"),
        ({"tol": "a"}, "tol is 'a'"),
        ({"learning_rate": "a"}, "learning_rate is 'a'"),
        ({"divergence": "no"}, "divergence is 'no'"),
        ({"polish": 1, "divergence": False}, "polish raises the ELBO, and this training does not"),
        ({"polish": 1, "objective": "median"}, "leave polish out"),
        ({"polish": 1, "model": PAENMF.paper(K, "median")}, "leave polish out"),
    ):
        with pytest.raises(ValueError, match=words):
            fitted(**options)
    with pytest.raises(TypeError, match="guide with an encoder"):
        fitted(model=object())
    with pytest.raises(ValueError, match="5 columns"):
        fitted(problem(D=5), fitted(steps=1).model)


def test_posterior_generates_through_the_model():
    post = fitted()
    assert post.generate(7, seed=3).shape == (7, 12)
    assert torch.equal(post.generate(7, seed=3), post.model.generate(7, seed=3))
