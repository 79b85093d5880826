"""What a reader of files is asked, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Found", "Reading", "first_few"]

SHOWN = 3  # names in a sentence


class Reading(NamedTuple):
    """How to read a file, where it does not say so itself; the words are those of `files.read`."""

    header: bool | None = None
    row_names: str | bool | None = None
    layer: str | None = None


class Found(NamedTuple):
    """A matrix as it is in a file.

    Args:
        X: (N, D): an array, a memory map or a SciPy matrix.
        rows, columns: names, or None.
        remarks: how the file was understood, in words.
        missing: the spellings of missing that were met, and how often; only of tables.
    """

    X: Any
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None
    remarks: list[str] | tuple[str, ...] = ()
    missing: Mapping[str, int] = MappingProxyType({})


def first_few(names: Sequence[Any] | np.ndarray) -> str:
    """The first few names, for a sentence.

    >>> first_few(["a", "b", "c", "d"])
    'a, b, c, ...'
    """
    return ", ".join(map(str, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
