"""A run of real worker processes: what a backend does wrong is one row, and everything else is measured.

Takes 40 s: the processes are real, and so are the hang and the waits for it.  What depends on the order of requests
alone is tested with scripted workers that answer at once.
"""

import contextlib
import itertools
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import msgspec
import psutil
import pytest
from wrapped_reference import backend_file

from rnnbench import store
from rnnbench.errors import StoreError
from rnnbench.measure import references
from rnnbench.measure import run as run_module
from rnnbench.measure.machine import environment, machine_name
from rnnbench.measure.memory import measurable
from rnnbench.measure.plan import Plan, Settings, new_plan, resumed_plan, with_suite_settings
from rnnbench.measure.process import PASSED_ON
from rnnbench.process import THREAD_VARIABLES, WorkerFailure
from rnnbench.store import Case, End, Failure, Gate, Memory, Startup, Time, Truncation, Writer
from rnnbench.suite import load_suite

GOOD = Case("elman", "step", 3, 2, 3, 3)
BAD = Case("elman", "step", 3, 2, 3, 4)
"""The case in which the backends of these tests misbehave."""

LIMIT = 8.0
"""Seconds for one request where one hangs; what is measured here takes milliseconds, even on a busy machine."""

PATIENCE = 240.0
"""Seconds for any other request, and for a process to end that should: reached by what hangs, and nothing else."""

QUICKLY = Settings(rounds=1, samples=2, shortest_sample=1e-5, input="noise", time_limit=PATIENCE)


def planned(folder: Path, names: list[str], cases: list[Case], identity: str = "run", **settings) -> Plan:
    whole = replace(QUICKLY, **settings)
    row = store.Run(
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


def quiet(done: int, total: int, what: str) -> None:
    pass


def measured(plan: Plan, progress=quiet) -> store.Contents:
    with Writer(plan.path, resume=plan.resumes) as writer:
        if not plan.resumes:
            writer.append(plan.run)
        run_module.run(plan, writer, progress)
    contents = store.read(plan.path)
    assert contents.problems == []
    return contents


def of(kind: type, contents: store.Contents, **fields) -> list:
    rows = [row for row in contents.rows if isinstance(row, kind)]
    return [row for row in rows if all(getattr(row, name) == value for name, value in fields.items())]


def assert_each_once(contents: store.Contents) -> None:
    """No fact is stored twice, but for what the machine disturbed in a run of another process."""
    times = Counter((row.case, row.backend, row.round) for row in of(Time, contents, disturbed=False))
    others = Counter((type(row), row.case, row.backend) for kind in (Gate, Memory, Failure) for row in of(kind, contents))
    windows = Counter(row.case for row in of(Truncation, contents))
    assert {key: n for counts in (times, others, windows) for key, n in counts.items() if n > 1} == {}


def assert_complete(contents: store.Contents, names, cases, rounds: int) -> None:
    expected = set(itertools.product(cases, names, range(rounds)))
    assert {(row.case, row.backend, row.round) for row in of(Time, contents)} == expected
    for kind in (Gate, Memory) if measurable() else (Gate,):
        assert {(row.case, row.backend) for row in of(kind, contents)} == set(itertools.product(cases, names)), kind
    assert of(Failure, contents) == []
    assert_each_once(contents)
    assert of(End, contents)[-1].interrupted is False


@pytest.fixture(autouse=True, scope="module")
def _a_machine_at_rest():
    """What else this machine does must not make a run measure once more."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run_module, "disturbing", lambda *_: False)
        yield


@pytest.fixture(autouse=True)
def _no_process_is_left_behind():
    before = set(psutil.Process().children(recursive=True))
    yield
    left = set(psutil.Process().children(recursive=True)) - before
    assert [process.cmdline() for process in left] == []


# backends that misbehave


def when_bad(statement: str) -> str:
    """Methods that run ``statement`` before every training forward of the bad case."""
    return f"""
        def record(self, x, state=None):
            if self.net.spec.hidden_size == {BAD.H}:
                {statement}
            return self.net.record(x, state)
    """


def in_worker_number(number: int, statement: str) -> str:
    """Methods that run ``statement`` in the bad case, but only in the process that is the ``number``-th to load it."""
    return f"""
        def __init__(self, net):
            self.net = net
            import os, pathlib
            if net.spec.hidden_size == {BAD.H}:
                seen = pathlib.Path(__file__ + ".seen")
                with seen.open("a") as file:
                    file.write(f"{{os.getpid()}}\\n")
                if len(set(seen.read_text().split())) == {number}:
                    {statement}
    """


class Fault:
    """A backend's methods, and the failure that they must end as: stage, reason and a part of the message."""

    def __init__(self, methods: str, stage: str, reason: str, *said: str) -> None:
        self.methods, self.stage, self.reason, self.said = methods, stage, reason, said


FAULTS = {
    "segfault": Fault(
        when_bad("import ctypes; ctypes.string_at(0)"), "startup", "crashed", "the worker was killed by SIGSEGV"
    ),
    "exit": Fault(when_bad("import os; os._exit(3)"), "startup", "crashed", "the worker ended with exit code 3"),
    "exit-0": Fault(when_bad("import os; os._exit(0)"), "startup", "crashed", "the worker ended with exit code 0"),
    "sys-exit": Fault(when_bad("import sys; sys.exit('good bye')"), "startup", "crashed", "exit code 1", "good bye"),
    "abort": Fault(
        when_bad("import os, sys; print('last words', file=sys.stderr, flush=True); os.abort()"),
        "startup",
        "crashed",
        "the worker was killed by SIGABRT: last words",
    ),
    "load": Fault(
        f"""
        def __init__(self, net):
            if net.spec.hidden_size == {BAD.H}:
                raise ValueError("cannot load this")
            self.net = net
        """,
        "startup",
        "error",
        "ValueError: cannot load this",
    ),
    "record": Fault(when_bad("raise ZeroDivisionError('in record')"), "startup", "error", "ZeroDivisionError: in record"),
    "backward": Fault(
        f"""
        def backward(self, tape, dy, dstate=None):
            if self.net.spec.hidden_size == {BAD.H}:
                raise KeyError("no gradient")
            return self.net.backward(tape, dy, dstate)
        """,
        "startup",
        "error",
        "KeyError: 'no gradient'",
    ),
    "hang": Fault(
        when_bad("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"),
        "startup",
        "timeout",
        f"no answer within {LIMIT:g} s",
    ),
    "child": Fault(
        when_bad(
            "import os, pathlib, subprocess; "
            "child = subprocess.Popen(['sh', '-c', 'trap \"\" TERM; echo ready; while :; do sleep 1; done'], stdout=-1); "
            "child.stdout.readline(); pathlib.Path(__file__ + '.child').write_text(str(child.pid)); os._exit(4)"
        ),
        "startup",
        "crashed",
        "the worker ended with exit code 4",
    ),
    "wrong": Fault(
        f"""
        def backward(self, tape, dy, dstate=None):
            grads = self.net.backward(tape, dy, dstate)
            if self.net.spec.hidden_size == {BAD.H}:
                grads.params["weight_hh_l0"][...] *= 1.01
            return grads
        """,
        "gate",
        "wrong",
        "d weight_hh_l0: error ",
        "times as much",
    ),
    "shape": Fault(
        f"""
        def record(self, x, state=None):
            y, final, tape = self.net.record(x, state)
            return y[:, :, : {GOOD.H}], final, tape
        """,
        "gate",
        "wrong",
        "y: has shape (3, 2, 3); expected (3, 2, 4)",
    ),
    "late": Fault(
        f"""
        calls = 0

        def record(self, x, state=None):
            self.calls += 1
            if self.net.spec.hidden_size == {BAD.H} and self.calls == 3:
                raise OverflowError("the third call on one network, which the gate does not make")
            return self.net.record(x, state)
        """,
        "time",
        "error",
        "OverflowError: the third call",
    ),
    "memory": Fault(
        in_worker_number(2, "raise MemoryError('when it is weighed')"), "memory", "error", "MemoryError: when it is weighed"
    ),
}  # fmt: skip

HARMLESS = {
    "prints": """
        def record(self, x, state=None):
            import os
            print('{"answer": 1}', flush=True)
            os.write(1, b'\\x00\\xff{"answer": []}\\n' * 5000)
            os.write(2, b'\\xfe not text\\n')
            return self.net.record(x, state)
    """
}


@pytest.fixture(scope="module")
def misbehaved(tmp_path_factory):
    """One run of every faulty backend and the reference; gives what it stored and the backends' names by title."""
    if not measurable():
        pytest.skip("this system does not tell a process's peak memory")
    folder = tmp_path_factory.mktemp("misbehaved")
    names = {title: backend_file(folder / f"{title}.py", fault.methods) for title, fault in FAULTS.items()}
    names |= {title: backend_file(folder / f"{title}.py", methods) for title, methods in HARMLESS.items()}
    before = set(psutil.Process().children(recursive=True))
    contents = measured(planned(folder, ["numpy_ref", *names.values()], [GOOD, BAD], time_limit=LIMIT))
    assert set(psutil.Process().children(recursive=True)) <= before
    return contents, names


@pytest.mark.parametrize("title", FAULTS)
def test_a_fault_is_one_labelled_row_and_its_backend_s_other_case_is_measured(misbehaved, title):
    contents, names = misbehaved
    fault, name = FAULTS[title], names[title]
    (failure,) = of(Failure, contents, backend=name)
    assert (failure.case, failure.stage, failure.reason) == (BAD, fault.stage, fault.reason)
    for said in fault.said:
        assert said in failure.message
    assert len(of(Time, contents, backend=name, case=GOOD)) == 1
    assert of(Gate, contents, backend=name, case=GOOD)[0].passed
    assert len(of(Memory, contents, backend=name, case=GOOD)) == 1


@pytest.mark.parametrize("title", [title for title, fault in FAULTS.items() if fault.stage != "memory"])
def test_nothing_is_timed_or_weighed_after_a_fault(misbehaved, title):
    contents, names = misbehaved
    assert of(Time, contents, backend=names[title], case=BAD) == []
    assert of(Memory, contents, backend=names[title], case=BAD) == []


@pytest.mark.parametrize("title", ["numpy_ref", *HARMLESS])
def test_the_others_complete_every_case(misbehaved, title):
    contents, names = misbehaved
    name = names.get(title, title)
    for case in (GOOD, BAD):
        assert of(Gate, contents, backend=name, case=case)[0].passed
        assert len(of(Time, contents, backend=name, case=case)) == 1
        assert len(of(Memory, contents, backend=name, case=case)) == 1
    assert of(Failure, contents, backend=name) == []


def test_a_gate_that_refuses_stores_every_error_of_its_tensors(misbehaved):
    contents, names = misbehaved
    (wrong,) = of(Gate, contents, backend=names["wrong"], case=BAD)
    assert not wrong.passed
    beyond = {name for name, (error, tolerance) in wrong.errors.items() if error is None or error > tolerance}
    assert beyond == {"d weight_hh_l0"}
    assert wrong.errors["y"][0] is not None
    (shape,) = of(Gate, contents, backend=names["shape"], case=BAD)
    assert not shape.passed
    assert shape.errors["y"][0] is None


def test_every_time_is_preceded_by_a_gate_that_passed(misbehaved):
    contents, _ = misbehaved
    assert of(Time, contents)
    passed = set()
    for row in contents.rows:
        if isinstance(row, Gate) and row.passed:
            passed.add((row.case, row.backend))
        if isinstance(row, Time | Memory):
            assert (row.case, row.backend) in passed
    assert_each_once(contents)


def test_each_round_s_process_is_gated_before_it_is_timed(tmp_path):
    """A backend whose second process gives wrong numbers keeps the time of the first round and gets no other."""
    name = backend_file(tmp_path / "later.py", in_worker_number(2, "self.wrong = True") + """
        wrong = False

        def record(self, x, state=None):
            y, final, tape = self.net.record(x, state)
            return y * (1 + self.wrong), final, tape
    """)  # fmt: skip
    contents = measured(planned(tmp_path, [name], [GOOD, BAD], rounds=3))
    assert [row.round for row in of(Time, contents, case=BAD)] == [0]
    assert [row.round for row in of(Time, contents, case=GOOD)] == [0, 1, 2]
    (failure,) = of(Failure, contents)
    assert (failure.case, failure.stage, failure.reason, failure.round) == (BAD, "gate", "wrong", 1)
    assert failure.message.startswith("y: error ")
    assert [row.passed for row in of(Gate, contents, case=BAD)] == [True, False]
    end = of(End, contents)[-1]
    assert 0 < end.gate_seconds < end.seconds
    assert 0 < end.timing_seconds < end.seconds - end.gate_seconds
    assert end.sampled_seconds == pytest.approx(sum(sum(row.samples) * row.loops for row in of(Time, contents)))
    assert end.overhead == pytest.approx(1 - (end.sampled_seconds + end.gate_seconds) / end.seconds)
    assert 0 < end.sampled_seconds < end.timing_seconds
    assert 0 < end.overhead < 1


def test_what_a_worker_started_ends_with_it(misbehaved):
    """Also what does not heed SIGTERM."""
    _, names = misbehaved
    with contextlib.suppress(psutil.NoSuchProcess):
        child = psutil.Process(int(Path(names["child"] + ".child").read_text()))
        alive = child.status() != psutil.STATUS_ZOMBIE  # killed, and not yet collected by the system
        child.kill()
        assert not alive


def test_a_backend_that_does_not_load_in_a_worker_fails_every_case_with_its_own_words(tmp_path):
    """Also where the process is slow to end after it said so."""
    module = """
        import atexit, sys, time

        if "worker" in sys.argv[0]:
            atexit.register(time.sleep, 0.5)
            raise OSError("no such device here")
    """
    name = backend_file(tmp_path / "broken.py", module=module)
    contents = measured(planned(tmp_path, [name, "numpy_ref"], [GOOD, BAD]))
    failures = of(Failure, contents, backend=name)
    assert {row.case for row in failures} == {GOOD, BAD}
    assert [row.reason for row in failures] == ["error"] * 2
    assert all(row.message.endswith("cannot be imported: OSError: no such device here") for row in failures)
    assert len(of(Time, contents, backend="numpy_ref")) == 2


def test_what_a_backend_does_not_support_is_a_row_in_its_own_words_and_is_never_asked_for(tmp_path):
    module = f"""
        def supports(spec):
            return "not so wide" if spec.hidden_size == {BAD.H} else None
    """
    name = backend_file(tmp_path / "narrow.py", when_bad("import os; os._exit(1)"), module)
    contents = measured(planned(tmp_path, ["numpy_ref", name], [GOOD, BAD]))
    assert of(Failure, contents) == [Failure(BAD, name, "load", "unsupported", "not so wide")]
    assert {(row.case, row.backend) for row in of(Time, contents)} == {(GOOD, "numpy_ref"), (BAD, "numpy_ref"), (GOOD, name)}


@pytest.mark.skipif(not measurable(), reason="this system does not tell a process's peak memory")
def test_memory_is_the_peak_of_one_call(tmp_path):
    methods = """
        def record(self, x, state=None):
            if x.shape[0] == 3:
                np.ones(8 << 20)  # 64 MiB of float64, released at once
            return self.net.record(x, state)
    """
    name = backend_file(tmp_path / "large.py", methods)
    contents = measured(planned(tmp_path, [name, "numpy_ref"], [GOOD]))
    (large,), (small,) = (of(Memory, contents, backend=backend) for backend in (name, "numpy_ref"))
    assert 60 << 20 <= large.peak_bytes < 80 << 20  # a part may lie in pages that were resident before
    assert 0 <= small.peak_bytes < 32 << 20


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


def test_a_reference_that_fails_ends_the_run_with_one_sentence(tmp_path):
    """Nothing could be checked.  The reference is given ten times the limit of one request."""
    (tmp_path / "long.toml").write_text(LONG)
    done = rnnbench_run(str(tmp_path / "long.toml"), "--backends", "numpy_ref", "--time-limit", "0.1", "-o", str(tmp_path))
    _, stderr = done.communicate(timeout=PATIENCE)
    assert done.returncode == 4, stderr
    (line,) = own_lines(stderr)
    assert line.startswith("rnnbench: ")
    assert "reference" in line
    assert "no answer within 1 s" in line


# what a worker sees


def test_a_worker_sees_the_listed_variables_alone_and_as_many_threads_as_its_case_asks_for(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "not for workers")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("OPENBLAS_VERBOSE", "2")
    module = """
        import json, os, pathlib, sys
        import numba, threadpoolctl

        if "worker" in sys.argv[0]:
            facts = {
                "environment": dict(os.environ),
                "pools": [pool["num_threads"] for pool in threadpoolctl.threadpool_info()],
                "numba": numba.config.NUMBA_NUM_THREADS,
                "stdin": os.fstat(0) == os.stat(os.devnull),
                "session": os.getsid(0) == os.getpid(),
                "cwd first": sys.path[0] in ("", os.getcwd()),
            }
            pathlib.Path(f"{__file__}.{os.environ['OMP_NUM_THREADS']}").write_text(json.dumps(facts))
    """
    name = backend_file(tmp_path / "curious.py", module=module)
    cases = [msgspec.structs.replace(GOOD, threads=threads) for threads in (1, 2)]
    measured(planned(tmp_path, [name], cases))
    for threads in (1, 2):
        facts = json.loads(Path(f"{name}.{threads}").read_text())
        seen = facts["environment"]
        # Python sets LC_CTYPE where the locale is C, threadpoolctl the other
        own = {"NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "LC_CTYPE", "KMP_DUPLICATE_LIB_OK"}
        assert set(seen) <= {*PASSED_ON, *THREAD_VARIABLES, *own}
        assert {seen[variable] for variable in THREAD_VARIABLES} == {str(threads)}
        assert all(seen[variable] == os.environ[variable] for variable in ("PATH", "HOME"))
        assert facts["pools"]
        assert set(facts["pools"]) == {threads}
        assert facts["numba"] == threads
        assert facts["session"]
        assert not facts["cwd first"]


STARTS_COLD = """
    def load(spec, params, *, threads=None):
        import os, pathlib, time

        cache = pathlib.Path(os.environ["NUMBA_CACHE_DIR"])
        if not (cache / "compiled").exists():
            time.sleep(0.3)
            cache.mkdir(parents=True, exist_ok=True)
            (cache / "compiled").touch()
        return Network(numpy_ref.load(spec, params, threads=threads))
"""
"""A backend that compiles for 0.3 s where the cache of the run is empty."""


def test_a_start_is_cold_only_where_the_cache_of_the_run_was_empty(tmp_path):
    name = backend_file(tmp_path / "compiles.py", module=STARTS_COLD)
    cases = [msgspec.structs.replace(GOOD, threads=threads) for threads in (1, 2)]
    starts = of(Startup, measured(planned(tmp_path, [name], cases, rounds=2)))
    assert [(row.round, row.case.threads) for row in starts] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert [row.load_s >= 0.3 for row in starts] == [True, False, False, False]
    assert [row.cold for row in starts] == [True, False, False, False]
    assert all(row.import_s > 0 and row.first_call_s > 0 for row in starts)


def test_a_resumed_run_whose_cache_is_empty_again_starts_cold(tmp_path):
    name = backend_file(tmp_path / "compiles.py", module=STARTS_COLD)
    plan = planned(tmp_path, [name], [GOOD], rounds=2)
    with pytest.raises(KeyboardInterrupt):
        measured(plan, interrupt_at(1))
    contents = measured(resumed_plan(plan.path))
    starts = of(Startup, contents)
    assert [row.round for row in starts] == [0, 1]
    assert [row.load_s >= 0.3 for row in starts] == [True, True]
    assert [row.cold for row in starts] == [True, True]


# interrupted and resumed


def interrupt_at(unit: int):
    """Progress that is interrupted when the unit of that number begins."""

    def progress(done: int, total: int, what: str) -> None:
        if done == unit:
            raise KeyboardInterrupt

    return progress


def test_a_run_that_was_interrupted_goes_on_and_measures_what_was_left(tmp_path):
    names, cases = ["numpy_ref", backend_file(tmp_path / "second.py")], [GOOD, BAD]
    plan = planned(tmp_path, names, cases, rounds=2)
    with pytest.raises(KeyboardInterrupt):
        measured(plan, interrupt_at(3))
    before = store.read(plan.path)
    assert before.rows[-1] == of(End, before)[0]
    assert before.rows[-1].interrupted
    assert len(of(Time, before)) == 6
    contents = measured(resumed_plan(plan.path))
    assert contents.rows[: len(before.rows)] == before.rows
    assert_complete(contents, names, cases, rounds=2)


def test_going_on_with_a_run_that_was_complete_measures_nothing(tmp_path):
    contents = measured(planned(tmp_path, ["numpy_ref"], [GOOD]))
    again = measured(resumed_plan(contents.path))
    assert [type(row) for row in again.rows[len(contents.rows) :]] == [End]


@pytest.mark.parametrize(("field", "value"), [("cpu", "another"), ("versions", {"numpy": "1.0"}), ("commit", "0" * 40)])
def test_a_run_does_not_go_on_in_another_environment(tmp_path, field, value):
    plan = planned(tmp_path, ["numpy_ref"], [GOOD])
    now = plan.run.environment
    other = msgspec.structs.replace(plan.run, environment=now | {field: value})
    with Writer(plan.path) as writer:
        writer.append(other)
    with pytest.raises(StoreError) as caught:
        resumed_plan(plan.path)
    assert str(caught.value) == (
        f"cannot go on with {plan.path}: {field} was {value!r} and is {now[field]!r}; start a new run instead"
    )


SLOW = """
    def record(self, x, state=None):
        import time
        time.sleep(0.03)
        return self.net.record(x, state)
"""


def rnnbench_run(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "rnnbench", "run", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def started(tmp_path):
    """A run on the command line that has stored its first times and is in the midst of more; also its file and children."""
    suite = tmp_path / "tiny.toml"
    suite.write_text(
        'name = "tiny"\ndescription = "d"\nsource = "s"\n'
        '[[grid]]\ncell = "elman"\nphase = "step"\nT = 3\nB = 2\nI = 3\nH = [3, 4]\n'
    )
    name = backend_file(tmp_path / "slow.py", SLOW)
    folder = tmp_path / "a folder"
    process = rnnbench_run(str(suite), "--backends", name, "--rounds", "2", "--input", "noise", "-o", str(folder))
    with ended(process):
        path, children = None, []
        while not children:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
            path = next(folder.rglob("*.jsonl"), None)
            if path is not None and path.read_text().count('"kind":"time"') >= 2:
                children = children_of(process)  # not before: to look for them takes as long as a worker's answer
        yield process, name, path, children


@contextlib.contextmanager
def ended(process: subprocess.Popen):
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def children_of(process: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def is_worker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):  # a run also asks git, which has gone at once
        return "rnnbench.measure.worker" in process.cmdline()
    return False


def own_lines(stderr: str) -> list[str]:
    """What a command said that was not progress."""
    return [line for line in stderr.splitlines() if not line.startswith("running ")]


def assert_gone(children) -> None:
    _, alive = psutil.wait_procs(children, timeout=PATIENCE)
    assert alive == []


def assert_interrupted(process, stdout: str, stderr: str, path: Path) -> str:
    """Give the command that the one line names."""
    assert process.returncode == 130, stderr
    assert stdout == ""
    (line,) = own_lines(stderr)
    said, _, command = line.partition("Go on with: ")
    assert said == "rnnbench: interrupted; all that was measured is kept. "
    assert shlex.split(command) == ["rnnbench", "run", "--resume", str(path)]
    assert store.read(path).rows[-1].interrupted
    return command


def test_sigint_ends_with_one_line_that_says_how_to_go_on_and_so_it_does(started):
    process, name, path, children = started
    process.send_signal(signal.SIGINT)
    command = assert_interrupted(process, *process.communicate(timeout=PATIENCE), path)
    assert_gone(children)
    before = store.read(path)
    again = rnnbench_run(*shlex.split(command)[2:])
    stdout, stderr = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, stderr
    assert stdout.splitlines()[-1] == f"results: {path}"
    contents = store.read(path)
    assert contents.rows[: len(before.rows)] == before.rows
    assert_complete(contents, [name], contents.run.cases, rounds=2)


def test_sigterm_ends_as_sigint_does(started):
    process, _, path, children = started
    process.send_signal(signal.SIGTERM)
    assert_interrupted(process, *process.communicate(timeout=PATIENCE), path)
    assert_gone(children)


def test_an_interrupt_while_the_reference_computes_ends_as_any_other(tmp_path):
    (tmp_path / "long.toml").write_text(LONG)
    process = rnnbench_run(str(tmp_path / "long.toml"), "--backends", "numpy_ref", "-o", str(tmp_path))
    with ended(process):
        while not any(is_worker(child) for child in children_of(process)):
            time.sleep(0.1)
        time.sleep(1)  # it has begun by then
        children = children_of(process)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=PATIENCE)
        (path,) = tmp_path.rglob("*.jsonl")
        assert_interrupted(process, stdout, stderr, path)
        assert_gone(children)


def test_a_run_that_was_killed_goes_on_without_a_row_twice_or_lost(started):
    process, name, path, children = started
    process.kill()
    process.communicate()
    assert_gone(children)
    with path.open("ab") as file:
        file.write(b'{"kind":"time","case":{"ce')  # and it may have died while writing
    before = store.read(path)
    assert of(End, before) == []
    contents = measured(resumed_plan(path))
    assert contents.rows[: len(before.rows)] == before.rows
    assert_complete(contents, [name], contents.run.cases, rounds=2)


# the order of things, with scripted workers


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

    def __init__(self, backend: str, threads: int, jit_cache: Path, code: Path | None = None, processors=None) -> None:
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
        }
        return {"samples": [1e-3] * arguments["count"], "events": None} if call == "sample" else answers[call]

    def end(self) -> None:
        self.alive = False

    def kill(self) -> None:
        self.alive = False


@pytest.fixture
def scripted(monkeypatch):
    class Here(Scripted):
        log: ClassVar[list] = []  # one per test

    monkeypatch.setattr(run_module, "WorkerProcess", Here)
    monkeypatch.setattr(references, "WorkerProcess", Here)
    return Here


MANY = [Case(cell, "step", T, 2, 3, 4) for cell in ("elman", "lstm") for T in (3, 4)]
NAMES = ["numpy_ref", "numba_cpu"]


def test_in_every_round_each_backend_has_each_case_once(scripted, tmp_path):
    contents = measured(planned(tmp_path, NAMES, MANY, rounds=4))
    assert_complete(contents, NAMES, MANY, rounds=4)
    positions = {(row.case, row.round): set() for row in of(Time, contents)}
    for row in of(Time, contents):
        positions[row.case, row.round].add(row.position)
    assert set(map(frozenset, positions.values())) == {frozenset({0, 1})}


@pytest.mark.parametrize("identity", ["a", "b", "c"])  # the shuffle of the cases follows the run's name
def test_within_a_case_the_order_of_backends_rotates_from_round_to_round(scripted, tmp_path, identity):
    contents = measured(planned(tmp_path, NAMES, MANY, identity, rounds=4))
    for case in MANY:
        first = [row.backend for row in sorted(of(Time, contents, case=case, position=0), key=lambda row: row.round)]
        assert sorted(first) == sorted(NAMES * 2)
        assert first[0] != first[1] != first[2] != first[3]


def test_cases_are_shuffled_anew_in_each_round_and_the_same_for_the_same_run(scripted, tmp_path):
    orders = []
    for folder in ("one", "two"):
        rows = of(Time, measured(planned(tmp_path / folder, ["numpy_ref"], MANY, rounds=6)))
        orders.append([[row.case for row in rows if row.round == number] for number in range(6)])
    assert orders[0] == orders[1]
    assert len(set(map(tuple, orders[0]))) > 1


def test_all_backends_of_a_case_run_one_power_of_two_of_loops_set_by_the_fastest(scripted, tmp_path):
    scripted.seconds = {"numpy_ref": 3e-3, "numba_cpu": 1e-4}
    contents = measured(planned(tmp_path, NAMES, MANY, rounds=3, shortest_sample=5e-3))
    assert {row.loops for row in of(Time, contents)} == {64}  # the least power of two with 64 x 1e-4 >= 5e-3
    assert {arguments["loops"] for _, call, arguments in scripted.log if call == "sample"} == {64}


def test_a_call_that_is_longer_than_a_sample_runs_once(scripted, tmp_path):
    scripted.seconds = dict.fromkeys(NAMES, 2.0)
    assert {row.loops for row in of(Time, measured(planned(tmp_path, NAMES, MANY[:1])))} == {1}


def test_settings_reach_the_workers_and_the_stored_run(scripted, tmp_path):
    suite_file = tmp_path / "asks.toml"
    suite_file.write_text(
        'name = "asks"\ndescription = "d"\nsource = "s"\n'
        '[settings]\nrounds = 3\ninput = "noise"\nseed = 5\ntime_limit = 7.5\n'
        '[[grid]]\ncell = "elman"\nphase = "step"\nT = 3\nB = 2\nI = 3\nH = 4\n'
    )
    suite = load_suite(suite_file)
    settings = with_suite_settings(Settings(samples=4), suite)
    assert settings == Settings(rounds=3, samples=4, input="noise", seed=5, time_limit=7.5)
    plan = new_plan(suite, settings, ["numpy_ref"], tmp_path, ["rnnbench", "run", "asks.toml"])
    contents = measured(plan)
    assert contents.run.settings == msgspec.to_builtins(settings)
    assert contents.run.command == ["rnnbench", "run", "asks.toml"]
    assert plan.path.parent == tmp_path / machine_name()
    assert {row.round for row in of(Time, contents)} == {0, 1, 2}
    assert {len(row.samples) for row in of(Time, contents)} == {4}
    asked = [arguments for _, call, arguments in scripted.log if call == "prepare"]
    assert {arguments["time_limit"] for arguments in asked} == {7.5}
    assert {(a["problem"]["seed"], a["problem"]["source"]) for a in asked} == {(5, "noise")}


def test_what_a_window_costs_is_computed_once_per_windowed_case(scripted, tmp_path):
    windowed = Case("elman", "tbptt", 8, 2, 3, 4, window=4)
    contents = measured(planned(tmp_path, NAMES, [GOOD, windowed], rounds=2))
    assert of(Truncation, contents) == [Truncation(windowed, 0.5, {})]


def test_a_run_goes_on_rightly_from_wherever_it_ended(scripted, tmp_path):
    """Ended at each request in turn, by an interrupt and by a kill, and resumed: complete, and no fact twice."""
    cases = [GOOD, Case("elman", "tbptt", 8, 2, 3, 4, window=4)]
    measured(planned(tmp_path, NAMES, cases, "whole", rounds=2))
    requests = scripted.requests
    assert requests > 20
    for ending, number in itertools.product((KeyboardInterrupt, Killed), range(1, requests + 1)):
        scripted.requests, scripted.end_after, scripted.ending = 0, number, ending
        plan = planned(tmp_path, NAMES, cases, f"{ending.__name__}-{number}", rounds=2)
        with pytest.raises(ending):
            measured(plan)
        before = store.read(plan.path)
        assert [row.interrupted for row in of(End, before)] == ([True] if ending is KeyboardInterrupt else [])
        scripted.end_after = None
        resumed = resumed_plan(plan.path)
        assert resumed.resumes
        contents = measured(resumed)
        assert contents.rows[: len(before.rows)] == before.rows
        assert_complete(contents, NAMES, cases, rounds=2)


def test_start_up_is_told_by_the_first_case_of_a_cell_in_a_process_also_in_one_that_replaced_another(
    scripted, tmp_path, monkeypatch
):
    """The second case of a cell finds its code in memory, and says nothing about what a start costs."""
    answers, firsts = scripted.ask, []

    def ask(self, call, time_limit, **arguments):
        if call == "prepare":
            case = msgspec.convert(arguments["problem"]["case"], Case)
            self.cells = getattr(self, "cells", set())
            first, place = case.cell not in self.cells, (self.backend, case)
            self.cells.add(case.cell)
            if case == crashing:
                self.alive = False
                raise WorkerFailure("crashed", "gone")
            if first:
                firsts.append(place)
        return answers(self, call, time_limit, **arguments)

    monkeypatch.setattr(scripted, "ask", ask)
    cases = [Case("lstm", "step", T, 2, 3, 4) for T in range(2, 8)]
    for crashing in cases:  # the shuffle puts it now first, now last
        firsts.clear()
        contents = measured(planned(tmp_path, NAMES, cases, f"crash-{crashing.T}"))
        assert [(row.backend, row.case) for row in of(Startup, contents)] == firsts


def test_what_a_gate_refused_is_gated_again_after_a_kill_between_its_two_rows(scripted, tmp_path, monkeypatch):
    """Its failure is told then, in its own words, and its gate not twice."""
    answers = scripted.ask

    def ask(self, call, time_limit, **arguments):
        refused = (self.backend, call) == ("numba_cpu", "gate")
        return [["y", 1.0, 1e-7, None]] if refused else answers(self, call, time_limit, **arguments)

    monkeypatch.setattr(scripted, "ask", ask)
    plan = planned(tmp_path, NAMES, [GOOD])
    with Writer(plan.path) as writer:
        writer.append(plan.run)
        writer.append(Gate(GOOD, "numba_cpu", False, {"y": (1.0, 1e-7)}, 0.1))
    contents = measured(resumed_plan(plan.path))
    assert [gate.passed for gate in of(Gate, contents, backend="numba_cpu")] == [False]
    (failure,) = of(Failure, contents)
    assert (failure.stage, failure.reason, failure.message[:9]) == ("gate", "wrong", "y: error ")
    assert of(Time, contents, backend="numba_cpu") == []


def test_a_resumed_run_makes_as_many_loops_as_before(scripted, tmp_path):
    """Samples of one case are means over one number of calls, however fast the machine seems the second time."""
    scripted.seconds = dict.fromkeys(NAMES, 1e-4)
    plan = planned(tmp_path, NAMES, [GOOD], rounds=2, shortest_sample=5e-3)
    with pytest.raises(KeyboardInterrupt):
        measured(plan, interrupt_at(1))
    scripted.seconds = dict.fromkeys(NAMES, 1e-3)
    rows = of(Time, measured(resumed_plan(plan.path)))
    assert {(row.round, row.loops) for row in rows} == {(0, 64), (1, 64)}


def test_what_is_not_supported_is_told_once_however_often_a_run_is_resumed(scripted, tmp_path):
    name = backend_file(tmp_path / "none.py", module="def supports(spec):\n    return 'not ready'\n")
    plan = planned(tmp_path, ["numpy_ref", name], [GOOD], rounds=2)
    with pytest.raises(KeyboardInterrupt):
        measured(plan, interrupt_at(1))
    assert of(Failure, measured(resumed_plan(plan.path))) == [Failure(GOOD, name, "load", "unsupported", "not ready")]


def test_a_failure_holds_for_the_rest_of_the_run_and_after_it_is_resumed(scripted, tmp_path):
    plan = planned(tmp_path, NAMES, MANY, rounds=2)
    with Writer(plan.path) as writer:
        writer.append(plan.run)
        writer.append(Failure(MANY[0], "numba_cpu", "time", "crashed", "gone", 0))
    contents = measured(resumed_plan(plan.path))
    assert of(Time, contents, backend="numba_cpu", case=MANY[0]) == []
    assert len(of(Time, contents, backend="numba_cpu")) == 2 * (len(MANY) - 1)
    assert len(of(Failure, contents)) == 1


def test_a_backend_that_fails_in_one_round_keeps_the_times_that_it_has(scripted, tmp_path, monkeypatch):
    plan = planned(tmp_path, NAMES, [GOOD], rounds=3)
    answers, samples = scripted.ask, []

    def ask(self, call, time_limit, **arguments):
        if (self.backend, call) == ("numba_cpu", "sample"):
            samples.append(call)
            if len(samples) == 2:
                raise WorkerFailure("crashed", "the worker was killed by SIGKILL")
        return answers(self, call, time_limit, **arguments)

    monkeypatch.setattr(scripted, "ask", ask)
    contents = measured(plan)
    assert [row.round for row in of(Time, contents, backend="numba_cpu")] == [0]
    assert [row.round for row in of(Time, contents, backend="numpy_ref")] == [0, 1, 2]
    assert of(Failure, contents) == [Failure(GOOD, "numba_cpu", "time", "crashed", "the worker was killed by SIGKILL", 1)]


# facts about the machine


def test_the_environment_names_neither_machine_nor_user_nor_any_place():
    facts = environment()
    assert {"machine", "cpu", "cores", "memory_gib", "os", "python", "versions", "commit", "dirty"} <= set(facts)
    assert facts["versions"]["rnnbench"]
    assert facts["versions"]["numpy"]
    text = json.dumps(facts).lower()
    user = psutil.Process().username().lower()
    words = set("".join(c if c.isalnum() else " " for c in text).split())
    assert socket.gethostname().lower() not in words
    assert user not in words
    places = [Path.home(), Path.cwd(), Path(sys.prefix), Path(__file__).parents[1], Path(tempfile.gettempdir())]
    assert [place for place in places if str(place).lower() in text] == []


def test_the_machine_s_name_is_fit_for_a_folder():
    name = machine_name()
    assert name == "".join(c for c in name if c.isascii() and (c.isalnum() or c == "-"))
    assert name.endswith(f"-{os.cpu_count()}c")
    assert not name.startswith("-")
