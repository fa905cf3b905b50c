"""Time limits for answers of worker processes, which leave out waiting for a processor and compiling."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

COMPILE_LIMIT = 600.0
"""Time limit for compiling one function and its callees, in seconds; a minute is typical on a small machine."""

BACKSTOP = 20
"""Wall-clock limit of any answer, as a multiple of its own limit."""


class Deadline:
    """The time limit for one answer of a process.

    Only time in which the process runs or sleeps counts, not time in which it is ready but waits for a processor.  While
    the process reports that it compiles, ``COMPILE_LIMIT`` holds instead; afterwards its own limit starts anew.
    """

    def __init__(self, process: int, limit: float) -> None:
        self._process, self._own_limit = process, limit
        self._begin(limit)

    def set_compiling(self, compiling: bool) -> None:
        """Note that the process has begun or finished compiling."""
        self._begin(COMPILE_LIMIT if compiling else self._own_limit)
        self._compiling = compiling

    @property
    def left(self) -> float:
        """The seconds left; 0 once the limit has passed."""
        elapsed = time.monotonic() - self._began
        starved = min(elapsed, _waited(self._process) - self._waited)
        return max(0.0, min(self._limit - elapsed + starved, BACKSTOP * self._limit - elapsed))

    def __str__(self) -> str:
        return f"still compiling after {self._limit:g} s" if self._compiling else f"no answer within {self._limit:g} s"

    def _begin(self, limit: float) -> None:
        self._limit, self._compiling = limit, False
        self._began, self._waited = time.monotonic(), _waited(self._process)


def report_compiling(report: Callable[[bool], Any]) -> bool:
    """Call ``report`` when Numba begins and finishes compiling; returns False while Numba is not imported."""
    if "numba" not in sys.modules:
        return False
    from numba.core import event

    depth = [0]  # compiling a function compiles its callees

    class Compiling(event.Listener):
        def on_start(self, event: Any) -> None:
            depth[0] += 1
            if depth[0] == 1:
                report(True)

        def on_end(self, event: Any) -> None:
            depth[0] -= 1
            if depth[0] == 0:
                report(False)

    event.register("numba:compile", Compiling())
    return True


def _waited(process: int) -> float:
    """Return the longest time that a thread of a process was ready without a processor, in seconds; 0 if unknown."""
    waited = 0.0
    for file in Path(f"/proc/{process}/task").glob("*/schedstat"):
        try:
            waited = max(waited, int(file.read_text().split()[1]) / 1e9)
        except (OSError, IndexError, ValueError):  # the thread has ended, or the kernel does not count
            continue
    return waited
