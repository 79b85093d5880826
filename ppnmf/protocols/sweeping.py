"""What a model offers that is fitted by sweeps over its full conditionals, and what those that sweep say and hear."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

from torch import Tensor

from ppnmf.protocols.matrix import Matrix, Params
from ppnmf.protocols.model import Model
from ppnmf.rng import Stream

__all__ = [
    "Address",
    "Arriving",
    "Ascent",
    "Blocked",
    "Climbing",
    "Collapsing",
    "Descending",
    "Drawn",
    "Held",
    "LeastSquares",
    "Lowered",
    "Multiplicative",
    "Pace",
    "Read",
    "Reduced",
    "Reference",
    "Stepper",
    "Stepping",
    "SteppingWhole",
    "Stood",
    "Sweeping",
    "Sweeps",
    "Swept",
    "Timed",
    "Variational",
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
    """

    read: Read = Read.DRAW
    number: int = 1
    kept: range = range(1)
    power: float = 1.0
    held: Held = Held()
    moves: bool = True
    flat: bool = False
    collapsed: tuple[str, ...] = ()


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
    """A model whose sweeps can move along the ridge with a row of a factor integrated out."""

    def longer_steps(self, params: Params, X: Matrix) -> tuple[str, ...]:
        """The sites of `Sweeps.collapsed` that pay where chains stand; none where other moves go as far."""
        ...


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


class Pace(NamedTuple):
    """How far ahead of where they stand climbs begin their next sweep (Ang and Gillis 2019)."""

    growth: float  # of the reach, after a sweep that gained
    bound_growth: float
    retreat: float  # what the reach is divided by after one that did not
    tol: float  # the relative gain that counts as none


class Ascent(NamedTuple):
    """Where climbs stand after some sweeps of modes, or of least squares: then what is raised is minus their loss.

    Args:
        params: (C, *site). before: W and H a sweep earlier.
        lp: log joint, (C,). reach, bound: how far ahead the next sweep begins, and the most that may grow to, (C,).
        sweeps: done by each. converged: whether it has.
        most: how many there could have been.
        path: what is raised after each sweep, (C, most), NaN where there was none; None where nobody wants it.
    """

    params: Params
    before: Params
    lp: Tensor
    reach: Tensor
    bound: Tensor
    sweeps: list[int]
    converged: list[bool]
    most: int
    path: Tensor | None = None


@runtime_checkable
class Climbing(Sweeping, Protocol):
    """A model that takes many accelerated sweeps of modes in one compiled piece, where X is small."""

    def climb(
        self, X: Matrix, params: Params, before: Params, reach: tuple[Tensor, Tensor], lp: Tensor, pace: Pace, most: int
    ) -> Ascent | None:
        """Up to `most` sweeps of each climb, as `inference.icm.advance` takes them; None where X is not for it.

        Args:
            params: where the climbs stand. before: W and H a sweep earlier.
            reach: how far ahead the next sweep begins, and the most that may grow to, (C,) each.
            lp: log joint, (C,).
        """
        ...


class Lowered(NamedTuple):
    """Where a sweep of ordinary NMF leads, which looks at X alone and at no prior.

    Args:
        params: (C, *site); sites that are no factors are at what the factors then say.
        loss: what the sweep lowers, relative to its unit (`Multiplicative.loss_unit`), that of W @ H = 0 for squared errors,
            (C,), float64.
    """

    params: Params
    loss: Tensor


@runtime_checkable
class Multiplicative(Sweeping, Protocol):
    """A model whose likelihood has multiplicative updates (Lee and Seung 2001)."""

    def multiplied(self, params: Params, X: Matrix) -> Lowered:
        """W and then H, each times a quotient that is never negative; the loss never rises."""
        ...

    def loss_unit(self, X: Matrix) -> float:
        """What `Lowered.loss` is a share of: the loss of W @ H = 0, or where that is infinite of a plain guess."""
        ...


@runtime_checkable
class LeastSquares(Sweeping, Protocol):
    """A model whose likelihood is a squared error, over known noise variances."""

    def by_components(self, params: Params, X: Matrix, repeatedly: bool = False) -> Lowered:
        """The columns of W and then the rows of H, each at its least squared error given the rest.

        Args:
            repeatedly: go through a factor several times with the same products of X, where those are dear.
        """
        ...

    def by_rows(self, params: Params, X: Matrix) -> Lowered:
        """W and then H, each at its least squared error, under its sign, given the other."""
        ...


@runtime_checkable
class Descending(LeastSquares, Protocol):
    """A model that takes many sweeps of `by_components` in one compiled piece, where X is small."""

    def descend(
        self,
        X: Matrix,
        params: Params,
        before: Params,
        reach: tuple[Tensor, Tensor],
        lp: Tensor,
        pace: Pace,
        most: int,
        repeatedly: bool = False,
    ) -> Ascent | None:
        """Up to `most` sweeps of each climb, as `inference.descents` takes them; None where X is not for it.

        Args:
            params, before, reach, most: as `Climbing.climb` has them; a reach of 0 stays 0.
            lp: minus the loss, (C,).
            repeatedly: as in `by_components`.
        """
        ...


class Drawn(NamedTuple):
    """Independent draws from a distribution, and its log density at each.

    Args:
        params: (n, *site) of every site.
        log_density: (n,), float64.
    """

    params: Params
    log_density: Tensor


@runtime_checkable
class Variational(Sweeping, Protocol):
    """A model whose sweeps read moments too: `sweep` with Read.MOMENTS takes an approximation and gives a better one.

    An approximation q is a dict of float64 tensors with a leading axis C, the means of W and H among them by these names.
    The `log_likelihood` of such a sweep is E_q[log p(X | ·)], (C, 1), where counts are allocated E_q[log p(X, Z | ·) - log q(Z)]
    over their components Z, and the evidence lower bound that less `divergence`; each step of the sweep maximises it over one
    block.
    """

    def approximated(self, params: Params, X: Matrix) -> Params:
        """What the first sweep goes on from: the approximation that stands at these values."""
        ...

    def divergence(self, q: Params, X: Matrix) -> Tensor:
        """KL(q || p) of all sites but X, (C,), float64."""
        ...

    def approximate_draws(self, q: Params, X: Matrix, n: int, stream: Stream) -> Drawn:
        """n independent draws from one approximation, whose axis C is 1, in X's type."""
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
