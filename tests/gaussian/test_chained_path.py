"""Stepping stones of three factors and of layers: sums over orders of all kinds, each step's law, the estimate by other routes."""

from itertools import permutations, product

import numpy as np
import pytest
import torch
from scipy import stats

import ppnmf
from ppnmf.data.matrix import Dense, as_matrix
from ppnmf.diagnostics.calibration import SideBySide
from ppnmf.evidence import crossed
from ppnmf.evidence.crossed import Crossed, Kind
from ppnmf.evidence.orders import reordered
from ppnmf.gaussian import chained_path, path
from ppnmf.models import Hierarchical, TriFactor
from ppnmf.protocols import Address, Sweeps
from ppnmf.rng import Stream
from tests.evidence.exact import assert_near, by_prior_draws, three_of_one
from tests.scenarios import LUCK

X = torch.tensor([[1.0, 2.5], [0.2, 0.9], [2.0, 3.2]], dtype=torch.float64)
MASK = torch.tensor([[1, 1], [1, 0], [0, 1]]).bool()
CAUGHT = 1e-9
pytestmark = pytest.mark.filterwarnings(
    "ignore:log_evidence by", "ignore:rank 3 is above"
)  # few particles, small matrices


def small(K, L, sigma2=None):
    return TriFactor(K, L, 0.8, 1.1, 1.3, noise_shape=3.0, noise_scale=2.0, sigma2=sigma2)


def layered(*ranks):
    return Hierarchical(ranks, tuple(0.8 + 0.2 * n for n in range(len(ranks) + 1)), 3.0, 2.0)


def estimate(model, X=X, mask=None, **options):
    settings = {"particles": 100, "draws": 200, "warmup": 100, "replicates": 6, "seed": 1, "progress": False}
    return ppnmf.log_evidence(model, X, method="stepping_stone", mask=mask, **(settings | options))


def reference_of(model, shape=(5, 4), seed=5):
    """Fitted to draws of the prior, which are as wide as any, with entries of the factors within that differ."""
    draws = model.prior_draws(shape, 200, Stream.of(seed))
    for site in list(draws.keys() & {"S", "A1", "A2"}):
        K, L = draws[site].shape[1:]
        draws[site] = draws[site] * (0.4 + torch.arange(K * L).view(K, L))
    return model.reference(draws, 1.0)


# Orders of two kinds


SMALL = [
    *(small(*sizes) for sizes in [(3, 2), (2, 3), (2, 2), (1, 3), (3, 1)]),
    *(layered(*ranks) for ranks in [(3, 2), (2, 3), (3,), (2, 3, 2), (1, 2, 2), (2, 1, 3)]),
]


def told_of(params):
    """What tells orders of the components apart."""
    sites = [site for site in ("W", "S", "A0", "A1", "A2") if site in params]
    return torch.cat([params[site].flatten(1) for site in sites], 1)


@pytest.mark.parametrize("model", SMALL, ids=lambda model: f"{model.name}-{getattr(model, 'ranks', model.rank)}")
@pytest.mark.parametrize("power", [0.0, 0.4, 1.0])
def test_sums_and_draws_of_orders_are_those_of_all_orders_one_by_one(model, power):
    many = 3000
    reference, one = reference_of(model), model.prior_draws((5, 4), 1, Stream.of(3))
    kinds = [Kind.of(model, kind) for kind in model.kinds]
    told = {}
    for orders in product(*(permutations(range(kind.size)) for kind in kinds)):
        other = one
        for kind, order in zip(kinds, orders, strict=True):
            other = reordered(other, torch.tensor([order]), kind.axes)
        for site, values in model.derived(other).items():
            torch.testing.assert_close(values, other[site])
        torch.testing.assert_close(other["W"] @ other["H"], one["W"] @ one["H"])
        told[tuple(told_of(other)[0].tolist())] = float(reference.log_prob(other))
    whole = torch.tensor(list(told.values()), dtype=torch.float64)
    logs = power * whole
    places, kinds = reference.log_places(one), Crossed.of(model)
    assert float(kinds.log_orders(places, power)) == pytest.approx(float(logs.logsumexp(0) - logs[0]), abs=1e-9)
    wide = {site: values.expand(many, *values.shape[1:]) for site, values in one.items()}
    u = np.random.default_rng(0).random((many, kinds.uniforms))
    gained, ordered = kinds.weighed(wide, places.expand(many, *places.shape[1:]), 1.0, power, u)
    gain = (logs.logsumexp(0) - logs[0]) - (whole.logsumexp(0) - whole[0])
    torch.testing.assert_close(gained, gain.expand(many), rtol=0, atol=1e-9)
    drawn = told_of(ordered)
    counts = [int((drawn == torch.tensor(key, dtype=torch.float64)).all(1).sum()) for key in told]
    assert sum(counts) == many
    expected = many * logs.softmax(0).numpy()
    usual = expected > 5
    if usual.sum() > 1:
        seen = np.append(np.array(counts)[usual], many - np.array(counts)[usual].sum())
        wanted = np.append(expected[usual], many - expected[usual].sum())
        kept = wanted > 1e-6
        assert stats.chisquare(seen[kept], wanted[kept] * seen[kept].sum() / wanted[kept].sum()).pvalue > LUCK


@pytest.mark.parametrize(
    ("sizes", "told"),
    [((4, 4), (True, True)), ((15, 4), (True, True)), ((7, 7), (False, True)), ((8, 8), (False, False))],
)
def test_orders_are_summed_at_each_step_or_at_the_end_as_their_number_allows(sizes, told):
    kinds = Crossed.of(small(*sizes))
    assert (kinds.summed, kinds.countable) == told


def test_orders_that_are_not_counted_are_told(monkeypatch):
    monkeypatch.setattr(crossed, "WORK", 0)
    few = {"particles": 10, "draws": 20, "warmup": 10, "replicates": 2}
    assert any("too many ways" in told for told in estimate(small(2, 2), **few).warnings)


# The law of each step


TRI, LAYERS = TriFactor(2, 2, 0.8, 1.1, 1.3, noise_shape=9.0, noise_scale=20.0), Hierarchical((2, 2), 1.0, 9.0, 20.0)


def invariance(model=TRI, power=0.5, sweeps=8, C=1500):
    """Least of the p-values that quantities are as they were after sweeps at β, from exact draws of π_β and X together.

    With X_ij ~ Normal((W H)_ij, σ² / β), π_β ∝ p(X | θ) where σ² has n (1 - β) / 2 less in its shape.
    """
    shape = (4, 3)
    reference = reference_of(model, shape)
    sites = list(reference.priors)
    own = model._story.priors if model is TRI else model._priors
    priors, noise = chained_path.between(own, model.noise, reference, power)
    law = chained_path.Fitted(priors, noise._replace(shape=noise.shape - 12 * (1 - power) / 2), model.derived)
    begun, another = (law.draws(as_matrix(torch.ones(shape).double()), Stream.of(11, n)) for n in (C, 10 * C))
    z = torch.randn(C, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    matrices = begun["W"] @ begun["H"] + (begun["sigma2"] / power).sqrt()[:, None, None] * z
    data = SideBySide(tuple(Dense(own, None) for own in matrices))
    asked = Sweeps(number=sweeps, kept=range(sweeps - 1, sweeps), power=power)
    after = model.sweep_between(reference, begun, data, asked, Address(Stream.of(13, C), 1)).params
    middle = sites[1]
    told = [
        [*(own[s].mean((1, 2)) for s in sites), *own[middle].flatten(1).T, own["sigma2"]] for own in (after, another)
    ]
    return min(stats.ks_2samp(mine.numpy(), theirs.numpy()).pvalue for mine, theirs in zip(*told, strict=True))


@pytest.mark.parametrize("kernels", ["cpu", "reference"])
@pytest.mark.parametrize("model", [TRI, LAYERS], ids=lambda model: model.name)
def test_steps_leave_the_density_of_the_path_as_it_is(model, kernels, monkeypatch):
    monkeypatch.setenv("PPNMF_KERNEL", kernels)
    assert invariance(model) > LUCK


def middle_of_the_prior(model, reference, params, X, asked, at):
    """The reference's S left out of the path."""
    priors = {**reference.priors, "S": path.NaturalPrior(*model._story.priors["S"].natural("cpu"))}
    return RIGHT(model, chained_path.Fitted(priors, reference.noise, model.derived), params, X, asked, at)


RIGHT = TriFactor.sweep_between


def test_a_planted_mistake_in_the_path_is_found(monkeypatch):
    monkeypatch.setattr(TriFactor, "sweep_between", middle_of_the_prior)
    assert invariance() < CAUGHT


# The estimate


@pytest.mark.parametrize("mask", [None, pytest.param(MASK, marks=pytest.mark.slow)], ids=["full", "masked"])
def test_stepping_stones_match_quadrature_where_each_kind_has_one_component(mask):
    assert_near(estimate(small(1, 1), mask=mask), three_of_one(small(1, 1), X, mask))


@pytest.mark.slow
@pytest.mark.parametrize("mask", [None, MASK], ids=["full", "masked"])
@pytest.mark.parametrize("sizes", [(2, 1), (1, 2), (2, 2), (3, 2), (2, 3)])
@pytest.mark.parametrize("sigma2", [None, 0.3])
def test_stepping_stones_match_brute_force(sizes, mask, sigma2):
    model = small(*sizes, sigma2)
    ours = estimate(model, mask=mask, particles=400, draws=1000)
    assert_near(ours, *by_prior_draws(model, X, mask))


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [(2,), (2, 1), (1, 2), (2, 2), (2, 1, 2), (2, 2, 2)])
def test_stepping_stones_of_layers_match_brute_force(ranks):
    model = layered(*ranks)
    ours = estimate(model, particles=400, draws=1000)
    assert ours.method == "stepping_stone"
    assert_near(ours, *by_prior_draws(model, X))


def test_layers_of_one_component_are_three_factors_of_one():
    """By quadrature."""
    model = Hierarchical((1, 1), (0.8, 1.1, 1.3), 3.0, 2.0)
    assert_near(estimate(model), three_of_one(small(1, 1), X))


@pytest.mark.slow
def test_shares_of_orders_at_the_end_do_what_sums_on_the_way_do(monkeypatch):
    model = small(2, 2)
    monkeypatch.setattr(crossed, "MOST_LISTED", 1)
    assert_near(estimate(model, particles=400, draws=1000), *by_prior_draws(model, X))


@pytest.mark.slow
def test_particles_from_the_prior_say_the_same():
    """With a reference fitted to draws without moves along the ridges it is two nats low."""
    g = torch.Generator().manual_seed(3)
    W, S, G = (-torch.rand(size, generator=g, dtype=torch.float64).log() for size in ((30, 3), (3, 3), (3, 20)))
    noise = torch.randn(30, 20, generator=g, dtype=torch.float64)
    matrix = (W @ S @ G + 0.5 * noise).clamp(min=0)
    ours = ppnmf.log_evidence(TriFactor.for_data(matrix, 3), matrix, seed=0, progress=False)
    assert ours.method == "stepping_stone"
    assert abs(ours.log_evidence + 709.67) < max(1.0, 4 * ours.mcse)  # SMC from the prior: ± 0.09
