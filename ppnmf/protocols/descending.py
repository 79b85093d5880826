"""What a model offers that is climbed to a mode, fitted by least squares or by variational sweeps."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from ppnmf.protocols.matrix import Matrix, Params
from ppnmf.protocols.sweeping import Sweeping
from ppnmf.rng import Stream

__all__ = [
    "Ascent",
    "Climbing",
    "Descending",
    "Drawn",
    "LeastSquares",
    "Lowered",
    "Multiplicative",
    "Pace",
    "Standing",
    "Variational",
]


class Pace(NamedTuple):
    """How far ahead of where they stand climbs begin their next sweep (Ang and Gillis 2019)."""

    growth: float  # of the reach, after a sweep that gained
    bound_growth: float
    retreat: float  # what the reach is divided by after one that did not
    tol: float  # the relative gain that counts as none


class Standing(NamedTuple):
    """Where C climbs stand between two sweeps.

    Args:
        params: (C, *site). before: W and H a sweep earlier.
        lp: what is raised: the log joint, or minus the loss, (C,).
        reach, bound: how far ahead the next sweep begins, and the most that may grow to, (C,); a reach of 0 stays 0.
    """

    params: Params
    before: Params
    lp: Tensor
    reach: Tensor
    bound: Tensor


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

    def climb(self, X: Matrix, begun: Standing, pace: Pace, most: int) -> Ascent | None:
        """Up to `most` sweeps of each climb, as `inference.icm.advance` takes them; None where X is not for it."""
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

    def descend(self, X: Matrix, begun: Standing, pace: Pace, most: int, repeatedly: bool = False) -> Ascent | None:
        """Up to `most` sweeps of each climb, as `inference.descents` takes them; None where X is not for it.

        Args:
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
