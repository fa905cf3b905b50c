"""Try the oldest versions that pyproject.toml allows, in a new environment: ``python oldest.py FOLDER``.

Installs this checkout into FOLDER/venv with the lower bounds (``>=``) of its dependencies and of the extra ``report``.  Then
it checks numpy_ref and numba_cpu, runs a small suite and writes its page.  Needs package registries.  A wrong bound shows as
the command that failed, with its output.
"""

import os
import re
import subprocess
import sys
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]

SUITE = """
name = "oldest"
description = "small networks"
source = "tools/oldest"
settings = { rounds = 2, input = "noise" }
[[grid]]
cell = ["lstm", "gru"]
phase = ["forward", "step"]
T = 8
B = 2
I = 8
H = [8, 16]
"""


def oldest(requirements: Sequence[str]) -> list[str]:
    """Turn ``name>=1.2; marker`` into ``name==1.2; marker``; raises ValueError for a requirement without lower bound."""
    pinned = []
    for requirement in requirements:
        found = re.fullmatch(r"([\w-]+(?:\[[\w,-]+\])?)\s*>=\s*([\w.]+)[^;]*(;.*)?", requirement)
        if not found:
            raise ValueError(f"{requirement!r} has no lower bound; expected NAME>=VERSION")
        pinned.append(f"{found[1]}=={found[2]}{found[3] or ''}")
    return pinned


def main(folder: Path) -> int:
    """Install and try; return the exit code of the first failed command, else 0."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    pins = oldest([*project["dependencies"], *project["optional-dependencies"]["report"]])
    print("\n".join(pins), flush=True)
    venv.create(folder / "venv", with_pip=True)
    python = str(folder / "venv/bin/python")
    suite = folder / "oldest.toml"
    suite.write_text(SUITE)
    (folder / "caches").mkdir()
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "caches")}
    for command in (
        ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins],
        ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", str(CHECKOUT)],
        ["-m", "pip", "check"],
        ["-m", "rnnbench", "check", "numpy_ref", "numba_cpu", "--level", "smoke"],
        ["-m", "rnnbench", "run", str(suite), "--backends", "numpy_ref,numba_cpu", "-o", str(folder / "results")],
        ["-m", "rnnbench", "report", str(folder / "results"), "-o", str(folder / "report.html")],
        ["-m", "rnnbench", "report", str(folder / "results"), "--format", "csv", "-o", str(folder / "report.csv")],
    ):
        print(f"$ python {' '.join(command[:5])} ...", flush=True)
        done = subprocess.run([python, *command], cwd=folder, env=environment, check=False)
        if done.returncode:
            print(f"oldest versions: exit code {done.returncode} of python {' '.join(command)}", file=sys.stderr)
            return done.returncode
    print("oldest versions: all commands succeeded")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
