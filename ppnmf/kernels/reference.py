"""The kernels in plain torch: the definition that the compiled ones are checked against, on any device.

Four functions make a sweep: `half_sweep` of a factor, `inverse_gamma` for the noise, `scale_move` and `shear_move`
along the ridge where W @ H stays as it is. Each draws from addresses of a `Stream`, so it is a pure function.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ppnmf.distributions import RectifiedNormal, gig_from_proposals
from ppnmf.protocols import Statistics
from ppnmf.rng import Site, Stream

__all__ = [
    "column",
    "half_sweep",
    "inverse_gamma",
    "least_ratio",
    "moved",
    "residual_where_small",
    "scale_move",
    "shear_move",
    "shear_rounds",
    "truncated_exponential",
]

GAMMA_PROPOSALS = 16
GIG_PROPOSALS = 64
MOST_ROUNDS = 24  # of shears in a sweep

Natural = tuple[Tensor, Tensor]  # (precision, linear) of a prior, broadcastable to the rows and columns of a factor


def column(k: int, F: Tensor, statistics: Statistics, prior: Natural) -> RectifiedNormal:
    r"""p(F[:, k] | rest), independent over rows; P = β X Hᵀ / σ² and Q = β H Hᵀ / σ² carry noise and temperature.

    Args:
        k: the component.
        F: a factor with its R rows leading, shape (*C, R, K): W, or Hᵀ.
        statistics: P (*C, R, K) and Q (*C, K, K) or (*C, R, K, K).
        prior: natural parameters, each broadcastable to (R, K).

    Returns: the conditional, batch shape (*C, R). (Schmidt et al. 2009, equations 9 to 13, in natural parameters.)
    """
    P, Q = statistics
    is_shared = Q.ndim == P.ndim  # one Q for all rows
    own = Q[..., k, k, None] if is_shared else Q[..., k, k]
    row_of_Q = Q[..., None, k, :] if is_shared else Q[..., k, :]
    others = (F * row_of_Q).sum(-1) - F[..., k] * own  # (*C, R): what the other components explain
    precision = _column_of(prior[0], k).to(F.device)
    linear = _column_of(prior[1], k).to(F.device)
    return RectifiedNormal(precision + own, linear + P[..., k] - others, validate_args=False)


def _column_of(natural: Tensor, k: int) -> Tensor:
    return natural[:, k if natural.shape[1] > 1 else 0]


def half_sweep(
    F: Tensor,
    statistics: Statistics,
    prior: Natural,
    draw: tuple[Stream, int, Site] | None,
    first_row: int = 0,
    first: int = 0,
    weight: Tensor | None = None,
    fresh: int = 1,
) -> Tensor:
    """Update components first, first + 1, ... K - 1 of a factor F (C, R, K) in turn, each given the ones before it.

    Args:
        draw: the address of the draws; None takes the mode of each conditional instead, and an entry about which
            neither prior nor data say anything (precision and linear 0) stays where it is.
        first_row: the number of F's first row in the whole factor, when F is a block of it.
        weight: what the statistics are taken times, (C,): β / σ².
        fresh: in steps that this does not divide an entry goes to the other side of its conditional instead, from where a
            share u of it lies below to where a share u lies above. Such a step leaves the conditional as it is too, and
            from one to the next a chain goes on in the direction in which it went: it walks no random walk.

    References: Neal (1998), Suppressing random walks in Markov chain Monte Carlo using ordered overrelaxation, in Jordan,
    Learning in Graphical Models, pages 205-228; Adler (1981), doi:10.1103/PhysRevD.23.2901, of normal conditionals.
    """
    if weight is not None:
        statistics = statistics.weighted(weight)
    F = F.clone()
    uniforms = None
    reflects = draw is not None and draw[1] % fresh != 0
    if draw is not None and not reflects:
        stream, step, site = draw
        uniforms = stream.uniforms(step, site, range(first_row, first_row + F.shape[-2]), F.shape[-1], F.device)
    for k in range(first, F.shape[-1]):
        conditional = column(k, F, statistics, prior)
        if reflects:
            below = (1 - conditional.survival(F[..., k])).clamp(2.0**-53, 1 - 2.0**-53)
            F[..., k] = conditional.survival_inverse(below).to(F.dtype)
        elif uniforms is None:
            said = (conditional.precision > 0) | (conditional.linear != 0)
            F[..., k] = torch.where(said, conditional.mode.to(F.dtype), F[..., k])
        else:
            F[..., k] = conditional.survival_inverse(uniforms[..., k]).to(F.dtype)
    return F


def inverse_gamma(shape: float, scale: Tensor, stream: Stream, step: int) -> Tensor:
    """σ² ~ InverseGamma(shape, scale), scale (C,), float64: Marsaglia and Tsang (2000), doi:10.1145/358407.358414.

    Sixteen proposals at once, of which the first accepted is taken; all fail less than once in 1e20.

    Args:
        shape: one for all chains.
        stream, step: the proposals lie at rows 0 ... 15 of the site SIGMA2, and row 16 is for shapes below 1.
    """
    boosted = shape if shape >= 1 else shape + 1
    d = boosted - 1 / 3
    u = stream.uniforms(step, Site.SIGMA2, range(GAMMA_PROPOSALS), 2, scale.device)  # (C, 16, 2)
    z = torch.special.ndtri(u[..., 0])
    v = (1 + z / (9 * d) ** 0.5) ** 3
    log_v = v.clamp(min=torch.finfo(v.dtype).tiny).log()
    accepted = (v > 0) & (u[..., 1].log() < 0.5 * z.square() + d * (1 - v + log_v))
    g = d * v.gather(-1, accepted.to(torch.int8).argmax(-1, keepdim=True)).squeeze(-1)
    if shape < 1:
        extra = stream.uniforms(step, Site.SIGMA2, range(GAMMA_PROPOSALS, GAMMA_PROPOSALS + 1), 1, scale.device)
        g = g * extra[:, 0, 0] ** (1 / shape)
    return scale.double() / g


def scale_move(W: Tensor, H: Tensor, rates: tuple[Tensor, Tensor], stream: Stream, step: int) -> tuple[Tensor, Tensor]:
    """W_k ← c W_k, H_k ← H_k / c for every component, c from its exact conditional under exponential priors.

    Under the Haar measure dc / c and with the Jacobian c^(N - D) its density is
    c^(N - D - 1) exp(-c Σ_i r_W W_ik - Σ_j r_H H_kj / c): a generalised inverse Gaussian, taken from 64 proposals at once.

    A component with no entry above zero in W or in H is dead, and stays as it is.

    Args:
        W: (C, N, K). H: (C, K, D). rates: of the priors, broadcastable to (N, K) and (K, D).

    References: Devroye (2014), doi:10.1007/s11222-012-9367-z.
    """
    K = W.shape[-1]
    a = 2 * (W.double() * rates[0]).sum(-2)  # (C, K)
    b = 2 * (H.double() * rates[1]).sum(-1)
    p = torch.full_like(a, W.shape[-2] - H.shape[-1])
    u = stream.uniforms(step, Site.SCALE, range(GIG_PROPOSALS * K), 3, W.device)
    u = u.unflatten(1, (GIG_PROPOSALS, K)).movedim(1, 0)  # (proposals, C, K, 3)
    alive = (a > 0) & (b > 0)
    one = torch.ones_like(a)
    c = gig_from_proposals(p, torch.where(alive, a, one), torch.where(alive, b, one), u)
    c = torch.where(alive, c, one)
    return W * c[:, None, :].to(W.dtype), H / c[:, :, None].to(H.dtype)


def moved(W: Tensor, H: Tensor, rates: tuple[Tensor, Tensor], stream: Stream, step: int) -> tuple[Tensor, Tensor]:
    """Both moves along the ridge, one after the other: `scale_move` and `shear_move`, whose arguments it has."""
    W, H = scale_move(W, H, rates, stream, step)
    return shear_move(W, H, rates, stream, step)


def shear_rounds(K: int) -> int:
    """Rounds of ⌊K / 2⌋ disjoint pairs that make K (K - 1) pairs, or as many as pay where there are many components.

    Effective draws of strengths a processor second hardly change from 16 rounds to all 50 on 400 × 300 of rank 25, and fall
    by a third from 24 to all 98 on pictures of faces, rank 49, where zeros stop a shear at once.
    """
    return 0 if K < 2 else min(MOST_ROUNDS, K * (K - 1) // (K // 2))


def shear_move(W: Tensor, H: Tensor, rates: tuple[Tensor, Tensor], stream: Stream, step: int) -> tuple[Tensor, Tensor]:
    """W_l ← W_l + t W_k, H_k ← H_k - t H_l for random ordered pairs k ≠ l, t from its exact conditional.

    The Jacobian is 1, so under exponential priors t has density ∝ exp(-t (Σ_i r_W[i,l] W_ik - Σ_j r_H[k,j] H_lj)) where
    everything stays >= 0. Pairs come in rounds of disjoint ones, which do not disturb one another.

    Args:
        W: (C, N, K). H: (C, K, D). rates: of the priors, broadcastable to (N, K) and (K, D).
    """
    C, N, K = W.shape
    D = H.shape[-1]
    M = K // 2
    W = W.clone()
    H = H.clone()
    rate_W = rates[0].expand(N, K).to(W.device)
    rate_H = rates[1].expand(K, D).to(H.device)
    for turn in range(shear_rounds(K)):
        k, l = _pairs(stream, step, turn, K, W.device)
        u = stream.uniforms(step, Site.SHEAR, range(turn, turn + 1), M, W.device)[:, 0]  # (C, M)
        in_W = (C, N, M)
        in_H = (C, M, D)
        W_k = W.gather(2, k[:, None, :].expand(in_W))
        W_l = W.gather(2, l[:, None, :].expand(in_W))
        H_k = H.gather(1, k[:, :, None].expand(in_H))
        H_l = H.gather(1, l[:, :, None].expand(in_H))
        slope = (rate_W.T[l] * W_k.mT.double()).sum(-1) - (rate_H[k] * H_l.double()).sum(-1)
        t = truncated_exponential(slope, -least_ratio(W_l.mT, W_k.mT), least_ratio(H_k, H_l), u).to(W.dtype)
        W.scatter_(2, l[:, None, :].expand(in_W), (W_l + t[:, None, :] * W_k).clamp(min=0))
        H.scatter_(1, k[:, :, None].expand(in_H), (H_k - t[:, :, None] * H_l).clamp(min=0))
    return W, H


def _pairs(stream: Stream, step: int, turn: int, K: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The components k and l of a round's ⌊K / 2⌋ pairs, each (C, M)."""
    order = stream.uniforms(step, Site.SHEAR_PAIRS, range(turn, turn + 1), K, device)[:, 0].argsort(-1)
    M = K // 2
    return order[:, 0 : 2 * M : 2], order[:, 1 : 2 * M : 2]


def least_ratio(above: Tensor, below: Tensor) -> Tensor:
    """The least of above / below over the last axis where below > 0, float64; infinite where it never is."""
    infinite = torch.full((), torch.inf, dtype=torch.float64, device=above.device)
    return torch.where(below > 0, above.double() / below.double(), infinite).amin(-1)


def truncated_exponential(slope: Tensor, low: Tensor, high: Tensor, u: Tensor) -> Tensor:
    """t with density ∝ exp(-slope t) on [low, high], measured from the end where it is greatest; 0 where unbounded."""
    steep = slope.abs()
    width = high - low
    flat = steep * width < 1e-12
    e = torch.where(flat, u * width, -torch.log1p(u * torch.expm1(-steep * width)) / torch.where(flat, 1.0, steep))
    e = torch.minimum(e, width)
    t = torch.where(slope >= 0, low + e, high - e)
    return torch.where(t.isfinite(), t, torch.zeros_like(t))


def residual_where_small(left: Tensor, least: float, X: Tensor, weight: Tensor | None, W: Tensor, H: Tensor) -> Tensor:
    """A residual sum of squares `left` (C,), float64, formed anew from the residuals where it is not above `least`.

    A sum of squares that is left over when its parts are subtracted has lost its digits where it is small. The host does
    not look which chains these are.

    Args:
        X: (N, D). weight: of each entry, broadcastable to (N, D), 0 where it is missing; None for 1 everywhere.
        W: (C, N, K). H: (C, K, D).
    """
    square = (X.double() - W.double() @ H.double()).square()
    anew = (square if weight is None else square * weight).sum((-2, -1))
    return torch.where(left > least, left, anew)
