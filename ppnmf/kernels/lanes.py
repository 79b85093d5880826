"""Elementary functions for Numba that LLVM can run on all lanes of a vector register at once.

`math.log` and `math.exp` are calls, and a loop with a call in it is not vectorised; these are plain arithmetic without
branches. A branch is written as `select(condition, a, b)`: both sides are computed and one is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from ppnmf.compilation import can_be_kept

__all__ = [
    "COMPILED",
    "ENTRY",
    "INLINED",
    "INNER",
    "bits",
    "exp",
    "from_bits",
    "fused",
    "inner",
    "inner_of_three",
    "log",
    "polynomial",
    "select",
    "total_of",
    "weighted_rows",
]

# Divisions are not checked for zero, and no lane is expected to be NaN. Nothing may round otherwise than it is written:
# a function can be compiled into several others, and which of the copies runs depends on what the process loaded first.
# So products and sums fuse where `fused` says so, and sums over lanes are `total_of`, `inner` and `inner_of_three`.
COMPILED: dict[str, Any] = {
    "nogil": True,
    "cache": can_be_kept(),
    "error_model": "numpy",
    "fastmath": {"nsz", "nnan"},
}
ENTRY = {
    **COMPILED,
    "no_cfunc_wrapper": True,
}  # called from Python alone, and not by its address: a wrapper less to compile
# A function that has one caller, or is a few lines in a loop of lanes: compiled as part of its caller, not by itself first
INLINED = {**COMPILED, "cache": False, "inline": "always"}
# Only compiled functions call these: from Python they would end the process. Such an entry takes long to compile too
INNER = {**COMPILED, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

DOUBLE = ir.DoubleType()
INT64 = ir.IntType(64)
AT_ONCE = 32  # lanes of `weighted_rows`: four vectors, enough to hide how long a step takes
PARTIAL_SUMS = 16  # of a sum: enough to hide how long an addition takes
LN2_HIGH = 6.93147180369123816490e-01
LN2_LOW = 1.90821492927058770002e-10
SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
ONE_BITS = 0x3FF0000000000000
ROUNDING = 6755399441055744.0  # 1.5 · 2^52: adding it rounds to a whole number, which stands in the low bits


def polynomial(coefficients: Sequence[float]) -> Callable[[float], float]:
    """x -> the polynomial with these coefficients, highest power first, by Horner's rule with fused steps."""

    @intrinsic
    def evaluate(typing_context, x):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            total = ir.Constant(DOUBLE, coefficients[0])
            for coefficient in coefficients[1:]:
                total = builder.fma(total, arguments[0], ir.Constant(DOUBLE, coefficient))
            return total

        return types.float64(types.float64), generate

    return evaluate


@intrinsic
def fused(typing_context, a, b, c):  # type: ignore[no-untyped-def]
    """a b + c, rounded once, in the wider of their floating types."""
    kind = types.float32 if {a, b, c} == {types.float32} else types.float64
    return kind(kind, kind, kind), lambda context, builder, _, arguments: builder.fma(*arguments)


@intrinsic
def total_of(typing_context, F):  # type: ignore[no-untyped-def]
    """Σ_i F_i in float64, F (n,) contiguous."""
    return types.float64(F), _sum_over_lanes


@intrinsic
def inner(typing_context, F, G):  # type: ignore[no-untyped-def]
    """Σ_i F_i G_i in float64, both (n,) and contiguous."""
    return types.float64(F, G), _sum_over_lanes


@intrinsic
def inner_of_three(typing_context, a, F, G):  # type: ignore[no-untyped-def]
    """Σ_i a_i F_i G_i in float64, all (n,) and contiguous."""
    return types.float64(a, F, G), _sum_over_lanes


class Operand(NamedTuple):
    """An array whose entries are factors of the terms of a sum."""

    kind: types.Float  # of its entries
    data: ir.Value  # where they begin

    def at(self, context: Any, builder: ir.IRBuilder, index: ir.Value, lanes: int) -> ir.Value:
        """So many entries from one on, in double precision: a number, or a vector of them."""
        pointer = builder.gep(self.data, [index])
        wide: ir.Type = DOUBLE
        if lanes > 1:
            wide = ir.VectorType(DOUBLE, lanes)
            own = ir.VectorType(context.get_data_type(self.kind), lanes)
            pointer = builder.bitcast(pointer, own.as_pointer())
        value = builder.load(pointer, align=self.kind.bitwidth // 8)
        return value if self.kind.bitwidth == 64 else builder.fpext(value, wide)


def _sum_over_lanes(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
    """Σ_i Π of the arrays' i-th entries: sixteen partial sums, added up two by two, and what is left one by one."""
    assert all(kind.layout == "C" for kind in signature.args)
    arrays = [
        context.make_array(kind)(context, builder, value) for kind, value in zip(signature.args, arguments, strict=True)
    ]
    operands = [Operand(kind.dtype, array.data) for kind, array in zip(signature.args, arrays, strict=True)]
    n = builder.extract_value(arrays[0].shape, 0)
    whole = builder.and_(n, ir.Constant(INT64, -PARTIAL_SUMS))
    partial = cgutils.alloca_once_value(builder, ir.VectorType(DOUBLE, PARTIAL_SUMS)([0.0] * PARTIAL_SUMS))
    total = cgutils.alloca_once(builder, DOUBLE)

    def add(index, sum_, lanes):  # type: ignore[no-untyped-def]
        """Add to the number or the vector at sum_ the term or the terms from `index` on."""
        values = [operand.at(context, builder, index, lanes) for operand in operands]
        before = builder.load(sum_)
        builder.store(builder.fadd(before, reduce(builder.fmul, values)), sum_)

    with cgutils.for_range_slice(builder, ir.Constant(INT64, 0), whole, ir.Constant(INT64, PARTIAL_SUMS)) as (at, _):
        add(at, partial, PARTIAL_SUMS)
    builder.store(_added_in_pairs(builder, builder.load(partial)), total)
    with cgutils.for_range_slice(builder, whole, n, ir.Constant(INT64, 1)) as (at, _):
        add(at, total, 1)
    return builder.load(total)


def _added_in_pairs(builder: ir.IRBuilder, vector: ir.Value) -> ir.Value:
    """The sum of a vector's entries: its halves are added up, and theirs in turn."""
    lanes = [builder.extract_element(vector, ir.Constant(INT64, lane)) for lane in range(PARTIAL_SUMS)]
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [builder.fadd(*pair) for pair in zip(lanes[:half], lanes[half:], strict=True)]
    return lanes[0]


@intrinsic
def weighted_rows(typing_context, weights, F, n, out):  # type: ignore[no-untyped-def]
    """out[:n] = Σ_l weights[l] F[l, :n] by fused steps in the order of l; no more than `AT_ONCE` - 1 places behind are written too.

    Sums of so many lanes stay in registers while the rows go by.

    Args:
        weights: (L,) of either precision, with any stride. F: (L, S) contiguous, S a multiple of `AT_ONCE`. out: (S,).
    """
    return types.void(weights, F, types.int64, out), _weighted_rows


def _weighted_rows(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
    wide = ir.VectorType(DOUBLE, AT_ONCE)
    kinds = signature.args
    weights, F, out = (context.make_array(kinds[at])(context, builder, arguments[at]) for at in (0, 1, 3))
    step = builder.extract_value(weights.strides, 0)
    first = builder.bitcast(weights.data, ir.IntType(8).as_pointer())
    rows, stride = builder.extract_value(F.shape, 0), builder.extract_value(F.shape, 1)
    fma = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(wide, [wide, wide, wide]), f"llvm.fma.v{AT_ONCE}f64"
    )
    total = cgutils.alloca_once(builder, wide)

    def vector(array, index):  # type: ignore[no-untyped-def]
        return builder.bitcast(builder.gep(array.data, [index]), wide.as_pointer())

    zero = ir.Constant(INT64, 0)
    with cgutils.for_range_slice(builder, zero, arguments[2], ir.Constant(INT64, AT_ONCE)) as (at, _):
        builder.store(wide([0.0] * AT_ONCE), total)
        with cgutils.for_range_slice(builder, zero, rows, ir.Constant(INT64, 1)) as (row, _):
            place = builder.gep(first, [builder.mul(row, step)])
            weight = Operand(kinds[0].dtype, builder.bitcast(place, weights.data.type)).at(context, builder, zero, 1)
            values = builder.load(vector(F, builder.add(builder.mul(row, stride), at)), align=8)
            builder.store(builder.call(fma, [_spread(builder, weight), values, builder.load(total)]), total)
        builder.store(builder.load(total), vector(out, at), align=8)
    return context.get_dummy_value()


def _spread(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """A number in all lanes."""
    one = builder.insert_element(
        ir.Constant(ir.VectorType(DOUBLE, AT_ONCE), ir.Undefined), value, ir.Constant(INT64, 0)
    )
    same = ir.Constant(ir.VectorType(ir.IntType(32), AT_ONCE), [0] * AT_ONCE)
    return builder.shuffle_vector(one, one, same)


@intrinsic
def select(typing_context, condition, a, b):  # type: ignore[no-untyped-def]
    """a where the condition holds, else b, without a branch."""
    signature = types.float64(types.boolean, types.float64, types.float64)
    return signature, lambda context, builder, _, arguments: builder.select(*arguments)


@intrinsic
def bits(typing_context, x):  # type: ignore[no-untyped-def]
    """The 64 bits of a double, as a whole number; numbers >= 0 keep their order."""
    return types.int64(types.float64), lambda context, builder, _, arguments: builder.bitcast(arguments[0], INT64)


@intrinsic
def from_bits(typing_context, x):  # type: ignore[no-untyped-def]
    """The double with these bits."""
    return types.float64(types.int64), lambda context, builder, _, arguments: builder.bitcast(arguments[0], DOUBLE)


# fdlibm's polynomial for (log(1 + f) - f + f²/2) / s - f²/2, s = f / (2 + f), in s²
# fmt: off
_log_series = polynomial((
    1.479819860511658591e-1, 1.531383769920937332e-1, 1.818357216161805012e-1, 2.222219843214978396e-1,
    2.857142874366239149e-1, 3.999999999940941908e-1, 6.666666666666735130e-1,
))
# fmt: on
_exp_series = polynomial([1 / math.factorial(power) for power in range(13, -1, -1)])


@njit(**INLINED)
def log(x: float) -> float:
    """Natural logarithm of a normal positive number, within about one unit in the last place."""
    shifted = bits(x) + (ONE_BITS - SQRT_HALF_BITS)
    power = float((shifted >> 52) - 1023)
    f = from_bits((shifted & 0xFFFFFFFFFFFFF) + SQRT_HALF_BITS) - 1.0
    s = f / (2.0 + f)
    half = 0.5 * f * f
    correction = s * (half + s * s * _log_series(s * s)) + power * LN2_LOW
    return power * LN2_HIGH - ((half - correction) - f)


@njit(**INLINED)
def exp(x: float) -> float:
    """Exponential for -708 < x < 709, within about two units in the last place."""
    rounded = x * 1.4426950408889634 + ROUNDING
    power = rounded - ROUNDING
    rest = (x - power * LN2_HIGH) - power * LN2_LOW
    return from_bits((bits(rounded) << 52) + bits(_exp_series(rest)))
