"""Non-negative least squares in normal form in plain torch, all rows of a batch side by side: for accelerators.

Block principal pivoting as in `kernels.pivoting`, each exchange a batch of Cholesky factorisations of the systems of the free
entries. The few rows that do not come to an end so, or whose systems are singular, are solved on the CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ppnmf.kernels import pivoting
from ppnmf.kernels.nnls import NO_SLOPE
from ppnmf.kernels.pivoting import PATIENCE, ROUNDING

__all__ = ["least", "on_free_sets"]

MOST_EXCHANGES = 30


def on_free_sets(Q: Tensor, is_free: Tensor, G: Tensor) -> Tensor:
    """w (*batch, R, K) with Q_FF w_F = G_F on each row's free entries F, zero elsewhere.

    Args:
        Q: (*batch, 1, K, K). is_free: boolean (*batch, R, K). G: (*batch, R, K).
    """
    free = is_free.to(Q.dtype)
    system = Q * free[..., :, None] * free[..., None, :] + torch.diag_embed(1 - free)
    factor, _ = torch.linalg.cholesky_ex(system)
    return torch.cholesky_solve((G * free)[..., None], factor).squeeze(-1) * free


def least(P: Tensor, Q: Tensor) -> Tensor:
    """The minimum of each row, (C, R, K), float64.

    Args:
        P: (C, R, K). Q: (C, K, K), symmetric and positive semidefinite.
    """
    w, is_least = _exchanged(P, Q)
    for c in torch.nonzero(~is_least.all(-1)).flatten().tolist():
        left = ~is_least[c]
        w[c, left] = pivoting.least(P[c, left].cpu()[None], Q[c].cpu()[None])[0].to(w.device)
    return w


def _exchanged(P: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
    """The rows after some exchanges, and which of them are at their minimum, (C, R)."""
    systems = Q[:, None]
    is_free = P > 0
    fewest = torch.full(P.shape[:2], P.shape[-1] + 1, device=P.device)
    patience = torch.full_like(fewest, PATIENCE)
    for _ in range(MOST_EXCHANGES):
        w = on_free_sets(systems, is_free, P)
        slope = P - w @ Q
        broken = torch.where(is_free, w < 0, slope > NO_SLOPE * P.abs())
        number = broken.sum(-1)
        if not bool(number.any()):
            break
        gained = number < fewest
        fewest = torch.where(gained, number, fewest)
        everything = gained | (patience > 0)
        patience = torch.where(gained, PATIENCE, patience - 1)
        last = broken & (broken.flip(-1).cumsum(-1).flip(-1) == 1)
        is_free = is_free ^ torch.where(everything[..., None], broken, last)
    w = w + on_free_sets(systems, is_free, slope)
    return _judged(w.clamp(min=0), P, Q)


def _judged(w: Tensor, P: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
    """w, and whether each row meets the conditions of a minimum to rounding."""
    slope = P - w @ Q
    off = torch.where(w > 0, slope.abs(), slope)
    return w, (off <= ROUNDING * P.abs().amax(-1, keepdim=True)).all(-1)
