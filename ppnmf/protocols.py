"""What a model may offer to a method, and what a data matrix must offer to a sweep.

A method asks for an ability (`Sweeping`, `Climbing`, `Blocked`, `Amortised`) and never for a class; a model that lacks it is
refused, in one place (`ppnmf.inference.able`), with a `TypeError` that names the ability. Abilities tell the whole truth: a
model that passes `isinstance` works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, ClassVar, NamedTuple, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ppnmf.rng import Stream

__all__ = [
    "ABILITIES",
    "Address",
    "Amortised",
    "Ascent",
    "Asked",
    "Blocked",
    "Climbing",
    "Entries",
    "Held",
    "Matrix",
    "Model",
    "Pace",
    "Params",
    "Proposal",
    "Read",
    "Recipe",
    "Reduced",
    "Statistics",
    "Sweeping",
    "Sweeps",
    "Swept",
    "require_ability",
]

Params = Mapping[str, Tensor]  # site name -> values; the chain axis C, where there is one, leads


class Entries(Enum):
    """What entries of X a model takes."""

    REAL = "real numbers"
    NOT_NEGATIVE = "data >= 0"
    COUNTS = "counts"


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
    """

    read: Read = Read.DRAW
    number: int = 1
    kept: range = range(1)
    power: float = 1.0
    held: Held = Held()
    moves: bool = True
    flat: bool = False


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

    def require_fits(self, shape: tuple[int, int]) -> None:
        """Raise ValueError when the priors are not for X of this shape."""
        ...

    def rescaled(self, size: float) -> Self:
        """The same with priors under which the entries of W and of H are so many times as large."""
        ...

    def for_rows(self, rows: range) -> Self:
        """The model of those rows of X alone."""
        ...


class Pace(NamedTuple):
    """How far ahead of where they stand climbs begin their next sweep (Ang and Gillis 2019)."""

    growth: float  # of the reach, after a sweep that gained
    bound_growth: float
    retreat: float  # what the reach is divided by after one that did not
    tol: float  # the relative gain that counts as none


class Ascent(NamedTuple):
    """Where climbs stand after some sweeps of modes.

    Args:
        params: (C, *site). before: W and H a sweep earlier.
        lp: log joint, (C,). reach, bound: how far ahead the next sweep begins, and the most that may grow to, (C,).
        sweeps: done by each. converged: whether it has.
        most: how many there could have been.
    """

    params: Params
    before: Params
    lp: Tensor
    reach: Tensor
    bound: Tensor
    sweeps: list[int]
    converged: list[bool]
    most: int


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


class Reduced(NamedTuple):
    """A run in which only one factor is drawn."""

    at: Address
    burn: int
    draws: int
    tick: Any  # is told of each sweep


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


ABILITIES: dict[type, str] = {
    Sweeping: "full conditionals",
    Blocked: "the densities of its blocks",
    Amortised: "a guide with an encoder",
}


def require_ability(who: str, model: Any, ability: type) -> None:
    """Raise TypeError where a model lacks what a method asks for; the sentence says what it has."""
    if isinstance(model, ability):
        return
    offered = [words for kind, words in ABILITIES.items() if isinstance(model, kind)]
    name = getattr(model, "name", type(model).__name__)
    raise TypeError(f"{who} needs {ABILITIES[ability]}; {name} offers {', '.join(offered) or 'none of its abilities'}")


class Proposal(Protocol):
    """A distribution of W (N, K) that is drawn from by a function of uniforms."""

    def at(self, u: Tensor) -> Tensor:
        """Draws made of uniforms (S, N, K)."""
        ...

    def log_prob(self, W: Tensor) -> Tensor:
        """Of each entry of W (S, N, K)."""
        ...


class Statistics(NamedTuple):
    """What X tells about one factor F (R, K) given the other one, per unit of precision.

    The log likelihood in row i of F is F_i · P_i - ½ F_i Q_i F_iᵀ up to a constant.
    """

    P: Tensor  # (C, R, K)
    Q: Tensor  # (C, K, K), shared by the rows, or (C, R, K, K)

    def weighted(self, weight: Tensor) -> Statistics:
        """Both times β / σ² (C,), as a conditional wants them."""
        w = weight[..., None, None]
        return Statistics(self.P * w, self.Q * (w if self.Q.ndim == self.P.ndim else w[..., None]))


class Matrix(Protocol):
    """Data X (N, D), read by row blocks whose borders depend on the shape alone."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def n_observed(self) -> int: ...
    @property
    def sum_of_squares(self) -> float:
        """Σ x² over the observed entries, each over its relative noise variance."""
        ...

    @property
    def log_noise(self) -> float:
        """Σ log v over the observed entries, v their known relative noise variances; 0 where all are 1."""
        ...

    @property
    def n_negative(self) -> int:
        """How many observed entries are negative."""
        ...

    @property
    def least(self) -> float:
        """The least entry."""
        ...

    def mean(self) -> float:
        """Mean of the observed entries."""
        ...

    def variance(self) -> float:
        """Mean of the squared deviations of the observed entries, each over its relative noise variance."""
        ...

    def part(self, rows: range) -> Any:
        """Some of the rows in memory, a `ppnmf.data.dense.Dense`."""
        ...

    def filled(self) -> Tensor:
        """X (N, D) in memory, a missing entry as its column's observed mean."""
        ...

    @property
    def blocks(self) -> list[range]: ...

    @property
    def plain(self) -> Tensor | None:
        """The values (1, N, D) where they are all there is to know and lie in memory, for sweeps compiled whole."""
        ...

    def prepare(self, H: Tensor) -> Statistics:
        """What the row blocks share, given H (C, K, D)."""
        ...

    def row_statistics(self, rows: range, shared: Statistics) -> Statistics:
        """P = X Hᵀ and Q = H Hᵀ for a block of rows of W."""
        ...

    def column_statistics(self, rows: range, W: Tensor) -> Statistics:
        """P = Xᵀ W and Q = Wᵀ W over a block of rows, W (C, B, K); sum them over the blocks."""
        ...

    def residual_sum_of_squares(self, rows: range, W: Tensor, H: Tensor) -> Tensor:
        """Σ (x - (WH))² over the observed entries of a block, float64, shape (C,)."""
        ...
