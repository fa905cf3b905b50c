"""Loads and stores for elementwise loops over arrays that do not overlap, marked so that LLVM skips its run-time checks.

Each array that a loop writes has an alias scope of its own, identified by a number; arrays that it only reads have none.  The
promise covers the loop over the units of one row.  Stores of matrix products, between rows and steps, carry no marks, so LLVM
moves no load or store across them.
"""

from collections.abc import Callable
from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rnnbench.impls.numba_cpu.bfloat16 import narrowed, widened

SCOPES = 20
"""Maximum number of arrays written by one loop: two states, and one per gate, saved value and peephole."""


def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [index], inbounds=True)


def _scopes(builder: Any, numbers: Any) -> Any:
    """Metadata for a list of alias scopes; scopes of the same name are the same in every function."""
    add = builder.module.add_metadata
    domain = add(["rnnbench streams"])
    return add([add([f"rnnbench stream {number}", domain]) for number in numbers])


def _loaded(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    value = builder.load(_pointer(context, builder, kind, array, index))
    value.set_metadata("noalias", _scopes(builder, range(SCOPES)))
    return widened(builder, value) if kind.dtype == types.uint16 else value


def _stored(context: Any, builder: Any, kind: Any, array: Any, index: Any, value: Any, scope: int) -> None:
    new = narrowed(builder, value) if kind.dtype == types.uint16 else value
    stored = builder.store(new, _pointer(context, builder, kind, array, index))
    stored.set_metadata("alias.scope", _scopes(builder, [scope]))
    stored.set_metadata("noalias", _scopes(builder, [n for n in range(SCOPES) if n != scope]))


def _column(builder: Any, size: Any, number: int, u: Any) -> Any:
    return builder.add(builder.mul(size.type(number), size), u)


@intrinsic
def _load(typing_context: Any, array: Any, index: Any) -> Any:

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _loaded(context, builder, signature.args[0], *arguments)

    return _computed(array)(array, types.intp), codegen


def _computed(array: Any) -> Any:
    return types.float32 if array.dtype == types.uint16 else array.dtype


def _several(array: Any, count: int) -> Any:
    return types.BaseTuple.from_types([_computed(array)] * count)


load: Callable[..., Any] = _load
"""``load(array, index)``: array[index] of a contiguous vector that this loop does not write; bfloat16 is widened to float32."""


def loads(count: int) -> Callable[..., Any]:
    """``f(row, H, u)``: the ``count`` values of unit u, (row[u], row[H + u], ..., row[(count - 1) H + u])."""

    @intrinsic
    def load_all(typing_context: Any, row: Any, size: Any, u: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vector, height, unit = arguments
            columns = [_column(builder, height, number, unit) for number in range(count)]
            values = [_loaded(context, builder, signature.args[0], vector, column) for column in columns]
            return context.make_tuple(builder, signature.return_type, values)

        return _several(row, count)(row, types.intp, types.intp), codegen

    return load_all


def storer(scope: int) -> Callable[..., None]:
    """``f(array, index, value)``: array[index] = value for a contiguous vector in this alias scope, rounded to bfloat16 if
    the array holds that."""

    @intrinsic
    def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _stored(context, builder, signature.args[0], *arguments, scope=scope)
            return context.get_dummy_value()

        return types.void(array, types.intp, _computed(array)), codegen

    return store


def stores(count: int, scope: int) -> Callable[..., None]:
    """``f(row, H, u, values)``: the inverse of ``loads``'s function, using alias scopes from ``scope`` on.

    Of ``values`` the first ``count`` are stored.
    """

    @intrinsic
    def store_all(typing_context: Any, row: Any, size: Any, u: Any, values: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vector, height, unit, several = arguments
            for number, value in enumerate(cgutils.unpack_tuple(builder, several, len(values))[:count]):
                place = _column(builder, height, number, unit)
                _stored(context, builder, signature.args[0], vector, place, value, scope + number)
            return context.get_dummy_value()

        return types.void(row, types.intp, types.intp, values), codegen

    return store_all
