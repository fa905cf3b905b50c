"""Crash-safe files: locked by one writer at a time, or replaced atomically.

Commands write every file for the user with ``save`` or ``create``, or row by row with ``results.writer.Writer``.
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
    """Open a file unbuffered and lock it against other writers until it is closed.

    Raises StoreError if another process holds the lock, and OSError.
    """
    import fcntl  # missing on Windows, where this module is importable

    file = FileIO(path, mode)
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):  # the previous writer has replaced it meanwhile
            raise BlockingIOError
    except BlockingIOError:
        file.close()
        raise StoreError(f"cannot write {path}: another process is writing into it") from None
    except BaseException:
        file.close()
        raise
    return file


def add_lines(path: Path, lines: Iterable[bytes]) -> None:
    """Append the lines that a file does not contain yet, and sync it to disk; raises OSError."""
    with path.open("a+b") as file:
        file.seek(0)
        present = list(file)
        if present and not present[-1].endswith(b"\n"):  # torn by a kill
            file.truncate(file.tell() - len(present.pop()))
        file.writelines(line for line in lines if line not in present)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, content: Iterable[bytes]) -> None:
    """Replace a file's content atomically: a crash leaves either the old file or the new one.  Raises OSError."""
    path = path.resolve()  # keeps a symbolic link
    new = path.with_name(f".{secrets.token_hex(16)}.new")  # short: `path.name` may have the maximum length
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
    """Write a file atomically, replacing an existing one, and create its parent folders; raises StoreError."""
    try:
        make_folder(path.parent)
        if path.exists() and not path.is_file():  # a device or a pipe has no content to replace
            with path.open("wb") as file:
                file.writelines(content)
        else:
            replace(path, content)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error


def make_folder(folder: Path) -> None:
    """Create a folder and its parents if missing; raises OSError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # its message would say "File exists"
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None


def sync_folder(folder: Path) -> None:
    """Sync a folder's entries to disk; otherwise a crash can lose a new file whose content was synced."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create(path: Path, content: Iterable[bytes]) -> None:
    """Write a new file atomically and create its parent folders; raises OSError, also if the file exists."""
    make_folder(path.parent)
    FileIO(path, "xb").close()
    try:
        replace(path, content)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
