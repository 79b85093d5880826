"""Three factors, exponential priors, Gaussian likelihood (Brouwer, Frellsen, Lió 2016; their F, S, G are our W, S, Gᵀ)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppnmf.checks import real_number, whole_number
from ppnmf.factored import shape_of
from ppnmf.gaussian import chained_path, three, three_moments
from ppnmf.gaussian.base import GaussianNoise
from ppnmf.gaussian.scale import data_scale
from ppnmf.gaussian.three import Story
from ppnmf.priors import Exponential
from ppnmf.protocols import Address, Drawn, Matrix, Params, Read, Sweeps, Swept
from ppnmf.rng import Stream
from ppnmf.settings import own_settings

__all__ = ["TriFactor"]


@dataclass(frozen=True, eq=False)
class TriFactor(GaussianNoise):
    r"""W_ik ~ Exponential(rate_W), S_kl ~ Exponential(rate_S), G_lj ~ Exponential(rate_G), X_ij ~ Normal((W S G)_ij, σ²).

    Rows have K patterns and columns have L; S says how strongly each of these goes with each of those. W and H = S @ G are
    read as those of other models are.

    Args:
        rank: K, the number of components of the rows.
        column_rank: L, the number of components of the columns; K by default.
        rate_W, rate_S, rate_G: rates of the priors, > 0.
        noise_shape, noise_scale, sigma2: of the noise variance, as in `ExponentialGaussian`.

    Raises:
        ValueError: a rank below 1, rates or noise parameters that are not positive.

    References: Brouwer, Frellsen, Lió (2016), "Fast Bayesian non-negative matrix factorisation and tri-factorisation",
        arXiv:1610.08127.
    """

    rank: int
    column_rank: int | None = None
    rate_W: float = 1.0
    rate_S: float = 1.0
    rate_G: float = 1.0
    noise_shape: float = 1.0
    noise_scale: float = 1.0
    sigma2: float | None = None

    name: ClassVar[str] = "tri_factor"
    kinds: ClassVar = ("component", "component of columns")

    @own_settings()
    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", whole_number("rank", self.rank, 1))
        if self.column_rank is not None:
            object.__setattr__(self, "column_rank", whole_number("column_rank", self.column_rank, 1))
        for own in ("rate_W", "rate_S", "rate_G"):
            object.__setattr__(self, own, real_number(own, getattr(self, own)))
        self.require_noise()

    def __call__(
        self, X: Tensor | None = None, mask: Tensor | None = None, *, shape: tuple[int, int] | None = None
    ) -> Tensor:
        """The generative story. X (N, D) is observed where `mask` is True; with X None, X of `shape` is drawn.

        Raises:
            ValueError: neither X nor shape is given.
        """
        (N, D), like = shape_of(X, shape)
        K, L = self._ranks
        rows, columns = pyro.plate("row", N, dim=-2), pyro.plate("column", D, dim=-1)
        if self.sigma2 is None:
            sigma2 = pyro.sample("sigma2", dist.InverseGamma(like.new_tensor(self.noise_shape), self.noise_scale))
        else:
            sigma2 = pyro.deterministic("sigma2", like.new_tensor(self.sigma2))
        with rows, pyro.plate("component of W", K, dim=-1):
            W = pyro.sample("W", dist.Exponential(like.new_tensor(self.rate_W)))
        with pyro.plate("component", K, dim=-2), pyro.plate("component of columns", L, dim=-1):
            S = pyro.sample("S", dist.Exponential(like.new_tensor(self.rate_S)))
        with pyro.plate("component of G", L, dim=-2), columns:
            G = pyro.sample("G", dist.Exponential(like.new_tensor(self.rate_G)))
        H = pyro.deterministic("H", S @ G)
        if mask is not None and X is not None:
            X = torch.where(mask, X, torch.zeros_like(X))  # what lies under the mask must not leak, NaN least of all
        with rows, columns:
            return pyro.sample("X", dist.Normal(W @ H, sigma2.sqrt()).mask(True if mask is None else mask), obs=X)

    @classmethod
    def for_data(cls, X: Any, rank: int, mask: Any = None, missing: str = "error") -> Self:
        """L = K and equal rates (K L / mean of X)^(1/3), so that W S G has X's mean a priori; noise as in
        `ExponentialGaussian.for_data`.

        Raises:
            ValueError: the observed X has a mean or a variance that is not positive.
        """
        scale = data_scale(X, rank, mask, missing)
        rate = (rank * rank / scale.mean) ** (1 / 3)
        return cls(rank, None, rate, rate, rate, 1.0, scale.noise)

    @property
    def _ranks(self) -> tuple[int, int]:
        """K and L."""
        return self.rank, self.rank if self.column_rank is None else self.column_rank

    @cached_property
    @own_settings()
    def _story(self) -> Story:
        rates = {"W": self.rate_W, "S": self.rate_S, "G": self.rate_G}
        priors = {site: Exponential(torch.full((1, 1), rate, dtype=torch.float64)) for site, rate in rates.items()}
        return Story(priors, self.noise)

    def sites(self, N: int, D: int) -> dict[str, dict[str, int]]:
        """W, S, G, the noise variance, and H = S @ G, which is no random variable of its own."""
        K, L = self._ranks
        return {
            "W": {"row": N, "component": K},
            "S": {"component": K, "component of columns": L},
            "G": {"component of columns": L, "column": D},
            "H": {"component": K, "column": D},
            "sigma2": {},
        }

    def derived(self, params: Params) -> dict[str, Tensor]:
        """H, which follows from S and G."""
        return {"H": params["S"] @ params["G"]}

    def log_prior(self, params: Params) -> Tensor:
        """log p(W, S, G, σ²), shape (*C,)."""
        factors = sum(self._story.priors[site].log_prob(params[site]) for site in three.SITES)
        return self.noise.log_prob(params["sigma2"]) + factors

    def require_modes(self) -> None:
        """Nothing: exponential priors have modes."""

    def require_proper(self) -> None:
        """Every prior is proper."""

    def require_fits(self, shape: tuple[int, int]) -> None:
        """The priors are for X of any shape."""

    def rescaled(self, size: float) -> Self:
        """The same model with priors under which the entries of W, and of H = S @ G, are so many times as large."""
        half = size**0.5
        return replace(self, rate_W=self.rate_W / size, rate_S=self.rate_S / half, rate_G=self.rate_G / half)

    def for_rows(self, rows: range) -> Self:
        """The same: no prior is for one row alone."""
        return self

    def begin(self, X: Matrix, stream: Stream, how: str | Params) -> dict[str, Tensor]:
        """A start by its name ("scaled", "prior"), or values of W, S and G, where sigma2 may be left out."""
        return three.begin(self._story, self._ranks, X, stream, how)

    def prior_draws(self, shape: tuple[int, int], n: int, stream: Stream) -> dict[str, Tensor]:
        """n draws of W (n, N, K), S (n, K, L), G (n, L, D), H (n, K, D), sigma2 (n,) from the prior."""
        return three.prior_draws(self._story, self._ranks, shape, n, stream)

    def sweep(self, params: Params, X: Matrix, asked: Sweeps, at: Address | None) -> Swept:
        """So many sweeps: W, S, G, σ², and moves along both ridges; or moments of an approximation."""
        if asked.read is Read.MOMENTS:
            return three_moments.swept(self._story, X, params, asked.number)
        return three.swept(self._story, X, params, asked, at)

    def approximated(self, params: Params, X: Matrix) -> Params:
        """The approximation that stands at these values."""
        return three_moments.approximated(params)

    def divergence(self, q: Params, X: Matrix) -> Tensor:
        """KL(q || p) of W, S, G and σ², (C,)."""
        return three_moments.divergence(self._story, q, X.n_observed)

    def approximate_draws(self, q: Params, X: Matrix, n: int, stream: Stream) -> Drawn:
        """n draws of every site from one approximation."""
        return three_moments.draws(self._story, q, n, X, stream)

    def classes(self) -> list[int]:
        """For each component of the rows the first one with its priors: all have the same."""
        return [0] * self.rank

    def reference(self, draws: Params, width: float) -> chained_path.Fitted:
        """Independent rectified normals and an inverse gamma with the moments of draws (S, *site), variances times `width`."""
        return chained_path.fitted(draws, width, *self._story, self.derived, aligned=0)

    def sweep_between(
        self, reference: chained_path.Fitted, params: Params, X: Matrix, asked: Sweeps, at: Address | None
    ) -> Swept:
        """Sweeps that leave [p(X | θ) p(θ)]^β r(θ)^(1-β) as it is, β = `asked.power`; log_likelihood is log p(X | θ)."""
        return three.swept(Story(*chained_path.between(*self._story, reference, asked.power)), X, params, asked, at)
