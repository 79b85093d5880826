"""A Weibull distribution for any concentration in any dtype, and a wider one for importance sampling."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributions

__all__ = ["Weibull", "Widened"]

ONE_DRAW = torch.Size()


class Weibull(distributions.Weibull):
    """torch's, with what rounding takes from that one: it goes through (w / λ)^k, which overflows and underflows.

    There, at k = 100 in float32, the log density is NaN at 10 λ and -inf at λ / 1000 (it is -640); at k = 0.1 one draw in
    30 000 is zero, which is outside the support; quantiles and probabilities below 1e-6 are wrong by a per cent or wholly;
    the mode below k = 1 is not zero.
    """

    @property
    def mode(self) -> Tensor:
        """Where the density is greatest: zero for k <= 1."""
        return self.scale * (1 - self.concentration_reciprocal).clamp(min=0) ** self.concentration_reciprocal

    def cdf(self, value: Tensor) -> Tensor:
        """P(w <= value), to relative accuracy where it is small."""
        return -torch.expm1(-((value / self.scale) ** self.concentration))

    def icdf(self, value: Tensor) -> Tensor:
        """The w with P(w' <= w) = value, likewise."""
        return self.scale * (-torch.log1p(-value)) ** self.concentration_reciprocal

    def log_prob(self, value: Tensor) -> Tensor:
        """log k - log λ + (k - 1) log(w / λ) - (w / λ)^k; -inf far out."""
        if self._validate_args:
            self._validate_sample(value)
        ratio = value / self.scale
        k = self.concentration
        return k.log() - self.scale.log() + torch.xlogy(k - 1, ratio) - ratio**k

    def rsample(self, sample_shape: Any = ONE_DRAW) -> Tensor:
        """Draws (*sample_shape, *batch_shape) from torch's global generator, by way of float64; never zero."""
        shape = self._extended_shape(sample_shape)
        exponential = torch.empty(shape, dtype=torch.float64, device=self.scale.device).exponential_()
        draws = self.scale * exponential**self.concentration_reciprocal
        return draws.to(self.scale.dtype).clamp(min=torch.finfo(self.scale.dtype).tiny)

    def sample(self, sample_shape: Any = ONE_DRAW) -> Tensor:
        """The same without gradients."""
        with torch.no_grad():
            return self.rsample(sample_shape)


class Widened(NamedTuple):
    """A guide to draw from for importance sampling: each loading, with some probability, from a wider Weibull.

    A Weibull with k > 2 dies away faster than the normal posteriors that it stands for: its own draws miss their upper
    end, unseen. Half the concentration gives about twice the deviation.
    """

    guide: distributions.Weibull  # batch shape (N, K)
    share: float  # the probability of the wider one; 0: the guide as it is

    @property
    def wide(self) -> Weibull:
        """The wider one."""
        return Weibull(self.guide.scale, self.guide.concentration / 2, validate_args=False)

    def at(self, u: Tensor) -> Tensor:
        """Draws made of uniforms (*S, N, K)."""
        if not self.share:
            return self.guide.icdf(u)
        is_wide = u < self.share
        of_own = torch.where(is_wide, 0.5, (u - self.share) / (1 - self.share))
        of_wide = torch.where(is_wide, u / self.share, 0.5)
        return torch.where(is_wide, self.wide.icdf(of_wide), self.guide.icdf(of_own))

    def log_prob(self, W: Tensor) -> Tensor:
        """Of each entry of W (*S, N, K): the mixture's."""
        own = self.guide.log_prob(W)
        if not self.share:
            return own
        return torch.logaddexp(own + math.log1p(-self.share), self.wide.log_prob(W) + math.log(self.share))
