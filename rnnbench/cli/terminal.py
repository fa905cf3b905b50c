"""The edge to the terminal: what a command says goes through here, and no control character of a file's reaches one.

Results go to standard output, all else to standard error.  Names and messages in results files are others': what could steer
a terminal is shown as its escape.  What the terminal's encoding lacks is escaped as well; a document, which is for programs,
is UTF-8 whatever the terminal has.
"""

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from rnnbench.errors import LeftOut, OutputError
from rnnbench.text import printable


def show(text: str) -> None:
    """Lines of a result, to standard output; raises OutputError."""
    with writing():
        sys.stdout.write("".join(f"{printable(line)}\n" for line in text.split("\n")))


def show_document(content: bytes) -> None:
    """A result for programs, to standard output as it is; a terminal gets it as ``show`` would say it.  Raises OutputError."""
    if sys.stdout.isatty():
        show(content.decode(errors="replace").removesuffix("\n"))
        return
    with writing():
        sys.stdout.flush()
        sys.stdout.buffer.write(content)


def tell(sentence: object) -> None:
    """One line to standard error: what is wrong, or was left out."""
    note(f"rnnbench: {' '.join(str(sentence).split())}")


def note(sentence: str) -> None:
    """One line to standard error: how it went."""
    _tell(f"{printable(sentence)}\n")


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Streams that take any text, and LeftOut as lines on standard error; raises OutputError where nothing can be shown."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # else what is told would go to standard output
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # in whose place no file of ours may be opened
        raise OutputError("standard output is closed; expected one to write to, such as /dev/null")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # in a notebook it is none
            stream.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.simplefilter("always", LeftOut)
        usual, told = warnings.showwarning, set()

        def once(message, category, *place, **more):  # type: ignore[no-untyped-def]
            if not issubclass(category, LeftOut):
                usual(message, category, *place, **more)
            elif str(message) not in told:
                told.add(str(message))
                tell(message)

        warnings.showwarning = once
        yield


def flush() -> None:
    """Have all that was shown written; raises OutputError, and BrokenPipeError where the reader has gone."""
    with writing():
        sys.stdout.flush()


def discard() -> None:
    """Let what is not yet written go nowhere, so that the interpreter does not fail at it when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def rewrite(line: str) -> None:
    """Put a line of ours, colours included, in the place of the last one of the terminal on standard error."""
    _tell(f"\r\x1b[K{line}")


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Let rich draw words of ours for standard output, in colours on a terminal and with lines that its encoding has."""
    page = _Page(sys.stdout)
    with contextlib.redirect_stdout(page):
        yield
    with writing():
        sys.stdout.write(page.drawn())


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Have an output that cannot be written to raise OutputError, and BrokenPipeError where its reader has gone."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write to standard output: {error.strerror}") from error


class _Page(io.StringIO):
    """What is drawn for a stream, kept so that writing it can fail in one place."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def isatty(self) -> bool:
        return self._stream.isatty()

    def drawn(self) -> str:
        """The text without blanks at the ends of lines, boxes of ASCII where the stream's encoding has no others."""
        text = "".join(f"{line.rstrip()}\n" for line in self.getvalue().rstrip().split("\n"))
        try:
            text.encode(self._stream.encoding or "utf-8")
        except UnicodeEncodeError:
            return text.translate(_BOXES)
        return text


_BOXES = str.maketrans("╭╮╰╯─│", "++++-|")


def _tell(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads standard error, and there is no other place to say so
        sys.stderr.write(text)
        sys.stderr.flush()
