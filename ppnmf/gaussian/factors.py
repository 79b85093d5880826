"""What models of the Gaussian family share whose factors' entries have rectified-normal priors, whatever the noise."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, Self

from torch import Tensor

from ppnmf.factored import Factored
from ppnmf.gaussian import blocks
from ppnmf.gaussian.base import GaussianModel
from ppnmf.gaussian.pinned import Pinned
from ppnmf.gaussian.sweep import Story
from ppnmf.priors import RectifiedPrior
from ppnmf.settings import own_settings

__all__ = ["RectifiedFactors"]


class RectifiedFactors(Factored, GaussianModel):
    """A rectified-normal prior for every entry of W and H, some of which may be known.

    A member of the family is a frozen dataclass with the fields `rank`, `noise_shape`, `noise_scale` and, for each name in
    `hyper`, that name with _W and with _H: a number, one a component (K,), or one an entry.
    """

    @abstractmethod
    def prior_of(self, *hyper: Tensor) -> RectifiedPrior:
        """A factor's prior from its hyperparameters, in the order of `hyper`."""

    @own_settings()
    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_noise()
        self._check_fixed()

    def prior(self, site: str) -> RectifiedPrior:
        """The prior of "W" or of "H"."""
        return super().prior(site)

    def _prior_given_known(self, site: str, prior: Any) -> Any:
        """Pinned where entries are known."""
        known = self.known(site)
        return prior if known is None else Pinned(prior, known)

    def require_fits(self, shape: tuple[int, int]) -> None:
        """Raise ValueError when hyperparameters or known entries are not for X of this shape (N, D)."""
        super().require_fits(shape)
        self._require_fixed_fits(shape)

    def for_rows(self, rows: range) -> Self:
        """The model of those rows of X alone: what it says of each entry of W is cut to them."""
        own = super().for_rows(rows)
        cut = own._fixed_of_rows(rows)
        return replace(own, **cut) if cut else own

    def classes(self) -> list[int]:
        """For each component the first one with its priors."""
        return blocks.classes(self._story, self.rank)

    @property
    def _story(self) -> Story:
        return Story(self.prior, self.noise)
