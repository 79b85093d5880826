"""The counts of a block of X, and which components they came from: the sums that the factors' conditionals want.

Given the factors, X_ij is divided among the components by a multinomial with probabilities ∝ W_ik H_kj. Of the parts Z_ijk only
Σ_j Z (B, K) and Σ_i Z (D, K) are ever formed, in time that grows with the non-zero counts.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppnmf.data.dense import Dense
from ppnmf.kernels import binomial as compiled_binomial
from ppnmf.kernels import counts as compiled
from ppnmf.kernels import counts_reference, kernels_for, reference
from ppnmf.kernels import gammas as compiled_gammas
from ppnmf.rng import Site, Stream

__all__ = [
    "Counts",
    "Known",
    "Place",
    "Shares",
    "allocated",
    "counts_of",
    "expected",
    "gamma_draws",
    "is_compiled",
    "log_means",
    "thinned",
]

NONE = np.empty(0)
TINY = 1e-280  # stands for a mean that is zero
MOST = 0.2  # of the entries not zero, from where on products of whole matrices are quicker than those of the counts
Known = tuple[Tensor | None, Tensor | None, Tensor | None]  # the exposures of rows, of columns and of places


class Counts(NamedTuple):
    """The counts that a block stores, a row after the other, of a matrix for all chains or of one for each."""

    data: Tensor  # (M,), float64
    columns: Tensor  # (M,), int32
    starts: Tensor  # (1 | C, B + 1), int64
    dense: Tensor | None = None  # the same (B, D), float64, where most are not zero and all chains have them

    def of(self, chain: int) -> Counts:
        """Those of one chain, whose starts count from 0."""
        own = self.starts[chain if len(self.starts) > 1 else 0]
        span = slice(int(own[0]), int(own[-1]))
        return Counts(self.data[span], self.columns[span], (own - own[0])[None], self.dense)

    def with_data(self, data: Tensor) -> Counts:
        """Other counts in the same places."""
        return Counts(data, self.columns, self.starts)

    @property
    def rows(self) -> Tensor:
        """The row of each in the block, (M,), of a single matrix."""
        lengths = self.starts[0].diff()
        return torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)

    @property
    def log_factorials(self) -> Tensor:
        """Σ log x!, (1 | C,)."""
        if len(self.starts) == 1:
            return torch.lgamma(self.data + 1).sum()[None]
        return torch.cat([self.of(c).log_factorials for c in range(len(self.starts))])

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What compiled functions take."""
        return self.data.numpy(), self.columns.numpy(), self.starts.numpy()


class Place(NamedTuple):
    """Where the random numbers of a block of some chains are."""

    stream: Stream
    step: int
    first_row: int


class Shares(NamedTuple):
    """How many events, or how many in expectation, each component has in each row (C, B, K) and in each column (C, D, K)."""

    of_rows: Tensor
    of_columns: Tensor


def counts_of(block: Any, chains: slice = slice(None)) -> Counts:
    """The counts of a block; of one with a matrix for each chain, those chains'. Kept with the block."""
    if "counts" not in block.kept:
        block.kept["counts"] = _of_dense(block.values) if isinstance(block, Dense) else _of_sparse(block)
    counts: Counts = block.kept["counts"]
    return counts if len(counts.starts) == 1 else counts._replace(starts=counts.starts[chains])


def _of_dense(values: Tensor) -> Counts:
    *_, B, D = values.shape
    row, column = values.reshape(-1, D).nonzero(as_tuple=True)
    ends = torch.bincount(row, minlength=values.numel() // D).cumsum(0).reshape(-1, B)
    before = torch.cat([ends.new_zeros(1), ends[:-1, -1]])[:, None]
    most = values.ndim == 2 and len(row) >= MOST * values.numel()
    dense = values.double().contiguous() if most else None
    return Counts(values.reshape(-1, D)[row, column].double(), column.int(), torch.cat([before, ends], 1), dense)


def _of_sparse(block: Any) -> Counts:
    data, indices, indptr = block.stored
    return Counts(data.double(), indices.int(), indptr.long()[None])


def allocated(counts: Counts, W: Tensor, Ht: Tensor, place: Place) -> Shares:
    """A draw of the shares, from the block's rows of W (C, B, K) and Hᵀ (C, D, K), float64."""
    shares = _nothing(W, Ht)
    if is_compiled(W):
        address = (_keys(place.stream), place.step, place.first_row)
        compiled.allocate(*counts.arrays(), W.numpy(), Ht.numpy(), *address, *(part.numpy() for part in shares))
        return shares
    for c in range(len(W)):
        own = counts.of(c)
        rows, columns = own.rows, own.columns.long()
        at = (place.stream, c, place.step, Site.COUNTS, rows + place.first_row, columns)
        parts = counts_reference.allocated(own.data, W[c, rows], Ht[c, columns], counts_reference.Cells(*at))
        shares.of_rows[c].index_add_(0, rows, parts)
        shares.of_columns[c].index_add_(0, columns, parts)
    return shares


def expected(counts: Counts, W: Tensor, Ht: Tensor, columns: bool = True) -> Shares:
    """The expectation of the shares; without those of the columns where they are not asked for."""
    if counts.dense is not None:
        return _expected_of_all(counts.dense, W, Ht, columns)
    shares = _nothing(W, Ht if columns else Ht[:, :0])
    if is_compiled(W):
        compiled.expect(*counts.arrays(), W.numpy(), Ht.numpy(), *(part.numpy() for part in shares))
        return shares
    for c in range(len(W)):
        own = counts.of(c)
        rows, places = own.rows, own.columns.long()
        weights = W[c, rows] * Ht[c, places]
        total = weights.sum(1, keepdim=True)
        parts = own.data[:, None] * torch.where(total > 0, weights / total, torch.zeros_like(weights))
        shares.of_rows[c].index_add_(0, rows, parts)
        if columns:
            shares.of_columns[c].index_add_(0, places, parts)
    return shares


def _expected_of_all(values: Tensor, W: Tensor, Ht: Tensor, columns: bool) -> Shares:
    """The same by products of whole matrices, a chain at a time: what a chain gets is then the same among others."""
    each = [_expected_of_one(values, own, other, columns) for own, other in zip(W, Ht, strict=True)]
    if len(each) == 1:
        return Shares(*(part[None] for part in each[0]))
    of_rows, of_columns = zip(*each, strict=True)
    return Shares(torch.stack(of_rows), torch.stack(of_columns))


def _expected_of_one(values: Tensor, W: Tensor, Ht: Tensor, columns: bool) -> tuple[Tensor, Tensor]:
    ratio = (W @ Ht.mT).clamp_(min=TINY)  # where the mean is zero no component has a share: 0 times a number
    torch.div(values, ratio, out=ratio)
    return W * (ratio @ Ht), Ht * (W.mT @ ratio).mT if columns else Ht[:0]


def log_means(counts: Counts, W: Tensor, Ht: Tensor, known: Known) -> Tensor:
    """Σ x log(e w·h) over the counts, (C,), e the product of what rows (B,), columns (D,) and places (M,) are exposed to."""
    if counts.dense is not None and known[2] is None:
        pairs = zip(W, Ht, strict=True)
        return torch.stack([_log_means_of_all(counts.dense, own, other, known) for own, other in pairs])
    if is_compiled(W):
        out = torch.empty(len(W), dtype=torch.float64)
        exposures = (NONE if own is None else own.contiguous().numpy() for own in known)
        compiled.log_means(*counts.arrays(), W.numpy(), Ht.numpy(), *exposures, out.numpy())
        return out
    return torch.stack([_log_means(counts, c, W[c], Ht[c], known) for c in range(len(W))])


def _log_means_of_all(values: Tensor, W: Tensor, Ht: Tensor, known: Known) -> Tensor:
    """Of one chain, by a product of whole matrices."""
    rows, columns, _ = known
    mean = (W if rows is None else rows[:, None] * W) @ (Ht if columns is None else columns[:, None] * Ht).mT
    return torch.xlogy(values, mean).sum()


def _log_means(counts: Counts, chain: int, W: Tensor, Ht: Tensor, known: Known) -> Tensor:
    own = counts.of(chain)
    rows, columns = own.rows, own.columns.long()
    start = int(counts.starts[chain if len(counts.starts) > 1 else 0, 0])
    places: tuple[Any, ...] = (rows, columns, slice(start, start + len(rows)))
    mean = (W[rows] * Ht[columns]).sum(1)
    for values, at in zip(known, places, strict=True):
        mean = mean if values is None else mean * values[at]
    return torch.xlogy(own.data, mean).sum()


def gamma_draws(shape: Tensor, rate: Tensor, place: Place, site: Site, least: float = 0.0) -> Tensor:
    """Draws of Gamma(shape, rate), at least `least`: shape (C, R, K), rate (C, R, K) or (C, 1, K), float64."""
    if is_compiled(shape):
        out = torch.empty(shape.shape, dtype=torch.float64)
        address = (place.step, int(site), place.first_row)
        given = (values.contiguous().numpy() for values in (shape, rate))
        compiled_gammas.gammas(*given, _keys(place.stream), address, least, out.numpy())
        return out
    at = (place.step, site, place.first_row, least)
    each = [counts_reference.gammas(shape[c], rate[c], place.stream, c, *at) for c in range(len(shape))]
    return torch.stack(each)


def thinned(counts: Counts, share: float, place: Place) -> Tensor:
    """How many events of each count of a single matrix stay, each with this probability, (M,)."""
    if is_compiled(counts.data):
        out = torch.empty_like(counts.data)
        address = (*place.stream.keys[0], place.step, int(Site.THINNING), place.first_row)
        data, places, starts = counts.arrays()
        compiled_binomial.thinned(data, places, starts[0], share, address, out.numpy())
        return out
    rows, columns = counts.rows + place.first_row, counts.columns.long()
    cells = counts_reference.Cells(place.stream, 0, place.step, Site.THINNING, rows, columns)
    some = (counts.data > 0).nonzero()[:, 0]
    n = counts.data[some]
    drawn = counts_reference.binomials(n, torch.full_like(n, min(share, 1 - share)), cells, some)
    return torch.zeros_like(counts.data).index_put((some,), drawn if share <= 0.5 else n - drawn)


def _nothing(W: Tensor, Ht: Tensor) -> Shares:
    of_rows, of_columns = (torch.zeros(F.shape, dtype=W.dtype, device=W.device) for F in (W, Ht))
    return Shares(of_rows, of_columns)


@lru_cache(maxsize=16)
def _keys(stream: Stream) -> np.ndarray:
    return np.array(stream.keys, dtype=np.int64)


def is_compiled(F: Tensor) -> bool:
    """Whether what works on this tensor is compiled."""
    return F.device.type == "cpu" and kernels_for(F.device) is not reference
