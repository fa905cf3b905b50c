"""A small suite for commands, commands in processes of their own, and what they say."""

import subprocess
import sys
from pathlib import Path

TINY = """
name = "tiny"
description = "one small network"
source = "this test"
[settings]
rounds = 1
input = "noise"
seed = 7
time_limit = 240
[[grid]]
cell = "elman"
phase = "step"
T = 3
B = 2
I = 3
H = [3, 4]
"""


def tiny_suite(folder: Path) -> str:
    """The path of a suite of two small cases."""
    path = folder / "tiny.toml"
    path.write_text(TINY)
    return str(path)


def in_a_process(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, **options)


def without_progress(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if not line.startswith(("running ", "checking "))]


def assert_one_line(result: tuple[int, str, str], code: int, *said: str) -> None:
    """The command ended with ``code`` and nothing but a line that says so."""
    assert result[0] == code, result
    assert result[1] == ""
    (line,) = without_progress(result[2])
    assert line.startswith("rnnbench: ")
    for part in said:
        assert part in line
