"""The first code of a worker process: ``python -P start_worker.py PARENT MODULE BACKEND REQUESTS REPLIES``.

The process ends with the one that started it, also where that is killed and this one hangs or is stopped; a backend in a
file finds its neighbours.  Then MODULE is run, which may be one of another commit: this file is run by its path, and uses
nothing of the package.
"""

import ctypes
import os
import runpy
import signal
import sys
import threading
import time

PR_SET_PDEATHSIG = 1

LOOK = 1.0
"""Seconds between two looks at the parent, where the system sends no signal."""


def end_with(parent: int) -> None:
    """Have this process killed when the thread that started it has ended, of the process ``parent``."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK)
    os._exit(1)


def main() -> None:
    parent, module, backend = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    end_with(parent)
    if backend.endswith(".py"):
        sys.path.insert(0, os.path.dirname(os.path.abspath(backend)))  # noqa: PTH100, PTH120  # before anything is imported
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
