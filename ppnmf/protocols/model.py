"""What every model offers."""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from torch import Tensor
from torch.distributions import Distribution

from ppnmf.protocols.matrix import Params

__all__ = ["Entries", "Exposing", "Model", "exposed"]


class Entries(Enum):
    """What entries of X a model takes."""

    REAL = "real numbers"
    NOT_NEGATIVE = "data >= 0"
    COUNTS = "counts"


@runtime_checkable
class Model(Protocol):
    """A generative story for X (N, D) ≈ W (N, K) @ H (K, D), written as a Pyro program."""

    name: ClassVar[str]
    accepts: ClassVar[Entries]

    @property
    def rank(self) -> int: ...

    def __call__(
        self, X: Tensor | None = None, mask: Tensor | None = None, *, shape: tuple[int, int] | None = None
    ) -> Tensor:
        """Run the Pyro program: observe X (N, D), or draw X of the given shape from the prior. Returns X."""
        ...

    @classmethod
    def for_data(cls, X: Any, rank: int, mask: Any = None, missing: str = "error") -> Self:
        """The model for this data: priors on the scale of the observed X, where it has any that have a scale."""
        ...

    def config(self) -> dict[str, Any]:
        """The constructor's arguments: `type(model)(**model.config())` rebuilds the model."""
        ...

    def sites(self, N: int, D: int) -> dict[str, dict[str, int]]:
        """Each site's name -> its dimensions' names and sizes, in order: {"W": {"row": N, "component": K}, ...}."""
        ...

    def factors(self, params: Params) -> tuple[Tensor, Tensor]:
        """W (*C, N, K) and H (*C, K, D) with E[X] = W @ H, times the exposures of a model that has some (`Exposing`)."""
        ...

    def likelihood(self, params: Params) -> Distribution:
        """The distribution of X given the factors, batch shape (*C, N, D)."""
        ...


@runtime_checkable
class Exposing(Model, Protocol):
    """A model whose entries of X have known exposures e: E[X_ij] = e_ij (W @ H)_ij."""

    def exposure(self, like: Tensor) -> Tensor:
        """The exposures (1 | N, 1 | D), with a tensor's dtype and device."""
        ...

    def with_exposures(self, exposures: Any) -> Self:
        """The same model with other exposures."""
        ...


def exposed(model: Model, products: Tensor, rows: slice = slice(None)) -> Tensor:
    """E[X] (*C, B, D) of some rows from those of W @ H."""
    if not isinstance(model, Exposing):
        return products
    e = model.exposure(products)
    return products * (e if len(e) == 1 else e[rows])
