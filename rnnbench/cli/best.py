"""``rnnbench best``: the fastest backend for a shape, and what it costs to trust that answer."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rnnbench.cli import completion, terminal
from rnnbench.cli.common import (
    CASES_FAILED,
    COUNT,
    OK,
    Progress,
    end_workers_on_sigterm,
    listed,
    lists_from,
    names_from,
    newest,
    one_of,
    refuse,
)
from rnnbench.errors import ArgumentError, StoreError
from rnnbench.networks.cells import CELLS
from rnnbench.networks.names import DTYPES
from rnnbench.text import duration, printable

if TYPE_CHECKING:
    from rnnbench.suite.case import Case

PHASES = ("forward", "step")
NONLINEARITIES = CELLS["elman"].nonlinearities

REQUIRED = {"cell": "--cell", "T": "-T", "B": "-B", "H": "-H"}

NOT_WITH_REGRET = (
    *REQUIRED, "I", "phase", "dtype", "threads", "layers", "bidirectional", "nonlinearity", "no_bias", "results", "measure",
    "backends",
)  # fmt: skip


def best(
    context: typer.Context,
    cell: Annotated[
        str | None,
        typer.Option(metavar="CELL", help=f"One of {', '.join(CELLS)}.", autocompletion=names_from(completion.cells)),
    ] = None,
    T: Annotated[int | None, typer.Option("-T", parser=COUNT, metavar="N", help="Time steps.")] = None,  # noqa: N803
    B: Annotated[int | None, typer.Option("-B", parser=COUNT, metavar="N", help="Batch size.")] = None,  # noqa: N803
    H: Annotated[int | None, typer.Option("-H", parser=COUNT, metavar="N", help="Hidden size.")] = None,  # noqa: N803
    I: Annotated[  # noqa: E741, N803
        int | None, typer.Option("-I", parser=COUNT, metavar="N", help="Input size (default: H).")
    ] = None,
    phase: Annotated[
        str | None,
        typer.Option(
            help="Inference, or a training step (default: step).",
            **one_of(PHASES),
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help=f"Of every array: {', '.join(DTYPES)} (default: float32).",
            **one_of(DTYPES, "DTYPE"),
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(parser=COUNT, metavar="N", help="That a call may use (default: 1).")] = None,
    layers: Annotated[int | None, typer.Option(parser=COUNT, metavar="N", help="Layers (default: 1).")] = None,
    bidirectional: Annotated[bool, typer.Option("--bidirectional", help="Both directions.")] = False,
    nonlinearity: Annotated[
        str | None,
        typer.Option(
            help="Of elman and jordan (default: tanh).",
            **one_of(NONLINEARITIES),
        ),
    ] = None,
    no_bias: Annotated[bool, typer.Option("--no-bias", help="A network without biases.")] = False,
    results: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Results of this machine, a folder or a file (default: results)."),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure this case now, with the settings of run --quick.")
    ] = False,
    backends: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="With --measure: only these; default: all that can run here.",
            autocompletion=lists_from(completion.backends),
        ),
    ] = None,
    regret: Annotated[
        str | None,
        typer.Option(
            metavar="RESULTS",
            help="Judge choices instead: leave out each shape of a results file and choose for it.",
        ),
    ] = None,
) -> int:
    """Name the fastest backend for a shape, as stored or measured now.

    Examples:
    $ rnnbench best --cell lstm -T 100 -B 32 -H 256
    $ rnnbench best --cell gru -T 50 -B 1 -H 64 --phase forward --measure
    $ rnnbench best --regret results
    """
    if regret:
        refuse(context, NOT_WITH_REGRET, "with --regret", "none: it judges what is stored")
        return _judge(newest(regret))
    if backends and not measure:
        raise ArgumentError(f"--backends is {backends!r} without --measure; expected both")
    case = case_of(context.params)
    folder = Path(results or "results")
    complete = _measured(case, folder, listed(backends), context.obj) if measure else True
    terminal.show(_table(_stored(folder, case).choose(case)))
    return OK if complete else CASES_FAILED


def case_of(given: dict[str, Any]) -> "Case":
    """The case that these parameters of the command ask for; raises ArgumentError or SpecError."""
    from rnnbench.suite.case import Case

    missing = [shown for name, shown in REQUIRED.items() if given[name] is None]
    if missing:
        raise ArgumentError(f"{', '.join(missing)} missing; expected {', '.join(REQUIRED.values())}, or --regret RESULTS")
    names = ("dtype", "threads", "layers", "nonlinearity")
    fields = {name: given[name] for name in names if given[name] is not None}
    fields |= {"bidirectional": given["bidirectional"], "bias": not given["no_bias"]}
    sizes = given["T"], given["B"], given["I"] or given["H"], given["H"]
    case = Case(given["cell"], given["phase"] or "step", *sizes, **fields)
    case.spec()
    return case


def _stored(folder: Path, case: "Case") -> Any:
    """This machine's results, some of which serve the case; raises StoreError."""
    from rnnbench.choose.choose import stored
    from rnnbench.machine.facts import machine_name
    from rnnbench.results.reader import results_files

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


def _measured(case: "Case", folder: Path, backends: list[str] | None, given: list[str]) -> bool:
    """Run this case over the backends; whether none of them failed."""
    from rnnbench.measure.plan import Settings, new_plan, quicker
    from rnnbench.measure.run import run_into_new_file
    from rnnbench.results.reader import read
    from rnnbench.results.rows import Failure
    from rnnbench.suite.suite import Suite, SuiteSettings

    suite = Suite("best", f"One case: {case.label()}.", "rnnbench best --measure", SuiteSettings(), [case])
    plan = new_plan(suite, quicker(Settings()), backends, folder, ["rnnbench", *given])
    progress = Progress("measuring")
    end_workers_on_sigterm()
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


def _judge(file: Path) -> int:
    """Print what choosing would have cost for the shapes of a results file."""
    from rnnbench.choose.choose import Measurements
    from rnnbench.choose.regret import regret
    from rnnbench.results.reader import read

    measurements = Measurements([read(file)])
    _tell(measurements.problems)
    terminal.show(_judged(regret(measurements)))
    return OK


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
