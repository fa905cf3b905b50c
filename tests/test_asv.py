"""asv: its configuration and benchmarks are found, run on a backend, and show n/a for one that cannot run.  About 5 s."""

import importlib
import json
import pkgutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import rnnbench
import rnnbench.suites
from rnnbench.suites.common import BACKENDS, NetworkBenchmark
from rnnbench.suites.sequence_length import SequenceLength

ROOT = Path(__file__).parents[1]
METHODS = ("time_", "peakmem_")


def benchmarks() -> list[tuple[type, str]]:
    """Each class with each of its benchmark methods, as asv finds them: in all modules of the folder."""
    modules = [importlib.import_module(f"rnnbench.suites.{m.name}") for m in pkgutil.iter_modules(rnnbench.suites.__path__)]
    classes = {
        member
        for module in modules
        for member in vars(module).values()
        if isinstance(member, type) and issubclass(member, NetworkBenchmark) and member is not NetworkBenchmark
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


def test_asv_finds_each_benchmark_once_and_no_problem(tmp_path):
    pytest.importorskip("asv_runner", reason="asv is not installed")
    found = tmp_path / "benchmarks.json"
    code = "import sys; from asv_runner.discovery import list_benchmarks; list_benchmarks(sys.argv[1], open(sys.argv[2], 'w'))"
    subprocess.run([sys.executable, "-c", code, str(ROOT / "suites"), str(found)], check=True, cwd=tmp_path, timeout=60)
    names = sorted(entry["name"] for entry in json.loads(found.read_text("utf-8")))
    assert names == sorted(f"{c.__module__.rpartition('.')[2]}.{c.__name__}.{name}" for c, name in benchmarks())
    assert "sequence_length.SequenceLength.time_step" in names


def test_asv_check_passes(tmp_path):
    pytest.importorskip("asv", reason="asv is not installed")
    if not (ROOT / ".git").exists():
        pytest.skip("asv reads the repository, and this is none")
    command = [sys.executable, "-m", "asv", "check", "-E", f"existing:{sys.executable}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No problems found" in done.stdout


def test_the_backend_parameter_names_every_registered_backend():
    ours = {entry.name for entry in entry_points(group="rnnbench.backends") if entry.value.startswith("rnnbench.impls.")}
    assert set(BACKENDS) == ours


@pytest.mark.parametrize(("benchmark", "method"), benchmarks(), ids=lambda x: getattr(x, "__name__", x))
def test_each_benchmark_runs_on_the_reference(benchmark, method):
    assert len(benchmark.params) == len(benchmark.param_names) == 2
    assert benchmark.params[0] == BACKENDS
    value = min(benchmark.params[1])
    instance = benchmark()
    instance.setup("numpy_ref", value)
    assert getattr(instance, method)("numpy_ref", value) is None


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
