"""What ``rnnbench run`` is to do, from its options."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnbench.cli import terminal
from rnnbench.cli.common import listed
from rnnbench.errors import ArgumentError

if TYPE_CHECKING:
    from rnnbench.measure.budget import Budget
    from rnnbench.measure.plan import Plan, Settings
    from rnnbench.suite.suite import Suite

SETTINGS = {
    "rounds": "rounds",
    "seed": "seed",
    "time_limit": "time_limit",
    "source": "input",
    "only": "filter",
    "threads": "threads",
    "fit": "fit",
}
"""Parameters of the command that are settings of the run, under their names there."""


def plan_of(given: Mapping[str, Any], command: Sequence[str]) -> "Plan":
    """The plan that the parameters of the command ask for; raises ArgumentError, SuiteError or UnknownBackend."""
    from rnnbench.measure.affinity import checked
    from rnnbench.measure.plan import chosen_cases, new_plan
    from rnnbench.processes.environment import named
    from rnnbench.suite.suite import load_suite

    if given["rigorous"] and (given["quick"] or given["rounds"]):
        raise ArgumentError(f"{'--quick' if given['quick'] else '--rounds'} with --rigorous; expected one of both")
    env = named(given["env"])
    affinity = checked(given["affinity"]) if given["affinity"] is not None else None
    suite = load_suite(given["suite"] or "quick")
    settings = dataclasses.replace(_rounds(suite, given), affinity=affinity, env=env, **_asked(given))
    suite = suite._replace(cases=chosen_cases(suite.cases, settings))
    plan = new_plan(suite, settings, listed(given["backends"]), Path(given["output"] or "results"), list(command))
    if settings.threads and settings.threads > (cores := plan.run.environment["cores"]):
        beside = f" with --affinity {affinity}" if affinity else ""
        raise ArgumentError(f"--threads is {settings.threads}{beside}; expected at most {cores}, the cores that workers have")
    return _fitted(plan) if settings.fit else plan


def _rounds(suite: "Suite", given: Mapping[str, Any]) -> "Settings":
    """How often all is measured: as the suite has it, unless an option asks for more or less."""
    from rnnbench.measure.plan import Settings, quicker, rigorous, until_narrow, with_suite_settings

    settings = with_suite_settings(until_narrow(Settings()), suite)
    if given["quick"]:
        settings = quicker(settings)
    if given["rigorous"]:
        settings = rigorous(settings)
    return dataclasses.replace(settings, most_rounds=None) if given["rounds"] else settings


def _asked(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that options give; raises ArgumentError for a text that does not read, or is not to be read."""
    settings = {name: given[parameter] for parameter, name in SETTINGS.items() if given[parameter] is not None}
    if text := given["text"]:
        from rnnbench.suite.inputs import read_text

        if settings.setdefault("input", "text") != "text":
            raise ArgumentError(f"--text is {text!r} with --input noise; expected one of both")
        read_text(text)
        settings["text_file"] = text
    return settings


def dry_run(plan: "Plan") -> None:
    """Print what a plan would run, and what that would take."""
    from rnnbench.measure.budget import described

    terminal.show("\n".join(described(plan, budget_of(plan))))


def _fitted(plan: "Plan") -> "Plan":
    """The plan without the most expensive cases, so many that its estimate fits; says on standard error which."""
    import msgspec

    from rnnbench.measure.budget import duration_of, fitting
    from rnnbench.measure.fit import fewest_rounds

    rounds = fewest_rounds(plan.settings)
    cases, dropped = fitting(budget_of(plan), plan.settings.fit or 0.0, rounds)
    for cost in dropped:
        took = duration_of(cost.once + rounds * cost.round)
        terminal.tell(f"left out to fit: {cost.case.label()}, about {took}")
    return dataclasses.replace(plan, run=msgspec.structs.replace(plan.run, cases=cases))


def budget_of(plan: "Plan") -> "Budget":
    """What a plan would take, by the results of this machine beside its own."""
    from rnnbench.choose.choose import stored
    from rnnbench.measure.budget import budget

    return budget(plan, stored(sorted(plan.path.parent.glob("*.jsonl")), plan.run.environment["machine"]))
