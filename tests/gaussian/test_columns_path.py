"""Stepping stones of a model with a noise variance a column: each step's law, and the estimate by other routes."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

import ppnmf
from ppnmf.data.matrix import Dense, as_matrix
from ppnmf.diagnostics.calibration import SideBySide
from ppnmf.gaussian import columns, path
from ppnmf.gaussian.noise import ColumnNoise
from ppnmf.models import ColumnNoiseGaussian
from ppnmf.protocols import Address, Sweeps
from ppnmf.rng import Stream
from tests.evidence.exact import assert_near, assert_smc_says_the_same, by_prior_draws, rank_one
from tests.scenarios import LUCK, drawn, mask_of

X = torch.tensor([[1.0, 2.5], [0.2, 0.9], [2.0, 3.2]], dtype=torch.float64)
CAUGHT = 1e-9
MASK = torch.tensor([[1, 1], [1, 0], [0, 1]]).bool()
KNOWN = {"H": torch.tensor([[0.8, torch.nan]], dtype=torch.float64)}
pytestmark = pytest.mark.filterwarnings("ignore:log_evidence by")  # few particles


def small(rank):
    return ColumnNoiseGaussian(rank, 0.8, 1.2, 3.0, 2.0)


def estimate(model, mask=None, **options):
    settings = {"particles": 100, "draws": 200, "warmup": 100, "replicates": 6, "seed": 1, "progress": False}
    return ppnmf.log_evidence(model, X, method="stepping_stone", mask=mask, **(settings | options))


def reference_of(model, shape, seed=5):
    """Fitted to draws of the prior, which are as wide as any, with columns that differ in their noise."""
    draws = model.prior_draws(shape, 200, Stream.of(seed))
    return model.reference({**draws, "sigma2": draws["sigma2"] * (1 + 2 * torch.arange(shape[1]))}, 1.0)


# The law of each step


@pytest.mark.parametrize("hidden", [False, True])
def test_the_variances_of_a_step_follow_the_density_of_the_path(hidden):
    """On a grid of variances, the log joint and the reference themselves, against draws given one W and H."""
    model, power, many, shape = ColumnNoiseGaussian(2, 0.8, 1.2, 1.5, 2.0), 0.4, 4000, (5, 3)
    data = as_matrix(drawn(*shape, 2)[0], mask=mask_of(shape) if hidden else None)
    reference = reference_of(model, shape)
    target = path.between(model._story, reference, power)
    params = model.prior_draws(shape, 1, Stream.of(3))
    left = columns.misfits(data, params["W"], params["H"]).expand(many, -1)
    sigma2 = columns.draw(target.noise, data, left, power, Address(Stream.of(1, many), 7))
    y = torch.linspace(-6, 8, 4001, dtype=torch.float64)
    for j in range(shape[1]):
        on_grid = {site: values.expand(len(y), *values.shape[1:]).clone() for site, values in params.items()}
        on_grid["sigma2"][:, j] = y.exp()
        log_joint = model.log_prior(on_grid) + model.log_likelihood_at(on_grid, data)
        logs = power * log_joint + (1 - power) * reference.log_prob(on_grid) + y
        mass = (logs - logs.max()).exp().cumsum(0)
        law = partial(np.interp, xp=y.numpy(), fp=(mass / mass[-1]).numpy())
        assert stats.kstest(sigma2[:, j].log().numpy(), law).pvalue > LUCK


def test_a_reference_has_the_moments_of_the_draws_and_draws_what_it_says():
    """Of the reciprocals, whose moments there are however heavy the variances' tails."""
    precision = torch.distributions.Gamma(torch.tensor([1.0, 40.0]), torch.tensor([2.0, 9.0])).sample((4000,)).double()
    noise = ColumnNoise.matched(1 / precision, 1.5)
    torch.testing.assert_close((noise.shape / noise.scale)[1], precision.mean(0)[1])
    torch.testing.assert_close((noise.shape / noise.scale.square())[1], 1.5 * precision.var(0)[1])
    assert float(noise.shape[0]) == 1  # none spreads more than an exponential
    again = noise.prior_draw(Stream.of(2, 4000), torch.device("cpu"))
    laws = [stats.invgamma(float(a), scale=float(b)) for a, b in zip(*noise, strict=True)]
    for j, law in enumerate(laws):
        assert stats.kstest(again[:, j].numpy(), law.cdf).pvalue > LUCK
    density = sum(law.logpdf(again[:, j].numpy()) for j, law in enumerate(laws))
    torch.testing.assert_close(noise.log_prob(again), torch.from_numpy(density))


def invariance(power=0.5, sweeps=8, C=1500):
    """Least of the p-values that quantities are as they were after sweeps at β, from exact draws of π_β and X together.

    With X_ij ~ Normal((W H)_ij, σ²_j / β), π_β ∝ p(X | θ) where every σ²_j has N (1 - β) / 2 less in its shape.
    """
    model, shape = ColumnNoiseGaussian(2, 0.8, 1.2, 9.0, 20.0), (4, 3)
    reference = reference_of(model, shape)
    target = path.between(model._story, reference, power)
    law = path.Fitted(
        target.prior("W"), target.prior("H"), target.noise._replace(shape=target.noise.shape - 4 * (1 - power) / 2)
    )
    begun, another = (law.draws(as_matrix(torch.ones(shape)), Stream.of(11, n)) for n in (C, 10 * C))
    noise = torch.randn(C, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    begun = {site: values.double() for site, values in begun.items()}
    matrices = begun["W"] @ begun["H"] + (begun["sigma2"] / power).sqrt()[:, None] * noise
    data = SideBySide(tuple(Dense(own, None) for own in matrices))
    asked = Sweeps(number=sweeps, kept=range(sweeps - 1, sweeps), power=power)
    after = model.sweep_between(reference, begun, data, asked, Address(Stream.of(13, C), 1)).params
    told = [[own["W"].mean((1, 2)), own["H"].mean((1, 2)), *own["sigma2"].T] for own in (after, another)]
    return min(stats.ks_2samp(mine.numpy(), theirs.numpy()).pvalue for mine, theirs in zip(*told, strict=True))


def test_steps_leave_the_density_of_the_path_as_it_is():
    assert invariance() > LUCK


def own_scale_alone(right, story, reference, power):
    """The reference's θ_r left out of the variances' scale."""
    target = right(story, reference, power)
    return target._replace(noise=target.noise._replace(scale=target.noise.scale * 0 + power * story.noise.scale))


def other_columns(right, story, reference, power):
    """The reference's columns one place on."""
    rolled = ColumnNoise(*(own.roll(1) for own in reference.noise))
    return right(story, path.Fitted(reference.W, reference.H, rolled), power)


@pytest.mark.parametrize("mistake", [own_scale_alone, pytest.param(other_columns, marks=pytest.mark.slow)])
def test_a_planted_mistake_in_the_path_is_found(mistake, monkeypatch):
    right, sweep = path.between, ColumnNoiseGaussian.sweep_between

    def wrong(self, *rest):  # in the sweeps alone: `invariance` draws by what is right
        with monkeypatch.context() as inside:
            inside.setattr(path, "between", partial(mistake, right))
            return sweep(self, *rest)

    monkeypatch.setattr(ColumnNoiseGaussian, "sweep_between", wrong)
    assert invariance() < CAUGHT


# The estimate


@pytest.mark.parametrize("mask", [None, pytest.param(MASK, marks=pytest.mark.slow)], ids=["full", "masked"])
def test_stepping_stones_match_quadrature_at_rank_one(mask):
    assert_near(estimate(small(1), mask), rank_one(small(1), X, mask, step=0.8, fall=12.0))


@pytest.mark.slow
@pytest.mark.parametrize("mask", [None, MASK], ids=["full", "masked"])
@pytest.mark.parametrize("fixed", [None, KNOWN], ids=["free", "known"])
def test_stepping_stones_match_brute_force_at_rank_two(mask, fixed):
    model = small(2).holding(fixed)
    assert_near(estimate(model, mask, particles=400, draws=1000), *by_prior_draws(model, X, mask))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 2])
def test_particles_from_the_prior_say_the_same(rank):
    assert_smc_says_the_same(small(rank))
