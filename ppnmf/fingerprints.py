"""Hashes of arrays, of matrices and of collections of them, by which a run knows its data and its model again."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["SIMPLE", "fingerprint"]

AT_ONCE = 2**22  # bytes that are hashed at a time
SIMPLE = (str, int, float, bool, type(None), list, tuple)


def fingerprint(value: Any) -> str:
    """A hash of an array, of a `Matrix` (its fields), or of a collection of such; a change of type shows."""
    digest = hashlib.blake2b(digest_size=16)
    _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, Mapping):
        for name in sorted(value):
            digest.update(f"{name}:".encode())
            _feed(digest, value[name])
    elif dataclasses.is_dataclass(value):
        digest.update(type(value).__name__.encode())
        compared = [field.name for field in dataclasses.fields(value) if field.compare]  # names of rows are no data
        _feed(digest, {name: getattr(value, name) for name in compared})
    elif isinstance(value, tuple | list):
        _feed(digest, dict(enumerate(value)))
    elif hasattr(value, "dtype") and hasattr(value, "shape"):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        for block in _blocks(value):
            digest.update(block)
    elif hasattr(value, "to_numpy"):  # a data frame
        _feed(digest, value.to_numpy())
    else:  # of an object that we do not know, its type: its place in memory will be another one next time
        digest.update(repr(value if isinstance(value, SIMPLE) else type(value)).encode())


def _blocks(array: Any) -> Iterator[Any]:
    """The bytes of an array (a tensor, NumPy's, or one on disk with a `read`) by blocks of its rows."""
    if not array.shape:
        yield _rows(array, 0, 1).tobytes()
        return
    size = max(1, AT_ONCE // max(1, int(np.prod(array.shape[1:])) * 8))
    for first in range(0, array.shape[0], size):
        yield np.ascontiguousarray(_rows(array, first, min(first + size, array.shape[0]))).data


def _rows(array: Any, first: int, last: int) -> np.ndarray:
    if hasattr(array, "read"):
        return array.read(range(first, last))
    part = array[first:last] if array.shape else array
    return part.detach().cpu().numpy() if isinstance(part, Tensor) else np.asarray(part)
