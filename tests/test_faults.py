"""What a backend does wrong is one row, and everything else is measured.

Takes 20 s: the processes are real, and so are the hang and the waits for it.
"""

import contextlib
from pathlib import Path

import psutil
import pytest
from helpers.runs import BAD, GOOD, LIMIT, LONG, PATIENCE, assert_each_once, measured, of, own_lines, planned, rnnbench_run
from helpers.wrapped_reference import backend_file

from rnnbench.measure.memory import measurable
from rnnbench.results.rows import End, Failure, Gate, Memory, Time

pytestmark = pytest.mark.usefixtures("machine_at_rest", "no_process_left_behind")


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
        "ratio ",
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
