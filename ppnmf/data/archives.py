"""Matrices from NumPy's files and from AnnData's."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ppnmf.data.found import Found, Reading

__all__ = ["h5ad", "npy", "npz"]

NAMES = {"rows": ("rows", "row_names"), "columns": ("columns", "column_names")}
BROKEN = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, SyntaxError)


def npy(path: Path, reading: Reading) -> Found:
    """The array, mapped and not read."""
    try:
        found = np.load(path, mmap_mode="r")
    except BROKEN as error:
        raise _broken(path, error) from error
    if not isinstance(found, np.ndarray):
        found.close()
        raise ValueError(f"{path} is an archive of arrays: call it .npz")
    return Found(found)


def npz(path: Path, reading: Reading) -> Found:
    """A SciPy sparse matrix, or an array: the one that `layer` names, or X, or the only matrix; with its names beside it."""
    sparse = None
    try:
        with path.open("rb") as file:  # opened here, because NumPy leaves a damaged one open
            arrays = _arrays(path, file)
            if {"format", "shape", "data"} <= set(arrays):
                from scipy.sparse import load_npz

                file.seek(0)
                sparse = load_npz(file)
    except BROKEN as error:
        raise _broken(path, error) from error
    if sparse is not None:
        if reading.layer is not None:
            raise ValueError(f"{path} is one sparse matrix, without layers: leave layer={reading.layer!r} out")
        return Found(sparse)
    name = _chosen(path, arrays, reading.layer)
    X = arrays[name]
    rows, columns = (_names(path, arrays, axis, X.shape[i]) for i, axis in enumerate(NAMES))
    return Found(X, rows, columns, [f"array {name!r}"])


def _arrays(path: Path, file: BinaryIO) -> dict[str, np.ndarray]:
    found = np.load(file)
    return {path.stem: found} if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}


def _broken(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is not a NumPy file that can be read without pickles ({error})")


def _chosen(path: Path, arrays: dict[str, np.ndarray], layer: str | None) -> str:
    held = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "nothing"
    matrices = [name for name, array in arrays.items() if array.ndim == 2 and array.dtype.kind in "fiub"]
    if layer is not None:
        if layer not in matrices:
            raise ValueError(f"{path} has no matrix {layer!r}; it holds {held}")
        return layer
    if "X" in matrices:
        return "X"
    if len(matrices) == 1:
        return matrices[0]
    which = f"; say which by layer={matrices[0]!r}" if matrices else ""
    raise ValueError(f"{path} holds {held}; one matrix, or one that is called X, is needed{which}")


def _names(path: Path, arrays: dict[str, np.ndarray], axis: str, size: int) -> np.ndarray | None:
    for key in NAMES[axis]:
        if key in arrays and arrays[key].ndim == 1:
            if len(arrays[key]) != size:
                raise ValueError(f"{path}: {key!r} holds {len(arrays[key])} names, and the matrix has {size} {axis}")
            return arrays[key].astype(str)
    return None


def h5ad(path: Path, reading: Reading) -> Found:
    """X, or the layer that is named, alone: what else the file holds is not read."""
    try:
        from anndata.io import read_elem
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{path}: .h5ad needs {error.name}: pip install 'ppnmf[scverse]'") from error
    import h5py

    try:
        with h5py.File(path) as file:
            if not {"obs", "var"} <= set(file):
                raise ValueError(f"{path} is not an AnnData file; it holds {', '.join(file) or 'nothing'}")
            place = _layer(path, file, reading.layer)
            X, obs, var = (read_elem(file[name]) for name in (place, "obs", "var"))
    except OSError as error:
        raise ValueError(f"{path} is not an HDF5 file that can be read ({error})") from error
    return Found(
        X, obs.index.to_numpy(str), var.index.to_numpy(str), [] if place == "X" else [f"layer {reading.layer!r}"]
    )


def _layer(path: Path, file: Any, layer: str | None) -> str:
    layers = list(file.get("layers", ()))
    held = f"the layers are {', '.join(layers)}" if layers else "there are no layers"
    if layer is not None and layer not in layers:
        raise ValueError(f"{path} has no layer {layer!r}; {held}")
    if layer is None and "X" not in file:
        which = f"; say which by layer={layers[0]!r}" if layers else ""
        raise ValueError(f"{path} has no matrix X; {held}{which}")
    return "X" if layer is None else f"layers/{layer}"
