"""A barrier for threads that run compiled code at the same time: a counter that each adds to and waits for."""

import sys
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_SPINS = 100
"""Before a waiting thread offers its core to others, a few microseconds: the one that it waits for may need that very core."""

_ADDRESS = ir.IntType(64)


class Team(NamedTuple):
    """``size`` threads that meet; ``arrived`` counts their arrivals, on a cache line of its own."""

    arrived: np.ndarray
    size: int

    @classmethod
    def of(cls, size: int) -> "Team":
        return cls(np.zeros(8, np.int64), size)


@intrinsic
def _add_one(typing_context: Any, address: Any) -> Any:
    """The counter's value before one was added."""

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
    """The processor's hint that this loop waits."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        nothing = ir.FunctionType(ir.VoidType(), [])
        if builder.module.triple.startswith("x86_64"):
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", fnty=nothing), [])
        return context.get_dummy_value()

    return types.void(), codegen


if sys.platform == "win32":
    _offer_core = _pause
else:
    _offer_core = types.ExternalFunction("sched_yield", types.int32())


@njit(nogil=True)
def meet(team):
    """Return when all threads of the team have called this as often."""
    if team.size > 1:
        counter = team.arrived.ctypes.data
        everyone = (_add_one(counter) // team.size + 1) * team.size  # pyright: ignore[reportCallIssue]  # an intrinsic has no context to be given
        spins = 0
        while _value(counter) < everyone:
            _pause()
            spins += 1
            if spins % _SPINS == 0:
                _offer_core()
