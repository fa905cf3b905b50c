"""The two ways to start a kernel: many independent threads through Numba, teams of blocks through cuda.core; or simulated.

Numba cannot ask for clusters, nor for more than 48 KB of dynamic shared memory.  What is launched through cuda.core is the
same binary that ``offline`` compiles and proves.  That path is written from the documentation of cuda.core 1.x
(``LaunchConfig``: with clusters, ``grid`` counts clusters) and runs against a stand-in for the driver; it has not run on a
GPU yet.
"""

# pyright knows the numba.cuda that Numba carries, not the one that numba-cuda puts in its place:
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from collections.abc import Callable
from contextvars import ContextVar
from functools import cached_property, lru_cache
from typing import Any

from rnnbench.errors import BackendUnavailable
from rnnbench.impls.numba_cuda import capture
from rnnbench.impls.numba_cuda.device import simulated
from rnnbench.impls.numba_cuda.layout import Shape

THREADS = 128

STREAM: ContextVar[int] = ContextVar("stream", default=0)
"""The handle of the stream that kernels go to; 0 is the default stream."""

PORTABLE_CLUSTER = 8
"""Larger clusters have to be allowed for a kernel, and not every GPU has room for them."""


def launch(kernel: Any, work: int, *args: Any) -> None:
    """Start one thread per item of ``work``, in blocks no larger than the work."""
    threads = min(THREADS, work)
    launch_blocks(kernel, -(-work // threads), threads, 0, *args)


def launch_blocks(kernel: Any, blocks: int, threads: int, shared: int, *args: Any) -> None:
    """Start blocks that know nothing of each other, with ``shared`` float32 of shared memory each."""
    if simulated():
        _simulate(kernel, args, blocks=blocks, threads=threads, shared=shared)
    else:
        # only a capture has to know, before Numba compiles and loads
        if capture.underway() and tuple(map(kernel.typeof_pyval, args)) not in kernel.overloads:
            capture.refuse(f"compile {kernel.__name__}")
        kernel[blocks, threads, numba_stream(), 4 * shared](*args)


def numba_stream() -> Any:
    """The stream that kernels go to, as Numba wants it; 0 is the default stream."""
    from numba import cuda

    handle = STREAM.get()
    return cuda.external_stream(handle) if handle else 0


def wait_for_stream() -> None:
    """Wait for what was submitted to the stream; Numba's copies on the default stream have waited already."""
    if simulated():
        from rnnbench.impls.numba_cuda.simulated_driver import DRIVER

        DRIVER.synchronise()
    elif STREAM.get():
        numba_stream().synchronize()


def _simulate(kernel: Any, args: tuple[Any, ...], **how: int) -> None:
    from rnnbench.impls.numba_cuda.simulated_driver import DRIVER

    if not DRIVER.loaded(kernel):
        capture.refuse(f"compile {kernel.__name__}")
    DRIVER.submit(kernel, args, **how)


class TeamKernel:
    """A kernel of flat float32 arrays, then four integers, for teams of one shape; ``shared`` counts float32 of a block.

    ``name`` is that of no other function (``cubins``).
    The last array is the mail of a grid, ``mail`` float32 that are zero at first; in a cluster any array, which is not
    looked at.  The last integer is the first row of the batch.
    """

    def __init__(self, name: str, function: Callable[..., None], shape: Shape, shared: int, mail: int) -> None:
        self.name, self.function, self.shape, self.shared, self.mail = name, function, shape, shared, mail

    @property
    def signature(self) -> Any:
        """The kernel's Numba signature."""
        from numba.cuda.types import CPointer, float32, int64, void

        arrays = self.function.__code__.co_argcount - 4
        return void(*[CPointer(float32)] * arrays, int64, int64, int64, int64)

    def __call__(self, batch: int, new_mail: Callable[[tuple[int, ...]], Any], *args: Any) -> None:
        """Run all rows of a batch: at once in as many clusters as they need, in grids one after the other.

        ``args`` are the arrays but the mail, which ``new_mail(shape)`` makes, then the integers but the last.
        """
        arrays, sizes = args[:-3], args[-3:]
        teams, rows = -(-batch // self.shape.rows), self.shape.rows
        parts = [(1, first) for first in range(0, batch, rows)] if self.shape.grid else [(teams, 0)]
        for count, first in parts:
            mail = new_mail((self.mail,)) if self.shape.grid else arrays[0]
            given = (*arrays, mail, *sizes, first)
            if simulated():
                blocks, cluster = count * self.shape.blocks, 1 if self.shape.grid else self.shape.blocks
                _simulate(self.function, given, blocks=blocks, threads=self.shape.threads, cluster=cluster, shared=self.shared)
            else:
                self._launch(count, given)

    def compiled(self, capability: tuple[Any, ...]) -> Any:
        """The kernel's machine code (``offline.Binary``) for a device, which is kept on disk."""
        from rnnbench.impls.numba_cuda import cubins

        return cubins.compiled(self.name, self.function, self.signature, self.shape.threads, capability)

    def clusters_at_once(self) -> int:
        """How many clusters of this kernel the current device has room for."""
        from cuda.core import LEGACY_DEFAULT_STREAM

        return self._loaded.occupancy.max_active_clusters(self._config(1), stream=LEGACY_DEFAULT_STREAM)

    def _launch(self, teams: int, args: tuple[Any, ...]) -> None:
        from cuda.core import launch

        capture.keep(self._loaded)
        launch(_core_stream(STREAM.get()), self._config(teams), self._loaded, *(_passed(value) for value in args))

    def _config(self, teams: int) -> Any:
        from cuda.core import LaunchConfig

        threads, shared = self.shape.threads, 4 * self.shared
        if self.shape.grid:  # cooperative: refused unless all blocks have room at once
            return LaunchConfig(grid=self.shape.blocks, block=threads, shmem_size=shared, is_cooperative=True)
        return LaunchConfig(grid=teams, cluster=self.shape.blocks, block=threads, shmem_size=shared)

    @cached_property
    def _loaded(self) -> Any:
        """The kernel on the current device, compiled for it."""
        from cuda.core import Device, ObjectCode

        from rnnbench.impls.numba_cuda.offline import target

        capture.refuse(f"compile {self.function.__name__}")
        device = Device()
        device.set_current()
        binary = self.compiled(target(device.compute_capability))
        loaded = ObjectCode.from_cubin(binary.cubin).get_kernel(binary.entry)
        _allow(loaded, device, "MAX_DYNAMIC_SHARED_SIZE_BYTES", 4 * self.shared)
        if not self.shape.grid:
            _allow(loaded, device, "NON_PORTABLE_CLUSTER_SIZE_ALLOWED", int(self.shape.blocks > PORTABLE_CLUSTER))
        return loaded


def _allow(kernel: Any, device: Any, attribute: str, value: int) -> None:
    """Set an attribute of a kernel through the driver: those of cuda.core's kernels are read-only.

    Raises BackendUnavailable where the driver refuses.
    """
    from cuda.bindings import driver

    number = getattr(driver.CUfunction_attribute, f"CU_FUNC_ATTRIBUTE_{attribute}")
    (error,) = driver.cuKernelSetAttribute(number, value, kernel.handle, device.device_id)
    if error != driver.CUresult.CUDA_SUCCESS:
        raise BackendUnavailable(f"the driver refuses a kernel {attribute} = {value} ({error.name}) on {device.name}")


@lru_cache
def _core_stream(handle: int) -> Any:
    """A stream of cuda.core's, which asks the driver for its device once, when it is used first: not in a capture."""
    from cuda.core import LEGACY_DEFAULT_STREAM, Stream

    return Stream.from_handle(handle) if handle else LEGACY_DEFAULT_STREAM


def _passed(value: Any) -> int:
    """A device array's address, or an integer."""
    return value if isinstance(value, int) else value.__cuda_array_interface__["data"][0]
