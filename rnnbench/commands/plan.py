"""What ``rnnbench run`` is to do, from its options."""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from rnnbench.errors import ArgumentError

if TYPE_CHECKING:
    from rnnbench.measure.plan import Plan


def plan_of(options: argparse.Namespace) -> "Plan":
    """The plan that the options ask for; raises ArgumentError, SuiteError or UnknownBackend."""
    from rnnbench.measure.plan import Settings, new_plan, quicker, rigorous, until_narrow, with_suite_settings
    from rnnbench.suite import load_suite

    if options.rigorous and (options.quick or options.rounds):
        raise ArgumentError(f"{'--quick' if options.quick else '--rounds'} with --rigorous; expected one of both")
    suite = load_suite(options.suite or "quick")
    settings = with_suite_settings(until_narrow(Settings()), suite)
    if options.quick:
        settings = quicker(settings)
    if options.rigorous:
        settings = rigorous(settings)
    if options.rounds:
        settings = dataclasses.replace(settings, most_rounds=None)
    names = ("rounds", "seed", "time_limit", "input")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.text:
        from rnnbench.inputs import read_text

        if given.setdefault("input", "text") != "text":
            raise ArgumentError(f"--text is {options.text!r} with --input noise; expected one of both")
        read_text(options.text)
        given["text_file"] = options.text
    chosen = options.backends.split(",") if options.backends else None
    folder = Path(options.output or "results")
    return new_plan(suite, dataclasses.replace(settings, **given), chosen, folder, ["rnnbench", *options.given])
