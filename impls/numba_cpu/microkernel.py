"""Tiles of a matrix product with all accumulators in vector registers, generated as LLVM code.

A tile is ``rows`` x (``vectors`` * lanes).  Each term k loads the vectors of the packed operand once, and for each row
broadcasts one element of the other operand: rows * vectors multiply-adds for rows + vectors loads.  Its readable twin is

    out = c + a @ w
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_ADDRESS, _INDEX = ir.IntType(64), ir.IntType(32)
_REALS = {"float32": ir.FloatType(), "float64": ir.DoubleType()}


def tiles(dtype: np.dtype, lanes: int, most_rows: dict[int, int]) -> Callable[..., None]:
    """A jitted f(rows, vectors, a, a_row, a_k, w, w_k, c, c_row, out, out_row, count) for tiles of each size.

    ``most_rows``: the largest number of rows for each number of vectors.  After the sizes come addresses and strides in
    bytes, and the number of terms: a[i, k] is at a + i a_row + k a_k, the vectors of w[k] are contiguous at w + k w_k,
    those of c[i] and out[i] at c + i c_row and out + i out_row; out may be c.
    """
    names: dict[str, Any] = {}
    lines = ["def run_tile(rows, vectors, a, a_row, a_k, w, w_k, c, c_row, out, out_row, count):"]
    for vectors, most in most_rows.items():
        lines.append(f"    if vectors == {vectors}:")
        for rows in range(most, 0, -1):
            names[f"tile_{rows}_{vectors}"] = _tile(rows, vectors, lanes, dtype)
            lines.append(f"        {'if' if rows == most else 'elif'} rows == {rows}:")
            lines.append(f"            tile_{rows}_{vectors}(a, a_row, a_k, w, w_k, c, c_row, out, out_row, count)")
    exec("\n".join(lines), names)
    return njit(nogil=True, error_model="numpy")(names["run_tile"])


def _tile(rows: int, vectors: int, lanes: int, dtype: np.dtype) -> Any:
    real = _REALS[dtype.name]
    vector = ir.VectorType(real, lanes)
    width = lanes * dtype.itemsize
    undefined, nothing = ir.Constant(vector, ir.Undefined), ir.Constant(vector, [0.0] * lanes)
    to_every_lane = ir.Constant(ir.VectorType(_INDEX, lanes), [0] * lanes)

    def generate(builder: ir.IRBuilder, arguments: Any) -> None:
        a, a_row, a_k, w, w_k, c, c_row, out, out_row, count = arguments

        def at(address: Any, stride: Any, i: int) -> Any:
            return builder.add(address, builder.mul(stride, ir.Constant(_ADDRESS, i))) if i else address

        def pointer(address: Any, j: int) -> Any:
            return builder.inttoptr(at(address, ir.Constant(_ADDRESS, width), j), vector.as_pointer())

        def load(address: Any, j: int) -> Any:
            return builder.load(pointer(address, j), align=dtype.itemsize)

        def broadcast(address: Any) -> Any:
            scalar = builder.load(builder.inttoptr(address, real.as_pointer()), align=dtype.itemsize)
            first_lane = builder.insert_element(undefined, scalar, ir.Constant(_INDEX, 0))
            return builder.shuffle_vector(first_lane, undefined, to_every_lane)

        cells = [(i, j) for i in range(rows) for j in range(vectors)]
        before = builder.block
        terms, after = builder.append_basic_block("terms"), builder.append_basic_block("after")
        zero = ir.Constant(_ADDRESS, 0)
        builder.cbranch(builder.icmp_signed(">", count, zero), terms, after)

        builder.position_at_end(terms)
        k = builder.phi(_ADDRESS)
        sums = [builder.phi(vector) for _ in cells]
        column, row = builder.add(a, builder.mul(k, a_k)), builder.add(w, builder.mul(k, w_k))
        weights = [load(row, j) for j in range(vectors)]
        elements = [broadcast(at(column, a_row, i)) for i in range(rows)]
        following = []
        for total, (i, j) in zip(sums, cells, strict=True):
            term = builder.fmul(elements[i], weights[j], flags=("contract",))  # pyright: ignore[reportCallIssue]
            following.append(builder.fadd(total, term, flags=("contract",)))  # pyright: ignore[reportCallIssue]
        next_k = builder.add(k, ir.Constant(_ADDRESS, 1))
        k.add_incoming(zero, before)
        k.add_incoming(next_k, terms)
        for total, new in zip(sums, following, strict=True):
            total.add_incoming(nothing, before)
            total.add_incoming(new, terms)
        builder.cbranch(builder.icmp_signed("<", next_k, count), terms, after)

        builder.position_at_end(after)
        results = [builder.phi(vector) for _ in cells]
        for result, new in zip(results, following, strict=True):
            result.add_incoming(nothing, before)
            result.add_incoming(new, terms)
        for result, (i, j) in zip(results, cells, strict=True):
            # c comes last: it may be large, and terms that are added to it one by one are rounded as coarsely
            total = builder.fadd(load(at(c, c_row, i), j), result)
            builder.store(total, pointer(at(out, out_row, i), j), align=dtype.itemsize)

    @intrinsic
    def tile(typing_context, a, a_row, a_k, w, w_k, c, c_row, out, out_row, count):
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            generate(builder, arguments)
            return context.get_dummy_value()

        return types.void(*(types.intp,) * 10), codegen

    return tile
