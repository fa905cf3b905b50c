"""Write results files: append-only, by one process at a time.

A line is on disk before the next one begins.  When a run is resumed, a torn last line is cut off, and any other line that holds
no row is moved to a file of its own.
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
    """Appends rows to one file, which no other process can write into until it is closed.

    ``resume``: go on with a file that exists.  A torn last line is cut off; lines in the middle that hold no row are moved
    to ``quarantine_file(path)``, and ``moved`` has their numbers.
    Raises StoreError where the file cannot be written, where another process writes into it, or, resuming, as ``read`` does.
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
        """Append a row, which is on disk when this returns; raises StoreError."""
        self.append_all([row])

    def append_all(self, rows: Iterable[Row]) -> None:
        """Append rows, all of which are on disk when this returns, and wait for the disk once; raises StoreError.

        After an error any of them may be in the file, the last one torn; the next rows to be appended take their place.
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
        """Close the file, which is taken away where not even a first row could be written."""
        if not self._size:
            self.path.unlink(missing_ok=True)
        self._file.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _repair(self) -> None:
        wrong = [line for line in scan(self.path) if line.problem is not None]
        bad = [line for line in wrong if not line.torn]
        if bad:
            add_lines(quarantine_file(self.path), [b"%d\t%b" % (line.number, line.content) for line in bad])
            numbers = {line.number for line in wrong}
            replace(self.path, (content for number, content in numbered_lines(self.path, blank=True) if number not in numbers))
            self.moved = [line.number for line in bad]
            self._file.close()
            self._file = open_claimed(self.path, "r+b")
        elif wrong:
            self._file.truncate(self._file.seek(0, os.SEEK_END) - len(wrong[0].content))
