"""asv: its configuration and benchmarks are found, run on a backend, and show n/a for one that cannot run.  About 15 s."""

import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest

import rnnbench
import rnnbench.suites.asv
from rnnbench.measure import memory
from rnnbench.suites.asv import common, start_up
from rnnbench.suites.asv.common import BACKENDS, NetworkBenchmark
from rnnbench.suites.asv.sequence_length import SequenceLength
from rnnbench.suites.asv.threads import Threads
from rnnbench.suites.asv.window import Window

ROOT = Path(__file__).parents[1]
METHODS = ("time_", "timeraw_", "peakmem_", "track_")


def benchmarks() -> list[tuple[type, str]]:
    """Each class with each of its benchmark methods, as asv finds them: in all modules of the folder."""
    modules = [
        importlib.import_module(f"rnnbench.suites.asv.{m.name}") for m in pkgutil.iter_modules(rnnbench.suites.asv.__path__)
    ]
    classes = {
        member
        for module in modules
        for member in vars(module).values()
        if isinstance(member, type) and member is not NetworkBenchmark and any(name.startswith(METHODS) for name in dir(member))
    }
    return sorted(((c, name) for c in classes for name in dir(c) if name.startswith(METHODS)), key=str)


def test_the_configuration_names_what_exists():
    config = json.loads((ROOT / "asv.conf.json").read_text("utf-8"))
    assert config["repo"] == "."
    assert config["project"] == "rnnbench"
    assert config["branches"] == ["main"]
    assert (ROOT / config["benchmark_dir"] / "__init__.py").is_file()
    assert {config[key] for key in ("env_dir", "results_dir", "html_dir")} == {f".asv/{x}" for x in ("env", "results", "html")}
    assert "--no-deps" in config["build_command"][0]  # else asv finds several wheels and stops
    assert "-c {conf_dir}/constraints.txt" in config["install_command"][0]  # else each environment has its own versions
    assert re.search(r"^torch==", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)


def test_asv_finds_each_benchmark_once_and_no_problem(tmp_path):
    pytest.importorskip("asv_runner", reason="asv is not installed")
    found = tmp_path / "benchmarks.json"
    code = "import sys; from asv_runner.discovery import list_benchmarks; list_benchmarks(sys.argv[1], open(sys.argv[2], 'w'))"
    subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "suites" / "asv"), str(found)], check=True, cwd=tmp_path, timeout=1800
    )
    names = sorted(entry["name"] for entry in json.loads(found.read_text("utf-8")))
    assert names == sorted(f"{c.__module__.rpartition('.')[2]}.{c.__name__}.{name}" for c, name in benchmarks())
    assert "sequence_length.SequenceLength.time_step" in names


def test_asv_check_passes(tmp_path):
    pytest.importorskip("asv", reason="asv is not installed")
    if not (ROOT / ".git").exists():
        pytest.skip("asv reads the repository, and this is none")
    command = [sys.executable, "-m", "asv", "check", "-E", f"existing:{sys.executable}"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No problems found" in done.stdout


def test_the_backend_parameter_names_every_registered_backend():
    ours = {entry.name for entry in entry_points(group="rnnbench.backends") if entry.value.startswith("rnnbench.impls.")}
    assert set(BACKENDS) == ours


def test_asv_runs_a_benchmark_and_marks_what_is_not_available(tmp_path):
    """In a home directory of its own, where asv has to be told of the machine first, as CONTRIBUTING.md does."""
    pytest.importorskip("asv", reason="asv is not installed")
    if not (ROOT / ".git").exists():
        pytest.skip("asv reads the repository, and this is none")
    names = r"Threads.time_forward\('(numpy_ref|numba_cpu)', (1|8)\)"
    command = [sys.executable, "-m", "asv", "run", "--quick", "--dry-run", "-E", f"existing:{sys.executable}", "--bench", names]
    home = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-m", "asv", "machine", "--yes"], cwd=ROOT, env=home, capture_output=True, check=True)
    done = subprocess.run(command, cwd=ROOT, env=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {words[0]: words[1:] for line in done.stdout.splitlines() if (words := line.split()) and words[0] in BACKENDS}
    for name in ("numpy_ref", "numba_cpu"):
        assert re.fullmatch(r"[\d.]+±0[mμ]?s", rows[name][0])
        assert (rows[name][-1] == "n/a") == (common.processors() < 8)


def numbers() -> list[tuple[type, str]]:
    return [(benchmark, method) for benchmark, method in benchmarks() if not method.startswith("timeraw_")]


@pytest.mark.parametrize(("benchmark", "method"), numbers(), ids=lambda x: getattr(x, "__name__", x))
def test_each_benchmark_runs_on_the_reference(benchmark, method):
    assert len(benchmark.params) == len(benchmark.param_names) == 2
    assert benchmark.params[0] == BACKENDS
    value = min(benchmark.params[1])
    instance = benchmark()
    instance.setup("numpy_ref", value)
    result = getattr(instance, method)("numpy_ref", value)
    if method.startswith("track_"):
        assert 0 < result < np.inf
        assert getattr(benchmark, method).unit in ("bytes", "relative error")
    else:
        assert result is None


def test_the_error_of_truncation_ends_where_the_window_covers_the_sequence():
    errors = {}
    for window in (4, 32, 256):
        benchmark = Window()
        benchmark.setup("numpy_ref", window)
        errors[window] = benchmark.track_gradient_error("numpy_ref", window)
    assert errors[4] > errors[32] > errors[256]
    # of full BPTT in float32 only rounding is left, which adds up over the steps at worst
    assert errors[256] < 256 * np.finfo(np.float32).eps


def test_the_extra_memory_follows_the_window():
    if not memory.measurable():
        pytest.skip("this system has no resettable peak memory counter")
    asked = "from rnnbench.suites.asv.window import Window; benchmark = Window(); benchmark.setup('numpy_ref', {0})"
    told = "print(benchmark.track_extra_memory('numpy_ref', {0}))"
    # in a process of its own: memory that other tests have freed would be used again, and not counted
    extra = {window: float(in_a_new_process(asked.format(window), told.format(window))) for window in (4, 256)}
    steps = 256 - 4
    tape = steps * 8 * 64 * 4 * 4  # the four gates of the further steps, which BPTT cannot do without, in float32
    assert extra[256] - extra[4] > tape


def test_memory_that_cannot_be_counted_is_not_applicable(monkeypatch):
    monkeypatch.setattr(memory, "measurable", lambda: False)
    with pytest.raises(NotImplementedError, match="no resettable peak memory"):
        SequenceLength.track_extra_memory.setup("numpy_ref", 16)


def test_more_threads_than_processors_are_not_applicable(monkeypatch):
    monkeypatch.setattr(common, "processors", lambda: 2)
    with pytest.raises(NotImplementedError, match="4 threads on 2 processors"):
        Threads().setup("numpy_ref", 4)


def in_a_new_process(*parts: str) -> str:
    done = subprocess.run([sys.executable, "-c", "\n".join(parts)], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_start_up_of_the_reference_runs_in_a_new_process():
    benchmark = start_up.StartUp()
    benchmark.setup("numpy_ref")
    asked = "import sys; print(backend.__name__, 'numba' in sys.modules)"
    assert in_a_new_process(benchmark.timeraw_import("numpy_ref"), asked) == "rnnbench.impls.numpy_ref False\n"
    assert in_a_new_process(benchmark.timeraw_first_step("numpy_ref"), "print('ran')") == "ran\n"


def test_a_compiling_start_finds_an_empty_cache_of_its_own():
    benchmark = start_up.StartUp()
    statement, before = benchmark.timeraw_first_step_compiling("numba_cpu")
    assert statement == benchmark.timeraw_first_step("numba_cpu")
    asked = (
        "import sys; from pathlib import Path; print('numba' in sys.modules, [*Path(os.environ['NUMBA_CACHE_DIR']).iterdir()])"
    )
    from_numba = "from numba.core import config; print(config.CACHE_DIR == cache.name)"
    assert in_a_new_process(before, asked, from_numba) == "False []\nTrue\n"


class Recorder:
    """The reference as a backend that notes its calls and supports what it is told to."""

    def __init__(self, reason=None):
        self._reference = rnnbench.load_backend("numpy_ref")
        self._reason = reason
        self.calls = []

    def __getattr__(self, name):
        return getattr(self._reference, name)

    def supports(self, spec):
        return self._reason

    def synchronize(self):
        self.calls.append("synchronize")

    def load(self, spec, params, *, threads=None):
        net, calls = self._reference.load(spec, params, threads=threads), self.calls
        calls.append("load")

        class Noted:
            def __getattr__(self, name):
                if name in ("forward", "record", "backward"):
                    calls.append(name)
                return getattr(net, name)

        return Noted()


def test_set_up_runs_what_is_timed_and_the_timed_call_waits(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(rnnbench, "load_backend", lambda _: recorder)
    benchmark = SequenceLength()
    benchmark.setup("numba_cpu", 16)
    assert recorder.calls == ["load", "forward", "synchronize", "record", "backward", "synchronize"]
    recorder.calls.clear()
    benchmark.time_step("numba_cpu", 16)
    assert recorder.calls == ["record", "backward", "synchronize"]
    recorder.calls.clear()
    benchmark.time_forward("numba_cpu", 16)
    assert recorder.calls == ["forward", "synchronize"]


def test_a_second_set_up_of_the_same_does_nothing(monkeypatch):
    """asv sets up before every timed call."""
    recorder = Recorder()
    monkeypatch.setattr(rnnbench, "load_backend", lambda _: recorder)
    benchmark = SequenceLength()
    benchmark.setup("numba_cpu", 16)
    recorder.calls.clear()
    benchmark.setup("numba_cpu", 16)
    assert recorder.calls == []
    benchmark.setup("numba_cpu", 64)
    assert recorder.calls[0] == "load"


def test_an_unsupported_network_is_not_applicable(monkeypatch):
    recorder = Recorder("no lstm here")
    monkeypatch.setattr(rnnbench, "load_backend", lambda _: recorder)
    with pytest.raises(NotImplementedError, match="no lstm here"):
        SequenceLength().setup("torch_nn", 16)
    assert recorder.calls == []


@pytest.mark.parametrize("error", [rnnbench.BackendUnavailable("needs a GPU"), rnnbench.UnknownBackend("needs a GPU")])
def test_an_unavailable_or_unknown_backend_is_not_applicable(monkeypatch, error):
    def refuse(name):
        raise error

    monkeypatch.setattr(rnnbench, "load_backend", refuse)
    with pytest.raises(NotImplementedError, match="needs a GPU"):
        SequenceLength().setup("numba_cuda", 16)


def test_a_broken_backend_is_an_error_not_a_gap(monkeypatch):
    def broken(name):
        raise ImportError("its own import fails")

    monkeypatch.setattr(rnnbench, "load_backend", broken)
    with pytest.raises(ImportError, match="its own import fails"):
        SequenceLength().setup("numba_cpu", 16)
