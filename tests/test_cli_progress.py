"""Progress: a bar on a terminal, and elsewhere a line at most every ten seconds; on standard error alone."""

import os
import pty
import re
import subprocess
import sys

import pytest

from rnnbench.cli import common
from rnnbench.cli.common import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(common, "time", clock)
    return clock


def test_where_no_terminal_is_there_is_a_line_at_most_every_ten_seconds(clock, capsys):
    progress = Progress("running")
    for done in range(60):
        progress.unit(done, 60, "case\x1b[2J on numpy_ref")
        clock.now += 1
    progress.clear()
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.split(",")[0].split()[1] for line in lines] == [f"{done}/60" for done in range(0, 60, 10)]
    assert lines[3] == "running 30/60, about 30 s left  case\\x1b[2J on numpy_ref"


class Terminal:
    """Standard error as a terminal: keeps what is written."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.said = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> None:
        self.said += text

    def flush(self) -> None:
        pass

    def fileno(self) -> int:
        raise OSError


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[\d;]*[mK]", "", text)


def as_terminal(monkeypatch) -> Terminal:
    """Standard error from here on, of 80 columns."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for name, value in {"TERM": "xterm", "COLUMNS": "80", "LINES": "25"}.items():
        monkeypatch.setenv(name, value)
    return terminal


def test_a_terminal_has_a_bar_a_count_the_time_left_and_what_is_next(clock, monkeypatch):
    terminal = as_terminal(monkeypatch)
    progress = Progress("running")
    for done in range(6):
        progress.unit(done, 12, "lstm step T100 B32 I256 H256, round 3")
    progress.clear()
    drawn = plain(terminal.said).split("\r")
    assert re.fullmatch(r"running ━* +0/12 +\S+ lstm step T100 .*", drawn[1].strip())
    assert len(drawn) == 3  # at most ten times a second
    assert drawn[2] == ""
    assert terminal.said.endswith("\r\x1b[K")


@pytest.mark.parametrize("what", ["x" * 200, "a\nb\x1b[2J\r[bold]c", ""], ids=["long", "steering", "nothing"])
def test_the_bar_is_one_line_that_fits_whatever_is_next(clock, monkeypatch, what):
    terminal = as_terminal(monkeypatch)
    progress = Progress("running")
    progress.unit(123456, 999999, what)
    (line,) = plain(terminal.said).removeprefix("\r").split("\n")
    assert len(line) <= 80
    assert "123456/999999" in line
    assert line.isprintable()


def test_a_check_draws_on_standard_error_alone():
    read_end, write_end = pty.openpty()
    command = [sys.executable, "-m", "rnnbench", "check", "numpy_ref", "--cell", "gru", "--level", "smoke"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=write_end, env=os.environ | {"TERM": "xterm"})
    os.close(write_end)
    with process, os.fdopen(read_end, "rb", buffering=0) as terminal:
        out, _ = process.communicate()
        err = terminal.read(100_000)
    assert process.returncode == 0
    assert b"\x1b" not in out
    assert b"checking" in err
    assert err.endswith(b"\r\x1b[K")
