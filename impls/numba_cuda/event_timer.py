"""Device timer with CUDA events on the stream of the kernels.  Not yet tried on a GPU."""

# pyright: reportAttributeAccessIssue=false

from rnnbench.impls.numba_cuda.device import require
from rnnbench.impls.numba_cuda.launching import numba_stream


class EventTimer:
    """``rnnbench.networks.contract.DeviceTimer``."""

    def __init__(self) -> None:
        self._cuda = require()
        self._begin, self._end = self._cuda.event(), self._cuda.event()

    def start(self) -> None:
        self._begin.record(numba_stream())

    def stop(self) -> None:
        self._end.record(numba_stream())

    def seconds(self) -> float:
        self._end.synchronize()
        return self._cuda.event_elapsed_time(self._begin, self._end) * 1e-3
