"""Loads and stores for elementwise loops over arrays that do not overlap, marked so that LLVM skips its run-time checks.

Each array that a loop writes has an alias scope of its own, identified by a number; arrays that it only reads have none.  The
promise covers the loop over the units of one row.  Stores of matrix products, between rows and steps, carry no marks, so LLVM
moves no load or store across them.
"""

from collections.abc import Callable
from typing import Any

from numba import types
from numba.extending import intrinsic

from rnnbench.impls.numba_cpu.bfloat16 import narrowed, widened

SCOPES = 20
"""Maximum number of arrays written by one loop: two states, and one per gate and saved value."""


def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [index], inbounds=True)


def _scopes(builder: Any, numbers: Any) -> Any:
    """Metadata for a list of alias scopes; scopes of the same name are the same in every function."""
    add = builder.module.add_metadata
    domain = add(["rnnbench streams"])
    return add([add([f"rnnbench stream {number}", domain]) for number in numbers])


@intrinsic
def _load(typing_context: Any, array: Any, index: Any) -> Any:

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(_pointer(context, builder, signature.args[0], *arguments))
        value.set_metadata("noalias", _scopes(builder, range(SCOPES)))
        return widened(builder, value) if array.dtype == types.uint16 else value

    return _computed(array)(array, types.intp), codegen


def _computed(array: Any) -> Any:
    return types.float32 if array.dtype == types.uint16 else array.dtype


load: Callable[..., Any] = _load
"""``load(array, index)``: array[index] of a contiguous vector that this loop does not write; bfloat16 is widened to float32."""


def storer(scope: int) -> Callable[..., None]:
    """``f(array, index, value)``: array[index] = value for a contiguous vector in this alias scope, rounded to bfloat16 if
    the array holds that."""

    @intrinsic
    def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vector, place, new = arguments
            if array.dtype == types.uint16:
                new = narrowed(builder, new)
            stored = builder.store(new, _pointer(context, builder, signature.args[0], vector, place))
            stored.set_metadata("alias.scope", _scopes(builder, [scope]))
            stored.set_metadata("noalias", _scopes(builder, [n for n in range(SCOPES) if n != scope]))
            return context.get_dummy_value()

        return types.void(array, types.intp, _computed(array)), codegen

    return store
