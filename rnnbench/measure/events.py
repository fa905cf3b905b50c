"""What the machine did to a measurement while it lasted: stolen time, waiting for a processor, a clock that changed.

Three limits, set before anything is measured, say which rounds are measured once more; no time is ever judged by itself.
"""

import hashlib
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

from rnnbench.measure.health import MOST_STEAL, processor_times
from rnnbench.measure.topology import PROC, read_text

MOST_RUN_DELAY = 0.02
"""Seconds in which this process's threads were ready to run and did not, for each second that passed."""

MOST_CANARY = 0.03
"""Part of the session's median by which the canary may differ."""

FEWEST_CANARIES = 5
"""With fewer readings there is no median to speak of."""

_CANARY_ITERATIONS = 3000  # half a millisecond


class Watch:
    """Looks at the kernel's counters when it is made, and again when asked."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._stat, self._delay, self._clock = self._look()

    def events(self) -> dict[str, float] | None:
        """Since then: ``steal``, part of all processors' time, and ``run_delay``, seconds per second; then ``canary_s``.

        What the kernel does not tell is left out; None where that is both.
        """
        stat, delay, clock = self._look()
        found = {}
        if self._stat and stat and stat[2] > self._stat[2]:
            found["steal"] = (stat[1] - self._stat[1]) / (stat[2] - self._stat[2])
        if self._delay is not None and delay is not None:
            found["run_delay"] = max(0.0, delay - self._delay) / (clock - self._clock)
        return found | {"canary_s": canary()} if found else None

    def _look(self) -> tuple[tuple[float, float, float] | None, float | None, float]:
        return processor_times(read_text(self._proc / "stat") or ""), run_delay(self._proc), time.perf_counter()


def run_delay(proc: Path = PROC) -> float | None:
    """Seconds in which the threads of this process waited for a processor; None where they are not counted."""
    texts = [read_text(file) for file in (proc / "self" / "task").glob("*/schedstat")]
    waited = [int(text.split()[1]) * 1e-9 for text in texts if text]  # None: the thread ended meanwhile
    return sum(waited) if waited else None


def canary() -> float:
    """Seconds of a fixed piece of work within a core's registers, the least of three: they follow the clock's rate."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        hashlib.pbkdf2_hmac("sha256", b"canary", b"", _CANARY_ITERATIONS)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def with_canary(events: Mapping[str, float] | None, session: list[float]) -> dict[str, float] | None:
    """The events with ``canary``, how far its seconds lie above the session's median, as part of that."""
    if events is None or "canary_s" not in events or len(session) < FEWEST_CANARIES:
        return None if events is None else dict(events)
    return {**events, "canary": events["canary_s"] / statistics.median(session) - 1}


def disturbing(events: Mapping[str, float] | None) -> bool:
    """Whether one of the events lies beyond its limit."""
    limits = {"steal": MOST_STEAL, "run_delay": MOST_RUN_DELAY, "canary": MOST_CANARY}
    return any(abs((events or {}).get(name, 0.0)) > limit for name, limit in limits.items())
