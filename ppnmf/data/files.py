"""Matrices from files: tables as text or Parquet, NumPy's, AnnData's, Matrix Market and 10x folders.

What a file holds is read here and checked; readers and their libraries are imported when a file of their kind is there.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppnmf.data.compressed import is_compressed, kind_of
from ppnmf.data.found import Found, Reading, first_few

__all__ = ["Table", "check_path", "place", "read", "suffixes"]

BIG = 2**28  # bytes from which an .npy file is mapped and not read, where that will do


class Table(NamedTuple):
    """A matrix, the names that its file gave, and how the file was understood."""

    X: Any  # (N, D), float64 in memory; or a SciPy matrix, or a memory map, as the file is
    rows: np.ndarray | None
    columns: np.ndarray | None
    about: str


class Kind(NamedTuple):
    """A kind of file: the function that reads it, the options that mean something, and whether it may be compressed."""

    reader: str  # module.function in ppnmf.data
    options: tuple[str, ...] = ()
    compressed: bool = False


TEXT = Kind("tables.delimited", ("header", "row_names"), compressed=True)
KINDS = {
    ".npy": Kind("archives.npy"),
    ".npz": Kind("archives.npz", ("layer",)),
    ".csv": TEXT,
    ".tsv": TEXT,
    ".txt": TEXT,
    ".tab": TEXT,
    ".dat": TEXT,
    ".parquet": Kind("tables.parquet", ("row_names",)),
    ".h5ad": Kind("archives.h5ad", ("layer",)),
    ".mtx": Kind("market.mtx", compressed=True),
}
FOLDER = Kind("market.folder")


def suffixes() -> list[str]:
    """The kinds of file that `read` knows."""
    return list(KINDS)


def check_path(path: str | Path) -> Path:
    """The path, if it leads to a file or a folder of a kind that can be read. Imports nothing heavy.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is of a kind we cannot read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if path.is_dir():
        return path
    kind = kind_of(path)
    if kind not in KINDS:
        raise ValueError(
            f"{path} has the suffix {kind!r}; the kinds that can be read are {', '.join(KINDS)}, text also as .gz, .bz2 and .xz"
        )
    if is_compressed(path) and not KINDS[kind].compressed:
        raise ValueError(f"{path} is compressed, and a {kind} file is read as it is: decompress it first")
    return path


def read(
    path: str | Path,
    *,
    header: bool | None = None,
    row_names: str | bool | None = None,
    transpose: bool = False,
    layer: str | None = None,
    missing: str = "error",
    dense: bool = True,
) -> Table:
    """Read a matrix (N, D): rows of the file are rows of X.

    ==========================  ==================================================================================
    .csv .tsv .txt .tab .dat    cells separated by commas, semicolons, tabs, bars or spaces; decimal points, or commas where
                                these do not separate; lines that begin with # are comments; .gz, .bz2, .xz too
    .parquet                    an index that pandas wrote names the rows
    .npy, .npz                  an .npz holds one matrix, or one called X, or the one that `layer` names; arrays `rows`
                                and `columns` beside it are its names; or it holds a SciPy sparse matrix
    .h5ad                       X, or a layer
    .mtx, a 10x folder          sparse; in a folder, cells are rows
    ==========================  ==================================================================================

    Args:
        header: the first line of a text names the columns, or it does not; by default what the table shows.
        row_names: the column that names the rows, by its number, counted from 1, or by its name; False: none does. By default the
            first column where it holds text, has no name beside others that have, or is pandas' index.
        transpose: columns of the file are rows of X.
        layer: of an .h5ad file, or the array of an .npz file.
        missing: "error": NaN and empty cells are a mistake; "nan": they are missing, and NaN in X.
        dense: X is an array in memory. Otherwise a sparse matrix stays one, in CSR, and a big .npy file is mapped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds no matrix, or is of a kind we cannot read; a cell is no number, is missing or infinite; or it
            cannot be told whether a line or a column holds names or data.
        ModuleNotFoundError: .h5ad needs anndata; the sentence says what to install.
    """
    path = check_path(path)
    if missing not in ("error", "nan"):
        raise ValueError(f"missing is {missing!r}; it must be 'error' or 'nan'")
    kind = FOLDER if path.is_dir() else KINDS[kind_of(path)]
    reading = Reading(header, row_names, layer)
    _refuse_options(path, kind, reading)
    module, function = kind.reader.split(".")
    found = getattr(import_module(f"ppnmf.data.{module}"), function)(path, reading)
    _check_shape(path, found.X)
    X = _in_its_form(path, found.X, dense, transpose)
    mapped = isinstance(X, np.memmap)  # is looked through a block of rows at a time, by `as_matrix`
    if not mapped and _refuse_missing(path, found, X, missing) and hasattr(X, "toarray"):
        X = _made_dense(path, X)  # what a sparse matrix does not store is zero, so it cannot hold what is missing
    about = _about(path, found, transpose)
    if transpose:
        X = np.ascontiguousarray(X.T) if isinstance(X, np.ndarray) else X.T.tocsr()
        return Table(X, found.columns, found.rows, about)
    return Table(X, found.rows, found.columns, about)


def place(i: int, j: int, rows: Any, columns: Any) -> str:
    """Where a cell is, in words."""
    row = f"row {i + 1}" if rows is None else f"row {str(rows[i])!r}"
    return row + (f", column {j + 1}" if columns is None else f", column {str(columns[j])!r}")


def _refuse_options(path: Path, kind: Kind, reading: Reading) -> None:
    for name, value in reading._asdict().items():
        if value is not None and name not in kind.options:
            fitting = [suffix for suffix, known in KINDS.items() if name in known.options]
            raise ValueError(
                f"{name}={value!r} is for {', '.join(fitting)}, and {path} is of another kind: leave it out"
            )


def _check_shape(path: Path, X: Any) -> None:
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(
            f"{path} holds an array of shape {X.shape}; a matrix with at least one row and column is needed"
        )
    if X.dtype.kind not in "fiub":
        raise ValueError(f"{path} holds entries of type {X.dtype}; real numbers are needed")


def _in_its_form(path: Path, X: Any, dense: bool, transpose: bool) -> Any:
    """float64 in memory; where that need not be, CSR or a memory map."""
    if hasattr(X, "toarray"):
        return _made_dense(path, X) if dense else X.tocsr().astype(float)
    if not dense and not transpose and isinstance(X, np.memmap) and X.nbytes > BIG:
        return X
    return np.array(X, float, order="C", copy=None if X.flags.writeable else True)


def _made_dense(path: Path, X: Any) -> np.ndarray:
    from ppnmf.data.dense import IN_MEMORY

    if X.shape[0] * X.shape[1] > IN_MEMORY:
        raise ValueError(
            f"{path} holds a sparse matrix of {X.shape[0]} × {X.shape[1]}, too large to be made dense here"
        )
    return np.asarray(X.toarray(), float)


def _not_finite(X: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and values of the entries that are NaN or infinite; of a sparse matrix, among those it stores."""
    if isinstance(X, np.ndarray):
        i, j = np.nonzero(~np.isfinite(X))
        return i, j, X[i, j]
    stored = X.tocoo()
    bad = ~np.isfinite(stored.data)
    return stored.row[bad], stored.col[bad], stored.data[bad]


def _refuse_missing(path: Path, found: Found, X: Any, missing: str) -> bool:
    """Whether X has missing values; those that are not expected are refused, and infinite ones, with the place of the first."""
    i, j, values = _not_finite(X)
    infinite = np.isinf(values)
    if infinite.any():
        at = int(infinite.argmax())
        raise ValueError(
            f"{path} has {int(infinite.sum())} infinite entries, the first ({values[at]}) in "
            f"{place(i[at], j[at], found.rows, found.columns)}: mend them, or write NaN there and say missing='nan'"
        )
    if len(values) and missing == "error":
        spelled = ", ".join(f"{count} {word}" for word, count in found.missing.items())
        raise ValueError(
            f"X has {len(values)} NaN or empty entries: say missing='nan' if they are missing values, or fill them in "
            f"({path}: {spelled + '; ' if spelled else ''}the first in {place(i[0], j[0], found.rows, found.columns)})"
        )
    return len(values) > 0


def _about(path: Path, found: Found, transpose: bool) -> str:
    """How the file was understood."""
    parts = [*found.remarks]
    for what, names in (("row", found.rows), ("column", found.columns)):
        parts.append(f"no {what} names" if names is None else f"{what}s {first_few(names)}")
    what = "folder" if path.is_dir() else "file"
    turned = ", then transposed" if transpose else ""
    return f"The {what} {path.name}: {'; '.join(parts)}{turned}."
