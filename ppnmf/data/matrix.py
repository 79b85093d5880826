"""Data matrices: input is checked here, once; inside, every method reads X through the `Matrix` protocol."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppnmf.checks import borrowed, described, plain, require_device
from ppnmf.data.blocked import Blocked, survey, warn_of_nothing_observed
from ppnmf.data.containers import BOOLEANS, opened
from ppnmf.data.dense import Dense, in_memory, without_noise
from ppnmf.data.labelled import NO_NAMES, beside, noise_beside
from ppnmf.data.noise import Noise, as_noise
from ppnmf.data.sources import Source, source_of
from ppnmf.data.sparse import Rows, Sparse
from ppnmf.protocols import Matrix
from ppnmf.settings import own_settings
from ppnmf.threads import single_threaded

__all__ = ["Blocked", "Dense", "Sparse", "as_mask", "as_matrix", "as_tensor", "in_dtype", "in_memory", "without_noise"]

MISSING = ("error", "nan", "unstored")


@own_settings()
def as_matrix(
    X: Any, mask: Any = None, missing: str = "error", device: torch.device | str | None = None, noise: Any = None
) -> Any:
    """Check X, its mask and its noise, and make them the kind of `Matrix` that X's own kind asks for.

    ============================================  ==========================================================================
    X                                             becomes
    ============================================  ==========================================================================
    NumPy array, torch tensor, nested sequences   `Dense`: in memory
    SciPy or torch sparse                         `Sparse`: what is not stored is an observed zero; nothing N × D is made
    the same with missing="unstored"              `Sparse`: only what is stored is observed, zeros too (ratings)
    np.memmap, Zarr array, the path of either     `Blocked`: read from disk a block of rows at a time
    pandas, polars, xarray, AnnData ...           what its values are; the names stay (`ppnmf.data.containers.opened`)
    a `Matrix`                                    itself
    ============================================  ==========================================================================

    A mask or noise in such a container is matched with X by the names of rows and columns, whatever their order.

    Args:
        X: (N, D). Floating input keeps its dtype (half precision becomes float32) and, where it can, its memory; whole
            numbers become float64. A sparse matrix with a mask that is not sparse is as large as the mask, and becomes
            `Dense`.
        mask: boolean (N, D), True where observed; what lies under False, NaN too, is never read. Of a sparse X it may
            be sparse (entries that are stored and True are observed: X becomes `Stored`); of one on disk, a memory map.
            None: that of a `Dataset`, which has one of its own; else everything is observed.
        missing: "error"; "nan": NaN entries count as missing; "unstored": so do entries that a sparse X does not store.
        device: where to work; X's own device by default.
        noise: known relative noise variances v, X_ij ~ Normal((WH)_ij, σ² v_ij): (D,) one a column, (N, 1) one a row,
            (N, D) one an entry; a pandas Series goes by its index. None: all are one.

    Raises:
        ValueError: X is not a non-empty finite matrix, or the mask or the noise do not fit. NaN entries are an error
            unless the mask hides them or `missing="nan"`. A row or column with nothing observed is a warning. A mask or
            noise has other names than X.
        FileNotFoundError: X is a path and there is no such file.
    """
    if missing not in MISSING:
        raise ValueError(f"missing is {missing!r}; it must be {', '.join(map(repr, MISSING[:-1]))} or {MISSING[-1]!r}")
    require_device("device", device)
    if isinstance(X, Tensor):
        require_device("X's device", X.device)
    given = opened("X", X)
    seen = given.mask if mask is None else beside("mask", opened("mask", mask, BOOLEANS), given)
    known = None if noise is None else noise_beside(opened("noise", noise), given)
    with single_threaded():  # so that no sum depends on how many threads there are
        data = _made(given.values, seen, missing, device, known)
    return data if data is X or given.names == NO_NAMES else replace(data, names=given.names)


def _made(X: Any, mask: Any, missing: str, device: Any, noise: Any) -> Any:
    if hasattr(X, "fold_here"):
        return _again(X, mask, missing, device, noise)
    if isinstance(X, Tensor) and X.layout != torch.strided:
        X, device = _scipy_of(X), device if device is not None else X.device
    data: Any
    if _is_sparse(X):
        data = _sparse(X, mask, missing, device, noise)
    elif missing == "unstored":
        raise ValueError(f"missing is 'unstored' and X is a {type(X).__name__}; it is for sparse matrices")
    elif isinstance(X, str | Path) or _is_mapped(X) or _is_zarr(X):
        data = _blocked(X, mask, missing, device, noise)
    else:
        data = _dense(X, mask, missing, device, noise)
    _check_scale(data)
    return data


def _again(X: Any, mask: Any, missing: str, device: Any, noise: Any) -> Any:
    """A `Matrix` with a further mask, with noise, on another device, where it can have them."""
    if missing == "unstored" and not (isinstance(X, Sparse) and X.missing):
        raise ValueError(
            f"missing is 'unstored' and X is a {type(X).__name__} already; give it to as_matrix with a SciPy matrix"
        )
    if mask is None and noise is None and device in (None, X.device, X.device.type):
        return X
    if isinstance(X, Dense):
        hidden_too = X if mask is None else X.hide(as_mask(mask, X.values))
        own = hidden_too.noise if noise is None else None
        data = _dense(hidden_too.values, hidden_too.mask, "nan" if missing == "nan" else "error", device, noise)
        return data if own is None else replace(data, noise=own.to(data.values))
    raise ValueError(
        f"X is a {type(X).__name__} already; give mask, noise and device to as_matrix where it is made from your data"
    )


def _dense(X: Any, mask: Any, missing: str, device: Any, noise: Any) -> Dense:
    values = as_tensor(X).to(device=device)
    _require_matrix(tuple(values.shape))
    observed = None if mask is None else as_mask(mask, values)
    if missing == "nan" and bool((nan := values.isnan()).any()):
        observed = ~nan if observed is None else observed & ~nan
    if observed is not None and bool(observed.all()):
        observed = None
    if observed is not None:
        values = torch.where(observed, values, torch.zeros_like(values))
    shape = (values.shape[0], values.shape[1])
    data = Dense(values.contiguous(), observed)
    _refuse_non_finite(values, data.extremes)
    if observed is not None:
        if not bool(observed.any()):
            raise ValueError("no entry of X is observed; at least one is needed")
        warn_of_nothing_observed(int((~observed.any(1)).sum()), int((~observed.any(0)).sum()))
    known = as_noise(noise, shape, values.dtype, values.device)
    return data if known is None else replace(data, noise=known)


def _sparse(X: Any, mask: Any, missing: str, device: Any, noise: Any) -> Dense | Sparse:
    _require_matrix(X.shape)
    if mask is not None and not _is_sparse(mask):
        if missing == "unstored":
            raise ValueError("X says by missing='unstored' what is observed; give a sparse mask, or none")
        return _dense(X.toarray(), mask, missing, device, noise)
    kept = _csr(X)
    if mask is not None:
        kept, hides_nan, missing = _masked(kept, mask, missing), missing == "nan", "unstored"
        kept = _without_nan(kept) if hides_nan else kept
    nan = np.isnan(kept.data)
    if missing == "nan" and nan.any():
        raise ValueError(
            f"X has {int(nan.sum())} NaN entries among those it stores; leave them out and pass missing='unstored' if what is "
            "not stored is missing too, or pass a dense array"
        )
    stored = torch.from_numpy(kept.data if kept.data.flags.writeable else kept.data.copy())
    if len(stored):
        _refuse_non_finite(stored, tuple(map(float, stored.aminmax())))
    rows, (N, D) = Rows.of(kept, device), kept.shape
    if missing != "unstored":
        known = as_noise(noise, (N, D), rows.data.dtype, rows.data.device)
        if known is not None and known.along == "entries":
            raise ValueError(
                "noise for every entry of a sparse X would be dense: give one a row or a column, or pass X as a dense array"
            )
        return Sparse(rows, (N, D), noise=known)
    if not len(rows.data):
        raise ValueError("no entry of X is observed; at least one is needed")
    warn_of_nothing_observed(int((np.diff(kept.indptr) == 0).sum()), D - len(np.unique(kept.indices)))
    return Sparse(rows, (N, D), True, _noise_of_stored(noise, kept, rows))


def _csr(X: Any) -> Any:
    """SciPy's CSR with float32 or float64 entries, its columns ascending and none twice; X itself where it is that."""
    kept = X.tocsr()
    wanted = np.float32 if kept.dtype == np.float32 else np.float64
    if kept.dtype.kind not in "fiub":
        raise ValueError(f"X has entries of type {kept.dtype}; real numbers are needed")
    if kept.dtype != wanted:
        kept = kept.astype(wanted)
    if not kept.has_canonical_format:
        kept = kept.copy() if kept is X else kept
        kept.sum_duplicates()
    return kept


def _masked(X: Any, mask: Any, missing: str) -> Any:
    """X where the mask is stored and True; what X does not store there is a zero, or missing too."""
    if mask.dtype != bool:
        raise ValueError(f"mask has entries of type {mask.dtype}; booleans are needed, True where observed")
    if mask.shape != X.shape:
        raise ValueError(f"mask has shape {mask.shape} and X has {X.shape}; they must be equal")
    seen = mask.tocsr().copy()
    seen.sum_duplicates()
    seen.eliminate_zeros()
    wanted, known = _places(seen), _places(X)
    at = np.searchsorted(known, wanted)
    stored = np.zeros(len(wanted), dtype=bool)
    inside = at < len(known)
    stored[inside] = known[at[inside]] == wanted[inside]
    data = np.zeros(len(wanted), dtype=X.dtype)
    data[stored] = X.data[at[stored]]
    kept = stored if missing == "unstored" else np.ones(len(wanted), dtype=bool)
    starts = np.concatenate([[0], np.cumsum(kept)])[seen.indptr]
    return type(X)((data[kept], seen.indices[kept], starts), shape=X.shape)


def _without_nan(X: Any) -> Any:
    stored = X.tocoo()
    known = ~np.isnan(stored.data)
    return type(X)((stored.data[known], (stored.row[known], stored.col[known])), shape=X.shape)


def _places(X: Any) -> np.ndarray:
    """The number of each stored entry's cell, ascending."""
    row = np.repeat(np.arange(X.shape[0], dtype=np.int64), np.diff(X.indptr))
    return row * X.shape[1] + X.indices


def _noise_of_stored(noise: Any, X: Any, rows: Rows) -> Noise | None:
    """The relative noise variance of each stored entry."""
    known = as_noise(noise, X.shape, rows.data.dtype, rows.data.device)
    if known is None:
        return None
    row = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    every = known.variance.expand(X.shape)
    variance = every[torch.from_numpy(row), torch.from_numpy(X.indices.astype(np.int64))]
    return Noise(variance.contiguous(), "stored")


def _blocked(X: Any, mask: Any, missing: str, device: Any, noise: Any) -> Blocked:
    source = source_of(X)
    _require_matrix(source.shape)
    if source.dtype.kind not in "fiub":
        raise ValueError(f"X has entries of type {source.dtype}; real numbers are needed")
    where = torch.device("cpu" if device is None else device)
    seen: Source | Tensor | None = None
    if _is_mapped(mask) or _is_zarr(mask):
        seen = source_of(mask)
        if seen.dtype != bool or seen.shape != source.shape:
            raise ValueError(f"mask is {seen.dtype} {seen.shape}; booleans of X's shape {source.shape} are needed")
    elif mask is not None:
        seen = _mask_of(mask, source.shape).cpu()
    dtype = torch.float32 if source.dtype.kind == "f" and source.dtype.itemsize <= 4 else torch.float64
    known = as_noise(noise, source.shape, dtype, torch.device("cpu"))
    nan = missing == "nan"
    found = survey(source, seen, nan, known)
    there = None if known is None else known._replace(variance=known.variance.to(where))
    complete = found.n_observed == source.shape[0] * source.shape[1]
    return Blocked(source, found, None if complete else seen, nan and not complete, there, where)


def _is_sparse(X: Any) -> bool:
    from scipy.sparse import issparse

    return bool(issparse(X))


def _is_mapped(X: Any) -> bool:
    """A memory map that shows what is in its file: what was made from one, or is copied on writing, is an array."""
    return isinstance(X, np.memmap) and getattr(X, "_mmap", None) is not None and bool(X.filename) and X.mode != "c"


def _is_zarr(X: Any) -> bool:
    return type(X).__module__.split(".")[0] == "zarr"


def _scipy_of(X: Tensor) -> Any:
    from scipy.sparse import coo_array

    if X.is_complex() or X.ndim != 2:
        return X.to_dense()
    found = X.detach().cpu().to_sparse_coo().coalesce()
    values = found.values()
    if values.dtype not in (torch.float32, torch.float64):
        values = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values.double()
    return coo_array((values.numpy(), tuple(found.indices().numpy())), shape=tuple(X.shape))


def _require_matrix(shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"X has shape {tuple(shape)}; a matrix (N, D) with at least one row and column is needed")


def _check_scale(data: Matrix) -> None:
    """Variances are of the order of the mean square, or of its rounding's, and are divided by: none may leave the type's range."""
    mean_square, limits = data.sum_of_squares / data.n_observed, torch.finfo(data.dtype)
    most = limits.max**0.95
    least = max(1 / most, limits.tiny / limits.eps**2)
    if mean_square and not least < mean_square < most:
        raise ValueError(
            f"X has mean square {mean_square:.3g}, too far from 1 for {data.dtype}: scale X, or pass it in double precision"
        )


def as_tensor(X: Any) -> Tensor:
    """X as a tensor of its own floating type, whole numbers as float64; what is no array of real numbers is refused."""
    if isinstance(X, np.ma.MaskedArray):
        raise ValueError("X is a masked array; pass X.data, and mask=~X.mask (True where observed)")
    if hasattr(X, "toarray"):
        X = X.toarray()
    if not isinstance(X, Tensor):
        try:
            array = np.asarray(X)
        except ValueError as error:
            raise ValueError(f"X is {described(X)} whose rows have different lengths; a matrix is needed") from error
        if array.dtype.kind not in "fiub":
            raise ValueError(f"X has entries of type {array.dtype}; real numbers are needed")
        if array.dtype.kind == "f" and (array.dtype.itemsize > 8 or not array.dtype.isnative):
            array = array.astype(np.float64 if array.dtype.itemsize > 8 else array.dtype.newbyteorder("="))
        if array.dtype.kind in "iu":
            array = array.astype(np.float64)
        usable = array.flags.writeable and min(array.strides, default=0) >= 0
        X = torch.from_numpy(np.array(array, order="C", copy=None if usable else True))
    if X.layout != torch.strided:
        X = X.to_dense()
    if X.is_complex():
        raise ValueError(f"X has entries of type {X.dtype}; real numbers are needed")
    X = plain(X)
    if not X.is_floating_point():
        return X.double()
    return X.float() if X.dtype in (torch.float16, torch.bfloat16) else X


def in_dtype(X: Any, dtype: torch.dtype, who: str) -> Any:
    """A `Matrix` with entries and noise of that floating type; where it is read from disk and has another, in memory.

    Raises:
        TypeError: it is to come into memory and has too many entries, as `in_memory` says.
        ValueError: its entries are beyond the type's range.
    """
    if X.dtype == dtype:
        return X
    noise = None if X.noise is None else X.noise._replace(variance=X.noise.variance.to(dtype))
    data: Any
    if isinstance(X, Sparse):
        data = replace(X, stored=X.stored._replace(data=X.stored.data.to(dtype)), noise=noise)
    else:
        own = in_memory(X, who)
        data = replace(own, values=own.values.to(dtype), noise=noise)
    _check_scale(data)
    return data


def as_mask(mask: Any, values: Tensor) -> Tensor:
    """The mask as a boolean tensor beside `values`, of their shape."""
    return _mask_of(mask, tuple(values.shape)).to(values.device)


def _mask_of(mask: Any, shape: tuple[int, ...]) -> Tensor:
    if hasattr(mask, "toarray"):
        mask = mask.toarray()
    observed = (
        plain(mask)
        if isinstance(mask, Tensor)
        else borrowed("mask", mask, "b", "booleans are needed, True where observed")
    )
    if observed.dtype != torch.bool:
        raise ValueError(f"mask has entries of type {observed.dtype}; booleans are needed, True where observed")
    if tuple(observed.shape) != shape:
        raise ValueError(f"mask has shape {tuple(observed.shape)} and X has {shape}; they must be equal")
    return observed


def _refuse_non_finite(values: Tensor, extremes: tuple[float, ...]) -> None:
    """Raise ValueError unless all are finite, which the least and the greatest tell: both are NaN where one value is."""
    if all(map(math.isfinite, extremes)):
        return
    nan, inf = int(values.isnan().sum()), int(values.isinf().sum())
    if nan:
        raise ValueError(
            f"X has {nan} NaN entries; if they are missing, say so with missing='nan' or a mask (True where observed)"
        )
    raise ValueError(f"X has {inf} infinite entries; finite numbers are needed: check the input, or mask them")
