"""``rnnbench self-test``: are the comparisons right?"""

import argparse
import contextlib
import dataclasses
import signal
from pathlib import Path
from typing import Any

from rnnbench.cli import terminal
from rnnbench.errors import ArgumentError
from rnnbench.processes.scratch import scratch_folder


def statistics(options: argparse.Namespace) -> int:
    """Print the coverage of the intervals on simulated times; returns the exit code."""
    from rnnbench.cli.common import CHECK_FAILED, OK
    from rnnbench.selftests.interval_coverage import DRAWS, KINDS, coverage, table

    results = [coverage(kind, DRAWS, options.seed or 0) for kind in KINDS]
    terminal.show(table(results, DRAWS))
    return OK if all(result.passed for result in results) else CHECK_FAILED


def store(options: argparse.Namespace) -> int:
    """Print how fast results are stored and loaded here, and in how much memory; returns the exit code."""
    from rnnbench.cli.common import CHECK_FAILED, OK
    from rnnbench.selftests.store_speed import measure

    with scratch_folder() as folder:
        bars = measure(options.rows or 10**6, folder)
    terminal.show(bars.text())
    return OK if bars.met else CHECK_FAILED


def siblings(options: argparse.Namespace, progress: Any) -> int:
    """Print the ratios of pairs in one run beside those of runs alone; returns the exit code."""
    from rnnbench.cli.common import CHECK_FAILED, OK
    from rnnbench.selftests.siblings import BACKENDS, BAR, measure, table

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names = options.backends.split(",") if options.backends else list(BACKENDS)
    with contextlib.ExitStack() as stack:
        folder = Path(options.output or stack.enter_context(scratch_folder()))
        pairs = measure(options.rounds or 12, names, folder, progress.unit, ["rnnbench", *options.given])
    progress.clear()
    terminal.show(table(pairs))
    return OK if all(pair.off <= BAR for pair in pairs) else CHECK_FAILED


def aa(options: argparse.Namespace, progress: Any) -> int:
    """Measure backends against themselves and print the shares of false alarms, or of what was found; the exit code."""
    from rnnbench.cli.common import CASES_FAILED, CHECK_FAILED, OK
    from rnnbench.measure.plan import Settings, until_narrow, with_suite_settings
    from rnnbench.selftests.aa import measure, reach, shares, small_suite
    from rnnbench.suite.suite import load_suite

    planted = options.planted or 0.0
    given = {name: getattr(options, name) for name in ("rounds", "seed") if getattr(options, name) is not None}
    if options.suite and options.comparisons:
        raise ArgumentError(f"--comparisons is {options.comparisons} with --suite; expected one of both")
    suite = load_suite(options.suite) if options.suite else small_suite(options.comparisons or 200, options.seed or 0)
    usual = Settings() if "rounds" in given else until_narrow(Settings())
    settings = dataclasses.replace(with_suite_settings(usual, suite), **given)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        folder = options.output or stack.enter_context(scratch_folder())
        command = ["rnnbench", *options.given]
        path, outcomes = measure(suite, planted, settings, Path(folder), progress.unit, command)
    progress.clear()
    for name, outcome in outcomes.items():
        rounds = f"{settings.rounds}" if settings.most == settings.rounds else f"{settings.rounds} to {settings.most}"
        compared = f"{len(outcome.rows)} comparisons of {rounds} rounds"
        terminal.show(f"{name}: {compared}, intervals of {reach(outcome):.1%} to each side")
        terminal.show("\n".join(f"  {share._replace(bar=None).line()}" for share in shares([outcome], planted)))
    whole = shares(list(outcomes.values()), planted)
    terminal.show("both")
    terminal.show("\n".join(f"  {share.line()}" for share in whole))
    failed = [sentence for outcome in outcomes.values() for sentence in (*outcome.newly_failed, *outcome.left_out)]
    for sentence in failed:
        terminal.show(f"not compared: {sentence}")
    if options.output:
        terminal.show(f"results: {path}")
    if any(share.missed for share in whole):
        return CHECK_FAILED
    return CASES_FAILED if failed else OK
