"""Some neighbouring components of a row of a sparse matrix at once, in vector registers, for `kernels.csr`.

How many is told to the compiler: a loop over a number that it does not know, such as the rank, goes through memory at every
step and ends with components one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["gathering", "scattering"]

INT64 = ir.IntType(64)


def gathering(lanes: int) -> Any:
    """(data, indices, low, high, F, k, out): out[k:k + lanes] = Σ data[at] F[indices[at], k:k + lanes], at from low to high.

    By fused steps, and of two neighbours the second first. F (m, K), contiguous; out (K,) of F's type.
    """

    @intrinsic
    def gather(typing_context, data, indices, low, high, F, k, out):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            row = _Row(context, builder, signature.args, arguments, lanes)
            _, _, first, end, _, _, target = arguments
            total = cgutils.alloca_once_value(builder, row.kind([0.0] * lanes))
            odd = builder.and_(builder.sub(end, first), ir.Constant(INT64, 1))
            pairs = builder.sub(end, odd)
            with _each(builder, first, pairs, 2) as at:
                following = builder.add(at, ir.Constant(INT64, 1))
                inner = row.step(following, builder.load(total))
                builder.store(row.step(at, inner), total)
            with _each(builder, pairs, end, 1) as at:
                builder.store(row.step(at, builder.load(total)), total)
            place = row.vector_at(context.make_array(out)(context, builder, target).data, arguments[5])
            builder.store(builder.load(total), place, align=row.bytes)
            return context.get_dummy_value()

        return types.void(data, indices, types.int64, types.int64, F, types.int64, out), generate

    return gather


def scattering(lanes: int) -> Any:
    """(data, indices, low, high, F, k, own): F[indices[at], k:k + lanes] += data[at] own[k:k + lanes], at from low to high.

    By fused steps. F (m, K), contiguous; own (K,) of F's type.
    """

    @intrinsic
    def scatter(typing_context, data, indices, low, high, F, k, own):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            row = _Row(context, builder, signature.args, arguments, lanes)
            source = context.make_array(own)(context, builder, arguments[6]).data
            values = builder.load(row.vector_at(source, arguments[5]), align=row.bytes)
            with _each(builder, arguments[2], arguments[3], 1) as at:
                place = row.place(at)
                there = builder.load(place, align=row.bytes)
                builder.store(row.fused(row.weight(at), values, there), place, align=row.bytes)
            return context.get_dummy_value()

        return types.void(data, indices, types.int64, types.int64, F, types.int64, own), generate

    return scatter


class _Row:
    """The stored entries of a row of X beside some components of the rows of F that they meet."""

    def __init__(self, context: Any, builder: ir.IRBuilder, kinds: Any, arguments: Any, lanes: int) -> None:
        self.builder = builder
        self.lanes = lanes
        self.k = arguments[5]
        self.data, self.indices, F = (context.make_array(kinds[n])(context, builder, arguments[n]) for n in (0, 1, 4))
        self.start = F.data
        self.width = builder.extract_value(F.shape, 1)
        self.number = context.get_data_type(kinds[4].dtype)
        self.kind = ir.VectorType(self.number, lanes)
        self.bytes = kinds[4].dtype.bitwidth // 8  # of a number: rows begin anywhere
        name = f"llvm.fma.v{lanes}f{kinds[4].dtype.bitwidth}"
        self.fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(self.kind, [self.kind] * 3), name)

    def weight(self, at: ir.Value) -> ir.Value:
        """data[at] in all lanes."""
        value = self.builder.load(self.builder.gep(self.data.data, [at]))
        if value.type != self.number:
            wider = value.type == ir.FloatType()
            value = self.builder.fpext(value, self.number) if wider else self.builder.fptrunc(value, self.number)
        one = self.builder.insert_element(ir.Constant(self.kind, ir.Undefined), value, ir.Constant(INT64, 0))
        same = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(one, one, same)

    def place(self, at: ir.Value) -> ir.Value:
        """Where F[indices[at], k] is."""
        index = self.builder.load(self.builder.gep(self.indices.data, [at]))
        row = index if index.type == INT64 else self.builder.sext(index, INT64)
        return self.vector_at(self.start, self.builder.add(self.builder.mul(row, self.width), self.k))

    def vector_at(self, start: ir.Value, number: ir.Value) -> ir.Value:
        """A pointer to so many numbers, from one on."""
        return self.builder.bitcast(self.builder.gep(start, [number]), self.kind.as_pointer())

    def fused(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a b + c, rounded once."""
        return self.builder.call(self.fma, [a, b, c])

    def step(self, at: ir.Value, total: ir.Value) -> ir.Value:
        """total + data[at] F[indices[at], k:k + lanes]."""
        return self.fused(self.weight(at), self.builder.load(self.place(at), align=self.bytes), total)


@contextmanager
def _each(builder: ir.IRBuilder, start: ir.Value, stop: ir.Value, step: int) -> Iterator[ir.Value]:
    """A loop over the places from start to stop."""
    with cgutils.for_range_slice(builder, start, stop, ir.Constant(INT64, step)) as (at, _):
        yield at
