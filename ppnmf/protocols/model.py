"""What every model offers."""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from torch import Tensor
from torch.distributions import Distribution

from ppnmf.protocols.matrix import Params

__all__ = ["Entries", "Model"]


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
        """W (*C, N, K) and H (*C, K, D) with E[X] = W @ H."""
        ...

    def likelihood(self, params: Params) -> Distribution:
        """The distribution of X given the factors, batch shape (*C, N, D)."""
        ...
