"""What models share whose factors' entries have independent priors: their hyperparameters, checked, compared and taken apart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cached_property, partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ppnmf.checks import whole_number
from ppnmf.equality import hash_of, same
from ppnmf.priors import FactorPrior, Role, hyperparameter, of_factor
from ppnmf.protocols import Entries, Params
from ppnmf.settings import own_settings

__all__ = ["AXES", "Factored", "Frozen", "shape_of"]

AXES = {"W": 1, "H": 0}  # along which the components of a factor lie


class Frozen(ABC):
    """A model that is a frozen dataclass: equal by value, also after `pickle`."""

    rank: int

    name: ClassVar[str]
    accepts: ClassVar[Entries] = Entries.REAL

    @classmethod
    @abstractmethod
    def for_data(cls, X: Any, rank: int, mask: Any = None, missing: str = "error") -> Self:
        """Priors on the scale of the observed X (N, D)."""

    @classmethod
    def scaled_to(cls, X: Any, rank: int, mask: Any = None, missing: str = "error") -> Self:
        """Another name of `for_data`."""
        return cls.for_data(X, rank, mask, missing)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def __eq__(self, other: object) -> bool:
        return same(self, other)

    def __hash__(self) -> int:
        return hash_of(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), **self.config()), ()  # not what is cached: it may lie on a device

    def factors(self, params: Params) -> tuple[Tensor, Tensor]:
        """W (*C, N, K) and H (*C, K, D)."""
        return params["W"], params["H"]


class Factored(Frozen):
    """X (N, D) ≈ W (N, K) @ H (K, D), with a prior for every entry of W and H.

    A frozen dataclass with the fields `rank` and, for each name in `hyper`, that name with _W and with _H: a number, one a
    component (K,), or one an entry.
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

    # The priors

    def prior(self, site: str) -> Any:
        """The prior of "W" or of "H"."""
        return self._priors[site]

    @cached_property
    @own_settings()
    def _priors(self) -> dict[str, FactorPrior]:
        return {site: self._prior_given_known(site, self.prior_of(*self._hyper_of(site))) for site in AXES}

    def _prior_given_known(self, site: str, prior: FactorPrior) -> FactorPrior:
        """A factor's prior where some of its entries may be known; here none are."""
        return prior

    def _hyper_of(self, site: str) -> list[Tensor]:
        """A factor's hyperparameters, float64, broadcastable to it, with two axes."""
        return [of_factor(getattr(self, f"{name}_{site}"), AXES[site]) for name in self.hyper]

    def log_prior_of_factors(self, params: Params, others: Any = 0.0) -> Any:
        """log p(W) + log p(H) added to what is known of the other sites, (*C,); an improper prior's constant is dropped."""
        total = others
        for site in AXES:
            F, prior = params[site], self.prior(site)
            total = total + prior.log_constant((F.shape[-2], F.shape[-1])) - prior.energy(F)
        return total

    def require_modes(self) -> None:
        """Nothing: rectified normals and their like have modes."""

    def require_proper(self) -> None:
        """Raise ValueError when a factor's prior is improper."""
        for site in AXES:
            if self.prior(site).is_proper:
                continue
            for name, values in zip(self.hyper, self._hyper_of(site), strict=True):
                if bool((values == 0).any()):
                    raise ValueError(
                        f"{name}_{site} is 0 somewhere: that prior is improper, and only icm can use it; give a positive {name}"
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
            if role.dimension
        }
        return replace(self, **changed)  # type: ignore[type-var]

    def stretched(self, size: float) -> Self:
        """The same model with priors under which the entries of W are so many times as large, and those of H as small."""
        changed = {
            f"{name}_{site}": getattr(self, f"{name}_{site}") * size ** (sign * role.dimension)
            for name, role in self.hyper.items()
            for site, sign in (("W", 1), ("H", -1))
            if role.dimension
        }
        return replace(self, **changed)  # type: ignore[type-var]


def shape_of(X: Tensor | None, shape: tuple[int, int] | None) -> tuple[tuple[int, int], Tensor]:
    """(N, D) of X or as it is said, and a tensor of the type to draw in.

    Raises:
        ValueError: neither is given.
    """
    if X is not None:
        return (X.shape[-2], X.shape[-1]), X
    if shape is None:
        raise ValueError("neither X nor shape=(N, D) is given; give X to observe it, or a shape to draw it")
    return shape, torch.empty(0)
