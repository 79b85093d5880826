r"""A process's part of a sweep when W's rows are spread over several: its rows of W, and the moves along the ridge.

`rows_of_W` is `dense`'s update of W, for a complete X in memory; other matrices take the way that all take.
`scale_move` and `shear_move` are `reference`'s: a move's conditional needs sums, and for the shear a minimum, over all
rows of W. Each rank gives those of its own rows, all of them work out the same c or t from what was gathered, and each
moves its own rows; H is moved alike everywhere. On the CPU the passes over W are compiled; elsewhere they are torch's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ppnmf.distributions import gig_from_uniforms
from ppnmf.kernels import cpu, dense, kernels_for
from ppnmf.kernels.lanes import COMPILED, total_of
from ppnmf.kernels.reference import _least_ratio, _truncated_exponential, shear_rounds
from ppnmf.protocols import Statistics
from ppnmf.rng import Site, Stream

__all__ = ["rows_of_W", "scale_move", "shear_move"]

Gather = Callable[[Tensor], Tensor]  # a tensor of each rank -> all of them, in the order of the ranks: (ranks, *shape)
Rates = tuple[Tensor, Tensor]


def rows_of_W(
    X: Tensor,
    block: int,
    W: Tensor,
    H: Tensor,
    weight: Tensor,
    natural: Rates,
    draw: tuple[Stream, int] | None,
    first_row: int,
    first: int,
    passes: int,
) -> tuple[Tensor, Statistics]:
    """W (C, n, K) after its half of a sweep, and what these rows then tell about H.

    Args:
        X: this rank's rows (n, D), on the CPU. block: how many are in a block.
        weight: β / σ² of each chain. natural: of W's prior, broadcastable to (n, K).
        first_row, first, passes: as in `gaussian.sweep`; draw: None takes the modes.
    """
    moved = W.mT.clone(memory_format=torch.contiguous_format).numpy()
    values, components = X.numpy(), H.contiguous().numpy()
    precision, linear = (part.double().contiguous().numpy() for part in natural)
    side = dense.Side((precision, linear), first, passes, draw is not None)
    keys, step = (draw[0].keys, draw[1]) if draw is not None else (((0, 0),) * len(W), 0)
    told = [
        dense.update_W(values, block, moved[c], components[c], side, float(weight[c]), keys[c], step, first_row)
        for c in range(len(W))
    ]
    R, G = (torch.from_numpy(np.stack(part)) for part in zip(*told, strict=True))
    return torch.from_numpy(moved).mT, Statistics(R.mT, G)


def scale_move(
    W: Tensor, H: Tensor, rates: Rates, stream: Stream, step: int, gather: Gather, rows: int
) -> tuple[Tensor, Tensor]:
    """`reference.scale_move` of this rank's rows W (C, n, K) out of `rows`; one gathering of K sums a chain."""
    K = W.shape[-1]
    a = 2 * gather((W.double() * rates[0]).sum(-2)).sum(0)
    b = 2 * (H.double() * rates[1]).sum(-1)
    alive, one = (a > 0) & (b > 0), torch.ones_like(a)
    p, a, b = torch.full_like(a, rows - H.shape[-1]), torch.where(alive, a, one), torch.where(alive, b, one)

    def uniforms(trial: int) -> tuple[Tensor, Tensor, Tensor]:
        u = stream.uniforms(step, Site.SCALE, range(trial * K, (trial + 1) * K), 3, W.device)
        return u[..., 0], u[..., 1], u[..., 2]

    if kernels_for(W.device) is cpu:
        drawn = [
            [cpu.generalized_inverse_gaussian(*(float(t[i, k]) for t in (p, a, b)), *key, step, k, K) for k in range(K)]
            for i, key in enumerate(stream.keys)
        ]
        c = torch.tensor(drawn, dtype=torch.float64)
    else:
        c = gig_from_uniforms(p, a, b, uniforms)
    c = torch.where(alive, c, one)
    return W * c[:, None, :].to(W.dtype), H / c[:, :, None].to(H.dtype)


def shear_move(W: Tensor, H: Tensor, rates: Rates, stream: Stream, step: int, gather: Gather) -> tuple[Tensor, Tensor]:
    """`reference.shear_move` of this rank's rows W (C, n, K); a round gathers a sum and a minimum for each pair."""
    K, rounds = W.shape[-1], shear_rounds(W.shape[-1])
    order = stream.uniforms(step, Site.SHEAR_PAIRS, range(rounds), K, W.device).argsort(-1)  # (C, rounds, K)
    u = stream.uniforms(step, Site.SHEAR, range(rounds), K // 2, W.device)  # (C, rounds, K // 2)
    shear = _compiled if kernels_for(W.device) is cpu else _plain
    Wt, H = (F.clone(memory_format=torch.contiguous_format) for F in (W.mT, H))
    shear(Wt, H, rates[0].mT.contiguous(), rates[1].contiguous(), order, u, gather)
    return Wt.mT, H


def _plain(W: Tensor, H: Tensor, rate_W: Tensor, rate_H: Tensor, order: Tensor, u: Tensor, gather: Gather) -> None:
    """In place; W (C, K, n) and its rates are a component a row here, as H (C, K, D) and its are."""
    chain, M = torch.arange(len(W), device=W.device)[:, None], u.shape[-1]
    of_W, of_H = (
        rate.to(W.device).expand(F.shape[1:]) if rate.numel() > 1 else rate.to(W.device).expand(F.shape[1], 1)
        for rate, F in ((rate_W, W), (rate_H, H))
    )
    for turn in range(u.shape[1]):
        k, l = order[:, turn, 0 : 2 * M : 2], order[:, turn, 1 : 2 * M : 2]
        W_k, W_l, H_k, H_l = W[chain, k], W[chain, l], H[chain, k], H[chain, l]
        told = gather(torch.stack([(of_W[l] * W_k.double()).sum(-1), _least_ratio(W_l, W_k)]))  # (ranks, 2, C, M)
        slope = told[:, 0].sum(0) - (of_H[k] * H_l.double()).sum(-1)
        t = _truncated_exponential(slope, -told[:, 1].amin(0), _least_ratio(H_k, H_l), u[:, turn])
        t = t.to(W.dtype)[..., None]
        W[chain, l], H[chain, k] = (W_l + t * W_k).clamp(min=0), (H_k - t * H_l).clamp(min=0)


def _compiled(W: Tensor, H: Tensor, rate_W: Tensor, rate_H: Tensor, order: Tensor, u: Tensor, gather: Gather) -> None:
    """The same on the CPU, in float64 whatever the factors hold; sums over rows are kept up to date by the shifts."""
    w, h, of_W, of_H, pairs, uniforms = (t.numpy() for t in (W, H, rate_W, rate_H, order, u))
    totals = [np.array([_totals(f) for f in F]) for F in (w, h)]
    told = torch.empty(len(W), u.shape[-1], 2, dtype=torch.float64)
    for turn in range(u.shape[1]):
        for c in range(len(w)):
            _measure(w[c], totals[0][c], of_W, pairs[c, turn], told[c].numpy())
        received = gather(told).numpy()  # (ranks, C, M, 2)
        for c in range(len(w)):
            _shear(w[c], h[c], totals[0][c], totals[1][c], of_H, pairs[c, turn], uniforms[c, turn], received[:, c])


@njit(**COMPILED)
def _totals(F):  # type: ignore[no-untyped-def]
    totals = np.empty(len(F))
    for k in range(len(F)):
        totals[k] = total_of(F[k])
    return totals


@njit(**COMPILED)
def _measure(W, total, rates, order, told):  # type: ignore[no-untyped-def]
    """told (M, 2): Σ_i rates[l, i] W[k, i] and the least W[l, i] / W[k, i], for each pair (k, l) of a round."""
    for m in range(len(told)):
        k, l = order[2 * m], order[2 * m + 1]
        told[m, 0] = cpu._rated(W[k], total[k], rates, l)
        told[m, 1] = cpu._least_ratio(W[l], W[k])


@njit(**COMPILED)
def _shear(W, H, total_W, total_H, rate_H, order, u, told):  # type: ignore[no-untyped-def]
    """A round of pairs, from what the ranks told (ranks, M, 2)."""
    for m in range(len(u)):
        k, l = order[2 * m], order[2 * m + 1]
        slope, least = 0.0, np.inf
        for rank in range(len(told)):
            slope += told[rank, m, 0]
            least = min(least, told[rank, m, 1])
        slope -= cpu._rated(H[l], total_H[l], rate_H, k)
        t = cpu._truncated_exponential(slope, -least, cpu._least_ratio(H[k], H[l]), u[m])
        total_W[l], total_H[k] = cpu._shift(W[l], W[k], t), cpu._shift(H[k], H[l], -t)
