"""The entry point of a worker process: ``python -P bootstrap.py PARENT MODULE BACKEND REQUESTS REPLIES``.

It ties the process to its parent, so that the process ends when the parent is killed, even if it hangs or is stopped.  Then
it runs MODULE; a backend that is a file can import its neighbours.  MODULE may belong to another commit, so this file is run
by its path and imports nothing from the package.
"""

import ctypes
import os
import runpy
import signal
import sys
import threading
import time

PR_SET_PDEATHSIG = 1

POLL_INTERVAL = 1.0
"""Seconds between two checks of the parent, on systems without a signal for its end."""


def end_with_parent(parent: int) -> None:
    """End this process when the thread of process ``parent`` that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # the parent has ended already
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_INTERVAL)
    os._exit(1)


def main() -> None:
    parent, module, backend = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    end_with_parent(parent)
    if backend.endswith(".py"):
        sys.path.insert(0, os.path.dirname(os.path.abspath(backend)))  # noqa: PTH100, PTH120  # before anything is imported
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
