"""Calls of a compiled function whose arguments stand in a table: a call costs what a C function without arguments costs.

Numba's dispatcher unpacks every argument at every call, which takes longer than a small kernel runs.  Here the arguments are
taken apart once, into the machine words in which Numba passes them; a few compiled instructions then load a row of words and
call the function that Numba has compiled already.  Nothing of the function itself is compiled again.
"""

import ctypes
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core.compiler_lock import global_compiler_lock

_numbers = itertools.count()

_WORD, _STATUS = ir.IntType(64), ir.IntType(32)


class TableCall(NamedTuple):
    """``run(address, rows)`` calls the function with each row of a table in turn; returns 0, or the status of a failed call.

    It holds the interpreter's lock: to take it again takes longer than a small kernel runs, or milliseconds where other threads
    want it too.  ``flag``: the column of the boolean argument that each call inverts in its row.  ``code``: what owns the code.
    """

    run: Callable[[int, int], int]
    flag: int
    code: Any


def table_call(dispatcher: Any, arguments: Sequence[Any]) -> TableCall:
    """Prepare calls with arguments of these types, exactly one of which is a bool; compiles the function if it is not yet."""
    signature = tuple(dispatcher.typeof_pyval(argument) for argument in arguments)
    dispatcher.compile(signature)
    return _table_call(dispatcher, signature)


def words(arguments: Sequence[Any]) -> list[int]:
    """The machine words of C-contiguous arrays, integers, bools and tuples of them; arrays must outlive the calls."""
    found: list[int] = []
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            nobody = (0, 0)  # Numba counts no references to memory that it did not allocate
            found += [*nobody, argument.size, argument.itemsize, argument.ctypes.data, *argument.shape, *argument.strides]
        elif isinstance(argument, tuple):
            found += words(argument)
        else:
            found.append(int(argument))
    return found


@functools.cache
def _table_call(dispatcher: Any, signature: tuple[Any, ...]) -> TableCall:
    compiled = dispatcher.overloads[signature]
    context, described = compiled.target_context, compiled.fndesc
    result, failure, *passed = context.call_conv.get_function_type(compiled.signature.return_type, signature).args
    kinds = [kind if isinstance(kind, ir.IntType) else _WORD for kind in passed]
    (flag,) = (place for place, kind in enumerate(kinds) if kind.width < _WORD.width)
    target = compiled.library.get_pointer_to_function(described.llvm_func_name)
    name = f"rnnbench_table_call_{next(_numbers)}"
    library = context.codegen().create_library(name)
    module = library.create_ir_module(library.name)
    function = ir.Function(module, ir.FunctionType(_STATUS, [_WORD, _WORD]), name)
    _write_loop(function, target, (result, failure), kinds, flag)
    with global_compiler_lock:
        library.add_ir_module(module)
        library.finalize()
    prototype = ctypes.PYFUNCTYPE(ctypes.c_int32, ctypes.c_int64, ctypes.c_int64)
    run = prototype(library.get_pointer_to_function(name))
    return TableCall(run, flag, (library, compiled))


def _write_loop(function: ir.Function, target: int, slots: Any, kinds: list[ir.IntType], flag: int) -> None:
    """for each row: status = target(slots, words of the row); invert the flag; stop if status is not 0."""
    entry, loop, end = (function.append_basic_block(name) for name in ("entry", "loop", "end"))
    builder = ir.IRBuilder(entry)
    table, rows = function.args
    given = [builder.alloca(kind.pointee) for kind in slots]
    callee = ir.FunctionType(_STATUS, [*slots, *kinds]).as_pointer()
    builder.branch(loop)
    builder.position_at_end(loop)
    row = builder.phi(_WORD)
    row.add_incoming(ir.Constant(_WORD, 0), entry)
    start = builder.add(table, builder.mul(row, ir.Constant(_WORD, 8 * len(kinds))))
    places = [
        builder.inttoptr(builder.add(start, ir.Constant(_WORD, 8 * place)), _WORD.as_pointer()) for place in range(len(kinds))
    ]
    loaded = [builder.load(place) for place in places]
    passed = [builder.trunc(word, kind) if kind.width < 64 else word for word, kind in zip(loaded, kinds, strict=True)]
    status = builder.call(builder.inttoptr(ir.Constant(_WORD, target), callee), [*given, *passed])
    builder.store(builder.xor(loaded[flag], ir.Constant(_WORD, 1)), places[flag])
    following = builder.add(row, ir.Constant(_WORD, 1))
    row.add_incoming(following, loop)
    failed = builder.icmp_signed("!=", status, ir.Constant(_STATUS, 0))
    done = builder.icmp_signed(">=", following, rows)
    builder.cbranch(builder.or_(failed, done), end, loop)
    builder.position_at_end(end)
    builder.ret(status)
