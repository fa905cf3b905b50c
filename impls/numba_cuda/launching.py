"""One way to start kernels: compiled by ``offline``, launched through ``cuda.core``; or simulated.

Numba's own launches take tens of microseconds, and cannot ask for clusters nor for more than 48 KB of dynamic shared memory.
Every parameter is a word of 8 bytes, an address or an integer, so that a launch hands over a list of numbers.  Written
from the documentation of cuda.core 1.x (``LaunchConfig``: with clusters, ``grid`` counts clusters); it has not run on a GPU.
"""

# pyright knows the numba.cuda that Numba carries, not the one that numba-cuda puts in its place:
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numba.cuda.cudadrv.devicearray import DeviceNDArray

from rnnbench.errors import BackendUnavailable
from rnnbench.impls.numba_cuda import capture
from rnnbench.impls.numba_cuda.device import simulated
from rnnbench.impls.numba_cuda.layout import WARP, Shape

THREADS = 128

STREAM: ContextVar[int] = ContextVar("stream", default=0)
"""The handle of the stream that kernels go to; 0 is the default stream."""

PORTABLE_CLUSTER = 8
"""Larger clusters have to be allowed for a kernel, and not every GPU has room for them."""

STATIC_LIMIT = 48 * 1024
"""Bytes of shared memory that a kernel may have without asking."""


class Kernel:
    """A kernel whose blocks know nothing of each other, compiled once for each combination of its arrays' dtypes.

    Its parameters are named tuples of a flat array and integers (``kernels.Matrix``), flat arrays, and integers.
    """

    def __init__(self, function: Callable[..., None], threads: int = THREADS) -> None:
        self.function, self.threads = function, threads
        self._loaded: dict[Any, Any] = {}

    def launch(self, blocks: int, threads: int, shared: int, *args: Any) -> None:
        """Start blocks of ``threads`` threads with ``shared`` float32 of shared memory each."""
        if simulated():
            _simulate(self.function, args, blocks=blocks, threads=threads, shared=shared)
            return
        words: list[int] = []
        dtypes = []
        for value in args:
            if type(value) is int:
                words.append(value)
            elif isinstance(value, tuple):
                dtypes.append(value[0].dtype)
                words.append(address(value[0]))
                words += value[1:]
            else:
                dtypes.append(value.dtype)
                words.append(address(value))
        key = tuple(dtypes)
        loaded = self._loaded.get(key)
        if loaded is None:
            loaded = self._loaded[key] = self._load(signature(args), 4 * shared)
        _start(loaded, configuration(blocks, threads, 4 * shared), words)

    def compiled(self, given: Any, capability: tuple[Any, ...]) -> Any:
        """The machine code (``offline.Binary``) for arguments of a signature and a device, which is kept on disk."""
        from rnnbench.impls.numba_cuda import cubins

        return cubins.compiled(self.function, given, self.threads, capability)

    def _load(self, given: Any, shared: int) -> Any:
        capture.refuse(f"compile {self.function.__name__}")
        return load(partial(self.compiled, given), shared)


def launch(kernel: Kernel, work: int, *args: Any) -> None:
    """Start one thread per item of ``work``, in blocks no larger than the work."""
    threads = min(kernel.threads, work)
    kernel.launch(-(-work // threads), threads, 0, *args)


def clear(array: Any) -> None:
    """Zero every byte of an array in C order, in the order of the stream."""
    if simulated():
        from rnnbench.impls.numba_cuda.simulated_driver import DRIVER

        DRIVER.clear(array)
    elif array.size:
        _zero(address(array), array.size * array.dtype.itemsize)


def _zero(place: int, size: int) -> None:
    from cuda.bindings import driver

    _attach()
    (error,) = driver.cuMemsetD8Async(place, 0, size, STREAM.get())
    if error != driver.CUresult.CUDA_SUCCESS:
        raise BackendUnavailable(f"the driver does not clear memory ({error.name})")


def address(array: Any) -> int:
    """Where a device array of Numba's, or a ``memory.Piece``, lies."""
    return array.device_ctypes_pointer.value or 0 if isinstance(array, DeviceNDArray) else array.address


def signature(args: tuple[Any, ...]) -> Any:
    """The Numba signature of a kernel with such arguments."""
    from numba.cuda.types import NamedTuple, int64, void

    def typed(value: Any) -> Any:
        if isinstance(value, int):
            return int64
        if isinstance(value, tuple):
            return NamedTuple([pointer(value[0].dtype), *[int64] * (len(value) - 1)], type(value))
        return pointer(value.dtype)

    return void(*map(typed, args))


def pointer(dtype: Any) -> Any:
    """Numba's type of a flat array of a dtype."""
    from numba.cuda import types

    return types.CPointer(getattr(types, np.dtype(dtype).name))


class TeamKernel:
    """A kernel of flat arrays, the last of them named ``mail``, then integers, for teams of one shape; ``shared`` counts
    float32 of a block.

    The mail of a grid is ``mail`` float32 that are zero at first; a cluster has none.  The last integer is the first row of
    the batch.
    """

    def __init__(self, function: Callable[..., None], shape: Shape, shared: int, mail: int) -> None:
        self.function, self.shape, self.shared, self.mail = function, shape, shared, mail
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        self.arrays, self._integers = names[: names.index("mail") + 1], len(names) - names.index("mail") - 1
        self._loaded: dict[Any, Any] = {}

    @property
    def signature(self) -> Any:
        """The kernel's Numba signature where all arrays are float32."""
        return self.signature_of({})

    def signature_of(self, dtypes: Mapping[str, Any]) -> Any:
        """The Numba signature where arrays of some names have other dtypes than float32."""
        from numba.cuda.types import int64, void

        return void(*[pointer(dtypes.get(name, "float32")) for name in self.arrays], *[int64] * self._integers)

    def mail_of(self, batch: int) -> int:
        """How many float32 of mail a launch takes for so many rows of the batch; each pass of a grid has its own."""
        return self.mail * len(self._passes(batch)) if self.shape.grid else 0

    def __call__(self, batch: int, mail: Any, *args: Any) -> None:
        """Run all rows of a batch: at once in as many clusters as they need, in grids one after the other.

        ``args`` are the arrays but the mail, each flat, the part of one that a ``kernels.Matrix`` begins, or None where the
        kernel looks at none, then the integers but the last.  ``mail`` has ``mail_of(batch)`` float32, whatever is in them.
        """
        count = len(self.arrays) - 1
        if self.shape.grid:
            clear(mail)
        teams, passes = (1 if self.shape.grid else -(-batch // self.shape.rows)), self._passes(batch)
        if simulated():
            arrays = [_beginning(value) for value in args[:count]]
            blocks, cluster = teams * self.shape.blocks, 1 if self.shape.grid else self.shape.blocks
            for number, first in enumerate(passes):
                posted = mail[number * self.mail : (number + 1) * self.mail] if self.shape.grid else None
                given = (*arrays, posted, *args[count:], first)
                _simulate(self.function, given, blocks=blocks, threads=self.shape.threads, cluster=cluster, shared=self.shared)
            return
        loaded, config = self._ready(tuple([_dtype(value) for value in args[:count]])), self._config(teams)
        words = [_begins(value) for value in args[:count]]
        box = address(mail) if self.shape.grid else 0
        for number, first in enumerate(passes):
            _start(loaded, config, [*words, box + 4 * self.mail * number, *args[count:], first])

    def compiled(self, capability: tuple[Any, ...], dtypes: Mapping[str, Any] = MappingProxyType({})) -> Any:
        """The kernel's machine code (``offline.Binary``) for a device and ``signature_of`` dtypes, which is kept on disk."""
        from rnnbench.impls.numba_cuda import cubins

        return cubins.compiled(self.function, self.signature_of(dtypes), self.shape.threads, capability)

    def _passes(self, batch: int) -> range:
        """The first rows of what a grid runs one after the other."""
        return range(0, batch, self.shape.rows) if self.shape.grid else range(1)

    def _config(self, teams: int) -> Any:
        shape = self.shape
        if shape.grid:  # cooperative: refused unless all blocks have room at once
            return configuration(shape.blocks, shape.threads, 4 * self.shared, cooperative=True)
        return configuration(teams, shape.threads, 4 * self.shared, cluster=shape.blocks)

    def _ready(self, dtypes: tuple[Any, ...]) -> Any:
        """The kernel on the current device, compiled for it and for arrays of some dtypes."""
        loaded = self._loaded.get(dtypes)
        if loaded is None:
            capture.refuse(f"compile {self.function.__name__}")
            given = {name: dtype for name, dtype in zip(self.arrays, dtypes, strict=False) if dtype is not None}
            cluster = 1 if self.shape.grid else self.shape.blocks
            loaded = self._loaded[dtypes] = load(partial(self.compiled, dtypes=given), 4 * self.shared, cluster)
        return loaded


def clusters_at_once(blocks: int, shared: int) -> int:
    """How many clusters the current device has room for whose blocks have so many bytes of shared memory each."""
    from cuda.core import LEGACY_DEFAULT_STREAM

    occupancy = _empty(blocks, shared).occupancy
    return occupancy.max_active_clusters(configuration(1, WARP, shared, cluster=blocks), stream=LEGACY_DEFAULT_STREAM)


@lru_cache
def _empty(blocks: int, shared: int) -> Any:
    """A loaded kernel that does nothing."""

    def empty(size):
        pass

    return load(partial(Kernel(empty).compiled, signature((0,))), shared, blocks)


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


def load(compiled: Callable[[tuple[Any, ...]], Any], shared: int, cluster: int = 1) -> Any:
    """A kernel on the current device, of the machine code that ``compiled(capability)`` gives; ``shared`` in bytes."""
    from cuda.core import Device, ObjectCode

    from rnnbench.impls.numba_cuda.offline import target

    device = Device()
    device.set_current()
    binary = compiled(target(device.compute_capability))
    loaded = ObjectCode.from_cubin(binary.cubin).get_kernel(binary.entry)
    if shared > STATIC_LIMIT:
        _allow(loaded, device, "MAX_DYNAMIC_SHARED_SIZE_BYTES", shared)
    if cluster > PORTABLE_CLUSTER:
        _allow(loaded, device, "NON_PORTABLE_CLUSTER_SIZE_ALLOWED", 1)
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


@lru_cache(maxsize=4096)
def configuration(blocks: int, threads: int, shared: int, cluster: int = 1, cooperative: bool = False) -> Any:
    """How a kernel is launched; ``blocks`` counts clusters where there are several blocks in one."""
    from cuda.core import LaunchConfig

    if cluster > 1:
        return LaunchConfig(grid=blocks, cluster=cluster, block=threads, shmem_size=shared)
    return LaunchConfig(grid=blocks, block=threads, shmem_size=shared, is_cooperative=cooperative)


def _start(loaded: Any, config: Any, words: list[int]) -> None:
    from cuda.core import launch

    _attach()
    capture.keep(loaded)
    launch(_core_stream(STREAM.get()), config, loaded, *words)


class _Thread(threading.local):
    attached = False


_THREAD = _Thread()


def _attach() -> None:
    """Make the device's context this thread's, which Numba does for its own calls alone."""
    if not _THREAD.attached:
        from cuda.core import Device

        Device().set_current()
        _THREAD.attached = True


def _simulate(function: Any, args: tuple[Any, ...], **how: int) -> None:
    from rnnbench.impls.numba_cuda import simulator
    from rnnbench.impls.numba_cuda.simulated_driver import DRIVER

    if not DRIVER.loaded(function):
        capture.refuse(f"compile {function.__name__}")
    DRIVER.submit(simulator.run, function, args, **how)


@lru_cache
def _core_stream(handle: int) -> Any:
    """A stream of cuda.core's, which asks the driver for its device once, when it is used first: not in a capture."""
    from cuda.core import LEGACY_DEFAULT_STREAM, Stream

    return Stream.from_handle(handle) if handle else LEGACY_DEFAULT_STREAM


def _beginning(value: Any) -> Any:
    """A simulated array from where a matrix begins."""
    return value.array[value.first :] if isinstance(value, tuple) else value


def _begins(value: Any) -> int:
    """The address at which an array or a matrix begins."""
    if value is None:
        return 0
    return address(value.array) + value.first * value.array.dtype.itemsize if isinstance(value, tuple) else address(value)


def _dtype(value: Any) -> Any:
    return None if value is None else (value.array if isinstance(value, tuple) else value).dtype
