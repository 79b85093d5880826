"""Compiled functions that other compiled functions call by their address.

Numba compiles a function once more into each function that calls it, and with that one into its callers in turn, so that
a sweep of five storeys optimised its innermost loops five times. A part is compiled once for each precision. A caller of a
part holds no more than a call through a pointer, so it compiles fast.

Such a call takes some tens of nanoseconds, so a part is a function that works for microseconds. What a part raised would
be printed and lost: parts allocate nothing and raise nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing import Signature
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

__all__ = ["address_of", "called_by_address"]

SignatureFor = Callable[[types.Float], Signature]  # of a part, from the type of the numbers in its arrays


@cache
def address_of(part: Any, signature_for: SignatureFor, dtype: np.dtype) -> int:
    """The address of a part for arrays of this type; it is compiled, or read from the cache, where it has not been yet."""
    compiled = part.get_compile_result(signature_for(from_dtype(dtype)))
    address: int = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name)
    return address


def called_by_address(signature_for: SignatureFor) -> Any:
    """(address, (argument, ...)) -> what the part at that address returns, for compiled functions.

    The first argument tells the precision. Arguments of other types than the part's are converted, or refused when the
    caller is compiled.
    """

    @intrinsic
    def call(typing_context, address, arguments):  # type: ignore[no-untyped-def]
        own = signature_for(getattr(arguments.types[0], "dtype", types.float64))

        def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
            own_kinds = [context.get_value_type(kind) for kind in own.args]
            function = ir.FunctionType(context.get_value_type(own.return_type), own_kinds)
            pointer = builder.inttoptr(values[0], function.as_pointer())
            found = builder.call(pointer, cgutils.unpack_tuple(builder, values[1]))
            return context.get_dummy_value() if own.return_type is types.void else found

        return own.return_type(types.int64, types.Tuple(own.args)), generate

    return call
