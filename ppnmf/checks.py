"""Checks of arguments that many functions share; each answers in one sentence."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["borrowed", "known_options", "plain", "whole_number", "whole_numbers"]


def whole_number(name: str, value: Any, least: int) -> int:
    """`value` as an int. Raises ValueError when it is not a whole number (NumPy's are) or below `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least:
        raise ValueError(f"{name} is {value!r}; it must be a whole number >= {least}")
    return number


def whole_numbers(**values: tuple[Any, int]) -> None:
    """Check several: name=(value, least)."""
    for name, (value, least) in values.items():
        whole_number(name, value, least)


def borrowed(name: str, values: Any, kinds: str = "fiub", wanted: str = "real numbers are needed") -> Tensor:
    """A tensor over an array's memory, or over a copy where torch could not take it as it is.

    Raises:
        ValueError: entries of another kind (NumPy's `dtype.kind`).
    """
    if isinstance(values, Tensor):
        return plain(values)
    array = np.asarray(values)
    if array.dtype.kind not in kinds:
        raise ValueError(f"{name} has entries of type {array.dtype}; {wanted}")
    usable = array.flags.writeable and array.dtype.isnative and min(array.strides, default=0) >= 0
    native = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    return torch.from_numpy(native if usable else native.copy())


def plain(tensor: Tensor) -> Tensor:
    """The tensor without its gradient; a copy where it was made in inference mode, which no gradient can go through."""
    return tensor.detach().clone() if tensor.is_inference() else tensor.detach()


def known_options(method: str, run: Callable[..., Any], options: Iterable[str]) -> None:
    """Raise TypeError when a method's `run` lacks one of the options, and say which it has."""
    allowed = inspect.signature(run).parameters
    unknown = [name for name in options if name not in allowed]
    if unknown:
        own = [name for name in allowed if name not in ("model", "X", "seed", "progress")]
        raise TypeError(f"{method} has no option {', '.join(unknown)}; it has {', '.join(own)}")
