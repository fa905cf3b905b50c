"""The command line: ``rnnbench`` and ``python -m rnnbench``.

Results go to standard output, progress to standard error.  Exit codes: 0 ok, 1 a check failed, 2 usage, 3 some cases
failed, 4 the environment (a missing library, an unwritable folder or output, another system), 130 interrupted.
"""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import rnnbench
from rnnbench.cli import terminal
from rnnbench.cli.backends import backends
from rnnbench.cli.best import add_arguments as add_best_arguments
from rnnbench.cli.common import CASES_FAILED, CHECK_FAILED, ENVIRONMENT, INTERRUPTED, OK, USAGE
from rnnbench.cli.export import FORMATS, export
from rnnbench.cli.machine import machine
from rnnbench.cli.merge import merge
from rnnbench.cli.plan import add_arguments as add_plan_arguments
from rnnbench.cli.plan import dry_run, plan_of
from rnnbench.cli.report import add_arguments as add_report_arguments
from rnnbench.cli.show import show
from rnnbench.cli.suites import suites
from rnnbench.cli.template import template
from rnnbench.cli.terminal import Progress
from rnnbench.errors import (
    ArgumentError,
    BackendUnavailable,
    MissingLibrary,
    OutputError,
    ReferenceFailed,
    RnnbenchError,
    StoreError,
    UnsupportedSystem,
)
from rnnbench.networks.registry import GROUP, registered
from rnnbench.processes.environment import named
from rnnbench.processes.platforms import require_supported


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code.  What a user did wrong is one line on standard error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with terminal.prepared():
            require_supported()
            try:
                options = _parser().parse_args(given)
                options.given = given
                return options.command(options)
            finally:
                terminal.flush()  # here, where a reader that has gone is no error
    except OutputError as error:
        terminal.discard()
        return _complain(error, ENVIRONMENT)
    except (BackendUnavailable, MissingLibrary, ReferenceFailed, StoreError, UnsupportedSystem) as error:
        return _complain(error, ENVIRONMENT)
    except RnnbenchError as error:
        return _complain(error, USAGE)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output, a pager for example, has gone
        terminal.discard()
        return OK


def check(options: argparse.Namespace) -> int:
    """Check every output, gradient and promise of backends against the float64 reference."""
    from rnnbench import check as harness

    if options.self_test:
        return _self_test(options)
    names, todo = _to_check(options)
    if options.gradients_only:
        todo = harness.numbers_only(todo)
    if options.device == "simulator":
        os.environ["RNNBENCH_SIMULATE_CUDA"] = "1"  # for the processes that import the backends
    progress = Progress("checking")

    def unavailable(name: str, error: BackendUnavailable) -> None:
        progress.clear()
        terminal.tell(f"not checked: {error}")

    interrupted = False
    time_limit = options.time_limit or harness.TIME_LIMIT
    told = None if options.backends else unavailable
    try:
        reports = harness.check_all(
            names, todo, time_limit=time_limit, progress=progress.count, unavailable=told, env=named(options.env)
        )
    except harness.Interrupted as interrupt:
        reports, interrupted = interrupt.reports, True
    progress.clear()
    if options.json:
        names_asked = ("level", "cell", "dtype", "random", "seed", "device", "gradients_only")
        asked = {name: getattr(options, name) for name in names_asked}
        asked |= {"level": _level(options), "time_limit": time_limit, "interrupted": interrupted}
        terminal.show_document(f"{harness.json_document(reports, asked, progress.seconds)}\n".encode())
    else:
        terminal.show(harness.text(reports, progress.seconds))
    if interrupted:
        return _complain("interrupted; what is printed was known by then", INTERRUPTED)
    return OK if reports and all(report.passed for report in reports) else CHECK_FAILED


def _to_check(options: argparse.Namespace) -> tuple[list[str], list[Any]]:
    """The names of backends and their trials."""
    from rnnbench.check import levels

    if options.seed is not None and options.random is None:
        raise ArgumentError(f"--seed is {options.seed} without --random; expected both")
    if options.device == "simulator":
        if options.random is not None:
            raise ArgumentError(f"--random is {options.random} with --device simulator; expected none: it takes too long")
        return options.backends or ["numba_cuda"], levels.simulator_trials(_level(options), options.cell, options.dtype)
    names = list(dict.fromkeys(options.backends)) or sorted(registered(GROUP))
    todo = levels.trials(_level(options), options.cell, dtypes=options.dtype)
    if options.random is not None:
        todo += levels.random_trials(options.random, options.seed or 0, options.cell, options.dtype)
    return names, todo


def _level(options: argparse.Namespace) -> str:
    return options.level or "standard"


def _self_test(options: argparse.Namespace) -> int:
    """Check the harness itself: every planted bug has to be found."""
    from rnnbench.check.mutation_test import self_test

    for name in ("backends", "cell", "dtype", "level", "random", "seed", "gradients_only", "time_limit", "env", "json"):
        value = getattr(options, name)
        if value not in (None, [], False):
            shown = "the backend" if name == "backends" else f"--{name.replace('_', '-')}"
            raise ArgumentError(f"{shown} is {value!r} with --self-test; expected none: it checks the harness alone")
    progress = Progress("planting bugs")
    result = self_test(progress.count)
    progress.clear()
    terminal.show(result.table())
    return OK if result.passed else CHECK_FAILED


def run(options: argparse.Namespace) -> int:
    """Check and time the cases of a suite on all backends."""
    from rnnbench.measure.plan import resumed_plan
    from rnnbench.measure.run import run as carry_out
    from rnnbench.results.reader import quarantine_file
    from rnnbench.results.writer import Writer

    if options.resume:
        _refuse_beside_resume(options)
    plan = resumed_plan(Path(options.resume)) if options.resume else plan_of(options)
    if options.dry_run:
        dry_run(plan)
        return OK
    for problem in plan.problems:
        terminal.tell(problem)
    progress = Progress("running")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Writer(plan.path, resume=plan.resumes) as writer:
        for number in writer.moved:
            terminal.tell(f"{plan.path.name}:{number}: moved to {quarantine_file(plan.path)}")
        if not plan.resumes:
            writer.append(plan.run)
        try:
            carry_out(plan, writer, progress.unit)
        except KeyboardInterrupt:
            progress.clear()
            line = (
                f"interrupted; all that was measured is kept. Go on with: rnnbench run --resume {shlex.quote(str(plan.path))}"
            )
            return _complain(line, INTERRUPTED)
    progress.clear()
    return _summary(plan.path)


def report(options: argparse.Namespace) -> int:
    """Write the report of a results file as a page, text or charts, or a page of several side by side or of asv's results."""
    from rnnbench.cli.report import report

    return report(options, _reports())


def bars(options: argparse.Namespace) -> int:
    """Compare one backend with the best of its peers at every point of a results file."""
    reports = _reports()
    peers = options.peers.split(",") if options.peers else None
    results = _one_results_file(Path(options.results))
    given = {("float32", threads): peak for threads, peak in options.roof}
    terminal.show(reports.bar_text(reports.to_pandas(results), options.backend, peers, given or _stored_roofs(results.parent)))
    return OK


def best(options: argparse.Namespace) -> int:
    """Name the fastest backend for a shape, from stored results or measured now."""
    from rnnbench.cli.best import best as answer

    return answer(options, Progress("measuring"))


def compare(options: argparse.Namespace) -> int:
    """Compare two results files, two backends of one, or two commits, case by case: is it slower than before?"""
    from rnnbench.cli.compare import compare

    return compare(options, Progress("measuring"))


def cuda_audit(options: argparse.Namespace) -> int:
    """Compile the CUDA kernels to machine code, without a GPU, and check it: registers, spills, memory, instructions."""
    from rnnbench.cli.cuda_audit import cuda_audit

    return cuda_audit(options, Progress("compiling"))


def cuda_warm(options: argparse.Namespace) -> int:
    """Compile the CUDA kernels that a run needs before there is a GPU, in parallel, and keep them on disk."""
    from rnnbench.cli.cuda_warm import cuda_warm

    return cuda_warm(options, Progress("compiling"))


def gpu(options: argparse.Namespace) -> int:
    """Ask a new GPU everything at once: facts, barriers, cuDNN, the check at full sizes, the sanitizer, times."""
    from rnnbench.cli.gpu import gpu

    return gpu(options)


def self_test(options: argparse.Namespace) -> int:
    """Try what comparisons rest on: intervals on simulated times, backends compared with themselves, the store's speed."""
    from rnnbench.cli.self_test import aa, siblings, statistics, store

    if options.what in ("aa", "siblings"):
        return {"aa": aa, "siblings": siblings}[options.what](options, Progress("measuring"))
    return store(options) if options.what == "store" else statistics(options)


def _stored_roofs(folder: Path) -> dict[tuple[str, int], float]:
    """What ``rnnbench machine`` measured and stored beside results, in GFLOP/s."""
    from rnnbench.machine.snapshot import load_roofs

    roofs = load_roofs(folder)
    return {(roof.name, roof.threads): roof.best / 1e9 for roof in roofs.multiply_adds} if roofs else {}


def _refuse_beside_resume(options: argparse.Namespace) -> None:
    """Raise ArgumentError for an option that a resumed run would pass over."""
    for name in (
        "suite",
        "backends",
        "quick",
        "rigorous",
        "rounds",
        "input",
        "text",
        "seed",
        "time_limit",
        "output",
        "filter",
        "threads",
        "fit",
        "affinity",
        "env",
        "dry_run",
    ):
        value = getattr(options, name)
        if value not in (None, False):
            shown = name if name == "suite" else f"--{name.replace('_', '-')}"
            raise ArgumentError(f"{shown} is {value!r} with --resume; expected none: the results file names its own")


def _summary(path: Path) -> int:
    from rnnbench.results.reader import read
    from rnnbench.results.rows import End, Failure
    from rnnbench.text import duration

    _, run, rows, _ = read(path)
    end = rows[-1]
    if isinstance(end, End) and end.overhead is not None:
        terminal.note(f"running took {duration(end.seconds)}, {end.overhead:.0%} of it for neither samples nor checks")
    failures = [row for row in rows if isinstance(row, Failure) and row.reason != "unsupported"]
    try:
        terminal.show(_reports().summary_text(path))
    except MissingLibrary as error:
        terminal.tell(f"no summary: {error}")
    terminal.show(f"results: {path}")
    harmful = any("reason" in facts for facts in run.backends.values())
    return CASES_FAILED if failures or harmful else OK


def _one_results_file(path: Path) -> Path:
    """The file itself, or the newest one of a folder."""
    from rnnbench.results.reader import results_files

    return results_files(path)[-1]


def _reports() -> Any:
    """The report package; what needs a library that the core does not raises MissingLibrary when it is used."""
    from rnnbench import reports

    return reports


def _complain(error: object, code: int) -> int:
    terminal.tell(error)
    return code


class _Parser(argparse.ArgumentParser):
    def _print_message(self, message: str, file: Any = None) -> None:
        """Help and version, whose own method says nothing of an output that is full."""
        terminal.show(message.removesuffix("\n"))

    def error(self, message: str) -> NoReturn:
        """One line instead of argparse's usage block."""
        terminal.tell(f"{message}; see {self.prog} --help")
        raise SystemExit(USAGE)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="rnnbench", description=rnnbench.__doc__)
    parser.add_argument("--version", action="version", version=f"rnnbench {rnnbench.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    def add(command: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        summary = (command.__doc__ or command.__name__.replace("_", " ")).rstrip(".")  # none under python -OO
        sub = commands.add_parser(
            command.__name__.replace("_", "-"), help=summary[0].lower() + summary[1:], description=command.__doc__
        )
        sub.set_defaults(command=command)
        return sub

    sub = add(backends)
    sub.add_argument("--facts", action="store_true", help="ask each, in a process of its own: versions, or why it cannot run")
    sub.add_argument(
        "--time-limit", type=_positive(float), metavar="S", help="with --facts: seconds for each answer (default: 120)"
    )
    add(template)
    sub = add(suites)
    sub.add_argument("suite", nargs="?", help="a suite's name, or the path of a .toml file")

    sub = add(check)
    sub.add_argument(
        "backends", nargs="*", metavar="BACKEND", help="a registered name, or the path of a module (.py); default: all"
    )
    sub.add_argument("--level", choices=["smoke", "standard", "full"], help="how much is examined (default: standard)")
    sub.add_argument("--cell", action="append", metavar="CELL", help="only this cell; may be given several times")
    sub.add_argument(
        "--dtype", action="append", metavar="DTYPE", help="only this dtype; may be given several times (smoke: float32)"
    )
    sub.add_argument("--gradients-only", action="store_true", help="compare outputs and gradients; leave the contract aside")
    sub.add_argument("--random", type=_positive(int), metavar="N", help="this many trials drawn at random besides")
    sub.add_argument("--seed", type=_positive(int, zero=True), metavar="S", help="of the random trials (default: 0)")
    sub.add_argument(
        "--time-limit", type=_positive(float), metavar="S", help="seconds for an import, a call or a promise (default: 60)"
    )
    _add_env(sub)
    sub.add_argument("--json", action="store_true", help="one JSON document on standard output instead of tables")
    sub.add_argument("--device", choices=["host", "simulator"], default="host", help="simulator: numba_cuda without a GPU")
    sub.add_argument("--self-test", action="store_true", help="check the harness: is every planted bug found?")

    sub = add(run)
    sub.add_argument("suite", nargs="?", help="a suite's name, or the path of a .toml file (default: quick)")
    sub.add_argument("--backends", metavar="A,B", help="only these; default: all that can run here")
    sub.add_argument("--quick", action="store_true", help="few rounds and short samples, for a first look")
    sub.add_argument("--rigorous", action="store_true", help="20 to 40 rounds, whatever the suite asks for")
    sub.add_argument(
        "--rounds",
        type=_positive(int),
        metavar="N",
        help="rounds of fresh processes (default: the suite's, or 12 and up to 40 until ratios are known to 1.5%%)",
    )
    sub.add_argument("--input", choices=["text", "noise"], help="what the networks read (default: text)")
    sub.add_argument("--text", metavar="FILE", help="a text in UTF-8 to read instead of the sample in the package")
    sub.add_argument(
        "--seed", type=_positive(int, zero=True), metavar="N", help="of weights, states and cotangents (default: 0)"
    )
    sub.add_argument(
        "--time-limit", type=_positive(float), metavar="S", help="seconds for one request to a backend (default: 120)"
    )
    sub.add_argument("-o", "--output", metavar="DIR", help="where results go (default: results)")
    sub.add_argument("--resume", metavar="FILE", help="go on with an interrupted run")
    _add_env(sub)
    add_plan_arguments(sub, _positive)

    sub = add(machine)
    sub.add_argument("--json", action="store_true", help="one JSON document on standard output instead of text")
    sub.add_argument("--no-roofs", action="store_true", help="only facts and what is wrong; measure nothing")
    sub.add_argument("-o", "--output", default="results", metavar="DIR", help="where results go (default: results)")

    add_report_arguments(add(report))

    sub = add(bars)
    sub.add_argument("results", help="a results file, or a folder: its newest one")
    sub.add_argument("--backend", default="numba_cpu", metavar="NAME", help="whom to judge (default: numba_cpu)")
    sub.add_argument("--peers", metavar="A,B", help="against these; default: all others of the run")
    sub.add_argument(
        "--roof",
        action="append",
        default=[],
        type=_roof,
        metavar="THREADS=GFLOPS",
        help="the peak of that many threads in float32, to show the part of it that is reached; may be given several times "
        "(default: what `rnnbench machine` stored beside the results)",
    )

    sub = add(show)
    sub.add_argument("results", nargs="+", help="results files, or folders of them")
    sub.add_argument("--case", metavar="TEXT", help="only cases that have this in their name, such as 'lstm step' or H256")
    sub.add_argument("--backend", metavar="NAME", help="only this one")

    sub = add(merge)
    sub.add_argument("results", nargs="+", help="results files, or folders of them")
    sub.add_argument("-o", "--output", required=True, metavar="FILE", help="the results file to write, which must not exist")

    sub = add(export)
    sub.add_argument("format", choices=FORMATS, help="csv, parquet: all times; pyperf, bencher: one run; asv: a folder")
    sub.add_argument("results", help="a results file, or a folder: all of it, for pyperf and bencher its newest one")
    sub.add_argument("-o", "--output", metavar="FILE", help="default: standard output; asv: its results folder")
    add_best_arguments(add(best), _positive)
    sub = add(compare)
    sub.add_argument(
        "results",
        nargs="*",
        metavar="FILE",
        help="A and B, two results files or folders (the newest of each); with --commits a suite",
    )
    sub.add_argument("--backends", nargs=2, metavar=("X", "Y"), help="these two within one results file, round by round")
    sub.add_argument("--fail-if", choices=["regression"], help="exit with 1 where there is one, 3 where a case newly fails")
    sub.add_argument("--aa", metavar="FILE", help="a file of self-test aa: what a backend differs from itself by is allowed")
    sub.add_argument("--different-machines", action="store_true", help="compare files of different machines or versions")
    sub.add_argument("--json", action="store_true", help="one JSON document on standard output instead of a table")
    sub.add_argument("--commits", nargs=2, metavar=("REV1", "REV2"), help="measure two commits of this checkout in one run")
    sub.add_argument("--backend", metavar="NAME", help="with --commits: whose code (default: numba_cpu)")
    sub.add_argument("--quick", action="store_true", help="with --commits: few rounds and short samples")
    sub.add_argument(
        "--rounds", type=_positive(int), metavar="N", help="with --commits: rounds of fresh processes (default: 12)"
    )
    sub.add_argument("-o", "--output", metavar="DIR", help="with --commits: where results go (default: results)")

    sub = add(cuda_audit)
    sub.add_argument("--cell", action="append", metavar="CELL", help="only this cell; may be given several times")
    sub.add_argument("--json", action="store_true", help="one JSON document on standard output instead of the table")

    sub = add(cuda_warm)
    sub.add_argument(
        "--for",
        dest="wanted",
        action="append",
        required=True,
        metavar="WHAT",
        help="first-run (what rnnbench gpu runs), a suite or its file; may be given several times",
    )
    sub.add_argument("--capability", default="9.0", metavar="X.Y", help="compute capability of the GPU (default: 9.0, H100)")

    sub = add(gpu)
    sub.add_argument("--minutes", type=_positive(float), required=True, metavar="N", help="the time that all of it may take")
    sub.add_argument("-o", "--output", default="results", metavar="DIR", help="where the results go (default: results)")

    sub = add(self_test)
    kinds = sub.add_subparsers(dest="what", required=True, metavar="WHAT", parser_class=_Parser)
    sub = kinds.add_parser("statistics", help="the coverage of the intervals, by simulation")
    sub.add_argument("--seed", type=_positive(int, zero=True), metavar="N", help="of the draws (default: 0)")
    sub = kinds.add_parser("store", help="how fast results are stored and loaded, and in how much memory")
    sub.add_argument("--rows", type=_positive(int), metavar="N", help="made-up times (default: a million, of 500 MB)")
    sub = kinds.add_parser("siblings", help="ratios of backends in one run against those of runs alone, on a quiet machine")
    sub.add_argument("--rounds", type=_positive(int), metavar="N", help="of each run (default: 12, of two minutes each)")
    sub.add_argument("--backends", metavar="A,B", help="these instead of numba_cpu, torch_nn, onnxruntime and jax_scan")
    sub.add_argument("-o", "--output", metavar="DIR", help="keep the results files in this folder")
    sub = kinds.add_parser("aa", help="false alarms where a backend is compared with itself, or slowdowns that are found")
    sub.add_argument("--comparisons", type=_positive(int), metavar="N", help="how many, of small cases (default: 200)")
    sub.add_argument("--suite", metavar="SUITE", help="the cases of a suite instead, for compare --aa")
    sub.add_argument("--planted", type=_positive(float), metavar="PERCENT", help="slow one of the two by so much")
    sub.add_argument("--rounds", type=_positive(int), metavar="N", help="rounds of fresh processes (default: as a run)")
    sub.add_argument("--seed", type=_positive(int, zero=True), metavar="N", help="of the choice of cases (default: 0)")
    sub.add_argument("-o", "--output", metavar="DIR", help="keep the results file in this folder")
    return parser


def _add_env(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--env", action="append", metavar="NAME", help="an environment variable that backends see; may be given several times"
    )


def _roof(text: str) -> tuple[int, float]:
    threads, _, peak = text.partition("=")
    return _positive(int)(threads), _positive(float)(peak)


def _positive(kind: type, *, zero: bool = False) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no {kind.__name__}") from None
        if not (value > 0 or (zero and value == 0)) or value != value or value == float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is out of range; expected {'0 or more' if zero else 'more than 0'}")
        return value

    return parse


if __name__ == "__main__":
    sys.exit(main())
