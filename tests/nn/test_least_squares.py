"""The layer against SciPy, against finite differences, and at every degenerate column there is."""

import time

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

import ppnmf
from ppnmf.kernels import pivoting
from ppnmf.nn import NonNegativeLeastSquares, batched, non_negative_least_squares

rng = np.random.default_rng


def drawn(M, K, D, seed=0, positive=False):
    """A (M, K) and X (M, D), normal or uniform."""
    generator = rng(seed)
    draw = generator.random if positive else generator.standard_normal
    return torch.from_numpy(draw((M, K))), torch.from_numpy(draw((M, D)))


def by_scipy(A, X):
    return torch.from_numpy(np.stack([nnls(A.numpy(), x)[0] for x in X.T.numpy()], 1))


def degenerate(kind):
    """A (12, 6) and X (12, 200) with what breaks solvers."""
    A, X = drawn(12, 6, 200, seed=3, positive=True)
    if kind == "collinear":
        A[:, 4] = 2 * A[:, 1]
        A[:, 5] = A[:, 0] + A[:, 2]
    if kind == "nearly collinear":
        A[:, 4] = A[:, 1] + 1e-5 * A[:, 3]
    if kind == "zero column":
        A[:, 2] = 0
    if kind == "all zero":
        X = -X
    if kind == "zero data":
        X[:, ::2] = 0
    if kind == "ill-conditioned":  # far enough from singular to be solved, too near for the inverse
        A = A @ torch.diag(torch.logspace(0, -4, 6, dtype=torch.float64)) + 1e-6
    if kind == "exact":
        S = torch.from_numpy(rng(4).random((6, 200)) * (rng(5).random((6, 200)) > 0.5))
        X = A @ S
    if kind == "wide":
        A = torch.from_numpy(rng(6).random((4, 6)))
        X = X[:4]
    return A, X


@pytest.mark.parametrize("positive", [False, True], ids=["normal", "uniform"])
@pytest.mark.parametrize("K", [1, 7, 20])
def test_ten_thousand_columns_agree_with_scipy(K, positive):
    A, X = drawn(40, K, 10_000 // 6 + 1, seed=K, positive=positive)  # six cases together make ten thousand
    torch.testing.assert_close(non_negative_least_squares(A, X), by_scipy(A, X), rtol=0, atol=1e-10)


KINDS = ["collinear", "ill-conditioned", "nearly collinear", "zero column", "all zero", "zero data", "exact", "wide"]


@pytest.mark.parametrize("solve", [pivoting.least, batched.least], ids=["compiled", "batched"])
@pytest.mark.parametrize("kind", KINDS)
def test_degenerate_columns_end_at_a_minimum(kind, solve):
    """Solutions are compared where there is one; where columns make one another up, what is left is as small as SciPy's."""
    A, X = degenerate(kind)
    S, theirs = solve((X.T @ A)[None], (A.T @ A)[None])[0].T, by_scipy(A, X)
    assert float(S.min()) >= 0
    left, least = ((X - A @ own).norm(dim=0) for own in (S, theirs))
    torch.testing.assert_close(left, least, rtol=0, atol=1e-7 if kind == "exact" else 1e-10)
    if kind not in ("collinear", "nearly collinear", "wide"):
        torch.testing.assert_close(S, theirs, rtol=0, atol=1e-10)
    slope = A.T @ (X - A @ S)
    assert float(slope.max()) < 1e-9 and float((slope * S).abs().max()) < 1e-9


@pytest.mark.parametrize("scale", [1e-150, 1e-8, 1e8, 1e120])
def test_the_scale_of_the_data_does_not_matter(scale):
    A, X = drawn(20, 6, 50)
    torch.testing.assert_close(
        non_negative_least_squares(A, scale * X) / scale, non_negative_least_squares(A, X), rtol=1e-10, atol=1e-12
    )


def test_a_batch_is_its_members_and_devices_agree():
    A = torch.stack([drawn(15, 4, 1, seed=s)[0] for s in range(3)])
    X = torch.stack([drawn(15, 4, 30, seed=s)[1] for s in range(3)])
    together = non_negative_least_squares(A, X)
    assert together.shape == (3, 4, 30)
    for one, a, x in zip(together, A, X, strict=True):
        torch.testing.assert_close(one, non_negative_least_squares(a, x), rtol=1e-12, atol=1e-15)
    shared = non_negative_least_squares(A[:, None], X[0])
    torch.testing.assert_close(shared[2, 0], non_negative_least_squares(A[2], X[0]), rtol=1e-12, atol=1e-15)
    side_by_side = batched.least(X.mT @ A, A.mT @ A).mT
    torch.testing.assert_close(side_by_side, together, rtol=0, atol=1e-12)


@pytest.mark.parametrize("positive", [False, True], ids=["normal", "uniform"])
def test_gradients_are_those_of_finite_differences(positive):
    A, X = drawn(7, 4, 6, seed=8, positive=positive)
    S = non_negative_least_squares(A, X)
    assert 0.2 < float((S > 0).double().mean()) < 0.9, "free and fixed entries are both there"
    A.requires_grad_()
    X.requires_grad_()
    assert torch.autograd.gradcheck(non_negative_least_squares, (A, X))
    if not positive:
        assert torch.autograd.gradgradcheck(non_negative_least_squares, (A, X))
    batch = torch.stack([A.detach(), 2 * A.detach() + 0.1]).requires_grad_()
    assert torch.autograd.gradcheck(non_negative_least_squares, (batch, X))


def test_gradients_in_parts_are_the_whole_ones(monkeypatch):
    A, X = drawn(9, 4, 12, seed=8)
    grads = []
    for at_once in (2**24, 40):
        monkeypatch.setattr("ppnmf.nn.least_squares.ENTRIES_AT_ONCE", at_once)
        own = A.clone().requires_grad_()
        non_negative_least_squares(own, X).square().sum().backward()
        grads.append(own.grad)
    torch.testing.assert_close(*grads, rtol=1e-13, atol=1e-13)


def test_no_gradient_leaves_a_column_that_is_zero_throughout():
    A, X = degenerate("all zero")
    X = X.requires_grad_()
    non_negative_least_squares(A, X).sum().backward()
    assert X.grad is not None and not bool(X.grad.any())


def test_single_precision_is_double_precision_rounded():
    A, X = drawn(30, 5, 40)
    S = non_negative_least_squares(A.float(), X.float())
    assert S.dtype == torch.float32
    torch.testing.assert_close(S, non_negative_least_squares(A, X).float(), rtol=1e-4, atol=1e-5)
    own = A.float().requires_grad_()
    non_negative_least_squares(own, X.float()).sum().backward()
    assert own.grad.dtype == torch.float32


def test_the_layer_learns_its_matrix():
    """A second use: any torch program. X = A S is explained by a layer that starts elsewhere."""
    A, S = (torch.from_numpy(rng(s).random(size)) for s, size in ((1, (12, 2)), (2, (2, 40))))
    X = A @ S
    layer = ppnmf.nn.NonNegativeLeastSquares(torch.from_numpy(rng(3).random((12, 2))))
    left = lambda: float((X - layer.A @ layer(X)).detach().norm())
    before = left()
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(100):
        optimiser.zero_grad()
        (X - layer.A @ layer(X)).square().sum().backward()
        optimiser.step()
        layer.project()
    assert left() < 0.2 * before
    assert "12 × 2" in repr(layer) and list(layer.state_dict()) == ["A"]


@pytest.mark.parametrize(
    ("A", "X", "error", "match"),
    [
        (torch.ones(3, 2), torch.ones(4, 5), ValueError, "A has 3 rows and X 4"),
        (torch.ones(3, 2), torch.ones(3, 5).double(), TypeError, "bring them to one type and device"),
        (torch.ones(3, 2, dtype=torch.int64), torch.ones(3, 5), TypeError, "A is a tensor of torch.int64"),
        (np.ones((3, 2)), torch.ones(3, 5), TypeError, "A is a ndarray of shape"),
        (torch.ones(3), torch.ones(3, 5), ValueError, r"A has shape \(3,\)"),
        (torch.ones(3, 2), torch.full((3, 5), torch.nan), ValueError, "A or X has entries that are not finite"),
    ],
)
def test_what_cannot_be_solved_is_refused(A, X, error, match):
    with pytest.raises(error, match=match):
        non_negative_least_squares(A, X)


def test_no_columns_and_no_components_are_legal():
    assert non_negative_least_squares(torch.ones(3, 2), torch.ones(3, 0)).shape == (2, 0)
    assert NonNegativeLeastSquares(torch.ones(3, 2))(torch.ones(3, 1)).shape == (2, 1)


@pytest.mark.slow
def test_it_is_many_times_as_fast_as_a_loop_over_scipy():
    """On one thread, in time of the processor, the least of some calls in a row of each."""
    A, X = drawn(100, 20, 1000)
    non_negative_least_squares(A, X)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ours = min(seconds(lambda: non_negative_least_squares(A, X)) for _ in range(50))
        theirs = min(seconds(lambda: by_scipy(A, X)) for _ in range(5))
    finally:
        torch.set_num_threads(threads)
    assert theirs / ours > 12, (theirs, ours)


def seconds(call):
    began = time.thread_time()
    call()
    return time.thread_time() - began


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["random", *KINDS])
def test_a_gpu_gives_the_same(kind):
    A, X = drawn(40, 20, 1000) if kind == "random" else degenerate(kind)
    there = non_negative_least_squares(A.cuda(), X.cuda()).cpu()
    here = non_negative_least_squares(A, X)
    torch.testing.assert_close((X - A @ there).norm(dim=0), (X - A @ here).norm(dim=0), rtol=0, atol=1e-7)
