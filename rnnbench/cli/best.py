"""``rnnbench best``: the fastest backend for a shape, and what it costs to trust that answer."""

import argparse
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rnnbench.cli import terminal
from rnnbench.errors import ArgumentError, StoreError
from rnnbench.networks.cells import CELLS
from rnnbench.networks.spec import DTYPES
from rnnbench.text import duration, printable

REQUIRED = {"cell": "--cell", "T": "-T", "B": "-B", "H": "-H"}

NOT_WITH_REGRET = (
    *REQUIRED, "I", "phase", "dtype", "threads", "layers", "bidirectional", "nonlinearity", "no_bias", "results", "measure",
    "backends",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser, positive: Callable[[type], Callable[[str], Any]]) -> None:
    size = positive(int)
    parser.add_argument("--cell", metavar="CELL", help=f"one of {', '.join(CELLS)}")
    parser.add_argument("-T", type=size, metavar="N", help="time steps; of a window for truncated BPTT")
    parser.add_argument("-B", type=size, metavar="N", help="batch")
    parser.add_argument("-H", type=size, metavar="N", help="hidden size")
    parser.add_argument("-I", type=size, metavar="N", help="input size (default: H)")
    parser.add_argument("--phase", choices=["forward", "step"], help="inference, or a training step (default: step)")
    parser.add_argument("--dtype", choices=DTYPES, help="of every array (default: float32)")
    parser.add_argument("--threads", type=size, metavar="N", help="that a call may use (default: 1)")
    parser.add_argument("--layers", type=size, metavar="N", help="default: 1")
    parser.add_argument("--bidirectional", action="store_true", help="both directions")
    nonlinearities = CELLS["elman"].nonlinearities
    parser.add_argument("--nonlinearity", choices=nonlinearities, help="of elman and jordan (default: tanh)")
    parser.add_argument("--no-bias", action="store_true", help="a network without biases")
    parser.add_argument("--results", metavar="PATH", help="results of this machine, a folder or a file (default: results)")
    parser.add_argument("--measure", action="store_true", help="measure this case now, with the settings of run --quick")
    parser.add_argument("--backends", metavar="A,B", help="with --measure: only these; default: all that can run here")
    parser.add_argument(
        "--regret", metavar="RESULTS", help="judge choices instead: leave out each shape of a results file and choose for it"
    )


def best(options: argparse.Namespace, progress: Any) -> int:
    """Print the choice and all expected times, or with ``--regret`` what choices cost.

    Raises StoreError where nothing is stored that serves, ArgumentError for options that do not go together.
    """
    if options.regret:
        return _regret(options)
    if options.backends and not options.measure:
        raise ArgumentError(f"--backends is {options.backends!r} without --measure; expected both")
    case = _case(options)
    complete = _measured(case, options, progress) if options.measure else True
    terminal.show(_table(_stored(options, case).choose(case)))
    return 0 if complete else 3


def _case(options: argparse.Namespace) -> Any:
    """The case that was asked for; raises ArgumentError or SpecError."""
    from rnnbench.suite.case import Case

    missing = [shown for name, shown in REQUIRED.items() if getattr(options, name) is None]
    if missing:
        raise ArgumentError(f"{', '.join(missing)} missing; expected {', '.join(REQUIRED.values())}, or --regret RESULTS")
    names = ("dtype", "threads", "layers", "nonlinearity")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    given |= {"bidirectional": options.bidirectional, "bias": not options.no_bias}
    case = Case(options.cell, options.phase or "step", options.T, options.B, options.I or options.H, options.H, **given)
    case.spec()
    return case


def _folder(options: argparse.Namespace) -> Path:
    return Path(options.results or "results")


def _stored(options: argparse.Namespace, case: Any) -> Any:
    """This machine's results, some of which serve the case; raises StoreError."""
    from rnnbench.choose.choose import stored
    from rnnbench.machine.facts import machine_name
    from rnnbench.results.reader import results_files

    folder = _folder(options)
    measurements = stored(results_files(folder) if folder.exists() else [], machine_name())
    _tell(measurements.problems)
    if not measurements.serve(case):
        raise StoreError(
            f"no results of this machine in {folder} serve {case.label()}: "
            "add --measure to measure it now, or measure a suite first with rnnbench run"
        )
    return measurements


def _tell(problems: list[str]) -> None:
    for problem in problems:
        terminal.tell(problem)


def _measured(case: Any, options: argparse.Namespace, progress: Any) -> bool:
    """Run this case over the backends; whether none of them failed."""
    from rnnbench.measure.plan import Settings, new_plan, quicker
    from rnnbench.measure.run import run_into_new_file
    from rnnbench.results.reader import read
    from rnnbench.results.rows import Failure
    from rnnbench.suite.suite import Suite, SuiteSettings

    suite = Suite("best", f"One case: {case.label()}.", "rnnbench best --measure", SuiteSettings(), [case])
    chosen = options.backends.split(",") if options.backends else None
    plan = new_plan(suite, quicker(Settings()), chosen, _folder(options), ["rnnbench", *options.given])
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that workers are ended with this process
    run_into_new_file(plan, progress.unit)
    progress.clear()
    return not any(isinstance(row, Failure) and row.reason != "unsupported" for row in read(plan.path).rows)


def _table(choice: Any) -> str:
    several = len({prediction.device for prediction in choice.predictions}) > 1
    rows = [("backend", "expected", "interval", "from")]
    for prediction in choice.predictions:
        interval = f"{duration(prediction.low)} to {duration(prediction.high)}"
        where = f" on {prediction.device}" if several else ""
        rows.append((f"{prediction.backend}{where}", duration(prediction.seconds), interval, str(prediction)))
    rows += [(backend, "-", "-", f"not chosen: {reason}") for backend, reason in choice.excluded.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, [*widths, 0], strict=True)).rstrip() for row in rows]
    return "\n".join(map(printable, [choice.case.label(), *lines, f"best: {choice.backend}", choice.why]))


def _regret(options: argparse.Namespace) -> int:
    from rnnbench.choose.choose import Measurements
    from rnnbench.choose.regret import regret
    from rnnbench.results.reader import read, results_files

    for name in NOT_WITH_REGRET:
        value = getattr(options, name)
        if value not in (None, False):
            shown = f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
            raise ArgumentError(f"{shown} is {value!r} with --regret; expected none: it judges what is stored")
    measurements = Measurements([read(results_files(Path(options.regret))[-1])])
    _tell(measurements.problems)
    terminal.show(_judged(regret(measurements)))
    return 0


def _judged(found: Any) -> str:
    from rnnbench.compare.verdicts import RANKING_BAND

    worst = max(found.trials, key=lambda trial: trial.ratio)
    close = sum(trial.ratio <= 1 + RANKING_BAND for trial in found.trials)
    always = ", ".join(f"{name} {mean:.3f}" for name, mean in found.always.items())
    lines = [
        f"{len(found.trials)} shapes, each left out and chosen for from the others; time of the chosen over that of the best:",
        f"  geometric mean {found.mean:.3f}",
        f"  worst          {worst.ratio:.3f}  ({worst.case.label()}: {worst.chosen} instead of {worst.best})",
        f"  within 5%      {found.close:.0%}  ({close} of {len(found.trials)})",
        f"the same with one backend for all shapes: geometric mean {always}" if always else "no backend ran every shape",
        f"{found.inside / found.predicted:.0%} of {found.predicted} predicted 95% intervals hold what was measured",
    ]
    if found.skipped:
        lines.append(f"{len(found.skipped)} shapes could not be chosen for: no other shape of their kind was measured")
    return "\n".join(map(printable, lines))
