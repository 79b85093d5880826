r"""Non-negative least squares as a differentiable layer: q(X; A) = argmin over S >= 0 of ‖X - A S‖².

Where a column's free set P (its entries above zero) stays as it is, its solution is S_P = (A_Pᵀ A_P)⁻¹ A_Pᵀ x, and so are its
derivatives. With G the gradient of a loss with respect to S, and V = (A_Pᵀ A_P)⁻¹ G_P on the free set and zero elsewhere,

.. math:: \partial X = A V, \qquad \partial A = (X - A S) V^T - A V S^T.

At the borders between free sets the derivative is one-sided, and this is one of them, as with a rectified linear unit.

Reference: Gao, Haddock, Molitor, Needell, Sadovnik, Will, Zhang (2019), "Neural nonnegative matrix factorization for hierarchical
multilayer topic modeling", doi:10.1109/CAMSAP45676.2019.9022678.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ppnmf.checks import described
from ppnmf.kernels import pivoting
from ppnmf.nn import batched
from ppnmf.settings import own_settings
from ppnmf.threads import single_threaded

__all__ = ["NonNegativeLeastSquares", "non_negative_least_squares"]

TYPES = (torch.float32, torch.float64)
WORTH_THREADS = 200_000  # columns times squares of components, below which telling threads costs more than the work
ENTRIES_AT_ONCE = 2**24  # of the systems of all columns that are in memory together when gradients are taken


class NonNegativeLeastSquares(nn.Module):
    """The layer X -> q(X; A), with A >= 0 a parameter.

    Args:
        A: (*batch, M, K), the columns of which X (*batch, M, D) is made; where training makes an entry negative, `project`
            brings it back.

    Raises:
        TypeError: A is no tensor of float32 or float64.

    Example:
        >>> import torch
        >>> layer = NonNegativeLeastSquares(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
        >>> layer(torch.tensor([[2.0, -1.0], [1.0, 3.0], [3.0, 3.0]])).detach()
        tensor([[2., 0.],
                [2., 3.]])
    """

    def __init__(self, A: Tensor) -> None:
        super().__init__()
        _require_matrix("A", A)
        self.A = nn.Parameter(A.detach().clone())

    def forward(self, X: Tensor) -> Tensor:
        """S (*batch, K, D) >= 0, from X (*batch, M, D)."""
        return non_negative_least_squares(self.A, X)

    @torch.no_grad()
    def project(self) -> None:
        """Make negative entries of A zero, in place, after a step of an optimiser."""
        self.A.clamp_(min=0)

    def extra_repr(self) -> str:
        return " × ".join(map(str, self.A.shape))


@own_settings()
def non_negative_least_squares(A: Tensor, X: Tensor) -> Tensor:
    """S (*batch, K, D) >= 0 that minimises ‖X - A S‖², differentiable (twice, where X and A are) with respect to both.

    Everything is computed in float64, whatever the type of X and A. On the CPU columns are solved one by one, compiled; on
    other devices side by side. Where columns of A make one another up, one of the solutions is given.

    Args:
        A: (*batch, M, K). X: (*batch, M, D); the batches are broadcast.

    Raises:
        TypeError: they are not tensors of one floating type, float32 or float64, on one device.
        ValueError: their shapes do not fit, or an entry is not finite.
    """
    for name, value in (("A", A), ("X", X)):
        _require_matrix(name, value)
    if A.dtype != X.dtype or A.device != X.device:
        raise TypeError(
            f"A is {A.dtype} on {A.device} and X {X.dtype} on {X.device}; bring them to one type and device"
        )
    if A.shape[-2] != X.shape[-2]:
        raise ValueError(f"A has {A.shape[-2]} rows and X {X.shape[-2]}; X ≈ A @ S needs as many")
    batch = torch.broadcast_shapes(A.shape[:-2], X.shape[:-2])
    return _Solution.apply(A.expand(*batch, *A.shape[-2:]), X.expand(*batch, *X.shape[-2:]))


def _require_matrix(name: str, value: Any) -> None:
    if not isinstance(value, Tensor) or value.dtype not in TYPES:
        kind = f"a tensor of {value.dtype}" if isinstance(value, Tensor) else described(value)
        raise TypeError(f"{name} is {kind}; give a tensor of float32 or float64")
    if value.ndim < 2:
        raise ValueError(f"{name} has shape {tuple(value.shape)}; give a matrix, or a batch of them")


class _Solution(torch.autograd.Function):
    """The solution, and its derivative by the free set of each column; made of operations that can be derived again."""

    @staticmethod
    def forward(ctx: Any, A: Tensor, X: Tensor) -> Tensor:
        S = _minimum(A.detach().double(), X.detach().double()).to(X.dtype)
        ctx.save_for_backward(A, X, S)
        return S

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        A, X, S = (saved.double() for saved in ctx.saved_tensors)
        V = _on_free_sets(A, S, gradients[0].double())
        of_A = (X - A @ S) @ V.mT - A @ (V @ S.mT) if ctx.needs_input_grad[0] else None
        of_X = A @ V if ctx.needs_input_grad[1] else None
        dtype = ctx.saved_tensors[0].dtype
        return None if of_A is None else of_A.to(dtype), None if of_X is None else of_X.to(dtype)


def _minimum(A: Tensor, X: Tensor) -> Tensor:
    """S (*batch, K, D) of A (*batch, M, K) and X (*batch, M, D), float64."""
    K = A.shape[-1]
    batch = X.shape[:-2].numel()
    least = pivoting.least if X.device.type == "cpu" else batched.least
    with single_threaded() if X.numel() * K > WORTH_THREADS else nullcontext():
        P = (A.mT @ X).mT.contiguous().reshape(batch, X.shape[-1], K)
        Q = (A.mT @ A).reshape(batch, K, K)
        if not _are_finite(P, Q):  # of products: they are smaller than X
            raise ValueError("A or X has entries that are not finite, or so great that their squares are not")
        return least(P, Q).mT.reshape(*X.shape[:-2], K, X.shape[-1])


def _are_finite(*arrays: Tensor) -> bool:
    """Whether all entries are; a sum that is finite says so at once."""
    return all(bool(one.sum().isfinite()) or bool(one.isfinite().all()) for one in arrays)


def _on_free_sets(A: Tensor, S: Tensor, G: Tensor) -> Tensor:
    """(A_Pᵀ A_P)⁻¹ G_P for every column of G (*batch, K, D), P the free set of that of S, and zero elsewhere; some at a time."""
    K, D = G.shape[-2:]
    Q = (A.mT @ A)[..., None, :, :]
    systems = max(1, G[..., 0, :].numel()) * K * K
    parts = min(D, -(-systems // ENTRIES_AT_ONCE)) or 1
    halves = zip(S.mT.tensor_split(parts, -2), G.mT.tensor_split(parts, -2), strict=True)
    return torch.cat([batched.on_free_sets(Q, s > 0, g) for s, g in halves], -2).mT
