"""Files that a crash leaves whole: claimed by one writer at a time, or replaced in one step.

All that a command leaves for its user is written by ``save`` or ``create``, or row by row by ``results.writer.Writer``.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterable
from io import FileIO
from pathlib import Path

from rnnbench.errors import StoreError


def open_claimed(path: Path, mode: str) -> FileIO:
    """Open a file unbuffered, and keep other writers away until it is closed.

    Raises StoreError where another process writes into it, and OSError.
    """
    import fcntl  # not on every system on which this package can be imported

    file = FileIO(path, mode)
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):  # a writer before us has replaced it meanwhile
            raise BlockingIOError
    except BlockingIOError:
        file.close()
        raise StoreError(f"cannot write {path}: another process is writing into it") from None
    except BaseException:
        file.close()
        raise
    return file


def add_lines(path: Path, lines: Iterable[bytes]) -> None:
    """Append those lines that a file does not have, and wait for the disk; raises OSError."""
    with path.open("a+b") as file:
        file.seek(0)
        there = list(file)
        if there and not there[-1].endswith(b"\n"):  # torn by a kill
            file.truncate(file.tell() - len(there.pop()))
        file.writelines(line for line in lines if line not in there)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, content: Iterable[bytes]) -> None:
    """Give a file new content; a kill at any moment leaves the old file or the new one, whole.  Raises OSError."""
    path = path.resolve()  # a link stays one
    new = path.with_name(f".{secrets.token_hex(16)}.new")  # short, as the name itself may be as long as names can be
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, new)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def save(path: Path, content: Iterable[bytes]) -> None:
    """Write a file, whole or not at all, in place of one that may be there, and the folders it lies in; raises StoreError."""
    try:
        make_folder(path.parent)
        if path.exists() and not path.is_file():  # a device or a pipe, which has no content to replace
            with path.open("wb") as file:
                file.writelines(content)
        else:
            replace(path, content)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error


def make_folder(folder: Path) -> None:
    """Make a folder and those it lies in, where they are not there; raises OSError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # says "File exists" of what was to be a folder
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk: without it a crash can lose a new file whose content was synced."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create(path: Path, content: Iterable[bytes]) -> None:
    """Write a new file, whole or not at all, and the folders it lies in; raises OSError, also where the file exists."""
    make_folder(path.parent)
    FileIO(path, "xb").close()
    try:
        replace(path, content)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
