"""What the models of the Gaussian family share: all but their factors' priors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppnmf.factored import shape_of
from ppnmf.gaussian import ascent, blocks, collapsed, moments, path, start, statistics, stones, sweep
from ppnmf.gaussian.factors import RectifiedFactors
from ppnmf.kernels.reference import column
from ppnmf.protocols import (
    Address,
    Ascent,
    Drawn,
    Matrix,
    Pace,
    Params,
    Read,
    Reduced,
    Standing,
    Sweeps,
    Swept,
)
from ppnmf.rng import Stream

__all__ = ["RectifiedGaussian"]


class RectifiedGaussian(RectifiedFactors):
    r"""X_ij ~ Normal((W H)_ij, σ²), σ² ~ InverseGamma, and a rectified-normal prior for every entry of W and H.

    A member says `prior_of` and `for_data`, and has everything else from here: the Pyro program, sweeps for Gibbs, ICM and
    SMC, and the blocks for Chib.
    """

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
        if self.sigma2 is None:
            sigma2 = pyro.sample("sigma2", dist.InverseGamma(like.new_tensor(self.noise_shape), self.noise_scale))
        else:
            sigma2 = pyro.deterministic("sigma2", like.new_tensor(self.sigma2))
        with rows, pyro.plate("component of W", self.rank, dim=-1):
            W = self.hold("W", pyro.sample("W", self.prior("W").distribution(like)))
        with pyro.plate("component of H", self.rank, dim=-2), columns:
            H = self.hold("H", pyro.sample("H", self.prior("H").distribution(like)))
        if mask is not None and X is not None:
            X = torch.where(mask, X, torch.zeros_like(X))  # what lies under the mask must not leak, NaN least of all
        with rows, columns:
            return pyro.sample("X", dist.Normal(W @ H, sigma2.sqrt()).mask(True if mask is None else mask), obs=X)

    def sites(self, N: int, D: int) -> dict[str, dict[str, int]]:
        """The factors and the noise variance."""
        K = self.rank
        return {"W": {"row": N, "component": K}, "H": {"component": K, "column": D}, "sigma2": {}}

    def log_prior(self, params: Params) -> Tensor:
        """log p(W, H, σ²), shape (*C,); the constant of an improper prior is dropped."""
        return self.log_prior_of_factors(params, self.noise.log_prob(params["sigma2"]))

    # What methods ask for

    def begin(self, X: Matrix, stream: Stream, how: str | Params) -> dict[str, Tensor]:
        """A start by its name ("scaled", "prior", "nndsvd"), or values, where sigma2 may be left out."""
        return start.begin(self._story, self.rank, X, stream, how)

    def prior_draws(self, shape: tuple[int, int], n: int, stream: Stream) -> dict[str, Tensor]:
        """n draws of W (n, N, K), H (n, K, D), sigma2 (n,) from the prior."""
        return start.prior_draws(self._story, self.rank, shape, n, stream)

    def sweep(self, params: Params, X: Matrix, asked: Sweeps, at: Address | None) -> Swept:
        """So many sweeps: the columns of W, the rows of H, σ², and moves along the ridge; or moments of an approximation."""
        if asked.read is Read.MOMENTS:
            return moments.swept(self._story, X, params, asked.number)
        return sweep.swept(self._story, X, params, asked, at)

    def longer_steps(self, params: Params, X: Matrix) -> tuple[str, ...]:
        """The sites whose shears with a row integrated out pay from here."""
        return collapsed.pays(self.prior, X, params)

    def can_reflect(self) -> bool:
        """Whether sweeps may reflect the factors in their conditionals."""
        return not self.holds

    def climb(self, X: Matrix, begun: Standing, pace: Pace, most: int) -> Ascent | None:
        """Accelerated sweeps of modes, compiled whole, where X is small and complete and nothing is known."""
        if self.holds:
            return None

        def log_joint(own: Params, misfit: Tensor) -> Tensor:
            return sweep.log_likelihood_of(X, misfit, own["sigma2"]) + self.log_prior(own)

        return ascent.climb(self._story, X, begun, pace, most, log_joint)

    def approximated(self, params: Params, X: Matrix) -> Params:
        """The approximation that stands at these values."""
        return moments.approximated(params)

    def divergence(self, q: Params, X: Matrix) -> Tensor:
        """KL(q || p) of W, H and σ², (C,)."""
        return moments.divergence(self._story, q, X.n_observed)

    def approximate_draws(self, q: Params, X: Matrix, n: int, stream: Stream) -> Drawn:
        """n draws of W, H and σ² from one approximation."""
        return moments.draws(self._story, q, n, X.n_observed, stream, X.dtype)

    def reference(self, draws: Params, width: float) -> path.Fitted:
        """Independent rectified normals and an inverse gamma with the moments of draws (S, *site), variances times `width`."""
        return path.fitted(draws, width, self._story)

    def sweep_between(
        self, reference: path.Fitted, params: Params, X: Matrix, asked: Sweeps, at: Address | None
    ) -> Swept:
        """Sweeps that leave [p(X | θ) p(θ)]^β r(θ)^(1-β) as it is, β = `asked.power`; log_likelihood is log p(X | θ)."""
        return sweep.swept(path.between(self._story, reference, asked.power), X, params, asked, at)

    def stepper(self, reference: path.Fitted, X: Matrix) -> stones.Stepper | None:
        """The same compiled whole, where X is complete in memory and nothing is known."""
        return stones.Stepper.of(self._story, reference, X)

    def conditional(
        self, site: str, params: Params, X: Matrix, component: int | None = None, power: float = 1.0
    ) -> Any:
        """p(site | rest, X^power): of "sigma2", or of column `component` of W, or of row `component` of H.

        Shapes: (*C,) for sigma2, (*C, N) for a column of W, (*C, D) for a row of H. Sweeps draw from these.
        """
        W, H, sigma2 = params["W"], params["H"], params["sigma2"]
        if site == "sigma2":
            return self.noise.conditional(sweep.misfit(X, W, H), X.n_observed, power)
        if component is None:
            raise ValueError(f"a component is needed for the conditional of {site!r}")
        precision, linear = self.prior(site).natural(X.device)
        if site == "W":
            about = statistics.of_all_rows(X, H).weighted(power / sigma2)
            return column(component, W, about, (precision, linear))
        about = statistics.of_all_columns(X, W).weighted(power / sigma2)
        return column(component, H.mT, about, (precision.mT, linear.mT))

    def log_density_of_others(self, given: Params, X: Matrix) -> Callable[[Params], Tensor]:
        """Of σ² given draws, as a function of a point."""
        return blocks.log_density_of_noise(self._story, given, X)

    def log_density_of_component(self, site: str, at: Tensor, given: Params, labels: list[int], X: Matrix) -> Tensor:
        """Of a component of a factor, the length of its other half integrated out, (C, n, labels)."""
        return blocks.log_density_of_component(self._story, site, at, given, labels, X)

    def log_density_of_factor(self, site: str, at: Params, begun: Params, X: Matrix, run: Reduced) -> Tensor:
        """Of a factor given all else, (C,)."""
        return blocks.log_density_of_factor(self._story, site, at, begun, X, run)
