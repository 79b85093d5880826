"""Where the draws of a run are kept: in memory, or in a Zarr store on disk that is written while the run goes on."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Memory", "Zarr"]

MISSING = 2**64 - 1  # the format's word for a chunk that is not there
NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


class Memory:
    """Draws in memory, in arrays that are made at once.

    Args:
        shapes: name -> shape of one draw in one chain.
        chains, draws: how many there will be.
        dtypes: name -> floating type.
        device: where they lie.

    Raises:
        MemoryError: there is not so much memory.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        chains: int,
        draws: int,
        dtypes: Mapping[str, torch.dtype],
        device: torch.device,
    ) -> None:
        self._kept = {
            name: torch.empty(chains, draws, *shape, dtype=dtypes[name], device=device)
            for name, shape in shapes.items()
        }

    def write(self, first: int, values: Mapping[str, Tensor]) -> None:
        """Keep draws (C, n, ...) as those from number `first` on."""
        for name, kept in self._kept.items():
            kept[:, first : first + values[name].shape[1]] = values[name]

    def read(self, first: int, last: int) -> dict[str, Tensor]:
        """Draws first, ..., last - 1 of every name, (C, last - first, ...), without a copy."""
        return {name: kept[:, first:last] for name, kept in self._kept.items()}

    def sync(self) -> None:
        """Nothing has to reach a disk."""

    def close(self) -> None:
        """Nothing is open."""


class Zarr:
    """Draws in a Zarr store (format 3) with ArviZ's groups, `posterior` and `sample_stats`; any Zarr reader opens it.

    An array is one file: W and H one shard whose inner chunks, uncompressed, are the draws in their order, after an
    index that says where each one is. So a draw is written in place by one call, a reader sees each draw as soon as
    its entry stands in the index and NaN until then, and the whole file is mapped into memory as one tensor, of which
    only what is looked at is ever read. A number a draw (sigma2, lp) is an uncompressed chunk of its own.

    Args:
        path: the folder of the store; what is not there is made.
        dims: site -> its dimensions' names; an array without is a statistic.
        facts: what JSON can hold about the run; a store with other facts is refused.
        again: whether a store of the same facts may be there, and is written over.

    The other arguments are those of `Memory`.

    Raises:
        ValueError: there is a store, and `again` does not hold or it is another run's.
        ModuleNotFoundError: zarr is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        shapes: Mapping[str, tuple[int, ...]],
        chains: int,
        draws: int,
        dtypes: Mapping[str, torch.dtype],
        dims: Mapping[str, list[str]],
        facts: Mapping[str, Any],
        again: bool = False,
    ) -> None:
        self.path = Path(path)
        facts = json.loads(json.dumps({**facts, "draws": draws}))
        arrays = {
            name: _Array((chains, draws, *shape), _numpy_type(dtypes[name]), dims.get(name))
            for name, shape in shapes.items()
        }
        if not self.path.exists():
            _make(self.path, arrays, facts)
        elif not again:
            raise ValueError(f"store is {self.path}, which is there already: remove it, or choose another name")
        elif (told := _facts(self.path)) != facts:
            why = "more or fewer draws" if told == {**facts, "draws": told.get("draws")} else "another run"
            raise ValueError(f"store is {self.path}, which is for {why}: give the store that the run was begun with")
        for name, array in arrays.items():
            array.open(self.path / array.place(name))
        self._arrays = arrays

    def write(self, first: int, values: Mapping[str, Tensor]) -> None:
        """Keep draws (C, n, ...) as those from number `first` on. Raises OSError when the disk is full."""
        for name, array in self._arrays.items():
            array.write(first, values[name].detach().cpu().numpy())

    def read(self, first: int, last: int) -> dict[str, Tensor]:
        """Draws first, ..., last - 1 of every name, (C, last - first, ...), mapped into memory, not read."""
        return {name: array.mapped()[:, first:last] for name, array in self._arrays.items()}

    def holds(self, draws: int) -> bool:
        """Whether the first `draws` draws of every chain have been written."""
        return all(array.holds(draws) for array in self._arrays.values())

    def sync(self) -> None:
        """Wait until everything has reached the disk."""
        for array in self._arrays.values():
            array.sync()

    def close(self) -> None:
        for array in self._arrays.values():
            array.close()


class _Array:
    """The one file of an array (C, draws, ...): its index, where it has one, and then the draws of each chain."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, dims: list[str] | None) -> None:
        self.shape, self.dtype, self.dims = shape, dtype, dims
        self.draw = int(np.prod(shape[2:])) * dtype.itemsize  # bytes of one
        self.index = 16 * shape[0] * shape[1] if len(shape) > 2 else 0  # bytes: an offset and a size for each draw

    @property
    def group(self) -> str:
        """ArviZ's group of a site, or of a statistic."""
        return "sample_stats" if self.dims is None else "posterior"

    def place(self, name: str) -> str:
        """Its file below the store."""
        return "/".join([self.group, name, "c", *["0"] * len(self.shape)])

    def make(self, path: Path) -> None:
        """The file without a draw: an index of what is missing, or NaN; the rest is a hole that takes no room."""
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            if self.index:
                for _ in range(self.shape[0]):
                    file.write(np.full((self.shape[1], 2), MISSING, "<u8").tobytes())
            else:
                file.write(np.full(self.shape, np.nan, self.dtype).tobytes())
            file.truncate(self.index + self.shape[0] * self.shape[1] * self.draw)
            os.fsync(file.fileno())

    def open(self, path: Path) -> None:
        self._path, self._file = path, path.open("r+b", buffering=0)

    def write(self, first: int, values: np.ndarray) -> None:
        chains, n = values.shape[:2]
        starts = [self.index + (chain * self.shape[1] + first) * self.draw for chain in range(chains)]
        for at, mine in zip(starts, values, strict=True):
            _write(self._file, at, mine)
        if self.index:  # only now, when they are there
            for chain, at in enumerate(starts):
                entries = [(at + i * self.draw, self.draw) for i in range(n)]
                _write(self._file, 16 * (chain * self.shape[1] + first), np.array(entries, "<u8"))

    def mapped(self) -> Tensor:
        """The whole array; a change to it stays in memory."""
        flags = {"flags": mmap.MAP_PRIVATE | NO_RESERVE, "prot": mmap.PROT_READ | mmap.PROT_WRITE}
        with self._path.open("r+b") as file:
            held = mmap.mmap(file.fileno(), 0, **(flags if os.name == "posix" else {"access": mmap.ACCESS_COPY}))
        return torch.from_numpy(np.frombuffer(held, self.dtype, offset=self.index).reshape(self.shape))

    def holds(self, draws: int) -> bool:
        self._file.seek(0)
        for _ in range(self.shape[0]):  # of the index, or of the numbers themselves
            row = self._file.read(16 * self.shape[1] if self.index else self.draw * self.shape[1])
            sizes, numbers = np.frombuffer(row, "<u8")[1::2], np.frombuffer(row, self.dtype)
            if not (sizes[:draws] == self.draw if self.index else ~np.isnan(numbers[:draws])).all():
                return False
        return True

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _write(file: Any, at: int, values: np.ndarray) -> None:
    """All bytes of the values from position `at` on (a disk that fills up takes a part before it says so)."""
    file.seek(at)
    left = np.ascontiguousarray(values).data.cast("B")
    while left:
        left = left[file.write(left) :]


def _make(path: Path, arrays: Mapping[str, _Array], facts: Mapping[str, Any]) -> None:
    """The store without a draw, whole or not at all."""
    zarr = _zarr()
    needed = sum(array.index + array.shape[0] * array.shape[1] * array.draw for array in arrays.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    if needed > (free := shutil.disk_usage(path.parent).free):
        warnings.warn(f"the draws need {needed / 1e9:.3g} GB and the disk of {path} has {free / 1e9:.3g}", stacklevel=5)
    new = path.with_name(f".{path.name}.new")
    with suppress(FileNotFoundError):
        shutil.rmtree(new)
    root = zarr.open_group(new, mode="w", zarr_format=3, attributes={"ppnmf": facts})
    groups = {group: root.create_group(group) for group in ("posterior", "sample_stats")}
    for name, array in arrays.items():
        groups[array.group].create_array(
            name,
            shape=array.shape,
            chunks=array.shape,
            dtype=array.dtype,
            fill_value=np.nan,
            compressors=None,
            serializer=_shard(array.shape) if array.index else "auto",
            dimension_names=["chain", "draw", *(array.dims or [])],
        )
        array.make(new / array.place(name))
    new.replace(path)


def _shard(shape: tuple[int, ...]) -> Any:
    from zarr.codecs import BytesCodec, ShardingCodec

    plain = [BytesCodec()]  # no checksum in the index: it would be wrong while entries are being added
    return ShardingCodec(chunk_shape=(1, 1, *shape[2:]), codecs=plain, index_codecs=plain, index_location="start")


def _facts(path: Path) -> dict[str, Any]:
    try:
        return json.loads((path / "zarr.json").read_text())["attributes"]["ppnmf"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"store is {path}, which is no store of a run: choose another name") from error


def _zarr() -> Any:
    try:
        import zarr
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("store= needs zarr: pip install 'ppnmf[io]'") from error
    if int(zarr.__version__.split(".")[0]) < 3:
        raise ModuleNotFoundError(f"store= needs zarr >= 3, and {zarr.__version__} is installed: pip install 'zarr>=3'")
    return zarr


def _numpy_type(dtype: torch.dtype) -> np.dtype:
    return torch.empty(0, dtype=dtype).numpy().dtype
