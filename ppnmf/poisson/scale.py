r"""The move along the ridge: W_k ← c W_k, H_k ← H_k / c leaves W @ H, hence the likelihood, as it is.

Under gamma priors, the Haar measure dc / c and the Jacobian c^(N - D), the density of c is

.. math:: c^{p - 1} \exp(-c \sum_i b_{ik} W_{ik} - c^{-1} \sum_j b_{kj} H_{kj}), \quad p = \sum_i a_{ik} - \sum_j a_{kj},

a generalised inverse Gaussian. Where entries are known the sums are over the others, and a component moves only if all that is
known of it is zeros, which a scale leaves.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ppnmf.distributions import gig_from_proposals
from ppnmf.kernels.cpu.positive import generalized_inverse_gaussian
from ppnmf.kernels.reference import GIG_PROPOSALS
from ppnmf.known import Known, known_of, learned
from ppnmf.poisson.allocation import is_compiled
from ppnmf.poisson.pinned import Prior
from ppnmf.protocols import Address, Matrix, Params
from ppnmf.rng import Site

__all__ = ["balanced", "greatest", "moved", "sums"]


class Sums(NamedTuple):
    """Over the entries of each component that are not known, float64: Σ_i a and Σ_i b W (C, K), and those of H."""

    size_W: Tensor
    rate_W: Tensor
    size_H: Tensor
    rate_H: Tensor
    number_W: Tensor  # of these entries, (C, K)
    number_H: Tensor  # (K,)
    pinned: Tensor  # known entries that are not zero, of both factors, (C, K)

    @property
    def alive(self) -> Tensor:
        """Which components have a scale that can move, (C, K)."""
        return (self.rate_W > 0) & (self.rate_H > 0) & (self.pinned == 0)


def moved(prior: Prior, X: Matrix, params: Params, at: Address, first: int = 0) -> dict[str, Tensor]:
    """The scale of every component from `first` on from its conditional."""
    W, H = params["W"], params["H"]
    own = sums(prior, X, W, H)
    alive = own.alive
    alive[:, :first] = False
    p = own.size_W - own.size_H
    a, b = (torch.where(alive, 2 * total, 1.0) for total in (own.rate_W, own.rate_H))
    c = _drawn(p, a, b, at)
    return _scaled(params, torch.where(alive, c, 1.0))


def balanced(prior: Prior, X: Matrix, params: Params) -> dict[str, Tensor]:
    """The scales at which the priors' density of W and H is greatest: it is stationary where B c² - A c - B' = 0."""
    own = sums(prior, X, params["W"], params["H"])
    size_W = own.size_W - own.number_W
    size_H = own.size_H - own.number_H
    return _scaled(params, greatest(own._replace(size_W=size_W, size_H=size_H)))


def greatest(own: Sums) -> Tensor:
    """c (C, K) where (size_W - size_H) log c - rate_W c - rate_H / c is greatest; 1 where it has no such place or may not move."""
    A = own.size_W - own.size_H
    root = (A.square() + 4 * own.rate_W * own.rate_H).sqrt()
    c = torch.where(A > 0, (A + root) / (2 * own.rate_W), 2 * own.rate_H / (root - A))
    return torch.where(own.alive, c, 1.0)


def sums(prior: Prior, X: Matrix, W: Tensor, H: Tensor) -> Sums:
    """Of W (C, N, K) and H (C, K, D)."""
    (size_W, rate_W), (size_H, rate_H) = (prior(site).on(W.device) for site in ("W", "H"))
    of = {site: known_of(prior(site)) for site in ("W", "H")}
    told = _told(of["W"], W)
    own_W = [
        learned(prior("W"), size_W.expand(W.shape)).sum(-2),
        learned(prior("W"), rate_W * W.double()).sum(-2),
        *(number.expand(len(W), -1) for number in told),
    ]
    of_W = X.add_up(torch.stack(own_W))
    own_H = learned(prior("H"), size_H.expand(H.shape)).sum(-1), learned(prior("H"), rate_H * H.double()).sum(-1)
    number_H, pinned_H = _told(None if of["H"] is None else of["H"].turned, H.mT)
    return Sums(of_W[0], of_W[1], *own_H, of_W[2], number_H, of_W[3] + pinned_H)


def _told(known: Known | None, F: Tensor) -> tuple[Tensor, Tensor]:
    """How many entries of each component of F (C, R, K) are not known, and how many are known to be above zero, (K,)."""
    rows, K = F.shape[-2:]
    nothing = torch.zeros(K, dtype=torch.float64, device=F.device)
    if known is None:
        return nothing + rows, nothing
    here = known.on(F.device)
    return rows - here.at.double().sum(0), here.above_zero


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
