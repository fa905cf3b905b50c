"""Backends with a fault, and checks of them in this process."""

import functools
from unittest import mock

import rnnbench
from rnnbench.check import TINY, Report, Trial, check_all, problems, references

IN_TWO_LAYERS = """
    def record(self, x, state=None):
        if self.net.spec.num_layers == 2:
            {statement}
        return self.net.record(x, state)
"""

SCALED = """
    def record(self, x, state=None):
        y, final, tape = self.net.record(x, state)
        return y * x.dtype.type(1.001), final, tape
"""


def tiny(*cells: str) -> list[Trial]:
    return [Trial(problem) for problem in problems(cells, TINY)]


expected_once = functools.cache(references.expected)
"""What is expected of a problem; all checks of these tests share it."""


def here(name: str, todo: list[Trial]) -> Report:
    """Check a file's module in this process; what is expected of a problem is computed once for all that is checked so."""
    with mock.patch.object(references, "expected", expected_once):
        return check_all([rnnbench.load_backend(name)], todo)[0]
