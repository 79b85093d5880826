"""Exponential priors, Gaussian likelihood with a noise variance a column."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppnmf.factored import shape_of
from ppnmf.gaussian import columns, columns_moments, columns_path, moments, path
from ppnmf.gaussian.factors import RectifiedFactors
from ppnmf.gaussian.scale import data_scale
from ppnmf.gaussian.sweep import Factors
from ppnmf.priors import RATE, Exponential, Hyper
from ppnmf.protocols import Address, Drawn, Matrix, Params, Read, Sweeps, Swept
from ppnmf.rng import Stream

__all__ = ["ColumnNoiseGaussian"]


@dataclass(frozen=True, eq=False)
class ColumnNoiseGaussian(RectifiedFactors):
    r"""W_ik ~ Exponential(rate_W), H_kj ~ Exponential(rate_H), σ²_j ~ InverseGamma, X_ij ~ Normal((WH)_ij, σ²_j).

    For columns that are measured with unequal precision, how unequal is not known: genes, sensors, questions. Where it is the
    rows, give X's transpose; where it is known, give `noise=` to any Gaussian model.

    Args:
        rank: K, the number of components.
        rate_W, rate_H: rates of the priors, as in `ExponentialGaussian`.
        noise_shape, noise_scale: α and θ of every column's σ²_j ~ InverseGamma(α, θ). A column of few entries can be fitted
            exactly, and θ then decides how small its σ²_j gets.

    Raises:
        ValueError: a rank below 1, a negative rate or one of the wrong shape, noise parameters that are not positive.
    """

    rank: int
    rate_W: Hyper = 1.0
    rate_H: Hyper = 1.0
    noise_shape: float = 1.0
    noise_scale: float = 1.0

    sigma2 = None  # known noise is `noise=` of `ppnmf.fit`
    name: ClassVar[str] = "column_noise_gaussian"
    hyper: ClassVar = {"rate": RATE}

    def __call__(
        self, X: Tensor | None = None, mask: Tensor | None = None, *, shape: tuple[int, int] | None = None
    ) -> Tensor:
        """The generative story. X (N, D) is observed where `mask` is True; with X None, X of `shape` is drawn.

        Raises:
            ValueError: neither X nor shape is given, a prior is improper, or hyperparameters do not fit X.
        """
        self.require_proper()
        (N, D), like = shape_of(X, shape)
        self.require_fits((N, D))
        rows, columns = pyro.plate("row", N, dim=-2), pyro.plate("column", D, dim=-1)
        with rows, pyro.plate("component of W", self.rank, dim=-1):
            W = self.hold("W", pyro.sample("W", self.prior("W").distribution(like)))
        with pyro.plate("component of H", self.rank, dim=-2), columns:
            H = self.hold("H", pyro.sample("H", self.prior("H").distribution(like)))
        with columns:
            sigma2 = pyro.sample("sigma2", dist.InverseGamma(like.new_tensor(self.noise_shape), self.noise_scale))
        if mask is not None and X is not None:
            X = torch.where(mask, X, torch.zeros_like(X))  # what lies under the mask must not leak, NaN least of all
        with rows, columns:
            return pyro.sample("X", dist.Normal(W @ H, sigma2.sqrt()).mask(True if mask is None else mask), obs=X)

    def prior_of(self, *hyper: Tensor) -> Exponential:
        """Exponential, with the factor's rates."""
        return Exponential(*hyper)

    @classmethod
    def for_data(cls, X: Any, rank: int, mask: Any = None, missing: str = "error") -> Self:
        """Equal rates, so that W @ H has X's mean a priori; noise_shape 1, noise_scale a common noise's, estimated.

        Raises:
            ValueError: the observed X has a mean or a variance that is not positive.
        """
        scale = data_scale(X, rank, mask, missing)
        rate = math.sqrt(rank / scale.mean)
        return cls(rank, rate, rate, 1.0, scale.noise)

    def sites(self, N: int, D: int) -> dict[str, dict[str, int]]:
        """The factors and a noise variance a column."""
        K = self.rank
        return {"W": {"row": N, "component": K}, "H": {"component": K, "column": D}, "sigma2": {"column": D}}

    def likelihood(self, params: Params) -> dist.Normal:
        """The distribution of X given W (*C, N, K), H (*C, K, D), sigma2 (*C, D): batch shape (*C, N, D)."""
        return dist.Normal(params["W"] @ params["H"], params["sigma2"].sqrt()[..., None, :])

    def log_likelihood_at(self, params: Params, X: Matrix) -> Tensor:
        """log p(X | W, H, σ²) of the observed entries, (C,)."""
        return columns.log_likelihood(X, columns.misfits(X, params["W"], params["H"]), params["sigma2"])

    def log_prior(self, params: Params) -> Tensor:
        """log p(W, H, σ²), shape (*C,); the constant of an improper prior is dropped."""
        return self.log_prior_of_factors(params, self.noise.log_prob(params["sigma2"]).sum(-1))

    def begin(self, X: Matrix, stream: Stream, how: str | Params) -> dict[str, Tensor]:
        """A start by its name ("scaled", "prior", "nndsvd"), or values, where sigma2 may be left out."""
        return columns.begin(self._story, self.rank, X, stream, how)

    def prior_draws(self, shape: tuple[int, int], n: int, stream: Stream) -> dict[str, Tensor]:
        """n draws of W (n, N, K), H (n, K, D), sigma2 (n, D) from the prior."""
        return columns.prior_draws(self._story, self.rank, shape, n, stream)

    def sweep(self, params: Params, X: Matrix, asked: Sweeps, at: Address | None) -> Swept:
        """So many sweeps: the columns of W, the rows of H, σ², and moves along the ridge; or moments of an approximation."""
        if asked.read is Read.MOMENTS:
            return columns_moments.swept(self._story, X, params, asked.number)
        return columns.swept(self._story, X, params, asked, at)

    def others_at_mode(self, factors: Factors, X: Matrix) -> Params:
        """Every σ²_j at its mode given the factors."""
        return {"sigma2": columns.mode(columns.learned_noise(self._story), X, columns.misfits(X, factors.W, factors.H))}

    def approximated(self, params: Params, X: Matrix) -> Params:
        """The approximation that stands at these values."""
        return moments.approximated(params)

    def divergence(self, q: Params, X: Matrix) -> Tensor:
        """KL(q || p) of W, H and σ², (C,)."""
        return columns_moments.divergence(self._story, q, X)

    def approximate_draws(self, q: Params, X: Matrix, n: int, stream: Stream) -> Drawn:
        """n draws of W, H and σ² from one approximation."""
        return columns_moments.draws(self._story, q, X, n, stream)

    def reference(self, draws: Params, width: float) -> path.Fitted:
        """Independent rectified normals, and inverse gammas for the columns, with the moments of draws (S, *site), variances
        times `width`."""
        return columns_path.fitted(draws, width, self._story)

    def sweep_between(
        self, reference: path.Fitted, params: Params, X: Matrix, asked: Sweeps, at: Address | None
    ) -> Swept:
        """Sweeps that leave [p(X | θ) p(θ)]^β r(θ)^(1-β) as it is, β = `asked.power`; log_likelihood is log p(X | θ)."""
        return columns_path.swept(self._story, reference, X, params, asked, at)
