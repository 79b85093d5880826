"""The moves under half-normal and truncated normal priors proved right, and mistakes planted in them found."""

import pytest
import torch

from ppnmf.diagnostics.calibration import geweke, sbc
from ppnmf.gaussian import ridge
from ppnmf.gaussian.ridge import Priors, scale_move, shear_move
from ppnmf.inference import gibbs
from ppnmf.models import HalfNormalGaussian, TruncatedNormalGaussian
from ppnmf.priors import Natural
from tests.scenarios import LUCK, mask_of, uneven

CAUGHT = 1e-9  # what a mistake must be less likely than
KINDS = [HalfNormalGaussian, TruncatedNormalGaussian]


def scale_with_one_power_too_many(W, H, priors, stream, step):
    """c^(N-D) for c^(N-D-1): what a further row of zeros does."""
    W, H = scale_move(W, H, priors, stream, step, N=W.shape[-2] + 1)
    return shear_move(W, H, priors, stream, step)


def shear_with_swapped_components(W, H, priors, stream, step):
    """The priors of l for those of k and the reverse: with two components, both sets of priors reversed."""
    swapped = Priors(
        Natural(*(values.flip(1) for values in priors.W)), Natural(*(values.flip(0) for values in priors.H))
    )
    W, H = scale_move(W, H, priors, stream, step)
    return shear_move(W, H, swapped, stream, step)


def shear_without_curvature(W, H, priors, stream, step):
    """The precision left out: the truncated normal taken for an exponential."""
    straight = Priors(*(Natural(torch.zeros_like(own.precision), own.linear - own.precision) for own in priors))
    W, H = scale_move(W, H, priors, stream, step)
    return shear_move(W, H, straight, stream, step)


def scale_of_c_for_that_of_its_square(W, H, priors, stream, step):
    """p = N - D for (N - D) / 2: the half-normal's conditional is of c²."""
    N, D = W.shape[-2], H.shape[-1]
    W, H = scale_move(W, H, priors, stream, step, N=2 * N - D)
    return shear_move(W, H, priors, stream, step)


MISTAKES = {
    "one power of c too many": scale_with_one_power_too_many,
    "components swapped in the shear": shear_with_swapped_components,
    "no curvature in the shear": shear_without_curvature,
    "c for c²": scale_of_c_for_that_of_its_square,
}


def judged(kind, shape, sweeps, chains=200, mask=None):
    return geweke(uneven(kind, *shape, 2), shape, sweeps=sweeps, chains=chains, seed=1, mask=mask)


CASES = [
    (HalfNormalGaussian, (4, 3), "one power of c too many"),
    (HalfNormalGaussian, (3, 5), "components swapped in the shear"),
    (HalfNormalGaussian, (4, 3), "no curvature in the shear"),
    (HalfNormalGaussian, (3, 5), "c for c²"),
    (TruncatedNormalGaussian, (4, 3), "one power of c too many"),
    (TruncatedNormalGaussian, (3, 5), "components swapped in the shear"),
]


@pytest.mark.parametrize(("kind", "shape", "mistake"), CASES)
def test_a_planted_mistake_in_a_move_is_found(kind, shape, mistake, monkeypatch):
    monkeypatch.setattr(ridge, "compiled", MISTAKES[mistake])
    assert judged(kind, shape, sweeps=80).p_value < CAUGHT


def sampled(model, X, seed):
    return gibbs.run(model, X, draws=31, thin=3, warmup=40, chains=len(X.each), seed=seed, init="prior", progress=False)


@pytest.mark.parametrize("mask", [None, mask_of((3, 2))], ids=["full", "masked"])
@pytest.mark.parametrize("kind", KINDS)
def test_ranks_of_the_truth_are_uniform(kind, mask):
    model = uneven(kind, 3, 2, 2, 2.0, 8.0)
    found = sbc(model, (3, 2), sampled, 200, seed=1, mask=mask, at_once=100)
    assert found.p_value > LUCK, found.worst


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(4, 3), (3, 5)], ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
@pytest.mark.parametrize("kind", KINDS)
def test_long_runs_leave_the_joint_invariant(kind, shape, masked):
    found = judged(kind, shape, 500, 400, mask_of(shape) if masked else None)
    assert found.p_value > LUCK, found.worst
