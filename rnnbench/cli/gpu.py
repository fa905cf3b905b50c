"""``rnnbench gpu``: everything that a new GPU is asked first, in one command, within a time limit."""

import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rnnbench.cli import terminal
from rnnbench.cli.common import CASES_FAILED, CHECK_FAILED, NUMBER, OK
from rnnbench.errors import BackendUnavailable, StoreError

SHARES = {"facts": 0.08, "latency": 0.08, "gates": 0.25, "timings": 0.2, "peers": 0.14, "graphs": 0.13, "sanitizer": 1.0}
"""What of the whole time a stage may take at most; the last takes what is left, at least an eighth."""

_ENDING_LIMIT = 5.0
"""Seconds that a stage that is asked to end has, before it is killed."""


def gpu(
    minutes: Annotated[float, typer.Option(parser=NUMBER, metavar="N", help="The time that all of it may take.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="DIR", help="Where the results go.")] = "results",
) -> int:
    """Try a new GPU: facts, barriers, cuDNN, checks, sanitizer, times.

    Examples:
    $ rnnbench gpu --minutes 20
    """
    _require_gpu()
    path = _new_file(Path(output))
    run_stages(path, minutes)
    rows = _write_page(path)
    terminal.show(f"results: {path}\npage: {path.with_suffix('.md')}")
    if any(row.get("passed") is False for row in rows):
        return CHECK_FAILED
    return CASES_FAILED if any(row["what"] == "ended" and row["how"] != "done" for row in rows) else OK


def run_stages(path: Path, minutes: float, stages: Sequence[str] = tuple(SHARES)) -> None:
    """Append what each stage finds to the file, and how it ended: done, out of time, failed, or not reached."""
    deadline = time.monotonic() + 60 * minutes
    for stage in stages:
        left = deadline - time.monotonic()
        limit = min(left, SHARES[stage] * 60 * minutes)
        terminal.tell(f"{stage}, at most {max(limit, 0):.0f} s")
        how = _run_stage(stage, path, limit) if left > 0 else "not reached"
        with path.open("a") as file:
            file.write(json.dumps({"stage": stage, "what": "ended", "how": how}) + "\n")
        _write_page(path)


def _write_page(path: Path) -> list[dict[str, Any]]:
    """The page of what was found so far, beside it; gives the findings."""
    from rnnbench.results.disk import save

    rows = [json.loads(line) for line in path.read_text().splitlines()]
    save(path.with_suffix(".md"), [text(rows).encode()])
    return rows


def _run_stage(stage: str, path: Path, limit: float) -> str:
    """The child writes into the file itself, so that all it found stays when it is stopped."""
    command = [sys.executable, "-m", "rnnbench.impls.numba_cuda.bringup", stage]
    with path.open("a") as found, tempfile.TemporaryFile("w+") as complaints:
        child = subprocess.Popen(command, stdout=found, stderr=complaints, start_new_session=True)
        try:
            child.wait(limit)
        except subprocess.TimeoutExpired:
            return "out of time"
        finally:
            _end(child)
            _mend(path)
        complaints.seek(0)
        said = complaints.read().strip().splitlines()
    return "done" if child.returncode == 0 else f"failed: {said[-1] if said else f'exit code {child.returncode}'}"


def _mend(path: Path) -> None:
    """Cut off a line that was not written to its end."""
    with path.open("rb+") as file:
        file.truncate(file.read().rfind(b"\n") + 1)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child's whole process group, if it still runs."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if child.poll() is not None:
            return
        os.killpg(child.pid, sign)
        try:
            child.wait(_ENDING_LIMIT)
        except subprocess.TimeoutExpired:
            continue


def _require_gpu() -> None:
    from rnnbench.impls.numba_cuda import device

    reason = "the simulator is no GPU: unset RNNBENCH_SIMULATE_CUDA" if device.asked_to_simulate() else device.unavailable()
    if reason:
        raise BackendUnavailable(f"numba_cuda cannot run here: {reason}")


def _new_file(folder: Path) -> Path:
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    path = folder / f"gpu-{stamp}.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.touch(exist_ok=False)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error
    return path


def text(rows: list[dict[str, Any]]) -> str:
    """The page: a section per stage, a table per kind of finding."""
    parts = ["# First run on a GPU\n"]
    for stage in dict.fromkeys(row["stage"] for row in rows):
        of_stage = [row for row in rows if row["stage"] == stage]
        parts.append(f"## {stage}: {next((row['how'] for row in of_stage if row['what'] == 'ended'), 'cut off')}\n")
        kinds = dict.fromkeys(row["what"] for row in of_stage if row["what"] != "ended")
        parts += [_table(what, [row for row in of_stage if row["what"] == what]) for what in kinds]
    return "\n".join(parts)


def _table(what: str, rows: list[dict[str, Any]]) -> str:
    names = [name for name in rows[0] if name not in ("stage", "what")]
    lines = [f"{what}\n", f"| {' | '.join(names)} |", "| " + "--- | " * len(names)]
    lines += [f"| {' | '.join(_cell(row.get(name)) for name in names)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    shown = f"{value:.3g}" if isinstance(value, float) else str(value)
    return " ".join(shown.split()).replace("|", "\\|")
