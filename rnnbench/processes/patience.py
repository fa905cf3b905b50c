"""How long an answer may take: what other work on the machine takes from a process does not count, nor does compiling."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

COMPILE_LIMIT = 600.0
"""Seconds for one function and what it calls; a minute is usual on a small machine."""

BACKSTOP = 20
"""No answer takes so many times its limit, whatever the machine does."""


class Patience:
    """The time that a process has for an answer.

    The limit is of seconds in which it ran, or slept: while it is ready and waits for a processor it can do nothing.  From
    where it says that it compiles until it says that this is done it has ``COMPILE_LIMIT`` instead, and then its limit anew.
    """

    def __init__(self, process: int, limit: float) -> None:
        self._process, self._usual = process, limit
        self._begin(limit)

    def compiles(self, compiling: bool) -> None:
        """The process has said so."""
        self._begin(COMPILE_LIMIT if compiling else self._usual)
        self._compiling = compiling

    @property
    def left(self) -> float:
        """Seconds, none of them where it is over."""
        lasted = time.monotonic() - self._began
        starved = min(lasted, _waited(self._process) - self._waited)
        return max(0.0, min(self._limit - lasted + starved, BACKSTOP * self._limit - lasted))

    def __str__(self) -> str:
        return f"still compiling after {self._limit:g} s" if self._compiling else f"no answer within {self._limit:g} s"

    def _begin(self, limit: float) -> None:
        self._limit, self._compiling = limit, False
        self._began, self._waited = time.monotonic(), _waited(self._process)


def report_compiling(tell: Callable[[bool], Any]) -> bool:
    """Tell when Numba begins to compile, and when it has done; False where it is not imported yet."""
    if "numba" not in sys.modules:
        return False
    from numba.core import event

    depth = [0]  # a function that is compiled compiles what it calls

    class Compiling(event.Listener):
        def on_start(self, event: Any) -> None:
            depth[0] += 1
            if depth[0] == 1:
                tell(True)

        def on_end(self, event: Any) -> None:
            depth[0] -= 1
            if depth[0] == 0:
                tell(False)

    event.register("numba:compile", Compiling())
    return True


def _waited(process: int) -> float:
    """Seconds for which the thread of a process that waited longest was ready and had no processor; 0 where none tells."""
    waited = 0.0
    for file in Path(f"/proc/{process}/task").glob("*/schedstat"):
        try:
            waited = max(waited, int(file.read_text().split()[1]) / 1e9)
        except (OSError, IndexError, ValueError):  # the thread has ended, or this kernel does not count
            continue
    return waited
