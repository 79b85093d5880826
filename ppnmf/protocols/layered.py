"""What a model offers whose loadings are a product of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ppnmf.protocols.matrix import Params
from ppnmf.protocols.model import Model
from ppnmf.protocols.sweeping import Sweeping

__all__ = ["Deriving", "Layered", "made_up"]


@runtime_checkable
class Deriving(Model, Protocol):
    """A model some of whose sites are made up by the others, and are not drawn."""

    def derived(self, params: Params) -> dict[str, Tensor]:
        """Those sites, from the others with any leading axes."""
        ...


@runtime_checkable
class Layered(Sweeping, Deriving, Protocol):
    """X (N, D) ≈ A0 (N, K_0) @ A1 (K_0, K_1) @ ... @ H (K, D)."""

    @property
    def ranks(self) -> Sequence[int]:
        """K_0, K_1 ... K."""
        ...


def made_up(model: Model) -> set[str]:
    """The sites that the others make up.

    >>> from ppnmf.models import TriFactor
    >>> made_up(TriFactor(2))
    {'H'}
    """
    if not isinstance(model, Deriving):
        return set()
    return set(model.derived({site: torch.zeros(tuple(dims.values())) for site, dims in model.sites(1, 1).items()}))
