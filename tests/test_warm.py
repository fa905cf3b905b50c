"""``rnnbench warm``: what it compiles, no later process compiles; and who compiles at a terminal is told of it."""

import os
import subprocess
import sys

import pytest
from numba import config

from rnnbench.jit import compiler
from rnnbench.measure.warm import small, usual_cases
from rnnbench.networks.cells import CELLS
from rnnbench.suite.case import Case

SUITE = """
name = "one"
description = "d"
source = "s"
[[grid]]
cell = "elman"
phase = "forward"
T = [5, 500]
B = [1, 7]
I = 300
H = 30
threads = [1, 2]
"""

LATER = """
import numpy as np
import rnnbench
from rnnbench.impls import numba_cpu
from rnnbench.jit.compiler import cache_use

for B, T in ((1, 5), (7, 50), (40, 3)):
    for threads in (1, 2):
        spec = rnnbench.Spec("elman", 300, 30)
        net = numba_cpu.load(spec, rnnbench.init_params(spec, seed=0), threads=threads)
        net.forward(np.ones((T, B, 300), np.float32))
print(sum(used.compiled for used in cache_use.values()), sum(used.loaded for used in cache_use.values()))
"""


def test_what_is_warm_no_later_process_compiles(tmp_path):
    suite, cache = tmp_path / "one.toml", tmp_path / "cache"
    suite.write_text(SUITE)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "NUMBA_NUM_THREADS": "2"}

    def run(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, *arguments], env=environment, check=True, capture_output=True, text=True, cwd=tmp_path
        ).stdout

    warm = ("-m", "rnnbench", "warm", "numba_cpu", "--suite", str(suite))
    first = run(*warm)
    assert first.startswith("numba_cpu: ")
    assert str(cache) in first
    compiled, loaded = map(int, run("-c", LATER).split())
    assert compiled == 0
    assert loaded > 0
    assert all(line.startswith("numba_cpu: 0 functions compiled, ") for line in run(*warm).splitlines())


def test_a_backend_without_compiled_code_says_so(command):
    assert command("warm", "numpy_ref")[:2] == (0, "numpy_ref: keeps no compiled code in Numba's cache\n")


def test_an_unknown_backend_or_suite_is_refused(command):
    assert command("warm", "nobody")[0] == 2
    assert command("warm", "--suite", "nothing")[0] == 2


def test_every_cell_is_compiled_for_inference_and_training_unless_a_suite_is_named():
    assert {(case.cell, case.phase) for case in usual_cases()} == {
        (cell, phase) for cell in CELLS for phase in ("forward", "step")
    }


def test_cases_that_differ_in_sizes_alone_are_compiled_once():
    cases = [
        Case("lstm", "step", T, B, 3000, 2000, dtype=dtype)
        for T in (9, 99)
        for B in (5, 50)
        for dtype in ("float32", "float64")
    ]
    assert [(case.cell, case.dtype) for case in small(cases)] == [("lstm", "float32"), ("lstm", "float64")]
    (windowed,) = small([Case("lstm", "tbptt", 500, 8, 64, 64, window=50, stride=25)])
    assert windowed.window == windowed.T


class Terminal:
    def __init__(self, *, isatty: bool) -> None:
        self.said, self._isatty = "", isatty

    def isatty(self) -> bool:
        return self._isatty

    def write(self, text: str) -> None:
        self.said += text


@pytest.mark.parametrize("isatty", [True, False])
def test_the_first_compilation_is_announced_once_on_a_terminal_and_only_if_the_cache_lacks_it(monkeypatch, tmp_path, isatty):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))

    def said(*functions) -> str:
        monkeypatch.setattr(compiler, "_announced", False)
        terminal = Terminal(isatty=isatty)
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stderr", terminal)
            for function in functions:
                compiler.cached(function)(1)
        return terminal.said

    assert said(_one, _two) == (compiler._COMPILING if isatty else "")
    assert said(_one, _two) == ""


def _one(x):
    return x + 1


def _two(x):
    return x + 2
