"""Checks of arguments that many functions share; each answers in one sentence: what came, what is wanted, what to do."""

from __future__ import annotations

import difflib
import inspect
import math
import operator
from collections.abc import Callable, Collection, Iterable
from functools import cache
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "borrowed",
    "described",
    "known_options",
    "meant",
    "one_of",
    "plain",
    "real_number",
    "require_device",
    "whole_number",
    "whole_numbers",
    "yes_or_no",
]

LONGEST = 60  # characters of a value that a sentence quotes
DEVICES = ("cpu", "cuda")  # kinds of device that there are kernels for


def described(value: Any) -> str:
    """A value in a few words: itself where it is short, else its kind and size."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    shape = getattr(value, "shape", None)
    if shape and not isinstance(value, type):
        return f"a {type(value).__name__} of shape {tuple(shape)}"
    text = " ".join(repr(value).split())
    if len(text) <= LONGEST and not text.startswith("<"):
        return text
    size = f" of {len(value)}" if isinstance(value, list | tuple | dict | set) else ""
    return f"a {type(value).__name__}{size}"


def meant(name: Any, names: Iterable[Any]) -> str:
    """A question to put behind "there is no such name", where one of the names is near; else nothing."""
    lower = {str(known).lower(): known for known in names}
    near = difflib.get_close_matches(str(name).lower(), lower, n=1)
    return f" (did you mean {lower[near[0]]!r}?)" if near else ""


def one_of(name: str, value: Any, names: Collection[str]) -> str:
    """`value` if it is one of the names. Raises ValueError, with the nearest one."""
    if isinstance(value, str) and value in names:
        return value
    near = meant(value, names) if isinstance(value, str) else ""
    raise ValueError(f"{name} is {described(value)}{near}; it must be one of {', '.join(map(repr, names))}")


def whole_number(name: str, value: Any, least: int) -> int:
    """`value` as an int. Raises ValueError when it is not a whole number (NumPy's are) or below `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least:
        raise ValueError(f"{name} is {described(value)}; it must be a whole number >= {least}")
    return number


def whole_numbers(**values: tuple[Any, int]) -> None:
    """Check several: name=(value, least)."""
    for name, (value, least) in values.items():
        whole_number(name, value, least)


def real_number(name: str, value: Any, least: float | None = None) -> float:
    """`value` as a finite float. Raises ValueError when it is none, below `least` or, without `least`, not positive."""
    wanted = "a positive number" if least is None else f"a number >= {least:g}"
    single = value.item() if isinstance(value, np.ndarray | Tensor) and value.ndim == 0 else value
    number = float(single) if isinstance(single, Real) and not isinstance(single, bool) else math.nan
    if not math.isfinite(number) or (number <= 0 if least is None else number < least):
        raise ValueError(f"{name} is {described(value)}; it must be {wanted}")
    return number


def yes_or_no(**values: Any) -> None:
    """Check flags: name=value. Raises ValueError for what is neither True nor False; "no" would count as True."""
    for name, value in values.items():
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"{name} is {described(value)}; it must be True or False")


def borrowed(name: str, values: Any, kinds: str = "fiub", wanted: str = "real numbers are needed") -> Tensor:
    """A tensor over an array's memory, or over a copy where torch could not take it as it is.

    Raises:
        ValueError: entries of another kind (NumPy's `dtype.kind`), or rows of different lengths.
    """
    if isinstance(values, Tensor):
        return plain(values)
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} is {described(values)} whose rows have different lengths; {wanted}") from error
    if array.dtype.kind not in kinds:
        what = f"is {described(values)}" if array.ndim == 0 else f"has entries of type {array.dtype}"
        raise ValueError(f"{name} {what}; {wanted}")
    usable = array.flags.writeable and array.dtype.isnative and min(array.strides, default=0) >= 0
    native = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    return torch.from_numpy(native if usable else native.copy())


def plain(tensor: Tensor) -> Tensor:
    """The tensor without its gradient; a copy where it was made in inference mode, which no gradient can go through."""
    return tensor.detach().clone() if tensor.is_inference() else tensor.detach()


def known_options(method: str, run: Callable[..., Any], options: Iterable[str]) -> None:
    """Raise TypeError when a method's `run` lacks one of the options, and say which it has."""
    allowed = _parameters(run)
    own = [name for name in allowed if name not in ("model", "X", "seed", "progress")]
    unknown = [f"{name}{meant(name, own)}" for name in options if name not in allowed]
    if unknown:
        raise TypeError(f"{method} has no option {', '.join(unknown)}; it has {', '.join(own)}")


@cache
def _parameters(run: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(run).parameters)


def require_device(name: str, device: Any) -> None:
    """Raise ValueError where torch knows no such device, there is none here, or our kernels do not run on it."""
    if device is None:
        return
    try:
        found = None if isinstance(device, bool) else torch.device(device)
    except (RuntimeError, TypeError):
        found = None
    said = described(device if not isinstance(device, torch.device) else str(device))
    if found is None or found.type not in DEVICES:
        raise ValueError(f"{name} is {said}; ppnmf works on 'cpu', or on 'cuda' where there is a CUDA device")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"{name} is {said}, and torch finds no CUDA device here: leave it out to work on the CPU")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"{name} is {said}, and there are {torch.cuda.device_count()} CUDA devices here, from 'cuda:0' on"
        )
