"""Make the folder for a first run on a GPU machine without network: python tools/gpu_run/make_folder.py [FOLDER]

It holds a wheel of this checkout, the wheels that such a machine lacks or has in unsuitable versions for numba_cuda, the
compiled kernels of ``rnnbench gpu`` and of the suite gpu-quick, and two scripts to run there:

    bash FOLDER/first_run.sh OUT    # at most 8 minutes: facts, gates, times; OUT/gpu-*.jsonl grows meanwhile
    bash FOLDER/quick.sh OUT        # rnnbench run gpu-quick and its table

The machine needs Linux x86-64, Python 3.12, CUDA 13.0 with nvcc, Numba, SciPy and psutil, and PyTorch and JAX to compare with.
Kernels are compiled for H100 and H200 and cached in build/cubins; the first time takes a quarter of an hour on two cores.
Exit codes: 0 done, 1 a step failed and says why, or the folder is too large, 2 usage.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
KERNELS = REPOSITORY / "build" / "cubins"

SUITE = "gpu-quick"
MAX_BYTES = 60_000_000
"""Largest size of the folder, in bytes."""

PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any")
PACKAGES = (
    *("array-api-compat", "cuda-bindings", "cuda-core", "cuda-pathfinder", "msgspec", "numba-cuda", "numpy"),
    *("typer", "rich", "annotated-doc", "markdown-it-py", "mdurl", "Pygments", "shellingham"),  # the command line's
)
"""Packages to bring, in the versions of constraints.txt; NumPy because numba-cuda does not support 2.5 (pyproject.toml)."""


def main(folder: Path) -> None:
    """Make the folder from scratch; raises SystemExit with the failed step."""
    if folder.exists():
        shutil.rmtree(folder)
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip"]
    call([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, REPOSITORY])
    platforms = [part for platform in PLATFORMS for part in ("--platform", platform)]
    options = ["--no-deps", "--only-binary", ":all:", "--python-version", PYTHON, *platforms, "--dest", wheels]
    call([*pip, "download", "--quiet", *options, *pinned(PACKAGES, (REPOSITORY / "constraints.txt").read_text())])
    collect_kernels(folder / "cubins")
    shutil.make_archive(str(folder / "cubins"), "gztar", folder, "cubins")  # a third of the size
    shutil.rmtree(folder / "cubins")
    for script in HERE.glob("*.sh"):
        shutil.copy(script, folder)
    (folder / "commit").write_text(commit() + "\n")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB")
    if size > MAX_BYTES:
        raise SystemExit(f"the folder has {size} bytes; expected at most {MAX_BYTES}")


def collect_kernels(folder: Path) -> None:
    """Compile missing kernels, and copy those of this checkout; the cache may hold others."""
    environment = os.environ | {"RNNBENCH_CUBINS": str(KERNELS)}
    call([sys.executable, "-m", "rnnbench", "cuda-warm", "--for", "first-run", "--for", SUITE], env=environment)
    from rnnbench.impls.numba_cuda import cubins

    folder.mkdir()
    (folder / cubins.COMPILERS).write_text(json.dumps(cubins.compilers()) + "\n")
    for path in KERNELS.glob("*.json"):
        description = json.loads(path.read_text())
        if description["sources"] == cubins.sources() and description["versions"] == cubins.versions():
            shutil.copy(path, folder)
            shutil.copy(path.with_name(f"{description['binary']['cubin']}.cubin"), folder)


def pinned(packages: tuple[str, ...], constraints: str) -> list[str]:
    """Return the lines of a constraints file for packages; raises SystemExit for a package that it does not pin."""
    lines = dict(re.findall(r"^([\w-]+)(==\S+)$", constraints, re.MULTILINE))
    missing = [name for name in packages if name not in lines]
    if missing:
        raise SystemExit(f"constraints.txt does not pin {', '.join(missing)}; expected a line NAME==VERSION of each")
    return [name + lines[name] for name in packages]


def commit() -> str:
    """Describe the checked-out commit, with "-dirty" if files were changed."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "no commit"


def call(command: list[object], **options: dict[str, str]) -> None:
    done = subprocess.run([str(part) for part in command], **options)
    if done.returncode:
        raise SystemExit(f"exit code {done.returncode}: {' '.join(map(str, command))}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=REPOSITORY / "build" / "gpu_run", help="default: build/gpu_run")
    main(parser.parse_args().folder.resolve())
