"""Frames and other labelled containers, opened: their values as an array, the labels of their rows and columns.

pandas, polars, xarray, AnnData and pyarrow are never imported here: an object of theirs has brought its library along.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from ppnmf.data.datasets import Dataset
from ppnmf.data.files import Table
from ppnmf.data.labelled import Labelled, Labels, listed, names_of

__all__ = ["BOOLEANS", "opened", "rows_of"]

NUMBERS, BOOLEANS = "fiub", "b"  # NumPy's kinds of type
WANTED = {NUMBERS: "real numbers are needed", BOOLEANS: "booleans are needed, True where observed"}
TEXT_OR_NUMBER = (str, Real, Decimal, np.bool_)
OWN_DIMS = ("row", "column")  # of `Posterior.to_arviz`


def opened(name: str, X: Any, kinds: str = NUMBERS) -> Labelled:
    """X's values, with its labels where X is a container that has some; of anything else, X itself.

    ==================  ==============================  ==================================================================
    X                   missing values                  names
    ==================  ==============================  ==================================================================
    pandas DataFrame    NaN, None, NA (of any dtype)    index and columns; the levels of several are joined by "_"
    polars DataFrame    null, NaN                       columns
    xarray DataArray    NaN                             the coordinates of its two dims
    AnnData             NaN                             obs_names and var_names; X may be dense, sparse or backed
    Zarr array, group   NaN                             of an AnnData group: the same; else coordinates that lie beside
                                                        it by the names of its dims, or its attributes "rows", "columns"
    pyarrow Table       null                            as the pandas DataFrame that it makes
    `ppnmf.read`        NaN                             those of the file; a `Dataset` likewise, and its mask is X's
    ==================  ==============================  ==================================================================

    What a library counts by itself (a RangeIndex, columns 0, 1, ..., polars' column_0, AnnData's "0", "1", ...) names
    nothing. Missing values become NaN. A frame of pandas' sparse columns with zeros between becomes a SciPy matrix.

    Args:
        name: of the argument, for the sentences.
        kinds: NumPy's kinds of type that are taken; of a mask, `BOOLEANS`.

    Raises:
        ValueError: a column holds something else, or a mask a missing value: the sentence names the first of them.
    """
    if isinstance(X, Labelled):
        return X
    if isinstance(X, Table):
        return Labelled.of(X.X, X.rows, X.columns)
    if isinstance(X, Dataset):
        return Labelled.of(X.X, X.rows, X.columns)._replace(mask=X.mask)
    if hasattr(X, "fold_here"):  # a `Matrix`
        return Labelled(X, *names_of(X))
    for library, kind, reader in _READERS:
        known = getattr(sys.modules.get(library), kind, None)
        if known is not None and isinstance(X, known):
            return reader(name, X, kinds)
    if isinstance(X, str | Path) and Path(X).is_dir():
        return _folder(name, Path(X), kinds)
    if hasattr(X, "columns") and hasattr(X, "dtypes"):
        given = f"{type(X).__module__}.{type(X).__qualname__}"
        raise ValueError(f"{name} is a {given}; pass it as a pandas DataFrame")
    return Labelled(X)


# pandas


def rows_of(values: Any) -> Labels | None:
    """The labels of the rows of a pandas series or frame, whatever it holds; None of anything else."""
    pandas = sys.modules.get("pandas")
    known = pandas is not None and isinstance(values, pandas.Series | pandas.DataFrame)
    return _labels(values.index) if known else None


def _pandas_frame(name: str, frame: Any, kinds: str) -> Labelled:
    rows, columns = _labels(frame.index), _labels(frame.columns)
    dtypes = list(frame.dtypes)
    for j in (j for j, dtype in enumerate(dtypes) if dtype.kind not in kinds):
        label, column = frame.columns[j], frame.iloc[:, j]
        if kinds == NUMBERS and dtypes[j].kind == "O" and bool(column.isna().all()):
            frame = frame.copy(deep=False)
            frame.isetitem(j, np.nan)  # a column of None, which has no type
            continue
        advice = f"pass {name}.apply(pandas.to_numeric)", f"pass {name}.set_index({label!r})"
        raise ValueError(_refusal(name, label, dtypes[j], column.dropna().items(), kinds, advice))
    if kinds == BOOLEANS:
        return Labelled(_booleans(name, frame.columns, frame), rows, columns)
    if len(dtypes) and all(_is_sparse_of_zeros(dtype) for dtype in dtypes):
        return Labelled(frame.sparse.to_coo(), rows, columns)
    wanted = np.float32 if dtypes and all(_is_short(dtype) for dtype in dtypes) else np.float64
    return Labelled(frame.to_numpy(dtype=wanted), rows, columns)


def _pandas_series(name: str, series: Any, kinds: str) -> Labelled:
    values, rows, *_ = _pandas_frame(name, series.to_frame(series.name), kinds)
    return Labelled(values.toarray()[:, 0] if hasattr(values, "toarray") else values[:, 0], rows)


def _booleans(name: str, columns: Any, frame: Any) -> np.ndarray:
    missing = frame.isna().to_numpy()
    if missing.any():
        column = columns[int(missing.any(0).argmax())]
        raise ValueError(
            f"{name} has {int(missing.sum())} missing entries, the first in column {column!r}; True or False is needed "
            f"in each: {name}.fillna(False) hides those"
        )
    return frame.to_numpy(dtype=bool)


def _labels(index: Any) -> Labels:
    """Of a pandas index."""
    pandas = sys.modules["pandas"]
    if isinstance(index, pandas.RangeIndex):
        return range(index.start, index.stop, index.step)
    if index.nlevels > 1:
        return tuple("_".join(map(_text, levels)) for levels in index)
    if index.inferred_type == "integer" and list(index) == list(range(len(index))):
        return range(len(index))
    return tuple(map(_text, index))


def _text(label: Any) -> str:
    text = label.decode() if isinstance(label, bytes) else str(label)
    return text.removesuffix(" 00:00:00")  # a date


def _is_sparse_of_zeros(dtype: Any) -> bool:
    return hasattr(dtype, "fill_value") and not dtype.fill_value  # NaN is true


def _is_short(dtype: Any) -> bool:
    return dtype.kind == "f" and getattr(dtype, "subtype", dtype).itemsize <= 4


def _refusal(
    name: str, label: Any, dtype: Any, known: Iterable[tuple[Any, Any]], kinds: str, advice: tuple[str, str]
) -> str:
    """Why a column cannot be taken.

    Args:
        known: its values that are not missing, each with its row.
        advice: what makes numbers of it, and what to do if it names the rows.
    """
    column, (cast, named) = f"{name}'s column {label!r}", advice
    values = list(known)
    if kinds == BOOLEANS or not values or not all(isinstance(value, TEXT_OR_NUMBER) for _, value in values):
        return f"{column} is of type {dtype}; {WANTED[kinds]}: convert it, or leave it out"
    if not any(isinstance(value, str) for _, value in values):
        return f"{column} holds numbers as objects of type {dtype}; {WANTED[kinds]}: {cast}"
    bad = [(row, value) for row, value in values if not _is_numeric(value)]
    if not bad:
        return f"{column} holds numbers as text ({values[0][1]!r} is the first); {WANTED[kinds]}: {cast}"
    row, value = bad[0]
    if len(bad) < len(values):
        return f"{column} holds {value!r} in row {row!r}; {WANTED[kinds]}: correct it, or mark it as missing by NaN"
    return f"{column} holds text ({value!r} is the first); {WANTED[kinds]}: if it names the rows, {named}, else leave it out"


def _is_numeric(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


# polars, pyarrow


def _polars_frame(name: str, frame: Any, kinds: str) -> Labelled:
    polars = sys.modules["polars"]
    counted = frame.columns == [f"column_{j}" for j in range(frame.width)]
    columns: Labels = range(frame.width) if counted else tuple(frame.columns)
    for series in frame.iter_columns():
        boolean, number = series.dtype == polars.Boolean, series.dtype.is_numeric() or series.dtype == polars.Null
        if not boolean and not (number and kinds == NUMBERS):
            advice = f"pass {name}.cast(polars.Float64)", f"pass {name}.to_pandas().set_index({series.name!r})"
            known = [(row, value) for row, value in enumerate(series.to_list()) if value is not None]
            raise ValueError(_refusal(name, series.name, series.dtype, known, kinds, advice))
    if kinds == BOOLEANS:
        missing = [series.name for series in frame.iter_columns() if series.null_count()]
        if missing:
            raise ValueError(
                f"{name} has nulls, the first in column {missing[0]!r}; True or False is needed in each entry: "
                f"{name}.fill_null(False) hides those"
            )
        return Labelled(frame.to_numpy(), None, columns)
    short = all(dtype == polars.Float32 for dtype in frame.dtypes)
    return Labelled(frame.cast(polars.Float32 if short else polars.Float64).to_numpy(), None, columns)


def _polars_series(name: str, series: Any, kinds: str) -> Labelled:
    return Labelled(_polars_frame(name, series.to_frame(), kinds).values[:, 0])


def _polars_plan(name: str, frame: Any, kinds: str) -> Labelled:
    raise ValueError(f"{name} is a polars LazyFrame, which holds no values yet: pass {name}.collect()")


def _arrow_table(name: str, table: Any, kinds: str) -> Labelled:
    return opened(name, table.to_pandas(), kinds)


# xarray, AnnData


def _data_array(name: str, array: Any, kinds: str) -> Labelled:
    if array.dims == OWN_DIMS[::-1]:
        array = array.transpose(*OWN_DIMS)
    labels = [_labels(array.indexes[dim]) if dim in array.indexes else None for dim in array.dims]
    values, dims = array.to_numpy(), tuple(map(str, array.dims))
    if values.dtype.kind not in kinds:
        raise ValueError(f"{name} has entries of type {values.dtype}; {WANTED[kinds]}")
    rows, columns = [*labels, None, None][:2]
    return Labelled(values, rows, columns, dims) if len(dims) in (1, 2) else Labelled(values)


def _data_set(name: str, data: Any, kinds: str) -> Labelled:
    held = [str(variable) for variable in data.data_vars]
    raise ValueError(f"{name} is an xarray Dataset of {listed(held) or 'nothing'}; pass one of them, {name}[...]")


def _anndata(name: str, data: Any, kinds: str) -> Labelled:
    if data.X is None:
        raise ValueError(
            f"{name} is an AnnData without X; to use a layer, pass anndata.AnnData({name}.layers[...], {name}.obs, {name}.var)"
        )
    values = data.X
    if hasattr(values, "to_memory"):  # sparse, on disk
        values = values.to_memory()
    if not hasattr(values, "tocsr"):
        values = np.asarray(values)
    return Labelled(values, _counted(data.obs_names), _counted(data.var_names))


def _mudata(name: str, data: Any, kinds: str) -> Labelled:
    held = listed(list(data.mod))
    raise ValueError(
        f"{name} is a MuData of {held}; pass one of them, {name}.mod[...], or ppnmf.anndata.fit(..., modality=...)"
    )


def _counted(names: Any) -> Labels:
    """AnnData's names; those that it makes by itself count the rows or columns."""
    texts = tuple(map(_text, names))
    return range(len(texts)) if texts == tuple(map(str, range(len(texts)))) else texts


# Zarr


def _folder(name: str, path: Path, kinds: str) -> Labelled:
    try:
        import zarr

        found = zarr.open(path, mode="r")
    except Exception:  # `source_of` says what is wrong
        return Labelled(path)
    return opened(name, found, kinds)


def _zarr_group(name: str, group: Any, kinds: str) -> Labelled:
    if group.attrs.get("encoding-type") != "anndata":
        held = listed(sorted(key for key, _ in group.arrays())) or "no array"
        raise ValueError(f"{name} is a Zarr group with {held}; pass the array, {name}[...]")
    values = group["X"]
    if hasattr(values, "attrs") and values.attrs.get("encoding-type") in ("csr_matrix", "csc_matrix"):
        from scipy import sparse

        kind = {"csr_matrix": sparse.csr_array, "csc_matrix": sparse.csc_array}[values.attrs["encoding-type"]]
        parts = tuple(values[part][:] for part in ("data", "indices", "indptr"))
        values = kind(parts, shape=tuple(values.attrs["shape"]))
    return Labelled(values, _frame_index(group, "obs"), _frame_index(group, "var"))


def _zarr_array(name: str, array: Any, kinds: str) -> Labelled:
    own = [array.attrs.get(axis) for axis in ("rows", "columns")]
    labels: list[Labels | None] = [tuple(map(_text, told)) if isinstance(told, list) else None for told in own]
    if array.path:  # it lies in a group
        labels = [mine or other for mine, other in zip(labels, _beside_array(array), strict=True)]
    rows, columns = (
        names if names is not None and size == len(names) else None
        for names, size in zip(labels, [*array.shape, 0, 0], strict=False)
    )
    return Labelled(array, rows, columns)


def _beside_array(array: Any) -> list[Labels | None]:
    """Labels that lie in the array's group: of an AnnData, or coordinates named as the array's dims are."""
    import zarr

    parent, _, own = array.path.rpartition("/")
    try:
        group = zarr.open_group(array.store, path=parent, mode="r")
    except FileNotFoundError:  # a folder that is no group
        return [None, None]
    if group.attrs.get("encoding-type") == "anndata" and own == "X":
        return [_frame_index(group, "obs"), _frame_index(group, "var")]
    dims = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS") or (None, None)
    labels: list[Labels | None] = []
    for dim in dims[:2]:
        known = dim is not None and dim in group and getattr(group[dim], "ndim", 0) == 1
        labels.append(_plain_labels(group[dim][:]) if known else None)
    return [*labels, None, None][:2]


def _frame_index(group: Any, frame: str) -> Labels | None:
    key = group[frame].attrs.get("_index") if frame in group else None
    return None if key is None else _counted(group[frame][key][:])


def _plain_labels(values: np.ndarray) -> Labels:
    counted = values.dtype.kind in "iu" and bool((values == np.arange(len(values))).all())
    return range(len(values)) if counted else tuple(map(_text, values))


_READERS: tuple[tuple[str, str, Callable[[str, Any, str], Labelled]], ...] = (
    ("pandas", "DataFrame", _pandas_frame),
    ("pandas", "Series", _pandas_series),
    ("polars", "DataFrame", _polars_frame),
    ("polars", "Series", _polars_series),
    ("polars", "LazyFrame", _polars_plan),
    ("pyarrow", "Table", _arrow_table),
    ("xarray", "DataArray", _data_array),
    ("xarray", "Dataset", _data_set),
    ("anndata", "AnnData", _anndata),
    ("mudata", "MuData", _mudata),
    ("zarr", "Group", _zarr_group),
    ("zarr", "Array", _zarr_array),
)
