"""Matrices from files: .npy .npz .csv .tsv .parquet .h5ad .mtx. What is read is checked later by `as_matrix`."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppnmf.data.dense import IN_MEMORY

__all__ = ["Table", "read", "suffixes"]

MISSING = {"", "na", "nan", "n/a", "null", "none"}  # lower case; they become NaN
DELIMITERS = (",", ";", "\t")
BIG = 2**28  # bytes from which an .npy file is mapped and not read, where that will do


class Table(NamedTuple):
    """A matrix and the names that its file gave."""

    X: Any  # (N, D), float64 in memory; or a SciPy matrix, or a memory map, as the file is
    rows: np.ndarray | None
    columns: np.ndarray | None


def read(path: str | Path, dense: bool = True) -> Table:
    """Read a matrix (N, D): rows of the file are rows of X.

    Args:
        dense: X is an array in memory. Otherwise a sparse matrix stays one, in CSR, and a big .npy file is mapped.

    In .csv and .tsv a first line that is not all numbers names the columns, and a first column that is not all numbers, or
    that has no name in such a line, names the rows. Empty cells, NA and NaN become NaN. An .npz may hold one matrix, or several of
    which one is called X, or a SciPy sparse matrix. Column names that are numbers cannot be told from data.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds no matrix, or is of a kind we cannot read.
        ModuleNotFoundError: .parquet needs pandas, .h5ad needs anndata; the sentence says what to install.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; a file is needed ({', '.join(suffixes())})")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"{path} has the suffix {path.suffix!r}; the kinds that can be read are {', '.join(suffixes())}"
        )
    X, rows, columns = reader(path)
    if dense and hasattr(X, "toarray"):
        if X.shape[0] * X.shape[1] > IN_MEMORY:
            raise ValueError(
                f"{path} holds a sparse matrix of {X.shape[0]} × {X.shape[1]}, too large to be made dense here"
            )
        X = X.toarray()
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(
            f"{path} holds an array of shape {X.shape}; a matrix with at least one row and column is needed"
        )
    if X.dtype.kind not in "fiub":
        raise ValueError(f"{path} holds entries of type {X.dtype}; real numbers are needed")
    if hasattr(X, "tocsr"):
        return Table(X.tocsr(), rows, columns)
    if not dense and path.suffix.lower() == ".npy" and X.nbytes > BIG:
        return Table(X, rows, columns)
    return Table(np.array(X, float, order="C", copy=None if X.flags.writeable else True), rows, columns)


def suffixes() -> list[str]:
    """The kinds of file that `read` knows."""
    return list(_READERS)


def _npy(path: Path) -> Table:
    return Table(_numpy_load(path), None, None)


def _npz(path: Path) -> Table:
    archive = _numpy_load(path)
    if {"format", "shape", "data"} <= set(archive.files):
        from scipy.sparse import load_npz

        return Table(load_npz(path), None, None)
    matrices = [name for name in archive.files if archive[name].ndim == 2 and archive[name].dtype.kind in "fiub"]
    if "X" in matrices:
        return Table(archive["X"], None, None)
    if len(matrices) != 1:
        held = ", ".join(f"{name} {archive[name].shape}" for name in archive.files) or "nothing"
        raise ValueError(f"{path} holds {held}; one matrix, or one that is called X, is needed")
    return Table(archive[matrices[0]], None, None)


def _numpy_load(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r" if path.suffix.lower() == ".npy" else None)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is not a NumPy file that can be read without pickles ({error})") from error


def _csv(path: Path) -> Table:
    lines = _lines(path)
    header = _is_header(lines[0])
    names = lines.pop(0) if header else None
    if not lines:
        raise ValueError(f"{path} holds one line of names and no numbers")
    width = len(lines[0])
    for number, line in enumerate(lines, start=1 + header):
        if len(line) != width:
            raise ValueError(
                f"{path}: line {number} has {len(line)} cells and the first line of data {width}; they must be equal"
            )
    if names is not None and len(names) not in (width, width - 1):
        raise ValueError(f"{path}: there are {len(names)} names for {width} columns; they must be equal in number")
    unnamed = names is not None and (len(names) == width - 1 or (width > 1 and not names[0].strip()))
    named_rows = unnamed or not all(_is_number(line[0]) for line in lines)
    rows = np.array([line[0].strip() for line in lines]) if named_rows else None
    columns = None if names is None else np.array([name.strip() for name in names[len(names) - width + named_rows :]])
    X = np.array(
        [
            [_number(cell, path, i, j, header) for j, cell in enumerate(line[named_rows:])]
            for i, line in enumerate(lines)
        ]
    )
    return Table(X, rows, columns)


def _lines(path: Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8 ({error.reason} at byte {error.start})") from error
    first = text.split("\n", 1)[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(DELIMITERS, key=first.count)
    lines = [
        line
        for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        if any(cell.strip() for cell in line)
    ]
    if not lines:
        raise ValueError(f"{path} is empty; a matrix with at least one row and column is needed")
    return lines


def _is_header(line: list[str]) -> bool:
    """Names of columns; also the 0, 1, 2 ... behind an empty cell that pandas writes when there are none."""
    numbered = not line[0].strip() and line[1:] == [str(number) for number in range(len(line) - 1)] != []
    return numbered or not all(_is_number(cell) for cell in line[1:] or line)


def _is_number(cell: str) -> bool:
    if cell.strip().lower() in MISSING:
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(cell: str, path: Path, i: int, j: int, header: bool) -> float:
    if cell.strip().lower() in MISSING:
        return float("nan")
    try:
        return float(cell)
    except ValueError as error:
        where = f"row {i + 1}, column {j + 1} of the numbers"
        hint = "" if header else "; is it a name without a line of names?"
        raise ValueError(f"{path}: {cell!r} in {where} is not a number{hint}") from error


def _parquet(path: Path) -> Table:
    try:
        import pandas
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{path}: .parquet needs {error.name}: pip install 'ppnmf[io]'") from error
    try:
        frame = pandas.read_parquet(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is not a parquet file that can be read ({error})") from error
    texts = [name for name in frame.columns if not pandas.api.types.is_numeric_dtype(frame[name])]
    if texts == list(frame.columns[:1]):  # a first column of text names the rows
        frame, texts = frame.set_index(texts[0]), []
    if texts:
        raise ValueError(f"{path}: column {texts[0]!r} holds {frame[texts[0]].dtype} and not numbers; leave it out")
    rows = None if isinstance(frame.index, pandas.RangeIndex) else np.array([str(name) for name in frame.index])
    return Table(frame.to_numpy(dtype=float), rows, np.array([str(name) for name in frame.columns]))


def _h5ad(path: Path) -> Table:
    try:
        import anndata
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{path}: .h5ad needs {error.name}: pip install 'ppnmf[scverse]'") from error
    data = anndata.read_h5ad(path)
    if data.X is None:
        raise ValueError(f"{path} has no matrix X")
    X = data.X if hasattr(data.X, "toarray") else np.asarray(data.X)
    return Table(X, data.obs_names.to_numpy(str), data.var_names.to_numpy(str))


def _mtx(path: Path) -> Table:
    from scipy.io import mmread

    try:
        X = mmread(path)
    except (ValueError, OSError, OverflowError) as error:
        raise ValueError(f"{path} is not a Matrix Market file that can be read ({error})") from error
    return Table(X, None, None)


_READERS: dict[str, Callable[[Path], Table]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
    ".h5ad": _h5ad,
    ".mtx": _mtx,
}
