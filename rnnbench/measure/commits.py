"""Two commits measured in one run: what a backend gained or lost, with the machine's state shared by both.

The code of each commit is unpacked into a folder of its own, which the commit's worker processes find first on their
PYTHONPATH.  Both use the interpreter and the libraries of this environment, so that nothing but rnnbench differs, and
nothing is built or fetched.  A worker is the commit's own: it has to answer the requests of this version.
"""

import io
import shutil
import subprocess
import tarfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rnnbench.errors import ArgumentError
from rnnbench.measure.plan import Entry, Settings, plan_of_entries
from rnnbench.measure.run import Progress, run_into_new_file
from rnnbench.processes.scratch import scratch_folder
from rnnbench.suite.suite import Suite


def measure_commits(
    revisions: Sequence[str],
    backend: str,
    suite: Suite,
    settings: Settings,
    folder: Path,
    progress: Progress,
    command: Sequence[str],
) -> tuple[Path, list[str]]:
    """Measure a backend of two revisions of the git checkout that is the current folder, in one run.

    Gives the results file and the two names in it, ``BACKEND@COMMIT``; raises ArgumentError.
    """
    commits = [_commit(revision) for revision in revisions]
    if commits[0] == commits[1]:
        raise ArgumentError(f"{revisions[0]} and {revisions[1]} are both commit {commits[0][:10]}; expected two commits")
    with scratch_folder() as scratch:
        entries = {
            f"{backend}@{commit[:10]}": Entry(backend, {"runs": backend, "commit": commit}, unpack(commit, scratch / commit))
            for commit in commits
        }
        plan = plan_of_entries(suite, settings, entries, folder, command)
        run_into_new_file(plan, progress)
    return plan.path, list(entries)


def unpack(commit: str, folder: Path) -> Path:
    """Lay out a commit of rnnbench in ``folder`` as an installation would; gives the folder to import it from."""
    source, site = folder / "source", folder / "site"
    with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", commit))) as archive:
        archive.extractall(source, filter="data")
    project = _project(source / "pyproject.toml", commit)
    places = project["tool"]["setuptools"]["package-dir"]
    for package in sorted(places):  # a package before those within it
        shutil.copytree(source / places[package], site.joinpath(*package.split(".")))
    facts = site / "rnnbench-0.dist-info"  # before the installed one: the commit has its own list of backends
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: rnnbench\nVersion: 0\n")
    lines = []
    for group, named in project["project"]["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in named.items())]
    (facts / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return site


def _project(path: Path, commit: str) -> dict[str, Any]:
    project = tomllib.loads(path.read_text()) if path.is_file() else {}
    if project.get("project", {}).get("name") != "rnnbench":
        raise ArgumentError(f"commit {commit[:10]} is not of rnnbench; expected the current folder to be a checkout of it")
    return project


def _commit(revision: str) -> str:
    try:
        return _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").decode().strip()
    except subprocess.CalledProcessError:
        raise ArgumentError(f"{revision!r} is no commit here; expected a revision of the git checkout in this folder") from None


def _git(*arguments: str) -> bytes:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, check=True).stdout
    except FileNotFoundError:
        raise ArgumentError("--commits needs git; expected it on the PATH") from None
