"""Modes as things: chains are grouped by them, masses are right where they are known, and weights go into every reader."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import special

import ppnmf
from ppnmf.diagnostics.modes import Masses, groups, mode_masses, stacking_weights
from ppnmf.matching import apart, furthest_apart
from ppnmf.models import ExponentialGaussian
from tests.evidence.exact import LOG_2PI, log_half_line
from tests.scenarios import drawn

QUIET = {"progress": False, "seed": 1}
ROWS = 3  # of each of two blocks, of which a single component can follow one
SURE = 0.3  # relative noise variance of the cells outside the blocks: what keeps the modes apart


def blocks(heights=(5.0, 5.04), noise=0.3):
    """Two blocks beside each other (2 · ROWS, 2), a column each, and the relative noise of their cells."""
    X = torch.zeros(2 * ROWS, 2, dtype=torch.float64)
    relative = torch.full_like(X, SURE)
    for block, height in enumerate(heights):
        own = slice(ROWS * block, ROWS * (block + 1))
        X[own, block], relative[own, block] = height, 1.0
    drawn = torch.randn(X.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return (X + noise * relative.sqrt() * drawn).abs(), relative


def starts(rows=ROWS):
    """One chain in either block, and two more."""
    W = torch.full((4, 2 * rows, 1), 1e-3, dtype=torch.float64)
    H = torch.full((4, 1, 2), 1e-3, dtype=torch.float64)
    for chain, block in enumerate((0, 1, 1, 0)):
        W[chain, rows * block : rows * (block + 1)] = 2.0
        H[chain, :, block] = 2.0
    return {"W": W, "H": H}


MODEL = ExponentialGaussian(
    1, 0.5, 0.5, 1000.0, 1000.0
)  # of little doubt about the noise, so that the modes stay apart


@pytest.fixture(scope="module")
def post():
    X, noise = blocks()
    return ppnmf.fit(MODEL, X, noise=noise, init=starts(), draws=400, warmup=100, chains=4, **QUIET)


@pytest.fixture(scope="module")
def masses(post):
    return mode_masses(post, draws=300, replicates=4, predictive=True, **QUIET)


def test_chains_that_share_a_mode_are_together(post):
    assert groups(post) == ((0, 3), (1, 2))
    assert groups(post.select(chains=(1, 2))) == ((0, 1),) and groups(post.select(chains=(3,))) == ((0,),)


def test_chains_of_one_mode_are_one_group_whatever_the_order_of_their_components():
    data = drawn(30, 20, 3, rate=0.3, noise=0.5)[0].abs()
    post = ppnmf.fit(ExponentialGaussian(3, 0.3, 0.3), data, draws=200, warmup=300, chains=3, **QUIET)
    assert groups(post) == ((0, 1, 2),)


def test_each_mode_has_the_mass_that_quadrature_gives(masses):
    assert masses.groups == ((1, 2), (0, 3)), "the higher block weighs more"
    for log_mass, error, wanted in zip(masses.log_mass, masses.error, reversed(by_quadrature()), strict=True):
        assert error < 0.1 and abs(log_mass - wanted) < 4 * error + 0.01


def by_quadrature():
    """log ∫ p(X, W, h, σ²) where h is greater in the one column, and where it is in the other; W integrated row by row."""
    X, noise = (values.numpy() for values in blocks())
    rate, alpha, theta = 0.5, MODEL.noise_shape, MODEL.noise_scale
    one, other, log_s = np.meshgrid(
        np.arange(-12, 3, 0.06), np.arange(-12, 3, 0.06), np.arange(-0.25, 0.25, 0.01), indexing="ij"
    )
    h, s = np.exp(np.stack([one, other], -1)), np.exp(log_s)
    total = alpha * math.log(theta) - math.lgamma(alpha) - (alpha + 1) * log_s - theta / s
    total += 2 * math.log(rate) - rate * h.sum(-1) + one + other + log_s
    for x, v in zip(X, noise, strict=True):
        a, b = (h * h / v).sum(-1) / s, (h * x / v).sum(-1) / s - rate
        total += math.log(rate) + log_half_line(a, b) - 0.5 * (x * x / v).sum() / s - 0.5 * np.log(v).sum()
        total -= LOG_2PI + log_s  # of two cells, half each
    cell = math.log(0.06 * 0.06 * 0.01)
    return [float(special.logsumexp(total[side])) + cell for side in (one > other, one < other)]


def test_a_failed_estimate_has_no_weight(masses):
    failed = replace(masses, failed=("an estimate is not finite; try another", ""))
    with pytest.raises(
        ValueError, match="weights cannot be told: the mass of mode 0 has failed: an estimate is not finite"
    ):
        failed.weights  # noqa: B018
    assert "Failed: the mass of mode 0 has failed" in str(failed) and failed.to_dict()["weights"] is None


def test_weights_go_by_mass_and_each_mode_shares_its_own(masses):
    assert sum(masses.weights) == pytest.approx(1) and masses.weights[0] > masses.weights[1] > 0
    assert masses.weights[1] / masses.weights[0] == pytest.approx(math.exp(masses.log_mass[1] - masses.log_mass[0]))
    shares = masses.chain_weights
    assert shares[1] == shares[2] == masses.weights[0] / 2 and shares[0] == shares[3] == masses.weights[1] / 2
    told = str(masses)
    assert "0,3" in told and "what no chain reached has none" in told and "predictive" in told


def test_a_mode_far_below_has_no_weight_and_says_how_far():
    far = Masses(((0,), (1,)), (-301_707.0, -302_962.0), (1.0, 1.0))
    assert far.weights == (1.0, 0.0) and far.below == (0.0, 1255.0) and "e^-1255" in str(far)
    with pytest.raises(ValueError, match="stacking weights were not asked for"):
        far.predictive_chain_weights  # noqa: B018


# --- weights in what is read ---


def test_everything_that_is_asked_counts_chains_by_their_weights(post, masses):
    after = post.weighted(masses)
    weights = torch.tensor(masses.chain_weights, dtype=torch.float64)
    for site in ("W", "H", "sigma2"):
        exact = (post.draws[site].mean(1) * weights.view(-1, *[1] * (post.draws[site].ndim - 2))).sum(0)
        torch.testing.assert_close(after.mean(site), exact, rtol=0.05, atol=0.02)
    each = torch.stack([post.select(chains=(c,)).reconstruction() for c in range(4)])
    torch.testing.assert_close(after.reconstruction(), (each * weights[:, None, None]).sum(0), rtol=0.02, atol=0.02)
    own = (after.draws["H"][..., 0, 0] > after.draws["H"][..., 0, 1]).double().mean()
    assert float(own) == pytest.approx(masses.weights[1], abs=2 / 1600)
    replicates = after.predictive(seed=0)
    assert replicates.shape == (4, 400, 6, 2)
    torch.testing.assert_close(replicates.mean((0, 1)), after.reconstruction(), rtol=0.1, atol=0.1)


def test_arviz_is_given_the_draws_drawn_anew_and_told_so(post):
    one = post.weighted([0.0, 1.0, 0.0, 0.0])
    tree = one.to_datatree(log_likelihood=True)
    assert set(np.unique(tree["posterior"]["sigma2"])) == set(np.unique(post.draws["sigma2"][1]))
    assert one.attrs["weighted"] == [0.0, 1.0, 0.0, 0.0]
    said = ppnmf.summary(one)
    assert said.agree is None and "drawn anew, the sampler's chains by their weights (0, 1, 0, 0)" in said.sentence
    assert tree["log_likelihood"]["X"].shape == (4, 400, 6, 2)


def test_equal_weights_keep_every_draw(post):
    after = post.weighted([1, 1, 1, 1])
    assert torch.equal(after.stats["lp"].flatten().sort().values, post.stats["lp"].flatten().sort().values)
    assert not torch.equal(after.stats["lp"], post.stats["lp"])


@pytest.mark.parametrize("weights", [[1, 2], [1, 1, 1, -1], [0, 0, 0, 0], [1, 1, 1, float("nan")]])
def test_bad_weights_are_refused(weights, post):
    with pytest.raises(ValueError, match="give 4 numbers >= 0, one a chain, not all zero"):
        post.weighted(weights)


def test_stacking_weights_predict_and_are_no_masses(post, masses):
    assert sum(masses.predictive) == pytest.approx(1)
    assert stacking_weights(post, ((0, 1, 2, 3),)) == (1.0,)
    assert sum(masses.predictive_chain_weights) == pytest.approx(1)


def test_modes_are_of_chains():
    mode = ppnmf.fit(MODEL, blocks()[0], method="icm", restarts=2, **QUIET)
    with pytest.raises(TypeError, match="modes are told apart by chains; icm left modes"):
        mode_masses(mode, progress=False)


def test_one_component_of_many_makes_another_mode():
    """Ten components of which one is another: little of W @ H, and nothing like it."""
    generator = torch.Generator().manual_seed(0)
    W, H = (torch.rand(*shape, generator=generator, dtype=torch.float64) for shape in ((40, 10), (10, 30)))
    W[:, 9] *= 0.5
    other = H.clone()
    other[9] = torch.rand(30, generator=generator, dtype=torch.float64)
    pair = torch.stack([W, W]), torch.stack([H, other])
    assert float(apart(*pair, W, H)[1]) < 0.02 < 0.1 < float(furthest_apart(*pair, W, H)[1])
    weak = W * torch.tensor([1.0] * 9 + [0.01])
    assert float(furthest_apart(weak[None], other[None], weak, H)) < 1e-3
    assert float(furthest_apart(*pair, W, H)[0]) == 0


# --- real data ---


@pytest.mark.slow
def test_modes_of_digits_that_lie_lower_weigh_nothing():
    """The best mode's mass is the one that stepping stones and longer runs of Chib give, and lesser modes' are far below.

    Without a survey chains end in different ones, and stay there.
    """
    X = ppnmf.datasets.load("digits").X
    rate = math.sqrt(10 / X.mean())
    model = ExponentialGaussian(10, rate, rate, 1.0, float(X.var()))
    post = ppnmf.fit(model, X, draws=500, warmup=500, seed=0, survey=0, progress=False)
    masses = mode_masses(post, progress=False)
    assert masses.groups == ((1, 2), (0,), (3,))
    assert abs(masses.log_mass[0] + 301_707) < 3 + 2 * masses.error[0]
    log_joints = [float(post.stats["lp"][list(group)].mean()) for group in masses.groups]
    for mode in (1, 2):
        assert 500 < masses.below[mode] < log_joints[0] - log_joints[mode]
    assert masses.weights[0] == 1.0
