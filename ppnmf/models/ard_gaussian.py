"""Exponential priors whose rates, one a component, are random too: components that are not needed empty themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppnmf.checks import real_number, whole_number
from ppnmf.factored import shape_of
from ppnmf.gaussian import blocks, relevance, relevance_path
from ppnmf.gaussian.base import GaussianModel
from ppnmf.gaussian.relevance import Hyperprior
from ppnmf.gaussian.scale import data_scale
from ppnmf.gaussian.sweep import Factors
from ppnmf.protocols import Address, Drawn, Matrix, Params, Read, Sweeps, Swept
from ppnmf.rng import Stream
from ppnmf.settings import own_settings

__all__ = ["ARDGaussian"]

EMPTY = 1e-3  # of the size that entries have a priori: an empty component's, in the compressive choice


@dataclass(frozen=True, eq=False)
class ARDGaussian(GaussianModel):
    r"""rate_k ~ Gamma, W_ik ~ Exponential(rate_k), H_kj ~ Exponential(rate_k), σ² ~ InverseGamma, X_ij ~ Normal((WH)_ij, σ²).

    Give it more components than there can be: those that the data do not need empty, and `Posterior.live_components` counts
    the others, draw by draw.

    Args:
        rank: K, the most components there can be.
        rate_shape: α₀ of rate_k ~ Gamma(α₀, β₀), density ∝ r^(α₀ - 1) exp(-β₀ r): in how many entries' stead it speaks.
        rate_scale: β₀, the sum of those entries, in units of W and H.
        compression: entries more in whose stead the hyperprior speaks, for each of the N + D entries of a component. 0 is
            ordinary automatic relevance determination; 1 the compressive hyperprior, which a large X does not drown.
        empty: the size of each of them, to which components that are not needed shrink.
        noise_shape, noise_scale, sigma2: of the noise variance's prior, or itself, as in `ExponentialGaussian`.

    Raises:
        ValueError: a rank below 1, parameters that are not positive, a compression below 0.

    References: Tan and Févotte (2013), doi:10.1109/TPAMI.2012.240; Brouwer, Frellsen, Lió (2017), arXiv:1707.05147;
        compression: Zito and Miller (2024), arXiv:2404.10974.
    """

    rank: int
    rate_shape: float = 1.0
    rate_scale: float = 1.0
    compression: float = 0.0
    empty: float = EMPTY
    noise_shape: float = 1.0
    noise_scale: float = 1.0
    sigma2: float | None = None

    name: ClassVar[str] = "ard_gaussian"

    @own_settings()
    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", whole_number("rank", self.rank, 1))
        for own in ("rate_shape", "rate_scale", "empty"):
            object.__setattr__(self, own, real_number(own, getattr(self, own)))
        self.require_noise()
        object.__setattr__(self, "compression", real_number("compression", self.compression, 0))
        self._check_fixed()

    def __call__(
        self, X: Tensor | None = None, mask: Tensor | None = None, *, shape: tuple[int, int] | None = None
    ) -> Tensor:
        """The generative story. X (N, D) is observed where `mask` is True; with X None, X of `shape` is drawn.

        Raises:
            ValueError: neither X nor shape is given.
        """
        (N, D), like = shape_of(X, shape)
        hyper = self.hyperprior((N, D))
        rows, columns = pyro.plate("row", N, dim=-2), pyro.plate("column", D, dim=-1)
        if self.sigma2 is None:
            sigma2 = pyro.sample("sigma2", dist.InverseGamma(like.new_tensor(self.noise_shape), self.noise_scale))
        else:
            sigma2 = pyro.deterministic("sigma2", like.new_tensor(self.sigma2))
        with pyro.plate("component", self.rank, dim=-1):
            rate = pyro.sample("rate", dist.Gamma(like.new_tensor(hyper.shape), hyper.scale))
        with rows, pyro.plate("component of W", self.rank, dim=-1):
            # Gamma(1, rate) is Exponential(rate), which Pyro cannot draw for a picture
            W = self.hold("W", pyro.sample("W", dist.Gamma(1.0, rate)))
        with pyro.plate("component of H", self.rank, dim=-2), columns:
            H = self.hold("H", pyro.sample("H", dist.Gamma(1.0, rate[:, None])))
        if mask is not None and X is not None:
            X = torch.where(mask, X, torch.zeros_like(X))  # what lies under the mask must not leak, NaN least of all
        with rows, columns:
            return pyro.sample("X", dist.Normal(W @ H, sigma2.sqrt()).mask(True if mask is None else mask), obs=X)

    @classmethod
    def for_data(cls, X: Any, rank: int, mask: Any = None, missing: str = "error") -> Self:
        """α₀ = 1 and β₀ such that W @ H has about X's mean a priori; noise_shape 1, noise_scale as in
        `ExponentialGaussian.for_data`.

        Raises:
            ValueError: the observed X has a mean or a variance that is not positive.
        """
        scale = data_scale(X, rank, mask, missing)
        size = math.sqrt(scale.mean / rank)
        return cls(rank, 1.0, size, 0.0, EMPTY * size, 1.0, scale.noise)

    def hyperprior(self, shape: tuple[int, int]) -> Hyperprior:
        """The prior of the rates for X of this shape (N, D)."""
        others = self.compression * (shape[0] + shape[1])
        return Hyperprior(self.rate_shape + others, self.rate_scale + others * self.empty, self.all_known)

    def sites(self, N: int, D: int) -> dict[str, dict[str, int]]:
        """The factors, the noise variance, and the rates."""
        K = self.rank
        return {
            "W": {"row": N, "component": K},
            "H": {"component": K, "column": D},
            "sigma2": {},
            "rate": {"component": K},
        }

    def log_prior(self, params: Params) -> Tensor:
        """log p(W, H, σ², rate), shape (*C,)."""
        hyper = self.hyperprior((params["W"].shape[-2], params["H"].shape[-1]))
        return self.noise.log_prob(params["sigma2"]) + hyper.log_factors(params) + hyper.log_prob(params["rate"])

    def require_modes(self) -> None:
        """Nothing: exponential priors have modes."""

    def require_proper(self) -> None:
        """Every prior is proper."""

    def require_fits(self, shape: tuple[int, int]) -> None:
        """Raise ValueError when known entries are not for X of this shape; the priors are for any."""
        self._require_fixed_fits(shape)

    def rescaled(self, size: float) -> Self:
        """The same model with priors under which the entries of W and of H are so many times as large."""
        return replace(self, rate_scale=self.rate_scale * size, empty=self.empty * size)

    def for_rows(self, rows: range) -> Self:
        """The same for those rows of X: no prior is for one row alone, but known entries of W are."""
        return replace(self, **self._fixed_of_rows(rows))  # type: ignore[arg-type]

    def begin(self, X: Matrix, stream: Stream, how: str | Params) -> dict[str, Tensor]:
        """A start by its name ("scaled", "prior", "nndsvd"), or values, where sigma2 and rate may be left out."""
        return relevance.begin(self.hyperprior(X.shape), self.noise, self.rank, X, stream, how)

    def prior_draws(self, shape: tuple[int, int], n: int, stream: Stream) -> dict[str, Tensor]:
        """n draws of W (n, N, K), H (n, K, D), sigma2 (n,), rate (n, K) from the prior."""
        return relevance.prior_draws(self.hyperprior(shape), self.noise, self.rank, shape, n, stream)

    def sweep(self, params: Params, X: Matrix, asked: Sweeps, at: Address | None) -> Swept:
        """So many sweeps: the columns of W, the rows of H, σ², moves along the ridge, the rates; or moments of an approximation."""
        hyper = self.hyperprior(X.shape)
        if asked.read is Read.MOMENTS:
            return relevance.swept_moments(hyper, self.noise, X, params, asked.number)
        return relevance.swept(hyper, self.noise, X, params, asked, at)

    def longer_steps(self, params: Params, X: Matrix) -> tuple[str, ...]:
        """The sites whose shears with a row integrated out pay from here."""
        return relevance.longer_steps(X, params)

    def can_reflect(self) -> bool:
        """Whether sweeps may reflect the factors in their conditionals."""
        return not self.holds

    def others_at_mode(self, factors: Factors, X: Matrix) -> Params:
        """σ² and the rates at their modes given the factors."""
        rate = self.hyperprior(X.shape).mode(factors.W, factors.H)
        return {"sigma2": self.noise.mode(factors.misfit, X.n_observed), "rate": rate}

    def approximated(self, params: Params, X: Matrix) -> Params:
        """The approximation that stands at these values."""
        return relevance.approximated(params)

    def divergence(self, q: Params, X: Matrix) -> Tensor:
        """KL(q || p) of W, H, σ² and the rates, (C,)."""
        return relevance.divergence(self.hyperprior(X.shape), self.noise, q, X.n_observed)

    def approximate_draws(self, q: Params, X: Matrix, n: int, stream: Stream) -> Drawn:
        """n draws of W, H, σ² and the rates from one approximation."""
        return relevance.draws(self.hyperprior(X.shape), self.noise, q, n, X.n_observed, stream, X.dtype)

    def classes(self) -> list[int]:
        """For each component the first one of which the same is known."""
        return blocks.classes(relevance_path.flattened(self.hyperprior((1, 1)), self.noise), self.rank)

    def reference(self, draws: Params, width: float) -> relevance_path.Fitted:
        """Independent densities with the moments of draws (S, *site), variances times `width`."""
        hyper = self.hyperprior((draws["W"].shape[-2], draws["H"].shape[-1]))
        return relevance_path.fitted(hyper, self.noise, draws, width)

    def sweep_between(
        self, reference: relevance_path.Fitted, params: Params, X: Matrix, asked: Sweeps, at: Address | None
    ) -> Swept:
        """Sweeps that leave [p(X | θ) p(θ)]^β r(θ)^(1-β) as it is, β = `asked.power`; log_likelihood is log p(X | θ)."""
        return relevance_path.swept(self.hyperprior(X.shape), self.noise, reference, X, params, asked, at)
