"""The backend auto: what it picks from stored results, what it says of it, and that it keeps what any backend promises.

Takes 20 s, most of it the gate's.
"""

import shlex
from pathlib import Path

import msgspec
import numpy as np
import pytest
from helpers import stored_results
from helpers.wrapped_reference import backend_file
from typer.main import get_command

import rnnbench
from rnnbench import Spec, StoreError
from rnnbench.check import check
from rnnbench.check.levels import trials
from rnnbench.choose.choose import measuring_command
from rnnbench.cli.best import case_of
from rnnbench.cli.main import application
from rnnbench.impls import auto, numba_cpu, numpy_ref
from rnnbench.measure.plan import Settings, new_plan
from rnnbench.suite.case import Case
from rnnbench.suite.suite import load_suite

SPEC = Spec("lstm", 4, 5)
PARAMS = rnnbench.init_params(SPEC, seed=0)
STEP = Case("lstm", "step", 7, 3, 4, 5)
FORWARD = msgspec.structs.replace(STEP, phase="forward")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in, and no variable that names another."""
    monkeypatch.delenv("RNNBENCH_RESULTS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def results(times, name: str = "run", **facts) -> Path:
    Path("results").mkdir(exist_ok=True)
    return stored_results.write(Path("results") / f"{name}.jsonl", times, **facts)


def two_picked() -> None:
    """Results after which numpy_ref is picked for inference and numba_cpu for training."""
    results({("numpy_ref", FORWARD): 1.0, ("numba_cpu", FORWARD): 2.0, ("numpy_ref", STEP): 2.0, ("numba_cpu", STEP): 1.0})


def loaded(**options):
    return auto.load(SPEC, PARAMS, threads=1, **options)


def x(T: int = 7, B: int = 3) -> np.ndarray:  # noqa: N803  # the field's names
    return np.random.default_rng(T).standard_normal((T, B, 4), dtype=np.float32)


def flat(results) -> list[np.ndarray]:
    """Every array in nested tuples and mappings."""
    if isinstance(results, np.ndarray):
        return [results]
    parts = results.values() if isinstance(results, dict) else results
    return [array for part in parts for array in flat(part)]


def assert_same_bits(got, wanted) -> None:
    for a, b in zip(flat(got), flat(wanted), strict=True):
        np.testing.assert_array_equal(a, b)


def step(net, given: np.ndarray):
    y, final, tape = net.record(given)
    return y, final, net.backward(tape, y)


# how it is found


def test_it_is_found_by_name_and_takes_part_only_where_it_is_named(here):
    assert rnnbench.load_backend("auto") is auto
    assert [entry.name for entry in rnnbench.choosers()] == ["auto"]
    assert "auto" not in [entry.name for entry in rnnbench.backends() + rnnbench.peers()]
    default = new_plan(load_suite("quick"), Settings(), None, here, [])
    assert "auto" not in default.run.backends
    named = new_plan(load_suite("quick"), Settings(), ["auto", "numpy_ref"], here, [])
    assert list(named.run.backends) == ["auto", "numpy_ref"]


# what is picked


def test_without_results_the_default_is_numba_cpu_and_says_so():
    net = loaded()
    assert dict(net.picked) == {}
    assert_same_bits(net.forward(x()), numba_cpu.load(SPEC, PARAMS, threads=1).forward(x()))
    (choice,) = net.picked.values()
    assert (choice.backend, choice.seconds, choice.case) == ("numba_cpu", None, FORWARD)
    assert choice.why == (
        "numba_cpu is the default: no results at results; expected a .jsonl file, or a folder that holds some."
    )
    assert net.info()["picked"] == {"forward T7 B3": choice.why}


def test_without_a_result_that_serves_the_default_is_numba_cpu_and_says_so():
    results({("numpy_ref", FORWARD): 1.0})
    net = loaded()
    step(net, x())
    assert net.picked["step", 7, 3].why == "numba_cpu is the default: no result serves lstm step T7 B3 I4 H5."


WITH_TWO = "rnnbench best --measure --cell lstm --phase forward -T 7 -B 3 -H 5 -I 4 --threads 2 --dtype float32 --layers 1"


def test_results_of_one_thread_choose_for_a_network_of_two_and_say_so(monkeypatch):
    """The seconds of one thread are none of two; which is the faster backend is known better than not at all."""
    monkeypatch.setattr(auto, "_WARNED", set())
    results({("numpy_ref", FORWARD): 1.0, ("numba_cpu", FORWARD): 2.0})
    net = auto.load(SPEC, PARAMS, threads=2)
    said = f"numpy_ref is fastest with 1 thread; with 2 threads nothing is measured: {WITH_TWO}"
    with pytest.warns(UserWarning, match="numpy_ref is fastest with 1 thread") as caught:
        net.forward(x())
    assert [str(one.message) for one in caught] == [f"auto: {said}"]
    net.forward(x(8))  # the warning would be an error here: it is given once
    choice = net.picked["forward", 7, 3]
    assert (choice.backend, choice.seconds, choice.low, choice.case.threads) == ("numpy_ref", None, None, 2)
    assert choice.why == f"{said}."


def test_results_of_the_network_s_threads_go_before_those_of_others(monkeypatch):
    two = msgspec.structs.replace(FORWARD, threads=2)
    results({("numpy_ref", FORWARD): 1.0, ("numba_cpu", FORWARD): 2.0, ("numpy_ref", two): 2.0, ("numba_cpu", two): 1.0})
    net = auto.load(SPEC, PARAMS, threads=2)
    net.forward(x())
    assert net.picked["forward", 7, 3].backend == "numba_cpu"
    assert net.picked["forward", 7, 3].seconds == 1.0


def test_of_several_other_numbers_of_threads_the_nearest_counts(monkeypatch):
    monkeypatch.setattr(auto, "_WARNED", set())
    by_threads = {threads: msgspec.structs.replace(FORWARD, threads=threads) for threads in (1, 3, 16)}
    results(
        {("numpy_ref", case): float(threads != 3) + 1 for threads, case in by_threads.items()}
        | {("numba_cpu", case): 1.5 for case in by_threads.values()}
    )
    net = auto.load(SPEC, PARAMS, threads=2)
    with pytest.warns(UserWarning, match="numpy_ref is fastest with 3 threads"):
        net.forward(x())


def test_what_auto_says_measures_what_it_lacks(capsys, monkeypatch):
    assert measuring_command(msgspec.structs.replace(FORWARD, threads=2)) == WITH_TWO
    _, name, *given = shlex.split(WITH_TWO)
    context = get_command(application()).commands[name].make_context(name, given)
    assert case_of(context.params) == msgspec.structs.replace(FORWARD, threads=2)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import os; os._exit(0)", "the worker ended with exit code 0 on import"),
        ("import ctypes; ctypes.string_at(0)", "the worker was killed by SIGSEGV on import"),
        ("raise OSError('no device')", "cannot be imported: OSError: no device"),
    ],
    ids=["exits", "segfault", "raises"],
)
def test_a_backend_that_does_harm_is_not_picked_and_ends_no_process_of_its_user(here, source, said):
    (here / "harmful.py").write_text(source)
    name = str(here / "harmful.py")
    results({(name, FORWARD): 1.0, ("numpy_ref", FORWARD): 2.0})
    net = loaded()
    net.forward(x())
    assert net.picked["forward", 7, 3].backend == "numpy_ref"
    assert said in net.picked["forward", 7, 3].excluded[name]


def test_results_of_another_machine_do_not_count():
    results({("numpy_ref", FORWARD): 1.0}, machine="another-64c")
    net = loaded()
    net.forward(x())
    assert net.picked["forward", 7, 3].backend == "numba_cpu"


def test_each_phase_runs_on_the_backend_that_its_results_say_is_fastest():
    two_picked()
    net = loaded()
    assert_same_bits(net.forward(x()), numpy_ref.load(SPEC, PARAMS, threads=1).forward(x()))
    assert_same_bits(step(net, x()), step(numba_cpu.load(SPEC, PARAMS, threads=1), x()))
    assert {key: choice.backend for key, choice in net.picked.items()} == {
        ("forward", 7, 3): "numpy_ref",
        ("step", 7, 3): "numba_cpu",
    }
    said = net.picked["forward", 7, 3].why
    assert said == ("numpy_ref takes 1 s (1 s to 1 s; measured, 1 round of run), 2.00 times as fast as numba_cpu (measured).")


def test_each_shape_has_its_own_pick_and_each_backend_one_network(monkeypatch):
    times = {("numpy_ref", msgspec.structs.replace(FORWARD, T=T)): T for T in (2, 7, 30)}
    times |= {("numba_cpu", msgspec.structs.replace(FORWARD, T=T)): 6.0 for T in (2, 7, 30)}
    results(times)
    loads = []
    for module in (numpy_ref, numba_cpu):

        def load(*args, of=module.load, name=module.__name__, **options):
            loads.append(name)
            return of(*args, **options)

        monkeypatch.setattr(module, "load", load)
    net = loaded()
    for T in (2, 7, 30, 2, 40):  # noqa: N806  # the field's name
        net.forward(x(T))
    assert {steps: choice.backend for (_, steps, _), choice in net.picked.items()} == {
        2: "numpy_ref",
        7: "numba_cpu",
        30: "numba_cpu",
        40: "numba_cpu",
    }
    assert net.picked["forward", 40, 3].predictions[0].how == "extrapolated"
    assert loads == ["rnnbench.impls.numpy_ref", "rnnbench.impls.numba_cpu"]


@pytest.mark.parametrize("threads", [1, 2])
def test_results_count_for_the_number_of_threads_that_the_network_has(threads):
    results({("numpy_ref", FORWARD): 1.0, ("numba_cpu", msgspec.structs.replace(FORWARD, threads=2)): 1.0})
    net = auto.load(SPEC, PARAMS, threads=threads)
    net.forward(x())
    (choice,) = net.picked.values()
    assert choice.backend == {1: "numpy_ref", 2: "numba_cpu"}[threads]
    assert choice.seconds == 1.0


def test_backends_with_other_arrays_without_bptt_or_unknown_here_are_not_picked(here):
    """Of those with other arrays no stored result says what conversion takes."""
    other = backend_file(
        here / "other.py", module="class Array(np.ndarray):\n    pass\n\ndef asarray(array):\n    return array.view(Array)\n"
    )
    limited = backend_file(here / "limited.py", module="def supports_phase(spec, phase):\n    return 'no BPTT'\n")
    times = {(other, STEP): 1.0, (limited, STEP): 2.0, ("gone", STEP): 3.0, ("numpy_ref", STEP): 4.0}
    results(times | {("auto", STEP): 0.1})
    net = loaded()
    step(net, x())
    choice = net.picked["step", 7, 3]
    assert choice.backend == "numpy_ref"
    assert choice.excluded[other].endswith(".Array, not numpy.ndarray")
    assert choice.excluded[limited] == "no BPTT"
    assert choice.excluded["gone"].startswith("unknown backend 'gone'")
    assert set(choice.excluded) == {other, limited, "gone"}


def test_what_a_variable_names_is_read_and_has_to_be_there(here, monkeypatch):
    two_picked()
    (here / "results").rename(here / "elsewhere")
    monkeypatch.setenv("RNNBENCH_RESULTS", str(here / "elsewhere"))
    net = loaded()
    net.forward(x())
    assert net.picked["forward", 7, 3].backend == "numpy_ref"
    monkeypatch.setenv("RNNBENCH_RESULTS", str(here / "nowhere"))
    with pytest.raises(StoreError, match=r"RNNBENCH_RESULTS is .*nowhere.*: no results at"):
        loaded()


def test_results_are_read_when_a_network_is_loaded():
    net = loaded()
    two_picked()
    net.forward(x())
    assert net.picked["forward", 7, 3].backend == "numba_cpu"
    net = loaded()
    net.forward(x())
    assert net.picked["forward", 7, 3].backend == "numpy_ref"
    later = {"started": "2026-03-01T00:00:00+00:00"}
    results({("numpy_ref", FORWARD): 3.0}, "later", **later)
    net = loaded()
    net.forward(x())
    assert net.picked["forward", 7, 3].backend == "numba_cpu"


def test_files_that_do_not_read_are_told():
    results({("numpy_ref", FORWARD): 1.0})
    Path("results/broken.jsonl").write_text("hello\n")
    net = loaded()
    net.forward(x())
    assert net.picked["forward", 7, 3].backend == "numpy_ref"
    (problem,) = net.info()["problems"]
    assert "broken.jsonl is no results file" in problem


# what any network promises


def test_new_weights_reach_every_network_that_was_loaded_or_will_be():
    two_picked()
    other = rnnbench.init_params(SPEC, seed=1)
    net = loaded()
    net.forward(x())
    net.update(other)
    assert_same_bits(net.forward(x()), numpy_ref.load(SPEC, other, threads=1).forward(x()))
    assert_same_bits(step(net, x()), step(numba_cpu.load(SPEC, other, threads=1), x()))


def test_a_tape_goes_back_to_the_backend_that_recorded():
    two_picked()
    longer = msgspec.structs.replace(STEP, T=60)
    results({("numpy_ref", longer): 1.0, ("numba_cpu", longer): 2.0}, "longer")
    net = loaded()
    y, _, tape = net.record(x())
    y_longer, _, tape_longer = net.record(x(60))
    assert [choice.backend for choice in net.picked.values()] == ["numba_cpu", "numpy_ref"]
    for module, given, output, kept in ((numpy_ref, x(60), y_longer, tape_longer), (numba_cpu, x(), y, tape)):
        assert_same_bits(net.backward(kept, output), step(module.load(SPEC, PARAMS, threads=1), given)[2])


def results_for_the_gate(inference: str) -> None:
    """A backend that is fastest in the phase forward of the gate's shapes; numba_cpu is in training."""
    of_trials = {msgspec.structs.replace(trial.problem.case, window=None, stride=None) for trial in trials("smoke", None)}
    times = {}
    for phase, fastest in (("forward", inference), ("step", "numba_cpu")):
        for case in {msgspec.structs.replace(case, phase=phase) for case in of_trials}:
            times |= {(name, case): 1.0 if name == fastest else 2.0 for name in (inference, "numba_cpu")}
    results(times)


def test_it_passes_the_gate_without_results():
    assert check("auto", level="smoke").passed


def test_it_passes_the_gate_where_phases_run_on_different_backends():
    results_for_the_gate("numpy_ref")
    assert check("auto", level="smoke").passed


def test_torch_behind_numpy_arrays_passes_the_gate_and_can_be_picked():
    pytest.importorskip("torch", reason="torch_nn_numpy needs PyTorch")
    assert check("torch_nn_numpy", level="smoke").passed
    results({("torch_nn_numpy", STEP): 1.0, ("numba_cpu", STEP): 2.0})
    net = loaded()
    got = step(net, x())
    assert net.picked["step", 7, 3].backend == "torch_nn_numpy"
    assert_same_bits(got, step(rnnbench.load_backend("torch_nn_numpy").load(SPEC, PARAMS, threads=1), x()))


def test_it_fails_the_gate_where_what_it_picks_is_wrong(here):
    """The gate of ``auto`` sees what its results make it pick."""
    methods = "def forward(self, x, state=None):\n    y, final = self.net.forward(x, state)\n    return y * 1.001, final\n"
    results_for_the_gate(backend_file(here / "wrong.py", methods))
    report = check("auto", level="smoke", cells=["gru"])
    assert not report.passed
