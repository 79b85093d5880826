"""A matrix on disk, read a block of rows at a time: a memory-mapped .npy file, or a Zarr array."""

from __future__ import annotations

import hashlib
import math
import threading
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ppnmf.data.dense import Dense, in_memory
from ppnmf.data.labelled import NO_NAMES, Names
from ppnmf.data.noise import Noise
from ppnmf.data.survey import Survey, Surveyed
from ppnmf.protocols import Statistics

__all__ = ["Blocked", "Source", "found_again", "referred", "source_of", "survey", "warn_of_nothing_observed"]

BLOCK_ENTRIES = 2**21  # entries in a row block: 16 MB of float64, one for each thread that works
ALIGNED = 4  # times as large a block may be to hold whole chunks of a Zarr array
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
    raise ValueError(f"{path} is neither an .npy file nor the folder of a Zarr array; read it first and pass the array")


@dataclass(frozen=True, eq=False)
class Blocked(Surveyed):
    """A matrix that is read from disk block by block, perhaps with missing entries.

    One block lies in memory for each thread at work. Its checks were made, once, by `as_matrix`: the file must stay as
    it is.

    Args:
        source: where X is.
        survey: of its observed entries.
        mask: boolean (N, D) in memory or on disk, True where observed, or None.
        nan_missing: NaN entries are missing.
        noise: known relative noise variances, or None; those of single entries are in memory.
        where: the device to work on.
        names: of the rows and columns.
    """

    source: Source
    survey: Survey
    mask: Source | Tensor | None = None
    nan_missing: bool = False
    noise: Noise | None = None
    where: torch.device = torch.device("cpu")  # noqa: RUF009
    names: Names = field(default=NO_NAMES, compare=False, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        return self.source.shape

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        return _float_type(self.source.dtype)

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.where

    @cached_property
    def blocks(self) -> list[range]:
        """Borders depend on the shape, and on the chunks of the file, which are read whole where that is not too much."""
        return _blocks(self.source)

    def part(self, rows: range) -> Dense:
        """Some of the rows, in memory."""
        values = _read(self.source, rows, self.where)
        mask = None if self.mask is None else _read_mask(self.mask, rows, self.where)
        if self.nan_missing:
            mask = ~values.isnan() if mask is None else mask & ~values.isnan()
        if mask is not None:
            values = torch.where(mask, values, torch.zeros_like(values))
        return Dense(values, mask, None if self.noise is None else self.noise.part(rows))

    def filled(self) -> Tensor:
        """X (N, D) in memory, a missing entry as its column's observed mean."""
        dense = in_memory(self, "a start by nndsvd")
        return dense.values if dense.mask is None else torch.where(dense.mask, dense.values, self.column_means())

    def prepare(self, H: Tensor) -> Statistics:
        return self._empty.prepare(H)

    def row_statistics(self, rows: range, shared: Statistics) -> Statistics:
        told = [self._held(own).row_statistics(range(len(own)), shared) for own in self._within(rows)]
        return told[0] if len(told) == 1 else _concatenated(told)

    def column_statistics(self, rows: range, W: Tensor) -> Statistics:
        total = None
        for own in self._within(rows):
            part = self._held(own).column_statistics(
                range(len(own)), W[:, own.start - rows.start : own.stop - rows.start]
            )
            total = part if total is None else Statistics(total.P + part.P, total.Q + part.Q)
        assert total is not None
        return total

    def residual_sum_of_squares(self, rows: range, W: Tensor, H: Tensor) -> Tensor:
        total = torch.zeros(len(W), dtype=torch.float64, device=W.device)
        for own in self._within(rows):
            part = W[:, own.start - rows.start : own.stop - rows.start]
            total += self._held(own).residual_sum_of_squares(range(len(own)), part, H)
        return total

    @cached_property
    def _empty(self) -> Dense:
        """A matrix without rows that takes H as the blocks do."""
        values = torch.zeros(0, self.shape[1], dtype=self.dtype, device=self.where)
        masked = self.mask is not None or self.nan_missing
        noise = None if self.noise is None else Noise(self.noise.of(range(0)), self.noise.along)
        return Dense(values, values > 0 if masked else None, noise)

    def _within(self, rows: range) -> list[range]:
        """The range in pieces of a block at most."""
        size = len(self.blocks[0])
        return [range(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size)]

    def _held(self, rows: range) -> Dense:
        """Some rows, kept by this thread until it asks for others: what follows in a sweep is not read again."""
        key = (rows.start, rows.stop)
        if getattr(self._kept, "key", None) != key:
            self._kept.key, self._kept.part = None, None  # let go of the old ones first
            self._kept.part = self.part(rows)
            self._kept.key = key
        return self._kept.part

    @cached_property
    def _kept(self) -> threading.local:
        return threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_kept", "_empty")}


def survey(source: Source, mask: Source | Tensor | None, nan_missing: bool, noise: Noise | None) -> Survey:
    """Pass through X once: what `as_matrix` checks, and what is known of X afterwards.

    Raises:
        ValueError: entries that are not finite, or nothing is observed.
    """
    D = source.shape[1]
    nothing = Survey(0, 0.0, 0.0, 0.0, 0.0, 0, 0.0, np.zeros(D))
    X = Blocked(source, nothing, mask, nan_missing, noise)
    n = n_negative = nan = inf = empty_rows = 0
    squares = log_noise = 0.0
    least = math.inf
    columns, counts = np.zeros(D), np.zeros(D, dtype=np.int64)
    parts = []
    for rows in X.blocks:
        part = X.part(rows)
        seen, values = part.n_observed, part.values.double()
        column = values.sum(0)
        if not bool(column.sum().isfinite()):
            nan, inf = nan + int(values.isnan().sum()), inf + int(values.isinf().sum())
        if nan or inf:
            continue
        if part.mask is None:
            counts += len(rows)
        else:
            counts += part.mask.sum(0).numpy()
            empty_rows += int((~part.mask.any(1)).sum())
        if not seen:
            continue
        columns += column.numpy()
        lowest = float(values.min())
        n, least, n_negative = n + seen, min(least, lowest), n_negative + (part.n_negative if lowest < 0 else 0)
        mean = float(column.sum()) / seen
        log_noise += part.log_noise
        squares += part.sum_of_squares
        parts.append((seen, mean, *_deviations(part, values - mean)))
    if nan:
        raise ValueError(
            f"X has {nan} NaN entries; if they are missing, say so with missing='nan' or a mask (True where observed)"
        )
    if inf:
        raise ValueError(f"X has {inf} infinite entries; finite numbers are needed: check the input, or mask them")
    if not n:
        raise ValueError("no entry of X is observed; at least one is needed")
    warn_of_nothing_observed(empty_rows, int((counts == 0).sum()))
    mean = math.fsum(part[0] * part[1] for part in parts) / n
    total = math.fsum(s + 2 * (m - mean) * linear + (m - mean) ** 2 * one for _, m, s, linear, one in parts)
    means = np.where(counts > 0, columns / np.maximum(counts, 1), mean)
    return Survey(n, mean, total / n, squares, log_noise, n_negative, least, means)


def _deviations(part: Dense, deviations: Tensor) -> tuple[float, float, float]:
    """Σ d² / v, Σ d / v and Σ 1 / v over the observed entries of deviations d from their mean; v = 1 without noise."""
    if part.mask is not None:
        deviations = deviations * part.mask
    if part.noise is None:
        return float(deviations.square().sum()), 0.0, float(part.n_observed)
    over = part.over_noise(torch.ones_like(deviations) if part.mask is None else part.mask.double())
    return float((deviations.square() * over).sum()), float((deviations * over).sum()), float(over.sum())


def warn_of_nothing_observed(rows: int, columns: int) -> None:
    if rows or columns:
        what = " and ".join(f"{n} {name}" for n, name in ((rows, "row(s)"), (columns, "column(s)")) if n)
        warnings.warn(f"{what} of X have nothing observed: their factors follow the prior alone", stacklevel=6)


def fingerprint(source: Source) -> str:
    """Of the shape, the type and some rows, which tells a file from another one without reading it all."""
    digest = hashlib.blake2b(f"{source.shape} {source.dtype.str}".encode(), digest_size=16)
    N = source.shape[0]
    for i in sorted({round(i * (N - 1) / (SAMPLED - 1)) for i in range(SAMPLED)}):
        digest.update(source.read(range(i, i + 1)).tobytes())
    return digest.hexdigest()


def _blocks(source: Source) -> list[range]:
    N, D = source.shape
    size, chunk = max(1, BLOCK_ENTRIES // D), source.chunk_rows()
    if chunk * D <= ALIGNED * BLOCK_ENTRIES:
        size = -(-size // chunk) * chunk
    return [range(start, min(start + size, N)) for start in range(0, N, size)]


def _float_type(dtype: np.dtype) -> torch.dtype:
    return torch.float32 if dtype.kind == "f" and dtype.itemsize <= 4 else torch.float64


def _read(source: Source, rows: range, device: torch.device) -> Tensor:
    read = source.read(rows)
    wanted = np.float32 if _float_type(source.dtype) == torch.float32 else np.float64
    return torch.from_numpy(read.astype(wanted, copy=False)).to(device)


def _read_mask(mask: Source | Tensor, rows: range, device: torch.device) -> Tensor:
    part = mask[rows.start : rows.stop] if isinstance(mask, Tensor) else torch.from_numpy(mask.read(rows))
    return part.to(device)


def _concatenated(told: list[Statistics]) -> Statistics:
    P = torch.cat([part.P.mT for part in told], 2).mT
    if told[0].Q.ndim == told[0].P.ndim:
        return Statistics(P, told[0].Q)
    return Statistics(P, torch.cat([part.Q.permute(0, 2, 3, 1) for part in told], 3).permute(0, 3, 1, 2))
