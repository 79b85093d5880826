"""The moves along the ridge under any rectified-normal priors."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from ppnmf.data.matrix import as_matrix
from ppnmf.gaussian import ridge
from ppnmf.gaussian.ridge import Priors, scale_move, shear_move, truncated
from ppnmf.kernels import natural
from ppnmf.models import ExponentialGaussian, HalfNormalGaussian, TruncatedNormalGaussian
from ppnmf.priors import Natural
from ppnmf.rng import Stream
from tests.scenarios import uneven

N, D, K, C = 9, 6, 4, 3
MODELS = [ExponentialGaussian, HalfNormalGaussian, TruncatedNormalGaussian]


def priors_of(model):
    return Priors(model.prior("W").natural("cpu"), model.prior("H").natural("cpu"))


def factors(seed=0):
    u = Stream.of(seed, C).uniforms(0, 0, range(N + D), K)
    return -u[:, :N].log(), -u[:, N:].log().mT


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", MODELS)
def test_compiled_moves_are_the_reference_s(kind, dtype):
    priors, stream = priors_of(uneven(kind, N, D, K)), Stream.of(2, C)
    W, H = (F.to(dtype) for F in factors())
    ours = ridge.compiled(W, H, priors, stream, 5)
    wanted = shear_move(*scale_move(W, H, priors, stream, 5), priors, stream, 5)
    for F, reference in zip(ours, wanted, strict=True):
        assert F.dtype == dtype
        torch.testing.assert_close(F, reference, rtol=1e-4 if dtype == torch.float32 else 1e-9, atol=1e-6)


@pytest.mark.parametrize("kind", MODELS)
def test_moves_leave_the_product_and_keep_the_factors_nonnegative(kind):
    model, (W, H) = uneven(kind, N, D, K), factors()
    moved_W, moved_H = ridge.moved(model.prior, as_matrix(torch.ones(N, D)), W, H, Stream.of(1, C), 3)
    torch.testing.assert_close(moved_W @ moved_H, W @ H, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(moved_W, W, rtol=0.01)
    assert float(moved_W.min()) >= 0 and float(moved_H.min()) >= 0
    kept_W, kept_H = ridge.moved(model.prior, as_matrix(torch.ones(N, D)), W, H, Stream.of(1, C), 3, first=2)
    assert torch.equal(kept_W[..., :2], W[..., :2]) and torch.equal(kept_H[:, :2], H[:, :2])
    torch.testing.assert_close(kept_W @ kept_H, W @ H, rtol=1e-10, atol=1e-12)


def test_half_normal_and_exponential_scales_are_what_the_slice_step_leads_to():
    """The slice step is invariant: started from exact draws of the scale it gives draws of it."""
    n = 20_000
    for kind in (ExponentialGaussian, HalfNormalGaussian):
        priors = priors_of(kind(1))
        W, H = torch.full((n, 3, 1), 0.7, dtype=torch.float64), torch.full((n, 1, 2), 1.3, dtype=torch.float64)
        W, H = scale_move(W, H, priors, Stream.of(0, n), 1)
        as_other = Priors(Natural(*(v + 0.0 for v in priors.W)), priors.H)
        c = ridge._sliced(1, _sums(as_other, W, H), 4 / math.sqrt(5), Stream.of(1, n), 2).exp()
        before, after = W[:, 0, 0].log(), (W[:, 0, 0] * c[:, 0]).log()
        assert stats.ks_2samp(before.numpy(), after.numpy()).pvalue > 1e-4


def _sums(priors, W, H):
    A, B = (priors.W.precision * W.square()).sum(-2), (priors.W.linear * W).sum(-2)
    return [A, B, (priors.H.precision * H.square()).sum(-1), (priors.H.linear * H).sum(-1)]


SHAPES = [
    (1.0, 0.0, -1.0, 2.0),
    (1.0, 3.0, -1.0, 2.0),  # the mode lies beyond an end
    (4.0, -60.0, -0.1, 5.0),  # far in the tail
    (1e-6, 0.5, -1.0, 1.0),
    (2.0, 1.0, -math.inf, 0.5),
    (2.0, 30.0, -0.5, math.inf),
    (1e8, 0.0, -1e-3, 2e-3),
    (1.0, 1e4, -1e-5, 1e-5),
    (3.0, -1e5, -0.3, 0.7),
    (0.0, 1.5, -1.0, 2.0),
    (0.0, -0.5, -1.0, math.inf),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_truncated_normal_has_its_distribution_function(shape):
    square, slope, low, high = shape
    u = torch.tensor([0.001, 0.02, 0.3, 0.5, 0.8, 0.97, 0.999], dtype=torch.float64)
    t = truncated(*(torch.full_like(u, value) for value in shape), u)
    compiled = [natural.truncated(*shape, float(value)) for value in u]
    torch.testing.assert_close(t, torch.tensor(compiled, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    peak = min(max(slope / square if square else math.copysign(math.inf, slope), low), high)
    density = lambda x: math.exp(-0.5 * square * (x - peak) * (x + peak) + slope * (x - peak))
    scale = 1 / math.sqrt(square + (slope - square * peak) ** 2)
    start, end = max(low, peak - 60 * scale), min(high, peak + 60 * scale)
    mass = lambda a, b: integrate.quad(density, a, b, points=[p for p in (peak,) if a < p < b], limit=400)[0]
    total = mass(start, end)
    below = np.array([mass(start, min(max(float(value), start), end)) / total for value in t])
    share = u.numpy() if below[-1] > below[0] else 1 - u.numpy()
    np.testing.assert_allclose(below, share, atol=3e-7)


def test_a_component_that_is_zero_throughout_stays():
    model, (W, H) = uneven(HalfNormalGaussian, N, D, K), factors()
    W[..., 1], H[:, 1] = 0.0, 0.0
    moved_W, moved_H = ridge.moved(model.prior, as_matrix(torch.ones(N, D)), W, H, Stream.of(1, C), 3)
    torch.testing.assert_close(moved_W @ moved_H, W @ H, rtol=1e-10, atol=1e-12)
    assert bool(moved_W.isfinite().all()) and bool(moved_H.isfinite().all())
