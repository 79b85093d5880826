"""What a model may offer to a method, and what a data matrix must offer to a sweep.

A method asks for an ability (`Conjugate`, `Amortised`) and never for a class; a model that lacks it is refused with a
`TypeError` that names the ability.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self, runtime_checkable

import torch
from torch import Tensor
from torch.distributions import Distribution

if TYPE_CHECKING:
    from ppnmf.distributions import RectifiedNormal

__all__ = ["Amortised", "Conjugate", "Matrix", "Model", "Params", "Proposal", "Statistics"]

Params = Mapping[str, Tensor]  # site name -> values; the chain axis C, where there is one, leads


@runtime_checkable
class Model(Protocol):
    """A generative story for X (N, D) ≈ W (N, K) @ H (K, D), written as a Pyro program."""

    name: ClassVar[str]
    accepts_negative: ClassVar[bool]

    @property
    def rank(self) -> int: ...

    def __call__(
        self, X: Tensor | None = None, mask: Tensor | None = None, *, shape: tuple[int, int] | None = None
    ) -> Tensor:
        """Run the Pyro program: observe X (N, D), or draw X of the given shape from the prior. Returns X."""
        ...

    def config(self) -> dict[str, Any]:
        """The constructor's arguments: `type(model)(**model.config())` rebuilds the model."""
        ...

    def likelihood(self, params: Params) -> Distribution:
        """The distribution of X given the factors, batch shape (*C, N, D)."""
        ...


@runtime_checkable
class Conjugate(Model, Protocol):
    """A Gaussian likelihood whose factors have `RectifiedNormal` priors: Gibbs, ICM, Chib and SMC need no more."""

    @property
    def noise_shape(self) -> float: ...

    @property
    def noise_scale(self) -> float: ...

    def require_proper(self) -> None:
        """Raise ValueError when a prior is improper."""
        ...

    def require_fits(self, shape: tuple[int, int]) -> None:
        """Raise ValueError when the priors are not for X of this shape."""
        ...

    def prior(self, site: str) -> RectifiedNormal:
        """Prior of the factor `site`, broadcastable to W (N, K) or H (K, D)."""
        ...

    def log_prior(self, params: Params) -> Tensor:
        """log p(W, H, σ²), shape (*C,)."""
        ...

    def log_likelihood(self, sum_of_squares: Tensor, sigma2: Tensor, observed: int) -> Tensor:
        """log p(X | W, H, σ²) from the residual sum of squares over the observed entries, shape (*C,)."""
        ...

    def conditional(
        self, site: str, params: Params, X: Matrix, component: int | None = None, power: float = 1.0
    ) -> Distribution:
        """p(site | rest, X^power); of a factor, its component's column of W or row of H."""
        ...


@runtime_checkable
class Amortised(Model, Protocol):
    """A `torch.nn.Module` with an encoder: its guide maps a row of X to a distribution of that row of W.

    Training asks for what stands here up to `project`, and for the parameters H (K, D) and sigma2 once there are
    weights; the rest is what is done with a fitted model. X is a tensor, checked before, zero where missing; only
    `encode` takes it in whatever form a user has it.
    """

    @property
    def is_initialised(self) -> bool:
        """Whether it has weights."""
        ...

    def initialise(self, X: Any, seed: int = 0) -> Self:
        """Give it weights for data X, a `ppnmf.data.dense.Dense`, to start the training from."""
        ...

    def guide(self, X: Tensor, mask: Tensor | None = None) -> Tensor:
        """The guide as a Pyro program."""
        ...

    def coordinates(self, X: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the encoder reads of X (N, D), which training does not change: (N, C)."""
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

    def double(self) -> Self:
        """Itself with parameters in float64, in place."""
        ...


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
