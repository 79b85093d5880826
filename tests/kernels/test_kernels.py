"""The compiled kernels against the reference, and the reference against the distributions it claims."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from numba import njit
from scipy.stats import invgamma, kstest

from ppnmf.distributions import RectifiedNormal
from ppnmf.kernels import cpu, kernels_for, reference
from ppnmf.kernels.lanes import COMPILED, inner, total_of
from ppnmf.protocols import Statistics
from ppnmf.rng import Site, Stream

C, N, D, K = 4, 7, 5, 3


def problem(dtype=torch.float64):
    stream = Stream.of(1, C)
    u = stream.uniforms(0, Site.DATA, range(N + D + N), max(K, D))
    W, H, X = u[:, :N, :K], u[:, N : N + D, :K].mT, 3 * u[0, N + D :, :D]
    weight = torch.tensor([0.1, 1.0, 10.0, 1e4], dtype=torch.float64)[:, None, None]
    statistics = Statistics((weight * (X @ H.mT)).to(dtype), (weight * (H @ H.mT)).to(dtype))
    return stream, W.to(dtype).contiguous(), H.to(dtype).contiguous(), statistics


def priors():
    one = torch.ones(1, 1, dtype=torch.float64)
    per_entry = torch.linspace(0.5, 2, N * K, dtype=torch.float64).reshape(N, K)
    per_component = torch.tensor([[0.5, 1.0, 20.0]], dtype=torch.float64)
    return {
        "exponential": (0 * one, -one),
        "exponential per component": (0 * one, -per_component),
        "truncated normal per entry": (per_entry, 3 * per_entry - 4),
    }


@pytest.mark.parametrize("prior", priors().values(), ids=priors())
@pytest.mark.parametrize("per_row", [False, True], ids=["one Q", "a Q per row"])
@pytest.mark.parametrize("first", [0, 1, 2])
def test_the_compiled_half_sweep_is_the_reference(prior, per_row, first):
    stream, W, _, (P, Q) = problem()
    if per_row:
        Q = Q[:, None] * torch.linspace(0.1, 2, N, dtype=Q.dtype)[:, None, None]
    for draw in (None, (stream, 3, Site.W)):
        slow, fast = (k.half_sweep(W, Statistics(P, Q), prior, draw, 2, first) for k in (reference, cpu))
        assert torch.equal(slow[..., :first], W[..., :first])
        torch.testing.assert_close(fast, slow, rtol=1e-11, atol=1e-14)
        assert not torch.equal(slow[..., first:], W[..., first:])


@pytest.mark.parametrize("kernels", [reference, cpu], ids=["reference", "cpu"])
def test_a_weight_is_taken_times_both_statistics(kernels):
    stream, W, _, statistics = problem()
    weight = torch.tensor([0.5, 1.0, 2.0, 30.0], dtype=torch.float64)
    prior, draw = priors()["exponential"], (stream, 3, Site.W)
    within = kernels.half_sweep(W, statistics, prior, draw, weight=weight)
    before = kernels.half_sweep(W, statistics.weighted(weight), prior, draw)
    torch.testing.assert_close(within, before, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("prior", priors().values(), ids=priors())
@pytest.mark.parametrize("per_row", [False, True], ids=["one Q", "a Q per row"])
def test_the_compiled_reflection_is_the_reference(prior, per_row):
    """From a draw: a point far out would be reflected to one next to zero, of which rounding leaves little."""
    stream, W, _, (P, Q) = problem()
    if per_row:
        Q = Q[:, None] * torch.linspace(0.1, 2, N, dtype=Q.dtype)[:, None, None]
    drawn = reference.half_sweep(W, Statistics(P, Q), prior, (stream, 4, Site.W), 2, fresh=4)
    assert torch.equal(drawn, reference.half_sweep(W, Statistics(P, Q), prior, (stream, 4, Site.W), 2))
    draw = (stream, 5, Site.W)
    slow, fast = (k.half_sweep(drawn, Statistics(P, Q), prior, draw, 2, 1, fresh=4) for k in (reference, cpu))
    assert torch.equal(slow[..., :1], drawn[..., :1])
    torch.testing.assert_close(fast, slow, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kernels", [reference, cpu], ids=["reference", "cpu"])
def test_a_reflected_entry_lies_as_far_up_its_conditional_as_it_lay_down(kernels):
    """In every range: bounds from far below the mode to far past it, and no data at all."""
    u = torch.linspace(0.001, 0.999, 97, dtype=torch.float64)
    bound = torch.tensor([-1e3, -30.0, -6.0, -4.0, -0.5, 0.0, 0.5, 4.0, 6.0, 30.0, 1e3, 1e9], dtype=torch.float64)
    precision = torch.tensor([3.0, 0.2], dtype=torch.float64)
    a, b, u = torch.broadcast_tensors(precision[:, None, None], -bound[:, None] * precision.sqrt()[:, None, None], u)
    a, b = torch.cat([a.flatten(), torch.zeros(97)]), torch.cat([b.flatten(), torch.full((97,), -2.0)])
    u = torch.cat([u.flatten(), u[0, 0]])
    law = RectifiedNormal(a, b)
    nothing = Statistics(torch.zeros(1, len(a), 1, dtype=torch.float64), torch.zeros(1, 1, 1, dtype=torch.float64))
    prior = a[:, None], b[:, None]
    below = law.survival_inverse(u)[None, :, None]
    reflected = kernels.half_sweep(below, nothing, prior, (Stream.of(0), 1, Site.W), fresh=2)
    torch.testing.assert_close(law.survival(reflected[0, :, 0]), 1 - u, rtol=0, atol=1e-9)
    torch.testing.assert_close(reflected[0, :, 0], law.survival_inverse(1 - u), rtol=1e-7, atol=0)


def test_half_sweeps_in_single_precision_agree_to_its_rounding():
    stream, W, _, statistics = problem(torch.float32)
    prior = priors()["exponential"]
    for draw in (None, (stream, 3, Site.W)):
        slow, fast = (k.half_sweep(W, statistics, prior, draw) for k in (reference, cpu))
        assert slow.dtype == fast.dtype == torch.float32
        torch.testing.assert_close(fast, slow, rtol=2e-3, atol=1e-5)


def test_a_block_of_rows_gets_the_draws_of_the_whole():
    stream, W, _, (P, Q) = problem()
    prior, draw = priors()["exponential"], (stream, 9, Site.W)
    whole = cpu.half_sweep(W, Statistics(P, Q), prior, draw)
    part = cpu.half_sweep(W[:, 3:6], Statistics(P[:, 3:6], Q), prior, draw, first_row=3)
    assert torch.equal(part, whole[:, 3:6])


@pytest.mark.parametrize("kernels", [reference, cpu], ids=["reference", "cpu"])
def test_a_dead_component_follows_its_prior_and_a_flat_one_stays(kernels):
    stream, W, _, (P, Q) = problem()
    nothing = Statistics(torch.zeros_like(P), torch.zeros_like(Q))
    u = stream.uniforms(3, Site.W, range(N), K)
    rate = torch.full((1, 1), 2.0, dtype=torch.float64)
    drawn = kernels.half_sweep(W, nothing, (0 * rate, -rate), (stream, 3, Site.W))
    torch.testing.assert_close(drawn, -u.log() / 2)
    assert torch.equal(kernels.half_sweep(W, nothing, (0 * rate, 0 * rate), None), W)


@pytest.mark.parametrize("shape", [0.2, 1.0, 4.5, 4001.0])
def test_inverse_gamma_draws_follow_the_law(shape):
    stream, scale = Stream.of(2, 500), torch.linspace(0.5, 5, 500, dtype=torch.float64)
    slow = torch.cat([reference.inverse_gamma(shape, scale, stream, step) / scale for step in range(4)])
    fast = torch.cat([cpu.inverse_gamma(shape, scale, stream, step) / scale for step in range(4)])
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=0)
    assert kstest(slow.numpy(), invgamma(shape).cdf).pvalue > 1e-4


@pytest.mark.parametrize("tall", [True, False])
@pytest.mark.parametrize("per_entry", [True, False])
def test_the_compiled_moves_are_the_reference_and_leave_the_product(tall, per_entry):
    stream, W, H, _ = problem()
    if not tall:
        W, H = H.mT.contiguous(), W.mT.contiguous()
    rates = (torch.ones(1, 1, dtype=torch.float64), torch.full((1, 1), 3.0, dtype=torch.float64))
    if per_entry:
        rates = (0.5 + W[0].abs().clone(), 0.5 + H[1].abs().clone())
    for name in ("scale_move", "shear_move", "moved"):
        for step in range(3):
            slow, fast = (getattr(k, name)(W, H, rates, stream, step) for k in (reference, cpu))
            for mine, theirs in zip(fast, slow, strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(slow[0] @ slow[1], W @ H)
            assert not torch.allclose(slow[0], W)
            assert float(slow[0].min()) >= 0 and float(slow[1].min()) >= 0


def test_the_environment_forces_the_reference(monkeypatch):
    assert kernels_for(torch.device("cpu")) is cpu
    monkeypatch.setenv("PPNMF_KERNEL", "reference")
    assert kernels_for(torch.device("cpu")) is reference


@njit(**{**COMPILED, "cache": False})
def sums(F, G):
    return total_of(F), inner(F, G)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 100])
def test_sums_over_lanes_are_the_sums(n, dtype):
    F, G = np.random.default_rng(n).random((2, n + 1)).astype(dtype)[:, 1:]  # rows that do not begin at a full address
    exact = (
        F.astype(float).sum(),
        (F.astype(float) * G).sum() if dtype is np.float64 else F.astype(float) @ G.astype(float),
    )
    np.testing.assert_allclose(sums(F, G), exact, rtol=1e-14)


def test_no_compiled_function_is_allowed_to_round_otherwise_than_written():
    assert COMPILED["fastmath"].isdisjoint({"fast", "contract", "reassoc", "arcp", "afn"})


BITS = """
import sys, numpy as np, ppnmf
X = np.random.default_rng(0).gamma(1.0, size=(60, 4)) @ np.random.default_rng(1).gamma(1.0, size=(4, 15))
masks = {"plain": None, "masked": np.random.default_rng(2).random(X.shape) < 0.8}
for kind in sys.argv[1:]:
    model = ppnmf.models.ExponentialGaussian(3)
    draws = ppnmf.fit(model, X, mask=masks[kind], draws=200, warmup=50, chains=2, progress=False).draws
print([float(values.sum()).hex() for values in draws.values()])
"""


@pytest.mark.slow
@pytest.mark.parametrize("other, kind", [("masked", "plain"), ("plain", "masked")])
def test_fresh_and_cached_compilations_give_the_same_bits_whatever_ran_before(other, kind, tmp_path):
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    commands = ([sys.executable, "-c", BITS, *kinds] for kinds in ([kind], [other, kind]))
    fresh, cached = (subprocess.run(c, env=env, capture_output=True, text=True, check=True).stdout for c in commands)
    assert fresh == cached and "0x" in fresh
