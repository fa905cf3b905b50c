"""Temporary folders that last as long as their process; leftovers of killed processes are removed by the next one.

Each process has one folder and holds a lock on it.  The lock ends with the process, however it ends, and works across
containers that share a disk.  Workers carry the folder's name in their environment and pass it on to every process that they
start, even in a new session.  The name therefore identifies processes that a killed process left running.
"""

import atexit
import contextlib
import itertools
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

PREFIX = "rnnbench-of-"

MARK = "RNNBENCH_WORKER"
"""Environment variable that marks a worker's processes: the folder's name, a slash and the worker's number."""

KILL_TIMEOUT = 5.0
"""Seconds to wait until killed processes have ended."""

_own: tuple[int, Path] | None = None  # process and folder; a forked child gets its own


def own_folder() -> Path:
    """Return this process's folder, removed when it ends; the first call removes the leftovers of killed processes."""
    global _own
    if _own is None or _own[0] != os.getpid():
        _own = os.getpid(), _new_folder(Path(tempfile.gettempdir()))
        atexit.register(_remove, *_own)
    return _own[1]


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Provide a new folder within this process's folder, removed at the end."""
    with tempfile.TemporaryDirectory(dir=own_folder()) as name:
        yield Path(name)


def marked_processes(mark: str) -> dict[str, list[int]]:
    """Return the IDs of this user's processes marked with ``mark`` or ``mark/...``, by their marks."""
    found: dict[str, list[int]] = {}
    for number in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):  # another user's process, or it has ended
            process = psutil.Process(number)
            its_mark = process.environ().get(MARK, "")
            if (its_mark == mark or its_mark.startswith(f"{mark}/")) and process.status() != psutil.STATUS_ZOMBIE:
                found.setdefault(its_mark, []).append(number)
    return found


def kill_marked(mark: str) -> None:
    """Kill the processes that carry a mark, and those that they start meanwhile, for up to ``KILL_TIMEOUT``."""
    deadline = time.monotonic() + KILL_TIMEOUT
    # a process that waits for a device may outlast the deadline
    while (found := marked_processes(mark)) and time.monotonic() < deadline:
        for number in itertools.chain.from_iterable(found.values()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.01)


def _new_folder(place: Path) -> Path:
    """Sweep, then create and lock a folder; a lock on ``place`` keeps other sweeps out meanwhile."""
    import fcntl  # missing on Windows, where this module is importable

    place_lock = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(place_lock, fcntl.LOCK_EX)
        for leftover in place.glob(f"{PREFIX}*"):
            _sweep(leftover)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)  # stays open until this process ends
        return folder
    finally:
        os.close(place_lock)


def _sweep(leftover: Path) -> None:
    """Remove a folder that no process has locked, and kill the processes that carry its name."""
    import fcntl

    try:
        if leftover.lstat().st_uid != os.getuid():
            return
        descriptor = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return  # removed already, or no folder of ours
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        kill_marked(leftover.name)
        shutil.rmtree(leftover, ignore_errors=True)  # a leftover must not prevent the start
    finally:
        os.close(descriptor)


def _remove(process: int, folder: Path) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
