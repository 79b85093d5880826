r"""The evidence lower bound of X ≈ W @ H with Gaussian noise, a Weibull guide of W and the prior Weibull(1, 1), exact.

The likelihood is quadratic in W and a Weibull's first two moments are known:

.. math:: E\|x - wH\|^2 = \|x - E[w] H\|^2 + \sum_k Var[w_k] \|H_k\|^2.

Training takes its gradient some thousands of times, so it is written out (`_Expected`): three products with X's shape
and no derivative that two others share is formed twice.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributions import Weibull

from ppnmf.distributions import EULER

__all__ = ["Elbo", "Guide", "analytic_elbo", "elbo_at", "weibull_moments"]


class Elbo(NamedTuple):
    """The evidence lower bound in its two parts, in nats."""

    log_likelihood: Tensor  # E_guide log p(X | W)
    divergence: Tensor  # KL(guide of W ‖ prior of W)

    @property
    def value(self) -> Tensor:
        """The bound, ()."""
        return self.log_likelihood - self.divergence


class Guide(NamedTuple):
    """The parameters of W's Weibulls, without what a distribution carries besides: training makes thousands."""

    scale: Tensor  # λ (N, K)
    concentration: Tensor  # k (N, K)


def weibull_moments(guide: Guide | Weibull) -> tuple[Tensor, Tensor]:
    """Mean λΓ(1 + 1/k) and variance λ²[Γ(1 + 2/k) - Γ(1 + 1/k)²], without cancellation for large k."""
    return _moments(guide.scale, guide.concentration.reciprocal())


def analytic_elbo(
    X: Tensor,
    guide: Guide | Weibull,
    H: Tensor,
    sigma2: Tensor,
    mask: Tensor | None = None,
    unit: Tensor | float = 1.0,
) -> Elbo:
    """The evidence lower bound, and its gradient once.

    Args:
        X: (N, D); what lies under the mask is never read.
        guide: of W, batch shape (N, K).
        H: (K, D).
        sigma2: the noise variance, () or one a column (D,), in units of `unit` squared.
        mask: boolean (N, D), True where observed.
        unit: of X. (The slope by σ² goes with 1/σ⁴: in X's own unit it may overflow where the bound does not.)
    """
    errors, divergence = _Expected.apply(guide.scale, guide.concentration, H, X, mask)
    return Elbo(_log_likelihood(errors, X, sigma2, mask, unit), divergence)


def elbo_at(
    W: Tensor,
    X: Tensor,
    guide: Guide | Weibull,
    H: Tensor,
    sigma2: Tensor,
    mask: Tensor | None = None,
    unit: Tensor | float = 1.0,
) -> Elbo:
    """`analytic_elbo` with log p(X | W) at one W (N, K) in place of its mean: a draw of the guide's, or its median."""
    residual = X - W @ H
    errors = (residual if mask is None else torch.where(mask, residual, 0.0)).square().sum(0)
    inverse = guide.concentration.reciprocal()
    divergence = _divergence(guide.scale, inverse, _moments(guide.scale, inverse)[0])
    return Elbo(_log_likelihood(errors, X, sigma2, mask, unit), divergence)


def _log_likelihood(errors: Tensor, X: Tensor, sigma2: Tensor, mask: Tensor | None, unit: Tensor | float) -> Tensor:
    """The Gaussian's, from the squared errors of each column (D,)."""
    observed: Tensor | int = len(X) if mask is None else mask.sum(0)
    log_variance = math.log(2 * math.pi) + 2 * torch.as_tensor(unit, dtype=sigma2.dtype).log() + sigma2.log()
    return -0.5 * (errors / unit / unit / sigma2 + observed * log_variance).sum()


def _moments(scale: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance, from λ and 1/k."""
    log_first = torch.lgamma(1 + inverse)
    mean = scale * log_first.exp()
    return mean, mean.square() * torch.expm1(torch.lgamma(1 + 2 * inverse) - 2 * log_first)


def _divergence(scale: Tensor, inverse: Tensor, mean: Tensor) -> Tensor:
    """Σ KL(Weibull(k, λ) ‖ Weibull(1, 1)) = Σ [m - 1 - log(λ / k) - γ (1 - 1/k)] (Bauckhage 2014), from λ, 1/k and the mean m.

    The terms are summed apart, which takes fewer passes; the rounding of each is small beside N K.
    """
    return mean.sum() - (scale * inverse).log().sum() + EULER * inverse.sum() - (1 + EULER) * scale.numel()


class _Expected(torch.autograd.Function):
    r"""Expected squared errors of each column (D,) and the divergence () of a guide with λ, k (N, K).

    With u = 1/k, m and v a loading's mean and variance, ψ₁ = ψ(1 + u), ψ₂ = ψ(1 + 2u):

    .. math:: dm = m (dλ/λ + ψ_1 du), \quad dv = 2 v dλ/λ + 2 [v ψ_1 + (v + m^2)(ψ_2 - ψ_1)] du.
    """

    @staticmethod
    def forward(
        ctx: Any, scale: Tensor, concentration: Tensor, H: Tensor, X: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        inverse = concentration.reciprocal()
        mean, variance = _moments(scale, inverse)
        residual = torch.addmm(X, mean, H, alpha=-1)
        if mask is not None:
            residual = torch.where(mask, residual, 0.0)
        exposed = variance.sum(0) if mask is None else mask.to(H.dtype).mT @ variance  # (K,) or (D, K)
        errors = residual.square().sum(0) + (exposed * H.square().mT).sum(1)
        divergence = _divergence(scale, inverse, mean)
        ctx.save_for_backward(scale, inverse, H, mean, variance, residual, exposed, mask)
        return errors, divergence

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_errors: Tensor, by_divergence: Tensor) -> tuple[Tensor | None, ...]:
        scale, inverse, H, mean, variance, residual, exposed, mask = ctx.saved_tensors
        weighted = H * by_errors  # (K, D)
        squares = (H.square() * by_errors).mT  # (D, K)
        by_mean = torch.mm(residual, weighted.mT).mul_(-2).add_(by_divergence)
        by_variance = squares.sum(0) if mask is None else mask.to(H.dtype) @ squares
        by_H = None
        if ctx.needs_input_grad[2]:
            by_H = 2 * by_errors * ((exposed[:, None] if mask is None else exposed.mT) * H - mean.mT @ residual)

        by_log_scale = by_mean.mul_(mean).addcmul_(by_variance, variance, value=2)
        first = torch.digamma(1 + inverse)
        second = torch.digamma(1 + 2 * inverse)
        square = torch.addcmul(variance, mean, mean)
        by_inverse = (second.sub_(first).mul_(square).mul_(by_variance).mul_(2)).addcmul_(first, by_log_scale)
        by_inverse += by_divergence * (EULER - inverse.reciprocal())
        by_concentration = by_inverse.mul_(inverse).mul_(inverse).neg_()
        return by_log_scale.sub_(by_divergence).div_(scale), by_concentration, by_H, None, None
