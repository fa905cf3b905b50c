"""The two times of a call on a GPU, on events that need none: as called, and of the kernels that were queued in time."""

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("numba_cuda", reason="numba-cuda is missing: pip install 'rnnbench[cuda-offline]'")

from rnnbench.impls.numba_cuda import timing


class Device:
    """A device whose clock is told what host and kernels take, in microseconds; its stream runs in order."""

    def __init__(self) -> None:
        self.host = self.stream = 0.0

    def run(self, duration: float) -> None:
        self.stream = max(self.stream, self.host) + duration

    def call(self, host: float, kernels: float) -> Callable[[], None]:
        def call() -> None:
            self.host += host
            self.run(kernels)

        return call

    def event(self) -> Any:
        return Event(self)


class Event:
    def __init__(self, device: Device) -> None:
        self.device, self.at = device, 0.0

    def record(self) -> None:
        self.device.run(0.0)
        self.at = self.device.stream

    def query(self) -> bool:
        return self.at <= self.device.host

    def synchronize(self) -> None:
        self.device.host = max(self.device.host, self.at)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device()
    monkeypatch.setattr(timing.cuda, "event", made.event)
    monkeypatch.setattr(timing.cuda, "event_elapsed_time", lambda start, end: (end.at - start.at) / 1e3)
    monkeypatch.setattr(timing.SLEEP, "launch", lambda _blocks, _threads, _shared, milliseconds: made.run(1e3 * milliseconds))
    return made


@pytest.mark.parametrize(("host", "kernels"), [(100.0, 30.0), (20.0, 50.0), (5_000.0, 70.0)])
def test_what_the_host_takes_is_in_one_of_them(device: Device, host: float, kernels: float) -> None:
    """... also where the sleep has to become longer before the call is queued in time."""
    assert timing.times(device.call(host, kernels), least=0.0) == pytest.approx((host + kernels, kernels))


def test_a_call_that_cannot_be_queued_has_no_time_of_its_kernels(device: Device) -> None:
    assert timing.times(device.call(1e3 * timing.MAX_LENGTH, 10.0), least=0.0).kernels is None


def test_the_sleeping_kernel_sleeps() -> None:
    from rnnbench.impls.numba_cuda import offline
    from rnnbench.impls.numba_cuda.launching import signature

    if reason := offline.missing_toolchain():
        pytest.skip(reason)
    binary = offline.compile_kernel(timing.SLEEP.function, signature((1,)), timing.SLEEP.threads)
    assert offline.of_family(offline.instructions(binary), "NANOSLEEP") > 0
