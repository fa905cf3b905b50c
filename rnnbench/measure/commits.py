"""Measure a backend of two commits in one run, so that both share the state of the machine.

Each commit is unpacked into its own folder, which comes first on the PYTHONPATH of its workers.  Both use the interpreter
and libraries of this environment: only rnnbench differs, and nothing is built or downloaded.  Each commit runs its own
worker code, which must answer the requests of this version.
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
    """Measure a backend at two revisions of the git checkout in the current folder.

    Returns the results file and the two names in it, ``BACKEND@COMMIT``.  Raises ArgumentError.
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
    """Lay out a commit of rnnbench in ``folder`` like an installation; return the folder to import it from."""
    source, site = folder / "source", folder / "site"
    with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", commit))) as archive:
        archive.extractall(source, filter="data")
    project = _project(source / "pyproject.toml", commit)
    package_folders = project["tool"]["setuptools"]["package-dir"]
    for package in sorted(package_folders):  # a package before its subpackages
        shutil.copytree(source / package_folders[package], site.joinpath(*package.split(".")))
    metadata = site / "rnnbench-0.dist-info"  # found before the installed one: a commit has its own backends
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: rnnbench\nVersion: 0\n")
    lines = []
    for group, entries in project["project"]["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
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
