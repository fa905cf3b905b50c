"""How backends are found, loaded and, where they cannot run, explained.  Takes 3 s, most of it starting interpreters."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnbench
from rnnbench.networks import registry
from rnnbench.networks.contract import Backend
from rnnbench.networks.registry import GROUP

SHIPPED = ["numba_cpu", "numba_cuda", "numpy_ref", "torch_eager", "torch_nn"]

SHIPPED_PEERS = ["jax_scan", "onnxruntime", "torch_compile"]

FUNCTIONS = ("load", "asarray", "to_numpy", "synchronize", "supports", "info")

A_BACKEND = """
from rnnbench.impls.numpy_ref import asarray, info, load, supports, synchronize, to_numpy
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Make modules from sources by name, registered as the only backends; gives the function that does it."""
    monkeypatch.syspath_prepend(tmp_path)
    entries = []
    monkeypatch.setattr("rnnbench.networks.registry.entry_points", lambda *, group: [e for e in entries if e.group == group])

    def install(name: str, source: str, module: str | None = None) -> None:
        module = module or f"backend_of_this_test_{name}"
        (tmp_path / f"{module}.py").write_text(source)
        monkeypatch.delitem(sys.modules, module, raising=False)
        entries.append(EntryPoint(name, module, GROUP))

    return install


def refusal(name: str, error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        rnnbench.load_backend(name)
    return str(caught.value)


def test_the_listing_names_what_is_shipped_in_order_and_says_of_each_whether_it_runs_here():
    listing = rnnbench.backends()
    names = [entry.name for entry in listing]
    assert names == sorted(names)
    assert set(SHIPPED) <= set(names)
    assert all(entry.available == (entry.reason is None) for entry in listing)
    available = {entry.name for entry in listing if entry.available}
    assert {"numpy_ref", "numba_cpu"} <= available
    for name in available:
        assert rnnbench.load_backend(name)


@pytest.mark.parametrize("name", ["numpy_ref", "numba_cpu"])
def test_a_shipped_backend_is_a_module_that_offers_the_whole_contract(name):
    module = rnnbench.load_backend(name)
    assert module is sys.modules[f"rnnbench.impls.{name}"]
    assert {f for f in vars(Backend) if not f.startswith("_")} == set(FUNCTIONS)
    for function in FUNCTIONS:
        assert callable(getattr(module, function))
    assert module.synchronize() is None
    assert module.supports(rnnbench.Spec("lstm", 2, 2)) is None
    assert json.loads(json.dumps(module.info())) == module.info(), "info() goes into a results file"
    array = np.arange(6.0).reshape(2, 3)[:, ::-1]
    np.testing.assert_array_equal(module.to_numpy(module.asarray(array)), array, strict=True)


def test_an_unknown_name_is_refused_with_the_registered_ones(installed):
    installed("b", A_BACKEND)
    installed("a", A_BACKEND)
    assert refusal("numpy_rfe", rnnbench.UnknownBackend) == "unknown backend 'numpy_rfe'; registered are a, b"


def test_others_register_theirs_and_one_that_raises_is_listed_with_its_reason(installed):
    installed("zebra", A_BACKEND)
    installed("broken", 'raise OSError("libfast.so.1:\\n cannot open shared object file")')
    installed("absent", "import a_library_that_nobody_has")
    installed("elsewhere", 'import rnnbench; raise rnnbench.BackendUnavailable("elsewhere needs a library: install it")')
    installed("asleep", A_BACKEND + '\ndef unavailable(): return "no device"')
    installed("awake", A_BACKEND + "\ndef unavailable(): return None")
    assert rnnbench.backends() == [
        ("absent", "absent cannot be imported: ModuleNotFoundError: No module named 'a_library_that_nobody_has'"),
        ("asleep", "asleep cannot run here: no device"),
        ("awake", None),
        ("broken", "broken cannot be imported: OSError: libfast.so.1: cannot open shared object file"),
        ("elsewhere", "elsewhere needs a library: install it"),
        ("zebra", None),
    ]


def test_a_backend_that_cannot_run_here_is_refused_with_what_would_mend_it(installed):
    installed("elsewhere", 'import rnnbench; raise rnnbench.BackendUnavailable("elsewhere needs a library: install it")')
    installed("broken", 'raise OSError("cannot open shared object file")')
    installed("asleep", A_BACKEND + '\ndef unavailable(): return "no device"')
    assert refusal("elsewhere", rnnbench.BackendUnavailable) == "elsewhere needs a library: install it"
    assert (
        refusal("broken", rnnbench.BackendUnavailable) == "broken cannot be imported: OSError: cannot open shared object file"
    )
    assert refusal("asleep", rnnbench.BackendUnavailable) == "asleep cannot run here: no device"


def test_an_interrupted_import_is_no_reason(installed):
    installed("stopped", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        rnnbench.backends()


def test_one_name_for_two_modules_is_refused(installed):
    installed("mine", A_BACKEND, "first_module")
    installed("mine", A_BACKEND, "second_module")
    message = "backend 'mine' is registered twice: first_module and second_module; uninstall one"
    assert refusal("mine", rnnbench.UnknownBackend) == message
    with pytest.raises(rnnbench.UnknownBackend, match="registered twice"):
        rnnbench.backends()


def test_one_module_found_twice_under_its_name_is_one_backend(installed):
    # an editable install beside a build directory on the path shows every entry point twice
    installed("mine", A_BACKEND, "first_module")
    installed("mine", A_BACKEND, "first_module")
    assert rnnbench.backends() == [("mine", None)]


def test_a_file_that_fulfils_the_contract_is_a_backend(tmp_path, monkeypatch):
    path = written(tmp_path, monkeypatch, A_BACKEND + "\nclass Kept: pass")
    module = rnnbench.load_backend(str(path))
    spec = rnnbench.Spec("lstm", 3, 2)
    net = module.load(spec, rnnbench.init_params(spec, 0))
    assert net.forward(np.zeros((4, 2, 3), "float32"))[0].shape == (4, 2, 2)
    assert module.__file__ == str(path)
    assert sys.modules[module.__name__] is module, "what looks a function's module up by name must find it"
    assert not any(entry.name == path.stem for entry in rnnbench.backends())


def test_a_file_may_be_named_relative_to_the_working_directory(tmp_path, monkeypatch):
    path = written(tmp_path, monkeypatch, A_BACKEND)
    monkeypatch.chdir(tmp_path)
    assert Path(rnnbench.load_backend(path.name).__file__).samefile(path)


def test_a_file_that_lacks_functions_is_refused_with_their_names(tmp_path, monkeypatch):
    path = written(tmp_path, monkeypatch, "from rnnbench.impls.numpy_ref import asarray, load, synchronize, supports")
    assert refusal(str(path), rnnbench.UnknownBackend) == f"{path} is not a backend: it lacks to_numpy, info"


def test_an_error_in_a_users_own_file_reaches_the_user(tmp_path, monkeypatch):
    path = written(tmp_path, monkeypatch, "load = 1 / 0")
    with pytest.raises(rnnbench.BackendUnavailable, match="ZeroDivisionError: division by zero") as caught:
        rnnbench.load_backend(str(path))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("name", ["missing.py", "directory.py"])
def test_a_missing_file_is_refused(tmp_path, name):
    (tmp_path / "directory.py").mkdir()
    path = tmp_path / name
    message = f"no file {str(path)!r}; expected a registered backend or the path of a module"
    assert refusal(str(path), rnnbench.UnknownBackend) == message


def written(folder: Path, monkeypatch, source: str) -> Path:
    path = folder / "my_backend.py"
    path.write_text(source)
    monkeypatch.delitem(sys.modules, "rnnbench_user_my_backend", raising=False)
    return path


def printed(source: str) -> Any:
    """What a fresh interpreter prints as JSON."""
    run = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


HEAVY = ("torch", "numba", "llvmlite", "pandas", "altair", "scipy", "onnx", "jax", "keras", "tensorflow")


@pytest.mark.parametrize(
    ("statement", "needed"),
    [
        ("import rnnbench", ()),
        ("import rnnbench.cli.main", ()),
        ("import rnnbench.check", ()),
        ("import rnnbench; rnnbench.load_backend('numpy_ref')", ()),
        ("import rnnbench; rnnbench.load_backend('numba_cpu')", ("numba", "llvmlite", "scipy")),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_asked_for(statement, needed):
    loaded = printed(f"import json, sys\n{statement}\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))")
    assert "rnnbench" in loaded
    assert set(loaded) & set(HEAVY) <= set(needed)


def test_import_takes_well_under_a_third_of_a_second():
    source = "import json, time\nstart = time.process_time()\nimport rnnbench\nprint(json.dumps(time.process_time() - start))"
    # processor time, and the least of five, so that a busy machine does not count; NumPy's own import is in it
    assert min(printed(source) for _ in range(5)) < 0.3


def test_a_package_that_comes_or_goes_while_a_process_runs_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "entry_points", entry_points)
    monkeypatch.setattr(registry, "SETTLED", 0)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert "late" not in registry.registered(registry.GROUP)
    metadata = tmp_path / "late-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Name: late\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{registry.GROUP}]\nlate = late\n")
    assert registry.registered(registry.GROUP)["late"].value == "late"
    shutil.rmtree(metadata)
    assert "late" not in registry.registered(registry.GROUP)


def test_packages_are_searched_once_as_long_as_they_are_the_same(tmp_path, monkeypatch):
    searched = []
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    os.utime(tmp_path, (1, 1))
    monkeypatch.setattr(registry, "entry_points", lambda group: searched.append(group) or [])
    assert registry.registered("one", "other") == registry.registered("one", "other") == {}
    assert searched == ["one", "other"]
    os.utime(tmp_path)  # just now: what comes may not be complete
    assert registry.registered("one") == registry.registered("one") == {}
    assert searched == ["one", "other", "one", "one"]
