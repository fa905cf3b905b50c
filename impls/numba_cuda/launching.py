"""Kernel launches: kernels are compiled by ``offline`` and launched through ``cuda.core``, or simulated.

Numba's own launches take tens of microseconds, and support neither clusters nor more than 48 KB of dynamic shared memory.
Every parameter is a word of 8 bytes, an address or an integer, so a launch passes a list of numbers.  Written from the
documentation of cuda.core 1.x (with clusters, ``LaunchConfig.grid`` counts clusters); not yet run on a GPU.
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
"""Handle of the stream for kernels; 0 is the default stream."""

PORTABLE_CLUSTER = 8
"""Maximum cluster size that every GPU with clusters supports; a kernel needs an attribute for larger clusters."""

STATIC_LIMIT = 48 * 1024
"""Maximum shared memory in bytes that a kernel may use without an attribute."""


class Kernel:
    """A kernel with independent blocks, compiled once for each combination of its arrays' dtypes.

    Its parameters are named tuples of a flat array and integers (``kernels.Matrix``), flat arrays, and integers.
    """

    def __init__(self, function: Callable[..., None], threads: int = THREADS) -> None:
        self.function, self.threads = function, threads
        self._loaded: dict[Any, Any] = {}

    def launch(self, blocks: int, threads: int, shared: int, *args: Any) -> None:
        """Launch blocks of ``threads`` threads with ``shared`` float32 of shared memory each."""
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
        """The machine code (``offline.Binary``) for a signature and a device, cached on disk."""
        from rnnbench.impls.numba_cuda import cubins

        return cubins.compiled(self.function, given, self.threads, capability)

    def _load(self, given: Any, shared: int) -> Any:
        capture.refuse(f"compile {self.function.__name__}")
        return load(partial(self.compiled, given), shared)


def launch(kernel: Kernel, work: int, *args: Any) -> None:
    """Launch one thread per item of ``work``, in blocks no larger than ``work``."""
    threads = min(kernel.threads, work)
    kernel.launch(-(-work // threads), threads, 0, *args)


def clear(array: Any) -> None:
    """Zero an array in C order, in stream order."""
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
        raise BackendUnavailable(f"the driver failed to clear memory ({error.name})")


def address(array: Any) -> int:
    """Address of a Numba device array or a ``memory.Piece``."""
    return array.device_ctypes_pointer.value or 0 if isinstance(array, DeviceNDArray) else array.address


def signature(args: tuple[Any, ...]) -> Any:
    """The Numba signature of a kernel for these arguments."""
    from numba.cuda.types import NamedTuple, int64, void

    def typed(value: Any) -> Any:
        if isinstance(value, int):
            return int64
        if isinstance(value, tuple):
            return NamedTuple([pointer(value[0].dtype), *[int64] * (len(value) - 1)], type(value))
        return pointer(value.dtype)

    return void(*map(typed, args))


def pointer(dtype: Any) -> Any:
    """Numba's type for a flat array of a dtype."""
    from numba.cuda import types

    return types.CPointer(getattr(types, np.dtype(dtype).name))


class TeamKernel:
    """A kernel for teams of one shape, whose parameters are flat arrays, the last one named ``mail``, then integers.

    ``shared``: float32 of shared memory per block.  ``mail``: float32 of mail of a grid, which must be zero at the start; a
    cluster has none.  The kernel's last integer is the first batch row.
    """

    def __init__(self, function: Callable[..., None], shape: Shape, shared: int, mail: int) -> None:
        self.function, self.shape, self.shared, self.mail = function, shape, shared, mail
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        self.arrays, self._integers = names[: names.index("mail") + 1], len(names) - names.index("mail") - 1
        self._loaded: dict[Any, Any] = {}

    @property
    def signature(self) -> Any:
        """The kernel's Numba signature if all arrays are float32."""
        return self.signature_of({})

    def signature_of(self, dtypes: Mapping[str, Any]) -> Any:
        """The kernel's Numba signature; ``dtypes`` gives the arrays that are not float32, by name."""
        from numba.cuda.types import int64, void

        return void(*[pointer(dtypes.get(name, "float32")) for name in self.arrays], *[int64] * self._integers)

    def mail_of(self, batch: int) -> int:
        """Number of float32 of mail for ``batch`` rows; each pass of a grid has its own."""
        return self.mail * len(self._passes(batch)) if self.shape.grid else 0

    def __call__(self, batch: int, mail: Any, *args: Any) -> None:
        """Run all rows of a batch: in as many clusters as needed at once, or in several passes of a grid.

        ``args``: all arrays except the mail (a flat array, a ``kernels.Matrix`` for the part from its first element on, or None
        where the kernel ignores it), then all integers except the last.  ``mail``: ``mail_of(batch)`` float32, which are
        cleared first.
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
        """The machine code (``offline.Binary``) for a device and ``signature_of(dtypes)``, cached on disk."""
        from rnnbench.impls.numba_cuda import cubins

        return cubins.compiled(self.function, self.signature_of(dtypes), self.shape.threads, capability)

    def _passes(self, batch: int) -> range:
        """The first batch row of each pass of a grid."""
        return range(0, batch, self.shape.rows) if self.shape.grid else range(1)

    def _config(self, teams: int) -> Any:
        shape = self.shape
        if shape.grid:  # cooperative: the launch fails unless all blocks fit at once
            return configuration(shape.blocks, shape.threads, 4 * self.shared, cooperative=True)
        return configuration(teams, shape.threads, 4 * self.shared, cluster=shape.blocks)

    def _ready(self, dtypes: tuple[Any, ...]) -> Any:
        """The kernel, compiled for the current device and the dtypes of its arrays, and loaded."""
        loaded = self._loaded.get(dtypes)
        if loaded is None:
            capture.refuse(f"compile {self.function.__name__}")
            given = {name: dtype for name, dtype in zip(self.arrays, dtypes, strict=False) if dtype is not None}
            cluster = 1 if self.shape.grid else self.shape.blocks
            loaded = self._loaded[dtypes] = load(partial(self.compiled, dtypes=given), 4 * self.shared, cluster)
        return loaded


def clusters_at_once(blocks: int, shared: int) -> int:
    """Number of clusters of ``blocks`` blocks, with ``shared`` bytes of shared memory each, that fit on the current device."""
    from cuda.core import LEGACY_DEFAULT_STREAM

    occupancy = _empty(blocks, shared).occupancy
    return occupancy.max_active_clusters(configuration(1, WARP, shared, cluster=blocks), stream=LEGACY_DEFAULT_STREAM)


@lru_cache
def _empty(blocks: int, shared: int) -> Any:
    """A loaded empty kernel."""

    def empty(size):
        pass

    return load(partial(Kernel(empty).compiled, signature((0,))), shared, blocks)


def numba_stream() -> Any:
    """The stream for kernels as a Numba stream; 0 is the default stream."""
    from numba import cuda

    handle = STREAM.get()
    return cuda.external_stream(handle) if handle else 0


def wait_for_stream() -> None:
    """Wait for all work on the stream; on the default stream, Numba's copies have waited already."""
    if simulated():
        from rnnbench.impls.numba_cuda.simulated_driver import DRIVER

        DRIVER.synchronise()
    elif STREAM.get():
        numba_stream().synchronize()


def load(compiled: Callable[[tuple[Any, ...]], Any], shared: int, cluster: int = 1) -> Any:
    """Load the machine code that ``compiled(capability)`` returns on the current device; ``shared`` is in bytes."""
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
    """Set an attribute of a kernel through the driver, because cuda.core's are read-only.

    Raises BackendUnavailable where the driver refuses.
    """
    from cuda.bindings import driver

    number = getattr(driver.CUfunction_attribute, f"CU_FUNC_ATTRIBUTE_{attribute}")
    (error,) = driver.cuKernelSetAttribute(number, value, kernel.handle, device.device_id)
    if error != driver.CUresult.CUDA_SUCCESS:
        raise BackendUnavailable(f"the driver refuses a kernel {attribute} = {value} ({error.name}) on {device.name}")


@lru_cache(maxsize=4096)
def configuration(blocks: int, threads: int, shared: int, cluster: int = 1, cooperative: bool = False) -> Any:
    """The launch configuration of a kernel; ``blocks`` counts clusters if ``cluster`` is above 1."""
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
    """Make the device's context current in this thread; Numba does so only for its own calls."""
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
    """The stream as a cuda.core stream; cached, because its first use queries the driver, which a capture forbids."""
    from cuda.core import LEGACY_DEFAULT_STREAM, Stream

    return Stream.from_handle(handle) if handle else LEGACY_DEFAULT_STREAM


def _beginning(value: Any) -> Any:
    """A simulated array from the first element of a matrix on."""
    return value.array[value.first :] if isinstance(value, tuple) else value


def _begins(value: Any) -> int:
    """Address of the first element of an array or a matrix."""
    if value is None:
        return 0
    return address(value.array) + value.first * value.array.dtype.itemsize if isinstance(value, tuple) else address(value)


def _dtype(value: Any) -> Any:
    return None if value is None else (value.array if isinstance(value, tuple) else value).dtype
