"""Messages within a cluster: stores to the shared memory of another block that are counted at an mbarrier of that block.

A receiver tells its mbarrier how many bytes a phase will bring, and waits only for them: neither for stores of results to
global memory nor for other threads.  PTX ISA 8.x: "st.async", whose write becomes visible by the complete-tx operation on the
mbarrier, a release in the scope of the cluster; "mbarrier.arrive.expect_tx"; "mbarrier.try_wait", here an acquire in that
scope; "fence.mbarrier_init".  Not yet tried on a GPU.
"""

# pyright knows the numba.cuda that Numba carries, not the one that numba-cuda puts in its place:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportMissingImports=false

from typing import Any

from numba.cuda import types
from numba.cuda.extending import intrinsic

from rnnbench.impls.numba_cuda.intrinsics import TOGETHER, assembly, twin_of


@intrinsic
def make_mbarrier(typing_context, address):
    """Initialise an mbarrier with one arrival per phase, at an address of this block's shared memory that is a multiple of 8.

    Peers may use it after the next cluster barrier.
    """
    code = "mbarrier.init.shared::cta.b64 [$0], 1; fence.mbarrier_init.release.cluster;"
    return assembly(code, "r,~{memory}", types.void, types.uint32)


@twin_of(make_mbarrier)
def _make_mbarrier(thread: Any, address: Any) -> None:
    thread.make_mbarrier(address)


@intrinsic
def send_message(typing_context, address, value, mbarrier):
    """Store a float32 asynchronously in a block of the cluster; its four bytes count at an mbarrier of the same block."""
    code = "st.async.shared::cluster.mbarrier::complete_tx::bytes.f32 [$0], $1, [$2];"
    return assembly(code, "r,f,r,~{memory}", types.void, types.uint32, types.float32, types.uint32)


@twin_of(send_message)
def _send_message(thread: Any, address: Any, value: Any, mbarrier: Any) -> None:
    thread.send(address, value, mbarrier)


@intrinsic
def expect_bytes(typing_context, mbarrier, count):
    """Arrive at an mbarrier; the phase ends when ``count`` bytes have come, including those that came earlier."""
    code = "mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], $1;"
    return assembly(code, "r,r,~{memory}", types.void, types.uint32, types.uint32)


@twin_of(expect_bytes)
def _expect_bytes(thread: Any, mbarrier: Any, count: int) -> None:
    thread.mbarrier(mbarrier).expect(thread, int(count))


@intrinsic
def await_phase(typing_context, mbarrier, parity):
    """Wait until the phase of this parity (0 for the first) is over; then its messages can be read.

    All threads of a warp must call it, for every phase: a thread two phases behind would mistake the next phase for its own.
    """
    code = (
        "{ .reg .pred over; again: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 over, [$0], $1; "
        "@!over bra again; bar.warp.sync -1; }"
    )
    return assembly(code, "r,r,~{memory}", types.void, types.uint32, types.uint32, attributes=TOGETHER)


@twin_of(await_phase)
def _await_phase(thread: Any, mbarrier: Any, parity: int) -> None:
    thread.mbarrier(mbarrier).wait(thread, int(parity))
