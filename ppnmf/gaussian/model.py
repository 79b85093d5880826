"""What the models of the Gaussian family share: all but their factors' priors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppnmf.checks import real_number, whole_number
from ppnmf.gaussian import ascent, blocks, moments, path, start, statistics, sweep
from ppnmf.gaussian.base import GaussianModel, shape_of
from ppnmf.kernels.reference import column
from ppnmf.priors import FactorPrior, Role, hyperparameter, of_factor
from ppnmf.protocols import (
    Address,
    Ascent,
    Drawn,
    Matrix,
    Pace,
    Params,
    Read,
    Reduced,
    Sweeps,
    Swept,
)
from ppnmf.rng import Stream
from ppnmf.settings import own_settings

__all__ = ["RectifiedGaussian"]

AXES = {"W": 1, "H": 0}  # along which the components of a factor lie


class RectifiedGaussian(GaussianModel):
    r"""X_ij ~ Normal((W H)_ij, σ²), σ² ~ InverseGamma, and a rectified-normal prior for every entry of W and H.

    A member of the family is a frozen dataclass with the fields `rank`, `noise_shape`, `noise_scale` and, for each name in
    `hyper`, that name with _W and with _H: a number, one a component (K,), or one an entry. It says `prior_of` and `for_data`,
    and has everything else from here: the Pyro program, sweeps for Gibbs, ICM and SMC, and the blocks for Chib.
    """

    hyper: ClassVar[Mapping[str, Role]]

    @abstractmethod
    def prior_of(self, *hyper: Tensor) -> FactorPrior:
        """A factor's prior from its hyperparameters, in the order of `hyper`."""

    @own_settings()
    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", whole_number("rank", self.rank, 1))
        for name, role in self.hyper.items():
            for site, axis in AXES.items():
                own = f"{name}_{site}"
                object.__setattr__(self, own, hyperparameter(own, getattr(self, own), self.rank, axis, role))
        for own in ("noise_shape", "noise_scale"):
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
        sigma2 = pyro.sample("sigma2", dist.InverseGamma(like.new_tensor(self.noise_shape), self.noise_scale))
        with rows, pyro.plate("component of W", self.rank, dim=-1):
            W = pyro.sample("W", self.prior("W").distribution(like))
        with pyro.plate("component of H", self.rank, dim=-2), columns:
            H = pyro.sample("H", self.prior("H").distribution(like))
        if mask is not None and X is not None:
            X = torch.where(mask, X, torch.zeros_like(X))  # what lies under the mask must not leak, NaN least of all
        with rows, columns:
            return pyro.sample("X", dist.Normal(W @ H, sigma2.sqrt()).mask(True if mask is None else mask), obs=X)

    def sites(self, N: int, D: int) -> dict[str, dict[str, int]]:
        """The factors and the noise variance."""
        K = self.rank
        return {"W": {"row": N, "component": K}, "H": {"component": K, "column": D}, "sigma2": {}}

    # The priors

    def prior(self, site: str) -> FactorPrior:
        """The prior of "W" or of "H"."""
        return self._priors[site]

    @cached_property
    @own_settings()
    def _priors(self) -> dict[str, FactorPrior]:
        return {site: self.prior_of(*self._hyper_of(site)) for site in AXES}

    def _hyper_of(self, site: str) -> list[Tensor]:
        """A factor's hyperparameters, float64, broadcastable to it, with two axes."""
        return [of_factor(getattr(self, f"{name}_{site}"), AXES[site]) for name in self.hyper]

    def log_prior(self, params: Params) -> Tensor:
        """log p(W, H, σ²), shape (*C,); the constant of an improper prior is dropped."""
        total = self.noise.log_prob(params["sigma2"])
        for site in AXES:
            F, prior = params[site], self.prior(site)
            total = total + prior.log_constant((F.shape[-2], F.shape[-1])) - prior.energy(F)
        return total

    def require_proper(self) -> None:
        """Raise ValueError when a factor's prior is improper."""
        for site in AXES:
            if not self.prior(site).is_proper:
                first = next(iter(self.hyper))
                raise ValueError(
                    f"{first}_{site} is 0 somewhere: that prior is improper, and only icm can use it; give a positive {first}"
                )

    def require_fits(self, shape: tuple[int, int]) -> None:
        """Raise ValueError when hyperparameters per entry are not for X of this shape (N, D)."""
        for site, axis, what in (("W", 0, "rows"), ("H", 1, "columns")):
            for name, values in zip(self.hyper, self._hyper_of(site), strict=True):
                given, size = values.shape[axis], shape[axis]
                if given not in (1, size):
                    raise ValueError(
                        f"{name}_{site} is for {given} {what} and X has {size}; give a {name} for each, or one for all"
                    )

    def for_rows(self, rows: range) -> Self:
        """The model of those rows of X alone: hyperparameters per entry of W are cut to them."""
        per_entry = {
            f"{name}_W": values[rows.start : rows.stop]
            for name, values in zip(self.hyper, self._hyper_of("W"), strict=True)
            if values.shape[0] > 1
        }
        return replace(self, **per_entry) if per_entry else self  # type: ignore[type-var]

    def rescaled(self, size: float) -> Self:
        """The same model with priors under which the entries of W and of H are so many times as large."""
        changed = {
            f"{name}_{site}": getattr(self, f"{name}_{site}") * size**role.dimension
            for name, role in self.hyper.items()
            for site in AXES
        }
        return replace(self, **changed)  # type: ignore[type-var]

    # What methods ask for

    @property
    def _story(self) -> sweep.Story:
        return sweep.Story(self.prior, self.noise)

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

    def climb(
        self, X: Matrix, params: Params, before: Params, reach: tuple[Tensor, Tensor], lp: Tensor, pace: Pace, most: int
    ) -> Ascent | None:
        """Accelerated sweeps of modes, compiled whole, where X is small and complete."""

        def log_joint(own: Params, misfit: Tensor) -> Tensor:
            return sweep.log_likelihood_of(X, misfit, own["sigma2"]) + self.log_prior(own)

        return ascent.climb(self._story, X, params, before, reach, lp, pace, most, log_joint)

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
        return path.fitted(draws, width)

    def sweep_between(
        self, reference: path.Fitted, params: Params, X: Matrix, asked: Sweeps, at: Address | None
    ) -> Swept:
        """Sweeps that leave [p(X | θ) p(θ)]^β r(θ)^(1-β) as it is, β = `asked.power`; log_likelihood is log p(X | θ)."""
        return sweep.swept(path.between(self._story, reference, asked.power), X, params, asked, at)

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

    def classes(self) -> list[int]:
        """For each component the first one with its priors."""
        return blocks.classes(self._story, self.rank)

    def log_density_of_others(self, given: Params, X: Matrix) -> Callable[[Params], Tensor]:
        """Of σ² given draws, as a function of a point."""
        return blocks.log_density_of_noise(self._story, given, X)

    def log_density_of_component(self, site: str, at: Tensor, given: Params, labels: list[int], X: Matrix) -> Tensor:
        """Of a component of a factor, the length of its other half integrated out, (C, n, labels)."""
        return blocks.log_density_of_component(self._story, site, at, given, labels, X)

    def log_density_of_factor(self, site: str, at: Params, begun: Params, X: Matrix, run: Reduced) -> Tensor:
        """Of a factor given all else, (C,)."""
        return blocks.log_density_of_factor(self._story, site, at, begun, X, run)
