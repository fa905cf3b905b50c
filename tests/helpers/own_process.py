"""Calls that may never end, each in a process of its own, and calls at the same time.

A broken barrier or a lost task shows as threads that wait for ever, which cannot be ended in the process of the tests.
"""

import faulthandler
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import threadpoolctl

from rnnbench.processes.deadlines import Deadline

LIMIT = 240
"""Seconds for what is done in a process of its own, many times what it needs where it compiles everything first.  Those in
which its threads were ready, and other work had the processors, do not count."""


def in_a_process(function: Callable[..., None], *arguments: object) -> None:
    """Call a function of a test module in a new process: fails where it raises, and where it has not ended in time."""
    process = multiprocessing.get_context("spawn").Process(target=watched, args=(function, *arguments))
    process.start()
    assert process.pid
    deadline = Deadline(process.pid, LIMIT)
    while process.is_alive() and deadline.left:
        process.join(1)
    if process.is_alive():
        os.kill(process.pid, signal.SIGABRT)
    process.join()
    assert process.exitcode == 0, "raised or never ended: the captured error output says which, and where"


def watched(function: Callable[..., None], *arguments: object) -> None:
    faulthandler.enable()  # says where all threads are when it is aborted
    with threadpoolctl.threadpool_limits(1, "blas"):
        function(*arguments)


def at_once(*calls: Callable[[], object]) -> list[object]:
    """Run each call in a thread of its own; raises what one of them raised."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]
