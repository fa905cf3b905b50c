"""Estimate the time and memory of a run before it starts, and drop cases that do not fit a time budget."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from rnnbench.choose.choose import Measurements
from rnnbench.errors import ArgumentError
from rnnbench.measure.plan import Plan, Settings
from rnnbench.measure.prices import COMPILE, GATE, LOAD, MEMORY, PREPARE, REFERENCE, REST, START, TIME, Prices, fixed_parts
from rnnbench.measure.worker_pool import compile_key
from rnnbench.networks.contract import CPU, device_of
from rnnbench.suite.case import Case
from rnnbench.suite.estimate import estimate
from rnnbench.text import duration, printable

RATE = 5e9
"""Assumed FLOP/s of a backend without stored results: a small network on one core."""

DEVICE_RATE = 1e12
"""Assumed FLOP/s of a backend on a GPU, which a recurrence leaves mostly idle."""

STEP_SECONDS = 2e-5
"""Assumed seconds of a time step without its operations, of a backend that calls a library in each."""

MIN_CALL_SECONDS = 2e-5  # lower bound of an estimate


class Cost(NamedTuple):
    """The estimated cost of one case on all its backends.

    ``round``: seconds per round.  ``once``: seconds of work done once per run.  ``memory``: bytes of one network.
    """

    case: Case
    backends: tuple[str, ...]
    round: float
    once: float
    memory: int


class Budget(NamedTuple):
    """The estimated cost of a run.

    Of its ``calls`` (case, backend) pairs ``known`` come from stored results, the others from an assumed rate.
    ``prices``: what the stages of the run take.
    """

    costs: list[Cost]
    known: int
    calls: int
    prices: Prices

    def seconds(self, rounds: int) -> float:
        """Return the seconds of a run of so many rounds, with starting processes and compiling."""
        groups = len({cost.case.threads for cost in self.costs})
        whole = sum(cost.once + rounds * cost.round for cost in self.costs)
        starts = (rounds + 1) * groups + 1  # for memory and references too
        return whole + starts * self.prices.of(START) + self._compiling(rounds)

    def _compiling(self, rounds: int) -> float:
        """Return the seconds of first calls: one compiles, those of later rounds and of other threads load its code."""
        pairs = [(cost.case, name) for cost in self.costs for name in cost.backends]
        first = {compile_key(name, case): (case, name) for case, name in pairs}
        processes = {(*compile_key(name, case), case.threads): (case, name) for case, name in pairs}
        compiling = sum(self.prices.of(COMPILE, *pair) for pair in first.values())
        return compiling + sum(rounds * self.prices.of(LOAD, *pair) for pair in processes.values())


def budget(plan: Plan, stored: Measurements) -> Budget:
    """Estimate every case of a plan, from stored results of this machine where possible, else from an assumed rate."""
    plan = plan.with_capabilities()
    seconds: dict[tuple[Case, str], float] = {}
    known = 0
    for case in plan.run.cases:
        names = [name for name in plan.names if _takes_part(plan, name, case)]
        expected = {found.backend: found.seconds for found in stored.predictions(case)[0]} if names else {}
        known += len(expected.keys() & set(names))
        seconds |= {(case, name): expected.get(name) or _assumed(case, _rate(plan, name)) for name in names}
    prices = Prices(plan.settings, seconds, fixed_parts(stored.spent.values()))
    return _budget(plan.run.cases, prices, known)


def alone(cases: Sequence[Case], settings: Settings) -> Budget:
    """Estimate cases on one backend at the assumed rate, without backends or stored results."""
    return _budget(cases, Prices(settings, {(case, "one"): _assumed(case, RATE) for case in cases}), 0)


def _rate(plan: Plan, name: str) -> float:
    return RATE if device_of(plan.run.backends[name]) == CPU else DEVICE_RATE


def _takes_part(plan: Plan, name: str, case: Case) -> bool:
    if case.threads > plan.run.environment["cores"]:
        return False
    capabilities = plan.capabilities[name]
    return not capabilities.failure and case not in capabilities.refusals


def _assumed(case: Case, rate: float) -> float:
    passes = 1 if case.phase == "forward" else 3
    steps = passes * case.T * case.layers * (1 + case.bidirectional) * STEP_SECONDS
    return max(MIN_CALL_SECONDS, estimate(case).flops / rate + (steps if rate == RATE else 0.0))


def _budget(cases: Sequence[Case], prices: Prices, known: int) -> Budget:
    names: dict[Case, list[str]] = {}
    for case, name in prices.calls:
        names.setdefault(case, []).append(name)
    return Budget([_cost(prices, case, names.get(case, [])) for case in cases], known, len(prices.calls), prices)


def _cost(prices: Prices, case: Case, names: Sequence[str]) -> Cost:
    each = sum(prices.of(stage, case, name) for name in names for stage in (PREPARE, GATE, TIME)) + prices.of(REST, case)
    once = prices.of(REFERENCE, case) / (os.cpu_count() or 1) + sum(prices.of(MEMORY, case, name) for name in names)
    return Cost(case, tuple(names), each, once, estimate(case).memory)


def fitting(whole: Budget, seconds: float, rounds: int) -> tuple[list[Case], list[Cost]]:
    """Drop the most expensive cases until a run fits ``seconds``; return the cases kept and the costs dropped.

    Raises ArgumentError if no case fits.
    """
    by_cost = sorted(whole.costs, key=lambda cost: cost.once + rounds * cost.round, reverse=True)
    for number in range(len(by_cost)):
        kept = whole._replace(costs=by_cost[number:])
        if kept.seconds(rounds) <= seconds:
            dropped = by_cost[:number]
            dropped_cases = {cost.case for cost in dropped}
            return [cost.case for cost in whole.costs if cost.case not in dropped_cases], dropped
    cheapest = whole._replace(costs=by_cost[-1:]).seconds(rounds)
    raise ArgumentError(f"--fit is {duration_of(seconds)}; the cheapest case alone needs about {duration_of(cheapest)}")


def duration_of(seconds: float) -> str:
    """Format a duration: ``3 h 20 min``, ``12 min``, ``40 s``."""
    if seconds < 120:
        return duration(round(seconds, 1))
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def described(plan: Plan, whole: Budget) -> list[str]:
    """Return the lines that a dry run prints."""
    settings = plan.settings
    rounds = f"{settings.rounds}" if settings.most == settings.rounds else f"{settings.rounds} to {settings.most}"
    lines = [
        f"suite {printable(plan.run.suite)}: {len(whole.costs)} cases, {rounds} rounds, {settings.samples} samples a round"
    ]
    for name, facts in plan.run.backends.items():
        absent = f": unavailable: {printable(facts['unavailable'])}" if "unavailable" in facts else ""
        lines.append(f"  {printable(name)}{absent}")
    width = max(len(cost.case.label()) for cost in whole.costs)
    for cost in whole.costs:
        who = "all" if set(cost.backends) == set(plan.names) else ", ".join(map(printable, cost.backends)) or "no backend"
        took = duration_of(cost.once + settings.most * cost.round)
        lines.append(f"  {cost.case.label():<{width}}  {took:>10}  {who}")
    return [*lines, _time_line(plan, whole), _memory_line(plan.names, whole.costs)]


def _time_line(plan: Plan, whole: Budget) -> str:
    least, longest = (duration_of(whole.seconds(rounds)) for rounds in (plan.settings.rounds, plan.settings.most))
    rates = sorted({_rate(plan, name) for name in plan.names})
    sources = [f"{whole.known} of {whole.calls} calls from stored results"] if whole.known else []
    if whole.known < whole.calls:
        assumed = " or ".join(f"{rate / 1e9:g}" for rate in rates)
        sources.append(f"{'the others' if whole.known else 'calls'} at {assumed} GFLOP/s")
    sources.append(f"start-up and checks {'from stored runs' if whole.prices.fixed else 'assumed'}")
    took = least if least == longest else f"{least} to {longest}"
    return f"time: about {took}, {_sureness(whole)} ({', '.join(sources)})"


def _sureness(whole: Budget) -> str:
    """Say how far off an estimate may be, by what it rests on."""
    if whole.known == whole.calls and whole.prices.fixed:
        return "off by up to half if the machine is busier or quieter than then"
    return "perhaps half or twice that" if whole.known or whole.prices.fixed else "perhaps a third or three times that"


def _memory_line(names: Sequence[str], costs: Sequence[Cost]) -> str:
    largest = max(costs, key=lambda cost: cost.memory)
    each = largest.memory / 2**20
    return (
        f"memory: at least {each:.3g} MiB in each of {len(names)} processes, plus their libraries "
        f"(the largest case: {largest.case.label()})"
    )
