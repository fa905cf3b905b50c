"""What ``rnnbench run`` is to do, from its options."""

import argparse
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rnnbench.cli import terminal
from rnnbench.errors import ArgumentError

if TYPE_CHECKING:
    from rnnbench.measure.budget import Budget
    from rnnbench.measure.plan import Plan


def plan_of(options: argparse.Namespace) -> "Plan":
    """The plan that the options ask for; raises ArgumentError, SuiteError or UnknownBackend."""
    from rnnbench.measure.affinity import checked
    from rnnbench.measure.plan import Settings, chosen_cases, new_plan, quicker, rigorous, until_narrow, with_suite_settings
    from rnnbench.processes.environment import named
    from rnnbench.suite.suite import load_suite

    if options.rigorous and (options.quick or options.rounds):
        raise ArgumentError(f"{'--quick' if options.quick else '--rounds'} with --rigorous; expected one of both")
    env = named(options.env)
    affinity = checked(options.affinity) if options.affinity is not None else None
    suite = load_suite(options.suite or "quick")
    settings = with_suite_settings(until_narrow(Settings()), suite)
    if options.quick:
        settings = quicker(settings)
    if options.rigorous:
        settings = rigorous(settings)
    if options.rounds:
        settings = dataclasses.replace(settings, most_rounds=None)
    names = ("rounds", "seed", "time_limit", "input", "filter", "threads", "fit")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.text:
        from rnnbench.suite.inputs import read_text

        if given.setdefault("input", "text") != "text":
            raise ArgumentError(f"--text is {options.text!r} with --input noise; expected one of both")
        read_text(options.text)
        given["text_file"] = options.text
    chosen = options.backends.split(",") if options.backends else None
    folder = Path(options.output or "results")
    settings = dataclasses.replace(settings, affinity=affinity, env=env, **given)
    suite = suite._replace(cases=chosen_cases(suite.cases, settings))
    plan = new_plan(suite, settings, chosen, folder, ["rnnbench", *options.given])
    if settings.threads and settings.threads > (cores := plan.run.environment["cores"]):
        beside = f" with --affinity {affinity}" if affinity else ""
        raise ArgumentError(f"--threads is {settings.threads}{beside}; expected at most {cores}, the cores that workers have")
    return _fitted(plan) if settings.fit else plan


def dry_run(plan: "Plan") -> None:
    """Print what a plan would run, and what that would take."""
    from rnnbench.measure.budget import described

    terminal.show("\n".join(described(plan, _budget(plan))))


def _fitted(plan: "Plan") -> "Plan":
    """The plan without the most expensive cases, so many that its estimate fits; says on standard error which."""
    from rnnbench.measure.budget import duration_of, fitting

    cases, dropped = fitting(_budget(plan), plan.settings.fit or 0.0, plan.settings.most)
    for cost in dropped:
        took = duration_of(cost.once + plan.settings.most * cost.round)
        terminal.tell(f"left out to fit: {cost.case.label()}, about {took}")
    return dataclasses.replace(plan, run=msgspec.structs.replace(plan.run, cases=cases))


def _budget(plan: "Plan") -> "Budget":
    from rnnbench.choose.choose import stored
    from rnnbench.measure.budget import budget

    return budget(plan, stored(sorted(plan.path.parent.glob("*.jsonl")), plan.run.environment["machine"]))


def seconds(text: str) -> float:
    """``90s``, ``10m`` or ``1.5h`` as seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no time; expected a number and s, m or h, as in 10m")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def add_arguments(sub: argparse.ArgumentParser, positive: Callable[[type], Callable[[str], Any]]) -> None:
    """The options that choose among the cases of a suite, and where they run."""
    sub.add_argument("--filter", metavar="TEXT", help="only cases that have this in their label, such as 'lstm step' or H256")
    sub.add_argument("--threads", type=positive(int), metavar="N", help="all cases with so many threads")
    sub.add_argument(
        "--fit", type=seconds, metavar="TIME", help="leave out the cases that take longest, so that the rest fits, as in 10m"
    )
    sub.add_argument(
        "--affinity", metavar="CPUS", help="measure on these processors, as in 0,2-3 (default: all of this process)"
    )
    sub.add_argument("--dry-run", action="store_true", help="print what would run and what it would take; run nothing")
