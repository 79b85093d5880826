"""What a model offers whose guide is an encoder, and what those that train it say and hear."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ppnmf.protocols.model import Model

__all__ = ["Amortised", "Asked", "Proposal", "Recipe"]


class Recipe(NamedTuple):
    """How `ppnmf.inference.svi` trains a model where it is not told otherwise."""

    objective: str = "analytic"
    divergence: bool = True  # is the divergence to the prior part of it?
    uniforms: tuple[float, float] | None = None  # the range of those behind a draw; None: the objective's own
    normalised: bool = False  # steps along each parameter's gradient divided by its norm, in place of Adam's
    learning_rate: float = 0.01


class Asked(NamedTuple):
    """Which bound of some rows is wanted.

    Args:
        uniforms: (B, K): the mean log likelihood stands at the loadings of these; None: it is exact.
        divergence: less the divergence of the guide to the prior.
        frozen: the parameters but the guide's stay: nobody asks for their slopes.
    """

    uniforms: Tensor | None = None
    divergence: bool = True
    frozen: bool = False


@runtime_checkable
class Amortised(Model, Protocol):
    """A `torch.nn.Module` with an encoder: its guide maps a row of X to a distribution of that row of W.

    Training asks for what stands here up to `fitted`; the rest is what is done with a fitted model. X is a tensor,
    checked before, zero where missing; only `encode` takes it in whatever form a user has it.
    """

    @property
    def recipe(self) -> Recipe:
        """How it is trained where the caller does not say otherwise."""
        ...

    @property
    def is_initialised(self) -> bool:
        """Whether it has weights."""
        ...

    def initialise(self, X: Any, seed: int = 0) -> Self:
        """Give it weights for data X, a `Dense` or rows over processes, to start the training from."""
        ...

    def restarted(self, X: Any, number: int, seed: int) -> Self:
        """A copy for one of several trainings: itself for number 0, others started elsewhere."""
        ...

    def free_parameters(self, D: int) -> int:
        """How many numbers of the story are learned for D columns: those a message about X has to tell."""
        ...

    @property
    def columns(self) -> tuple[str, ...] | None:
        """The names of the columns that it was fitted to; None where they have none, or it has no weights."""
        ...

    @columns.setter
    def columns(self, names: tuple[str, ...] | None) -> None: ...

    def require_columns(self, D: int, names: tuple[str, ...] | None) -> None:
        """Raise ValueError where it has weights for another number of columns, or for others by their names."""
        ...

    def guide(self, X: Tensor, mask: Tensor | None = None) -> Tensor:
        """The guide as a Pyro program."""
        ...

    def coordinates(self, X: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the encoder reads of X (N, D), which training does not change: (N, C)."""
        ...

    def outputs(self, coordinates: Tensor) -> tuple[Tensor, ...]:
        """What the guide of W (N, K) is made from, free of constraints."""
        ...

    def bound(self, X: Tensor, mask: Tensor | None, outputs: tuple[Tensor, ...], asked: Asked) -> Tensor:
        """The evidence lower bound of rows X (B, D) under the guide of these outputs, or what stands for it: ()."""
        ...

    def quantile(self, outputs: tuple[Tensor, ...]) -> Callable[[Tensor], Tensor]:
        """From uniforms (N, K) to loadings of the guide, by its inverse distribution function; never zero."""
        ...

    def fitted(self) -> dict[str, Tensor]:
        """The sites that are parameters and not random: H (K, D), sigma2 ()."""
        ...

    def posterior(self, coordinates: Tensor) -> Distribution:
        """The guide's distribution of W (N, K), with `icdf`."""
        ...

    def project(self) -> None:
        """Bring the parameters back into their bounds, in place, after a step of an optimiser."""
        ...

    def encode(self, X: Any, mask: Any = None) -> Distribution:
        """The guide's distribution of W (N, K), for new rows."""
        ...

    def decode(self, W: Tensor) -> Tensor:
        """The mean of X (N, D) given W (N, K)."""
        ...

    def proposal(self, X: Tensor, mask: Tensor | None = None, widened: bool = True) -> Proposal:
        """What to draw W (N, K) from for importance sampling: the guide, widened or as it is."""
        ...

    def log_joint(self, X: Tensor, W: Tensor, mask: Tensor | None = None) -> Tensor:
        """log p(x_i, w_i) of each row with draws W (S, N, K), its parameters given: (S, N), float64."""
        ...

    # Of `torch.nn.Module`

    def parameters(self) -> Iterator[nn.Parameter]: ...
    def to(self, *, dtype: torch.dtype, device: torch.device) -> Self: ...
    def double(self) -> Self: ...
    def train(self, mode: bool = True) -> Self: ...
    def eval(self) -> Self: ...
    def zero_grad(self) -> None: ...


class Proposal(Protocol):
    """A distribution of W (N, K) that is drawn from by a function of uniforms."""

    def at(self, u: Tensor) -> Tensor:
        """Draws made of uniforms (S, N, K)."""
        ...

    def log_prob(self, W: Tensor) -> Tensor:
        """Of each entry of W (S, N, K)."""
        ...
