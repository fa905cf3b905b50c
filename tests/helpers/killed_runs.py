"""Kills runs at random points of their life, and goes on with them.

Started in ``tests``: ``python -m helpers.killed_runs FOLDER POINTS SEED``.

The run and the store are the real ones; workers answer at once from a script, so that a life lasts milliseconds.  A child is
forked for each life, so that all is imported once, and kills itself with SIGKILL at a line of the run, the store or the files
below it, drawn at random.  The disk takes rows in pieces of random sizes, so that some lines are torn.

FOLDER/N/ then holds, for each chain of lives that ended with a completed run, ``run.jsonl`` and for each life that was killed
``killed-K-BYTES``: the file as it was left, of which so many bytes had been acknowledged.  FOLDER/whole/ has a run that
nothing ended.
"""

import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from io import FileIO
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from helpers import runs
from helpers.runs import GOOD, Scripted, planned, quiet
from helpers.wrapped_reference import backend_file
from rnnbench.errors import StoreError
from rnnbench.machine.facts import environment
from rnnbench.measure import capabilities, expectations, ledger
from rnnbench.measure import plan as plan_module
from rnnbench.measure import round as round_module
from rnnbench.measure import run as run_module
from rnnbench.measure import worker_pool as workers_module
from rnnbench.measure.plan import Plan, resumed_plan
from rnnbench.results import disk, writer
from rnnbench.results.reader import read
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case

WINDOWED = Case("elman", "tbptt", 8, 2, 3, 4, window=4)
REFUSED = msgspec.structs.replace(GOOD, T=5)
"""The case that the gate refuses of the second backend."""

CASES = [GOOD, WINDOWED, REFUSED, msgspec.structs.replace(GOOD, threads=4096)]
ROUNDS = 2
TRACED = {module.__file__ for module in (run_module, round_module, ledger, writer, disk)}


class Answers(Scripted):
    """What workers say: the gate refuses one case of the second backend, and the machine disturbs the third samples."""

    sampled = 0

    def ask(self, call: str, time_limit: float, **arguments: Any) -> object:
        answer: Any = super().ask(call, time_limit, **arguments)
        if call == "gate" and self.backend.endswith(".py") and arguments["problem"]["case"]["T"] == REFUSED.T:
            return [["y", 1.0, 1e-7, None]]
        if call == "sample":
            Answers.sampled += 1
            answer["events"] = {"steal": 1.0 if Answers.sampled == 3 else 0.0}
        return answer


class Pieces(FileIO):
    """A file that takes what it is given in pieces."""

    sizes = random.Random()

    def write(self, content: Any) -> int:
        return super().write(content[: self.sizes.randint(1, 200)])


class Acknowledging(Writer):
    """Tells through a pipe how many bytes of its file it has acknowledged."""

    told: int

    def append_all(self, rows: Any) -> None:
        super().append_all(rows)
        os.write(self.told, b"%d\n" % self._size)


def live(plan: Callable[[], Plan], told: int) -> None:
    """One life of a run."""
    whole = plan()
    with Acknowledging(whole.path, resume=whole.resumes) as writer:
        writer.told = told
        if not whole.resumes:
            writer.append(whole.run)
        run_module.run(whole, writer, quiet)


def counted(limit: int, at_limit: Callable[[], None]) -> tuple[Callable[..., Any], list[int]]:
    """A trace function that counts lines of the traced modules, and what it has counted."""
    lines = [0]

    def line(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            lines[0] += 1
            if lines[0] == limit:
                at_limit()
        return line

    def call(frame: FrameType, event: str, _: Any) -> Any:
        return line if frame.f_code.co_filename in TRACED else None

    return call, lines


def in_a_child(plan: Callable[[], Plan], limit: int, sizes: int) -> tuple[bool, int]:
    """Live in a child that is killed at the line of that number; whether it was, and how many bytes were acknowledged."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        Pieces.sizes.seed(sizes)
        sys.settrace(counted(limit, lambda: os.kill(os.getpid(), signal.SIGKILL))[0])
        live(plan, writing)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        acknowledged = pipe.read().splitlines()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"a run ended with {code}")
    return code != 0, int(acknowledged[-1]) if acknowledged else 0


def resumable(path: Path) -> bool:
    """Whether a run can go on: not where it was killed before its first row was whole, and then none was acknowledged."""
    try:
        read(path)
    except StoreError:
        if any(not left.name.endswith("-0") for left in path.parent.glob("killed-*")):
            raise
        return False
    return True


def main(folder: Path, points: int, seed: int) -> None:
    names = ["numpy_ref", backend_file(folder / "second.py")]
    tempfile.tempdir = str(folder)  # what killed runs leave behind goes with it
    facts = environment()
    plan_module.environment = runs.environment = lambda *_: facts  # asks git, which takes longer than a life
    os.fsync = lambda _: None  # a kill leaves to the kernel what was written; power cuts are not tried
    workers_module.WorkerProcess = expectations.WorkerProcess = capabilities.WorkerProcess = Answers
    workers_module.marked_processes = lambda _: {}  # looks through all processes, and these workers are none
    disk.FileIO = Pieces
    draw = random.Random(seed)

    def planned_in(place: Path) -> Plan:
        return planned(place, names, CASES, rounds=ROUNDS)

    trace, lines = counted(0, lambda: None)
    reading, writing = os.pipe()
    sys.settrace(trace)
    live(lambda: planned_in(folder / "whole"), writing)
    sys.settrace(None)
    killed = chain = 0
    while killed < points:
        chain += 1
        place = folder / str(chain)
        path, ended = place / "run.jsonl", True
        while ended:
            if resumable(path):
                plan = partial(resumed_plan, path)
            else:
                path.unlink(missing_ok=True)
                plan = partial(planned_in, place)
            ended, acknowledged = in_a_child(plan, draw.randint(1, lines[0]), draw.getrandbits(32))
            if ended:
                place.mkdir(exist_ok=True)
                (place / f"killed-{killed}-{acknowledged}").write_bytes(path.read_bytes() if path.exists() else b"")
                killed += 1
    os.close(reading)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
