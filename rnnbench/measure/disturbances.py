"""Disturbances by the machine during a measurement: stolen time, waiting for a processor, a change of clock rate.

A round is repeated when a disturbance exceeds its limit; the limits are fixed beforehand, and times themselves are never
judged.  Each limit respects the resolution of its counter.  The kernel counts stolen time in ticks, so steal is taken over a
window in which one tick is at most the limit; short samples extend the window back before their start.  Waiting is known to
the nanosecond, but the kernel gives a processor away for a whole slice.  A single slice falls into one sample and does not
move the median of several, so only waiting beyond one slice counts.
"""

import statistics
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from rnnbench.machine.health import MAX_STEAL, TICK, processor_times
from rnnbench.machine.topology import PROC, read_text

MIN_STEAL_WINDOW = TICK / MAX_STEAL
"""Shortest window for steal, in seconds summed over all processors: one tick is then at most the limit."""

MAX_RUN_DELAY = 0.02
"""Limit of the time that threads spend ready to run but waiting for a processor, in seconds per second."""

SLICE = 0.004
"""The kernel's scheduling slice, in seconds: the base slice of 3 ms, rounded up to a tick of 4 ms."""

MAX_SIBLINGS = 0.01
"""Limit of the processors kept busy by the other, stopped workers; above 0 only because stopping takes time."""

MAX_CANARY = 0.03
"""Limit of the canary's relative deviation from its full-speed time."""

MIN_CANARIES = 5
"""Fewest canary readings that define the full-speed time."""

MAX_VAIN_REPEATS = 3
"""Disturbed repeats in a row after which a round stops repeating: the disturbance is then permanent."""


class Watch:
    """Reads the kernel's counters on creation, on request, and around each measurement."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._looks: list[tuple[float, float]] = []  # stolen and total seconds of all processors
        self.begin()

    def look(self) -> None:
        """Record the stolen time so far, so that the window of a later measurement can start here."""
        times = self._stolen()
        if times:
            self._looks.append(times)

    def begin(self) -> None:
        """Start a measurement."""
        self.look()
        self._delay, self._clock = run_delay(self._proc), time.perf_counter()

    def events(self) -> dict[str, float] | None:
        """Return ``run_delay`` (seconds per second) and ``steal`` (fraction of all processors' time) since ``begin``.

        ``steal`` covers the shortest window that contains the measurement and is at least ``MIN_STEAL_WINDOW``.  Values
        that the kernel does not provide, or not yet, are left out; None if both are.
        """
        delay, clock, now = run_delay(self._proc), time.perf_counter(), self._stolen()
        found = {}
        for stolen, total in reversed(self._looks):
            if now and now[1] - total >= MIN_STEAL_WINDOW:
                found["steal"] = round((now[0] - stolen) / (now[1] - total), 6)  # removes float error from whole ticks
                break
        if self._delay is not None and delay is not None:
            found["run_delay"] = max(0.0, delay - self._delay) / (clock - self._clock)
        return found or None

    def _stolen(self) -> tuple[float, float] | None:
        times = processor_times(read_text(self._proc / "stat") or "")
        return times[1:] if times else None


def run_delay(proc: Path = PROC) -> float | None:
    """Return the seconds that this process's threads have waited for a processor; None if the kernel does not count them."""
    texts = [read_text(file) for file in (proc / "self" / "task").glob("*/schedstat")]
    waited = [int(text.split()[1]) * 1e-9 for text in texts if text]  # None: the thread has ended
    return sum(waited) if waited else None


def combined(samples: Iterable[Mapping[str, float] | None]) -> dict[str, float] | None:
    """Combine the events of equally long samples: highest steal, mean waiting, median canary."""
    found: dict[str, list[float]] = {}
    for events in samples:
        for name, value in (events or {}).items():
            found.setdefault(name, []).append(value)
    combine = {"steal": max, "run_delay": statistics.mean, "siblings": statistics.mean, "canary_s": statistics.median}
    return {name: float(combine[name](values)) for name, values in found.items()} or None


def full_speed_canary(session: list[float]) -> float | None:
    """Return the canary's seconds at full speed: the lower quartile of the session's sorted readings.

    On a shared machine half of the readings may be slow.  None for fewer than ``MIN_CANARIES`` readings.
    """
    return session[len(session) // 4] if len(session) >= MIN_CANARIES else None


def with_canary(events: Mapping[str, float] | None, session: list[float]) -> dict[str, float] | None:
    """Add ``canary``, the relative deviation of its seconds from the full-speed time, to the events."""
    full_speed = full_speed_canary(session)
    if events is None or "canary_s" not in events or full_speed is None:
        return None if events is None else dict(events)
    return {**events, "canary": events["canary_s"] / full_speed - 1}


def is_disturbed(events: Mapping[str, float] | None, seconds: float) -> bool:
    """Return whether an event exceeds its limit; ``seconds`` is the total duration of the samples."""
    events = events or {}
    waited = events.get("run_delay", 0.0) * seconds
    return (
        events.get("steal", 0.0) > MAX_STEAL
        or waited > MAX_RUN_DELAY * seconds + SLICE
        or events.get("siblings", 0.0) > MAX_SIBLINGS
        or abs(events.get("canary", 0.0)) > MAX_CANARY
    )
