"""Folders for what a process needs only while it lives; what a killed one left, processes too, goes when the next begins.

Each process has one such folder, and locks it as long as it lives: the lock goes with the process, however that ends, and
holds across containers that share a disk.  Workers carry the folder's name in their environment, and hand it on to whatever
they start, also into a new session; so what a killed process has left running is found by it.
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
"""The environment variable by which what a worker started is known: the folder's name, a slash and the worker's number."""

PATIENCE = 5.0
"""Seconds in which a process that was killed ends."""

_own: tuple[int, Path] | None = None  # the process and its folder: a forked child has its own


def own_folder() -> Path:
    """This process's folder, which is removed when it ends; the first call removes what killed processes left."""
    global _own
    if _own is None or _own[0] != os.getpid():
        _own = os.getpid(), _new_folder(Path(tempfile.gettempdir()))
        atexit.register(_remove, *_own)
    return _own[1]


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder within this process's, removed at the end."""
    with tempfile.TemporaryDirectory(dir=own_folder()) as name:
        yield Path(name)


def marked(mark: str) -> dict[str, list[int]]:
    """The numbers of this user's processes that carry a mark, or one that begins with it and a slash, by their marks."""
    found: dict[str, list[int]] = {}
    for number in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):  # another user's, or it has ended
            process = psutil.Process(number)
            theirs = process.environ().get(MARK, "")
            if (theirs == mark or theirs.startswith(f"{mark}/")) and process.status() != psutil.STATUS_ZOMBIE:
                found.setdefault(theirs, []).append(number)
    return found


def kill_marked(mark: str) -> None:
    """Kill the processes that carry a mark, and those that they start meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while (found := marked(mark)) and time.monotonic() < deadline:  # what the system does not let go of, waits for a device
        for number in itertools.chain.from_iterable(found.values()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.01)


def _new_folder(place: Path) -> Path:
    """Sweep, then make a folder and lock it; no other process sweeps between the two."""
    import fcntl  # not on every system on which this package can be imported

    turn = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        for left in place.glob(f"{PREFIX}*"):
            _sweep(left)
        made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        fcntl.flock(os.open(made, os.O_RDONLY), fcntl.LOCK_EX)  # open until this process ends
        return made
    finally:
        os.close(turn)


def _sweep(left: Path) -> None:
    """Remove a folder that no process has locked, after whatever its process left running."""
    import fcntl

    try:
        if left.lstat().st_uid != os.getuid():
            return
        descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return  # it is gone, or no folder of ours
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        kill_marked(left.name)
        shutil.rmtree(left, ignore_errors=True)  # what cannot be removed is no reason not to begin
    finally:
        os.close(descriptor)


def _remove(process: int, made: Path) -> None:
    if os.getpid() == process:
        shutil.rmtree(made, ignore_errors=True)
