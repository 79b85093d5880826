r"""Moves along the ridge, where W and H change and W @ H, hence the likelihood, does not.

A plain Gibbs chain crawls along that ridge; two exact moves end the crawl. With the natural parameters (a, b) of an entry's
prior:

*Scale*: W_k ← c W_k, H_k ← H_k / c. Under the Haar measure dc / c and with the Jacobian c^(N - D) its log density is

.. math:: (N - D - 1) \log c - \tfrac12 A c^2 + B c - \tfrac12 A' c^{-2} + B' c^{-1},

A = Σ_i a_ik W_ik², B = Σ_i b_ik W_ik, and A', B' the same for H_k. Under exponential priors that is a generalised inverse
Gaussian in c, under half-normal ones in c²; under others log c takes a slice step (Neal 2003, doi:10.1214/aos/1056562461).

*Shear*: for ordered k ≠ l, W_l ← W_l + t W_k and H_k ← H_k - t H_l, of Jacobian 1. The density of t is

.. math:: \propto \exp\bigl(-\tfrac12 t^2 (\textstyle\sum_i a_{il} W_{ik}^2 + \sum_j a_{kj} H_{lj}^2)
    + t (\sum_i (b_{il} - a_{il} W_{il}) W_{ik} - \sum_j (b_{kj} - a_{kj} H_{kj}) H_{lj})\bigr)

where everything stays >= 0: a normal truncated at both ends, or an exponential.

Exponential priors on one process have kernels of their own (`kernels`), compiled with the whole sweep. Here the others are
defined in torch, for any device and for rows over processes; `kernels.natural` is the same, compiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppnmf.distributions import RectifiedNormal, gig_from_proposals, survival_beyond
from ppnmf.kernels import cpu, kernels_for, natural, split
from ppnmf.kernels.natural import EXPONENTIAL, HALF_NORMAL
from ppnmf.kernels.reference import GIG_PROPOSALS, least_ratio, shear_rounds, truncated_exponential
from ppnmf.priors import Natural, RectifiedPrior
from ppnmf.rng import Site, Stream
from ppnmf.threads import lots, ordered_map

__all__ = ["Priors", "all_free", "balanced", "compiled", "moved", "rates_of", "scale_move", "shear_move", "truncated"]

Prior = Callable[[str], RectifiedPrior]
Gather = Callable[[Tensor], Tensor]  # a part of each process -> all of them, (processes, *shape)


class Priors(NamedTuple):
    """The natural parameters of both factors' priors, broadcastable to W (N, K) and H (K, D); for `compiled` also one a chain."""

    W: Natural
    H: Natural

    @property
    def kind(self) -> int:
        """Which family the scale's conditional is of."""
        return natural.kind_of(self.W, self.H)

    def free(self, first: int) -> Priors:
        """Those of the components from `first` on."""
        W = [values[:, first:] if values.shape[1] > 1 else values for values in self.W]
        H = [values[first:] if values.shape[0] > 1 else values for values in self.H]
        return Priors(Natural(*W), Natural(*H))


def rates_of(prior: Prior, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """The rates of W's and H's priors, broadcastable to (N, K) and (K, D); None where they are not exponential."""
    if not (prior("W").is_exponential and prior("H").is_exponential):
        return None
    return -prior("W").natural(device).linear, -prior("H").natural(device).linear


def moved(
    prior: Prior, X: Any, W: Tensor, H: Tensor, stream: Stream, step: int, first: int = 0
) -> tuple[Tensor, Tensor]:
    """W (C, N, K) and H (C, K, D), their components from `first` on moved along the ridge."""
    rates = rates_of(prior, W.device)
    priors = Priors(prior("W").natural(W.device), prior("H").natural(W.device))
    if first:
        own = W[..., first:], H[:, first:]
        moved_W, moved_H = _moved(X, *own, priors.free(first), rates is not None, stream, step)
        return torch.cat([W[..., :first], moved_W], -1), torch.cat([H[:, :first], moved_H], -2)
    return _moved(X, W, H, priors, rates is not None, stream, step)


def _moved(
    X: Any, W: Tensor, H: Tensor, priors: Priors, exponential: bool, stream: Stream, step: int
) -> tuple[Tensor, Tensor]:
    gather = X.gather
    if exponential:
        rates = -priors.W.linear, -priors.H.linear
        if gather is None:
            return kernels_for(W.device).moved(W, H, rates, stream, step)
        W, H = split.scale_move(W, H, rates, stream, step, gather, X.shape[0])
        return split.shear_move(W, H, rates, stream, step, gather)
    if gather is None and kernels_for(W.device) is cpu:
        return compiled(W, H, priors, stream, step)
    N = W.shape[-2] if gather is None else X.shape[0]  # of factors between others W has fewer rows than X
    W, H = scale_move(W, H, priors, stream, step, gather, N)
    return shear_move(W, H, priors, stream, step, gather)


def compiled(
    W: Tensor, H: Tensor, priors: Priors, stream: Stream, step: int, free: natural.Free | None = None
) -> tuple[Tensor, Tensor]:
    """Both moves of W (C, N, K) and H (C, K, D), on the CPU; `free`: which are made, all by default."""
    own_W, own_H = (F.clone(memory_format=torch.contiguous_format).numpy() for F in (W.mT, H))
    of_W = tuple(values.mT.contiguous().numpy() for values in priors.W)
    of_H = tuple(values.contiguous().numpy() for values in priors.H)
    kind, K = priors.kind, W.shape[-1]
    made = all_free(W, H) if free is None else free

    def move(chains: range) -> None:
        room = cpu.room_for_moves(K)
        for c in chains:
            address = (*stream.keys[c], step)
            natural.move(own_W[c], own_H[c], _of_chain(of_W, c), _of_chain(of_H, c), kind, made, address, room)

    groups = lots(len(own_W))
    ordered_map(move, groups, 20.0 * len(groups[0]) * K * K * (own_W.shape[-1] + own_H.shape[-1]))
    return torch.from_numpy(own_W).mT, torch.from_numpy(own_H)


def _of_chain(own: tuple[np.ndarray, ...], c: int) -> tuple[np.ndarray, ...]:
    """Natural parameters, a component a row, of which some are one a chain."""
    return tuple(values if values.ndim == 2 else values[c] for values in own)


def all_free(W: Tensor, H: Tensor) -> natural.Free:
    """Every move, where no entry is known."""
    K = W.shape[-1]
    size = float(W.shape[-2] - H.shape[-1])
    return natural.Free(np.ones(K, np.bool_), np.full(K, size), np.ones((K, K), np.bool_))


def balanced(prior: Prior, X: Any, W: Tensor, H: Tensor) -> tuple[Tensor, Tensor]:
    """W_k ← c W_k, H_k ← H_k / c at the c that maximises the priors, where both are exponential or both half-normal.

    It leaves W @ H as it is. Under other priors the factors are given back as they are.
    """
    rates = rates_of(prior, W.device)
    if rates is not None:
        if not bool(rates[1].any()):
            return W, H
        a, b = X.add_up((W * rates[0].to(W)).sum(-2)), (H * rates[1].to(H)).sum(-1)
        c = torch.where((a > 0) & (b > 0), (b / a).sqrt(), torch.ones_like(a))
        return W * c[:, None, :], H / c[:, :, None]
    priors = Priors(prior("W").natural(W.device), prior("H").natural(W.device))
    if priors.kind != HALF_NORMAL:
        return W, H
    A = X.add_up((W.square() * priors.W.precision.to(W)).sum(-2))
    A_H = (H.square() * priors.H.precision.to(H)).sum(-1)
    c = torch.where((A > 0) & (A_H > 0), (A_H / A).sqrt().sqrt(), torch.ones_like(A))
    return W * c[:, None, :], H / c[:, :, None]


def scale_move(
    W: Tensor,
    H: Tensor,
    priors: Priors,
    stream: Stream,
    step: int,
    gather: Gather | None = None,
    N: int | None = None,
    free: natural.Free | None = None,
) -> tuple[Tensor, Tensor]:
    """The scale of every component from its exact conditional, or by a slice step.

    Args:
        W: (C, N, K), or this process's rows of it. H: (C, K, D).
        gather: brings the processes' parts together; N: rows of the whole.
        free: which components are moved, all by default.
    """
    of_W, own_H = W.double(), H.double()
    sums = torch.stack([(priors.W.precision * of_W.square()).sum(-2), (priors.W.linear * of_W).sum(-2), of_W.sum(-2)])
    A, B, total = sums if gather is None else gather(sums).sum(0)
    A_H, B_H = (priors.H.precision * own_H.square()).sum(-1), (priors.H.linear * own_H).sum(-1)
    N, D = W.shape[-2] if N is None else N, H.shape[-1]
    alive = (total > 0) & (own_H.sum(-1) > 0)
    size = torch.full_like(A, N - D)
    if free is not None:
        alive = alive & torch.from_numpy(free.scaled).to(A.device)
        size = torch.from_numpy(free.size).to(A).expand_as(A)
    one = torch.ones_like(A)
    own = [torch.where(alive, values, -one if values is B or values is B_H else one) for values in (A, B, A_H, B_H)]
    if priors.kind == EXPONENTIAL:
        c = _gig(size, -2 * own[1], -2 * own[3], stream, step)
    elif priors.kind == HALF_NORMAL:
        c = _gig(0.5 * size, own[0], own[2], stream, step).sqrt()
    else:
        c = _sliced(size, own, 4 / math.sqrt(N + D), stream, step).exp()
    c = torch.where(alive, c, one)
    return W * c[:, None, :].to(W.dtype), H / c[:, :, None].to(H.dtype)


def _gig(p: Tensor, a: Tensor, b: Tensor, stream: Stream, step: int) -> Tensor:
    K = p.shape[-1]
    u = stream.uniforms(step, Site.SCALE, range(GIG_PROPOSALS * K), 3, p.device)
    return gig_from_proposals(p, a, b, u.unflatten(1, (GIG_PROPOSALS, K)).movedim(1, 0))


def _sliced(p: Tensor, sums: list[Tensor], width: float, stream: Stream, step: int) -> Tensor:
    """log c (C, K) by a slice step from 0: steps out by `width`, and shrinks what was missed."""
    A, B, A_H, B_H = sums
    K, device = A.shape[-1], A.device

    def log_density(y: Tensor) -> Tensor:
        c, d = y.exp(), (-y).exp()
        return p * y + c * (B - 0.5 * A * c) + d * (B_H - 0.5 * A_H * d)

    def uniforms(trial: int) -> tuple[Tensor, Tensor]:
        u = stream.uniforms(step, Site.SCALE, range(trial * K, (trial + 1) * K), 2, device)
        return u[..., 0], u[..., 1]

    u, v = uniforms(0)
    level = log_density(torch.zeros_like(A)) + u.log()
    low = -width * v
    high = low + width
    for end, away in ((low, -width), (high, width)):
        for _ in range(natural.STEPS_OUT):
            inside = log_density(end) > level
            if not bool(inside.any()):
                break
            end += torch.where(inside, away, 0.0)
    found, done = torch.zeros_like(A), torch.zeros_like(A, dtype=torch.bool)
    for trial in range(1, natural.SHRINKAGES):
        y = low + uniforms(trial)[0] * (high - low)
        hit = (log_density(y) > level) & ~done
        found = torch.where(hit, y, found)
        done = done | hit
        if bool(done.all()):
            break
        low, high = torch.where(~done & (y < 0), y, low), torch.where(~done & (y >= 0), y, high)
    return found


def shear_move(
    W: Tensor,
    H: Tensor,
    priors: Priors,
    stream: Stream,
    step: int,
    gather: Gather | None = None,
    free: natural.Free | None = None,
) -> tuple[Tensor, Tensor]:
    """The shear of random ordered pairs, in `shear_rounds` rounds of disjoint ones, each from its exact conditional.

    Args:
        W: (C, N, K), or this process's rows of it. H: (C, K, D).
        gather: brings the processes' parts together.
        free: which pairs are sheared, all by default.
    """
    C, N, K = W.shape
    D, M = H.shape[-1], K // 2
    W, H = W.clone(), H.clone()
    a_W, b_W = (values.expand(N, K).mT for values in priors.W)
    a_H, b_H = (values.expand(K, D) for values in priors.H)
    for turn in range(shear_rounds(K)):
        order = stream.uniforms(step, Site.SHEAR_PAIRS, range(turn, turn + 1), K, W.device)[:, 0].argsort(-1)
        u = stream.uniforms(step, Site.SHEAR, range(turn, turn + 1), M, W.device)[:, 0]  # (C, M)
        k, l = order[:, 0 : 2 * M : 2], order[:, 1 : 2 * M : 2]
        in_W = lambda index: index[:, None, :].expand(C, N, M)  # noqa: E731
        in_H = lambda index: index[:, :, None].expand(C, M, D)  # noqa: E731
        W_k, W_l = (W.gather(2, in_W(index)).mT.double() for index in (k, l))
        H_k, H_l = (H.gather(1, in_H(index)).double() for index in (k, l))
        square = (a_W[l] * W_k.square()).sum(-1)
        slope = ((b_W[l] - a_W[l] * W_l) * W_k).sum(-1)
        least = least_ratio(W_l, W_k)
        if gather is not None:
            told = gather(torch.stack([square, slope, least]))  # (processes, 3, C, M)
            square, slope, least = told[:, 0].sum(0), told[:, 1].sum(0), told[:, 2].amin(0)
        square = square + (a_H[k] * H_l.square()).sum(-1)
        slope = slope - ((b_H[k] - a_H[k] * H_k) * H_l).sum(-1)
        t = truncated(square, slope, -least, least_ratio(H_k, H_l), u)
        if free is not None:
            t = torch.where(torch.from_numpy(free.sheared).to(t.device)[k, l], t, 0.0)
        W.scatter_(2, in_W(l), (W_l + t[..., None] * W_k).clamp(min=0).mT.to(W.dtype))
        H.scatter_(1, in_H(k), (H_k - t[..., None] * H_l).clamp(min=0).to(H.dtype))
    return W, H


def truncated(square: Tensor, slope: Tensor, low: Tensor, high: Tensor, u: Tensor) -> Tensor:
    """t with density ∝ exp(-square t² / 2 + slope t) on [low, high], a monotone function of u; float64.

    Where the interval has no end there is none to measure from, and t is 0; where `square` is 0 it is an exponential.
    """
    curved = square > 0
    root = torch.where(curved, square, 1.0).sqrt()
    middle = torch.where(curved, slope, 0.0) / root.square()
    width = (high - low) * root
    flipped = (low - middle) + (high - middle) < 0  # measured from the end that lies nearer to the mode
    bound = torch.where(flipped, middle - high, low - middle) * root
    flat = width * torch.maximum(torch.maximum(bound.abs(), (bound + width).abs()), torch.ones_like(u)) < natural.FLAT
    usable = curved & ~flat & bound.isfinite()
    safe_bound = torch.where(usable, bound, 0.0)
    safe_width = torch.where(usable, width, 1.0)
    share = 1 - u * (1 - survival_beyond(safe_bound, safe_width))
    excess = RectifiedNormal(torch.ones_like(share), -safe_bound, validate_args=False).survival_inverse(share) / root
    excess = torch.minimum(excess, torch.where(usable, high - low, torch.inf))
    t = torch.where(flipped, high - excess, low + excess)
    t = torch.where(usable, t, torch.where(flat, low + u * (high - low), 0.0))
    return torch.where(curved, t, truncated_exponential(-slope, low, high, u))
