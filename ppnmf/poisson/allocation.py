"""The counts of a block of X, and which components they came from: the sums that the factors' conditionals want.

Given the factors, X_ij is divided among the components by a multinomial with probabilities ∝ W_ik H_kj. Of the parts Z_ijk only
Σ_j Z (B, K) and Σ_i Z (D, K) are ever formed, in time that grows with the non-zero counts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppnmf.data.dense import Dense
from ppnmf.kernels import counts as compiled
from ppnmf.kernels import counts_reference, kernels_for, reference
from ppnmf.kernels import gammas as compiled_gammas
from ppnmf.rng import Site, Stream

__all__ = ["Counts", "Place", "Shares", "allocated", "counts_of", "expected", "gamma_draws", "is_compiled", "log_means"]

NONE = np.empty(0)


class Counts(NamedTuple):
    """The counts that a block stores, a row after the other."""

    data: Tensor  # (M,), float64
    columns: Tensor  # (M,), int32
    starts: Tensor  # (B + 1,), int64

    @property
    def rows(self) -> Tensor:
        """The row of each in the block, (M,)."""
        lengths = self.starts.diff()
        return torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)

    @property
    def log_factorials(self) -> Tensor:
        """Σ log x!, ()."""
        return torch.lgamma(self.data + 1).sum()

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What compiled functions take."""
        return self.data.numpy(), self.columns.numpy(), self.starts.numpy()


Known = tuple[Tensor | None, Tensor | None, Tensor | None]  # the exposures of rows, of columns and of places


class Place(NamedTuple):
    """Where the random numbers of a block of a chain are."""

    stream: Stream
    chain: int
    step: int
    first_row: int


class Shares(NamedTuple):
    """How many events, or how many in expectation, each component has in each row (B, K) and in each column (D, K)."""

    of_rows: Tensor
    of_columns: Tensor


def counts_of(block: Any, chain: int = 0) -> Counts:
    """The counts of a block; of one with a matrix for each chain, that chain's. Kept with the block."""
    several = isinstance(block, Dense) and block.values.ndim == 3
    name = f"counts {chain if several else 0}"
    kept: dict[str, Counts] = block.kept
    if name not in kept:
        if isinstance(block, Dense):
            kept[name] = _of_dense(block.values[chain] if several else block.values)
        else:
            kept[name] = _of_sparse(block)
    return kept[name]


def _of_dense(values: Tensor) -> Counts:
    row, column = values.nonzero(as_tuple=True)
    starts = torch.zeros(len(values) + 1, dtype=torch.int64, device=values.device)
    starts[1:] = torch.bincount(row, minlength=len(values)).cumsum(0)
    return Counts(values[row, column].double(), column.int(), starts)


def _of_sparse(block: Any) -> Counts:
    data, indices, indptr = block.stored
    return Counts(data.double(), indices.int(), indptr.long())


def allocated(counts: Counts, W: Tensor, Ht: Tensor, place: Place) -> Shares:
    """A draw of the shares, from the block's rows of W (B, K) and Hᵀ (D, K), float64."""
    shares = _nothing(W, Ht)
    if is_compiled(W):
        address = (*place.stream.keys[place.chain], place.step, place.first_row)
        compiled.allocate(*counts.arrays(), W.numpy(), Ht.numpy(), address, *(part.numpy() for part in shares))
        return shares
    rows, columns = counts.rows, counts.columns.long()
    cells = counts_reference.Cells(place.stream, place.chain, place.step, Site.COUNTS, rows + place.first_row, columns)
    parts = counts_reference.allocated(counts.data, W[rows], Ht[columns], cells)
    return Shares(shares.of_rows.index_add(0, rows, parts), shares.of_columns.index_add(0, columns, parts))


def expected(counts: Counts, W: Tensor, Ht: Tensor, columns: bool = True) -> Shares:
    """The expectation of the shares; without those of the columns where they are not asked for."""
    shares = _nothing(W, Ht if columns else Ht[:0])
    if is_compiled(W):
        compiled.expect(*counts.arrays(), W.numpy(), Ht.numpy(), *(part.numpy() for part in shares))
        return shares
    rows, places = counts.rows, counts.columns.long()
    weights = W[rows] * Ht[places]
    total = weights.sum(1, keepdim=True)
    parts = counts.data[:, None] * torch.where(total > 0, weights / total, torch.zeros_like(weights))
    of_columns = shares.of_columns.index_add(0, places, parts) if columns else shares.of_columns
    return Shares(shares.of_rows.index_add(0, rows, parts), of_columns)


def log_means(counts: Counts, W: Tensor, Ht: Tensor, exposures: Known) -> float:
    """Σ x log(e w·h) over the counts, e the product of what rows (B,), columns (D,) and stored places (M,) are exposed to."""
    if is_compiled(W):
        known = (NONE if own is None else own.contiguous().numpy() for own in exposures)
        return float(compiled.log_means(*counts.arrays(), W.numpy(), Ht.numpy(), *known))
    rows, columns = counts.rows, counts.columns.long()
    mean = (W[rows] * Ht[columns]).sum(1)
    places: tuple[Any, ...] = (rows, columns, slice(None))
    for own, at in zip(exposures, places, strict=True):
        mean = mean if own is None else mean * own[at]
    return float(torch.xlogy(counts.data, mean).sum())


def gamma_draws(shape: Tensor, rate: Tensor, place: Place, site: Site, least: float = 0.0) -> Tensor:
    """Draws of Gamma(shape, rate), at least `least`: shape (R, K), rate (R, K) or (1, K), float64."""
    if is_compiled(shape):
        out = torch.empty(shape.shape, dtype=torch.float64)
        address = (*place.stream.keys[place.chain], place.step, int(site), place.first_row)
        compiled_gammas.gammas(shape.contiguous().numpy(), rate.contiguous().numpy(), address, least, out.numpy())
        return out
    return counts_reference.gammas(shape, rate, place.stream, place.chain, place.step, site, place.first_row, least)


def _nothing(W: Tensor, Ht: Tensor) -> Shares:
    return Shares(
        torch.zeros(W.shape, dtype=W.dtype, device=W.device), torch.zeros(Ht.shape, dtype=W.dtype, device=W.device)
    )


def is_compiled(F: Tensor) -> bool:
    """Whether what works on this tensor is compiled."""
    return F.device.type == "cpu" and kernels_for(F.device) is not reference
