"""What is timed is computed: a backend that puts work off, or answers from memory, is found out and is not timed as fast."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from helpers import lazy_backend
from helpers.runs import measured, of, planned
from helpers.wrapped_reference import backend_file

import rnnbench
from rnnbench.check import PROMISES, Problem, expected, gate, laziness
from rnnbench.check.problem import Prepared
from rnnbench.impls import numpy_ref
from rnnbench.measure.input_rotation import InputRotation
from rnnbench.results.rows import Failure, Time
from rnnbench.suite.case import Case

CASE = Case("lstm", "step", 12, 4, 6, 8)
"""One that takes the reference a millisecond or so."""

SOURCE = Path(lazy_backend.__file__).read_text()

PUTS_OFF = {
    "all": SOURCE,
    "gradients": SOURCE.replace(
        "call = functools.cache(lambda: self.net.record(read(x), read(state)))",
        "done = self.net.record(read(x), read(state))\n        call = lambda: done",
    ),
}
"""What is computed when it is read."""

BY_X = """
    def __init__(self, net):
        self.net, self.known = net, {}

    def record(self, x, state=None):
        if id(x) not in self.known:
            y, final, tape = self.net.record(x, state)
            self.known[id(x)] = y, final, self.net.backward(tape, np.ones_like(y)), x
        y, final, _, _ = self.known[id(x)]
        return y, final, (x, state)

    def backward(self, tape, dy, dstate=None):
        x, state = tape
        key = id(x), id(dy)
        if key not in self.known:
            self.known[key] = self.net.backward(self.net.record(x, state)[2], dy, dstate), x, dy
        return self.known[key][0]
"""
"""What x gave once, it gives for ever."""

BY_ARGUMENTS = """
    def __init__(self, net):
        self.net, self.known = net, {}

    def record(self, x, state=None):
        key = id(x), *map(id, state or ())
        if key not in self.known:
            self.known[key] = self.net.record(x, state), x, state
        y, final, _ = self.known[key][0]
        return y, final, (x, state, key)

    def backward(self, tape, dy, dstate=None):
        x, state, key = tape
        key = *key, id(dy), *map(id, dstate or ())
        if key not in self.known:
            self.known[key] = self.net.backward(self.net.record(x, state)[2], dy, dstate), x, state, dy, dstate
        return self.known[key][0]
"""
"""What the same arrays gave once they give for ever; right for whoever never writes into one."""


def failure_of(name: str, folder: Path) -> str:
    """The one failure of a backend that the gate found right; the reference beside it is measured."""
    contents = measured(planned(folder, ["numpy_ref", name], [CASE], vain_repeats=0))
    assert len(of(Time, contents, backend="numpy_ref")) == 1
    assert of(Time, contents, backend=name) == []
    (failure,) = of(Failure, contents)
    assert (failure.backend, failure.stage, failure.reason) == (name, "time", "error")
    return failure.message


@pytest.fixture(params=PUTS_OFF)
def puts_off(request, tmp_path) -> str:
    path = tmp_path / "puts_off.py"
    path.write_text(PUTS_OFF[request.param])
    return str(path)


def test_a_backend_that_computes_when_results_are_read_is_not_timed(puts_off, tmp_path):
    assert "results are computed when they are read, not before synchronize() returns" in failure_of(puts_off, tmp_path)


def test_a_backend_that_knows_x_by_its_identity_is_not_timed(tmp_path):
    assert "the call was answered from memory" in failure_of(backend_file(tmp_path / "knows_x.py", BY_X), tmp_path)


def test_a_backend_that_knows_its_arguments_by_their_identity_is_timed_as_what_it_computes(tmp_path):
    """No call has the arguments of an earlier one, so that it calls the reference each time: twice, for want of a tape."""
    name = backend_file(tmp_path / "remembers.py", BY_ARGUMENTS)
    contents = measured(planned(tmp_path, ["numpy_ref", name], [CASE], rounds=2, vain_repeats=0))
    assert of(Failure, contents) == []
    own, others = (min(min(row.samples) for row in of(Time, contents, backend=b)) for b in (name, "numpy_ref"))
    assert own > others / 2


def assert_found_by(promise: str, name: str) -> None:
    problem = Problem(CASE)
    wanted = expected(problem)
    backend = rnnbench.load_backend(name)
    assert all(finding.passed for finding in gate(backend, problem, wanted))
    assert not all(finding.passed for finding in PROMISES[promise].examine(backend, problem, wanted))


def test_a_promise_finds_what_is_computed_when_it_is_read(puts_off):
    assert_found_by("computed", puts_off)


@pytest.mark.parametrize("methods", [BY_X, BY_ARGUMENTS], ids=["x", "arguments"])
def test_a_promise_finds_what_knows_arrays_by_their_identity(tmp_path, methods):
    assert_found_by("other contents", backend_file(tmp_path / "knows.py", methods))


def test_what_other_work_adds_to_a_try_does_not_count(monkeypatch):
    """Of ten tries the least of each time does: here nine are slowed in reading alone."""
    slowed = itertools.chain([50.0] * 9, itertools.repeat(0.0))

    def clock_of(extra):
        """One second between two looks at the clock, of which a try has five, and more while results are read."""
        now = 0.0
        for tick in itertools.count():
            now += 1 + (next(extra) if tick % 5 == 2 else 0)
            yield now

    clock = clock_of(slowed)
    monkeypatch.setattr(laziness.time, "perf_counter", lambda: next(clock))
    assert laziness.late(lambda: {"y": np.zeros(1)}, numpy_ref) is None
    clock = clock_of(itertools.repeat(50.0))
    assert laziness.late(lambda: {"y": np.zeros(1)}, numpy_ref) is not None


def test_no_call_has_the_arguments_of_an_earlier_one_and_each_goes_on_from_the_last():
    problem = Problem(CASE)
    prepared = Prepared(numpy_ref, problem, problem.inputs(), problem.params())
    seen, call = [], prepared.call

    def recorded():
        seen.append((prepared.x, prepared.state, prepared.dy, prepared.dstate))
        return call()

    prepared.call = recorded
    turns = InputRotation(prepared, problem.inputs())
    results = [turns.call() for _ in range(8)]
    assert len({id(x) for x, *_ in seen}) == 4
    for place in (0, 2):
        assert all(not np.array_equal(a[place], b[place]) for a, b in itertools.combinations(seen[:4], 2))
    assert all(seen[n + 1][1][0] is results[n]["final h"] for n in range(7))
    assert all(x.shape == seen[0][0].shape and x.dtype == seen[0][0].dtype for x, *_ in seen)
