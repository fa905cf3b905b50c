"""What a wheel holds: one package with its data, its command and its backends.  Takes 2 s, to build one."""

import configparser
import email
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import rnnbench
from rnnbench.impls.numba_cuda.device import BOUNDED
from rnnbench.installing import how_to_install

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())

FOLDERS = {"rnnbench": "rnnbench", "impls": "rnnbench/impls", "suites": "rnnbench/suites", "reports": "rnnbench/reports"}
"""Where the repository's folders lie in the package."""

CUDA_EXTRAS = ("cuda", "cuda-offline")


def passed_over(folder: str, names: list[str]) -> set[str]:
    """What of a folder of the repository is not copied; ``rnnbench/results`` is a package, ``results`` is not."""
    made = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")(folder, names)
    return made | ({"build", "dist", "results", "tests"} & set(names) if Path(folder) == REPOSITORY else set())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of a copy of the repository, so that building leaves nothing in it."""
    setuptools = pytest.importorskip("setuptools", reason="a wheel is built with setuptools, without a registry")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip(f"setuptools is {setuptools.__version__}; the build needs 77")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(REPOSITORY, source, ignore=passed_over)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as content:
        yield content


@pytest.fixture(scope="module")
def names(wheel) -> set[str]:
    return {name for name in wheel.namelist() if not name.endswith("/")}


def metadata_file(wheel: zipfile.ZipFile, name: str) -> str:
    (path,) = (path for path in wheel.namelist() if re.fullmatch(rf"rnnbench-[^/]+\.dist-info/{name}", path))
    return wheel.read(path).decode()


def test_a_wheel_puts_one_package_into_place(names):
    assert {name.partition("/")[0] for name in names} == {"rnnbench", f"rnnbench-{rnnbench.__version__}.dist-info"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_wheel_holds_every_module_and_data_file(names, folder):
    """A package or a kind of data that pyproject.toml does not name is left out without a word."""
    here = REPOSITORY / folder
    expected = {
        f"{FOLDERS[folder]}/{file.relative_to(here).as_posix()}"
        for file in here.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith(".")
    }
    assert expected
    assert expected <= names


def test_a_wheel_holds_nothing_that_the_repository_does_not(names):
    homes = {package: folder for folder, package in FOLDERS.items()}
    for name in names:
        if name.startswith("rnnbench/"):
            package = max((home for home in homes if name.startswith(f"{home}/")), key=len)
            assert (REPOSITORY / homes[package] / name.removeprefix(f"{package}/")).is_file(), name


def test_the_data_that_code_reads_is_there(names):
    assert "rnnbench/suites/quick.toml" in names
    assert {"rnnbench/data/shakespeare.txt", "rnnbench/data/ORIGIN.txt"} <= names
    assert {name.rpartition(".")[2] for name in names if name.startswith("rnnbench/reports/")} >= {"html", "css", "js", "csv"}


def test_the_command_and_the_backends_are_entry_points_that_load(wheel, names):
    entries = configparser.ConfigParser()
    entries.read_string(metadata_file(wheel, "entry_points.txt"))
    assert dict(entries["console_scripts"]) == {"rnnbench": "rnnbench.cli.main:main"}
    backends = dict(entries["rnnbench.backends"])
    assert {"numpy_ref", "numba_cpu", "numba_cuda", "torch_nn", "torch_eager"} <= set(backends)
    peers = dict(entries["rnnbench.peers"])
    assert set(peers) == {"jax_cuda", "jax_scan", "onnxruntime", "torch_compile", "torch_cuda", "torch_nn_numpy"}
    for module in (backends | peers).values():
        path = module.replace(".", "/")
        assert {f"{path}.py", f"{path}/__init__.py"} & names


def test_the_metadata_asks_for_python_3_11_and_not_for_torch(wheel):
    metadata = email.message_from_string(metadata_file(wheel, "METADATA"))
    assert (metadata["Name"], metadata["Version"]) == ("rnnbench", rnnbench.__version__)
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "BSD-3-Clause"
    requirements = metadata.get_all("Requires-Dist") or []
    plain = {re.split(r"[^\w-]", line)[0] for line in requirements if "extra ==" not in line}
    assert plain == {re.split(r"[^\w-]", line)[0] for line in PROJECT["project"]["dependencies"]}
    assert {"numpy", "numba", "scipy"} <= plain
    assert plain.isdisjoint({"torch", "numba-cuda", "pandas", "altair"})
    extras = set(metadata.get_all("Provides-Extra") or [])
    assert {"torch", "cuda", "report", "dev", "all"} <= extras
    assert any(
        line.startswith("torch>=") and line.endswith("extra == 'torch'") for line in (r.replace('"', "'") for r in requirements)
    )


def test_every_plain_requirement_is_imported_somewhere_in_the_package(wheel):
    """Nobody installs what nothing uses."""
    imported = {
        found
        for name in wheel.namelist()
        if name.endswith(".py")
        for found in re.findall(r"^\s*(?:import|from) (\w+)", wheel.read(name).decode(), re.MULTILINE)
    }
    wanted = [re.split(r"[^\w-]", line)[0] for line in PROJECT["project"]["dependencies"]]
    assert [name for name in wanted if name.replace("-", "_") not in imported] == []


def test_all_extras_with_numba_cuda_bound_the_same_versions():
    """``numba_cuda.unavailable`` reads those of ``cuda``."""
    extras = PROJECT["project"]["optional-dependencies"]
    cuda, offline = (dict(re.match(r"([\w-]+)(?:\[.*\])?(.*)", line).groups() for line in extras[e]) for e in CUDA_EXTRAS)
    assert set(BOUNDED) <= cuda.keys() & offline.keys()
    assert {name: offline[name] for name in cuda} == cuda


def test_the_licence_is_in_the_wheel(wheel):
    assert metadata_file(wheel, "licenses/LICENSE") == (REPOSITORY / "LICENSE").read_text()


def test_the_installed_version_is_that_of_the_code():
    assert importlib.metadata.version("rnnbench") == rnnbench.__version__


def test_what_is_missing_is_installed_from_where_rnnbench_came():
    """No registry has it, so its name installs nothing."""
    assert how_to_install("report") == "pip install -e '.[report]' in the checkout of rnnbench"
    texts = {file: file.read_text("utf-8") for folder in FOLDERS for file in (REPOSITORY / folder).rglob("*.py")}
    asked = {extra for text in texts.values() for extra in re.findall(r"how_to_install\(['\"]([\w-]+)", text)}
    assert "report" in asked
    assert asked <= set(PROJECT["project"]["optional-dependencies"])
    texts |= {file: file.read_text("utf-8") for file in (*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"))}
    assert [file for file, text in texts.items() if re.search(r"install '?rnnbench", text)] == []


def test_an_installed_package_says_so_too(tmp_path):
    """Of a copy without its pyproject.toml, as one in site-packages."""
    (tmp_path / "rnnbench").mkdir()
    shutil.copy(REPOSITORY / "rnnbench" / "installing.py", tmp_path / "rnnbench")
    code = "from rnnbench.installing import how_to_install; print(how_to_install('report'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (
        done.stdout == "pip install 'SOURCE[report]', where SOURCE is what rnnbench was installed from, a checkout or a wheel\n"
    )


def test_every_requirement_that_is_tried_at_its_oldest_has_a_lower_bound():
    """``make test-oldest`` installs these."""
    specification = importlib.util.spec_from_file_location("oldest", REPOSITORY / "tools" / "oldest" / "oldest.py")
    assert specification is not None
    assert specification.loader is not None
    tool = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(tool)
    project = PROJECT["project"]
    pins = tool.oldest([*project["dependencies"], *project["optional-dependencies"]["report"]])
    assert {"numpy==1.26", "numba==0.61"} <= set(pins)
    with pytest.raises(ValueError, match="'numpy' has no lower bound"):
        tool.oldest(["numpy"])
