r"""Ordinary NMF: sweeps that lower the squared error, each entry's over its known noise variance, and look at no prior.

In row i of W the squared error is W_i Q_i W_iᵀ - 2 P_i · W_i and a constant, with P = X Hᵀ and Q = H Hᵀ (over the noise,
under the mask). Three rules lower it:

*Multiplicative* (Lee and Seung 2001): W_ik ← W_ik P_ik / (W Q)_ik. Where X has negative entries P may too, and then
W_ik ← W_ik P⁺_ik / (W Q + P⁻)_ik, from the same auxiliary function with |P| w <= |P| (w² / w' + w') / 2 for the negative
part. Nothing is divided by zero: where the divisor is 0 so is W_ik or what multiplies it, and it stays.
*By components* (hierarchical alternating least squares; coordinate descent): W_ik ← max(0, W_ik + (P - W Q)_ik / Q_kk).
*By rows* (alternating non-negative least squares): W_i at its minimum under W_i >= 0 (`kernels.nnls`).

References: Lee and Seung (2001), "Algorithms for non-negative matrix factorization"; Cichocki, Zdunek, Amari (2007),
doi:10.1007/978-3-540-74494-8_22; Kim and Park (2008), doi:10.1137/07069239X.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ppnmf.gaussian import statistics
from ppnmf.gaussian.sweep import Factors, complete, flat, misfit
from ppnmf.kernels import dense, nnls
from ppnmf.known import Known
from ppnmf.protocols import Matrix, Params, Statistics
from ppnmf.threads import single_threaded

__all__ = ["Rule", "by_rows", "lowered", "multiplied", "multiplied_factors", "share", "unit"]

# A factor F (C, R, K), what X and the other tell about it, and which entries are known (R, K), if any -> F
Rule = Callable[[Tensor, Statistics, Tensor | None], Tensor]
NEVER = -1e300  # the slope of an entry that is not to be raised


def lowered(X: Matrix, params: Params, rule: Rule, known: Callable[[str], Known | None]) -> Factors:
    """W and then H by a rule, in a single pass over the row blocks of X; their sums are added in order.

    Args:
        params: W (C, N, K), H (C, K, D), known entries in their places.
        known: "W" or "H" -> its known entries, which stay as they are.
    """
    W, H = params["W"], params["H"]
    given, updated = statistics.given_H(X, H), torch.empty_like(W)
    of_W = _places(known("W"), X)
    of_H_known = _places(known("H"), X)

    def update(rows: range, block: Any, _: None) -> Statistics:
        own = slice(rows.start, rows.stop)
        F = rule(W[:, own], statistics.of_W(block, given), None if of_W is None else of_W[own])
        updated[:, own] = F
        return statistics.of_H(block, F)

    with single_threaded():
        (own,) = X.fold_here(update, [None], 4.0 * W.numel() * X.shape[1])
        of_H = statistics.of_every_process(X, own)
        H = rule(H.mT, of_H, None if of_H_known is None else of_H_known.mT).mT.contiguous()
        return Factors(updated, H, misfit(X, updated, H, of_H))


def _places(known: Known | None, X: Matrix) -> Tensor | None:
    return None if known is None else known.at.to(X.device)


def multiplied_factors(X: Matrix, params: Params, known: Callable[[str], Known | None]) -> Factors:
    """`lowered` by `multiplied`, compiled whole where X is complete and nothing is known: the same but for rounding."""
    problem = None if known("W") or known("H") else complete(flat, X)
    if problem is None:
        return lowered(X, params, multiplied, known)
    unread = {"sigma2": torch.ones(len(params["W"]), dtype=params["W"].dtype)}
    with single_threaded():
        after, kept = dense.sweep(problem, {**params, **unread}, 1, None, dense.Plan(multiplied=True))
    return Factors(after["W"], after["H"], kept.misfit[:, 0])


def multiplied(F: Tensor, told: Statistics, known: Tensor | None) -> Tensor:
    """The rule of Lee and Seung. Each entry lowers the loss by itself, so that the known ones can stay."""
    P, Q = told
    explained = F @ Q if Q.ndim == P.ndim else (Q @ F[..., None]).squeeze(-1)
    above, below = P.clamp(min=0), explained + (-P).clamp(min=0)
    changes = below > 0 if known is None else (below > 0) & ~known
    return torch.where(changes, F * above / torch.where(below > 0, below, 1.0), F)


def by_rows(F: Tensor, told: Statistics, known: Tensor | None) -> Tensor:
    """Each row at its minimum, given its known entries: what these explain is taken off P."""
    if known is None:
        return nnls.solved(F, told)
    P, Q = told
    held = torch.where(known, F, 0.0)
    explained = held @ Q if Q.ndim == P.ndim else (Q @ held[..., None]).squeeze(-1)
    left = torch.where(known, NEVER, (P - explained).double())
    return torch.where(known, F, nnls.solved(F - held, Statistics(left, Q)))


def share(misfit: Tensor, X: Matrix) -> Tensor:
    """A squared error (C,) as a share of that of W @ H = 0, which is 1 for an X that is zero throughout."""
    return misfit / unit(X)


def unit(X: Matrix) -> float:
    """The squared error of W @ H = 0, 1 where that is 0."""
    return X.sum_of_squares or 1.0
