"""The folder of a first run on a GPU's machine: what it holds; its wheels come before what the machine has.  About 5 s."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

TOOL = Path(__file__).resolve().parents[1] / "tools" / "gpu_run"

COMMAND = """
import os, sys
import numpy, renamed
print(sys.argv[1:], numpy.__file__, renamed.VALUE, os.listdir(os.environ["RNNBENCH_CUBINS"]))
"""


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_folder", TOOL / "make_folder.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_package_that_it_carries_is_pinned(tool: ModuleType) -> None:
    lines = tool.pinned(tool.PACKAGES, (tool.REPOSITORY / "constraints.txt").read_text())
    assert [line.partition("==")[0] for line in lines] == list(tool.PACKAGES)
    assert all(line.partition("==")[2] for line in lines)


def test_a_package_without_a_pin_is_named(tool: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"constraints\.txt does not pin numba; expected a line NAME==VERSION"):
        tool.pinned(("numpy", "numba"), "# numba==1\nnumpy==2.4.6\nnumba-cuda==0.30.4\n")


def test_it_carries_what_numba_cuda_bounds(tool: ModuleType) -> None:
    """The machine's own may be of any version."""
    from rnnbench.impls.numba_cuda.device import BOUNDED

    assert set(BOUNDED) <= set(tool.PACKAGES)


def test_it_carries_what_the_command_line_needs(tool: ModuleType) -> None:
    """All of it: wheels are installed there without their dependencies."""
    needed, seen = {"typer"}, set()
    while new := needed - seen:
        seen |= new
        requirements = [Requirement(line) for name in new for line in metadata.requires(name) or ()]
        needed |= {one.name.lower() for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})}
    assert needed <= {name.lower() for name in tool.PACKAGES}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One whose wheels hold a command that says what it sees, another NumPy and a .pth file."""
    made = tmp_path / "folder"
    (made / "wheels").mkdir(parents=True)
    for script in TOOL.glob("*.sh"):
        shutil.copy(script, made)
    (made / "commit").write_text("abc\n")
    (made / "cubins").mkdir()
    (made / "cubins" / "kernel.json").touch()
    shutil.make_archive(str(made / "cubins"), "gztar", made, "cubins")
    write_wheel(made / "wheels", "rnnbench", {"rnnbench/__init__.py": "", "rnnbench/__main__.py": COMMAND})
    write_wheel(
        made / "wheels", "numpy", {"numpy/__init__.py": "", "at_start.pth": "import at_start\n", "at_start.py": RENAMING}
    )
    return made


RENAMING = "import sys, types; sys.modules['renamed'] = types.SimpleNamespace(VALUE='from a .pth file')\n"


def write_wheel(folder: Path, name: str, files: dict[str, str]) -> None:
    about = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{name}-1-py3-none-any.whl", "w") as wheel:
        for path, content in (files | {f"{name}-1.dist-info/{path}": text for path, text in about.items()}).items():
            wheel.writestr(path, content)


@pytest.mark.parametrize(
    ("script", "asked"), [("first_run.sh", "['gpu', '--minutes', '7', '-o',"), ("quick.sh", "['run', 'gpu-quick', '-o',")]
)
def test_the_wheels_come_first_and_nothing_stays_of_them(folder: Path, tmp_path: Path, script: str, asked: str) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "TMPDIR": str(temporary),
    }
    checkout = tmp_path / "checkout"  # in which it may be called, and whose folders are not laid out as the wheel's
    (checkout / "rnnbench").mkdir(parents=True)
    (checkout / "rnnbench" / "__init__.py").write_text("raise SystemExit('of the checkout')")
    done = subprocess.run(
        ["bash", folder / script, tmp_path / "out"], env=environment, capture_output=True, text=True, cwd=checkout, timeout=300
    )
    assert done.returncode == 0, done.stderr
    line = done.stdout.splitlines()[0]
    assert line.startswith(asked)
    assert f"{tmp_path / 'out'}" in line
    assert f"{temporary}/" in line  # NumPy's
    assert "from a .pth file" in line
    assert line.endswith("['kernel.json']")
    assert list(temporary.iterdir()) == []
    assert "commit abc" in (tmp_path / "out" / "environment.txt").read_text()


def test_of_the_kernels_only_those_of_this_checkout_are_carried(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba_cuda", reason="numba-cuda is missing: pip install 'rnnbench[cuda-offline]'")
    from rnnbench.impls.numba_cuda import cubins

    kept = tmp_path / "kept"
    kept.mkdir()
    monkeypatch.setattr(cubins, "compilers", lambda: {"nvvm": [2, 0]})
    for name, sources in {"ours": cubins.sources(), "older": "another hash"}.items():
        described = {"sources": sources, "versions": cubins.versions(), "binary": {"cubin": f"{name}-code"}}
        (kept / f"{name}.json").write_text(json.dumps(described))
        (kept / f"{name}-code.cubin").touch()
    asked: list[list[str]] = []
    monkeypatch.setattr(tool, "KERNELS", kept)
    monkeypatch.setattr(tool, "call", lambda command, env: asked.append([*command, env["RNNBENCH_CUBINS"]]))
    tool.collect_kernels(tmp_path / "folder")
    carried = {path.name for path in (tmp_path / "folder").iterdir()}
    assert carried == {"ours.json", "ours-code.cubin", cubins.COMPILERS}
    assert asked == [[sys.executable, "-m", "rnnbench", "cuda-warm", "--for", "first-run", "--for", "gpu-quick", str(kept)]]
