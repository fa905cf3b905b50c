"""A barrier for threads in compiled code: each increments a counter and waits for the others."""

import sys
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_SPINS = 100
"""Spins, a few microseconds, before a waiting thread yields its core, which the awaited thread may need."""

_ADDRESS = ir.IntType(64)


class Team(NamedTuple):
    """``size`` threads that share a barrier; ``arrived`` counts their arrivals, on its own cache line."""

    arrived: np.ndarray
    size: int

    @classmethod
    def of(cls, size: int) -> "Team":
        return cls(np.zeros(8, np.int64), size)


@intrinsic
def _add_one(typing_context: Any, address: Any) -> Any:
    """Add one atomically; return the previous value."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _ADDRESS.as_pointer())
        return builder.atomic_rmw("add", pointer, ir.Constant(_ADDRESS, 1), "seq_cst")

    return types.int64(types.intp), codegen


@intrinsic
def _value(typing_context: Any, address: Any) -> Any:
    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _ADDRESS.as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.intp), codegen


@intrinsic
def _pause(typing_context: Any) -> Any:
    """Emit the processor's hint for spin loops."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        nothing = ir.FunctionType(ir.VoidType(), [])
        if builder.module.triple.startswith("x86_64"):
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", fnty=nothing), [])
        return context.get_dummy_value()

    return types.void(), codegen


if sys.platform == "win32":
    _yield_core = _pause
else:
    _yield_core = types.ExternalFunction("sched_yield", types.int32())


@njit(nogil=True)
def meet(team):
    """Wait until all threads of the team have called this equally often."""
    if team.size > 1:
        counter = team.arrived.ctypes.data
        everyone = (_add_one(counter) // team.size + 1) * team.size  # pyright: ignore[reportCallIssue]  # Numba passes the context
        spins = 0
        while _value(counter) < everyone:
            _pause()
            spins += 1
            if spins % _SPINS == 0:
                _yield_core()
