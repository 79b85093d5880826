"""The Triton kernels against the reference: in Triton's interpreter, or compiled where `--device cuda` is given."""

import importlib
import subprocess
import sys
import warnings

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ppnmf import kernels
from ppnmf.data.matrix import Dense, as_matrix
from ppnmf.distributions import RectifiedNormal
from ppnmf.inference import gibbs
from ppnmf.kernels import kernels_for, reference
from ppnmf.models import ExponentialGaussian
from ppnmf.protocols import Statistics
from ppnmf.rng import Site, Stream

triton = pytest.importorskip("triton")
# the interpreter computes with NumPy, which speaks up where a lane that is not taken divides by zero or overflows
pytestmark = pytest.mark.filterwarnings("ignore:(divide by zero|invalid value|overflow) encountered:RuntimeWarning")

C, N, D, K = 2, 37, 5, 3  # more rows than go through a half-sweep together


def forget(patch):
    """Take the kernels' modules from those that are imported; they come back when the patch ends."""
    for name in [name for name in sys.modules if name.startswith("ppnmf.kernels.cuda")]:
        patch.setitem(sys.modules, name, None)  # remembered, also for what is imported in its place
        patch.delitem(sys.modules, name)
    patch.setattr(kernels, "cuda", None, raising=False)
    patch.delattr(kernels, "cuda")


@pytest.fixture(scope="module")
def cuda(device):
    """The kernels: as they are where a GPU is asked for, else copies of their modules made for the interpreter."""
    from ppnmf.kernels import cuda

    if device.type == "cuda":
        return cuda
    with pytest.MonkeyPatch.context() as patch, triton.knobs.runtime.scope():
        triton.knobs.runtime.interpret = True
        forget(patch)
        return importlib.import_module("ppnmf.kernels.cuda")


def problem(device, dtype=torch.float64, rank=K):
    stream = Stream.of(1, C)
    u = stream.uniforms(0, Site.DATA, range(N + D + N), max(rank, D), device)
    W, H, X = u[:, :N, :rank], u[:, N : N + D, :rank].mT, 3 * u[0, N + D :, :D]
    weight = torch.tensor([0.1, 1e3], dtype=torch.float64, device=device)[:, None, None]
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
@pytest.mark.parametrize("draws", [False, True], ids=["mode", "draw"])
def test_the_half_sweep_is_the_reference(cuda, device, prior, per_row, draws):
    stream, W, _, (P, Q) = problem(device)
    prior = tuple(natural.to(device) for natural in prior)
    if per_row:
        Q = Q[:, None] * torch.linspace(0.1, 2, N, dtype=Q.dtype, device=device)[:, None, None]
    for first in range(K):
        address = ((2**32 + 2, first), (stream, 3, Site.W) if draws else None)
        slow, fast = (k.half_sweep(W, Statistics(P, Q), prior, address[1], *address[0]) for k in (reference, cuda))
        assert torch.equal(fast[..., :first], W[..., :first])
        torch.testing.assert_close(fast, slow, rtol=1e-11, atol=1e-14)
        assert not torch.equal(slow[..., first:], W[..., first:])


def test_half_sweeps_in_single_precision_agree_to_its_rounding(cuda, device):
    stream, W, _, statistics = problem(device, torch.float32)
    prior = tuple(natural.to(device) for natural in priors()["exponential"])
    for draw in (None, (stream, 3, Site.W)):
        slow, fast = (k.half_sweep(W, statistics, prior, draw) for k in (reference, cuda))
        assert slow.dtype == fast.dtype == torch.float32
        torch.testing.assert_close(fast, slow, rtol=2e-3, atol=1e-5)


def test_a_factor_is_left_alone_and_stored_a_component_a_row(cuda, device):
    stream, W, _, statistics = problem(device)
    before = W.clone()
    prior = tuple(natural.to(device) for natural in priors()["exponential"])
    assert cuda.half_sweep(W, statistics, prior, (stream, 3, Site.W)).mT.is_contiguous()
    assert torch.equal(W, before)


def test_a_block_of_rows_gets_the_draws_of_the_whole(cuda, device):
    stream, W, _, (P, Q) = problem(device)
    prior, draw = tuple(natural.to(device) for natural in priors()["exponential"]), (stream, 9, Site.W)
    whole = cuda.half_sweep(W, Statistics(P, Q), prior, draw)
    part = cuda.half_sweep(W[:, 3:36], Statistics(P[:, 3:36], Q), prior, draw, first_row=3)
    assert torch.equal(part, whole[:, 3:36])


def test_a_chain_gets_the_draws_that_it_gets_alone(cuda, device):
    stream, W, _, (P, Q) = problem(device)
    prior = tuple(natural.to(device) for natural in priors()["exponential"])
    together = cuda.half_sweep(W, Statistics(P, Q), prior, (stream, 9, Site.W))
    alone = cuda.half_sweep(W[1:], Statistics(P[1:], Q[1:]), prior, (Stream(stream.keys[1:]), 9, Site.W))
    assert torch.equal(together[1:], alone)


def test_draws_hold_from_the_exponential_limit_to_a_far_mode(cuda, device):
    """Every bound from 1e10 standard deviations past the mode, where the precision is nothing, to 1e8 before it."""
    bounds = torch.cat(
        [10.0 ** torch.arange(-3, 11), -(10.0 ** torch.arange(-3, 9)), torch.linspace(-9, 9, 50)]
    ).double()
    linear = -torch.cat([bounds, torch.ones(2, dtype=torch.float64)])
    precision = torch.ones_like(linear)
    precision[-2:] = torch.tensor([0.0, 1e-300])
    R = len(linear)
    prior = tuple(natural[:, None].to(device) for natural in (precision, linear))
    stream, W = Stream.of(5, 4), torch.zeros(4, R, 1, dtype=torch.float64, device=device)
    nothing = Statistics(torch.zeros_like(W), torch.zeros(4, 1, 1, dtype=torch.float64, device=device))
    slow, fast = (k.half_sweep(W, nothing, prior, (stream, 3, Site.W)) for k in (reference, cuda))
    assert bool((fast >= 0).all()) and bool(fast.isfinite().all())
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=0)


def test_draws_hold_for_uniforms_too_rare_to_be_met(cuda, device, monkeypatch):
    if device.type == "cuda":
        pytest.skip("the uniforms are replaced in the interpreter alone")
    R = 256
    u = torch.exp(-torch.arange(R, dtype=torch.float64) * 36 / R)[:, None].expand(R, 2) * 0.99  # down to 2^-52
    bounds = torch.tensor([[4.9, -2.0]], dtype=torch.float64)

    def rare(keys, pair, row, step, site):
        both = triton.language.exp(row.to(triton.language.float64) * (-36 / R)) * 0.99
        return both, both

    monkeypatch.setattr(cuda.rows, "uniform_pair", rare)
    W, one = torch.zeros(1, R, 2, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    nothing = Statistics(torch.zeros_like(W), torch.zeros(1, 2, 2, dtype=torch.float64))
    drawn = cuda.half_sweep(W, nothing, (one, -bounds), (Stream.of(0), 0, Site.W))
    torch.testing.assert_close(drawn[0], RectifiedNormal(one, -bounds).survival_inverse(u), rtol=1e-12, atol=1e-14)


def test_a_dead_component_follows_its_prior_and_a_flat_one_stays(cuda, device):
    stream, W, _, (P, Q) = problem(device)
    nothing = Statistics(torch.zeros_like(P), torch.zeros_like(Q))
    u = stream.uniforms(3, Site.W, range(N), K, device)
    rate = torch.full((1, 1), 2.0, dtype=torch.float64, device=device)
    drawn = cuda.half_sweep(W, nothing, (0 * rate, -rate), (stream, 3, Site.W))
    torch.testing.assert_close(drawn, -u.log() / 2, rtol=1e-10, atol=0)
    assert torch.equal(cuda.half_sweep(W, nothing, (0 * rate, 0 * rate), None), W)


@pytest.mark.parametrize("shape", [0.2, 1.0, 4.5, 2e8])
def test_inverse_gamma_draws_are_the_reference(cuda, device, shape):
    stream, scale = Stream.of(2, 6), torch.linspace(0.5, 5, 6, dtype=torch.float64, device=device)
    slow, fast = (k.inverse_gamma(shape, scale, stream, 7) for k in (reference, cuda))
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("tall", "per_entry", "rank"), [(True, True, 3), (False, False, 4), (True, False, 2)])
@pytest.mark.parametrize("name", ["scale_move", "shear_move"])
def test_the_moves_are_the_reference_and_leave_the_product(cuda, device, name, tall, per_entry, rank, monkeypatch):
    monkeypatch.setattr(cuda.ridge, "TILE", 32)  # several tiles and several programs to a factor
    monkeypatch.setattr(cuda.ridge, "PROGRAMS", 2)
    monkeypatch.setattr(cuda.ridge, "GROUP", 2)
    monkeypatch.setattr(cuda.ridge, "SLICE", 16)
    stream, W, H, _ = problem(device, rank=rank)
    if not tall:
        W, H = H.mT.contiguous(), W.mT.contiguous()
    one = torch.ones(1, 1, dtype=torch.float64, device=device)
    rates = (0.5 + W[0].abs(), 0.5 + H[1].abs()) if per_entry else (one, 3 * one)
    slow, fast = (getattr(k, name)(W, H, rates, stream, 1) for k in (reference, cuda))
    for mine, theirs in zip(fast, slow, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
        assert float(mine.min()) >= 0
    torch.testing.assert_close(fast[0] @ fast[1], W @ H)
    assert not torch.allclose(fast[0], W)


def test_moves_in_single_precision_agree_to_its_rounding(cuda, device):
    stream, W, H, _ = problem(device, torch.float32, rank=2)
    one = torch.ones(1, 1, dtype=torch.float64, device=device)
    for name in ("scale_move", "shear_move"):
        slow, fast = (getattr(k, name)(W, H, (one, one), stream, 1) for k in (reference, cuda))
        for mine, theirs in zip(fast, slow, strict=True):
            assert mine.dtype == torch.float32
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_moves_leave_dead_components_and_a_single_one_alone(cuda, device):
    stream, W, H, _ = problem(device)
    W, H = W * (torch.arange(K, device=device) != 1), H * (torch.arange(K, device=device) != 1)[:, None]
    one = torch.ones(1, 1, dtype=torch.float64, device=device)
    for name in ("scale_move", "shear_move"):
        slow, fast = (getattr(k, name)(W, H, (one, one), stream, 1) for k in (reference, cuda))
        for mine, theirs in zip(fast, slow, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
    same_W, same_H = cuda.shear_move(W[..., :1], H[:, :1], (one, one), stream, 1)
    assert torch.equal(same_W, W[..., :1]) and torch.equal(same_H, H[:, :1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("weight", [None, (N, D), (N, 1)], ids=["complete", "a weight an entry", "a weight a row"])
def test_residuals_are_formed_anew_only_where_too_little_is_left(cuda, device, dtype, weight, monkeypatch):
    monkeypatch.setattr(cuda.residual, "SIDE", 16)
    _, W, H, _ = problem(device, dtype)
    X = W[0] @ H[0] + 0.01
    weight = (
        None if weight is None else (torch.arange(N * D, device=device).reshape(N, D) % 3)[:, : weight[1]].to(dtype)
    )
    lost = reference.residual_where_small(torch.zeros(C, dtype=torch.float64, device=device), 0.0, X, weight, W, H)
    own = (X - W[1] @ H[1]).double().square() * (1 if weight is None else weight)
    torch.testing.assert_close(lost[1], own.sum())
    left = torch.stack(
        [0 * lost[0], 2 * lost[1]]
    )  # the second lies above the bound and is wrong: it shows what is taken
    rtol = 1e-9 if dtype == torch.float64 else 1e-4
    for mended in (k.residual_where_small(left, float(lost[0]) * 1.5, X, weight, W, H) for k in (reference, cuda)):
        torch.testing.assert_close(mended, torch.stack([lost[0], left[1]]), rtol=rtol, atol=0)


@pytest.fixture
def compile_only(device, monkeypatch, tmp_path):
    """A launch compiles its kernel for a GPU that need not be there; the list of what was compiled."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime.jit import JITFunction

    if device.type == "cuda":
        pytest.skip("the kernels run here")

    class NoDriver:
        get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))
        get_current_device = staticmethod(lambda: 0)
        get_current_stream = staticmethod(lambda device: 0)

    run, compiled = JITFunction.run, []
    monkeypatch.setattr(triton.runtime.driver, "_active", NoDriver())
    monkeypatch.setattr(
        JITFunction, "run", lambda self, *a, **o: compiled.append(run(self, *a, **(o | {"warmup": True})))
    )
    with triton.knobs.cache.scope():
        triton.knobs.cache.dir = str(tmp_path)
        yield compiled


def test_the_kernels_compile_once_for_every_shape_and_prior_of_a_type(compile_only):
    from ppnmf.kernels import cuda

    for rank, step in ((K, 1), (16, 16), (17, 2**31)):
        stream, W, _, (P, Q) = problem(torch.device("cpu"), torch.float32, rank=rank)
        one = torch.ones(1, 1, dtype=torch.float64)
        per_row = Q[:, None].expand(-1, N, -1, -1)
        for prior in ((0 * one, -one), (one.expand(N, rank).clone(), one.expand(N, rank).clone())):
            cuda.half_sweep(W, Statistics(P, Q), prior, (stream, step, Site.W))
            cuda.half_sweep(W, Statistics(P, per_row), prior, (stream, step, Site.W), 5, 1)
        cuda.inverse_gamma(2.0 + rank, torch.ones(C), stream, step)
    own = {id(kernel): kernel for kernel in compile_only}.values()
    assert sorted(kernel.name for kernel in own) == ["_half_sweep", "_inverse_gamma"]
    text = next(kernel.asm["ttgir"] for kernel in own if kernel.name == "_half_sweep")
    assert "sizePerThread = [1]" in text  # a thread has a row to itself: nothing is read that another wrote
    assert text.count("sizePerThread") == text.count("sizePerThread = [1]")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_kernel_compiles_without_spilling_registers(compile_only, dtype, tmp_path):
    from ppnmf.kernels import cuda

    stream, W, H, statistics = problem(torch.device("cpu"), dtype, rank=50)
    one = torch.ones(1, 1, dtype=torch.float64)
    for draw in (None, (stream, 1, Site.W)):
        cuda.half_sweep(W, statistics, (0 * one, -one), draw)
    cuda.scale_move(W, H, (one, one), stream, 1)
    cuda.shear_move(W, H, (one, one), stream, 1)
    cuda.residual_where_small(torch.ones(C, dtype=torch.float64), 2.0, W[0] @ H[0], None, W, H)
    own = {id(kernel): kernel for kernel in compile_only}.values()
    names = {"_half_sweep", "_scale_move", "_pairing_uniforms", "_shear_round", "_residual_where_small"}
    assert {kernel.name for kernel in own} == names
    for kernel in own:
        binary = tmp_path / f"{kernel.name}.cubin"
        binary.write_bytes(kernel.asm["cubin"])
        use = subprocess.run([triton.knobs.nvidia.cuobjdump.path, "-res-usage", binary], capture_output=True, text=True)
        assert "STACK:0 " in use.stdout, f"{kernel.name}: {use.stdout}"


class NoWaiting(TorchDispatchMode):
    """Raises where the host would wait for a GPU: to look at a value, at a size that values decide, or to copy to it."""

    LOOKS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal", "aten::masked_select")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, kwargs = func._schema.name, kwargs or {}
        copies = name == "aten::_to_copy" and torch.device(kwargs.get("device") or args[0].device) != args[0].device
        if name in self.LOOKS or copies or (name == "aten::copy_" and args[0].device != args[1].device):
            raise AssertionError(f"the host waits for the device: {func}")
        return func(*args, **kwargs)


def test_no_reference_kernel_waits_for_the_device():
    stream, W, H, statistics = problem(torch.device("cpu"))
    one = torch.ones(1, 1, dtype=torch.float64)
    with NoWaiting():
        reference.half_sweep(W, statistics, (0 * one, -one), (stream, 3, Site.W))
        reference.half_sweep(W, statistics, (0 * one, -one), None)
        reference.inverse_gamma(0.5, one[0].expand(C), stream, 3)
        reference.scale_move(W, H, (one, one), stream, 3)
        reference.shear_move(W, H, (one, one), stream, 3)
        reference.residual_where_small(one[0].expand(C), 0.0, W[0] @ H[0], None, W, H)


def test_no_sweep_waits_for_the_device(monkeypatch):
    monkeypatch.setenv("PPNMF_KERNEL", "reference")
    model, X = ExponentialGaussian(K), as_matrix(1 + torch.rand(N, D, dtype=torch.float64))
    stream = Stream.of(0, C)
    state, _ = gibbs.step(model, gibbs.init(model, X, stream), X, stream)  # what is looked at once is remembered
    with NoWaiting():
        gibbs.step(model, state, X, stream)


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="needs a build of torch for CUDA, though no GPU")
@pytest.mark.parametrize("masked", [False, True])
def test_no_sweep_of_tensors_that_stand_for_a_gpu_s_waits(monkeypatch, masked):
    monkeypatch.setenv("PPNMF_KERNEL", "reference")
    model, stream = ExponentialGaussian(K), Stream.of(98765, C)  # its keys are remembered as fakes
    with FakeTensorMode(allow_non_fake_inputs=True):
        make = lambda *shape: torch.rand(*shape, dtype=torch.float64, device="cuda")
        X = Dense(make(N, D), make(N, D) > 0.1 if masked else None)
        X.__dict__.update(sum_of_squares=1.0, n_observed=N * D)  # numbers that a real one looks at once
        state = gibbs.State({"W": make(C, N, K), "H": make(C, K, D), "sigma2": make(C)}, 1)
        state, _ = gibbs.step(model, state, X, stream)
        with NoWaiting():
            gibbs.step(model, state, X, stream)


@pytest.mark.cuda
def test_no_sweep_on_the_gpu_waits_for_it(device):
    if device.type != "cuda":
        pytest.skip("needs --device cuda")
    model, X = ExponentialGaussian(K), as_matrix(1 + torch.rand(N, D, dtype=torch.float64), device=device)
    stream = Stream.of(0, C)
    state, _ = gibbs.step(model, gibbs.init(model, X, stream), X, stream)
    torch.cuda.set_sync_debug_mode("error")
    try:
        gibbs.step(model, state, X, stream)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_gpu_gets_the_triton_kernels(monkeypatch):
    from ppnmf.kernels import cuda

    assert kernels_for(torch.device("cuda")) is cuda
    monkeypatch.setenv("PPNMF_KERNEL", "reference")
    assert kernels_for(torch.device("cuda")) is reference


def test_without_triton_a_gpu_gets_the_reference_and_one_warning(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    forget(monkeypatch)
    kernels._cuda.cache_clear()
    with pytest.warns(UserWarning, match="install triton"):
        assert kernels_for(torch.device("cuda")) is reference
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernels_for(torch.device("cuda")) is reference
    kernels._cuda.cache_clear()
