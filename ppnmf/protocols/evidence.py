"""What a model offers whose evidence is estimated: data that come by time, densities of blocks, a path from a reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

from torch import Tensor

from ppnmf.protocols.matrix import Matrix, Params
from ppnmf.protocols.sweeping import Address, Sweeping, Sweeps, Swept
from ppnmf.rng import Stream

__all__ = [
    "Arriving",
    "Blocked",
    "Crossing",
    "Reduced",
    "Reference",
    "Stepper",
    "Stepping",
    "SteppingWhole",
    "Stood",
    "Timed",
]


class Arriving(Protocol):
    """Data that arrive with time β, for a likelihood whose powers have no exact sweep (`ppnmf.poisson.arrivals`).

    A step of time adds its width times what `seen` gives to the log weights of C particles.
    """

    @property
    def constant(self) -> float:
        """What is added to the log evidence of all steps."""
        ...

    def expected(self, params: Params) -> Tensor:
        """What a unit of time is expected to add to the log weights, (C,), float64."""
        ...

    def advance(self, time: float, step: int) -> None:
        """Let data arrive until this time; `step` fixes the random numbers."""
        ...

    def seen(self, params: Params) -> Tensor:
        """What a unit of time adds to the log weights in the step that was taken last, (C,), float64."""
        ...

    def data(self) -> Matrix:
        """What has arrived."""
        ...


@runtime_checkable
class Timed(Sweeping, Protocol):
    """A model that is tempered by time, and not by powers of its likelihood."""

    def arrivals(self, X: Matrix, stream: Stream) -> Arriving:
        """The data from time 0 on; the stream has one key."""
        ...

    def at_time(self, time: float) -> Self:
        """The model of the data that have arrived by then."""
        ...


@runtime_checkable
class Blocked(Sweeping, Protocol):
    """A model whose blocks have densities that can be evaluated, for Chib's evidence.

    The blocks are: all sites but the factors; the K components of one factor (`site`), one after another; the other factor.
    """

    def classes(self) -> list[int]:
        """For each component the first one with its priors: components of a class may change places."""
        ...

    def log_density_of_others(self, given: Params, X: Matrix) -> Callable[[Params], Tensor]:
        """The log density of the sites that are no factors, given the factors of draws (C, n, *site) and X.

        Returns: a function of a point (C, *site), which gives (C, n); it keeps no draws.
        """
        ...

    def log_density_of_component(self, site: str, at: Tensor, given: Params, labels: list[int], X: Matrix) -> Tensor:
        """Log density of a component of a factor at a point, the length of its other half integrated out.

        Args:
            at: the points (C, R): a column of W, or a row of H.
            given: draws (C, n, *site).
            labels: the components that may play the part.

        Returns: (C, n, labels).
        """
        ...

    def log_density_of_factor(self, site: str, at: Params, begun: Params, X: Matrix, run: Reduced) -> Tensor:
        """log p(factor `site` at `at` | all else at `at`, X), averaged over draws of that factor, (C,).

        Args:
            begun: where its chains begin, (C, *site).
            run: how long they are, and where their random numbers are.
        """
        ...


class Reference(Protocol):
    """A density r(θ) that can be drawn from, near a mode of a posterior."""

    def draws(self, X: Matrix, stream: Stream) -> Params:
        """Independent ones, (C, *site), a key of the stream each."""
        ...

    def log_prob(self, params: Params) -> Tensor:
        """log r(θ), (C,), float64."""
        ...

    def log_places(self, params: Params) -> Tensor:
        """Log density of component k under what r says of component l, (C, K, K), on the CPU."""
        ...


@runtime_checkable
class Stepping(Sweeping, Protocol):
    """A model with exact sweeps all the way from a fitted reference to its posterior, for stepping stones."""

    def classes(self) -> list[int]:
        """For each component the first one with its priors: components of a class may change places."""
        ...

    def reference(self, draws: Params, width: float) -> Reference:
        """A density with the moments of draws (S, *site) whose components have one order, variances times `width`."""
        ...

    def sweep_between(self, reference: Any, params: Params, X: Matrix, asked: Sweeps, at: Address | None) -> Swept:
        """Sweeps that leave [p(X | θ) p(θ)]^β r(θ)^(1-β) as it is, β = `asked.power`; log_likelihood is log p(X | θ)."""
        ...


@runtime_checkable
class Crossing(Stepping, Protocol):
    """The same of a model with components of several kinds, which say of each other what goes with what; all of a kind are alike.

    `Reference.log_places` of it gives (C, T, J, J): tables for each combination of orders of all kinds but the one that has the
    most components, the first of several.
    """

    @property
    def kinds(self) -> Sequence[str]:
        """The names of their dimensions in `sites`, in the order of the factors between which they stand."""
        ...


class Stood(NamedTuple):
    """Particles on the way from a reference to a posterior, and what they weigh; all but the parameters float64."""

    params: Params  # (C, *site)
    log_likelihood: Tensor  # (C,)
    log_prior: Tensor  # (C,)
    log_reference: Tensor  # (C,)
    places: Tensor  # `Reference.log_places` of them, (C, K, K)


class Stepper(Protocol):
    """The sweeps of `Stepping.sweep_between`, many at once."""

    def raised(self, params: Params, power: float, sweeps: int, at: Address) -> Stood:
        """Particles (C, *site) after so many sweeps at β = `power`."""
        ...


@runtime_checkable
class SteppingWhole(Stepping, Protocol):
    """A model whose steps are compiled whole where X is small enough, or dense, or whatever it asks for."""

    def stepper(self, reference: Any, X: Matrix) -> Stepper | None:
        """None where X is not for it: then there is `sweep_between`."""
        ...


class Reduced(NamedTuple):
    """A run in which only one factor is drawn."""

    at: Address
    burn: int
    draws: int
    tick: Any  # is told of each sweep
