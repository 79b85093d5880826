"""Exponential priors, Gaussian likelihood (Schmidt, Winther, Hansen 2009; their A, B are our W, H)."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pyro
import pyro.distributions as dist
import torch
from numpy.typing import ArrayLike
from pyro.distributions import InverseGamma
from torch import Tensor

from ppnmf.checks import borrowed, real_number, whole_number
from ppnmf.data.matrix import as_matrix
from ppnmf.distributions import RectifiedNormal
from ppnmf.kernels.reference import column
from ppnmf.models.equality import hash_of, same
from ppnmf.protocols import Matrix, Params
from ppnmf.settings import own_settings

__all__ = ["ExponentialGaussian"]

Rate = float | Tensor


@dataclass(frozen=True, eq=False)
class ExponentialGaussian:
    r"""W_ik ~ Exponential(rate_W), H_kj ~ Exponential(rate_H), σ² ~ InverseGamma, X_ij ~ Normal((WH)_ij, σ²).

    A frozen value: its fields are the hyperparameters, and calling it runs the Pyro program. Models with equal
    hyperparameters are equal, have one hash, and come back equal from `pickle`.

    Args:
        rank: K, the number of components.
        rate_W: rate of the prior of W (one over its mean): a number, one per component (K,), or one per entry (N, K).
        rate_H: the same for H: a number, (K,), or (K, D). A rate of 0 is a flat, improper prior, which only ICM takes.
        noise_shape: α of the noise variance's prior, density θ^α / Γ(α) · s^(-α-1) · exp(-θ/s).
        noise_scale: θ of the same, in units of X squared.

    Raises:
        ValueError: a rank below 1, a negative rate or one of the wrong shape, noise parameters that are not positive.

    References: Schmidt, Winther, Hansen (2009), "Bayesian non-negative matrix factorization",
        doi:10.1007/978-3-642-00599-2_68. (Their noise conditional has one too many in its shape; ours is α + N D / 2.)
    """

    rank: int
    rate_W: Rate = 1.0
    rate_H: Rate = 1.0
    noise_shape: float = 1.0
    noise_scale: float = 1.0

    name: ClassVar[str] = "exponential_gaussian"
    accepts_negative: ClassVar[bool] = True

    if TYPE_CHECKING:  # a field holds a number or a tensor, and the constructor takes whatever one can be made of

        def __init__(
            self,
            rank: int,
            rate_W: ArrayLike | Tensor = 1.0,
            rate_H: ArrayLike | Tensor = 1.0,
            noise_shape: float = 1.0,
            noise_scale: float = 1.0,
        ) -> None: ...

    @own_settings()
    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", whole_number("rank", self.rank, 1))
        object.__setattr__(self, "rate_W", _rate("rate_W", self.rate_W, self.rank, axis=1))
        object.__setattr__(self, "rate_H", _rate("rate_H", self.rate_H, self.rank, axis=0))
        for field in ("noise_shape", "noise_scale"):
            object.__setattr__(self, field, real_number(field, getattr(self, field)))

    @classmethod
    @own_settings()
    def scaled_to(cls, X: Any, rank: int, mask: Any = None, missing: str = "error") -> Self:
        """Priors on the data's scale: rate_W = rate_H = √(rank / mean of X), so that W @ H has X's mean a priori.

        noise_shape is 1 and noise_scale the variance of the observed X (N, D).

        Raises:
            ValueError: the observed X has a mean or a variance that is not positive.
        """
        whole_number("rank", rank, 1)
        data = as_matrix(X, mask, missing)
        mean, variance = data.mean(), data.variance()
        if mean <= 0 or variance <= 0:
            raise ValueError(
                f"X has mean {mean:.6g} and variance {variance:.6g}; both must be positive to scale the priors to X: "
                "give the rates and the noise's scale yourself"
            )
        rate = math.sqrt(rank / mean)
        return cls(rank, rate, rate, 1.0, variance)

    def __call__(
        self, X: Tensor | None = None, mask: Tensor | None = None, *, shape: tuple[int, int] | None = None
    ) -> Tensor:
        """The generative story. X (N, D) is observed where `mask` is True; with X None, X of `shape` is drawn.

        Raises:
            ValueError: neither X nor shape is given, a rate is zero (the prior is improper), or rates do not fit X.
        """
        self.require_proper()
        (N, D), like = _shape_of(X, shape)
        self.require_fits((N, D))
        rate_W, rate_H = (self.rate(site).to(like) for site in ("W", "H"))
        rows, columns = pyro.plate("row", N, dim=-2), pyro.plate("column", D, dim=-1)
        sigma2 = pyro.sample("sigma2", dist.InverseGamma(like.new_tensor(self.noise_shape), self.noise_scale))
        with rows, pyro.plate("component of W", self.rank, dim=-1):
            W = pyro.sample("W", dist.Exponential(rate_W))
        with pyro.plate("component of H", self.rank, dim=-2), columns:
            H = pyro.sample("H", dist.Exponential(rate_H))
        if mask is not None and X is not None:
            X = torch.where(mask, X, torch.zeros_like(X))  # what lies under the mask must not leak, NaN least of all
        with rows, columns:
            return pyro.sample("X", dist.Normal(W @ H, sigma2.sqrt()).mask(True if mask is None else mask), obs=X)

    def config(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __eq__(self, other: object) -> bool:
        return same(self, other)

    def __hash__(self) -> int:
        return hash_of(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(self.config().values())  # not what is cached: it may lie on a device

    @cached_property
    @own_settings()
    def _rates(self) -> dict[str, Tensor]:
        W, H = (torch.as_tensor(rate, dtype=torch.float64) for rate in (self.rate_W, self.rate_H))
        H = H[:, None] if H.ndim == 1 else H
        return {site: rate.reshape((1,) * (2 - rate.ndim) + rate.shape) for site, rate in (("W", W), ("H", H))}

    @cached_property
    @own_settings()
    def _priors(self) -> dict[str, RectifiedNormal]:  # a rate of 0 is ICM's flat prior
        return {s: RectifiedNormal(torch.zeros_like(r), -r, validate_args=False) for s, r in self._rates.items()}

    @cached_property
    @own_settings()
    def _log_rates(self) -> dict[str, float]:
        """Mean of the log rates; those of zero count as nothing."""
        logs = {s: torch.where(r > 0, r, torch.ones_like(r)).log() for s, r in self._rates.items()}
        return {s: float(log.sum()) / max(log.numel(), 1) for s, log in logs.items()}

    def rate(self, site: str) -> Tensor:
        """Rate of the factor's prior, float64, broadcastable to W (N, K) or H (K, D), with two axes."""
        return self._rates[site]

    def prior(self, site: str) -> RectifiedNormal:
        return self._priors[site]

    def require_proper(self) -> None:
        """Raise ValueError when a rate is zero."""
        for site in ("W", "H"):
            if bool((self.rate(site) == 0).any()):
                raise ValueError(
                    f"rate_{site} is 0 somewhere: that prior is improper, and only icm can use it; give a positive rate"
                )

    def require_fits(self, shape: tuple[int, int]) -> None:
        """Raise ValueError when rates per entry are not for X of this shape (N, D)."""
        for site, axis, what in (("W", 0, "rows"), ("H", 1, "columns")):
            given, size = self.rate(site).shape[axis], shape[axis]
            if given not in (1, size):
                raise ValueError(
                    f"rate_{site} is for {given} {what} and X has {size}; give a rate for each, or one for all"
                )

    def for_rows(self, rows: range) -> Self:
        """The model of those rows of X alone: rates per entry of W are cut to them."""
        of_all = self.rate("W").shape[0] == 1
        return self if of_all else replace(self, rate_W=self.rate("W")[rows.start : rows.stop])

    @cached_property
    def _known_on(self) -> dict[tuple[str, torch.device], Tensor]:
        return {}

    def _rate_on(self, site: str, device: torch.device) -> Tensor:
        """`rate` on a device; kept, since bringing it there waits for the device."""
        if (site, device) not in self._known_on:
            with own_settings():
                self._known_on[site, device] = self.rate(site).to(device)
        return self._known_on[site, device]

    def log_prior(self, params: Params) -> Tensor:
        """log p(W, H, σ²), shape (*C,); a rate of zero contributes nothing (the prior's constant is dropped)."""
        total = _log_inverse_gamma(params["sigma2"].double(), self.noise_shape, self.noise_scale)
        for site in ("W", "H"):
            F, rate = params[site], self._rate_on(site, params[site].device)
            constant = self._log_rates[site] * F.shape[-2] * F.shape[-1]
            alike = [axis for axis in (-2, -1) if rate.shape[axis] == 1]  # one rate along it: sum first
            rated = (F.sum(alike, keepdim=True, dtype=torch.float64) if alike else F.double()) * rate
            total = total + constant - rated.sum((-2, -1))
        return total

    def log_likelihood(self, sum_of_squares: Tensor, sigma2: Tensor, observed: int) -> Tensor:
        sigma2 = sigma2.double()
        return -0.5 * observed * (math.log(2 * math.pi) + sigma2.log()) - 0.5 * sum_of_squares / sigma2

    def likelihood(self, params: Params) -> dist.Normal:
        """The distribution of X given W (*C, N, K), H (*C, K, D), sigma2 (*C,): batch shape (*C, N, D)."""
        return dist.Normal(params["W"] @ params["H"], params["sigma2"].sqrt()[..., None, None])

    def conditional(
        self, site: str, params: Params, X: Matrix, component: int | None = None, power: float = 1.0
    ) -> RectifiedNormal | InverseGamma:
        """p(site | rest, X^power): of "sigma2", or of column `component` of W, or of row `component` of H.

        Shapes: (*C,) for sigma2, (*C, N) for a column of W, (*C, D) for a row of H.
        """
        W, H, sigma2 = params["W"], params["H"], params["sigma2"]
        every = range(X.shape[0])
        if site == "sigma2":
            misfit = X.residual_sum_of_squares(every, W, H)
            return InverseGamma(self.noise_shape + power * X.n_observed / 2, self.noise_scale + power * misfit / 2)
        if component is None:
            raise ValueError(f"a component is needed for the conditional of {site!r}")
        prior = self.prior(site)
        if site == "W":
            F, told, natural = W, X.row_statistics(every, X.prepare(H)), (prior.precision, prior.linear)
        else:
            F, told, natural = H.mT, X.column_statistics(every, W), (prior.precision.mT, prior.linear.mT)
        return column(component, F, told.weighted(power / sigma2), natural)


def _rate(name: str, rate: Any, rank: int, axis: int) -> Rate:
    """A number, or a float64 tensor with one or two axes, checked."""
    values = torch.as_tensor(
        borrowed(name, rate), dtype=torch.float64
    ).clone()  # the model is a value: its caller's array may change
    if values.ndim > 2 or (values.ndim > 0 and values.shape[axis if values.ndim == 2 else 0] != rank):
        wanted = "(N, K)" if axis == 1 else "(K, D)"
        raise ValueError(f"{name} has shape {tuple(values.shape)}; give a number, (K,) or {wanted} with K = {rank}")
    if not bool((values >= 0).all()) or not bool(values.isfinite().all()):
        raise ValueError(
            f"{name} has entries that are negative or not finite (least {values.min():.6g}); rates are >= 0"
        )
    return float(values) if values.ndim == 0 else values


def _shape_of(X: Tensor | None, shape: tuple[int, int] | None) -> tuple[tuple[int, int], Tensor]:
    if X is not None:
        return (X.shape[-2], X.shape[-1]), X
    if shape is None:
        raise ValueError("neither X nor shape=(N, D) is given; give X to observe it, or a shape to draw it")
    return shape, torch.empty(0)


def _log_inverse_gamma(s: Tensor, shape: float, scale: float) -> Tensor:
    return shape * math.log(scale) - math.lgamma(shape) - (shape + 1) * s.log() - scale / s
