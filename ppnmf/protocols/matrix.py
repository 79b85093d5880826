"""What a data matrix must offer to a sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

__all__ = ["Matrix", "Params", "Statistics"]


Result = TypeVar("Result")
Item = TypeVar("Item")
Params = Mapping[str, Tensor]  # site name -> values; the chain axis C, where there is one, leads


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

    @property
    def noise(self) -> Any:
        """Known relative noise variances (`ppnmf.data.noise.Noise`), or None where all are 1."""
        ...

    @property
    def uneven(self) -> bool:
        """Whether the entries of a row have different weights: some are missing, or noise is not one a row."""
        ...

    @property
    def plain(self) -> Tensor | None:
        """The values (1, N, D) where they are all there is to know and lie in memory, for sweeps compiled whole."""
        ...

    @property
    def masked(self) -> tuple[Tensor, Tensor] | None:
        """The same where some entries are missing: the values, zero there, and what is observed, (N, D)."""
        ...

    @property
    def kept(self) -> dict[str, Any]:
        """What functions have made of it and want again at the next sweep."""
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

    # By blocks: `ppnmf.data.folded.Folded` offers these to any kind of X

    @property
    def blocks(self) -> list[range]:
        """The rows of each block, by their numbers in this process."""
        ...

    @property
    def nothing(self) -> Any:
        """A block without rows, of the kind of the others."""
        ...

    def by_block(self, function: Callable[[range, Any], Result], operations: float = 0.0) -> list[Result]:
        """function(rows, block) of every block in this process."""
        ...

    def fold(self, function: Callable[[range, Any], Result], operations: float = 0.0) -> Result:
        """Σ function(rows, block) over the blocks of all processes, of tensors or of NamedTuples of tensors."""
        ...

    def fold_here(
        self, function: Callable[[range, Any, Item], Result], items: Sequence[Item], operations: float = 0.0
    ) -> list[Result]:
        """For each of some items Σ function(rows, block, item) over this process's blocks."""
        ...

    def of_chain(self, c: int) -> Any:
        """The matrix of a chain: this one, unless each chain has its own, as where samplers are proved."""
        ...

    # Over processes: of an X in one process these are all its rows, itself, what was given, and None

    @property
    def rows(self) -> range:
        """The numbers of this process's rows in the whole."""
        ...

    @property
    def here(self) -> Any:
        """This process's rows, a `Matrix` by themselves."""
        ...

    def add_up(self, sums: Result) -> Result:
        """The sum over all processes of a tensor, or of a NamedTuple of tensors, that each has of its own rows."""
        ...

    @property
    def gather(self) -> Callable[[Tensor], Tensor] | None:
        """What gives all processes' tensors, (processes, *shape), where there are several."""
        ...
