"""Priors of a factor's entries: log density, Pyro distribution and, where they are rectified normals, natural parameters.

A prior is that of a whole factor, W (N, K) or H (K, D), whose entries are independent; its hyperparameters are float64
tensors with two axes that broadcast to the factor.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple, Self

import pyro.distributions as dist
import torch
from numpy.typing import ArrayLike
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from ppnmf.checks import borrowed
from ppnmf.distributions import RectifiedNormal
from ppnmf.settings import own_settings

__all__ = [
    "Exponential",
    "FactorPrior",
    "Gamma",
    "HalfNormal",
    "Hyper",
    "Natural",
    "NaturalPrior",
    "RectifiedPrior",
    "Role",
    "TruncatedNormal",
    "below_peak",
    "hyperparameter",
]

Hyper = ArrayLike | Tensor  # a number, or one a component (K,), or one an entry
LOG_2PI = math.log(2 * math.pi)


class Natural(NamedTuple):
    """The natural parameters (a, b) of rectified normals, broadcastable to the factor."""

    precision: Tensor
    linear: Tensor


class Role(NamedTuple):
    """What a hyperparameter may be, and what it is made of.

    Args:
        holds: where values are allowed; words: the same in words.
        dimension: its unit is the factor's entries' to this power.
    """

    holds: Callable[[Tensor], Tensor]
    words: str
    dimension: int


RATE = Role(lambda values: values >= 0, ">= 0", -1)
SCALE = Role(lambda values: values > 0, "> 0", 1)
SHAPE = Role(lambda values: values > 0, "> 0", 0)
MEAN = Role(lambda values: torch.ones_like(values, dtype=torch.bool), "real numbers", 1)


class Rectified(RectifiedNormal, TorchDistributionMixin):
    """`RectifiedNormal` in a Pyro program."""


class FactorPrior(ABC):
    """The prior of all entries of a factor. Its dataclass fields are the hyperparameters."""

    @abstractmethod
    def distribution(self, like: Tensor) -> Any:
        """What the Pyro program draws from, with `like`'s dtype and device."""

    @abstractmethod
    def log_constant(self, shape: tuple[int, int]) -> float:
        """The part of `log_prob` that does not depend on the factor of that shape."""

    @abstractmethod
    def energy(self, F: Tensor) -> Tensor:
        """The other part, with its sign changed, of a factor F with a leading axis of chains, (C,), float64."""

    def log_prob(self, F: Tensor) -> Tensor:
        """log p(F) of a factor with a leading axis of chains, (C,), float64."""
        return self.log_constant((F.shape[-2], F.shape[-1])) - self.energy(F)

    @property
    def is_proper(self) -> bool:
        """Whether it has a finite integral."""
        return True

    @property
    def shape(self) -> torch.Size:
        """Of its hyperparameters together, broadcastable to the factor."""
        return torch.broadcast_shapes(*(values.shape for values in self._hyperparameters))

    def rows(self, rows: range) -> Self:
        """The prior of some of the factor's rows."""
        own = lambda values: values if values.shape[0] == 1 else values[rows.start : rows.stop]  # noqa: E731
        return type(self)(*(own(values) for values in self._hyperparameters))

    def _on(self, device: torch.device) -> tuple[Tensor, ...]:
        """The hyperparameters on a device; remembered too."""
        if device not in self._hyperparameters_on:
            with own_settings():
                self._hyperparameters_on[device] = tuple(values.to(device) for values in self._hyperparameters)
        return self._hyperparameters_on[device]

    @property
    def _hyperparameters(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]

    @cached_property
    def _hyperparameters_on(self) -> dict[torch.device, tuple[Tensor, ...]]:
        return {}


class RectifiedPrior(FactorPrior):
    """A prior that is a rectified normal, as the Gaussian family takes them."""

    @property
    @abstractmethod
    def rectified(self) -> RectifiedNormal:
        """The same density in its natural parameters."""

    @property
    def is_exponential(self) -> bool:
        """Whether no entry has a precision."""
        return False

    def natural(self, device: torch.device | str) -> Natural:
        """The natural parameters on a device; remembered, since bringing them there waits for the device."""
        device = torch.device(device)
        if device not in self._natural_on:
            with own_settings():
                own = self.rectified
                self._natural_on[device] = Natural(own.precision.to(device), own.linear.to(device))
        return self._natural_on[device]

    @cached_property
    def _natural_on(self) -> dict[torch.device, Natural]:
        return {}


@dataclass(frozen=True, eq=False)
class Exponential(RectifiedPrior):
    """w ~ Exponential(rate), of mean 1 / rate. A rate of 0 is the flat, improper prior, whose constant is dropped."""

    rate: Tensor

    @cached_property
    def rectified(self) -> RectifiedNormal:
        return RectifiedNormal(torch.zeros_like(self.rate), -self.rate, validate_args=False)

    def distribution(self, like: Tensor) -> Any:
        return dist.Exponential(self.rate.to(like))

    def log_constant(self, shape: tuple[int, int]) -> float:
        return self._mean_log_rate * shape[0] * shape[1]

    def energy(self, F: Tensor) -> Tensor:
        return _weighted_sum(F, self._on(F.device)[0])

    @property
    def is_proper(self) -> bool:
        return not bool((self.rate == 0).any())

    @property
    def is_exponential(self) -> bool:
        return True

    @cached_property
    def _mean_log_rate(self) -> float:
        """Those of zero count as nothing."""
        return _mean(torch.where(self.rate > 0, self.rate, torch.ones_like(self.rate)).log())


@dataclass(frozen=True, eq=False)
class HalfNormal(RectifiedPrior):
    """w = |z|, z ~ Normal(0, scale²)."""

    scale: Tensor

    @cached_property
    def rectified(self) -> RectifiedNormal:
        return RectifiedNormal(self.scale.square().reciprocal(), torch.zeros_like(self.scale), validate_args=False)

    def distribution(self, like: Tensor) -> Any:
        return dist.HalfNormal(self.scale.to(like))

    def log_constant(self, shape: tuple[int, int]) -> float:
        log = 0.5 * math.log(2 / math.pi) - self.scale.log()
        return _mean(log) * shape[0] * shape[1]

    def energy(self, F: Tensor) -> Tensor:
        precision = self.natural(F.device).precision
        return 0.5 * _weighted_sum(F.double().square(), precision)


@dataclass(frozen=True, eq=False)
class TruncatedNormal(RectifiedPrior):
    """w ~ Normal(mean, scale²) given w >= 0; `mean` and `scale` are those before the truncation."""

    mean: Tensor
    scale: Tensor

    @cached_property
    def rectified(self) -> RectifiedNormal:
        precision = self.scale.square().reciprocal()
        return RectifiedNormal(precision, self.mean * precision, validate_args=False)

    def distribution(self, like: Tensor) -> Any:
        natural = self.natural(like.device)
        return Rectified(natural.precision.to(like), natural.linear.to(like), validate_args=False)

    def log_constant(self, shape: tuple[int, int]) -> float:
        log = -0.5 * LOG_2PI - self.scale.log() - torch.special.log_ndtr(self.mean / self.scale)
        return _mean(log) * shape[0] * shape[1]

    def energy(self, F: Tensor) -> Tensor:
        mean, _ = self._on(F.device)
        return 0.5 * _weighted_sum((F.double() - mean).square(), self.natural(F.device).precision)


@dataclass(frozen=True, eq=False)
class NaturalPrior(RectifiedPrior):
    """Any rectified normal by its natural parameters: the density of w >= 0 is ∝ exp(-precision w² / 2 + linear w)."""

    precision: Tensor
    linear: Tensor

    @cached_property
    def rectified(self) -> RectifiedNormal:
        precision, linear = torch.broadcast_tensors(self.precision, self.linear)
        return RectifiedNormal(precision, linear, validate_args=False)

    def distribution(self, like: Tensor) -> Any:
        natural = self.natural(like.device)
        return Rectified(natural.precision.to(like), natural.linear.to(like), validate_args=False)

    def log_constant(self, shape: tuple[int, int]) -> float:
        return self._mean_log_peak * shape[0] * shape[1]

    def energy(self, F: Tensor) -> Tensor:
        """How far log p(F) lies below its greatest value, (C,), float64."""
        return below_peak(F.double(), *self.natural(F.device)).sum((-2, -1))

    @property
    def is_proper(self) -> bool:
        return bool(((self.precision > 0) | (self.linear < 0)).all())

    @cached_property
    def log_normalizer(self) -> Tensor:
        """Log of ∫ exp(-a w² / 2 + b w) dw, broadcastable to the factor."""
        return self.rectified.log_normalizer

    @cached_property
    def log_peak(self) -> Tensor:
        """Log of the density at its mode, broadcastable to the factor."""
        return self.rectified.log_prob(self.rectified.mode)

    @cached_property
    def _mean_log_peak(self) -> float:
        return _mean(self.log_peak)


@dataclass(frozen=True, eq=False)
class Gamma(FactorPrior):
    """w ~ Gamma(shape, rate), of mean shape / rate. Where the rate is 0 it is improper, and its constant is dropped."""

    size: Tensor  # the shape, whose name every prior has for its own
    rate: Tensor

    def distribution(self, like: Tensor) -> Any:
        return dist.Gamma(self.size.to(like), self.rate.to(like))

    def log_constant(self, shape: tuple[int, int]) -> float:
        log = torch.xlogy(self.size, torch.where(self.rate > 0, self.rate, 1.0)) - torch.lgamma(self.size)
        return _mean(log) * shape[0] * shape[1]

    def energy(self, F: Tensor) -> Tensor:
        size, rate = self._on(F.device)
        powers = torch.xlogy((size - 1).expand(F.shape[-2:]), F.double()).sum((-2, -1))
        return _weighted_sum(F, rate) - powers

    @property
    def is_proper(self) -> bool:
        return not bool((self.rate == 0).any())

    @property
    def has_modes(self) -> bool:
        """Whether no shape is below 1, where the density is infinite at 0."""
        return not bool((self.size < 1).any())

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Shape and rate there, float64, broadcastable to the factor."""
        size, rate = self._on(device)
        return size, rate


def below_peak(w: Tensor, precision: Tensor, linear: Tensor) -> Tensor:
    """How far the log density of a rectified normal at w lies below its greatest value, entry by entry."""
    inside = linear > 0
    from_bound = w * (0.5 * precision * w - linear)
    from_mode = 0.5 * (precision * w - linear).square() / torch.where(inside, precision, 1.0)
    return torch.where(inside, from_mode, from_bound)


def _mean(values: Tensor) -> float:
    """The mean, 0 where there are none: of the rows of a process that has none."""
    return float(values.sum()) / max(values.numel(), 1)


def _weighted_sum(F: Tensor, weight: Tensor) -> Tensor:
    """Σ weight · F over a factor (*C, R, S), (*C,), float64; weight (1 | R, 1 | S)."""
    alike = [axis for axis in (-2, -1) if weight.shape[axis] == 1]  # one weight along it: sum first
    weighted = (F.sum(alike, keepdim=True, dtype=torch.float64) if alike else F.double()) * weight
    return weighted.sum((-2, -1))


def hyperparameter(name: str, value: Any, rank: int, axis: int, role: Role) -> float | Tensor:
    """A number, or a float64 tensor (K,) or with a value an entry, checked.

    Args:
        name: for the sentence.
        axis: of a value an entry along which the components lie: 1 for W (N, K), 0 for H (K, D).
        role: says what the numbers may be; they are finite in any case.

    Raises:
        ValueError: another shape, or numbers that are not allowed.
    """
    values = torch.as_tensor(borrowed(name, value), dtype=torch.float64).clone()  # the caller's array may change
    if values.ndim > 2 or (values.ndim > 0 and values.shape[axis if values.ndim == 2 else 0] != rank):
        wanted = "(N, K)" if axis == 1 else "(K, D)"
        raise ValueError(f"{name} has shape {tuple(values.shape)}; give a number, (K,) or {wanted} with K = {rank}")
    if not bool(role.holds(values).all()) or not bool(values.isfinite().all()):
        raise ValueError(
            f"{name} has entries that are not {role.words} and finite (least {values.min():.6g}): give numbers that are"
        )
    return float(values) if values.ndim == 0 else values


def of_factor(value: Hyper, axis: int) -> Tensor:
    """A checked hyperparameter as a float64 tensor with two axes, broadcastable to W (`axis` 1) or H (0)."""
    values = torch.as_tensor(value, dtype=torch.float64)
    if values.ndim == 1 and axis == 0:
        values = values[:, None]
    return values.reshape((1,) * (2 - values.ndim) + values.shape)
