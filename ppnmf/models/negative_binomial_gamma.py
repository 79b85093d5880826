"""Gamma priors, negative binomial likelihood: counts that vary more than Poisson ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppnmf.checks import real_number
from ppnmf.distributions.counts import NegativeBinomial
from ppnmf.factored import shape_of
from ppnmf.poisson import (
    moments,
    overdispersed_moments,
    overdispersed_path,
    overdispersion,
    path,
    scale,
    start,
    sweep,
)
from ppnmf.poisson.allocation import Place, gamma_draws
from ppnmf.poisson.arrivals import DependentArrivals
from ppnmf.poisson.model import PoissonFamily
from ppnmf.poisson.overdispersion import DispersionPrior
from ppnmf.priors import Hyper
from ppnmf.protocols import Address, Drawn, Matrix, Params, Read, Sweeps, Swept
from ppnmf.rng import Site, Stream
from ppnmf.settings import own_settings

__all__ = ["NegativeBinomialGamma"]


@dataclass(frozen=True, eq=False)
class NegativeBinomialGamma(PoissonFamily):
    r"""Gamma priors on W and H, X_ij ~ NegativeBinomial of mean μ = e_ij (WH)_ij and variance μ + μ² / φ, φ ~ Gamma.

    The counts are Poisson ones of mean g_ij μ_ij with latent g_ij ~ Gamma(φ, φ). Under a Poisson likelihood what they vary by
    asks for further components.

    Args:
        rank, shape_W, shape_H, rate_W, rate_H, exposures: as in `GammaPoisson`.
        dispersion_shape, dispersion_rate: of the gamma prior of the dispersion φ; the greater φ, the nearer to Poisson.

    Raises:
        ValueError: as in `GammaPoisson`; parameters of the dispersion that are not positive.
    """

    rank: int
    shape_W: Hyper = 1.0
    shape_H: Hyper = 1.0
    rate_W: Hyper = 1.0
    rate_H: Hyper = 1.0
    exposures: Hyper = 1.0
    dispersion_shape: float = 1.0
    dispersion_rate: float = 0.1

    name: ClassVar[str] = "negative_binomial_gamma"

    @own_settings()
    def __post_init__(self) -> None:
        super().__post_init__()
        for own in ("dispersion_shape", "dispersion_rate"):
            object.__setattr__(self, own, real_number(own, getattr(self, own)))

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
        phi = pyro.sample("dispersion", dist.Gamma(like.new_tensor(self.dispersion_shape), self.dispersion_rate))
        with rows, pyro.plate("component of W", self.rank, dim=-1):
            W = self.hold("W", pyro.sample("W", self.prior("W").distribution(like)))
        with pyro.plate("component of H", self.rank, dim=-2), columns:
            H = self.hold("H", pyro.sample("H", self.prior("H").distribution(like)))
        if mask is not None and X is not None:
            X = torch.where(mask, X, torch.zeros_like(X))  # what lies under the mask must not leak, NaN least of all
        with rows, columns:
            mean = (self.exposure(like) * (W @ H)).clamp(min=1e-30)  # known zeros may leave none
            counts = dist.GammaPoisson(phi, phi / mean)
            return pyro.sample("X", counts.mask(True if mask is None else mask), obs=X)

    def sites(self, N: int, D: int) -> dict[str, dict[str, int]]:
        """The factors and the dispersion."""
        K = self.rank
        return {"W": {"row": N, "component": K}, "H": {"component": K, "column": D}, "dispersion": {}}

    @property
    def dispersion(self) -> DispersionPrior:
        """The prior of φ."""
        return DispersionPrior(self.dispersion_shape, self.dispersion_rate)

    def likelihood(self, params: Params) -> NegativeBinomial:
        """The distribution of X given W (*C, N, K), H (*C, K, D) and dispersion (*C,): batch shape (*C, N, D)."""
        return NegativeBinomial(self.means(params), params["dispersion"][..., None, None])

    def log_prior(self, params: Params) -> Tensor:
        """log p(W, H, φ), shape (*C,); the constant of an improper prior is dropped."""
        return self.log_prior_of_factors(params, self.dispersion.log_prob(params["dispersion"]))

    def log_likelihood_at(self, params: Params, X: Matrix) -> Tensor:
        """log p(X | W, H, φ) of the observed entries, the latent exposures integrated out, (C,)."""
        return overdispersion.log_likelihood(X, params, self._exposures, params["dispersion"])

    def begin(self, X: Matrix, stream: Stream, how: str | Params) -> dict[str, Tensor]:
        """A start by its name, or values, where the dispersion may be left out: it then begins at its prior's mean."""
        params = start.begin(self._story, self.rank, X, stream, how)
        if "dispersion" not in params:
            mean = self.dispersion_shape / self.dispersion_rate
            phi = (
                self._dispersion_draws(stream)
                if how == "prior"
                else torch.full((len(stream),), mean, dtype=torch.float64)
            )
            params["dispersion"] = phi.to(X.device, X.dtype)
        return params

    def prior_draws(self, shape: tuple[int, int], n: int, stream: Stream) -> dict[str, Tensor]:
        """n draws of W (n, N, K), H (n, K, D) and dispersion (n,) from the prior."""
        draws = start.prior_draws(self._story, self.rank, shape, n, stream)
        return {**draws, "dispersion": self._dispersion_draws(stream, n)}

    def arrivals(self, X: Matrix, stream: Stream) -> DependentArrivals:
        """The events of X, as they arrive."""

        def log_likelihood(time: float, arrived: Matrix, params: Params) -> Tensor:
            return overdispersion.log_likelihood(arrived, params, time * self._exposures, params["dispersion"])

        return DependentArrivals(log_likelihood, self._story, X, stream)

    def _dispersion_draws(self, stream: Stream, n: int = 1) -> Tensor:
        """n draws for each key of the stream, one after the other, float64."""
        wanted = torch.ones(len(stream), n, 1, dtype=torch.float64)
        place = Place(stream, 0, 0)
        shape, rate = self.dispersion_shape * wanted, self.dispersion_rate * wanted
        return gamma_draws(shape, rate, place, Site.DISPERSION, 1e-150).flatten()

    def sweep(self, params: Params, X: Matrix, asked: Sweeps, at: Address | None) -> Swept:
        """So many sweeps: φ, the latent exposures, the components of the counts, W, H, and the move along the ridge."""
        if asked.read is Read.MODE:
            return self._climbed(params, X, asked)
        if asked.read is Read.MOMENTS:
            return overdispersed_moments.swept(self._story, self.dispersion, X, params, asked.number)
        if asked.read is not Read.DRAW or at is None:
            raise NotImplementedError(
                f"counts are drawn, at an address, climbed, or their moments taken; asked was {asked.read}"
            )
        sweep.require_untempered(asked.power)
        draws: list[Params] = []
        for s in range(asked.number):
            params = self._swept(params, X, asked, Address(at.stream, at.step + s))
            if s in asked.kept:
                draws.append(params)
        return sweep.gathered(params, draws, [self.log_likelihood_at(own, X) for own in draws], X)

    def approximated(self, params: Params, X: Matrix) -> Params:
        """The approximation that stands at these values."""
        return overdispersed_moments.approximated(params)

    def divergence(self, q: Params, X: Matrix) -> Tensor:
        """KL(q || p) of W and H, (C,): what q says of φ and of the latent exposures is in the sweep's part of the bound."""
        return moments.divergence(self._story, X, q)

    def approximate_draws(self, q: Params, X: Matrix, n: int, stream: Stream) -> Drawn:
        """n draws of W, H and φ from one approximation."""
        return overdispersed_moments.draws(self._story, self.dispersion, X, q, n, stream)

    def classes(self) -> list[int]:
        """For each component the first one with its priors."""
        return path.classes(self._story, self.rank)

    def reference(self, draws: Params, width: float) -> overdispersed_path.Fitted:
        """Independent gammas with the moments of draws (S, *site), variances times `width`."""
        return overdispersed_path.fitted(draws, width)

    def sweep_between(
        self, reference: overdispersed_path.Fitted, params: Params, X: Matrix, asked: Sweeps, at: Address | None
    ) -> Swept:
        """Sweeps that leave [p(X | θ) p(θ)]^β r(θ)^(1-β) as it is, β = `asked.power`; log_likelihood is log p(X | θ)."""
        return overdispersed_path.swept(self._story, self.dispersion, reference, X, params, asked, at)

    def _swept(self, params: Params, X: Matrix, asked: Sweeps, at: Address) -> dict[str, Tensor]:
        e, phi = self._exposures, params["dispersion"]
        if not asked.held.others:
            phi = overdispersion.drawn_dispersion(self.dispersion, X, params, e, *at)
        exposing = overdispersion.latent(phi.double(), e)
        params = {**params, "dispersion": phi}
        params, _ = sweep.sweep_factors(self.prior, X, params, at, exposing, (asked.held.W, asked.held.H))
        return scale.moved(self.prior, X, params, at, max(asked.held.W, asked.held.H)) if asked.moves else params

    def _climbed(self, params: Params, X: Matrix, asked: Sweeps) -> Swept:
        prior, e = sweep.prior_for_modes(self._story, asked), self._exposures
        for _ in range(asked.number):
            exposing = overdispersion.latent(params["dispersion"].double(), e)
            after, _told = sweep.modes_of_factors(prior, X, sweep.above_zero(prior, params), exposing)
            params = sweep.held(params, after, asked)
            if not asked.held.others:
                params["dispersion"] = overdispersion.mode_of_dispersion(self.dispersion, X, params, e)
            if asked.moves and not asked.flat:
                params = scale.balanced(prior, X, params)
        draws = {site: values[:, None] for site, values in params.items()}
        return Swept(params, draws, self.log_likelihood_at(params, X)[:, None])
