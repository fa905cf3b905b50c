"""What CUDA threads do beyond Numba's own functions: inline PTX for kernels, each with its twin for the simulator.

An intrinsic is called in a kernel like a function.  Its twin does the same to the simulated machine
(``simulated_machine.Thread``); it takes the calling thread and the same arguments.  PTX ISA 8.x: "mapa", "barrier.cluster",
"st.shared::cluster", "red.release", "ld.acquire", "rcp".
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
"""The simulated counterpart of each intrinsic."""

FLOAT, WORD = ir.FloatType(), ir.IntType(32)
_LLVM = {types.float32: FLOAT, types.uint32: WORD}
SHARED = 3


def twin_of(function: Any) -> Callable[[Twin], Twin]:
    """Register what the simulator calls in place of an intrinsic."""

    def register(twin: Twin) -> Twin:
        TWINS[function] = twin
        return twin

    return register


TOGETHER = ("convergent",)
"""Of a call that the threads of a warp have to make together: the compiler must not copy it into branches."""


def assembly(code: str, constraints: str, result: Any, *arguments: Any, attributes: tuple[str, ...] = ()) -> tuple[Any, Any]:
    """Signature and code generator of one PTX statement on scalars; it is never moved, merged or dropped."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.VoidType() if result == types.void else _LLVM[result]
        statement = ir.FunctionType(kind, [_LLVM[argument] for argument in arguments])
        made = builder.call(ir.InlineAsm(statement, code, constraints, side_effect=True), values, attrs=attributes)
        return context.get_dummy_value() if result == types.void else made

    return result(*arguments), generate


def element(context: Any, builder: Any, kind: Any, array: Any, index_type: Any, index: Any) -> Any:
    """The LLVM pointer to an element of a one-dimensional array or behind a pointer."""
    position = context.cast(builder, index, index_type, types.int64)
    if isinstance(kind, types.CPointer):
        return builder.gep(array, [position])
    return builder.gep(context.make_array(kind)(context, builder, value=array).data, [position])


def _shared_address(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    """The address of an element of a shared array within the shared memory of its block."""
    pointer = element(context, builder, signature.args[0], values[0], signature.args[1], values[1])
    return builder.ptrtoint(builder.addrspacecast(pointer, ir.PointerType(FLOAT, SHARED)), WORD)


@intrinsic
def shared_address(typing_context, array, index):
    """The address, in bytes, of an element of a shared array; for ``peer_address``."""
    return types.uint32(array, index), _shared_address


@twin_of(shared_address)
def _shared_address_twin(thread: Any, array: Any, index: int) -> Any:
    return thread.address(array, index)


@intrinsic
def cluster_rank(typing_context):
    """The number of this block within its cluster."""
    return assembly("mov.u32 $0, %cluster_ctarank;", "=r", types.uint32)


Intrinsic = type(cluster_rank)


@twin_of(cluster_rank)
def _cluster_rank(thread: Any) -> int:
    return thread.block.rank


@intrinsic
def peer_address(typing_context, address, rank):
    """What ``address`` of this block's shared memory is in the block ``rank`` of the cluster."""
    return assembly("mapa.shared::cluster.u32 $0, $1, $2;", "=r,r,r", types.uint32, types.uint32, types.uint32)


@twin_of(peer_address)
def _peer_address(thread: Any, address: Any, rank: int) -> Any:
    return thread.peer(address, int(rank))


@intrinsic
def store_peer(typing_context, address, value):
    """Store a float32 in the shared memory of a block of the cluster."""
    code = "st.shared::cluster.f32 [$0], $1;"
    return assembly(code, "r,f,~{memory}", types.void, types.uint32, types.float32)


@twin_of(store_peer)
def _store_peer(thread: Any, address: Any, value: Any) -> None:
    address.store(thread, value)


@intrinsic
def cluster_arrive(typing_context):
    """Tell the cluster that this thread's stores are done, without waiting; every thread of the cluster has to."""
    return assembly("barrier.cluster.arrive.release.aligned;", "~{memory}", types.void, attributes=TOGETHER)


@twin_of(cluster_arrive)
def _cluster_arrive(thread: Any) -> None:
    thread.arrive(thread.block.cluster.barrier)


@intrinsic
def cluster_wait(typing_context):
    """Wait until all threads of the cluster have arrived; their stores can be read then."""
    return assembly("barrier.cluster.wait.acquire.aligned;", "~{memory}", types.void, attributes=TOGETHER)


@twin_of(cluster_wait)
def _cluster_wait(thread: Any) -> None:
    thread.wait(thread.block.cluster.barrier)


@intrinsic
def count_arrival(typing_context, counter):
    """Add 1 to the uint32 at the beginning of an array in global memory; what the block stored before is seen with it."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = element(context, builder, signature.args[0], values[0], types.int64, ir.Constant(ir.IntType(64), 0))
        kind = ir.FunctionType(ir.VoidType(), [pointer.type])
        code = "red.release.gpu.global.add.u32 [$0], 1;"
        builder.call(ir.InlineAsm(kind, code, "l,~{memory}", side_effect=True), [pointer])
        return context.get_dummy_value()

    return types.void(counter), generate


@twin_of(count_arrival)
def _count_arrival(thread: Any, counter: Any) -> None:
    counter[0] += 1


@intrinsic
def await_arrivals(typing_context, counter, count):
    """Wait until the uint32 at the beginning of an array in global memory is ``count`` or more."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = element(context, builder, signature.args[0], values[0], types.int64, ir.Constant(ir.IntType(64), 0))
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, WORD])
        code = (
            "{ .reg .pred less; .reg .u32 found; again: ld.acquire.gpu.global.u32 found, [$0]; "
            "setp.lt.u32 less, found, $1; @less bra again; }"
        )
        builder.call(ir.InlineAsm(kind, code, "l,r,~{memory}", side_effect=True), [pointer, values[1]])
        return context.get_dummy_value()

    return types.void(counter, types.uint32), generate


@twin_of(await_arrivals)
def _await_arrivals(thread: Any, counter: Any, count: int) -> None:
    thread.wait_while(lambda: counter[0] < count, "barrier of the grid")


@intrinsic
def load_mail(typing_context, array, index):
    """Four neighbouring float32 of global memory as other blocks have left them; ``index`` is a multiple of 4."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = element(context, builder, signature.args[0], values[0], types.int64, values[1])
        kind = ir.FunctionType(ir.LiteralStructType([FLOAT] * 4), [pointer.type])
        code = "ld.relaxed.gpu.global.v4.f32 {$0, $1, $2, $3}, [$4];"
        quad = builder.call(ir.InlineAsm(kind, code, "=f,=f,=f,=f,l,~{memory}", side_effect=True), [pointer])
        return context.make_tuple(builder, signature.return_type, [builder.extract_value(quad, q) for q in range(4)])

    return floats(4)(array, types.int64), generate


@intrinsic
def store_quad(typing_context, shared, index, quad):
    """Store four float32 next to each other in a shared array, at once; ``index`` is a multiple of 4."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = element(context, builder, signature.args[0], values[0], types.int64, values[1])
        address = builder.ptrtoint(builder.addrspacecast(pointer, ir.PointerType(FLOAT, SHARED)), WORD)
        kind = ir.FunctionType(ir.VoidType(), [WORD, *[FLOAT] * 4])
        store = ir.InlineAsm(kind, "st.shared.v4.f32 [$0], {$1, $2, $3, $4};", "r,f,f,f,f,~{memory}", side_effect=True)
        builder.call(store, [address, *(builder.extract_value(values[2], q) for q in range(4))])
        return context.get_dummy_value()

    return types.void(shared, types.int64, floats(4)), generate


@twin_of(store_quad)
def _store_quad(thread: Any, shared: Any, index: int, quad: tuple[Any, ...]) -> None:
    if index % 4:
        raise thread.fault(f"writes four elements from {index} on; expected a multiple of 4")
    for q in range(4):
        shared[index + q] = quad[q]


@twin_of(load_mail)
def _load_mail(thread: Any, array: Any, index: int) -> tuple[Any, ...]:
    if index % 4:
        raise thread.fault(f"reads four elements from {index} on; expected a multiple of 4")
    return tuple(array[index + q] for q in range(4))


@lru_cache
def read_values(count: int) -> Any:
    """``read(array, first, stride)``: a tuple of ``count`` values of an array in global memory, ``stride`` elements apart."""

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
    """``write(array, first, stride, values)``: the first ``count`` entries of a tuple to an array in global memory."""

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
    """The sums of the entries of two tuples of equal length."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pairs = ([builder.extract_value(value, i) for value in values] for i in range(len(signature.return_type)))
        return context.make_tuple(builder, signature.return_type, [builder.fadd(*pair) for pair in pairs])

    return a(a, b), generate


@twin_of(added)
def _added(thread: Any, a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))


@intrinsic
def reciprocal(typing_context, value):
    """1 / value of a float32 from 1 to 2, or of NaN, within 0.501 of the distance between two numbers: an approximation that
    is one of them off at most ("rcp.approx") and a Newton step.  An exact division would have a slow path of its own."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        one, minus_zero, kind = ir.Constant(FLOAT, 1), ir.Constant(FLOAT, -0.0), ir.FunctionType(FLOAT, [FLOAT])
        near = builder.call(ir.InlineAsm(kind, "rcp.approx.ftz.f32 $0, $1;", "=f,f"), values)
        missing = builder.fma(builder.fsub(minus_zero, near), values[0], one)
        return builder.fma(near, missing, near)

    return types.float32(types.float32), generate


@twin_of(reciprocal)
def _reciprocal(thread: Any, value: Any) -> Any:
    """The approximation is as wrong as it may be, on either side; products of float32 are exact in float64."""
    near = np.nextafter(np.float32(1) / value, np.float32(value.view(np.uint32) & 1), dtype=np.float32)
    missing = np.float32(1 - np.float64(near) * np.float64(value))
    return np.float32(np.float64(near) * np.float64(missing) + np.float64(near))


@lru_cache
def load_quads(count: int, stride: int) -> Any:
    """``load(array, first)``: ``count`` quads of float32, ``stride`` elements apart, to be kept in registers."""

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
    """``multiply(weights, shared, operand, more, lane)``: what this thread's group of ``lanes`` lanes makes of ``rows`` rows.

    The group multiplies ``gates`` rows of weights by each row of the operand, which lie in shared memory from element
    ``operand`` on, ``apart`` elements from each other; lane l takes the quads l, l + lanes, ... of them.  The first
    ``resident`` of a lane's quads of weights are in the tuple ``weights``, the others in shared memory from element ``more``
    on, ``stride`` elements apart, and are read once for all rows; quad j of gate g is number j * gates + g.  Lane l gets the
    sums of row l % rows, a tuple of ``gates``: the lanes halve the rows that they have with every exchange, then add up.
    ``rows`` is 1, 2 or 4.
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
    """The sum of one, two or four parts, two by two."""
    while len(parts) > 1:
        parts = [add(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def shared_quad(thread: Any, shared: Any, first: int) -> list[Any]:
    if first % 4:
        raise thread.fault(f"reads four elements from {first} on; expected a multiple of 4")
    return [shared[first + q] for q in range(4)]


def _quad_loader(context: Any, builder: Any, kind: Any, shared: Any) -> Callable[[Any, int], list[Any]]:
    """Loads quads of a shared array at a variable index plus a constant one."""
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
    """The same value of the lane whose number differs in the bit ``distance``; the whole warp takes part."""
    kind = ir.FunctionType(FLOAT, [FLOAT])
    code = f"shfl.sync.bfly.b32 $0, $1, {distance}, 31, -1;"
    return builder.call(ir.InlineAsm(kind, code, "=f,f", side_effect=True), [value], attrs=TOGETHER)


def _pointers(context: Any, builder: Any, signature: Any, values: Any, count: int) -> list[Any]:
    """The places of an (array, first, stride)."""
    array, first, stride = values[:3]
    indices = [builder.add(first, builder.mul(stride, ir.Constant(ir.IntType(64), i))) for i in range(count)]
    return [element(context, builder, signature.args[0], array, types.int64, index) for index in indices]


def floats(count: int) -> Any:
    return types.Tuple([types.float32] * count)
