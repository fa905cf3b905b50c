"""Runs of small plans, for the tests of how runs are carried out."""

import itertools
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import ClassVar
from unittest import mock

import msgspec

from rnnbench.cli import run as run_command
from rnnbench.cli.main import dispatch
from rnnbench.machine.facts import environment
from rnnbench.measure import run as run_module
from rnnbench.measure.memory import measurable
from rnnbench.measure.plan import Plan, Settings
from rnnbench.results.reader import Contents, read
from rnnbench.results.rows import End, Failure, Gate, Memory, Run, Time, Truncation
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case

GOOD = Case("elman", "step", 3, 2, 3, 3)
BAD = Case("elman", "step", 3, 2, 3, 4)
"""The case in which the backends of these tests misbehave."""

NARROW, WIDE = GOOD, Case("lstm", "step", 3, 2, 3, 3)

LIMIT = 8.0
"""Seconds for one request where one hangs; what is measured here takes milliseconds, even on a busy machine."""

PATIENCE = 1800.0
"""Seconds for any other request, and for a process to end that should: reached by what hangs, and nothing else."""

PASSES = 2
"""So many samples of each backend make a round."""

QUICKLY = Settings(rounds=1, samples=PASSES, shortest_sample=1e-5, input="noise", time_limit=PATIENCE)


def planned(folder: Path, names: list[str], cases: list[Case], identity: str = "run", **settings) -> Plan:
    whole = replace(QUICKLY, **settings)
    row = Run(
        run=identity,
        started="2026-01-01T00:00:00+00:00",
        suite="tiny",
        command=["rnnbench", "run"],
        settings=msgspec.to_builtins(whole),
        environment=environment(),
        backends={name: {} for name in names},
        cases=cases,
    )
    return Plan(row, whole, folder / f"{identity}.jsonl")


def quiet(done: int, total: int, what: str, left: float | None = None) -> None:
    pass


def measured(plan: Plan, progress=quiet) -> Contents:
    with Writer(plan.path, resume=plan.resumes) as writer:
        if not plan.resumes:
            writer.append(plan.run)
        run_module.run(plan, writer, progress)
    contents = read(plan.path)
    assert contents.problems == []
    return contents


def of(kind: type, contents: Contents, **fields) -> list:
    rows = [row for row in contents.rows if isinstance(row, kind)]
    return [row for row in rows if all(getattr(row, name) == value for name, value in fields.items())]


def assert_each_once(contents: Contents) -> None:
    """No fact is stored twice, but for what the machine disturbed in a run of another process."""
    times = Counter((row.case, row.backend, row.round) for row in of(Time, contents, disturbed=False))
    others = Counter((type(row), row.case, row.backend) for kind in (Gate, Memory, Failure) for row in of(kind, contents))
    windows = Counter(row.case for row in of(Truncation, contents))
    assert {key: n for counts in (times, others, windows) for key, n in counts.items() if n > 1} == {}


def assert_complete(contents: Contents, names, cases, rounds: int) -> None:
    expected = set(itertools.product(cases, names, range(rounds)))
    assert {(row.case, row.backend, row.round) for row in of(Time, contents)} == expected
    for kind in (Gate, Memory) if measurable() else (Gate,):
        assert {(row.case, row.backend) for row in of(kind, contents)} == set(itertools.product(cases, names)), kind
    assert of(Failure, contents) == []
    assert_each_once(contents)
    assert of(End, contents)[-1].interrupted is False


def interrupt_at(unit: int):
    """Progress that is interrupted when the unit of that number begins."""

    def progress(done: int, total: int, what: str, left: float | None = None) -> None:
        if done == unit:
            raise KeyboardInterrupt

    return progress


MANY = [Case(cell, "step", T, 2, 3, 4) for cell in ("elman", "lstm") for T in (3, 4)]
NAMES = ["numpy_ref", "numba_cpu"]


class Killed(BaseException):
    """Ends a run as a kill does: nothing of its own is executed after it."""


class Scripted:
    """Stands in for WorkerProcess: right answers at once, seconds per call by backend, and an end after some requests."""

    seconds: ClassVar[dict[str, float]] = {}
    log: ClassVar[list[tuple[str, str, dict]]] = []
    requests = 0
    end_after: int | None = None
    ending: type[BaseException] = KeyboardInterrupt
    _lock = threading.Lock()

    def __init__(
        self, backend: str, threads: int, jit_cache: Path, code: Path | None = None, processors=None, env: tuple[str, ...] = ()
    ) -> None:
        self.backend, self.alive = backend, True

    def greeting(self, time_limit: float) -> dict:
        return {}

    def ask(self, call: str, time_limit: float, **arguments) -> object:
        cls = type(self)
        with cls._lock:
            cls.requests += 1
            if cls.requests == cls.end_after:
                raise cls.ending
        cls.log.append((self.backend, call, {"time_limit": time_limit, **arguments}))
        answers = {
            "prepare": {"import_s": 0.1, "load_s": 0.1, "first_call_s": 0.1},
            "gate": [["y", 0.0, 1e-7, None]],
            "expect": None,
            "window_cost": {"all": 0.5},
            "calibrate": cls.seconds.get(self.backend, 1e-3),
            "memory": 1,
            "code": None,
            "supports": [None] * len(arguments.get("cases", ())),
        }
        return {"samples": [1e-3] * arguments["count"], "events": None} if call == "sample" else answers[call]

    def end(self) -> None:
        self.alive = False

    def adopt(self, marked) -> None:
        pass

    def stop(self) -> None:
        pass

    def go_on(self) -> None:
        pass

    def processor_seconds(self) -> None:
        return None

    def kill(self) -> None:
        self.alive = False


def planned_by(*given: str) -> Plan:
    return planned_without_backends("--backends", "numpy_ref", *given)


def planned_without_backends(*given: str) -> Plan:
    """The plan that ``rnnbench run`` would carry out; raises what the command raises."""
    plans: list[Plan] = []
    with mock.patch.object(run_command, "execute", lambda plan: plans.append(plan) or 0):
        dispatch(["run", *given])
    (plan,) = plans
    return plan


LONG = """
name = "long"
description = "d"
source = "s"
[[grid]]
cell = "elman"
phase = "step"
T = 60_000
B = 1
I = 1
H = [1, 2]
"""
"""Cases for which the reference needs longer than the tests that use it wait."""


def rnnbench_run(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "rnnbench", "run", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def own_lines(stderr: str) -> list[str]:
    """What a command said that was not progress."""
    return [line for line in stderr.splitlines() if not line.startswith("running ")]
