"""What the models of the Poisson family share: gamma priors, exposures, and all that is read off them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ppnmf.checks import whole_number
from ppnmf.data.containers import opened
from ppnmf.data.labelled import noise_beside
from ppnmf.data.matrix import as_matrix
from ppnmf.factored import Factored
from ppnmf.known import Holding
from ppnmf.poisson import exposures as exposed
from ppnmf.poisson.arrivals import Arrivals
from ppnmf.poisson.pinned import Pinned
from ppnmf.poisson.sweep import Story, require_modes
from ppnmf.priors import RATE, SHAPE, Gamma, Hyper
from ppnmf.protocols import Entries, Matrix
from ppnmf.rng import Stream
from ppnmf.settings import own_settings

__all__ = ["PoissonFamily"]


class PoissonFamily(Factored, Holding):
    r"""X_ij are counts of mean e_ij (W H)_ij, with a gamma prior for every entry of W and H, some of which may be known.

    A member is a frozen dataclass with the fields `rank`, `shape_W`, `shape_H`, `rate_W`, `rate_H` and `exposures`.
    """

    shape_W: Hyper
    shape_H: Hyper
    rate_W: Hyper
    rate_H: Hyper
    exposures: Hyper

    accepts: ClassVar[Entries] = Entries.COUNTS
    hyper: ClassVar[Mapping[str, Any]] = {"shape": SHAPE, "rate": RATE}

    @own_settings()
    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "exposures", exposed.checked(self.exposures))
        self._check_fixed()

    def prior_of(self, *hyper: Tensor) -> Gamma:
        """Gamma, with the factor's shapes and rates."""
        return Gamma(*hyper)

    def prior(self, site: str) -> Gamma | Pinned:
        """The prior of "W" or of "H"."""
        return super().prior(site)

    def _prior_given_known(self, site: str, prior: Any) -> Any:
        """Pinned where entries are known."""
        known = self.known(site)
        return prior if known is None else Pinned(prior, known)

    @classmethod
    @own_settings()
    def for_data(cls, X: Any, rank: int, mask: Any = None, missing: str = "error", exposures: Hyper = 1.0) -> Self:
        """Exponential priors (shapes 1) with equal rates, such that e W @ H has X's mean a priori.

        Args:
            exposures: as in the constructor; in a container with names they are matched with X by these, as noise is.

        Raises:
            ValueError: the observed X has a mean that is not positive, or exposures are not for X.
        """
        whole_number("rank", rank, 1)
        given = opened("X", X)
        data = as_matrix(given, mask, missing)
        mean = data.mean()
        if mean <= 0:
            raise ValueError(f"X has mean {mean:.6g}; it must be positive to scale the priors to X: check the input")
        exposures = noise_beside(opened("exposures", exposures), given, "exposures")
        own = exposed.table(exposed.checked(exposures))
        exposed.require_fits(own, data.shape)
        per_exposure = mean / exposed.mean_exposure(data, own)
        rate = math.sqrt(rank / per_exposure)
        return cls(rank, 1.0, 1.0, rate, rate, exposures)  # type: ignore[call-arg]

    @classmethod
    def scaled_to(cls, X: Any, rank: int, mask: Any = None, missing: str = "error", exposures: Hyper = 1.0) -> Self:
        """Another name of `for_data`."""
        return cls.for_data(X, rank, mask, missing, exposures)

    def means(self, params: Mapping[str, Tensor]) -> Tensor:
        """e W @ H, (*C, N, D)."""
        products = params["W"] @ params["H"]
        return products * self.exposure(products)

    def exposure(self, like: Tensor) -> Tensor:
        """The exposures (1 | N, 1 | D), with a tensor's dtype and device."""
        return self._exposures.to(like)

    def with_exposures(self, exposures: Hyper) -> Self:
        """The same model with other exposures."""
        return replace(self, exposures=exposures)  # type: ignore[call-arg]

    def require_fits(self, shape: tuple[int, int]) -> None:
        """Raise ValueError when hyperparameters per entry, exposures or known entries are not for X of this shape (N, D)."""
        super().require_fits(shape)
        self._require_fixed_fits(shape)
        exposed.require_fits(self._exposures, shape)

    def for_rows(self, rows: range) -> Self:
        """The model of those rows of X alone."""
        own = super().for_rows(rows)
        e = self._exposures
        cut: dict[str, Any] = own._fixed_of_rows(rows)
        if len(e) > 1:
            cut["exposures"] = e[rows.start : rows.stop]
        return replace(own, **cut) if cut else own

    def arrivals(self, X: Matrix, stream: Stream) -> Arrivals:
        """The events of X, as they arrive."""
        return Arrivals(self._story, X, stream)

    def at_time(self, time: float) -> Self:
        """The model of the events that have arrived by then."""
        return replace(self, exposures=time * torch.as_tensor(self.exposures, dtype=torch.float64))  # type: ignore[call-arg]

    @cached_property
    @own_settings()
    def _exposures(self) -> Tensor:
        return exposed.table(self.exposures)  # type: ignore[arg-type]

    def require_modes(self) -> None:
        """Raise ValueError where a shape is below 1: the prior's density is infinite at 0."""
        require_modes(self._story)

    @property
    def _story(self) -> Story:
        return Story(self.prior, self._exposures)
