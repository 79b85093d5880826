"""Gamma priors, Poisson likelihood (Cemgil 2009; his T, V are our W, H)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppnmf.distributions.counts import Poisson
from ppnmf.factored import shape_of
from ppnmf.poisson import blocks, divergence, moments, path, start, sweep
from ppnmf.poisson.model import PoissonFamily
from ppnmf.priors import Hyper
from ppnmf.protocols import Address, Drawn, Lowered, Matrix, Params, Read, Reduced, Sweeps, Swept
from ppnmf.rng import Stream

__all__ = ["GammaPoisson"]


@dataclass(frozen=True, eq=False)
class GammaPoisson(PoissonFamily):
    r"""W_ik ~ Gamma(shape_W, rate_W), H_kj ~ Gamma(shape_H, rate_H), X_ij ~ Poisson(e_ij (WH)_ij).

    A frozen value: its fields are the hyperparameters, and calling it runs the Pyro program.

    Args:
        rank: K, the number of components.
        shape_W: shape of the prior of W, > 0: a number, one per component (K,), or one per entry (N, K). Below 1 most entries
            are next to zero; modes need 1 or more.
        shape_H: the same for H: a number, (K,), or (K, D).
        rate_W, rate_H: their rates, one over the scale; 0 is improper, which only ICM takes.
        exposures: e > 0, known: a number, one a column (D,), one a row (N, 1), or one an entry (N, D): opportunities of
            mutations, sizes of libraries, times of observation.

    Raises:
        ValueError: a rank below 1, hyperparameters or exposures out of their range or of the wrong shape.

    References: Cemgil (2009), "Bayesian inference for nonnegative matrix factorisation models", doi:10.1155/2009/785152.
    """

    rank: int
    shape_W: Hyper = 1.0
    shape_H: Hyper = 1.0
    rate_W: Hyper = 1.0
    rate_H: Hyper = 1.0
    exposures: Hyper = 1.0

    name: ClassVar[str] = "gamma_poisson"

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
        if mask is not None and X is not None:
            X = torch.where(mask, X, torch.zeros_like(X))  # what lies under the mask must not leak, NaN least of all
        with rows, columns:
            counts = dist.Poisson(self.exposure(like) * (W @ H))
            return pyro.sample("X", counts.mask(True if mask is None else mask), obs=X)

    def sites(self, N: int, D: int) -> dict[str, dict[str, int]]:
        """The factors."""
        return {"W": {"row": N, "component": self.rank}, "H": {"component": self.rank, "column": D}}

    def likelihood(self, params: Params) -> Poisson:
        """The distribution of X given W (*C, N, K) and H (*C, K, D): batch shape (*C, N, D)."""
        return Poisson(self.means(params), validate_args=False)

    def log_prior(self, params: Params) -> Tensor:
        """log p(W, H), shape (*C,); the constant of an improper prior is dropped."""
        return self.log_prior_of_factors(params)

    def log_likelihood_at(self, params: Params, X: Matrix) -> Tensor:
        """log p(X | W, H) of the observed entries, (C,)."""
        return sweep.log_likelihood(self._story, X, params)

    def begin(self, X: Matrix, stream: Stream, how: str | Params) -> dict[str, Tensor]:
        """A start by its name ("scaled", "prior", "nndsvd"), or values."""
        return start.begin(self._story, self.rank, X, stream, how)

    def prior_draws(self, shape: tuple[int, int], n: int, stream: Stream) -> dict[str, Tensor]:
        """n draws of W (n, N, K) and H (n, K, D) from the prior."""
        return start.prior_draws(self._story, self.rank, shape, n, stream)

    def sweep(self, params: Params, X: Matrix, asked: Sweeps, at: Address | None) -> Swept:
        """So many sweeps: the components of the counts, W, H, and the move along the ridge; or moments of an approximation."""
        if asked.read is Read.MOMENTS:
            return moments.swept(self._story, X, params, asked.number)
        return sweep.swept(self._story, X, params, asked, at)

    def multiplied(self, params: Params, X: Matrix) -> Lowered:
        """W and then H by the updates for the Kullback-Leibler divergence."""
        return divergence.multiplied(self._story, X, params)

    def loss_unit(self, X: Matrix) -> float:
        """The divergence of X from means in proportion to the exposures."""
        return divergence.unit(self._story, X)

    def approximated(self, params: Params, X: Matrix) -> Params:
        """The approximation that stands at these values."""
        return moments.approximated(params)

    def divergence(self, q: Params, X: Matrix) -> Tensor:
        """KL(q || p) of W and H, (C,)."""
        return moments.divergence(self._story, X, q)

    def approximate_draws(self, q: Params, X: Matrix, n: int, stream: Stream) -> Drawn:
        """n draws of W and H from one approximation."""
        return moments.draws(self.prior, q, n, stream, X.dtype)

    def classes(self) -> list[int]:
        """For each component the first one with its priors."""
        return path.classes(self._story, self.rank)

    def log_density_of_others(self, given: Params, X: Matrix) -> Callable[[Params], Tensor]:
        """0: all sites are factors."""
        return blocks.log_density_of_nothing(given, X)

    def log_density_of_component(self, site: str, at: Tensor, given: Params, labels: list[int], X: Matrix) -> Tensor:
        """Log density of a component at a point, the other half's length integrated out and the counts not allocated."""
        return blocks.log_density_of_component(self._story, site, at, given, labels, X)

    def log_density_of_factor(self, site: str, at: Params, begun: Params, X: Matrix, run: Reduced) -> Tensor:
        """log p(factor `site` | all else, X), (C,)."""
        return blocks.log_density_of_factor(self._story, site, at, begun, X, run)

    def reference(self, draws: Params, width: float) -> path.Fitted:
        """Independent gammas with the moments of draws (S, *site), variances times `width`."""
        return path.fitted(draws, width)

    def sweep_between(
        self, reference: path.Fitted, params: Params, X: Matrix, asked: Sweeps, at: Address | None
    ) -> Swept:
        """Sweeps that leave [p(X | θ) p(θ)]^β r(θ)^(1-β) as it is, β = `asked.power`; log_likelihood is log p(X | θ)."""
        return path.swept(self._story, reference, X, params, asked, at)
