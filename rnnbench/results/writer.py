"""Write results files: append-only, by one process at a time.

A line is on disk before the next one begins.  Resuming a run cuts off a torn last line and moves any other line that holds no
row to a separate file.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from rnnbench.errors import StoreError
from rnnbench.results.disk import add_lines, make_folder, open_claimed, replace, sync_folder
from rnnbench.results.reader import numbered_lines, quarantine_file, scan
from rnnbench.results.rows import Row


class Writer:
    """Appends rows to one file, locked against other processes until it is closed.

    ``resume``: append to an existing file.  A torn last line is cut off; other lines that hold no row are moved to
    ``quarantine_file(path)``, and ``moved`` holds their numbers.
    Raises StoreError if the file cannot be written, if another process holds the lock, and, resuming, as ``read`` does.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self.path = path
        self.moved: list[int] = []
        try:
            if not resume:
                make_folder(path.parent)
            self._file = open_claimed(path, "r+b" if resume else "xb")
            try:
                if resume:
                    self._repair()
                else:
                    sync_folder(path.parent)
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror}") from error
        self._size = self._file.seek(0, os.SEEK_END)

    def append(self, row: Row) -> None:
        """Append a row; it is on disk when this returns.  Raises StoreError."""
        self.append_all([row])

    def append_all(self, rows: Iterable[Row]) -> None:
        """Append rows with a single sync; all are on disk when this returns.  Raises StoreError.

        After an error the file may hold some of them, the last one torn; the next append overwrites them.
        """
        lines = memoryview(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
        size = self._size + len(lines)
        try:
            if self._file.tell() != self._size:
                self._file.truncate(self._size)
                self._file.seek(self._size)
            while lines:
                lines = lines[self._file.write(lines) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StoreError(f"cannot write {self.path}: {error.strerror}") from error
        self._size = size

    def close(self) -> None:
        """Close the file; delete it if it has no row."""
        if not self._size:
            self.path.unlink(missing_ok=True)
        self._file.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _repair(self) -> None:
        unreadable = [line for line in scan(self.path) if line.problem is not None]
        bad = [line for line in unreadable if not line.torn]
        if bad:
            add_lines(quarantine_file(self.path), [b"%d\t%b" % (line.number, line.content) for line in bad])
            numbers = {line.number for line in unreadable}
            replace(self.path, (content for number, content in numbered_lines(self.path, blank=True) if number not in numbers))
            self.moved = [line.number for line in bad]
            self._file.close()
            self._file = open_claimed(self.path, "r+b")
        elif unreadable:
            self._file.truncate(self._file.seek(0, os.SEEK_END) - len(unreadable[0].content))
