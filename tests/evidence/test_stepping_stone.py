"""Stepping stones from a fitted reference against exact evidence, and against what would break them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import t as student

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.evidence import places, settled, stepping_stone
from ppnmf.evidence.orders import _best_assignments
from ppnmf.gaussian import path
from ppnmf.gaussian.noise import NoisePrior
from ppnmf.models import PAENMF, ExponentialGaussian, HalfNormalGaussian, TruncatedNormalGaussian
from ppnmf.priors import NaturalPrior
from ppnmf.protocols import Address, Sweeps
from ppnmf.rng import Stream
from tests.evidence.exact import over_the_prior, rank_one
from tests.scenarios import drawn, mask_of, per_entry_model, uneven

RANK_ONE = ExponentialGaussian(1, rate_W=0.8, rate_H=1.3, noise_shape=2.0, noise_scale=1.5)
RANK_TWO = ExponentialGaussian(2, noise_shape=3.0, noise_scale=3.0)
APART = ExponentialGaussian(2, noise_shape=3.0, noise_scale=0.15)
LOG_EVIDENCE_APART, ERROR_APART = -112.668, 0.097  # by annealing, as in test_chib
MIXED = ExponentialGaussian(3, noise_shape=3.0, noise_scale=50.0)
LOG_EVIDENCE_MIXED = -98.923  # annealed(MIXED, mixed(), particles=500, steps=2000): ± 0.003, a minute
pytestmark = [
    pytest.mark.filterwarnings("ignore:X has .* negative entries"),
    pytest.mark.filterwarnings("ignore:log_evidence by stepping_stone"),  # few particles
]


def estimate(model, X, **options):
    settings = {"replicates": 6, "draws": 400, "warmup": 200, "progress": False}
    return ppnmf.log_evidence(model, X, method="stepping_stone", **(settings | options))


def assert_near(evidence, exact, error=0.0):
    assert abs(evidence.log_evidence - exact) < max(0.3, 3 * math.hypot(evidence.mcse, error))
    assert evidence.mcse < 0.4


def apart():
    return drawn(20, 5, 2, seed=8, noise=0.05)[0]


def mixed():
    return drawn(10, 3, 3, seed=1, noise=25.0)[0]


@pytest.mark.parametrize("N", [3, 10, 50])
@pytest.mark.parametrize("D", [2, 3])
def test_the_estimate_matches_quadrature_at_rank_one(N, D):
    X, _, _ = drawn(N, D, 1, seed=N + D)
    evidence, exact = estimate(RANK_ONE, X), rank_one(RANK_ONE, X)
    assert_near(evidence, exact)
    assert abs(evidence.log_evidence - exact) < max(student.ppf(1 - 5e-5, 5) * evidence.mcse, 0.03)


@pytest.mark.parametrize("kind", [ExponentialGaussian, HalfNormalGaussian, TruncatedNormalGaussian])
@pytest.mark.parametrize("hidden", [False, True])
def test_every_prior_of_the_family_matches_quadrature(kind, hidden):
    X, _, _ = drawn(10, 3, 1, seed=3)
    model, mask = uneven(kind, 10, 3, 1), mask_of((10, 3)) if hidden else None
    given = X if mask is None else torch.where(mask, X, torch.nan)
    assert_near(estimate(model, given, mask=mask), rank_one(model, X, mask))


def test_the_estimate_matches_plain_monte_carlo_at_rank_two():
    X, _, _ = drawn(4, 2, 2, seed=6)
    assert_near(estimate(RANK_TWO, X), *over_the_prior(RANK_TWO, X, 400_000))


def test_labels_that_swap_and_labels_that_stay_are_both_counted(monkeypatch):
    """Without the sum over orders the estimate is low by log K! where labels stay; where they swap nothing is to be added."""
    assert_near(estimate(MIXED, mixed()), LOG_EVIDENCE_MIXED)
    assert_near(estimate(APART, apart()), LOG_EVIDENCE_APART, ERROR_APART)
    monkeypatch.setattr(places.Places, "of", classmethod(lambda cls, classes, axes: cls([], [], 2, axes)))
    without = estimate(APART, apart())
    assert without.log_evidence - LOG_EVIDENCE_APART == pytest.approx(-math.log(2), abs=0.6 * math.log(2))
    assert_near(estimate(MIXED, mixed()), LOG_EVIDENCE_MIXED)


@pytest.mark.parametrize("most", [1, 20])
def test_shares_of_orders_at_the_end_do_what_sums_on_the_way_do(most, monkeypatch):
    monkeypatch.setattr(places, "MOST", most)
    assert_near(estimate(MIXED, mixed(), particles=300), LOG_EVIDENCE_MIXED)


def test_components_with_other_priors_keep_their_places():
    X, _, _ = drawn(4, 2, 2, seed=6)
    model = ExponentialGaussian(2, rate_W=torch.tensor([1.0, 2.0]), noise_shape=3.0, noise_scale=3.0)
    assert places.Places.of(model.classes())[:2] == ([], [])
    assert_near(estimate(model, X), *over_the_prior(model, X, 400_000))


def test_the_power_on_the_wrong_side_is_found(monkeypatch):
    between = path.between
    monkeypatch.setattr(path, "between", lambda story, reference, power: between(story, reference, 1 - power))
    assert abs(estimate(APART, apart()).log_evidence - LOG_EVIDENCE_APART) > 5


def test_what_the_path_has_in_memory_it_has_in_sparse_and_noisy_and_single_precision_matrices():
    X, _, _ = drawn(14, 6, 2, noise=0.1)
    zeros = X.clamp(min=0)
    few = {"particles": 20, "draws": 40, "warmup": 50, "replicates": 2}
    dense, sparse = estimate(RANK_TWO, zeros, **few), estimate(RANK_TWO, scipy.sparse.csr_array(zeros.numpy()), **few)
    assert sparse.log_evidence == pytest.approx(dense.log_evidence, rel=1e-6)
    noisy = estimate(RANK_TWO, as_matrix(zeros, noise=torch.ones(6)), **few)
    assert noisy.log_evidence == pytest.approx(dense.log_evidence, rel=1e-6)
    assert estimate(RANK_TWO, zeros.float(), **few).log_evidence == pytest.approx(dense.log_evidence, abs=8)


def test_known_noise_of_each_entry_matches_quadrature():
    """X / √v has noise of one variance, where W has a rate for each row and v one value a row."""
    X, _, _ = drawn(8, 3, 1, seed=4)
    v = 0.5 + torch.arange(8, dtype=torch.float64)[:, None] / 4
    scaled = ExponentialGaussian(1, (0.8 * v.sqrt()), 1.3, noise_shape=2.0, noise_scale=1.5)
    exact = rank_one(scaled, X / v.sqrt()) - 1.5 * float(v.log().sum())
    assert_near(estimate(RANK_ONE, as_matrix(X, noise=v)), exact)


@pytest.mark.parametrize("kind", [ExponentialGaussian, HalfNormalGaussian, TruncatedNormalGaussian])
@pytest.mark.parametrize("hidden", [False, True])
def test_steps_compiled_whole_give_the_numbers_of_sweeps_one_by_one(kind, hidden, monkeypatch):
    X, model = drawn(12, 7, 3, seed=2)[0], uneven(kind, 12, 7, 3)
    X = as_matrix(torch.where(mask_of((12, 7)), X, torch.nan), missing="nan") if hidden else X
    few = {"particles": 12, "draws": 20, "warmup": 20, "replicates": 3}
    whole = estimate(model, X, **few)
    monkeypatch.setattr("ppnmf.evidence.stepping_stone.TOGETHER", 1)  # a replicate at a time
    monkeypatch.setattr("ppnmf.gaussian.stones.Stepper.of", lambda *given: None)
    assert whole.replicates == pytest.approx(estimate(model, X, **few).replicates, abs=1e-6)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-6), (torch.float32, 1e-2)])
def test_a_masked_step_forms_the_residuals_where_little_is_left_of_the_matrix(dtype, near):
    X, W, H = (values.to(dtype) for values in drawn(12, 7, 3, noise=1e-10, seed=2))
    data = as_matrix(torch.where(mask_of((12, 7)), X, torch.nan), missing="nan")
    model = ExponentialGaussian(3, sigma2=1e-10)
    reference = model.reference(model.prior_draws((12, 7), 40, Stream.of(7)), 1.5)
    params = {"W": W[None], "H": H[None], "sigma2": torch.full((1,), 1e-10, dtype=dtype)}
    at = Address(Stream.of(2, 1), 1)
    stood = model.stepper(reference, data).raised(params, 0.9, 1, at)
    after = model.sweep_between(reference, params, data, Sweeps(number=1, kept=range(1), power=0.9), at)
    torch.testing.assert_close(stood.params["W"], after.params["W"])
    torch.testing.assert_close(stood.log_likelihood, after.log_likelihood[:, 0], rtol=near, atol=0)


def test_a_seed_fixes_the_numbers_whatever_the_threads():
    X, _, _ = drawn(30, 20, 3, seed=2)
    model, few = ExponentialGaussian(3), {"particles": 16, "draws": 20, "warmup": 20, "replicates": 2}
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(estimate(model, X, **few))
    finally:
        torch.set_num_threads(before)
    assert found[0].replicates == found[1].replicates
    assert estimate(model, X, seed=1, **few).replicates != found[0].replicates


def swept(power, chains=4000):
    """A model and its reference; particles drawn from the latter, and after sweeps."""
    model, shape = uneven(TruncatedNormalGaussian, 5, 4, 2), (5, 4)
    draws = model.prior_draws(shape, 40, Stream.of(7))
    reference = model.reference({**draws, "sigma2": draws["sigma2"] / 3}, 1.5)
    X = as_matrix(drawn(*shape, 2, seed=5)[0])
    params = reference.draws(X, Stream.of(1, chains))
    asked = Sweeps(number=5, kept=range(4, 5), power=power)
    return (
        model,
        reference,
        X,
        params,
        asked,
        model.sweep_between(reference, params, X, asked, Address(Stream.of(2, chains), 1)).params,
    )


def noise_is_right(power):
    """Given the factors σ² has InverseGamma(β (α + n / 2) + (1 - β) α_r, scale), so scale / σ² has that shape for its mean."""
    model, reference, X, _, _, after = swept(power)
    misfit = (X.values - after["W"] @ after["H"]).square().sum((-2, -1))
    scale = power * (model.noise_scale + misfit / 2) + (1 - power) * reference.noise.scale
    shape = power * (model.noise_shape + 10) + (1 - power) * reference.noise.shape  # 20 entries
    return abs(float((scale / after["sigma2"]).mean()) - shape) < 5 * math.sqrt(shape / 4000)


@pytest.mark.parametrize("power", [0.0, 0.3, 1.0])
def test_the_noise_has_the_exponent_of_the_path(power, monkeypatch):
    assert noise_is_right(power)
    between = path.between

    def mistaken(story, reference, power):
        noise = between(story, reference, power).noise
        return between(story, reference, power)._replace(noise=NoisePrior(noise.shape + 1, noise.scale))

    monkeypatch.setattr(path, "between", mistaken)
    assert not noise_is_right(power)


def test_sweeps_draw_the_reference_at_the_foot_and_the_posterior_at_the_top():
    *_, params, _, after = swept(0.0)
    for site, values in params.items():
        before, then = values.reshape(4000, -1), after[site].reshape(4000, -1)
        error = ((before.var(0) + then.var(0)) / 4000).sqrt()
        assert bool(((before.mean(0) - then.mean(0)).abs() < 5 * error).all())
    model, _, X, params, asked, after = swept(1.0, 30)
    plain = model.sweep(params, X, asked, Address(Stream.of(2, 30), 1))
    torch.testing.assert_close(plain.params["W"], after["W"], rtol=1e-9, atol=1e-300)


def test_fitted_moments_are_those_of_the_draws():
    mean = torch.tensor([1.0, 2.0, 0.5, 1e-3, 30.0], dtype=torch.float64)
    spread = torch.tensor([0.3, 0.9, 0.99, 0.7, 1e-4], dtype=torch.float64)
    prior = NaturalPrior(*(v[None] for v in path.matched(mean, (mean * spread).square())))
    torch.testing.assert_close(prior.rectified.mean[0], mean, rtol=1e-5, atol=0)
    torch.testing.assert_close(prior.rectified.variance[0].sqrt(), mean * spread, rtol=1e-4, atol=0)
    wide = path.matched(mean, (2 * mean).square())
    assert not bool(wide.precision.any())
    torch.testing.assert_close(2 / wide.linear.square(), mean.square() + (2 * mean).square())


def test_the_reference_is_a_density_with_the_log_prob_of_its_places():
    model = per_entry_model(5, 4, 3)
    X = as_matrix(drawn(5, 4, 3, seed=5)[0])
    reference = model.reference(model.prior_draws((5, 4), 60, Stream.of(7)), 1.0)
    params = reference.draws(X, Stream.of(1, 3))
    places = reference.log_places(params).diagonal(dim1=1, dim2=2).sum(-1)
    torch.testing.assert_close(reference.log_prob(params), places + reference.noise.log_prob(params["sigma2"]))
    by_entry = [reference.W.rectified.log_prob(params["W"]), reference.H.rectified.log_prob(params["H"])]
    torch.testing.assert_close(places, sum(own.sum((-2, -1)) for own in by_entry))


@pytest.mark.parametrize("below", [5.0, 30.0])
def test_a_mode_that_weighs_nothing_beside_another_has_one_estimate(below, monkeypatch):
    """Chains of one posterior taken for two modes, of which the second's first estimate is made light."""
    first_climb = stepping_stone.first_climb

    def lighter(path, effort, seed, mode, progress):
        found = first_climb(path, effort, seed, mode, progress)
        return replace(found, log_evidence=found.log_evidence - below * mode)

    monkeypatch.setattr(stepping_stone, "distinct", lambda post, classes: [(0, 1), (2, 3)])
    monkeypatch.setattr(stepping_stone, "first_climb", lighter)
    X, few = drawn(8, 4, 2, seed=2)[0], {"particles": 20, "draws": 40, "warmup": 50, "replicates": 3}
    evidence = estimate(RANK_TWO, X, **few)
    light = min(evidence.modes, key=lambda mode: len(mode.replicates))
    assert len(light.replicates) == (3 if below == 5.0 else 1) and math.isinf(light.mcse) == (below == 30.0)
    assert math.isfinite(evidence.mcse) and evidence.log_evidence >= evidence.modes[0].log_evidence


@pytest.mark.parametrize("stay", [(True, False, True), (False, False, False)])
def test_a_replicate_whose_particles_all_end_in_another_mode_counts_as_no_mass(stay, monkeypatch):
    model, X = RANK_TWO, as_matrix(drawn(8, 4, 2, seed=2)[0])
    few = stepping_stone.Effort(10, 3, 1)
    path = places.Fitted.of(model, X, model.reference(model.prior_draws((8, 4), 100, Stream.of(7)), 1.0))
    runs = stepping_stone.climbs(path, few, stepping_stone.first_climb(path, few, 0, 0, False).ladder, 0, 0, False)
    whole = stepping_stone.of_mode(path, runs, [], 0)
    ended = iter(stay)
    monkeypatch.setattr(stepping_stone, "nearest", lambda params, *_: torch.full((10,), 0 if next(ended) else 1))
    own = stepping_stone.of_mode(path, runs, [{}, {}], 0)
    logs = np.where(stay, whole.mode.replicates, -math.inf)
    assert own.mode.replicates == tuple(logs) and len(own.stayed) == sum(stay)
    assert own.mode.log_evidence == pytest.approx(float(np.logaddexp.reduce(logs)) - math.log(3))
    told = " ".join(own.doubts())
    assert f"no particle of {3 - sum(stay)} of 3 replicates of one mode ended there" in told and "inf" not in told


def test_modes_that_no_particle_stays_in_are_no_estimate(monkeypatch):
    monkeypatch.setattr(stepping_stone, "distinct", lambda post, classes: [(0, 1), (2, 3)])
    monkeypatch.setattr(stepping_stone, "nearest", lambda params, *_: torch.full((len(params["W"]),), -1))
    few = {"particles": 10, "draws": 20, "warmup": 20, "replicates": 2}
    evidence = estimate(RANK_TWO, drawn(8, 4, 2, seed=2)[0], **few)
    assert "an estimate is not finite" in evidence.failed and evidence.log_evidence == -math.inf
    assert "It has failed" in str(evidence)


@pytest.mark.parametrize("kind", [HalfNormalGaussian, TruncatedNormalGaussian])
def test_the_compiled_log_prior_is_the_models_in_any_unit(kind):
    X = as_matrix(1e-10 * drawn(30, 20, 2, seed=2)[0].abs())
    model = kind.for_data(X, 2)
    reference = model.reference(model.prior_draws((30, 20), 40, Stream.of(7)), 1.0)
    at = Address(Stream.of(2, 3), 1)
    stood = model.stepper(reference, X).raised(reference.draws(X, Stream.of(1, 3)), 0.5, 1, at)
    torch.testing.assert_close(stood.log_prior, model.log_prior(stood.params), rtol=0, atol=1e-8)


def test_orders_are_the_best_assignments():
    gains = np.random.default_rng(0).normal(size=(40, 4, 4))
    gains[:20] += 4 * np.eye(4)  # where most have their greatest gains on the diagonal
    best = [linear_sum_assignment(own, maximize=True)[1] for own in gains]
    np.testing.assert_array_equal(_best_assignments(gains), best)


def test_what_it_cannot_take_is_refused():
    X, _, _ = drawn(6, 4, 2, seed=2)
    with pytest.raises(
        TypeError, match="stepping_stone needs sweeps from a reference to its posterior; pae_nmf offers"
    ):
        estimate(PAENMF(2), X.abs())
    with pytest.raises(ValueError, match="improper"):
        estimate(ExponentialGaussian(2, rate_W=0.0), X)
    with pytest.raises(ValueError, match="particles"):
        estimate(RANK_TWO, X, particles=1)


def test_ctrl_c_in_the_chains_ends_the_run(monkeypatch):
    X, _, _ = drawn(6, 4, 2, seed=2)
    run = settled.gibbs.run

    def interrupted(*given, **options):
        post = run(*given, **options)
        post.attrs["interrupted"] = True
        return post

    monkeypatch.setattr(settled.gibbs, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        estimate(RANK_TWO, X)


def test_ranks_are_chosen_by_it():
    X, _, _ = drawn(30, 20, 2, noise=0.1, seed=3)
    table = ppnmf.select_rank(
        ExponentialGaussian(1),
        X,
        [1, 2, 3],
        method="stepping_stone",
        particles=20,
        draws=100,
        warmup=100,
        progress=False,
    )
    assert table.best == 2 and table.decisive and table.probability[2] > 0.99
