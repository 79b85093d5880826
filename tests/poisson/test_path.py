"""Sweeps from a reference to the posterior of counts: exact at any power, and the evidence they lead to."""

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy import stats
from scipy.stats import t as student

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.diagnostics.calibration import geweke
from ppnmf.inference.chain import Info, State, log_joint
from ppnmf.kernels import metropolis as compiled
from ppnmf.models import GammaPoisson
from ppnmf.poisson import metropolis, path, sweep
from ppnmf.priors import Gamma
from ppnmf.protocols import Address, Sweeps
from ppnmf.rng import Site, Stream
from tests.poisson.exact import RankOne
from tests.poisson.test_calibration import CAUGHT, logarithms
from tests.poisson.test_evidence import SMALL, over_the_prior
from tests.scenarios import LUCK, mask_of, uneven_counts

X = torch.tensor([[3.0, 0.0], [11.0, 4.0], [0.0, 1.0], [2.0, 2.0]], dtype=torch.float64)


def step_of_chains(model, state, X, stream):
    """A sweep of every chain on the matrix of its own."""
    each = []
    for c, own in enumerate(X.each):
        params = {site: values[c : c + 1] for site, values in state.params.items()}
        at = Address(Stream((stream.keys[c],)), state.sweep)
        each.append(metropolis.swept(model._story, own, params, at, 1.0))
    params = {site: torch.cat([own[site] for own in each]) for site in state.params}
    return State(params, state.sweep + 1), Info(log_joint(model, X, params))


def judged(shape, mask=None, sweeps=20, chains=80):
    model = uneven_counts(GammaPoisson, *shape, 2)
    return geweke(model, shape, step_of_chains, sweeps, 3, logarithms, mask, chains)


@pytest.mark.parametrize("mask", [None, mask_of((3, 4))], ids=["full", "masked"])
def test_steps_entry_by_entry_leave_the_joint_invariant(mask):
    found = judged((3, 4), mask)
    assert found.p_value > LUCK, found.worst


MISTAKES = {
    "a rate": lambda exposed, size, rate: (exposed, size, 1.3 * rate),
    "exposures": lambda exposed, size, rate: (1.3 * exposed, size, rate),
    "a shape": lambda exposed, size, rate: (exposed, size + 0.3, rate),
}


@pytest.mark.slow
@pytest.mark.parametrize("wrong", MISTAKES)
def test_a_mistake_in_the_steps_is_found(wrong, monkeypatch):
    right = compiled.stepped

    def off(data, indices, starts, F, G, exposed, size, rate, *others):
        right(data, indices, starts, F, G, *MISTAKES[wrong](exposed, size, rate), *others)

    monkeypatch.setattr(compiled, "stepped", off)
    assert judged((3, 4), sweeps=40, chains=100).p_value < CAUGHT


@pytest.mark.parametrize("power", [0.1, 0.45, 1.0])
@pytest.mark.parametrize("size", [0.4, 3.0])
def test_an_entry_s_steps_have_its_conditional_at_any_power(power, size):
    """Many copies of one entry, against its density on a grid; the other component is fixed by its prior."""
    M, chains = 2000, 60
    x, g = np.array([4.0, 0.0, 31.0, 1.0]), np.array([[0.2, 1.0], [1.0, 1.0], [0.7, 3.0], [0.1, 0.05]])
    data, indices = np.tile(x[x > 0], M), np.tile(np.flatnonzero(x > 0).astype(np.int32), M)
    starts = np.arange(M + 1) * 3
    exposed = power * g.sum(0)[None] * np.array([[1.3, 1.3]])
    F = np.tile([1.0, 2.0], (M, 1))
    sizes, rates = np.tile([size, 1.0], (M, 1)), np.tile([0.8, 1.0], (M, 1))
    for step in range(chains):
        out = np.empty_like(F)
        address = (*Stream.of(7).keys[0], step, int(Site.W), 0)
        compiled.stepped(data, indices, starts, F, g, exposed, sizes, rates, power, address, 1e-150, out)
        F = np.column_stack([out[:, 0], np.full(M, 2.0)])
    u = np.linspace(-60, 8, 200_001)
    w = np.exp(u)
    logs = size * u - (0.8 + exposed[0, 0]) * w
    for count, (own, other) in zip(x, g, strict=True):
        logs = logs + power * count * np.log(own * w + 2.0 * other)
    mass = np.exp(logs - logs.max()).cumsum()
    assert stats.kstest(np.log(F[:, 0]), lambda v: np.interp(v, u, mass / mass[-1])).pvalue > LUCK


def test_sparse_and_dense_counts_take_the_same_steps():
    model, s = uneven_counts(GammaPoisson, 4, 2, 2), Stream.of(2, 3)
    dense, sparse = as_matrix(X), as_matrix(scipy.sparse.csr_array(X.numpy()))
    params = model.begin(dense, s, "prior")
    one, other = (metropolis.swept(model._story, own, params, Address(s, 1), 0.3) for own in (dense, sparse))
    for site in ("W", "H"):
        torch.testing.assert_close(one[site], other[site], rtol=1e-10, atol=0)


def test_a_reference_has_the_moments_of_the_draws_and_its_own_densities():
    model = GammaPoisson(2)
    draws = uneven_counts(GammaPoisson, 4, 3, 2).prior_draws((4, 3), 4000, Stream.of(1))
    r = path.fitted(draws, 1.5)
    torch.testing.assert_close(r.W.size / r.W.rate, draws["W"].mean(0))
    torch.testing.assert_close(r.H.size / r.H.rate.square(), 1.5 * draws["H"].var(0))
    some = {site: values[:5] for site, values in draws.items()}
    each = [
        torch.distributions.Gamma(own.size, own.rate).log_prob(some[site]) for site, own in (("W", r.W), ("H", r.H))
    ]
    torch.testing.assert_close(r.log_prob(some), sum(own.sum((-2, -1)) for own in each))
    torch.testing.assert_close(r.log_places(some).diagonal(dim1=1, dim2=2).sum(-1), r.log_prob(some))
    assert model.classes() == [0, 0] and uneven_counts(GammaPoisson, 4, 3, 2).classes() == [0, 1]
    ends = path.between(model._story, r, 0.25).prior("W")
    assert isinstance(ends, Gamma)
    torch.testing.assert_close(ends.size, 0.25 * torch.ones(4, 2).double() + 0.75 * r.W.size)


def estimate(model, X, **options):
    options = {"replicates": 6, "particles": 100, "draws": 2000, "warmup": 200, "progress": False} | options
    return ppnmf.log_evidence(model, X, method="stepping_stone", **options)


def assert_near(evidence, exact, error=0.0, least=0.05):
    limit = student.ppf(1 - 5e-5, len(evidence.replicates) - 1)
    assert abs(evidence.log_evidence - exact) < max(limit * np.hypot(evidence.mcse, error), least)
    assert evidence.mcse < 0.1


@pytest.mark.parametrize("mask", [None, mask_of((4, 2))], ids=["full", "masked"])
def test_stepping_stones_match_quadrature_at_rank_one(mask):
    model = uneven_counts(GammaPoisson, 4, 2, 1)
    assert_near(estimate(model, X, mask=mask), RankOne(model, X, mask).log_evidence())


@pytest.mark.slow
def test_stepping_stones_match_brute_force_at_rank_two():
    model = GammaPoisson(2, 0.8, 1.2, 1.0, 1.5)
    exact, error = over_the_prior(model, SMALL, 400_000)
    assert_near(estimate(model, SMALL), exact, error)


@pytest.mark.slow
def test_stepping_stones_agree_with_smc_by_time():
    generator = np.random.default_rng(3)
    counts = generator.poisson(3 * generator.gamma(0.7, size=(6, 2)) @ generator.gamma(0.7, size=(2, 5)))
    model = GammaPoisson.for_data(counts, 3)
    one = estimate(model, counts)
    other = ppnmf.log_evidence(model, counts, method="smc", particles=400, replicates=6, progress=False)
    assert abs(one.log_evidence - other.log_evidence) < 5 * np.hypot(one.mcse, other.mcse)


def test_the_log_likelihood_on_the_path_is_that_of_the_model():
    model, data, s = GammaPoisson(2), as_matrix(X), Stream.of(1, 4)
    r = model.reference(model.prior_draws((4, 2), 50, Stream.of(3)), 1.0)
    swept = model.sweep_between(r, r.draws(data, s), data, Sweeps(number=2, kept=range(1, 2), power=0.5), Address(s, 1))
    torch.testing.assert_close(swept.log_likelihood[:, 0], sweep.log_likelihood(model._story, data, swept.params))


def test_stepping_stones_of_counts_do_not_depend_on_the_data_s_floating_type():
    """In single precision much of a gamma distribution of a small shape lies below the least number that a factor has."""
    model, X = GammaPoisson(1, 0.05, 0.05, 1.0, 1.0), np.array([[5.0, 0.0], [0.0, 0.0]])
    short = {"particles": 10, "draws": 40, "warmup": 20, "replicates": 2, "progress": False}
    values = [
        ppnmf.log_evidence(model, X.astype(kind), method="stepping_stone", **short).value
        for kind in (np.float64, np.float32)
    ]
    assert values[0] == values[1]
