r"""A process's part of a sweep when W's rows are spread over several: its rows of W, and the moves along the ridge.

`rows_of_W` is `dense`'s update of W, for a complete X in memory; other matrices take the way that all take.
`scale_move` and `shear_move` are `reference`'s: a move's conditional needs sums, and for the shear a minimum, over all
rows of W. Each rank gives those of its own rows, all of them work out the same c or t from what was gathered, and each
moves its own rows; H is moved alike everywhere. On the CPU the passes over W are compiled; elsewhere they are torch's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ppnmf.distributions import gig_from_uniforms
from ppnmf.kernels import cpu, kernels_for, reference
from ppnmf.kernels.cpu.positive import generalized_inverse_gaussian
from ppnmf.kernels.cpu.ridge import least_ratio, rated, shift, truncated_exponential
from ppnmf.kernels.cpu.sweeps import Data, Factors, Side, Turn
from ppnmf.kernels.dense import update_W
from ppnmf.kernels.lanes import COMPILED, total_of
from ppnmf.kernels.reference import shear_rounds
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
    fresh: int = 1,
) -> tuple[Tensor, Statistics]:
    """W (C, n, K) after its half of a sweep, and what these rows then tell about H.

    Args:
        X: this rank's rows (n, D), on the CPU. block: how many are in a block.
        H: (C, K, D).
        weight: β / σ² of each chain, (C,). natural: of W's prior, broadcastable to (n, K).
        draw: the stream of the chains, and the step; None takes the modes.
        first_row: the number of the first of these rows in the whole W.
        first, passes, fresh: as in `gaussian.sweep`.

    Returns: W, and W X (as P, (C, D, K)) with W Wᵀ (as Q, (C, K, K)).
    """
    moved = W.mT.clone(memory_format=torch.contiguous_format).numpy()
    components = H.contiguous().numpy()
    prior = (natural[0].double().contiguous().numpy(), natural[1].double().contiguous().numpy())
    side = Side.of(prior, Site.W, moved.dtype, first, passes, fresh if draw is not None else 0)
    stream, step = draw if draw is not None else (Stream(((0, 0),) * len(W)), 0)
    data = Data(X.numpy(), block, 0.0, 0.0)  # no misfit is asked for
    sums = []
    for c, key in enumerate(stream.keys):
        turn = Turn(float(weight[c]), *key, step)
        sums.append(update_W(data, Factors(moved[c], components[c]), side, turn, first_row))
    R = torch.from_numpy(np.stack([of_X for of_X, _ in sums]))
    G = torch.from_numpy(np.stack([of_W for _, of_W in sums]))
    return torch.from_numpy(moved).mT, Statistics(R.mT, G)


def scale_move(
    W: Tensor, H: Tensor, rates: Rates, stream: Stream, step: int, gather: Gather, rows: int
) -> tuple[Tensor, Tensor]:
    """`reference.scale_move` of this rank's rows; one gathering of K sums a chain.

    Args:
        W: this rank's rows, (C, n, K). H: (C, K, D), alike on all ranks.
        rates: of the priors, broadcastable to (n, K) and (K, D).
        gather: brings together what each rank gives.
        rows: N, those of all ranks.
    """
    K = W.shape[-1]
    a = 2 * gather((W.double() * rates[0]).sum(-2)).sum(0)
    b = 2 * (H.double() * rates[1]).sum(-1)
    alive = (a > 0) & (b > 0)
    one = torch.ones_like(a)
    p = torch.full_like(a, rows - H.shape[-1])
    draw = _compiled_scales if kernels_for(W.device) is cpu else _plain_scales
    c = draw(p, torch.where(alive, a, one), torch.where(alive, b, one), stream, step, K)
    c = torch.where(alive, c, one)
    return W * c[:, None, :].to(W.dtype), H / c[:, :, None].to(H.dtype)


def _plain_scales(p: Tensor, a: Tensor, b: Tensor, stream: Stream, step: int, K: int) -> Tensor:
    """Draws of c (C, K) with density ∝ c^(p-1) exp(-(a c + b / c) / 2), in torch."""

    def uniforms(trial: int) -> tuple[Tensor, Tensor, Tensor]:
        u = stream.uniforms(step, Site.SCALE, range(trial * K, (trial + 1) * K), 3, a.device)
        return u[..., 0], u[..., 1], u[..., 2]

    return gig_from_uniforms(p, a, b, uniforms)


def _compiled_scales(p: Tensor, a: Tensor, b: Tensor, stream: Stream, step: int, K: int) -> Tensor:
    """The same, compiled."""
    c = torch.empty_like(a)
    for chain, key in enumerate(stream.keys):
        for k in range(K):
            shape = (float(p[chain, k]), float(a[chain, k]), float(b[chain, k]))
            c[chain, k] = generalized_inverse_gaussian(*shape, *key, step, k, K)
    return c


def shear_move(W: Tensor, H: Tensor, rates: Rates, stream: Stream, step: int, gather: Gather) -> tuple[Tensor, Tensor]:
    """`reference.shear_move` of this rank's rows W (C, n, K); a round gathers a sum and a minimum for each pair.

    The arguments are those of `scale_move`. All ranks draw the same pairs and work out the same t.
    """
    K = W.shape[-1]
    rounds = shear_rounds(K)
    order = stream.uniforms(step, Site.SHEAR_PAIRS, range(rounds), K, W.device).argsort(-1)  # (C, rounds, K)
    u = stream.uniforms(step, Site.SHEAR, range(rounds), K // 2, W.device)  # (C, rounds, K // 2)
    W = W.mT.clone(memory_format=torch.contiguous_format)
    H = H.clone(memory_format=torch.contiguous_format)
    shears = Shears(W, H, rates[0].mT.contiguous(), rates[1].contiguous(), order, u)
    shear = _compiled_shears if kernels_for(W.device) is cpu else _plain_shears
    shear(shears, gather)
    return W.mT, H


class Shears(NamedTuple):
    """The rounds of a shear move on this rank's rows, a component a row; W and H are written to."""

    W: Tensor  # (C, K, n)
    H: Tensor  # (C, K, D)
    rate_W: Tensor  # (1 | K, 1 | n)
    rate_H: Tensor  # (1 | K, 1 | D)
    order: Tensor  # (C, rounds, K), whose neighbours are the pairs of a round
    u: Tensor  # (C, rounds, M), a uniform a pair


def _plain_shears(shears: Shears, gather: Gather) -> None:
    """All rounds, in torch."""
    W, H, _, _, order, u = shears
    M = u.shape[-1]
    chain = torch.arange(len(W), device=W.device)[:, None]
    rate_W = _rate_a_component(shears.rate_W, W)
    rate_H = _rate_a_component(shears.rate_H, H)
    for turn in range(u.shape[1]):
        k = order[:, turn, 0 : 2 * M : 2]
        l = order[:, turn, 1 : 2 * M : 2]
        W_k = W[chain, k]
        W_l = W[chain, l]
        H_k = H[chain, k]
        H_l = H[chain, l]
        own = torch.stack([(rate_W[l] * W_k.double()).sum(-1), reference.least_ratio(W_l, W_k)])
        of_ranks = gather(own)  # (ranks, 2, C, M)
        slope = of_ranks[:, 0].sum(0) - (rate_H[k] * H_l.double()).sum(-1)
        low = -of_ranks[:, 1].amin(0)
        t = reference.truncated_exponential(slope, low, reference.least_ratio(H_k, H_l), u[:, turn])
        t = t.to(W.dtype)[..., None]
        W[chain, l] = (W_l + t * W_k).clamp(min=0)
        H[chain, k] = (H_k - t * H_l).clamp(min=0)


def _rate_a_component(rate: Tensor, F: Tensor) -> Tensor:
    """A rate (1 | K, 1 | R) for each component of F (C, K, R): (K, 1 | R)."""
    return rate.to(F.device).expand(F.shape[1:] if rate.numel() > 1 else (F.shape[1], 1))


def _compiled_shears(shears: Shears, gather: Gather) -> None:
    """The same on the CPU, in float64 whatever the factors hold; sums over rows are kept up to date by the shifts."""
    W, H, rate_W, rate_H, order, uniforms = (values.numpy() for values in shears)
    total_W = np.array([_totals(F) for F in W])
    total_H = np.array([_totals(F) for F in H])
    own = torch.empty(len(W), uniforms.shape[-1], 2, dtype=torch.float64)
    for turn in range(uniforms.shape[1]):
        for c in range(len(W)):
            _measure(W[c], total_W[c], rate_W, order[c, turn], own[c].numpy())
        of_ranks = gather(own).numpy()  # (ranks, C, M, 2)
        for c in range(len(W)):
            totals = (total_W[c], total_H[c])
            _shear(W[c], H[c], totals, rate_H, order[c, turn], uniforms[c, turn], of_ranks[:, c])


@njit(**COMPILED)
def _totals(F):  # type: ignore[no-untyped-def]
    """Σ_i F[k, i] of each component (K,)."""
    totals = np.empty(len(F))
    for k in range(len(F)):
        totals[k] = total_of(F[k])
    return totals


@njit(**COMPILED)
def _measure(W, total, rates, order, out):  # type: ignore[no-untyped-def]
    """out (M, 2): Σ_i rates[l, i] W[k, i] and the least W[l, i] / W[k, i], for each pair (k, l) of a round."""
    for m in range(len(out)):
        k = order[2 * m]
        l = order[2 * m + 1]
        out[m, 0] = rated(W[k], total[k], rates, l)
        out[m, 1] = least_ratio(W[l], W[k])


@njit(**COMPILED)
def _shear(W, H, totals, rate_H, order, u, of_ranks):  # type: ignore[no-untyped-def]
    """A round of pairs, from what the ranks have measured (ranks, M, 2)."""
    total_W, total_H = totals
    for m in range(len(u)):
        k = order[2 * m]
        l = order[2 * m + 1]
        slope = 0.0
        least = np.inf
        for rank in range(len(of_ranks)):
            slope += of_ranks[rank, m, 0]
            least = min(least, of_ranks[rank, m, 1])
        slope -= rated(H[l], total_H[l], rate_H, k)
        t = truncated_exponential(slope, -least, least_ratio(H[k], H[l]), u[m])
        total_W[l] = shift(W[l], W[k], t)
        total_H[k] = shift(H[k], H[l], -t)
