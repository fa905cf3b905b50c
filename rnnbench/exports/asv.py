"""Export results to a results folder of asv."""

import datetime
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rnnbench.compare.intervals import median_interval
from rnnbench.errors import StoreError
from rnnbench.exports.naming import one_line
from rnnbench.results.disk import save
from rnnbench.results.reader import Contents
from rnnbench.results.rows import Time
from rnnbench.results.valid import Key, medians, reasons, times

ASV_RESULTS, ASV_BENCHMARKS, ASV_MACHINE = 2, 2, 1
"""Versions of the file formats of asv 0.6."""

ASV_COLUMNS = (
    "result",
    "params",
    "version",
    "started_at",
    "duration",
    "stats_ci_99_a",
    "stats_ci_99_b",
    "stats_q_25",
    "stats_q_75",
    "stats_number",
    "stats_repeat",
    "samples",
    "profile",
)


def write_asv(runs: Sequence[Contents], folder: Path) -> list[Path]:
    """Write runs into an asv results folder; return the paths of ``<machine>/<commit>-<environment>.json``.

    A case becomes a benchmark with the backend as its parameter; null marks a failure, NaN a benchmark that did not run.
    Other benchmarks in the folder are kept; of duplicates the run that started last counts.  asv's date, that of the
    commit, is the start of the run, which does not know the commit's date.
    Raises StoreError for a run without a commit or times, and for a folder with files of another format.
    """
    written: dict[Path, None] = {}
    for contents in sorted(runs, key=lambda one: one.run.started):
        measured, excluded = times(contents), reasons(contents)
        if not measured:
            raise StoreError(f"{contents.path} has no time that counts; expected some to export")
        commit = contents.run.environment.get("commit")
        if not isinstance(commit, str) or not re.fullmatch("[0-9a-f]{8,64}", commit):
            raise StoreError(f"{contents.path} has commit {commit!r}; asv needs one: a run from a git checkout")
        results = _asv_results(contents, measured, excluded)
        head = _asv_head(contents, commit)
        machine = head["params"]["machine"]
        path = folder / machine / f"{commit[:8]}-{head['env_name']}.json"
        benchmarks = {name: _asv_benchmark(name, row) for name, row in results.items()}
        stored = _loaded(path, ASV_RESULTS)
        if stored and (stored.get("result_columns") != list(ASV_COLUMNS) or stored.get("commit_hash") != commit):
            raise StoreError(f"{path} holds results of another commit or form; expected a folder that asv 0.6 can go on with")
        stored_benchmarks = _loaded(folder / "benchmarks.json", ASV_BENCHMARKS)
        _save(path, head | {"results": stored.get("results", {}) | results})
        _save(folder / "benchmarks.json", stored_benchmarks | benchmarks | {"version": ASV_BENCHMARKS})
        if not (folder / machine / "machine.json").exists():
            _save(folder / machine / "machine.json", head["params"] | {"version": ASV_MACHINE})
        written[path] = None
    return list(written)


def _asv_results(contents: Contents, measured: Mapping[Key, dict[int, Time]], excluded: Mapping[Key, str]) -> dict[str, list]:
    """Return asv's columns for each case; a list holds one value per backend."""
    names = [name for name, facts in contents.run.backends.items() if "unavailable" not in facts]
    names = list(dict.fromkeys([*names, *(name for _, name in measured)]))
    started = _milliseconds(contents.run.started)
    results = {}
    for case in dict.fromkeys(case for case, _ in [*measured, *excluded]):
        spaced = case.label().split(" ", 2)
        name = ".".join([*spaced[:2], spaced[2].replace(" ", "_")]) if len(spaced) > 2 else case.label()
        columns: dict[str, Any] = {
            column: [None] * len(names) for column in ASV_COLUMNS if column.startswith(("result", "stats"))
        }
        samples: list[Any] = [None] * len(names)
        for place, backend in enumerate(names):
            key = (case, backend)
            if key not in measured:
                columns["result"][place] = math.nan if excluded.get(key, "unsupported") == "unsupported" else None
                continue
            seconds = medians(measured[key])
            median, low, high, _ = median_interval(seconds, 0.99)
            figures = (
                median,
                low,
                high,
                *np.percentile(seconds, [25, 75]).tolist(),
                next(iter(measured[key].values())).loops,
                len(seconds),
            )
            for column, figure in zip(("result", *ASV_COLUMNS[5:11]), figures, strict=True):
                columns[column][place] = figure
            samples[place] = seconds
        row = columns | {"params": [[repr(backend) for backend in names]], "version": case.key(), "started_at": started}
        row |= {"duration": None, "samples": samples, "profile": None}
        results[one_line(name)] = [row[column] for column in ASV_COLUMNS]
    return results


def _asv_head(contents: Contents, commit: str) -> dict[str, Any]:
    """Return an asv result's facts about machine, environment and commit, with names safe for files."""
    environment = contents.run.environment
    facts = {
        "machine": _file_name(environment.get("machine")),
        "os": environment.get("os"),
        "arch": environment.get("architecture"),
        "cpu": environment.get("cpu"),
        "num_cpu": environment.get("cores"),
        "ram": environment.get("memory_gib"),
    }
    python = one_line(environment.get("python", ""))
    versions = environment.get("versions")
    requirements = (
        {one_line(name): one_line(version) for name, version in versions.items()} if isinstance(versions, dict) else {}
    )
    words = ["rnnbench", f"py{python}", *(f"{name}{version}" for name, version in requirements.items() if name != "rnnbench")]
    return {
        "commit_hash": commit,
        "env_name": _file_name("-".join(words)),
        "date": _milliseconds(contents.run.started),
        "params": {name: "" if value is None else one_line(value) for name, value in facts.items()} | {"python": python},
        "python": python,
        "requirements": requirements,
        "env_vars": {},
        "result_columns": list(ASV_COLUMNS),
        "durations": {},
        "version": ASV_RESULTS,
    }


def _asv_benchmark(name: str, row: list) -> dict[str, Any]:
    """Return asv's description of a benchmark, which asv can show but not run."""
    stored = dict(zip(ASV_COLUMNS, row, strict=True))
    return {
        "name": name,
        "code": "",
        "type": "time",
        "unit": "seconds",
        "param_names": ["backend"],
        "params": stored["params"],
        "version": stored["version"],
        "timeout": 0,
    }


def _file_name(value: object) -> str:
    """Return a file or folder name of letters, digits, dots and dashes; a long one ends in a digest."""
    text = str(value)
    name = re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.") or "unknown"
    return name if len(name) <= 100 else f"{name[:80]}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _milliseconds(started: str) -> int:
    try:
        moment = datetime.datetime.fromisoformat(started)
    except ValueError:
        raise StoreError(f"the run started {started!r}; expected a time in ISO 8601") from None
    return int(moment.timestamp() * 1000)


def _loaded(path: Path, version: int) -> dict[str, Any]:
    """Load a JSON object of asv, empty if there is no file; raises StoreError for another version."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"cannot read {path}: {error}") from error
    found = content.get("version") if isinstance(content, dict) else None
    if found != version:
        raise StoreError(f"{path} has asv format {found}; this version writes format {version}")
    return content


def _save(path: Path, content: dict[str, Any]) -> None:
    save(path, [json.dumps(content).encode(), b"\n"])
