"""Evidence over modes: the sum of what distinct ones hold, whatever number of runs fell into each."""

import math

import numpy as np
import pytest
import torch

import ppnmf
from ppnmf.data.matrix import as_matrix
from ppnmf.evidence import Evidence, chib, stepping_stone
from ppnmf.evidence.distinct import centre, distinct, nearest, pooled
from ppnmf.evidence.estimate import Mode
from ppnmf.inference import gibbs
from ppnmf.models import ExponentialGaussian
from tests.diagnostics.test_modes import MODEL, blocks, by_quadrature, starts
from tests.scenarios import drawn

pytestmark = pytest.mark.filterwarnings("ignore:log_evidence by")  # short runs
LESSER, GREATER = by_quadrature()
SHORT = {"draws": 200, "thin": 2, "warmup": 60, "progress": False}


def data(**heights):
    X, noise = blocks(**heights)
    return as_matrix(X, noise=noise)


def begun(which):
    """Where replicates begin that are in the modes of these chains of `starts`."""
    return {site: values[list(which)] for site, values in starts().items()}


def test_chib_gives_the_sum_of_both_modes_and_each_ones_mass():
    evidence = chib.run(MODEL, data(), replicates=4, init=starts(), **SHORT)
    assert abs(evidence.log_evidence - np.logaddexp(LESSER, GREATER)) < 4 * evidence.mcse + 0.01
    for mode, exact in zip(evidence.modes, (GREATER, LESSER), strict=True):
        assert abs(mode.log_evidence - exact) < 4 * mode.mcse + 0.02 and len(mode.replicates) == 2
    assert "the sum over 2 distinct modes" in str(evidence) and not evidence.failed


def test_replicates_in_a_lesser_mode_lower_nothing_and_a_lone_one_is_given_more():
    """Three of four in the lesser mode: the mean of the logs would be low by 2.7 nats."""
    evidence = chib.run(MODEL, data(), replicates=4, init=begun((0, 1, 3, 0)), **SHORT)
    assert abs(evidence.log_evidence - np.logaddexp(LESSER, GREATER)) < 4 * evidence.mcse + 0.01
    assert [len(mode.replicates) for mode in evidence.modes] == [3, 3] and 0 < evidence.mcse < 0.1
    assert np.mean([*evidence.modes[0].replicates[:1], *evidence.modes[1].replicates]) < GREATER - 2.5


def test_stepping_stones_give_the_sum_too(monkeypatch):
    def settled(model, X, warmup, seed, progress):
        return gibbs.run(model, X, draws=50, warmup=warmup, chains=4, init=starts(), seed=seed, progress=False)

    monkeypatch.setattr(stepping_stone, "weighed", settled)
    few = {"particles": 100, "draws": 300, "warmup": 100, "replicates": 4, "progress": False}
    evidence = stepping_stone.run(MODEL, data(), **few)
    for mode, exact in zip(evidence.modes, (GREATER, LESSER), strict=True):
        assert abs(mode.log_evidence - exact) < max(0.3, 3 * mode.mcse)
    assert abs(evidence.log_evidence - np.logaddexp(LESSER, GREATER)) < max(0.3, 3 * evidence.mcse)


def test_a_mode_is_counted_once_where_chains_take_it_for_two(monkeypatch):
    """Chains of one mode, taken for two: particles share it between them, and the sum is what it was."""
    X = as_matrix(drawn(12, 5, 1, seed=3)[0].abs())
    model, few = ExponentialGaussian(2), {"particles": 60, "draws": 150, "warmup": 100, "progress": False}
    whole = stepping_stone.run(model, X, **few)
    monkeypatch.setattr(stepping_stone, "distinct", lambda post, classes: [(0, 1), (2, 3)])
    halves = stepping_stone.run(model, X, **few)
    assert len(whole.modes) == 1 and len(halves.modes) == 2
    assert abs(halves.log_evidence - whole.log_evidence) < max(0.4, 4 * math.hypot(whole.mcse, halves.mcse))


def test_chains_that_visit_each_other_are_in_one_mode(monkeypatch):
    X = as_matrix(drawn(12, 5, 1, seed=3)[0].abs())
    post = gibbs.run(ExponentialGaussian(2), X, draws=60, warmup=100, chains=3, progress=False)
    monkeypatch.setattr("ppnmf.diagnostics.modes.groups", lambda post, n: ((0,), (1,), (2,)))
    assert distinct(post) == [(0, 1, 2)]


def test_modes_are_told_apart_and_the_highest_comes_first():
    X = data()
    post = gibbs.run(MODEL, X, draws=60, warmup=60, chains=4, init=starts(), progress=False)
    assert distinct(post) == [(1, 2), (0, 3)]
    centres = [centre(pooled(post, chains), [0, 0]) for chains in ((1, 2), (0, 3))]
    assert not bool(nearest(pooled(post, (1, 2)), centres, [0, 0]).any()) and bool(
        nearest(pooled(post, (0, 3)), centres, [0, 0]).all()
    )
    few = gibbs.run(MODEL, X, draws=20, warmup=60, chains=4, init=starts(), progress=False)
    assert distinct(few) == [(0, 1, 2, 3)], "too few draws to tell"


@pytest.mark.parametrize("lost", [True, False])
def test_smc_says_when_its_particles_missed_the_best_mode(lost):
    """Two particles fall into one mode or the other; both runs of the first seed end in the lesser one."""
    X = data(heights=(5.0, 6.5))
    options = {"particles": 2, "sweeps": 1} if lost else {"particles": 200}
    evidence = ppnmf.log_evidence(MODEL, X, method="smc", replicates=2, seed=5, progress=False, **options)
    said = [
        warning
        for warning in evidence.warnings
        if "nats below chains begun at the best of a survey's starts" in warning
    ]
    assert bool(said) == lost and (evidence.attrs["below"] > 10) == lost
    if not lost:
        assert (
            ppnmf.log_evidence(MODEL, X, method="smc", replicates=2, particles=20, warmup=0, progress=False).attrs[
                "below"
            ]
            == 0
        )


def test_the_error_of_a_sum_counts_each_mode_by_its_share():
    modes = [Mode(-12.0, 0.5, (-12.5, -11.5), -3.0), Mode(-10.0, 0.1, (-10.1, -9.9), -2.0)]
    evidence = Evidence.over(modes, method="chib", rank=1, priors={}, seconds=0.0)
    share = 1 / (1 + math.exp(-2))
    assert evidence.log_evidence == pytest.approx(-10 - math.log(share))
    assert evidence.mcse == pytest.approx(math.hypot(0.1 * share, 0.5 * (1 - share)))
    assert evidence.modes[0].log_evidence == -10 and evidence.replicates == (-10.1, -9.9, -12.5, -11.5)
    alone = Evidence.over(modes[1:], method="chib", rank=1, priors={}, seconds=0.0)
    assert alone.log_evidence == -10 and alone.mcse == 0.1


def test_modes_come_back_from_json():
    mode = Mode(-10.0, 0.1, (-10.1, -9.9), -2.0)
    evidence = Evidence.over([mode], method="chib", rank=1, priors={}, seconds=0.0)
    read = Evidence(**{**evidence.__dict__, "modes": [[-10.0, 0.1, [-10.1, -9.9], -2.0]]})
    assert read == evidence and read.modes == (mode,) and torch.tensor(read.modes[0].replicates).numel() == 2
