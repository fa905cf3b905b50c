"""Tiles of a matrix product with all accumulators in vector registers, generated as LLVM code.

A tile is ``rows`` x (``vectors`` * lanes).  Each term k loads the vectors of the packed operand once and broadcasts one element
of the other operand per row: rows * vectors multiply-adds for rows + vectors loads.  Its readable twin is

    out = c + a @ w

An element may also be a pair of bfloat16, the first in its lower half.  A term is then the dot product of two pairs, added to
a float32 sum by one instruction where the processor has it, else by two multiply-adds.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from rnnbench.jit.target import Target

_ADDRESS, _INDEX = ir.IntType(64), ir.IntType(32)
_REALS = {"float32": ir.FloatType(), "float64": ir.DoubleType()}


class _BFloat(ir.Type):
    """LLVM's bfloat type, which llvmlite lacks."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


def tiles(dtype: np.dtype, target: Target, most_rows: dict[int, int], *, pairs: bool) -> Callable[..., None]:
    """A jitted ``f(rows, vectors, a, a_row, a_k, w, w_k, c, c_row, out, out_row, count)`` for tiles of all sizes.

    ``dtype``: of c and out, and of a and w unless they hold ``pairs``.
    ``most_rows``: maximum number of rows by number of vectors.

    After the tile's size the function takes addresses and strides in bytes, and the number of terms.  a[i, k] is at
    a + i a_row + k a_k; the vectors of w[k] are contiguous at w + k w_k, those of c[i] and out[i] at c + i c_row and
    out + i out_row; out may be c.
    """
    names: dict[str, Any] = {}
    lines = ["def run_tile(rows, vectors, a, a_row, a_k, w, w_k, c, c_row, out, out_row, count):"]
    for vectors, most in most_rows.items():
        lines.append(f"    if vectors == {vectors}:")
        for rows in range(most, 0, -1):
            names[f"tile_{rows}_{vectors}"] = _tile(rows, vectors, target, dtype, pairs=pairs)
            lines.append(f"        {'if' if rows == most else 'elif'} rows == {rows}:")
            lines.append(f"            tile_{rows}_{vectors}(a, a_row, a_k, w, w_k, c, c_row, out, out_row, count)")
    exec("\n".join(lines), names)
    return njit(nogil=True, error_model="numpy")(names["run_tile"])


def _prefetch_to_write(builder: ir.IRBuilder, address: Any) -> None:
    line = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [line, _INDEX, _INDEX, _INDEX])
    fetch = builder.module.declare_intrinsic("llvm.prefetch", [line], kind)
    to_write, soon, data = (ir.Constant(_INDEX, value) for value in (1, 3, 1))
    builder.call(fetch, [builder.inttoptr(address, line), to_write, soon, data])


def _multiplied_and_added(builder: ir.IRBuilder, total: Any, element: Any, weight: Any) -> Any:
    term = builder.fmul(element, weight, flags=("contract",))  # pyright: ignore[reportCallIssue]
    return builder.fadd(total, term, flags=("contract",))  # pyright: ignore[reportCallIssue]


def _dot_in_one(builder: ir.IRBuilder, total: Any, element: Any, weight: Any) -> Any:
    halves = ir.VectorType(_BFloat(), 2 * total.type.count)
    kind = ir.FunctionType(total.type, [total.type, halves, halves])
    dot = builder.module.declare_intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", fnty=kind)
    return builder.call(dot, [total, builder.bitcast(element, halves), builder.bitcast(weight, halves)])


def _dot_in_two(builder: ir.IRBuilder, total: Any, element: Any, weight: Any) -> Any:
    count = total.type.count

    def constant(value: int) -> Any:
        return ir.Constant(element.type, [value] * count)

    def lower(pair: Any) -> Any:
        return builder.bitcast(builder.shl(pair, constant(16)), total.type)

    def upper(pair: Any) -> Any:
        return builder.bitcast(builder.and_(pair, constant(0xFFFF0000)), total.type)

    total = _multiplied_and_added(builder, total, lower(element), lower(weight))
    return _multiplied_and_added(builder, total, upper(element), upper(weight))


def _tile(rows: int, vectors: int, target: Target, dtype: np.dtype, *, pairs: bool) -> Any:
    lanes = target.lanes(dtype)
    real: Any = _INDEX if pairs else _REALS[dtype.name]
    vector, sums_of = ir.VectorType(real, lanes), ir.VectorType(_REALS[dtype.name], lanes)
    add_term = (_dot_in_one if target.dots else _dot_in_two) if pairs else _multiplied_and_added
    width = lanes * dtype.itemsize
    undefined, nothing = ir.Constant(vector, ir.Undefined), ir.Constant(sums_of, [0.0] * lanes)
    to_every_lane = ir.Constant(ir.VectorType(_INDEX, lanes), [0] * lanes)

    def generate(builder: ir.IRBuilder, arguments: Any) -> None:
        a, a_row, a_k, w, w_k, c, c_row, out, out_row, count = arguments

        def at(address: Any, stride: Any, i: int) -> Any:
            return builder.add(address, builder.mul(stride, ir.Constant(_ADDRESS, i))) if i else address

        def pointer(address: Any, j: int, kind: Any) -> Any:
            return builder.inttoptr(at(address, ir.Constant(_ADDRESS, width), j), kind.as_pointer())

        def load(address: Any, j: int, kind: Any) -> Any:
            return builder.load(pointer(address, j, kind), align=2 if pairs else dtype.itemsize)

        def broadcast(address: Any) -> Any:
            scalar = builder.load(builder.inttoptr(address, real.as_pointer()), align=2 if pairs else dtype.itemsize)
            first_lane = builder.insert_element(undefined, scalar, ir.Constant(_INDEX, 0))
            return builder.shuffle_vector(first_lane, undefined, to_every_lane)

        cells = [(i, j) for i in range(rows) for j in range(vectors)]
        before = builder.block
        terms, after = builder.append_basic_block("terms"), builder.append_basic_block("after")
        zero = ir.Constant(_ADDRESS, 0)
        for i, j in cells:  # read after the terms, perhaps from a distant cache
            _prefetch_to_write(builder, at(at(out, out_row, i), ir.Constant(_ADDRESS, width), j))
        builder.cbranch(builder.icmp_signed(">", count, zero), terms, after)

        builder.position_at_end(terms)
        k = builder.phi(_ADDRESS)
        sums = [builder.phi(sums_of) for _ in cells]
        column, row = builder.add(a, builder.mul(k, a_k)), builder.add(w, builder.mul(k, w_k))
        weights = [load(row, j, vector) for j in range(vectors)]
        elements = [broadcast(at(column, a_row, i)) for i in range(rows)]
        following = [add_term(builder, total, elements[i], weights[j]) for total, (i, j) in zip(sums, cells, strict=True)]
        next_k = builder.add(k, ir.Constant(_ADDRESS, 1))
        k.add_incoming(zero, before)
        k.add_incoming(next_k, terms)
        for total, new in zip(sums, following, strict=True):
            total.add_incoming(nothing, before)
            total.add_incoming(new, terms)
        builder.cbranch(builder.icmp_signed("<", next_k, count), terms, after)

        builder.position_at_end(after)
        results = [builder.phi(sums_of) for _ in cells]
        for result, new in zip(results, following, strict=True):
            result.add_incoming(nothing, before)
            result.add_incoming(new, terms)
        for result, (i, j) in zip(results, cells, strict=True):
            # c is added last: it may be large, and each term added to it would be rounded as coarsely
            total = builder.fadd(load(at(c, c_row, i), j, sums_of), result)
            builder.store(total, pointer(at(out, out_row, i), j, sums_of), align=dtype.itemsize)

    @intrinsic
    def tile(typing_context, a, a_row, a_k, w, w_k, c, c_row, out, out_row, count):
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            generate(builder, arguments)
            return context.get_dummy_value()

        return types.void(*(types.intp,) * 10), codegen

    return tile
