"""The Poisson sampler proved right, and mistakes planted in it found: Geweke's joint test, SBC, quadrature, and NUTS."""

import pytest
import torch

import ppnmf
from ppnmf.diagnostics.calibration import geweke, sbc
from ppnmf.inference import gibbs
from ppnmf.models import GammaPoisson
from ppnmf.poisson import allocation, scale, sweep
from ppnmf.rng import Site, Stream
from tests.inference.test_calibration import means_and_errors
from tests.poisson.exact import RankOne
from tests.scenarios import LUCK, mask_of, uneven_counts

SHAPES = [(4, 3), (3, 5)]
CAUGHT = 1e-9  # what a mistake must be less likely than


def logarithms(model, params, X, mask):
    """Of what has heavy tails; and the first moments."""
    W, H = params["W"], params["H"]
    return {"log W": W.log(), "log H": H.log(), "log WH": (W @ H).log(), "W": W, "H": H}


def judged(shape, sweeps=30, chains=150, seed=1, mask=None, **others):
    model = uneven_counts(GammaPoisson, *shape, 2, **others)
    return geweke(model, shape, gibbs.step, sweeps, seed, logarithms, mask, chains)


def test_prior_draws_have_the_moments_of_the_prior():
    model = uneven_counts(GammaPoisson, 3, 5, 2)
    draws = model.prior_draws((3, 5), 50_000, Stream.of(0))
    checks = []
    for site in ("W", "H"):
        size, rate = model.prior(site).on(torch.device("cpu"))
        mean, variance = size / rate, size / rate.square()
        checks += [(draws[site] - mean).flatten(1), ((draws[site] - mean).square() - variance).flatten(1)]
    every = torch.cat(checks, -1)
    z = every.mean(0) / (every.std(0) / len(every) ** 0.5)
    assert float(z.abs().max()) < 5.0


@pytest.mark.parametrize(
    "exposures", [1.0, torch.tensor([0.3, 1.0, 4.0]), torch.tensor([[0.3], [1.0], [2.0], [5.0]])], ids=str
)
def test_exposures_of_rows_and_columns_leave_the_joint_invariant(exposures):
    assert judged((4, 3), exposures=exposures).p_value > LUCK


def test_a_mask_over_even_exposures_leaves_the_joint_invariant():
    assert judged((4, 3), mask=mask_of((4, 3)), exposures=1.0).p_value > LUCK


@pytest.mark.slow
def test_the_plain_kernels_leave_the_joint_invariant(monkeypatch):
    monkeypatch.setenv("PPNMF_KERNEL", "reference")
    assert judged((3, 2), sweeps=30, chains=50, mask=mask_of((3, 2))).p_value > LUCK


class ExposedToOne:
    """Exposures that are left out of one factor."""

    def __init__(self, own, factor):
        self.own, self.factor = own, factor

    def over_columns(self, Ht):
        return Ht.sum(-2, keepdim=True) if self.factor == "W" else self.own.over_columns(Ht)

    def over_rows(self, W):
        return W.sum(-2, keepdim=True) if self.factor == "H" else self.own.over_rows(W)

    def of_counts(self, counts):
        return self.own.of_counts(counts)


@pytest.mark.parametrize("factor", ["W", "H"])
def test_exposures_left_out_of_a_factor_are_found(factor, monkeypatch):
    exposed = sweep.exposed
    monkeypatch.setattr(sweep, "exposed", lambda *given: ExposedToOne(exposed(*given), factor))
    assert judged((4, 3), sweeps=30).p_value < CAUGHT


@pytest.mark.parametrize("site", [Site.W, Site.H])
def test_a_shape_that_is_off_by_one_is_found(site, monkeypatch):
    drawn = sweep.gamma_draws

    def off(shape, rate, place, own, least):
        return drawn(shape + 1.0 if own is site else shape, rate, place, own, least)

    monkeypatch.setattr(sweep, "gamma_draws", off)
    assert judged((4, 3), sweeps=30).p_value < CAUGHT


def test_shares_by_one_factor_alone_are_found(monkeypatch):
    allocated = allocation.allocated
    monkeypatch.setattr(
        sweep, "allocated", lambda counts, W, Ht, place: allocated(counts, W, torch.ones_like(Ht), place)
    )
    assert judged((4, 3), sweeps=30).p_value < CAUGHT


def test_a_power_of_the_scale_too_many_is_found(monkeypatch):
    sums = scale.sums

    def off(*given):
        own = sums(*given)
        return own._replace(size_W=own.size_W + 1)

    monkeypatch.setattr(scale, "sums", off)
    assert judged((4, 3), sweeps=60, chains=200).p_value < CAUGHT


def sampled(model, X, seed):
    chains = len(X.each)
    return gibbs.run(model, X, draws=31, thin=3, warmup=30, chains=chains, seed=seed, init="prior", progress=False)


@pytest.mark.parametrize("mask", [None, mask_of((3, 2))], ids=["full", "masked"])
def test_ranks_of_the_truth_are_uniform(mask):
    model = uneven_counts(GammaPoisson, 3, 2, 2)
    found = sbc(model, (3, 2), sampled, 200, seed=1, mask=mask, at_once=100)
    assert found.p_value > LUCK, found.worst


X = torch.tensor([[3.0, 0.0], [11.0, 4.0], [0.0, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize("mask", [None, mask_of((3, 2))], ids=["full", "masked"])
def test_gibbs_matches_quadrature_at_rank_one(mask):
    model = uneven_counts(GammaPoisson, 3, 2, 1)
    exact = RankOne(model, X, mask)
    expected = torch.tensor([exact.mean(i, j) for i in range(3) for j in range(2)], dtype=torch.float64)
    post = ppnmf.fit(model, X, mask=mask, draws=1500, warmup=50, chains=4, seed=3, progress=False)
    means, errors = means_and_errors(post, lambda post: [(post.draws["W"] @ post.draws["H"]).flatten(2)])
    z = (means - expected) / errors
    assert float(z.abs().max()) < 4.5, z


@pytest.mark.slow
def test_gibbs_agrees_with_nuts():
    model = uneven_counts(GammaPoisson, 5, 4, 2, least=1.0)
    truth = model.prior_draws((5, 4), 1, Stream.of(4))
    counts = model.likelihood(truth).icdf(torch.full((1, 5, 4), 0.5))[0]
    functions = lambda post: [post.stats["lp"], (post.draws["W"] @ post.draws["H"]).flatten(2)]
    one = ppnmf.fit(model, counts, draws=5000, warmup=500, chains=4, seed=1, progress=False)
    two = ppnmf.fit(
        model, counts, method="nuts", draws=700, warmup=300, chains=2, max_tree_depth=6, seed=3, progress=False
    )
    (mean, error), (other, its_error) = means_and_errors(one, functions), means_and_errors(two, functions)
    z = (mean - other) / (error.square() + its_error.square()).sqrt()
    assert float(z.abs().max()) < 5.5, z


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
def test_long_runs_leave_the_joint_invariant(shape, masked):
    found = judged(shape, sweeps=300, chains=300, seed=8, mask=mask_of(shape) if masked else None)
    assert found.p_value > LUCK, found.worst
