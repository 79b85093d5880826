r"""The move along the ridge: W_k ← c W_k, H_k ← H_k / c leaves W @ H, hence the likelihood, as it is.

Under gamma priors, the Haar measure dc / c and the Jacobian c^(N - D), the density of c is

.. math:: c^{p - 1} \exp(-c \sum_i b_{ik} W_{ik} - c^{-1} \sum_j b_{kj} H_{kj}), \quad p = \sum_i a_{ik} - \sum_j a_{kj},

a generalised inverse Gaussian.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ppnmf.distributions import gig_from_proposals
from ppnmf.kernels.cpu.positive import generalized_inverse_gaussian
from ppnmf.kernels.reference import GIG_PROPOSALS
from ppnmf.poisson.allocation import is_compiled
from ppnmf.priors import Gamma
from ppnmf.protocols import Address, Matrix, Params
from ppnmf.rng import Site

__all__ = ["balanced", "greatest", "moved", "sums"]

Prior = Callable[[str], Gamma]


class Sums(NamedTuple):
    """Of each component, float64: Σ_i a and Σ_i b W (C, K), and those of H."""

    size_W: Tensor
    rate_W: Tensor
    size_H: Tensor
    rate_H: Tensor


def moved(prior: Prior, X: Matrix, params: Params, at: Address, first: int = 0) -> dict[str, Tensor]:
    """The scale of every component from `first` on from its conditional."""
    W, H = params["W"], params["H"]
    own = sums(prior, X, W, H)
    alive = (own.rate_W > 0) & (own.rate_H > 0)
    alive[:, :first] = False
    p = own.size_W - own.size_H
    a, b = (torch.where(alive, 2 * total, 1.0) for total in (own.rate_W, own.rate_H))
    c = _drawn(p, a, b, at)
    return _scaled(params, torch.where(alive, c, 1.0))


def balanced(prior: Prior, X: Matrix, params: Params) -> dict[str, Tensor]:
    """The scales at which the priors' density of W and H is greatest: it is stationary where B c² - A c - B' = 0."""
    own = sums(prior, X, params["W"], params["H"])
    N, D = X.shape
    return _scaled(params, greatest(own._replace(size_W=own.size_W - N, size_H=own.size_H - D)))


def greatest(own: Sums) -> Tensor:
    """c (C, K) where (size_W - size_H) log c - rate_W c - rate_H / c is greatest; 1 where it grows without end."""
    A = own.size_W - own.size_H
    alive = (own.rate_W > 0) & (own.rate_H > 0)
    root = (A.square() + 4 * own.rate_W * own.rate_H).sqrt()
    c = torch.where(A > 0, (A + root) / (2 * own.rate_W), 2 * own.rate_H / (root - A))
    return torch.where(alive, c, 1.0)


def sums(prior: Prior, X: Matrix, W: Tensor, H: Tensor) -> Sums:
    """Of W (C, N, K) and H (C, K, D)."""
    (size_W, rate_W), (size_H, rate_H) = (prior(site).on(W.device) for site in ("W", "H"))
    each_W = torch.stack([size_W.expand(W.shape).sum(-2), (rate_W * W.double()).sum(-2)])
    of_W = X.add_up(each_W)
    return Sums(of_W[0], of_W[1], size_H.expand(H.shape).sum(-1), (rate_H * H.double()).sum(-1))


def _drawn(p: Tensor, a: Tensor, b: Tensor, at: Address) -> Tensor:
    """c (C, K) of density ∝ c^(p - 1) exp(-(a c + b / c) / 2)."""
    C, K = p.shape
    if not is_compiled(p):
        u = at.stream.uniforms(at.step, Site.SCALE, range(GIG_PROPOSALS * K), 3, p.device)
        return gig_from_proposals(p, a, b, u.unflatten(1, (GIG_PROPOSALS, K)).movedim(1, 0))
    each = zip(*(values.flatten().tolist() for values in (p, a, b)), strict=True)
    drawn = [
        generalized_inverse_gaussian(*own, *at.stream.keys[n // K], at.step, n % K, K) for n, own in enumerate(each)
    ]
    return torch.tensor(drawn, dtype=torch.float64).reshape(C, K)


def _scaled(params: Params, c: Tensor) -> dict[str, Tensor]:
    W, H = params["W"], params["H"]
    return {**params, "W": W * c[:, None, :].to(W.dtype), "H": H / c[:, :, None].to(H.dtype)}
