"""Posteriors on disk: a NetCDF file that ArviZ opens too.

After the end of the file proper, where readers of HDF5 do not look, stands a seal: a checksum of every byte before it.
A program that changes the file takes the seal off; one that only reads leaves it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ppnmf import __version__
from ppnmf.arviz import as_numpy
from ppnmf.data.saved import facts_and_arrays, restored
from ppnmf.disk import replacing
from ppnmf.models import REGISTRY
from ppnmf.protocols import Model

if TYPE_CHECKING:
    import xarray

    from ppnmf.posterior import Posterior

__all__ = ["read", "write"]

FORMAT = 2  # 1, without a number and a seal, is that of version 0.1.0
SEAL = b"\nppnmf sha256 "
SEALED = len(SEAL) + 32  # bytes of a seal
KINDS = {"icm": "modes", "smc": "independent", "svi": "approximation"}  # of files that do not say, by method
GROUPS = ("posterior", "sample_stats", "observed_data", "constant_data", "ppnmf_model", "ppnmf_data")  # that are read
AT_ONCE = 2**22  # bytes that are read at a time


def write(post: Posterior, path: str | Path, names: dict[str, Sequence[str] | None]) -> Path:
    """What `Posterior.save` does. The file is written whole or not at all."""
    tree = post.to_datatree(**names)  # type: ignore[arg-type]
    told = {axis: list(map(str, given)) for axis, given in names.items() if given is not None}
    facts = {
        "format": FORMAT,
        "version": __version__,
        "model": post.model.name,
        "method": post.method,
        "seed": post.seed,
        "timings": post.timings,
        "attrs": post.attrs,
        "names": post.names | told,
        "kind": post.kind.value,
    }
    config, arrays = {}, {}
    for name, value in post.model.config().items():
        if isinstance(value, Tensor):
            arrays[f"config.{name}"] = value
        else:
            config[name] = value
    if isinstance(post.model, torch.nn.Module):
        arrays |= {f"state.{name}": value for name, value in post.model.state_dict().items()}
    about_X, parts_of_X = facts_and_arrays(post.X)
    if about_X["kind"] != "dense":
        for group in ("observed_data", "constant_data"):
            if group in tree.children:
                del tree[group]
    tree.attrs["ppnmf"] = json.dumps({**facts, "config": config, "X": about_X})
    tree["ppnmf_model"] = _dataset(arrays)
    tree["ppnmf_data"] = _dataset(parts_of_X)
    with replacing(path, _Patient) as file:
        _write_patiently(tree, file)
        file.seal()
    return Path(path)


def _write_patiently(tree: Any, file: _Patient) -> None:
    """Write in another thread, since Ctrl-C is raised in the main one and HDF5 would not survive it either."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(
            int
        ).result()  # Python may lose a thread that it is interrupted in starting: this one has no file yet
        try:
            thread.submit(tree.to_netcdf, file, engine="h5netcdf").result()
        except BaseException as error:
            file.fail(error)  # what is left takes no time
            raise


class _Patient(io.FileIO):
    """A new file that fails only at the end: HDF5 ends the process when a write of its own fails, as on a full disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "x+")
        self._failure: BaseException | None = None  # from which on nothing is written

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = left.nbytes
        while left and self._failure is None:
            try:
                left = left[super().write(left) :]
            except Exception as error:
                self.fail(error)
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            if self._failure is None:
                super().truncate(size)
        except Exception as error:
            self.fail(error)
        return self.tell() if size is None else size

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, with zeros where nothing was written."""
        room = memoryview(buffer).cast("B")
        got = super().readinto(room) or 0
        room[got:] = bytes(len(room) - got)
        return len(room)

    def fail(self, error: BaseException) -> None:
        """Write no more, and raise this at the end."""
        self._failure = error

    def seal(self) -> None:
        """End the file. Raises what a write had failed with."""
        if self._failure is None:
            size = self.seek(0, os.SEEK_END)
            self.write(SEAL + _checksum(self, size))
        if self._failure is not None:
            raise self._failure


def read(path: str | Path) -> dict[str, Any]:
    """The fields of the `Posterior` that `write` wrote.

    Of a file that another program has changed, and which so has no seal any more, a warning says that.

    Raises:
        ValueError: the file is not one of ours, is damaged, or is of a later format or an unknown model.
        OSError: there is no such file, or it may not be read.
    """
    sealed = _is_sealed(path)
    with _as_damage(path):
        facts = _facts(path)
    if facts is None:
        raise ValueError(f"{path} holds no ppnmf posterior; files written by Posterior.save do")
    _refuse_unknown(path, facts)
    with _as_damage(path):
        groups = _groups(path)
        model = _model(facts, groups["ppnmf_model"])
        about_X, parts = facts.get("X", {"kind": "dense"}), groups.get("ppnmf_data", {})
        if about_X["kind"] == "dense":
            parts |= {"values": groups["observed_data"]["X"], "mask": groups["constant_data"]["mask"]}
        rest = {name: facts[name] for name in ("method", "seed", "timings", "attrs", "names")}
        draws, stats = groups["posterior"], groups["sample_stats"]
    if "format" in facts and not sealed:
        warnings.warn(
            f"{path} was changed or written anew by another program since ppnmf saved it: whether it is whole cannot be "
            "checked",
            stacklevel=4,
        )
    kind = facts.get("kind", KINDS.get(facts["method"], "chains"))
    return {"draws": draws, "stats": stats, "model": model, "X": restored(about_X, parts), "kind": kind, **rest}


def _checksum(file: IO[bytes], size: int) -> bytes:
    """Of the first `size` bytes."""
    digest, left = hashlib.sha256(), size
    file.seek(0)
    while left and (block := file.read(min(left, AT_ONCE))):
        digest.update(block)
        left -= len(block)
    return digest.digest()


def _is_sealed(path: str | Path) -> bool:
    """Whether the file has a seal. Raises ValueError when it is not that of the bytes before it."""
    with open(path, "rb") as file:
        size = max(0, file.seek(0, os.SEEK_END) - SEALED)
        file.seek(size)
        seal = file.read()
        if not seal.startswith(SEAL):
            return False
        if seal != SEAL + _checksum(file, size):
            raise ValueError(f"{path} is damaged: it does not hold the bytes that were saved; take another copy of it")
        return True


@contextmanager
def _as_damage(path: str | Path) -> Iterator[None]:
    """Whatever the libraries make of bytes that have no meaning, in a sentence."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        why = " ".join(str(error).split())[:150] or type(error).__name__
        raise ValueError(f"{path} is cut off, damaged, or no posterior that ppnmf saved ({why})") from error


def _facts(path: str | Path) -> dict[str, Any] | None:
    """What the file says about itself; None where it is not one of ours."""
    import h5py

    with h5py.File(path, "r") as file:
        text = file.attrs.get("ppnmf")
    return None if text is None else dict(json.loads(text))


def _refuse_unknown(path: str | Path, facts: Mapping[str, Any]) -> None:
    """Raise ValueError where a later version is needed."""
    by = f"version {facts['version']}" if "version" in facts else "another version"
    if facts.get("format", 1) > FORMAT:
        raise ValueError(
            f"{path} has format {facts['format']}, written by {by} of ppnmf, and this one, {__version__}, reads up to {FORMAT}: "
            "install that version"
        )
    if facts.get("model") not in REGISTRY:
        raise ValueError(
            f"{path} is of the model {facts.get('model')!r}, written by {by} of ppnmf; this one, {__version__}, has "
            f"{', '.join(REGISTRY)}: install that version, or import what defines the model"
        )


def _groups(path: str | Path) -> dict[str, dict[str, Tensor]]:
    """The variables of each group."""
    import xarray as xr

    with xr.open_datatree(path, engine="h5netcdf") as tree:
        return {
            group: {str(name): _tensor(values) for name, values in node.data_vars.items()}
            for group, node in tree.children.items()
            if group in GROUPS
        }


def _model(facts: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> Model:
    config: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts["config"].items()}
    config |= _below("config.", arrays)
    model = REGISTRY[facts["model"]](**config)
    if isinstance(model, torch.nn.Module):
        model.load_state_dict(_below("state.", arrays))
    return model


def _below(prefix: str, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}


def _tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.array(values.values))


def _dataset(arrays: dict[str, Tensor]) -> xarray.Dataset:
    import xarray as xr

    return xr.Dataset({name: ([f"{name}_{axis}" for axis in range(a.ndim)], as_numpy(a)) for name, a in arrays.items()})
