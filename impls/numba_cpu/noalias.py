"""Loads and stores of an elementwise loop whose arrays do not overlap, which LLVM is told, and need not check for every row.

Each array that a loop writes is a stream with a number of its own; what it reads has none.  What is told holds for the loop
over the units of one row; between rows and steps stand the stores of matrix products, which nothing is told of, and which
no load or store is moved across.
"""

from collections.abc import Callable
from typing import Any

from numba import types
from numba.extending import intrinsic

from rnnbench.impls.numba_cpu.bfloat16 import narrowed, widened

STREAMS = 20
"""As many as any loop writes: two states, and a value for each gate and each saved value."""


def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [index], inbounds=True)


def _scopes(builder: Any, numbers: Any) -> Any:
    """A list of scopes; their names make them the same in every function."""
    add = builder.module.add_metadata
    domain = add(["rnnbench streams"])
    return add([add([f"rnnbench stream {number}", domain]) for number in numbers])


@intrinsic
def _load(typing_context: Any, array: Any, index: Any) -> Any:

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(_pointer(context, builder, signature.args[0], *arguments))
        value.set_metadata("noalias", _scopes(builder, range(STREAMS)))
        return widened(builder, value) if array.dtype == types.uint16 else value

    return _computed(array)(array, types.intp), codegen


def _computed(array: Any) -> Any:
    return types.float32 if array.dtype == types.uint16 else array.dtype


load: Callable[..., Any] = _load
"""f(array, index) = array[index] of a contiguous vector that this loop does not write; float32 of a bfloat16."""


def storer(stream: int) -> Callable[..., None]:
    """f(array, index, value): array[index] = value of a contiguous vector that is this stream; bfloat16 is rounded to."""

    @intrinsic
    def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vector, place, new = arguments
            if array.dtype == types.uint16:
                new = narrowed(builder, new)
            stored = builder.store(new, _pointer(context, builder, signature.args[0], vector, place))
            stored.set_metadata("alias.scope", _scopes(builder, [stream]))
            stored.set_metadata("noalias", _scopes(builder, [n for n in range(STREAMS) if n != stream]))
            return context.get_dummy_value()

        return types.void(array, types.intp, _computed(array)), codegen

    return store
