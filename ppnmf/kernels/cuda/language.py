"""How kernels are declared, for the compiler and for the interpreter, and what Triton itself lacks.

A number in a formula takes the type of what it meets, but one that is assigned to a name or chosen by `tl.where` may
become float32: such numbers are 0, 1 or infinity in these kernels, or stand in `tl.full`.
"""

import math
from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl
from triton import knobs  # older versions have none: an ImportError, as without Triton

__all__ = [
    "INTERPRETED",
    "beyond_line",
    "constant",
    "device_function",
    "expm1",
    "kernel",
    "least_of",
    "log1p",
    "polynomial",
    "sum_of",
]

INTERPRETED = knobs.runtime.interpret


def device_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that kernels call: compiled into them, or plain Python in the interpreter, which is slow to enter one."""
    return function if INTERPRETED else triton.jit(function)


def kernel(function: Callable[..., Any]) -> Any:
    """A function to launch; no version of it is compiled for special values of a whole number, such as 1."""
    return triton.jit(do_not_specialize=[n for n, kind in function.__annotations__.items() if kind is tl.int64])(
        function
    )


def constant(value: Any) -> Any:
    """A number, or a tuple of them, that kernels may name."""
    return value if INTERPRETED else tl.constexpr(value)


BEYOND_LINE = constant(tuple(2 / math.factorial(n) for n in range(13, 1, -1)))  # of (eʸ - 1 - y) / (y²/2)


@device_function
def sum_of(x, axis: tl.constexpr):  # type: ignore[no-untyped-def]
    """`tl.sum`, which the interpreter would enter as a kernel of its own."""
    return tl.reduce(x, axis, tl.standard._sum_combine)


@device_function
def least_of(x, axis: tl.constexpr):  # type: ignore[no-untyped-def]
    """`tl.min`, likewise; an infinity stands for nothing."""
    return tl.reduce(x, axis, tl.standard._elementwise_min)


@device_function
def polynomial(x, coefficients: tl.constexpr):  # type: ignore[no-untyped-def]
    """By Horner's rule, highest power first."""
    total = x * coefficients[0] + coefficients[1]
    for i in tl.static_range(2, len(coefficients)):
        total = total * x + coefficients[i]
    return total


@device_function
def beyond_line(y):  # type: ignore[no-untyped-def]
    """eʸ - 1 - y, keeping its relative accuracy near zero."""
    near = 0.5 * y * y * polynomial(y, BEYOND_LINE)
    return tl.where(tl.abs(y) < 0.0625, near, (tl.exp(y) - 1.0) - y)


@device_function
def expm1(y):  # type: ignore[no-untyped-def]
    """eʸ - 1, keeping its relative accuracy near zero."""
    near = y + 0.5 * y * y * polynomial(y, BEYOND_LINE)
    return tl.where(tl.abs(y) < 0.0625, near, tl.exp(y) - 1.0)


@device_function
def log1p(x):  # type: ignore[no-untyped-def]
    """log(1 + x): the rounding of 1 + x is divided out."""
    rounded = 1.0 + x
    step = rounded - 1.0
    return tl.where(step == 0, x, tl.log(rounded) * (x / tl.where(step == 0, 1.0, step)))
