"""Sweeps that reflect entries of the factors in their conditionals: invariance, planted mistakes, who can, and what it gains."""

from functools import partial

import numpy as np
import pytest
import torch
from arviz_stats import ess

from ppnmf.data.matrix import as_matrix
from ppnmf.diagnostics.calibration import geweke
from ppnmf.gaussian import sweep
from ppnmf.inference import chain
from ppnmf.kernels import cpu, dense
from ppnmf.models import REGISTRY, ExponentialGaussian, HalfNormalGaussian, TruncatedNormalGaussian
from ppnmf.protocols import Sweeps
from ppnmf.rng import Stream
from tests.scenarios import LUCK, drawn, mask_of, uneven

MODELS = [ExponentialGaussian, HalfNormalGaussian, TruncatedNormalGaussian]
CAUGHT = 1e-9  # what a mistake must be less likely than


def judged(kind, sweeps=40, mask=None, shape=(3, 5)):
    """Two sweeps of three reflect, without moves that would hide what those do wrong."""
    model = uneven(kind, *shape, 2, noise_scale=0.5)
    return geweke(model, shape, partial(chain.step, fresh=3, moves=False), sweeps, 1, chains=200, mask=mask)


@pytest.mark.parametrize(("kind", "masked"), list(zip(MODELS, (False, False, True), strict=True)))
def test_sweeps_that_reflect_leave_the_joint_invariant(kind, masked):
    found = judged(kind, mask=mask_of((3, 5)) if masked else None)
    assert found.p_value > LUCK, found.worst


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_long_runs_leave_the_joint_invariant(kind):
    found = judged(kind, 1000, shape=(4, 3))
    assert found.p_value > LUCK, found.worst


def with_twice_the_weight(right, *arguments):
    """The noise's variance halved, where an entry is reflected and not where it is drawn."""
    *first, draw, first_row, component, weight, fresh = arguments
    return right(*first, draw, first_row, component, weight * (1 + (draw[1] % fresh != 0)), fresh)


def towards_zero(right, *arguments):
    """What is reflected lies nearer to zero than it should by a tenth."""
    after = right(*arguments)
    draw, fresh = arguments[3], arguments[-1]
    return after if draw[1] % fresh == 0 else 0.9 * after


@pytest.mark.parametrize("mistake", [with_twice_the_weight, towards_zero])
def test_a_planted_mistake_is_found(mistake, monkeypatch):
    monkeypatch.setattr(sweep, "compiled", lambda *arguments, **named: None)
    monkeypatch.setattr(cpu, "half_sweep", partial(mistake, cpu.half_sweep))
    assert judged(HalfNormalGaussian).p_value < CAUGHT


@pytest.mark.parametrize("collapsed", [(), ("H",)], ids=["alone", "with shears"])
def test_sweeps_of_one_chain_on_several_threads_give_the_same_bits(collapsed):
    X = as_matrix(drawn(20, 9, 3)[0].abs())
    model = uneven(ExponentialGaussian, 20, 9, 3)
    state = chain.init(model, X, Stream.of(3))
    whole = dense.Problem.of(X.plain, 4, X.sum_of_squares, *(model.prior(site).natural("cpu") for site in ("W", "H")))
    plan = dense.Plan(noise=(30.0, 1.0), collapsed=collapsed, fresh=3)
    one, other = (dense._Run.of(whole, state.params, (Stream.of(3), 1), plan) for _ in range(2))
    one.together(range(1), 4)
    for s in range(4):
        other.divided(s)
    for ours, theirs in zip(one.chains[:3], other.chains[:3], strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["exponential_gaussian", "ard_gaussian"])
def test_known_entries_are_not_reflected(name):
    model = REGISTRY[name](2)
    assert model.can_reflect()
    assert not model.holding({"H": torch.ones(1, 5)}).can_reflect()


def test_strengths_mix_in_fewer_sweeps():
    """Without other moves along the ridge, which go as far where X is small: draws walk at random, reflections go on."""
    u = Stream.of(0).uniforms(0, 0, range(100), 3)[0]
    W, H = 0.5 + u[:60], (0.5 + u[60:]).mT
    X = W @ H + 0.3 * torch.randn(60, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    model, data, stream = ExponentialGaussian.for_data(X, 3), as_matrix(X), Stream.of(0, 8)
    factors = {"W": W.expand(8, -1, -1), "H": H.expand(8, -1, -1)}
    begun, _, _ = chain.several(model, chain.init(model, data, stream, factors), data, stream, Sweeps(number=1000))
    effective = {}
    for fresh in (1, 4):
        asked = Sweeps(number=1000, kept=range(1000), moves=False, fresh=fresh)
        _, draws, _ = chain.several(model, begun, data, stream, asked)
        strengths = (draws["W"].norm(dim=-2) * draws["H"].norm(dim=-1)).log().numpy()
        effective[fresh] = sum(ess(own[None, :, k]) for own in strengths for k in range(3))
    assert effective[4] > 2 * effective[1], effective
