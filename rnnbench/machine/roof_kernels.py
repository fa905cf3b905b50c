"""Loops at the processor's limits, generated as LLVM code: multiply-adds between registers, and memory reads.

The docstring of each holds its readable twin.
"""

from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_WORD, _INDEX, _SINGLE = ir.IntType(64), ir.IntType(32), ir.FloatType()
_REALS = {"float32": ir.FloatType(), "float64": ir.DoubleType()}

READS = 16
"""Vectors read per iteration of the loop."""

Step = Callable[[Any, Sequence[Any]], Sequence[Any]]
"""The body of a loop: maps the iteration number and the current values to the next values."""


def multiply_adds(dtype: np.dtype, lanes: int, chains: int) -> Callable[[float, float, float, int], float]:
    """Return a jitted f(start, factor, addend, count) on ``chains`` independent vectors of ``lanes`` numbers in registers.

    Its twin, with 2 * lanes * chains * count floating-point operations in ``dtype``:

        c = start + np.arange(chains)
        for _ in range(count): c = c * factor + addend
        return c.mean()
    """
    real = _REALS[dtype.name]
    vector = ir.VectorType(real, lanes)

    def step(builder: ir.IRBuilder, sums: Sequence[Any], factor: Any, addend: Any) -> list[Any]:
        products = [builder.fmul(c, factor, flags=("contract",)) for c in sums]  # pyright: ignore[reportCallIssue]
        return [builder.fadd(c, addend, flags=("contract",)) for c in products]  # pyright: ignore[reportCallIssue]

    return _chains(vector, vector, types.float32 if dtype == np.float32 else types.float64, chains, step)


def dot_products(chains: int) -> Callable[[float, float, float, int], float]:
    """Return the same for VDPBF16PS of AVX512_BF16, which adds two bfloat16 products to each of 16 float32 lanes.

    Its twin, with 4 * 16 * chains * count floating-point operations; ``factor`` and ``addend`` are rounded to bfloat16:

        c = start + np.arange(chains)
        for _ in range(count): c = c + 2 * factor * addend
        return c.mean()
    """
    llvm.initialize_native_asmparser()
    pairs = ir.VectorType(_INDEX, 16)
    sums_type = ir.VectorType(_SINGLE, 16)
    signature = ir.FunctionType(sums_type, [sums_type, pairs, pairs])

    def step(builder: ir.IRBuilder, sums: Sequence[Any], factor: Any, addend: Any) -> list[Any]:
        # llvmlite lacks the bfloat16 type of LLVM's intrinsic
        return [builder.asm(signature, "vdpbf16ps $3, $2, $0", "=v,0,v,v", [c, factor, addend], False) for c in sums]

    return _chains(sums_type, pairs, types.float32, chains, step)


def reads(bytes_in_vector: int) -> Callable[[int, int, int, int], int]:
    """Return a jitted f(start, address, blocks, passes) that reads ``blocks`` of READS vectors, ``passes`` times.

    Its twin, with wrapping int64 arithmetic on the words at ``address``: start + passes * words.sum().
    """
    vector = ir.VectorType(_WORD, bytes_in_vector // 8)
    block = READS * bytes_in_vector

    @intrinsic
    def read(typing_context: Any, start: Any, address: Any, blocks: Any, passes: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            start, address, blocks, passes = arguments

            def one_block(k: Any, sums: Sequence[Any]) -> list[Any]:
                first = builder.add(address, builder.mul(k, ir.Constant(_WORD, block)))
                following = []
                for j, total in enumerate(sums):
                    place = builder.add(first, ir.Constant(_WORD, j * bytes_in_vector))
                    loaded = builder.load(builder.inttoptr(place, vector.as_pointer()), align=bytes_in_vector)
                    following.append(builder.add(total, loaded))
                return following

            nothing = [ir.Constant(vector, [0] * vector.count)] * READS
            sums = _loop(builder, passes, nothing, lambda _, sums: _loop(builder, blocks, sums, one_block))
            return _total(builder, builder.add, sums, start)

        return types.int64(types.int64, types.intp, types.intp, types.intp), codegen

    @njit(nogil=True)
    def f(start, address, blocks, passes):
        return read(start, address, blocks, passes)  # pyright: ignore[reportCallIssue]  # Numba passes the context

    return f


def _chains(sums_type: Any, factor_type: Any, number: Any, chains: int, step: Callable[..., list[Any]]) -> Any:
    lane = sums_type.element

    @intrinsic
    def run(typing_context: Any, start: Any, factor: Any, addend: Any, count: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            start, factor, addend, count = arguments
            factors = [_broadcast(builder, _operand(builder, x, factor_type.element), factor_type) for x in (factor, addend)]
            # LLVM would merge chains with equal starts
            starts = [builder.fadd(start, ir.Constant(lane, float(i))) for i in range(chains)]
            first = [_broadcast(builder, c, sums_type) for c in starts]
            sums = _loop(builder, count, first, lambda _, sums: step(builder, sums, *factors))
            total = _total(builder, builder.fadd, sums, ir.Constant(lane, 0.0))
            return builder.fdiv(total, ir.Constant(lane, float(chains * sums_type.count)))

        return number(number, number, number, types.intp), codegen

    @njit(nogil=True)
    def f(start, factor, addend, count):
        return run(number(start), number(factor), number(addend), count)  # pyright: ignore[reportCallIssue]  # as above

    return f


def _operand(builder: ir.IRBuilder, value: Any, element: Any) -> Any:
    """Return the value itself; for a 32-bit integer element, two copies of the upper half of a float32, a bfloat16."""
    if element != _INDEX:
        return value
    upper = builder.lshr(builder.bitcast(value, _INDEX), ir.Constant(_INDEX, 16))
    return builder.or_(upper, builder.shl(upper, ir.Constant(_INDEX, 16)))


def _broadcast(builder: ir.IRBuilder, value: Any, vector: Any) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    first_lane = builder.insert_element(undefined, value, ir.Constant(_INDEX, 0))
    return builder.shuffle_vector(first_lane, undefined, ir.Constant(ir.VectorType(_INDEX, vector.count), [0] * vector.count))


def _loop(builder: ir.IRBuilder, count: Any, values: Sequence[Any], step: Step) -> list[Any]:
    """Emit ``for k in range(count): values = step(k, values)``; the builder then stands after the loop."""
    before = builder.block
    head, body, after = (builder.append_basic_block(name) for name in ("head", "body", "after"))
    builder.branch(head)
    builder.position_at_end(head)
    k = builder.phi(_WORD)
    carried = [builder.phi(value.type) for value in values]
    builder.cbranch(builder.icmp_signed("<", k, count), body, after)
    builder.position_at_end(body)
    following = step(k, carried)
    next_k = builder.add(k, ir.Constant(_WORD, 1))
    end = builder.block  # the step may contain a loop
    builder.branch(head)
    for phi, first, following_value in zip([k, *carried], [ir.Constant(_WORD, 0), *values], [next_k, *following], strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(following_value, end)
    builder.position_at_end(after)
    return carried


def _total(builder: ir.IRBuilder, add: Callable[[Any, Any], Any], vectors: Sequence[Any], start: Any) -> Any:
    """Return ``start`` plus all lanes of all vectors."""
    whole = vectors[0]
    for vector in vectors[1:]:
        whole = add(whole, vector)
    for lane in range(whole.type.count):
        start = add(start, builder.extract_element(whole, ir.Constant(_INDEX, lane)))
    return start
