"""The noise variance σ² ~ InverseGamma(α, θ), of density θ^α / Γ(α) · s^(-α-1) · exp(-θ / s), and all that is read off it.

Given the rest, σ² ~ InverseGamma(α + β n / 2, θ + β SSE / 2): n entries are observed, SSE is their residual sum of squares
and β the temperature of the likelihood. (Schmidt, Winther, Hansen 2009 print one more in the shape, a slip.)

A noise variance that is known (`KnownNoise`) offers the same: it is no random variable, and has no density. Where every column
has a variance of its own, `ColumnNoise` is what is said of them.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import numpy as np
import torch
from pyro.distributions import Delta, InverseGamma
from scipy import special
from torch import Tensor

from ppnmf.distributions.moments import matched_gammas
from ppnmf.kernels import kernels_for
from ppnmf.kernels.gammas import gammas
from ppnmf.protocols import Address
from ppnmf.rng import Site, Stream

__all__ = ["ColumnNoise", "KnownNoise", "Noise", "NoisePrior", "inverse_gammas", "log_likelihood"]


class NoisePrior(NamedTuple):
    """InverseGamma(shape, scale): α and θ."""

    shape: float
    scale: float

    def given(self, observed: int, power: float = 1.0) -> NoisePrior:
        """The conditional but for what the misfit adds to the scale, `power` times half of it.

        Args:
            observed: n, how many entries of X are observed.
            power: β.
        """
        return NoisePrior(self.shape + power * observed / 2, self.scale)

    def conditional(self, misfit: Tensor, observed: int, power: float = 1.0) -> InverseGamma:
        """p(σ² | rest) from the residual sums of squares (*C,)."""
        of_misfit = self.given(observed, power)
        return InverseGamma(of_misfit.shape, of_misfit.scale + power * misfit / 2)

    def draw(self, misfit: Tensor, observed: int, power: float, stream: Stream, step: int) -> Tensor:
        """A draw of it for each chain, (C,), float64."""
        of_misfit = self.given(observed, power)
        kernels = kernels_for(misfit.device)
        return kernels.inverse_gamma(of_misfit.shape, of_misfit.scale + power * misfit / 2, stream, step)

    def mode(self, misfit: Tensor, observed: int) -> Tensor:
        """Its mode, (θ + SSE / 2) / (α + n / 2 + 1): there the one is right."""
        return (self.scale + misfit / 2) / (self.shape + observed / 2 + 1)

    def prior_draws(self, u: Tensor) -> Tensor:
        """Draws of the prior by its inverse distribution function, at uniforms on the CPU, float64."""
        return self.scale / torch.from_numpy(np.asarray(special.gammainccinv(self.shape, u.numpy())))

    def prior_draw(self, stream: Stream, device: torch.device) -> Tensor:
        """A draw of the prior for each chain, (C,), float64."""
        scale = torch.full((len(stream),), self.scale, dtype=torch.float64, device=device)
        return kernels_for(device).inverse_gamma(self.shape, scale, stream, 0)

    def log_prob(self, sigma2: Tensor) -> Tensor:
        """log p(σ²), float64."""
        s = sigma2.double()
        return self.shape * math.log(self.scale) - math.lgamma(self.shape) - (self.shape + 1) * s.log() - self.scale / s


class KnownNoise(NamedTuple):
    """A noise variance σ² that is known: every draw and mode of it, and nothing that a density is of."""

    sigma2: float

    def conditional(self, misfit: Tensor, observed: int, power: float = 1.0) -> Delta:
        """σ² itself, (*C,)."""
        return Delta(self.mode(misfit, observed))

    def draw(self, misfit: Tensor, observed: int, power: float, stream: Stream, step: int) -> Tensor:
        """σ² for each chain, (C,), float64."""
        return self.mode(misfit, observed)

    def mode(self, misfit: Tensor, observed: int) -> Tensor:
        """σ² for each misfit, float64."""
        return torch.full_like(misfit, self.sigma2, dtype=torch.float64)

    def prior_draws(self, u: Tensor) -> Tensor:
        """σ² for each uniform, float64."""
        return torch.full_like(u, self.sigma2, dtype=torch.float64)

    def prior_draw(self, stream: Stream, device: torch.device) -> Tensor:
        """σ² for each chain, (C,), float64."""
        return torch.full((len(stream),), self.sigma2, dtype=torch.float64, device=device)

    def log_prob(self, sigma2: Tensor) -> Tensor:
        """0: there is no density, float64."""
        return torch.zeros_like(sigma2, dtype=torch.float64)


Noise = NoisePrior | KnownNoise


class ColumnNoise(NamedTuple):
    """σ²_j ~ InverseGamma(shape_j, scale_j) of each column j, independently; both (D,), float64."""

    shape: Tensor
    scale: Tensor

    @classmethod
    def matched(cls, draws: Tensor, width: float) -> Self:
        """From draws (S, D): their reciprocals' means, and `width` times their variances.

        The reciprocals are gammas and have moments, where a column of few observed entries has σ²_j of no finite mean.
        """
        return cls(*matched_gammas(1 / draws.double(), width))

    def on(self, device: torch.device) -> Self:
        """The same on a device."""
        return type(self)(self.shape.to(device), self.scale.to(device))

    def prior_draw(self, stream: Stream, device: torch.device) -> Tensor:
        """A draw of them for each chain, (C, D), float64."""
        return inverse_gammas(self.shape, self.scale.expand(len(stream), -1), Address(stream, 0)).to(device)

    def log_prob(self, sigma2: Tensor) -> Tensor:
        """log p(σ²_1 ... σ²_D) of sigma2 (*C, D), (*C,), float64."""
        s = sigma2.double()
        shape, scale = self.on(s.device)
        constant = shape * scale.log() - torch.lgamma(shape)
        return (constant - (shape + 1) * s.log() - scale / s).sum(-1)


def inverse_gammas(shape: Tensor, scale: Tensor, at: Address) -> Tensor:
    """InverseGamma(shape, scale), shape (D,), scale (C, D); drawn on the CPU wherever they are, D numbers a chain."""
    each = shape.cpu().expand(scale.shape)[..., None].contiguous().numpy()
    standard = np.empty_like(each)
    keys = np.array(at.stream.keys, dtype=np.int64)
    gammas(each, np.ones((len(each), 1, 1)), keys, (at.step, int(Site.SIGMA2), 0), 0.0, standard)
    return scale / torch.from_numpy(standard)[..., 0].to(scale.device)


def log_likelihood(misfit: Tensor, sigma2: Tensor, observed: int) -> Tensor:
    """log p(X | W, H, σ²) from the residual sum of squares over the observed entries, float64, (*C,)."""
    sigma2 = sigma2.double()
    return -0.5 * observed * (math.log(2 * math.pi) + sigma2.log()) - 0.5 * misfit / sigma2
