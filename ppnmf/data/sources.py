"""Arrays on disk that are read by rows and can be found again: memory-mapped files and Zarr arrays."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np

__all__ = ["Source", "found_again", "referred", "source_of"]

SAMPLED = 16  # rows that a fingerprint reads


class Source(Protocol):
    """A two-dimensional array that is read by rows, and can be found again."""

    shape: tuple[int, int]
    dtype: np.dtype

    def read(self, rows: range) -> np.ndarray: ...
    def chunk_rows(self) -> int: ...
    def reference(self) -> dict[str, Any]:
        """What finds it again (`source_of`), for JSON. Raises TypeError where it has no place on disk."""
        ...


class MappedFile:
    """An array inside a file of plain bytes, such as an .npy file."""

    def __init__(self, path: str, dtype: str, shape: tuple[int, int], offset: int, strides: tuple[int, int]) -> None:
        self.path, self.dtype, self.shape = str(Path(path).resolve()), np.dtype(dtype), shape
        self.offset, self.strides = offset, strides

    @classmethod
    def of(cls, array: np.memmap) -> MappedFile:
        """Of a memory map or a part of one, whose own `offset` is that of the map it is a part of."""
        whole: Any = array
        while isinstance(whole.base, np.ndarray):
            whole = whole.base
        within = array.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
        shape: Any = array.shape
        strides: Any = array.strides
        return cls(str(array.filename), array.dtype.str, shape, int(whole.offset) + within, strides)

    def read(self, rows: range) -> np.ndarray:
        whole = np.memmap(self.path, np.uint8, "r")
        mapped: np.ndarray = np.ndarray(self.shape, self.dtype, whole, self.offset, self.strides)
        return np.array(mapped[rows.start : rows.stop], order="C")

    def chunk_rows(self) -> int:
        return 1

    def reference(self) -> dict[str, Any]:
        facts = {"dtype": self.dtype.str, "shape": self.shape, "offset": self.offset, "strides": self.strides}
        return {"mapped": self.path, **facts}


class ZarrArray:
    """A Zarr array; its chunks are decoded as they are read."""

    def __init__(self, array: Any) -> None:
        self.array, self.shape, self.dtype = array, tuple(array.shape), np.dtype(array.dtype)

    def read(self, rows: range) -> np.ndarray:
        return np.array(self.array[rows.start : rows.stop])

    def chunk_rows(self) -> int:
        return int((getattr(self.array, "shards", None) or self.array.chunks)[0])

    def reference(self) -> dict[str, Any]:
        root = getattr(self.array.store, "root", None)
        if root is None:
            raise TypeError(
                "X is a Zarr array outside a local folder, which a file cannot refer to: save it to a folder first"
            )
        return {"zarr": str((Path(root) / self.array.path).resolve())}


class Gone:
    """An array that is not where it was, or not what it was: only its shape is left."""

    def __init__(self, reference: dict[str, Any], shape: tuple[int, int], dtype: np.dtype, sentence: str) -> None:
        self.place, self.shape, self.dtype, self.sentence = reference, shape, dtype, sentence

    def read(self, rows: range) -> np.ndarray:
        raise ValueError(self.sentence)

    def chunk_rows(self) -> int:
        return 1

    def reference(self) -> dict[str, Any]:
        return self.place


def found_again(reference: dict[str, Any]) -> Source:
    """What `referred` told of; where it cannot be found, or has changed, reading it raises a ValueError that says so."""
    place, shape, dtype = reference["place"], tuple(reference["shape"]), np.dtype(reference["dtype"])
    where = place.get("mapped") or place.get("zarr")
    try:
        source = source_of(place)
        if source.shape == shape and fingerprint(source) == reference["fingerprint"]:
            return source
        sentence = f"X was read from {where}, which has changed since: fit again"
    except Exception as error:
        sentence = f"X was read from {where}, which cannot be read now ({error}): put it back"
    return Gone(place, shape, dtype, sentence)


def referred(source: Source) -> dict[str, Any]:
    """What finds a source again and tells whether it has changed, for JSON."""
    facts = {"place": source.reference(), "shape": source.shape, "dtype": source.dtype.str}
    return {**facts, "fingerprint": fingerprint(source)}


def source_of(X: Any) -> Source:
    """Of a memory map, a Zarr array, the path of either, or a source's reference.

    Raises:
        FileNotFoundError: there is nothing at the path.
        ValueError: it is of another kind.
        ModuleNotFoundError: a Zarr array needs zarr; the sentence says what to install.
    """
    if isinstance(X, np.memmap):
        return MappedFile.of(X)
    if isinstance(X, dict):
        if "zarr" in X:
            return source_of(X["zarr"])
        return MappedFile(X["mapped"], X["dtype"], tuple(X["shape"]), X["offset"], tuple(X["strides"]))
    if not isinstance(X, str | Path):
        return ZarrArray(X)
    path = Path(X)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if path.is_file() and path.suffix.lower() == ".npy":
        return MappedFile.of(np.load(path, mmap_mode="r"))
    if path.is_dir():
        try:
            import zarr
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"{path}: a Zarr array needs zarr: pip install 'ppnmf[io]'") from error
        return ZarrArray(zarr.open_array(path, mode="r"))
    raise ValueError(f"{path} is neither an .npy file nor the folder of a Zarr array; pass ppnmf.read({str(path)!r})")


def fingerprint(source: Source) -> str:
    """Of the shape, the type and some rows, which tells a file from another one without reading it all."""
    digest = hashlib.blake2b(f"{source.shape} {source.dtype.str}".encode(), digest_size=16)
    N = source.shape[0]
    for i in sorted({round(i * (N - 1) / (SAMPLED - 1)) for i in range(SAMPLED)}):
        digest.update(source.read(range(i, i + 1)).tobytes())
    return digest.hexdigest()
