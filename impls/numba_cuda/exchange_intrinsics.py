"""Intrinsics for exchange between blocks: shared memory of peers, barriers of a cluster and of the grid, global memory.

Inline PTX with twins, as in ``intrinsics``.  PTX ISA 8.x: "mapa", "barrier.cluster", "st.shared::cluster", "red.release",
"ld.acquire".
"""

# pyright knows the numba.cuda that Numba carries, not the one that numba-cuda puts in its place:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportMissingImports=false

from typing import Any

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic

from rnnbench.impls.numba_cuda.intrinsics import FLOAT, SHARED, TOGETHER, WORD, assembly, element, floats, twin_of


def _shared_address(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    """Address of an element of a shared array within the shared memory of its block."""
    pointer = element(context, builder, signature.args[0], values[0], signature.args[1], values[1])
    return builder.ptrtoint(builder.addrspacecast(pointer, ir.PointerType(FLOAT, SHARED)), WORD)


@intrinsic
def shared_address(typing_context, array, index):
    """Address in bytes of an element of a shared array, for ``peer_address``."""
    return types.uint32(array, index), _shared_address


@twin_of(shared_address)
def _shared_address_twin(thread: Any, array: Any, index: int) -> Any:
    return thread.address(array, index)


@intrinsic
def cluster_rank(typing_context):
    """Number of this block within its cluster."""
    return assembly("mov.u32 $0, %cluster_ctarank;", "=r", types.uint32)


@twin_of(cluster_rank)
def _cluster_rank(thread: Any) -> int:
    return thread.block.rank


@intrinsic
def peer_address(typing_context, address, rank):
    """The address in block ``rank`` of the cluster that corresponds to ``address`` in this block's shared memory."""
    return assembly("mapa.shared::cluster.u32 $0, $1, $2;", "=r,r,r", types.uint32, types.uint32, types.uint32)


@twin_of(peer_address)
def _peer_address(thread: Any, address: Any, rank: int) -> Any:
    return thread.peer(address, int(rank))


@intrinsic
def store_peer(typing_context, address, value):
    """Store a float32 in the shared memory of any block of the cluster."""
    code = "st.shared::cluster.f32 [$0], $1;"
    return assembly(code, "r,f,~{memory}", types.void, types.uint32, types.float32)


@twin_of(store_peer)
def _store_peer(thread: Any, address: Any, value: Any) -> None:
    address.store(thread, value)


@intrinsic
def cluster_arrive(typing_context):
    """Arrive at the cluster's barrier without waiting, and release this thread's stores; every thread must call it."""
    return assembly("barrier.cluster.arrive.release.aligned;", "~{memory}", types.void, attributes=TOGETHER)


@twin_of(cluster_arrive)
def _cluster_arrive(thread: Any) -> None:
    thread.arrive(thread.block.cluster.barrier)


@intrinsic
def cluster_wait(typing_context):
    """Wait until all threads of the cluster have arrived; then their stores can be read."""
    return assembly("barrier.cluster.wait.acquire.aligned;", "~{memory}", types.void, attributes=TOGETHER)


@twin_of(cluster_wait)
def _cluster_wait(thread: Any) -> None:
    thread.wait(thread.block.cluster.barrier)


@intrinsic
def count_arrival(typing_context, counter):
    """Add 1 to the uint32 at the start of an array in global memory, and release the block's earlier stores."""

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
    """Wait until the uint32 at the start of an array in global memory is at least ``count``."""

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
    """Load four adjacent float32 that other blocks wrote to global memory; ``index`` is a multiple of 4."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = element(context, builder, signature.args[0], values[0], types.int64, values[1])
        kind = ir.FunctionType(ir.LiteralStructType([FLOAT] * 4), [pointer.type])
        code = "ld.relaxed.gpu.global.v4.f32 {$0, $1, $2, $3}, [$4];"
        quad = builder.call(ir.InlineAsm(kind, code, "=f,=f,=f,=f,l,~{memory}", side_effect=True), [pointer])
        return context.make_tuple(builder, signature.return_type, [builder.extract_value(quad, q) for q in range(4)])

    return floats(4)(array, types.int64), generate


@intrinsic
def store_quad(typing_context, shared, index, quad):
    """Store four adjacent float32 in a shared array with one instruction; ``index`` is a multiple of 4."""

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
