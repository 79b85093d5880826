r"""Variational Bayes with a noise variance a column (`columns`).

It is `moments` with q(σ²_j) = InverseGamma(α + n_j / 2, θ + E[SSE_j] / 2); "sigma2" of an approximation is (C, D), each
1 / E[1/σ²_j].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy import special
from torch import Tensor

from ppnmf.gaussian import columns, moments
from ppnmf.gaussian.columns import LOG_2PI, over_columns
from ppnmf.gaussian.noise import NoisePrior
from ppnmf.gaussian.sweep import Story
from ppnmf.kernels.moments import half_sweep
from ppnmf.priors import Natural
from ppnmf.protocols import Drawn, Matrix, Params, Statistics, Swept
from ppnmf.rng import Site, Stream
from ppnmf.threads import single_threaded

__all__ = ["divergence", "draws", "swept"]


class OfColumns(NamedTuple):
    """Independent InverseGamma(shape, scale), of each column: shape (D,), scale (C, D)."""

    shape: Tensor
    scale: Tensor

    @classmethod
    def of(cls, q: Params, noise: NoisePrior, X: Matrix) -> OfColumns:
        """Those of an approximation."""
        shape = noise.shape + columns.about(X).observed / 2
        return cls(shape, q["sigma2"] * shape)

    @property
    def mean_log(self) -> Tensor:
        """E[log σ²_j], (C, D)."""
        return self.scale.log() - torch.special.digamma(self.shape)

    def log_prob(self, sigma2: Tensor) -> Tensor:
        """Summed over the columns, (*C,), float64."""
        s = sigma2.double()
        constant = self.shape * self.scale.log() - torch.lgamma(self.shape)
        return (constant - (self.shape + 1) * s.log() - self.scale / s).sum(-1)

    def divergence(self, prior: NoisePrior) -> Tensor:
        """KL(q || p), (C,)."""
        log, typical = self.mean_log, self.scale / self.shape
        alpha = torch.tensor(prior.shape, dtype=torch.float64, device=log.device)
        of_prior = alpha * torch.as_tensor(prior.scale).double().log() - torch.lgamma(alpha)
        log_prior = of_prior - (alpha + 1) * log - prior.scale / typical
        own = self.shape * self.scale.log() - torch.lgamma(self.shape) - (self.shape + 1) * log - self.shape
        return (own - log_prior).sum(-1)


def swept(story: Story, X: Matrix, q: Params, number: int) -> Swept:
    """So many sweeps of coordinate ascent: W, H, σ². `log_likelihood` is E_q[log p(X | W, H, σ²)] after them, (C, 1)."""
    expected = torch.empty(0)
    for _ in range(number):
        q, square = _refined(story, X, q)
        prior = columns.learned_noise(story)
        noise = OfColumns(prior.shape + columns.about(X).observed / 2, prior.scale + square / 2)
        q = {**q, "sigma2": noise.scale / noise.shape}
        each = columns.about(X).observed * (LOG_2PI + noise.mean_log) + square / q["sigma2"]
        expected = -0.5 * (each.sum(-1) + X.log_noise)
    return Swept(q, {}, expected[:, None])


def _refined(story: Story, X: Matrix, q: Params) -> tuple[dict[str, Tensor], Tensor]:
    """The factors' part of a sweep; also E[SSE_j], (C, D)."""
    v = q["sigma2"]
    one = torch.ones_like(v[:, 0])
    with single_threaded():
        W, told = moments.rows_of_W(story, X, q, one, v)
        natural = Natural(*(values.mT for values in story.prior("H").natural(X.device)))
        H = half_sweep(q["H"].mT, over_columns(told.expected, v), natural, one)
        of_means = Statistics(told.P.to(X.dtype), told.Q.to(X.dtype))
        left = columns.misfits(X, W.mean.to(X.dtype), H.mean.mT.to(X.dtype), of_means)
        square = left + moments.spread_of_products(told, H).sum(-1)
    return moments.updated(story, q, W, H), square


def divergence(story: Story, q: Params, X: Matrix) -> Tensor:
    """KL(q || p) of W, H and σ², (C,)."""
    noise = columns.learned_noise(story)
    of_factors = sum(moments.divergence_of_factor(story, q, site) for site in ("W", "H"))
    return OfColumns.of(q, noise, X).divergence(noise) + of_factors


def draws(story: Story, q: Params, X: Matrix, n: int, stream: Stream) -> Drawn:
    """n independent draws of every site from one approximation (its axis C is 1), and log q of each."""
    factors = moments.draws_of_factors(story, q, n, stream, X.dtype)
    noise = OfColumns.of(q, columns.learned_noise(story), X)
    u = stream.uniforms(0, Site.SIGMA2, range(n), X.shape[1])[0]
    standard = torch.from_numpy(special.gammainccinv(noise.shape.cpu().numpy(), u.cpu().numpy()))
    sigma2 = (noise.scale[0] / standard.to(noise.scale.device)).to(X.dtype)
    return Drawn({**factors.params, "sigma2": sigma2}, factors.log_density + noise.log_prob(sigma2))
