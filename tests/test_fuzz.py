"""100 mutated results files through every command that reads them, and 100 command lines: no traceback, nothing endless.

``--fuzz-files 10000 --fuzz-commands 5000`` for more.  What would start processes or measure is ended where it begins; in this
process all else is real.  Each call has at most ten seconds of processor time and 500 MB.
"""

import random
import resource
import shutil
import sys
import time
import warnings
from pathlib import Path

import pytest
from helpers import fuzzing
from helpers.stored_results import write
from typer.main import get_command

from rnnbench.cli import main
from rnnbench.errors import ArgumentError
from rnnbench.machine.facts import machine_name
from rnnbench.results.rows import End, Failure, Gate, Memory, Startup, Truncation
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case

SEED = 20261128
MAX_SECONDS, MAX_BYTES = 10.0, 500 * 10**6

READERS = [
    "show {0}",
    "show {1}",
    "export csv {0}",
    "export pyperf {0}",
    "export bencher {0}",
    "export asv {0} -o {2}/asv",
    "export parquet {0} -o {2}/times.parquet",
    "merge {0} {1}/good.jsonl -o {2}/merged",
    "compare {0} {1}/good.jsonl",
    "compare {1}/good.jsonl {0} --json",
    "compare {0} --backends numpy_ref numba_cpu",
    "compare {1}/good.jsonl {1}/good.jsonl --aa {0}",
    "versus {0}",
    "best --regret {0}",
    "best --cell lstm -T 20 -B 4 -I 8 -H 8 --results {1}",
    "run --resume {0} --dry-run",
    "train {0}",
    "sample {0}",
    "report {0} --format csv",
    "report {0} --format md",
    "report {0} --format json",
    "report {0} -o {2}/report.html",
    "report {0} {1}/good.jsonl -o {2}/side.html",
    "report --history {1} -o {2}/history.html",
]
"""Of a mutated file, the folder that it lies in beside a good one, and a folder to write to."""

SLOW = 5
"""The last commands make pages, a second each: every file goes through one of them in turn."""


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A small run with every kind of row."""
    cases = [Case("lstm", phase, T, 4, 8, 8) for phase in ("forward", "step") for T in (16, 32)]
    cases.append(Case("gru", "tbptt", 32, 4, 8, 8, window=8))
    backends = ("numpy_ref", "numba_cpu")
    times: dict[tuple[str, Case], float | list[float]] = {
        (name, case): [1e-3 * (1 + place) * (1 + case.T + 0.01 * number) for number in range(6)]
        for place, name in enumerate(backends)
        for case in cases
    }
    path = tmp_path_factory.mktemp("good") / "good.jsonl"
    versions = {"versions": {"rnnbench": "0.1.0", "numpy": "2"}, "cpu": "a", "os": "b", "python": "3.11", "dirty": False}
    settings = {"rounds": 6, "samples": 1, "seed": 0, "input": "noise", "time_limit": 60.0, "vain_repeats": 3}
    about = {"numba_cpu": {"device": "cpu"}}
    write(path, times, machine=machine_name(), commit="a" * 40, environment=versions, settings=settings, about=about)
    with Writer(path, resume=True) as writer:
        writer.append_all(
            [
                *(Gate(case, name, True, {"y": (1e-7, 3e-7), "dx": (None, 1e-7)}, 0.1) for case in cases for name in backends),
                *(Startup(case, name, 0, True, 0.5, 0.1, 0.2) for case in cases[:1] for name in backends),
                *(Memory(case, name, 10**6) for case in cases for name in backends),
                Truncation(cases[-1], 0.1, {"weight_hh_l0": 0.1}),
                Failure(cases[0], "torch_nn", "time", "crashed", "killed", 1),
                End("2026-01-01T00:01:00+00:00", 60.0, 2.5),
            ]
        )
    return path


@pytest.fixture(scope="module", autouse=True)
def loaded(good, tmp_path_factory):
    """The libraries are imported before anything is timed, and their memory is not counted."""
    folder = tmp_path_factory.mktemp("loaded")
    (folder / "one").mkdir()
    shutil.copy(good, folder / "one" / "good.jsonl")
    shutil.copy(good, folder / "one" / "file.jsonl")
    with pytest.MonkeyPatch.context() as patched:
        forbid(patched)
        for command in READERS:
            outcome(command.format(folder / "one" / "file.jsonl", folder / "one", folder).split())


def forbid(patched: pytest.MonkeyPatch) -> None:
    """What measures or starts processes is a clear error of its own."""

    def would_run(*_, **__):
        raise ArgumentError("would run")

    import rnnbench.check
    import rnnbench.check.mutation_test
    from rnnbench.cli import backends, gpu, machine
    from rnnbench.impls.numba_cuda import ahead, audit
    from rnnbench.measure import commits, plan, run
    from rnnbench.selftests import aa, interval_coverage, siblings, store_speed
    from rnnbench.training import run as training

    for module, name in (
        (rnnbench.check, "check_all"),
        (rnnbench.check.mutation_test, "self_test"),
        (run, "run"),
        (run, "run_into_new_file"),
        (training, "train"),
        (commits, "measure_commits"),
        (plan, "new_plan"),
        (machine, "look_at_machine"),
        (gpu, "run_stages"),
        (audit, "audit"),
        (ahead, "compile_all"),
        (aa, "measure"),
        (siblings, "measure"),
        (store_speed, "measure"),
        (interval_coverage, "coverage"),
        (backends, "_facts"),
    ):
        patched.setattr(module, name, would_run)


def outcome(arguments: list[str]) -> str | None:
    """What is wrong with how a command ended, or None."""
    before, began = peak(), time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what libraries say of numbers that nobody measured
            code = main.main(arguments)
    except SystemExit as end:
        code = end.code
    except BaseException as error:  # whatever it is, it is a fault
        if isinstance(error, KeyboardInterrupt):
            raise
        import traceback

        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:200]} at {where.filename.rpartition('/')[2]}:{where.lineno}"
    took, grown = time.process_time() - began, peak() - before
    if code not in (0, 1, 2, 3, 4):
        return f"exit code {code!r}"
    if took > MAX_SECONDS:
        return f"took {took:.1f} s"
    return f"took {grown / 1e6:.0f} MB" if grown > MAX_BYTES else None


def peak() -> int:
    """Bytes that this process held at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def test_mutated_results_files_end_no_command_with_a_traceback(good, tmp_path, monkeypatch, capsys, pytestconfig):
    forbid(monkeypatch)
    content, faults = good.read_bytes(), {}
    folder = tmp_path / "files"
    folder.mkdir()
    shutil.copy(good, folder / "good.jsonl")
    file, output = folder / "file.jsonl", tmp_path / "output"
    fast = READERS[:-SLOW]
    for number in range(pytestconfig.getoption("fuzz_files")):
        written = fuzzing.mutated(content, random.Random(SEED + number))
        for command in (*fast, READERS[-1 - number % SLOW]):
            file.write_bytes(written)
            wrong = outcome(command.format(file, folder, output).split())
            capsys.readouterr()
            if wrong:
                faults.setdefault(f"{command}: {wrong}", []).append(number)
        shutil.rmtree(output, ignore_errors=True)
        (folder / "file.jsonl.bad").unlink(missing_ok=True)
    assert {fault: (len(numbers), numbers[:3]) for fault, numbers in faults.items()} == {}


def test_command_lines_that_nobody_meant_end_without_a_traceback(good, tmp_path, monkeypatch, capsys, pytestconfig):
    forbid(monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "empty").touch()
    shutil.copy(good, tmp_path / "results" / "good.jsonl")
    places = [tmp_path / name for name in ("results", "results/good.jsonl", "empty", "absent")]
    faults = {}
    for number in range(pytestconfig.getoption("fuzz_commands")):
        arguments = fuzzing.command_line(parsers(), places, random.Random(SEED + number))
        wrong = outcome(arguments)
        capsys.readouterr()
        if wrong:
            faults.setdefault(f"{arguments[0][:20]}: {wrong}", []).append(arguments)
    assert {fault: (len(lines), lines[0]) for fault, lines in faults.items()} == {}


def parsers() -> dict[str, dict[str, list[str]]]:
    """Every command with its options, and what it cannot do without."""
    commands = get_command(main.application()).commands
    return {
        name: {
            "options": [option for parameter in sub.params for option in parameter.opts if option.startswith("-")],
            "needed": ["--dry-run", "--backends", "numpy_ref"] if name == "run" else [],
        }
        for name, sub in commands.items()
    }
