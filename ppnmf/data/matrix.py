"""Data matrices: input is checked here, once; inside, every method reads X through the `Matrix` protocol."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppnmf.protocols import Statistics
from ppnmf.threads import single_threaded

__all__ = ["Dense", "as_mask", "as_matrix", "as_tensor"]

BLOCK_ENTRIES = 2**18  # entries of X in a row block: 2 MB of float64, which stays in cache while its chains read it


@dataclass(frozen=True, eq=False)
class Dense:
    """A dense matrix in memory, some of its entries perhaps missing.

    Args:
        values: shape (N, D), zero where an entry is missing; make one with `as_matrix`.
        mask: boolean (N, D), True where observed, or None when everything is.
    """

    values: Tensor
    mask: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.shape[0], self.values.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        return self.values.device

    @cached_property
    def n_observed(self) -> int:
        return self.values.numel() if self.mask is None else int(self.mask.sum())

    @cached_property
    def sum_of_squares(self) -> float:
        with single_threaded():
            return float(sum(self.values[rows.start : rows.stop].double().square().sum() for rows in self.blocks))

    @property
    def log_noise(self) -> float:
        return 0.0

    @cached_property
    def blocks(self) -> list[range]:
        N, D = self.shape
        size = N if self.device.type == "cuda" else max(1, BLOCK_ENTRIES // D)
        return [range(start, min(start + size, N)) for start in range(0, N, size)]

    @cached_property
    def plain(self) -> Tensor | None:
        """The values (1, N, D) where they are all there is to know and lie in memory, for sweeps compiled whole."""
        return self.values[None] if self.mask is None and self.device.type == "cpu" else None

    def mean(self) -> float:
        """Mean of the observed entries."""
        with single_threaded():
            return float(self.values.double().sum()) / self.n_observed

    def variance(self) -> float:
        """Variance of the observed entries."""
        deviations = self.values.double() - self.mean()
        if self.mask is not None:
            deviations = deviations * self.mask
        with single_threaded():
            return float(deviations.square().sum()) / self.n_observed

    def column_means(self) -> Tensor:
        """Mean of the observed entries of each column, shape (D,); the overall mean where a column has none."""
        overall = torch.as_tensor(self.mean(), dtype=self.dtype, device=self.device)
        with single_threaded():
            if self.mask is None:
                return self.values.mean(0)
            count = self.mask.sum(0)
            return torch.where(count > 0, self.values.sum(0) / count.clamp(min=1), overall)

    def filled(self) -> Tensor:
        """The values, a missing entry as its column's observed mean."""
        return self.values if self.mask is None else torch.where(self.mask, self.values, self.column_means())

    def hide(self, kept: Tensor) -> Dense:
        """The same data with only the entries that are True in `kept` (N, D) observed."""
        mask = kept if self.mask is None else self.mask & kept
        return Dense(torch.where(mask, self.values, torch.zeros_like(self.values)), mask)

    @cached_property
    def _weights(self) -> Tensor | None:
        return None if self.mask is None else self.mask.to(self.dtype)

    def prepare(self, H: Tensor) -> Statistics:
        return Statistics(H, H @ H.mT if self.mask is None else _products(H))

    def row_statistics(self, rows: range, shared: Statistics) -> Statistics:
        H, block = shared.P, slice(rows.start, rows.stop)
        P = _times(H, self.values[block].mT).mT
        if self._weights is None:
            return Statistics(P, shared.Q)
        return Statistics(P, _unpacked(_times(shared.Q, self._weights[block].mT), H.shape[-2]))

    def column_statistics(self, rows: range, W: Tensor) -> Statistics:
        Wt, block = W.mT, slice(rows.start, rows.stop)
        P = _times(Wt, self.values[block]).mT
        if self._weights is None:
            return Statistics(P, Wt @ W)
        return Statistics(P, _unpacked(_times(_products(Wt), self._weights[block]), W.shape[-1]))

    def residual_sum_of_squares(self, rows: range, W: Tensor, H: Tensor) -> Tensor:
        residual = self.values[rows.start : rows.stop].double() - W.double() @ H.double()
        if self._weights is not None:
            residual = residual * self._weights[rows.start : rows.stop]
        return residual.square().sum((-2, -1))


def _times(A: Tensor, B: Tensor) -> Tensor:
    """A (C, R, S) @ B (S, T), each chain's product by itself: its bits do not depend on how many others there are.

    The few components lead and the many rows or columns of X come last, in the products here as in what is made of
    them: the other way round a product took up to 30 times as long, and the kernels want components a row.
    """
    return torch.bmm(A, B.expand(len(A), -1, -1))


def _products(F: Tensor) -> Tensor:
    """Products of the pairs of rows of F (C, K, R), shape (C, K (K + 1) / 2, R)."""
    i, j = torch.triu_indices(F.shape[-2], F.shape[-2], device=F.device)
    return F[:, i] * F[:, j]


def _unpacked(packed: Tensor, K: int) -> Tensor:
    """A symmetric matrix for each row, (C, R, K, K), from their upper triangles (C, K (K + 1) / 2, R)."""
    i, j = torch.triu_indices(K, K, device=packed.device)
    place = torch.empty(K, K, dtype=torch.int64, device=packed.device)
    place[i, j] = place[j, i] = torch.arange(len(i), device=packed.device)
    return packed[:, place.flatten()].unflatten(1, (K, K)).permute(0, 3, 1, 2)


def as_matrix(X: Any, mask: Any = None, missing: str = "error", device: torch.device | str | None = None) -> Dense:
    """Check X and its mask, and make them a `Dense`.

    Args:
        X: (N, D): NumPy array, torch tensor, SciPy sparse matrix, nested sequences, or a `Dense`. Floating input keeps
            its dtype (half precision becomes float32) and, where it can, its memory; whole numbers become float64.
        mask: boolean (N, D), True where observed; what lies under False, NaN too, is never read.
        missing: "error", or "nan": NaN entries count as missing.
        device: where to work; X's own device by default.

    Raises:
        ValueError: X is not a non-empty finite matrix, or the mask does not fit. NaN entries are an error unless the
            mask hides them or `missing="nan"`. A row or column with nothing observed is a warning.
    """
    if missing not in ("error", "nan"):
        raise ValueError(f"missing is {missing!r}; it must be 'error' or 'nan'")
    if isinstance(X, Dense):
        hidden_too = X if mask is None else X.hide(as_mask(mask, X.values))
        X, mask = hidden_too.values, hidden_too.mask
    values = as_tensor(X).to(device=device)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(
            f"X has shape {tuple(values.shape)}; a matrix (N, D) with at least one row and column is needed"
        )
    observed = None if mask is None else as_mask(mask, values)
    nan = values.isnan()
    if missing == "nan" and bool(nan.any()):
        observed = ~nan if observed is None else observed & ~nan
    if observed is not None and bool(observed.all()):
        observed = None
    if observed is not None:
        values = torch.where(observed, values, torch.zeros_like(values))
    _refuse_non_finite(values)
    if observed is not None:
        _check_observed(observed)
    data = Dense(values.contiguous(), observed)
    _check_scale(data)
    return data


def _check_scale(data: Dense) -> None:
    """Variances are of the order of the mean square and are divided by: neither may leave the type's range."""
    mean_square, most = data.sum_of_squares / data.n_observed, torch.finfo(data.dtype).max ** 0.95
    if mean_square and not 1 / most < mean_square < most:
        raise ValueError(
            f"X has mean square {mean_square:.3g}, too far from 1 for {data.dtype}: scale X, or pass it in double precision"
        )


def as_tensor(X: Any) -> Tensor:
    """X as a tensor of its own floating type, whole numbers as float64; what is no array of real numbers is refused."""
    if isinstance(X, np.ma.MaskedArray):
        raise ValueError("X is a masked array; pass X.data, and mask=~X.mask (True where observed)")
    if hasattr(X, "toarray"):
        X = X.toarray()  # SciPy sparse: its zeros are observed
    if not isinstance(X, Tensor):
        array = np.asarray(X)
        if array.dtype.kind not in "fiub":
            raise ValueError(f"X has entries of type {array.dtype}; real numbers are needed")
        if array.dtype.kind == "f" and (array.dtype.itemsize > 8 or not array.dtype.isnative):
            array = array.astype(np.float64 if array.dtype.itemsize > 8 else array.dtype.newbyteorder("="))
        if array.dtype.kind in "iu":
            array = array.astype(np.float64)
        X = torch.from_numpy(np.array(array, order="C", copy=None if array.flags.writeable else True))
    if X.layout != torch.strided:
        X = X.to_dense()
    if X.is_complex():
        raise ValueError(f"X has entries of type {X.dtype}; real numbers are needed")
    if not X.is_floating_point():
        return X.detach().double()
    return X.detach().float() if X.dtype in (torch.float16, torch.bfloat16) else X.detach()


def as_mask(mask: Any, values: Tensor) -> Tensor:
    """The mask as a boolean tensor beside `values`, of their shape."""
    observed = torch.as_tensor(np.asarray(mask) if not isinstance(mask, Tensor) else mask)
    if observed.dtype != torch.bool:
        raise ValueError(f"mask has entries of type {observed.dtype}; booleans are needed, True where observed")
    if observed.shape != values.shape:
        raise ValueError(f"mask has shape {tuple(observed.shape)} and X has {tuple(values.shape)}; they must be equal")
    return observed.to(values.device)


def _refuse_non_finite(values: Tensor) -> None:
    if bool(values.isfinite().all()):
        return
    nan, inf = int(values.isnan().sum()), int(values.isinf().sum())
    if nan:
        raise ValueError(
            f"X has {nan} NaN entries; if they are missing, say so with missing='nan' or a mask (True where observed)"
        )
    raise ValueError(f"X has {inf} infinite entries; finite numbers are needed: check the input, or mask them")


def _check_observed(observed: Tensor) -> None:
    if not bool(observed.any()):
        raise ValueError("no entry of X is observed; at least one is needed")
    rows, columns = int((~observed.any(1)).sum()), int((~observed.any(0)).sum())
    if rows or columns:
        what = " and ".join(f"{n} {name}" for n, name in ((rows, "row(s)"), (columns, "column(s)")) if n)
        warnings.warn(f"{what} of X have nothing observed: their factors follow the prior alone", stacklevel=4)
