"""Chib's estimate against exact values, and against what would break it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special
from scipy.stats import t as student

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.distributions import RectifiedNormal
from ppnmf.evidence import Evidence, chib, orders
from ppnmf.evidence.chib import bridge, runs, stages
from ppnmf.evidence.estimate import describe
from ppnmf.gaussian import blocks
from ppnmf.models import PAENMF, ExponentialGaussian, HalfNormalGaussian, TruncatedNormalGaussian
from ppnmf.rng import Stream
from tests.evidence.exact import annealed, over_the_prior, rank_one
from tests.scenarios import drawn, per_entry_model, uneven

RANK_ONE = ExponentialGaussian(1, rate_W=0.8, rate_H=1.3, noise_shape=2.0, noise_scale=1.5)
RANK_TWO = ExponentialGaussian(2, noise_shape=3.0, noise_scale=3.0)
# log p of `apart()`, by annealed(model, X, particles=500, steps=4000, seed=5): two minutes
LOG_EVIDENCE_APART, ERROR_APART = -112.668, 0.097
pytestmark = pytest.mark.filterwarnings("ignore:X has .* negative entries")
quiet = pytest.mark.filterwarnings("ignore:log_evidence by")  # short runs need not agree to 1.01


def estimate(model, X, **options):
    return ppnmf.log_evidence(
        model, X, **({"method": "chib", "draws": 300, "thin": 1, "warmup": 200, "progress": False} | options)
    )


def given_all_else(at, component):
    """The density of a component given all else, the length of its column too: Chib's ordinate as printed."""
    precision, linear = component.precision + component.data_precision, component.linear + component.data_linear
    return RectifiedNormal(precision, linear, validate_args=False).log_prob(at[:, None]).sum(-1)


def as_explored(problem, state, point, k, burn):
    """The mean of the draws of the posterior stays θ*."""
    return state, point, burn


def apart(rate_W=1.0):
    """Two components so far apart that chains keep their order."""
    X, _, _ = drawn(20, 5, 2, seed=8, noise=0.05)
    return ExponentialGaussian(2, rate_W=rate_W, noise_shape=3.0, noise_scale=0.15), X


def assert_near(evidence, exact, error=0.0, least=0.05):
    assert abs(evidence.log_evidence - exact) < max(4 * math.hypot(evidence.mcse, error), least)


@quiet
@pytest.mark.parametrize("N", [3, 10, 50])
@pytest.mark.parametrize("D", [2, 3])
def test_chib_matches_quadrature_at_rank_one(N, D):
    X, _, _ = drawn(N, D, 1, seed=N + D)
    evidence = estimate(RANK_ONE, X)
    assert abs(evidence.log_evidence - rank_one(RANK_ONE, X)) < max(3 * evidence.mcse, 0.05)


@quiet
@pytest.mark.parametrize("kind", [HalfNormalGaussian, TruncatedNormalGaussian])
@pytest.mark.parametrize(("N", "D"), [(3, 2), (10, 3), (50, 2)])
def test_chib_matches_quadrature_under_other_priors(kind, N, D):
    X, _, _ = drawn(N, D, 1, seed=N + D)
    model = uneven(kind, N, D, 1, noise_shape=2.0, noise_scale=1.5)
    evidence = estimate(model, X)
    assert abs(evidence.log_evidence - rank_one(model, X)) < max(3 * evidence.mcse, 0.05)


@quiet
def test_chib_matches_quadrature_when_rows_are_fewer_than_columns():
    X, _, _ = drawn(10, 3, 1, seed=13)
    turned = ExponentialGaussian(1, rate_W=1.3, rate_H=0.8, noise_shape=2.0, noise_scale=1.5)
    assert_near(estimate(turned, X.T.contiguous()), rank_one(RANK_ONE, X))


@quiet
def test_chib_matches_quadrature_under_a_mask_and_reads_nothing_beneath_it():
    X, _, _ = drawn(12, 3, 1, seed=3)
    mask = torch.rand(X.shape, generator=torch.Generator().manual_seed(1)) > 0.25
    evidence = estimate(RANK_ONE, torch.where(mask, X, torch.nan), mask=mask)
    assert_near(evidence, rank_one(RANK_ONE, X, mask))


@quiet
def test_chib_matches_quadrature_with_a_rate_for_each_entry():
    X, _, _ = drawn(8, 3, 1, seed=4)
    model = per_entry_model(8, 3, 1)
    assert_near(estimate(model, X), rank_one(model, X))


@quiet
def test_the_bracket_holds_the_evidence_and_the_bridge_lies_inside_it():
    """At rank 1, where there are no labels: the reverse end errs to low evidence, the forward one to high."""
    X, _, _ = drawn(10, 3, 1, seed=13)
    evidence, exact = estimate(RANK_ONE, X, draws=200, replicates=40), rank_one(RANK_ONE, X)
    slack = 4 * evidence.mcse
    assert evidence.attrs["reverse"] - slack < exact < evidence.attrs["forward"] + slack
    assert_near(evidence, exact)


@quiet
def test_chib_agrees_with_smc_where_components_are_superfluous():
    X, _, _ = drawn(15, 12, 1, seed=3)
    model = ExponentialGaussian(3)
    by_smc = ppnmf.log_evidence(model, X, method="smc", particles=300, replicates=4, progress=False)
    by_chib = estimate(model, X, draws=400)
    error = math.hypot(by_chib.mcse, by_smc.mcse)
    assert error < 0.2 and abs(by_chib.log_evidence - by_smc.log_evidence) < 5 * error


@quiet
def test_chib_agrees_with_smc_where_every_entry_has_a_rate_of_its_own():
    """No two components are exchangeable, and both orders have mass: a chain that stayed in one would be a nat too low."""
    generator = np.random.default_rng(1)
    X = generator.exponential(size=(8, 2)) @ generator.exponential(size=(2, 5)) + 0.3 * generator.normal(size=(8, 5))
    rates = (torch.tensor(0.3 + 2 * generator.random(shape)) for shape in ((8, 2), (2, 5)))
    model = ExponentialGaussian(2, *rates, noise_shape=2.0)
    by_smc = ppnmf.log_evidence(model, X, method="smc", particles=300, replicates=4, progress=False)
    by_chib = estimate(model, X, draws=500, thin=2, warmup=400)
    error = math.hypot(by_chib.mcse, by_smc.mcse)
    assert error < 0.2 and abs(by_chib.log_evidence - by_smc.log_evidence) < 5 * error


def test_the_bridge_solves_its_equation_on_a_case_in_closed_form():
    """A ~ Normal(0, 1), r = exp(m x - m²/2) p*, hence B ~ Normal(m, 1): every estimate aims at p*."""
    generator, log_p, m = torch.Generator().manual_seed(4), -3.0, 2.5
    a, b = torch.randn(2, 200, 400, generator=generator, dtype=torch.float64)
    stage = bridge.Stage(m * a - m * m / 2 + log_p, m * (b + m) - m * m / 2 + log_p)
    errors = {name: getattr(stage, name) - log_p for name in ("forward", "reverse", "bridge")}
    assert abs(float(errors["bridge"].mean())) < 0.02
    assert float(errors["bridge"].square().mean()) < 0.3 * float(errors["forward"].square().mean())
    assert float(errors["forward"].mean()) < -0.05 and float(errors["reverse"].mean()) > 0.05


def test_quadrature_does_not_depend_on_its_grid():
    X, _, _ = drawn(10, 2, 1, seed=12)
    coarse, fine = rank_one(RANK_ONE, X), rank_one(RANK_ONE, X, step=0.4, fall=24.0)
    assert abs(coarse - fine) < 0.002


@quiet
@pytest.mark.parametrize("turned", [False, True])
def test_chib_matches_plain_monte_carlo_where_labels_switch(turned):
    X, _, _ = drawn(3, 2, 2, seed=7)
    exact, error = over_the_prior(RANK_TWO, X, draws=1_000_000)
    assert_near(estimate(RANK_TWO, X.T.contiguous() if turned else X), exact, error)


@quiet
def test_chib_matches_plain_monte_carlo_where_components_have_rates_of_their_own():
    X, _, _ = drawn(3, 2, 2, seed=9)
    model = ExponentialGaussian(2, torch.tensor([0.4, 2.0]), torch.tensor([1.0, 0.7]), noise_shape=3.0, noise_scale=3.0)
    exact, error = over_the_prior(model, X, draws=1_000_000)
    assert_near(estimate(model, X), exact, error)


@quiet
def test_chib_is_right_where_chains_keep_their_labels():
    model, X = apart()
    evidence = estimate(model, X, draws=1200)
    assert_near(evidence, LOG_EVIDENCE_APART, ERROR_APART)
    assert 4 * math.hypot(evidence.mcse, ERROR_APART) < math.log(2)  # so that a lost label would show


@quiet
def test_without_averaging_over_labels_a_chain_that_keeps_them_is_low_by_log_factorial(monkeypatch):
    """Rates that differ by nothing that matters are rates of their own: no averaging, so the labels do not count. The
    chain itself must then exchange them."""
    model, X = apart()
    almost, _ = apart(torch.tensor([1.0, 1.0 + 1e-9], dtype=torch.float64))
    assert_near(estimate(almost, X, draws=1200), LOG_EVIDENCE_APART, ERROR_APART)
    monkeypatch.setattr(runs, "exchanged", lambda problem, state, held: state)
    monkeypatch.setattr(stages, "anew", as_explored)
    monkeypatch.setattr(runs, "strongest_first", lambda params, classes: dict(params))  # it would tell the two apart
    plain = {"draws": 50, "bridge": False}
    lost = estimate(model, X, **plain).log_evidence - estimate(almost, X, **plain).log_evidence
    assert lost == pytest.approx(math.log(2), abs=0.02)  # their next stages begin at draws of their own


@quiet
@pytest.mark.parametrize("how", ["once a stage", "at random"])
def test_chib_does_not_depend_on_the_labels_the_chain_has(monkeypatch, how):
    """Free components made to exchange labels: without averaging, one exchange a stage costs tens of nats."""
    model, X = apart()
    generator, stages = torch.Generator().manual_seed(0), set()

    def order(first):
        free = torch.arange(first, model.rank)
        if how == "at random":
            free = free[torch.randperm(len(free), generator=generator)]
        elif first not in stages:
            free = free.flip(0)
            stages.add(first)
        return torch.cat([torch.arange(first), free])

    exchange_labels(monkeypatch, order)
    assert_near(estimate(model, X), LOG_EVIDENCE_APART, ERROR_APART)


def exchange_labels(monkeypatch, order):
    """After each sweep put the components in order(first), those before `first` being held."""
    straight = runs.gibbs.several

    def switching(model, state, X, stream, asked):
        (params, sweep), own, lp = straight(model, state, X, stream, asked)
        by = order(max(asked.held.W, asked.held.H))
        own = {**own, "W": own["W"][..., by], "H": own["H"][..., by, :]}
        return runs.State({**params, "W": params["W"][..., by], "H": params["H"][:, by]}, sweep), own, lp

    monkeypatch.setattr(runs.gibbs, "several", switching)
    monkeypatch.setattr(runs.gibbs, "sweeps_at_once", lambda *shape: 1)


@quiet
def test_a_rescaled_point_is_far_off_unless_the_scale_is_integrated_out(monkeypatch):
    """Where the components' scale is far from one, rows of H* that sum to one are nowhere near the posterior: their
    density given each draw of W is nothing, and given the direction of W's column alone it is what it must be."""
    X, _, _ = drawn(10, 3, 1, rate=0.05, seed=2)
    model = ExponentialGaussian(1, rate_W=0.05, rate_H=0.05)
    exact = rank_one(model, X)
    assert_near(estimate(model, X), exact)

    def rescaled(problem, *given, explore=chib.explore):
        explored = explore(problem, *given)
        size = explored.point["H"].sum(-1)
        W, H = explored.point["W"] * size[:, None, :], explored.point["H"] / size[..., None]
        return explored._replace(point=explored.point | {"W": W, "H": H})

    monkeypatch.setattr(stages, "anew", as_explored)
    monkeypatch.setattr(chib, "explore", rescaled)
    assert_near(estimate(model, X), exact)
    monkeypatch.setattr(blocks, "log_density", given_all_else)
    assert abs(estimate(model, X).log_evidence - exact) > 100


@quiet
def test_a_point_taken_anew_in_each_stage_narrows_the_bracket_of_a_superfluous_component(monkeypatch):
    X, _, _ = drawn(30, 15, 2, seed=4, noise=0.05)
    options = {"draws": 200, "thin": 2, "warmup": 400, "replicates": 4}
    now = estimate(ExponentialGaussian(4), X, **options)
    monkeypatch.setattr(stages, "anew", as_explored)
    before = estimate(ExponentialGaussian(4), X, **options)
    assert now.gap < 0.9 * before.gap, (now.gap, before.gap)
    assert abs(now.log_evidence - before.log_evidence) < 4 * math.hypot(now.mcse, before.mcse) + 1


def test_ordinate_of_the_rows_is_the_product_of_each_rows_own():
    """Rows given H and σ² are truncated normals: two components that overlap, and one that is orthogonal to both."""
    X, W, H = drawn(6, 5, 2, seed=8, noise=0.05)
    H = torch.cat([H * torch.tensor([1.0, 1, 1, 1, 0]), torch.tensor([[0.0, 0, 0, 0, 1.5]])])
    W = torch.cat([W, X[:, 4:].clamp(min=0.1)], 1) + 0.1
    sigma2 = torch.tensor(0.5, dtype=torch.float64)
    point = {"W": W.expand(4, -1, -1), "H": H.expand(4, -1, -1), "sigma2": sigma2.expand(4)}
    problem = runs.Problem(ExponentialGaussian(3), as_matrix(X), Stream.of(0, replicates=4), lambda n: None)
    got = stages.long_ordinate(problem, runs.State(point, 1), point, burn=100, draws=2000)
    Q, P = (H @ H.T / sigma2).numpy(), (X @ H.T / sigma2 - 1).numpy()

    def log_single(a, b):
        return 0.5 * math.log(2 * math.pi / a) + 0.5 * b * b / a + special.log_ndtr(b / a**0.5)

    def log_ordinate(w, p):
        at = np.maximum(np.linalg.solve(Q, p), 0)
        at[2] = 0  # the third is apart

        def height(v):
            return p @ v - 0.5 * v @ Q @ v

        def second_integrated(first):
            log_second = log_single(Q[1, 1], p[1] - Q[0, 1] * first)
            return math.exp(p[0] * first - 0.5 * Q[0, 0] * first**2 + log_second - height(at))

        mass = integrate.quad(second_integrated, 0, 30, points=[float(at[0])], epsabs=0, epsrel=1e-9, limit=500)[0]
        return height(w) - height(at) - math.log(mass) - log_single(Q[2, 2], p[2])

    exact = sum(log_ordinate(w, p) for w, p in zip(W.numpy(), P, strict=True))
    assert abs(float(got.mean()) - exact) < 5 * float(got.std()) / 2 + 0.01
    assert float(got.std()) < 0.2  # the mean over draws of a product over rows would scatter far more


def test_the_point_is_the_mean_of_draws_in_one_order(monkeypatch):
    """A chain made to exchange its labels at random: the mean of its raw draws would explain nothing of X."""
    model, X = apart()
    generator = torch.Generator().manual_seed(0)
    exchange_labels(monkeypatch, lambda first: torch.randperm(2, generator=generator))
    problem = runs.Problem(model, as_matrix(X), Stream.of(0, replicates=2), lambda n: None)
    point = runs.explore(problem, warmup=60, draws=60).point
    residual = X - point["W"] @ point["H"]
    assert float(residual.square().mean()) < 0.2 and float((X - X.mean(0)).square().mean()) > 1


def test_the_picked_component_takes_the_pinned_place_and_the_others_the_most_alike():
    X, W, H = drawn(20, 5, 3, seed=8)
    problem = runs.Problem(ExponentialGaussian(3), as_matrix(X), Stream.of(0), lambda n: None)
    point = {"W": W[None], "H": H[None], "sigma2": torch.ones(1)}
    shuffled = {"W": W[None][..., [2, 1, 0]], "H": 1.1 * H[None][:, [2, 1, 0]], "sigma2": torch.ones(1)}
    likely = stages.Likely(torch.zeros(1), shuffled, torch.tensor([2]))
    params = stages.pinned(problem, likely, point, 0, problem.classes)
    assert torch.equal(params["W"], point["W"]) and torch.equal(params["H"][:, 0], point["H"][:, 0])
    assert torch.equal(params["H"][:, 1:], 1.1 * point["H"][:, 1:])


def test_draws_are_picked_in_proportion_to_their_density_whatever_lots_they_come_in():
    chains, weights = 20_000, torch.tensor([[0.1, 0.4], [0.0, 0.3], [0.2, 0.0]], dtype=torch.float64)  # (draws, labels)
    problem = runs.Problem(ExponentialGaussian(2), as_matrix(torch.ones(3, 2)), Stream.of(0, chains), lambda n: None)
    logs = weights.log().expand(chains, -1, -1)
    kept = {"sigma2": torch.arange(3.0).expand(chains, -1)}
    whole = stages.picked(problem, None, logs, kept, [0, 1], 1)
    first = stages.picked(problem, None, logs[:, :1], {"sigma2": kept["sigma2"][:, :1]}, [0, 1], 2)
    lots = stages.picked(problem, first, logs[:, 1:], {"sigma2": kept["sigma2"][:, 1:]}, [0, 1], 3)
    for likely in (whole, lots):
        counts = torch.bincount(2 * likely.params["sigma2"].long() + likely.label, minlength=6)
        slack = 4 * (chains * weights * (1 - weights)).sqrt()
        assert bool(((counts.reshape(3, 2) - chains * weights).abs() <= slack).all())


def test_components_are_put_in_order_within_their_classes_only():
    generator = torch.Generator().manual_seed(0)
    W, H = torch.rand(2, 9, 4, generator=generator), torch.rand(2, 4, 7, generator=generator)
    point = {"W": W, "H": H}
    order = torch.tensor([2, 3, 0, 1])
    shuffled = {"W": 3 * W[..., order], "H": H[:, order] / 3}
    free = orders.ordered_like(point, shuffled, [0, 0, 0, 0])
    torch.testing.assert_close(free["H"] * 3, H)
    torch.testing.assert_close(free["W"] / 3, W)
    for classes in ([0, 1, 2, 3], [0, 1, 1, 0]):
        bound = orders.ordered_like(point, shuffled, classes)
        places = [[int((row == bound["H"][0]).all(-1).nonzero()[0, 0]) for row in shuffled["H"][0]]]
        assert all(classes[own] == classes[place] for row in places for own, place in enumerate(row))
    assert torch.equal(orders.ordered_like(point, shuffled, [0] * 4, first=3)["H"], shuffled["H"])


def test_components_are_sorted_by_strength_within_their_classes_only():
    W, H = torch.eye(4)[None], torch.diag(torch.tensor([1.0, 4.0, 2.0, 3.0]))[None]
    sizes = lambda classes: orders.strongest_first({"W": W, "H": H}, classes)["H"].amax(-1)[0].tolist()
    assert sizes([0, 0, 0, 0]) == [4, 3, 2, 1]
    assert sizes([0, 1, 0, 1]) == [2, 4, 1, 3]


def test_components_are_exchangeable_where_their_rates_are_equal_in_both_factors():
    rates_W = torch.tensor([[1.0, 2.0, 1.0], [1.0, 2.0, 1.0]])
    problem = lambda *rates: runs.Problem(
        ExponentialGaussian(3, *rates), as_matrix(torch.ones(2, 4)), Stream.of(0), lambda: None
    )
    assert problem(1.0, 1.0).classes == [0, 0, 0]
    assert problem(rates_W, 1.0).classes == [0, 1, 0]
    assert problem(rates_W, torch.tensor([1.0, 1.0, 3.0])).classes == [0, 1, 2]


def test_pinned_components_stay_and_the_others_move():
    model, X = apart()
    problem = runs.Problem(model, as_matrix(X), Stream.of(0, replicates=2), lambda n: None)
    start = runs.gibbs.init(model, problem.X, problem.stream)
    ((params, sweep), kept, _) = next(runs.sampled(problem, start, burn=0, draws=3, held=1))
    assert torch.equal(params["H"][:, 0], start.params["H"][:, 0]) and sweep == start.sweep + 3
    assert torch.equal(params["sigma2"], start.params["sigma2"])
    assert not bool((params["H"][:, 1] == start.params["H"][:, 1]).any())
    assert not bool((params["W"] == start.params["W"]).any())
    assert torch.equal(kept["W"][:, -1], params["W"]) and kept["H"].shape == (2, 3, 2, 5)


@quiet
def test_log_evidence_is_the_same_for_any_number_of_threads_and_leaves_global_generators_alone():
    model, X = apart()
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    runs = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            runs.append(estimate(model, X, draws=10, warmup=8).replicates)
    finally:
        torch.set_num_threads(threads)
    assert runs[0] == runs[1]
    assert torch.equal(torch.get_rng_state(), before)
    assert estimate(model, X, draws=10, warmup=8, seed=1).replicates != runs[0]


@pytest.mark.filterwarnings("ignore:.*(forward and reverse|an ordinate hangs|has failed)")
def test_log_evidence_warns_when_the_chains_do_not_agree():
    model, X = apart()
    with pytest.warns(UserWarning, match="rank 2: the chains do not agree"):
        evidence = estimate(model, X, draws=5, warmup=0)
    assert evidence.warnings and "Warning: the chains" in str(evidence)
    with pytest.warns(UserWarning, match="too few draws"):
        estimate(model, X, draws=1, warmup=0)


@pytest.mark.parametrize(
    ("model", "options", "kind", "sentence"),
    [
        (
            PAENMF(rank=2),
            {},
            TypeError,
            "chib needs the densities of its blocks; pae_nmf offers a guide with an encoder",
        ),
        (ExponentialGaussian(2, rate_W=0.0), {}, ValueError, "rate_W is 0 somewhere: that prior is improper"),
        (RANK_TWO, {"replicates": 1}, ValueError, "replicates is 1; it must be a whole number >= 2"),
        (RANK_TWO, {"draws": 0}, ValueError, "draws is 0"),
        (RANK_TWO, {"method": "guess"}, ValueError, "method is 'guess'; it must be one of 'chib'"),
        (
            RANK_TWO,
            {"particles": 5},
            TypeError,
            "chib has no option particles; it has draws, thin, warmup, bridge, replicates",
        ),
        (RANK_TWO, {"mask": np.ones((2, 2), dtype=bool)}, ValueError, "mask has shape"),
    ],
)
def test_log_evidence_refuses(model, options, kind, sentence):
    with pytest.raises(kind, match=sentence):
        estimate(model, torch.ones(4, 3), **options)


def test_evidence_states_its_error_and_an_interval_by_students_quantile():
    told = {"method": "chib", "rank": 2, "priors": {"rate_W": 1.0}, "seconds": 0.5}
    evidence = Evidence(log_evidence=2.5, mcse=0.65, replicates=(1.0, 2.0, 3.0, 4.0), **told)
    low, high = evidence.interval(0.9)
    assert high - low == pytest.approx(2 * student.ppf(0.95, 3) * evidence.mcse)
    assert "rate_W = 1" in str(evidence) and "4 replicates" in str(evidence)
    with pytest.raises(ValueError, match="level is 1.5"):
        evidence.interval(1.5)
    assert "2 to 4 (one per component" in describe({"rate_H": torch.tensor([[2.0], [4.0]]).tolist()})


@quiet
@pytest.mark.slow
def test_chib_agrees_with_annealing_where_chains_keep_their_labels():
    model, X = apart()
    exact, error = annealed(model, X, particles=400, steps=2000)
    assert_near(estimate(model, X, draws=1500, warmup=500), exact, error, least=0.1)


@quiet
@pytest.mark.slow
def test_chib_tells_the_rank_of_the_published_toy(real_data):
    """Its brackets are some hundred nats wide there, so that a lead of 35 leaves a doubt; stepping stones leave none."""
    X = real_data("toy/bnmtf_toy.npz")["R"]
    table = ppnmf.select_rank(ExponentialGaussian(1), X, range(9, 12), method="chib", n_jobs=2, progress=False)
    assert table.best == 10 and table.probability[10] > 0.95


@pytest.mark.slow
@quiet
def test_errors_are_honest():
    """Over forty seeds, |z| exceeds Student's 99.7 % quantile at most twice."""
    X, _, _ = drawn(10, 2, 1, seed=12)
    exact, beyond = rank_one(RANK_ONE, X), 0
    for seed in range(40):
        evidence = estimate(RANK_ONE, X, draws=200, seed=seed)
        beyond += abs(evidence.log_evidence - exact) > student.ppf(0.9985, 7) * evidence.mcse
    assert beyond <= 2
