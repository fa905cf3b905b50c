"""What the machine did to a measurement while it lasted: stolen time, waiting for a processor, a clock that changed.

Four limits, set before anything is measured, say which rounds are measured once more; no time is ever judged by itself.
An event is judged only by what its counter can tell.  The kernel counts stolen time in ticks, so it is looked at over at
least so long that one tick is no more than the limit: where the samples are shorter, from before them on.  Waiting is known
to the nanosecond, but a processor is given away for a whole slice at a time.  One slice falls into one sample, which leaves
the median of several where it was; so what counts is the waiting beyond one slice.
"""

import statistics
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from rnnbench.machine.health import MAX_STEAL, TICK, processor_times
from rnnbench.machine.topology import PROC, read_text

LONG_ENOUGH = TICK / MAX_STEAL
"""Seconds of all processors in which one tick is no more than the limit of stolen time."""

MAX_RUN_DELAY = 0.02
"""Seconds in which this process's threads were ready to run and did not, for each second that passed."""

SLICE = 0.004
"""Seconds for which the kernel lets another thread run: its base slice of 3 ms, rounded up to ticks of 4 ms."""

MAX_SIBLINGS = 0.01
"""Processors that the other workers, which are stopped, may have kept busy: nothing, but for what their stop takes."""

MAX_CANARY = 0.03
"""Part of its usual seconds by which the canary may differ."""

MIN_CANARIES = 5
"""With fewer readings there is no usual one to speak of."""

MAX_VAIN_REPEATS = 3
"""So many repeats of a round that were disturbed too, on end: what disturbs is no event then, and repeats do not help."""


class Watch:
    """Looks at the kernel's counters when it is made, whenever it is asked to, and around each measurement."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._looks: list[tuple[float, float]] = []  # seconds stolen and altogether, of all processors
        self.begin()

    def look(self) -> None:
        """Remember what has been stolen by now, so that a later measurement need not be judged from further back."""
        times = self._stolen()
        if times:
            self._looks.append(times)

    def begin(self) -> None:
        """A measurement begins."""
        self.look()
        self._delay, self._clock = run_delay(self._proc), time.perf_counter()

    def events(self) -> dict[str, float] | None:
        """Since ``begin``: ``run_delay``, seconds per second, and ``steal``, part of all processors' time.

        ``steal`` is that of the shortest stretch up to now that holds the measurement and is long enough for ticks.  What
        the kernel does not tell, or not yet, is left out; None where that is both.
        """
        delay, clock, now = run_delay(self._proc), time.perf_counter(), self._stolen()
        found = {}
        for stolen, whole in reversed(self._looks):
            if now and now[1] - whole >= LONG_ENOUGH:
                found["steal"] = round((now[0] - stolen) / (now[1] - whole), 6)  # of whole ticks; their seconds are not exact
                break
        if self._delay is not None and delay is not None:
            found["run_delay"] = max(0.0, delay - self._delay) / (clock - self._clock)
        return found or None

    def _stolen(self) -> tuple[float, float] | None:
        times = processor_times(read_text(self._proc / "stat") or "")
        return times[1:] if times else None


def run_delay(proc: Path = PROC) -> float | None:
    """Seconds in which the threads of this process waited for a processor; None where they are not counted."""
    texts = [read_text(file) for file in (proc / "self" / "task").glob("*/schedstat")]
    waited = [int(text.split()[1]) * 1e-9 for text in texts if text]  # None: the thread ended meanwhile
    return sum(waited) if waited else None


def altogether(samples: Iterable[Mapping[str, float] | None]) -> dict[str, float] | None:
    """The events of equally long samples as those of one: the most that was stolen, the mean waiting, the median canary."""
    found: dict[str, list[float]] = {}
    for events in samples:
        for name, value in (events or {}).items():
            found.setdefault(name, []).append(value)
    how = {"steal": max, "run_delay": statistics.mean, "siblings": statistics.mean, "canary_s": statistics.median}
    return {name: float(how[name](values)) for name, values in found.items()} or None


def usual(session: list[float]) -> float | None:
    """Seconds of the canary on this machine at its full speed: the lower quartile of the session's sorted readings.

    Half of them may be slow, where other machines use the same cores.  None where there are too few to tell.
    """
    return session[len(session) // 4] if len(session) >= MIN_CANARIES else None


def with_canary(events: Mapping[str, float] | None, session: list[float]) -> dict[str, float] | None:
    """The events with ``canary``, how far its seconds lie above the usual ones, as part of these."""
    full_speed = usual(session)
    if events is None or "canary_s" not in events or full_speed is None:
        return None if events is None else dict(events)
    return {**events, "canary": events["canary_s"] / full_speed - 1}


def disturbing(events: Mapping[str, float] | None, seconds: float) -> bool:
    """Whether one of the events lies beyond its limit, of samples that took so long altogether."""
    events = events or {}
    waited = events.get("run_delay", 0.0) * seconds
    return (
        events.get("steal", 0.0) > MAX_STEAL
        or waited > MAX_RUN_DELAY * seconds + SLICE
        or events.get("siblings", 0.0) > MAX_SIBLINGS
        or abs(events.get("canary", 0.0)) > MAX_CANARY
    )
