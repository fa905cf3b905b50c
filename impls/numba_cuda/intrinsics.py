"""Intrinsics that Numba lacks, as inline PTX, each with a twin for the simulator: loads, stores and products of one thread.

A kernel calls an intrinsic like a function.  Its twin takes the calling thread and the same arguments, and does the same on the
simulated machine (``simulated_machine.Thread``).  ``exchange_intrinsics``, ``messages`` and ``matrix_intrinsics`` have the
intrinsics for other subjects.  PTX ISA 8.x: "ld.global.nc", "shfl.sync", "rcp".
"""

# pyright knows the numba.cuda that Numba carries, not the one that numba-cuda puts in its place:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportMissingImports=false

import itertools
import operator
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic

Twin = Callable[..., Any]

TWINS: dict[Any, Twin] = {}
"""The simulator's counterpart of each intrinsic."""

FLOAT, WORD = ir.FloatType(), ir.IntType(32)
_LLVM = {types.float32: FLOAT, types.uint32: WORD}
SHARED = 3


def twin_of(function: Any) -> Callable[[Twin], Twin]:
    """Register the function that the simulator calls in place of an intrinsic."""

    def register(twin: Twin) -> Twin:
        TWINS[function] = twin
        return twin

    return register


TOGETHER = ("convergent",)
"""Attributes of calls that all threads of a warp make together: the compiler must not copy them into branches."""


def assembly(code: str, constraints: str, result: Any, *arguments: Any, attributes: tuple[str, ...] = ()) -> tuple[Any, Any]:
    """Signature and code generator of one PTX statement on scalars; the compiler never moves, merges or drops it."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.VoidType() if result == types.void else _LLVM[result]
        statement = ir.FunctionType(kind, [_LLVM[argument] for argument in arguments])
        made = builder.call(ir.InlineAsm(statement, code, constraints, side_effect=True), values, attrs=attributes)
        return context.get_dummy_value() if result == types.void else made

    return result(*arguments), generate


def element(context: Any, builder: Any, kind: Any, array: Any, index_type: Any, index: Any) -> Any:
    """LLVM pointer to an element of a one-dimensional array, or of an array given by its pointer."""
    position = context.cast(builder, index, index_type, types.int64)
    if isinstance(kind, types.CPointer):
        return builder.gep(array, [position])
    return builder.gep(context.make_array(kind)(context, builder, value=array).data, [position])


@lru_cache
def read_values(count: int) -> Any:
    """``read(array, first, stride)``: a tuple of ``count`` values from global memory, ``stride`` elements apart."""

    @intrinsic
    def read(typing_context, array, first, stride):
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            pointers = _pointers(context, builder, signature, values, count)
            return context.make_tuple(builder, signature.return_type, [builder.load(pointer) for pointer in pointers])

        return floats(count)(array, types.int64, types.int64), generate

    @twin_of(read)
    def twin(thread: Any, array: Any, first: int, stride: int) -> tuple[Any, ...]:
        return tuple(array[first + i * stride] for i in range(count))

    return read


@lru_cache
def write_values(count: int) -> Any:
    """``write(array, first, stride, values)``: write the first ``count`` entries of a tuple to global memory."""

    @intrinsic
    def write(typing_context, array, first, stride, values):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            for i, pointer in enumerate(_pointers(context, builder, signature, arguments, count)):
                builder.store(builder.extract_value(arguments[3], i), pointer)
            return context.get_dummy_value()

        return types.void(array, types.int64, types.int64, values), generate

    @twin_of(write)
    def twin(thread: Any, array: Any, first: int, stride: int, values: tuple[Any, ...]) -> None:
        for i in range(count):
            array[first + i * stride] = values[i]

    return write


@intrinsic
def added(typing_context, a, b):
    """Elementwise sum of two tuples of equal length."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pairs = ([builder.extract_value(value, i) for value in values] for i in range(len(signature.return_type)))
        return context.make_tuple(builder, signature.return_type, [builder.fadd(*pair) for pair in pairs])

    return a(a, b), generate


Intrinsic = type(added)


@twin_of(added)
def _added(thread: Any, a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))


@intrinsic
def reciprocal(typing_context, value):
    """1 / value for a float32 from 1 to 2, or NaN, with an error of at most 0.501 units in the last place.

    An approximation within one unit ("rcp.approx") and a Newton step; an exact division would branch to a slow path.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        one, minus_zero, kind = ir.Constant(FLOAT, 1), ir.Constant(FLOAT, -0.0), ir.FunctionType(FLOAT, [FLOAT])
        near = builder.call(ir.InlineAsm(kind, "rcp.approx.ftz.f32 $0, $1;", "=f,f"), values)
        missing = builder.fma(builder.fsub(minus_zero, near), values[0], one)
        return builder.fma(near, missing, near)

    return types.float32(types.float32), generate


@twin_of(reciprocal)
def _reciprocal(thread: Any, value: Any) -> Any:
    """Uses the largest allowed error of the approximation, on either side; products of float32 are exact in float64."""
    near = np.nextafter(np.float32(1) / value, np.float32(value.view(np.uint32) & 1), dtype=np.float32)
    missing = np.float32(1 - np.float64(near) * np.float64(value))
    return np.float32(np.float64(near) * np.float64(missing) + np.float64(near))


@lru_cache
def load_quads(count: int, stride: int) -> Any:
    """``load(array, first)``: load ``count`` quads of float32, ``stride`` elements apart, to keep in registers."""

    @intrinsic
    def load(typing_context, array, first):
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            code, kind = "ld.global.nc.v4.f32 {$0, $1, $2, $3}, [$4];", None
            entries = []
            for i in range(count):
                index = builder.add(values[1], ir.Constant(ir.IntType(64), i * stride))
                pointer = element(context, builder, signature.args[0], values[0], types.int64, index)
                kind = ir.FunctionType(ir.LiteralStructType([FLOAT] * 4), [pointer.type])
                quad = builder.call(ir.InlineAsm(kind, code, "=f,=f,=f,=f,l"), [pointer])
                entries += [builder.extract_value(quad, q) for q in range(4)]
            return context.make_tuple(builder, signature.return_type, entries)

        return floats(4 * count)(array, types.int64), generate

    @twin_of(load)
    def twin(thread: Any, array: Any, first: int) -> tuple[Any, ...]:
        if first % 4:
            raise thread.fault(f"reads four elements from {first} on; expected a multiple of 4")
        return tuple(array[first + i * stride + q] for i in range(count) for q in range(4))

    return load


@lru_cache
def rows_product(gates: int, quads: int, resident: int, lanes: int, stride: int, rows: int, apart: int) -> Any:
    """``multiply(weights, shared, operand, more, lane)``: products of weights and ``rows`` rows (1, 2 or 4) by ``lanes`` lanes.

    The group of lanes multiplies ``gates`` rows of weights by each row of the operand.  The operand is in shared memory from
    element ``operand`` on, its rows ``apart`` elements apart; lane l takes their quads l, l + lanes, and so on.  The first
    ``resident`` of a lane's quads of weights are in the tuple ``weights``.  The others are in shared memory from element
    ``more`` on, ``stride`` elements apart, and are read once for all rows.  Quad j of gate g has number j * gates + g.

    Lane l returns the sums of row l % rows, a tuple of ``gates``: each exchange halves the rows that a lane holds, and the
    remaining exchanges add up.
    """
    chains = 4 // rows

    @intrinsic
    def multiply(typing_context, weights, shared, operand, more, lane):
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            weights, shared, operand, more, lane = values
            load = _quad_loader(context, builder, signature.args[1], shared)
            sums = [[[ir.Constant(FLOAT, 0)] * chains for _ in range(gates)] for _ in range(rows)]
            for j in range(quads):
                h = [load(operand, 4 * lanes * j + r * apart) for r in range(rows)]
                for g in range(gates):
                    number = j * gates + g
                    if j < resident:
                        w = [builder.extract_value(weights, 4 * number + q) for q in range(4)]
                    else:
                        w = load(more, (number - resident * gates) * stride)
                    for r, q in itertools.product(range(rows), range(4)):
                        sums[r][g][q % chains] = builder.fma(w[q], h[r][q], sums[r][g][q % chains])
            totals = [[_added_up(parts, builder.fadd) for parts in row] for row in sums]
            distance = 1
            while distance < lanes:
                if len(totals) > 1:
                    bit = builder.and_(lane, ir.Constant(ir.IntType(64), distance))
                    upper = builder.icmp_unsigned("!=", bit, ir.Constant(ir.IntType(64), 0))
                    pairs = list(zip(totals[::2], totals[1::2], strict=True))
                    totals = [[builder.select(upper, *values) for values in zip(b, a, strict=True)] for a, b in pairs]
                    given = [[builder.select(upper, *values) for values in zip(a, b, strict=True)] for a, b in pairs]
                else:
                    given = totals
                totals = [
                    [builder.fadd(x, _from_lane(builder, y, distance)) for x, y in zip(*row, strict=True)]
                    for row in zip(totals, given, strict=True)
                ]
                distance *= 2
            return context.make_tuple(builder, signature.return_type, totals[0])

        return floats(gates)(weights, shared, types.int64, types.int64, types.int64), generate

    @twin_of(multiply)
    def twin(thread: Any, weights: tuple[Any, ...], shared: Any, operand: int, more: int, lane: int) -> tuple[Any, ...]:
        sums = [[[shared.dtype.type(0)] * chains for _ in range(gates)] for _ in range(rows)]
        for j in range(quads):
            h = [shared_quad(thread, shared, operand + 4 * lanes * j + r * apart) for r in range(rows)]
            for g in range(gates):
                number = j * gates + g
                if j < resident:
                    w = weights[4 * number : 4 * number + 4]
                else:
                    w = shared_quad(thread, shared, more + (number - resident * gates) * stride)
                for r, q in itertools.product(range(rows), range(4)):
                    sums[r][g][q % chains] = sums[r][g][q % chains] + w[q] * h[r][q]
        totals = [[_added_up(parts, operator.add) for parts in row] for row in sums]
        distance = 1
        while distance < lanes:
            upper = 1 if lane & distance else 0
            given = totals[1 - upper :: 2] if len(totals) > 1 else totals
            totals = totals[upper::2] if len(totals) > 1 else totals
            others = thread.shuffle(given, thread.lane ^ distance)
            totals = [[x + y for x, y in zip(*row, strict=True)] for row in zip(totals, others, strict=True)]
            distance *= 2
        return tuple(totals[0])

    return multiply


def _added_up(parts: list[Any], add: Callable[[Any, Any], Any]) -> Any:
    """Pairwise sum of one, two or four parts."""
    while len(parts) > 1:
        parts = [add(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def shared_quad(thread: Any, shared: Any, first: int) -> list[Any]:
    if first % 4:
        raise thread.fault(f"reads four elements from {first} on; expected a multiple of 4")
    return [shared[first + q] for q in range(4)]


def _quad_loader(context: Any, builder: Any, kind: Any, shared: Any) -> Callable[[Any, int], list[Any]]:
    """A function that loads a quad of a shared array at a variable index plus a constant offset."""
    code = "ld.shared.v4.f32 {$0, $1, $2, $3}, [$4];"
    statement = ir.FunctionType(ir.LiteralStructType([FLOAT] * 4), [WORD])
    assembly = ir.InlineAsm(statement, code, "=f,=f,=f,=f,r,~{memory}", side_effect=True)

    def load(index: Any, offset: int) -> list[Any]:
        pointer = element(context, builder, kind, shared, types.int64, index)
        address = builder.ptrtoint(builder.addrspacecast(pointer, ir.PointerType(FLOAT, SHARED)), WORD)
        quad = builder.call(assembly, [builder.add(address, ir.Constant(WORD, 4 * offset))])
        return [builder.extract_value(quad, q) for q in range(4)]

    return load


def _from_lane(builder: Any, value: Any, distance: int) -> Any:
    """The value of the lane whose number differs in bit ``distance``; the whole warp takes part."""
    kind = ir.FunctionType(FLOAT, [FLOAT])
    code = f"shfl.sync.bfly.b32 $0, $1, {distance}, 31, -1;"
    return builder.call(ir.InlineAsm(kind, code, "=f,f", side_effect=True), [value], attrs=TOGETHER)


def _pointers(context: Any, builder: Any, signature: Any, values: Any, count: int) -> list[Any]:
    """Pointers to ``count`` elements of an (array, first, stride)."""
    array, first, stride = values[:3]
    indices = [builder.add(first, builder.mul(stride, ir.Constant(ir.IntType(64), i))) for i in range(count)]
    return [element(context, builder, signature.args[0], array, types.int64, index) for index in indices]


def floats(count: int) -> Any:
    return types.Tuple([types.float32] * count)
