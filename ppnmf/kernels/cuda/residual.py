"""Residual sums of squares formed anew, in one launch."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ppnmf.kernels.cuda.language import device_function, kernel, sum_of

__all__ = ["residual_where_small"]

SIDE = 32  # of a square of X whose residuals a program forms at once


@device_function
def _modelled(W, H, row, column, N, D, K, dtype: tl.constexpr, SIDE: tl.constexpr, COMPONENTS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Σ_k W_k H_k in a square of X, so many components at once; W (K, N), H (K, D)."""
    total = tl.full((SIDE, SIDE), 0.0, dtype)
    for first in tl.range(0, K, COMPONENTS):
        k = first + tl.arange(0, COMPONENTS)
        in_W = (row < N) & (k < K)[None, :]
        in_H = (k < K)[:, None] & (column < D)
        part_W = tl.load(W + k[None, :] * N + row, mask=in_W, other=0.0)
        part_H = tl.load(H + k[:, None] * D + column, mask=in_H, other=0.0)
        total = tl.dot(part_W, part_H, total, input_precision="ieee", out_dtype=dtype)
    return total


@kernel
def _residual_where_small(  # type: ignore[no-untyped-def]
    left, least, X, weight, W, H, out, N: tl.int64, D: tl.int64, K: tl.int64,
    weight_row: tl.int64, weight_column: tl.int64,
    WEIGHTED: tl.constexpr, SIDE: tl.constexpr, COMPONENTS: tl.constexpr,
):  # fmt: skip
    """Σ weight (x - (WH))² of SIDE rows, unless left > least; W (C, K, N), H (C, K, D), out (C, programs)."""
    program = tl.program_id(0).to(tl.int64)
    chain = tl.program_id(1).to(tl.int64)
    dtype = X.dtype.element_ty
    total = tl.full((SIDE, SIDE), 0.0, tl.float64)
    if (tl.load(left + chain) > tl.load(least)) == 0:  # NaN too
        row = (program * SIDE + tl.arange(0, SIDE))[:, None]
        for start in tl.range(0, D, SIDE):
            column = (start + tl.arange(0, SIDE).to(tl.int64))[None, :]
            modelled = _modelled(W + chain * K * N, H + chain * K * D, row, column, N, D, K, dtype, SIDE, COMPONENTS)
            inside = (row < N) & (column < D)
            residual = (tl.load(X + row * D + column, mask=inside, other=0.0) - modelled).to(tl.float64)
            square = residual * residual
            if WEIGHTED:
                own = weight + row * weight_row + column * weight_column
                square *= tl.load(own, mask=inside, other=0.0).to(tl.float64)
            total += tl.where(inside, square, 0.0)
    tl.store(out + chain * tl.num_programs(0) + program, sum_of(sum_of(total, 1), 0))


def residual_where_small(left: Tensor, least: float, X: Tensor, weight: Tensor | None, W: Tensor, H: Tensor) -> Tensor:
    """`reference.residual_where_small`, in one launch whose programs stop at once where nothing is to be done.

    Args:
        left: (C,), float64. least: above it they are trusted.
        X: (N, D). weight: broadcastable to it, 0 where an entry is missing; None for 1 everywhere.
        W: (C, N, K). H: (C, K, D).
    """
    C, N, K = W.shape
    D = H.shape[-1]
    X = X.contiguous()
    W = W.mT.contiguous()
    H = H.contiguous()
    weights = (X if weight is None else weight).expand(N, D)
    bound = torch.full((1,), least, dtype=torch.float64, device=X.device)
    anew = torch.empty(C, triton.cdiv(N, SIDE), dtype=torch.float64, device=X.device)
    _residual_where_small[anew.shape[1], C](
        left, bound, X, weights, W, H, anew, N, D, K, *weights.stride(), weight is not None, SIDE, 16,
        num_warps=4, num_stages=1,
    )  # fmt: skip
    return torch.where(left > least, left, anew.sum(-1))
