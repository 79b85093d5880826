"""Distributions of counts: Poisson, and negative binomial by its mean and its dispersion, with quantiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from scipy import special
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.utils import broadcast_all
from torch.types import _size

__all__ = ["NegativeBinomial", "Poisson"]


class Poisson(torch.distributions.Poisson):
    """Poisson counts, with quantiles, and densities that are right for large counts in single precision."""

    def log_prob(self, value: Tensor) -> Tensor:
        rate = self.rate.double()
        value = value.double()
        return (torch.xlogy(value, rate) - rate - torch.lgamma(value + 1)).to(self.rate.dtype)

    def icdf(self, value: Tensor) -> Tensor:
        """The least count whose distribution function is at least `value`."""
        return _quantiles(value, special.pdtr, [self.rate], self.rate, 1 / self.rate.sqrt())


class NegativeBinomial(Distribution):
    r"""Counts of mean μ and variance μ + μ² / φ: Poisson of mean g μ, g ~ Gamma(φ, φ).

    Args:
        mean: μ > 0.
        dispersion: φ > 0; the greater, the nearer to Poisson.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"mean": constraints.positive, "dispersion": constraints.positive}
    support = constraints.nonnegative_integer

    def __init__(self, mean: Tensor, dispersion: Tensor, validate_args: bool | None = None) -> None:
        self._mean, self.dispersion = broadcast_all(mean, dispersion)
        super().__init__(self._mean.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self._mean

    @property
    def variance(self) -> Tensor:
        return self._mean + self._mean.square() / self.dispersion

    def expand(self, batch_shape: _size, _instance: NegativeBinomial | None = None) -> NegativeBinomial:
        return NegativeBinomial(self._mean.expand(batch_shape), self.dispersion.expand(batch_shape))

    @torch.no_grad()
    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008  # a value
        shape = self._extended_shape(sample_shape)
        latent = torch._standard_gamma(self.dispersion.expand(shape)) / self.dispersion
        return torch.poisson(latent * self._mean)

    def log_prob(self, value: Tensor) -> Tensor:
        """log Γ(x + φ) / (Γ(φ) x!) + φ log(φ / (φ + μ)) + x log(μ / (φ + μ))."""
        phi, mu, value = self.dispersion.double(), self._mean.double(), value.double()
        ways = torch.lgamma(value + phi) - torch.lgamma(phi) - torch.lgamma(value + 1)
        found = ways - phi * torch.log1p(mu / phi) + torch.xlogy(value, mu / (phi + mu))
        return found.to(self._mean.dtype)

    def icdf(self, value: Tensor) -> Tensor:
        """The least count whose distribution function is at least `value`."""
        phi, mu = self.dispersion, self._mean
        skewness = (1 + 2 * mu / phi) / self.variance.sqrt()
        share = phi / (phi + mu)

        def below(k: np.ndarray, phi: np.ndarray, share: np.ndarray) -> np.ndarray:
            return special.betainc(phi, k + 1, share)

        return _quantiles(value, below, [phi, share], mu, skewness, self.variance.sqrt())


def _quantiles(
    u: Tensor,
    below: Callable[..., np.ndarray],
    parameters: list[Tensor],
    mean: Tensor,
    skewness: Tensor,
    deviation: Tensor | None = None,
) -> Tensor:
    """The least counts k >= 0 with below(k, *parameters) >= u, searched from Cornish and Fisher's approximation."""
    z = torch.special.ndtri(u.double())
    spread = mean.sqrt() if deviation is None else deviation
    guess = (mean + spread * (z + skewness * (z.square() - 1) / 6)).round().clamp(min=0)
    guess = torch.where(guess.isfinite(), guess, 0.0)  # of a mean of zero, and of a level of one
    shape = torch.broadcast_shapes(u.shape, mean.shape)
    flat = [values.detach().double().cpu().expand(shape).flatten().numpy() for values in (u, guess, *parameters)]
    level, start, *known = flat

    def reached(k: np.ndarray, at: np.ndarray) -> np.ndarray:
        return (k >= 0) & (below(np.maximum(k, 0.0), *(own[at] for own in known)) >= level[at])

    low, high = start - 1.0, start.copy()  # not reached, and reached, once both have been looked for
    for end, away, wanted in ((high, 1.0, True), (low, -1.0, False)):
        at, step = np.arange(len(level)), 1.0
        while len(at := at[reached(end[at], at) != wanted]):
            other = low if wanted else high
            other[at] = end[at]
            end[at] = np.maximum(end[at] + away * step, -1.0)
            step *= 2
    at = np.arange(len(level))
    while len(at := at[high[at] > np.maximum(low[at] + 1, np.nextafter(low[at], np.inf))]):
        middle = np.floor((low[at] + high[at]) / 2)
        found = reached(middle, at)
        high[at] = np.where(found, middle, high[at])
        low[at] = np.where(found, low[at], middle)
    return torch.from_numpy(high.reshape(shape)).to(mean)
