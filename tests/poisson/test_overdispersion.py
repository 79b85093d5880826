"""Overdispersed counts: the sampler of the dispersion and of the latent exposures proved right, and mistakes in it found."""

import pytest
import torch

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.diagnostics.calibration import geweke, sbc
from ppnmf.distributions.sliced import slice_step
from ppnmf.inference import gibbs
from ppnmf.models import GammaPoisson, NegativeBinomialGamma
from ppnmf.poisson import overdispersion
from ppnmf.rng import Site, Stream
from tests.poisson.test_calibration import CAUGHT, logarithms, sampled
from tests.scenarios import LUCK, mask_of, uneven_counts


def statistics(model, params, X, mask):
    log_likelihood = model.likelihood(params).log_prob(X)
    seen = log_likelihood if mask is None else log_likelihood * mask
    others = {"log φ": params["dispersion"].log(), "log likelihood": seen.sum((-2, -1))}
    return {**logarithms(model, params, X, mask), **others}


def judged(sweeps=40, chains=150, seed=1, mask=None):
    model = uneven_counts(NegativeBinomialGamma, 4, 3, 2, dispersion_shape=3.0, dispersion_rate=1.5)
    return geweke(model, (4, 3), gibbs.step, sweeps, seed, statistics, mask, chains)


@pytest.mark.parametrize("mask", [None, mask_of((4, 3))], ids=["full", "masked"])
def test_sweeps_leave_the_joint_invariant(mask):
    assert judged(mask=mask).p_value > LUCK


def test_a_shape_of_the_latent_exposures_that_is_off_is_found(monkeypatch):
    drawn = overdispersion.gamma_draws
    monkeypatch.setattr(overdispersion, "gamma_draws", lambda shape, *rest: drawn(shape + 0.5, *rest))
    assert judged().p_value < CAUGHT


def test_a_dispersion_drawn_without_its_jacobian_is_found(monkeypatch):
    step = overdispersion.slice_step
    monkeypatch.setattr(
        overdispersion, "slice_step", lambda density, at, *rest: step(lambda y: density(y) - y, at, *rest)
    )
    assert judged().p_value < CAUGHT


def test_exposures_left_out_of_the_latent_ones_are_found(monkeypatch):
    formed = overdispersion.formed
    monkeypatch.setattr(
        overdispersion, "formed", lambda *given: formed(*given)._replace(e=torch.ones(1, 1, dtype=torch.float64))
    )
    assert judged().p_value < CAUGHT


@pytest.mark.parametrize("mask", [None, mask_of((3, 2))], ids=["full", "masked"])
def test_ranks_of_the_truth_are_uniform(mask):
    model = uneven_counts(NegativeBinomialGamma, 3, 2, 2, dispersion_shape=3.0, dispersion_rate=1.5)
    found = sbc(model, (3, 2), sampled, 200, seed=1, mask=mask, at_once=100)
    assert found.p_value > LUCK, found.worst
    assert "dispersion" in found.ranks


def test_slice_steps_keep_a_distribution():
    stream = Stream.of(1, 4000)
    at = torch.special.ndtri(stream.uniforms(0, Site.START, range(1), 1)[:, 0, 0])
    for step in range(3):
        uniforms = lambda trial, step=step: stream.uniforms(step, Site.DISPERSION, range(trial, trial + 1), 2)[:, 0]
        at = slice_step(lambda x: -0.5 * x.square(), at, 0.7, uniforms)
    assert abs(float(at.mean())) < 4 / 4000**0.5 and abs(float(at.var()) - 1) < 4 * (2 / 4000) ** 0.5


def test_a_great_dispersion_gives_the_poisson_likelihood():
    X = torch.tensor([[3.0, 0.0], [5.0, 1.0]], dtype=torch.float64)
    params = GammaPoisson(2).prior_draws((2, 2), 3, Stream.of(1))
    expected = GammaPoisson(2).log_likelihood_at(params, as_matrix(X))
    with_phi = {**params, "dispersion": torch.full((3,), 1e7, dtype=torch.float64)}
    found = NegativeBinomialGamma(2).log_likelihood_at(with_phi, as_matrix(X))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_dispersion_of_drawn_counts_is_found():
    truth = NegativeBinomialGamma(2, 1.0, 1.0, 0.3, 0.3)
    drawn = {**truth.prior_draws((60, 30), 1, Stream.of(2)), "dispersion": torch.tensor([4.0], dtype=torch.float64)}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        X = truth.likelihood(drawn).sample()[0]
    post = ppnmf.fit("negative_binomial_gamma", X, rank=2, draws=80, warmup=400, chains=2, seed=1, progress=False)
    phi = post.draws["dispersion"]
    assert abs(float(phi.mean()) - 4.0) < 5 * float(phi.std())
    assert float(phi.std()) < 1.0
    mode = ppnmf.fit("negative_binomial_gamma", X, rank=2, method="icm", seed=1, tol=1e-5, progress=False)
    assert 2.5 < float(mode.draws["dispersion"]) < 8


def test_kinds_of_matrices_give_the_same_draws(tmp_path):
    import numpy as np
    import scipy.sparse

    generator = np.random.default_rng(0)
    X = generator.poisson(1.5, size=(20, 9)).astype(float)
    model = uneven_counts(NegativeBinomialGamma, 20, 9, 2)
    np.save(tmp_path / "x.npy", X)
    options = {"draws": 3, "warmup": 0, "chains": 2, "seed": 1, "progress": False}
    dense = ppnmf.fit(model, X, **options)
    for other in (scipy.sparse.csr_array(X), tmp_path / "x.npy", ppnmf.shard(X)):
        found = ppnmf.fit(model, other, **options)
        for site in ("W", "H", "dispersion"):
            torch.testing.assert_close(found.draws[site], dense.draws[site], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found.stats["lp"], dense.stats["lp"], rtol=1e-10, atol=0)
