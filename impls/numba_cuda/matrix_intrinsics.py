"""Intrinsics for products on tensor cores, their operands and sums: inline PTX with twins, as in ``intrinsics``.

PTX ISA 8.x: "mma", "cvt", "ld" with its scope; ``fragments`` describes which lane holds what.
"""

# pyright knows the numba.cuda that Numba carries, not the one that numba-cuda puts in its place:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportMissingImports=false

from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic

from rnnbench.impls.numba_cuda.fragments import COLUMNS, DEPTH, HALVES, LANES, PAIR, QUAD, ROWS
from rnnbench.impls.numba_cuda.intrinsics import (
    FLOAT,
    SHARED,
    TOGETHER,
    WORD,
    element,
    floats,
    shared_quad,
    twin_of,
)

CHAINS = 4
"""Number of independent sums per warp, if there are enough terms: a multiplication takes about 30 cycles, and others can start
in the meantime."""


@lru_cache
def post_half(dtype: str) -> Any:
    """``post(mail, index, value)``: round a float32 to nearest, and store it as 16-bit element ``index`` of global memory."""
    half = HALVES[dtype]

    @intrinsic
    def post(typing_context, mail, index, value):
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            start = element(context, builder, signature.args[0], values[0], types.int64, ir.Constant(ir.IntType(64), 0))
            pointer = builder.gep(builder.bitcast(start, ir.PointerType(ir.IntType(16))), [values[1]])
            kind = ir.FunctionType(ir.VoidType(), [pointer.type, FLOAT])
            code = f"{{ .reg .b16 half; cvt.rn.{half.ptx}.f32 half, $1; st.global.b16 [$0], half; }}"
            builder.call(ir.InlineAsm(kind, code, "l,f,~{memory}", side_effect=True), [pointer, values[2]])
            return context.get_dummy_value()

        return types.void(mail, types.int64, types.float32), generate

    @twin_of(post)
    def twin(thread: Any, mail: Any, index: int, value: Any) -> None:
        mail[index // 2]  # checks that the word exists
        mail.values.view(half.numpy)[index] = value

    return post


@lru_cache
def tile_product(dtype: str, high: int, deep: int, resident: int, stride: int) -> Any:
    """``multiply(weights, shared, mail, operand, more)``: products of a warp's weights and 8 batch rows.

    ``operand`` is the offset in ``mail`` of this lane's part of the first of ``deep`` tiles; the others follow.  The first
    ``resident`` fragments of the weights are in the tuple ``weights``, four words each; the others are in shared memory from
    element ``more`` on, ``stride`` elements apart.  Returns this lane's sums, four for each of ``high`` tiles.
    """
    chains = min(deep, max(1, CHAINS // high))

    @intrinsic
    def multiply(typing_context, weights, shared, mail, operand, more):
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            weights, shared, mail, operand, more = values
            zero = ir.Constant(FLOAT, 0)
            sums = [[[zero] * 4 for _ in range(high)] for _ in range(chains)]
            for j in range(deep):
                place = builder.add(operand, ir.Constant(ir.IntType(64), j * LANES * PAIR))
                b = _mailed_pair(builder, element(context, builder, signature.args[2], mail, types.int64, place))
                for m in range(high):
                    number = j * high + m
                    if number < resident:
                        kept = [builder.extract_value(weights, QUAD * number + q) for q in range(QUAD)]
                        a = [builder.bitcast(word, WORD) for word in kept]
                    else:
                        place = builder.add(more, ir.Constant(ir.IntType(64), (number - resident) * stride))
                        a = _shared_words(builder, element(context, builder, signature.args[1], shared, types.int64, place))
                    sums[j % chains][m] = _mma(builder, dtype, a, b, sums[j % chains][m])
            total = sums[0]
            for other in sums[1:]:
                total = [[builder.fadd(x, y) for x, y in zip(*pair, strict=True)] for pair in zip(total, other, strict=True)]
            return context.make_tuple(builder, signature.return_type, [value for tile in total for value in tile])

        return floats(4 * high)(weights, shared, mail, types.int64, types.int64), generate

    @twin_of(multiply)
    def twin(thread: Any, weights: tuple[Any, ...], shared: Any, mail: Any, operand: int, more: int) -> tuple[Any, ...]:
        sums = np.zeros((chains, high, 4), np.float32)
        for j in range(deep):
            b = _words(_mailed_pair_twin(thread, mail, operand + j * LANES * PAIR))
            for m in range(high):
                number = j * high + m
                if number < resident:
                    a = weights[QUAD * number : QUAD * (number + 1)]
                else:
                    a = shared_quad(thread, shared, more + (number - resident) * stride)
                sums[j % chains, m] = _mma_twin(thread, dtype, _words(a), b, sums[j % chains, m])
        return tuple(sums.sum(0, dtype=np.float32).reshape(-1))

    return multiply


@lru_cache
def leave_sums(high: int) -> Any:
    """``leave(shared, first, sums)``: store a lane's sums of ``high`` tiles in shared memory, in rows of 8 columns."""

    @intrinsic
    def leave(typing_context, shared, first, sums):
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            kind = ir.FunctionType(ir.VoidType(), [WORD, FLOAT, FLOAT])
            store = ir.InlineAsm(kind, "st.shared.v2.f32 [$0], {$1, $2};", "r,f,f,~{memory}", side_effect=True)
            for pair in range(2 * high):
                index = builder.add(values[1], ir.Constant(ir.IntType(64), pair * COLUMNS * 8))
                pointer = element(context, builder, signature.args[0], values[0], types.int64, index)
                address = builder.ptrtoint(builder.addrspacecast(pointer, ir.PointerType(FLOAT, SHARED)), WORD)
                builder.call(store, [address, *(builder.extract_value(values[2], 2 * pair + q) for q in range(2))])
            return context.get_dummy_value()

        return types.void(shared, types.int64, sums), generate

    @twin_of(leave)
    def twin(thread: Any, shared: Any, first: int, sums: tuple[Any, ...]) -> None:
        if first % 2:
            raise thread.fault(f"writes two elements from {first} on; expected a multiple of 2")
        for pair in range(2 * high):
            for q in range(2):
                shared[first + pair * COLUMNS * 8 + q] = sums[2 * pair + q]

    return leave


@lru_cache
def collect_sums(count: int, stride: int, warps: int, apart: int) -> Any:
    """``total(shared, first)``: add up ``count`` sums, ``stride`` elements apart, over ``warps`` warps, ``apart`` elements
    apart."""

    @intrinsic
    def total(typing_context, shared, first):
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            def load(offset: int) -> Any:
                index = builder.add(values[1], ir.Constant(ir.IntType(64), offset))
                return builder.load(element(context, builder, signature.args[0], values[0], types.int64, index))

            sums = [load(g * stride) for g in range(count)]
            for warp in range(1, warps):
                sums = [builder.fadd(sums[g], load(warp * apart + g * stride)) for g in range(count)]
            return context.make_tuple(builder, signature.return_type, sums)

        return floats(count)(shared, types.int64), generate

    @twin_of(total)
    def twin(thread: Any, shared: Any, first: int) -> tuple[Any, ...]:
        sums = [shared[first + g * stride] for g in range(count)]
        for warp in range(1, warps):
            sums = [sums[g] + shared[first + warp * apart + g * stride] for g in range(count)]
        return tuple(sums)

    return total


def _mma(builder: Any, dtype: str, a: list[Any], b: list[Any], c: list[Any]) -> list[Any]:
    """One multiply-add of a warp: words of A and B, float32 sums C."""
    kind = ir.FunctionType(ir.LiteralStructType([FLOAT] * 4), [WORD] * (QUAD + PAIR) + [FLOAT] * 4)
    half = HALVES[dtype].ptx
    code = (
        f"mma.sync.aligned.m16n8k16.row.col.f32.{half}.{half}.f32 "
        "{$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};"
    )
    assembly = ir.InlineAsm(kind, code, "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f", side_effect=True)
    made = builder.call(assembly, [*a, *b, *c], attrs=TOGETHER)
    return [builder.extract_value(made, q) for q in range(4)]


def _mma_twin(thread: Any, dtype: str, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    return thread.together(f"mma of {dtype}", (a, b, c), lambda brought: _multiplied(HALVES[dtype].numpy, brought))


def _multiplied(half: np.dtype, brought: list[tuple[np.ndarray, ...]]) -> np.ndarray:
    """The float32 sums of every lane (32, 4), from the words of A and B and the sums that all lanes bring."""
    a, b, c = (np.stack(parts) for parts in zip(*brought, strict=True))
    i = np.arange(8)
    group, member = np.arange(LANES)[:, None] // 4, np.arange(LANES)[:, None] % 4
    matrix_a, matrix_b = np.empty((ROWS, DEPTH), np.float32), np.empty((DEPTH, COLUMNS), np.float32)
    sums = np.empty((ROWS, COLUMNS), np.float32)
    # element i of a lane, in the words of PTX ISA; i & 1 is the half of a word
    matrix_a[group + 8 * ((i >= 2) & (i < 4) | (i >= 6)), member * 2 + (i & 1) + 8 * (i >= 4)] = a.view(half)
    i = i[:4]
    matrix_b[member * 2 + (i & 1) + 8 * (i >= 2), group + 0 * i] = b.view(half)
    where = group + 8 * (i >= 2), member * 2 + (i & 1)
    sums[where] = c
    return (matrix_a @ matrix_b + sums)[where]


def _words(values: Any) -> np.ndarray:
    """The bits of values whose dtype is nominally float32."""
    return np.array(values, np.float32).view(np.uint32)


def _mailed_pair(builder: Any, pointer: Any) -> list[Any]:
    """Load two adjacent words that other blocks wrote to global memory."""
    kind = ir.FunctionType(ir.LiteralStructType([WORD] * PAIR), [pointer.type])
    code = "ld.relaxed.gpu.global.v2.u32 {$0, $1}, [$2];"
    pair = builder.call(ir.InlineAsm(kind, code, "=r,=r,l,~{memory}", side_effect=True), [pointer])
    return [builder.extract_value(pair, q) for q in range(PAIR)]


def _mailed_pair_twin(thread: Any, mail: Any, index: int) -> list[Any]:
    if index % PAIR:
        raise thread.fault(f"reads two elements from {index} on; expected a multiple of 2")
    return [mail[index + q] for q in range(PAIR)]


def _shared_words(builder: Any, pointer: Any) -> list[Any]:
    """Load four adjacent words of shared memory."""
    address = builder.ptrtoint(builder.addrspacecast(pointer, ir.PointerType(FLOAT, SHARED)), WORD)
    kind = ir.FunctionType(ir.LiteralStructType([WORD] * QUAD), [WORD])
    code = "ld.shared.v4.u32 {$0, $1, $2, $3}, [$4];"
    quad = builder.call(ir.InlineAsm(kind, code, "=r,=r,=r,=r,r,~{memory}", side_effect=True), [address])
    return [builder.extract_value(quad, q) for q in range(QUAD)]
