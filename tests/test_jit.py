"""numba_cpu where Numba's surroundings are unusual: no place for compiled code, no compiler.  Compiles one cell, twice."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FOLDERS = {"rnnbench": ".", "impls": "impls", "suites": "suites", "reports": "reports"}

CALLED = """
import numpy as np, rnnbench
from rnnbench.impls import numba_cpu, numpy_ref
spec = rnnbench.Spec("elman", 3, 4)
x = np.ones((2, 1, 3), np.float32)
one, other = (module.load(spec, rnnbench.init_params(spec, seed=0)).forward(x)[0] for module in (numba_cpu, numpy_ref))
print(rnnbench.__file__, np.allclose(one, other))
"""


IN_TURN = """
import sys
import numpy as np, rnnbench
from rnnbench.impls import numba_cpu, numpy_ref
for dtype in sys.argv[1:]:
    spec = rnnbench.Spec("elman", 3, 4, dtype=dtype)
    x = np.ones((2, 1, 3), dtype)
    one, other = (module.load(spec, rnnbench.init_params(spec, seed=0)).forward(x)[0] for module in (numba_cpu, numpy_ref))
    print(np.abs(one - other).max() < 1e-6)
"""


@pytest.fixture
def read_only(tmp_path) -> dict[str, str]:
    """An installed copy of the package, in which nothing can be made, and a home directory that is none.

    A file stands where each folder for compiled code would be, which hinders every user, root too.
    """
    package = tmp_path / "site" / "rnnbench"
    for folder, place in FOLDERS.items():
        shutil.copytree(REPOSITORY / folder, package / place, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        (folder / "__pycache__").touch()
    nowhere = tmp_path / "nowhere"
    nowhere.touch()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "XDG_"))}
    return kept | {"HOME": str(nowhere), "PYTHONPATH": str(package.parent), "IPYTHONDIR": str(nowhere)}


def called(environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", CALLED], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )


def test_without_a_place_for_compiled_code_calls_are_right_and_one_warning_names_the_variable(read_only, tmp_path):
    done = called(read_only, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'site' / 'rnnbench' / '__init__.py'} True\n"
    assert done.stderr.count("NoCache: ") == 1
    assert "set NUMBA_CACHE_DIR to one" in done.stderr


def test_the_variable_that_the_warning_names_mends_it(read_only, tmp_path):
    done = called(read_only | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert list((tmp_path / "cache").rglob("*.nbc"))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ["check", "numba_cpu", "--level", "smoke", "--cell", "elman", "--env", "NUMBA_DISABLE_JIT"],
            4,
            "numba_cpu cannot run here",
        ),
        (["machine", "-o", "results"], 4, "numba_cpu cannot run here"),
        (["machine", "--no-roofs", "-o", "results"], 0, ""),
    ],
    ids=["check", "machine", "facts alone"],
)
def test_without_a_compiler_one_line_says_which_variable_forbids_it(tmp_path, arguments, code, said):
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-m", "rnnbench", *arguments]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert ("NUMBA_DISABLE_JIT is set" in done.stderr) == bool(code)
    assert "Traceback" not in done.stderr


def test_in_python_a_load_without_a_compiler_is_refused_with_the_reason():
    done = called(os.environ | {"NUMBA_DISABLE_JIT": "1"}, REPOSITORY)
    said = "numba_cpu cannot run here: NUMBA_DISABLE_JIT is set, and the kernels exist as compiled code alone: unset it"
    assert done.stderr.splitlines()[-1] == f"rnnbench.errors.BackendUnavailable: {said}"


def test_code_that_several_processes_compiled_and_cached_is_not_mixed_up_by_one_that_loads_it_all(tmp_path):
    """Numba counts functions of one name anew in each process, and the linker takes the first of two equal symbols."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    for dtypes in (["float32"], ["float64"], ["float64", "float32"], ["float32", "float64"]):
        command = [sys.executable, "-c", IN_TURN, *dtypes]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["True"] * len(dtypes), dtypes
