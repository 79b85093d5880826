"""What a model offers that is fitted by sweeps over its full conditionals, and what those that sweep say and hear."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, Protocol, Self, runtime_checkable

from torch import Tensor

from ppnmf.protocols.matrix import Matrix, Params
from ppnmf.protocols.model import Model
from ppnmf.rng import Stream

__all__ = [
    "Address",
    "Collapsing",
    "Held",
    "Read",
    "Sweeping",
    "Sweeps",
    "Swept",
]


class Read(Enum):
    """What a sweep takes from each conditional."""

    DRAW = "draw"
    MODE = "mode"
    MOMENTS = "moments"


class Address(NamedTuple):
    """Where a run's random numbers are: the streams of its C chains, and the step."""

    stream: Stream
    step: int


class Held(NamedTuple):
    """What stays as it is while the rest is swept: the first components of W, and of H, and all sites but the factors."""

    W: int = 0
    H: int = 0
    others: bool = False


class Sweeps(NamedTuple):
    """What is asked of some sweeps.

    Args:
        read: what is taken from each conditional.
        number: how many sweeps.
        kept: of the sweeps 0, 1, 2 ... those whose draws are wanted; of modes, the last alone can be had.
        power: temperature β of the likelihood.
        held: what stays.
        moves: move along the ridge after each sweep, among the components that are free in both factors.
        flat: leave the factors' priors out, for modes: ordinary NMF.
        collapsed: of "W" and "H" those whose shears with a row integrated out are made too (`Collapsing`); nothing is held then.
        fresh: factors are drawn in the sweeps whose number this divides, and reflected in their conditionals in the others
            (`kernels.reference.half_sweep`), where the model is `Collapsing`.
    """

    read: Read = Read.DRAW
    number: int = 1
    kept: range = range(1)
    power: float = 1.0
    held: Held = Held()
    moves: bool = True
    flat: bool = False
    collapsed: tuple[str, ...] = ()
    fresh: int = 1


class Swept(NamedTuple):
    """What some sweeps leave.

    Args:
        params: after the last one, (C, *site).
        draws: of the sweeps that are kept, (C, n, *site).
        log_likelihood: log p(X | draw), whatever the temperature, of the same, (C, n), float64.
    """

    params: Params
    draws: dict[str, Tensor]
    log_likelihood: Tensor


@runtime_checkable
class Sweeping(Model, Protocol):
    """A model with full conditionals, whose sweeps Gibbs, ICM, SMC and held-out cells run."""

    def log_prior(self, params: Params) -> Tensor:
        """log p of all sites but X, shape (*C,), float64."""
        ...

    def log_likelihood_at(self, params: Params, X: Matrix) -> Tensor:
        """log p(X | params) of the observed entries, (C,), float64."""
        ...

    def begin(self, X: Matrix, stream: Stream, how: str | Params) -> dict[str, Tensor]:
        """Values (C, *site) of every site before the first sweep: a start by its name, or given ones, completed."""
        ...

    def prior_draws(self, shape: tuple[int, int], n: int, stream: Stream) -> dict[str, Tensor]:
        """n independent draws (n, *site) of every site from the prior, float64, for X of a shape (N, D)."""
        ...

    def sweep(self, params: Params, X: Matrix, asked: Sweeps, at: Address | None) -> Swept:
        """So many sweeps, each site from its conditional; `params` stay as they are."""
        ...

    def require_proper(self) -> None:
        """Raise ValueError when a prior is improper."""
        ...

    def require_modes(self) -> None:
        """Raise ValueError when a prior has no mode, so that sweeps of modes have nowhere to climb."""
        ...

    def require_fits(self, shape: tuple[int, int]) -> None:
        """Raise ValueError when the priors are not for X of this shape."""
        ...

    def rescaled(self, size: float) -> Self:
        """The same with priors under which the entries of W and of H are so many times as large."""
        ...

    def for_rows(self, rows: range) -> Self:
        """The model of those rows of X alone."""
        ...


@runtime_checkable
class Collapsing(Sweeping, Protocol):
    """A model whose sweeps can take longer steps along the ridge: by reflection, and with a row of a factor integrated out."""

    def longer_steps(self, params: Params, X: Matrix) -> tuple[str, ...]:
        """The sites of `Sweeps.collapsed` that pay where chains stand; none where other moves go as far."""
        ...

    def can_reflect(self) -> bool:
        """Whether `Sweeps.fresh` may be more than 1: no entry of the factors is known."""
        ...
