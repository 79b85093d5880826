"""Tempered sequential Monte Carlo against exact evidence, and against what would break it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import t as student

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.evidence.smc import jackknife_error
from ppnmf.inference import particles, smc
from ppnmf.models import ExponentialGaussian
from ppnmf.rng import Stream
from tests.evidence.exact import over_the_prior, rank_one
from tests.scenarios import drawn, per_entry_model

RANK_ONE = ExponentialGaussian(1, rate_W=0.8, rate_H=1.3, noise_shape=2.0, noise_scale=1.5)
RANK_TWO = ExponentialGaussian(2, noise_shape=3.0, noise_scale=3.0)
pytestmark = pytest.mark.filterwarnings("ignore:X has .* negative entries")
loose = pytest.mark.filterwarnings("ignore:log_evidence by smc")  # few particles


def estimate(model, X, **options):
    return ppnmf.log_evidence(model, X, method="smc", **({"replicates": 6, "progress": False} | options))


def assert_near(evidence, exact, error=0.0, least=0.03):
    limit = student.ppf(1 - 5e-5, len(evidence.replicates) - 1)
    assert abs(evidence.log_evidence - exact) < max(limit * np.hypot(evidence.mcse, error), least)


@loose
@pytest.mark.parametrize("N", [3, 10, 50])
@pytest.mark.parametrize("D", [2, 3])
def test_smc_matches_quadrature_at_rank_one(N, D):
    X, _, _ = drawn(N, D, 1, seed=N + D)
    evidence, exact = estimate(RANK_ONE, X), rank_one(RANK_ONE, X)
    assert_near(evidence, exact)
    assert evidence.mcse < 0.06
    assert np.mean(evidence.attrs["integrals"]) == pytest.approx(exact, abs=0.25)


@loose
def test_smc_matches_quadrature_under_a_mask_and_with_a_rate_for_each_entry():
    X, _, _ = drawn(12, 3, 1, seed=3)
    mask = torch.rand(X.shape, generator=torch.Generator().manual_seed(1)) > 0.25
    model = per_entry_model(12, 3, 1)
    evidence = estimate(model, torch.where(mask, X, torch.nan), mask=mask, particles=200)
    assert_near(evidence, rank_one(model, X, mask))


@loose
def test_smc_matches_plain_monte_carlo_at_rank_two():
    X, _, _ = drawn(4, 2, 2, seed=6)
    exact, error = over_the_prior(RANK_TWO, X, 400_000)
    assert error < 0.06
    assert_near(estimate(RANK_TWO, X), exact, error)


@loose
@pytest.mark.parametrize("mistake", ["sweeps at another temperature", "not from the prior"])
def test_a_planted_mistake_is_found(mistake, monkeypatch):
    X, _, _ = drawn(10, 3, 1, seed=13)
    several, init = smc.several, smc.init
    if mistake == "sweeps at another temperature":
        monkeypatch.setattr(
            smc, "several", lambda *given: several(*given[:-1], given[-1]._replace(power=given[-1].power ** 0.5))
        )
    else:
        monkeypatch.setattr(smc, "init", lambda *given: init(*given[:3], "scaled"))
    evidence = estimate(RANK_ONE, X)
    assert abs(evidence.log_evidence - rank_one(RANK_ONE, X)) > 8 * evidence.mcse


def test_a_run_is_a_posterior_that_agrees_with_gibbs():
    X, _, _ = drawn(8, 4, 2, seed=2)
    by_smc = ppnmf.fit(RANK_TWO, X, method="smc", particles=400, replicates=4, progress=False)
    by_gibbs = ppnmf.fit(RANK_TWO, X, draws=2000, warmup=500, progress=False)
    assert by_smc.draws["W"].shape == (4, 400, 8, 2) and len(by_smc.attrs["log_evidence"]) == 4
    for function in (lambda post: post.draws["sigma2"].log(), lambda post: post.stats["lp"]):
        ours = function(by_smc).mean(1)  # independent runs
        error = float(ours.std()) / 2
        theirs = function(by_gibbs)
        assert abs(float(ours.mean() - theirs.mean())) < 6 * max(error, float(theirs.std()) / 40)


def test_a_seed_fixes_the_runs_whatever_the_threads():
    X, _, _ = drawn(8, 4, 2, seed=2)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(smc.climb(RANK_TWO, as_matrix(X), 5, 1, 50, 2))
    finally:
        torch.set_num_threads(before)
    assert found[0].log_evidence == found[1].log_evidence and found[0].ladder == found[1].ladder
    assert torch.equal(found[0].params["W"], found[1].params["W"])
    again = smc.climb(RANK_TWO, as_matrix(X), 5, 1, 50, 2, found[0].ladder)
    assert again.log_evidence == found[0].log_evidence
    assert smc.climb(RANK_TWO, as_matrix(X), 6, 1, 50, 2).log_evidence != found[0].log_evidence


def test_systematic_draws_have_the_right_numbers():
    weights = torch.tensor([0.5, 0.0, 0.25, 0.25], dtype=torch.float64)
    for step in range(20):
        counts = particles.systematic(weights, particles.combs(Stream.of(1), step, weights.device)[0]).bincount(
            minlength=4
        )
        assert counts.tolist() == [2, 0, 1, 1]


def test_the_jackknife_gives_the_error_of_a_mean_of_near_equal_numbers():
    logs = np.log(1 + 1e-4 * np.array([-1.0, 0.5, 2.0, -1.5]))
    assert jackknife_error(logs) == pytest.approx(float(np.exp(logs).std(ddof=1)) / 2, rel=1e-3)


def test_what_smc_cannot_take_is_refused():
    X, _, _ = drawn(6, 4, 2, seed=2)
    with pytest.raises(TypeError, match="smc needs full conditionals"):
        ppnmf.fit(ppnmf.models.PAENMF(2), X.abs(), method="smc", progress=False)
    with pytest.raises(ValueError, match="improper"):
        estimate(ExponentialGaussian(2, rate_W=0.0), X)
    with pytest.raises(ValueError, match="particles"):
        estimate(RANK_TWO, X, particles=1)


def test_draws_of_the_prior_that_overflow_are_told_of():
    model = ExponentialGaussian(1, noise_shape=1e-3, noise_scale=1e-3)
    with pytest.raises(ValueError, match=r"of 50 draws that a run begins with have no log likelihood.*noise_shape"):
        ppnmf.fit(model, np.ones((3, 2)) + np.eye(3, 2), method="smc", particles=50, progress=False)


@pytest.mark.slow
@loose
def test_smc_errors_are_honest():
    """Over 40 repeats of a known case, |z| passes Student's 99.7 % quantile at most twice."""
    X, _, _ = drawn(10, 3, 1, seed=13)
    exact, limit = rank_one(RANK_ONE, X), student.ppf(0.9985, 3)
    found = [estimate(RANK_ONE, X, particles=200, replicates=4, seed=seed) for seed in range(40)]
    assert sum(abs(one.log_evidence - exact) > limit * one.mcse for one in found) <= 2
