"""Estimate the time and memory of a run before it starts, and drop cases that do not fit a time budget."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rnnbench.choose.choose import Measurements
from rnnbench.errors import ArgumentError
from rnnbench.measure.plan import Plan, Settings
from rnnbench.measure.sampling import MAX_SAMPLE_SECONDS
from rnnbench.networks.contract import CPU, device_of
from rnnbench.suite.case import Case
from rnnbench.suite.estimate import estimate
from rnnbench.text import duration, printable

RATE = 5e9
"""Assumed FLOP/s of a backend without stored results: a small network on one core."""

DEVICE_RATE = 1e12
"""Assumed FLOP/s of a backend on a GPU, which a recurrence leaves mostly idle."""

REFERENCE_RATE = 1e9
"""Assumed FLOP/s of the reference, a loop in float64."""

MIN_CALL_SECONDS = 2e-5  # lower bound of an estimate
CASE_OVERHEAD = 0.02  # seconds per case and backend: weights, inputs, comparison with the reference
START = 2.0  # seconds until the processes of a round have started
CALLS_TO_CHECK, CALLS_TO_WARM_UP, CALLS_FOR_MEMORY = 2, 2, 2


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
    """

    costs: list[Cost]
    known: int
    calls: int

    def seconds(self, rounds: int) -> float:
        groups = len({cost.case.threads for cost in self.costs})
        return sum(cost.once + rounds * cost.round for cost in self.costs) + (rounds + 1) * groups * START


def budget(plan: Plan, stored: Measurements) -> Budget:
    """Estimate every case of a plan, from stored results of this machine where possible, else from an assumed rate."""
    plan = plan.with_capabilities()
    costs, known, calls = [], 0, 0
    for case in plan.run.cases:
        names = tuple(name for name in plan.names if _takes_part(plan, name, case))
        expected = {found.backend: found.seconds for found in stored.predictions(case)[0]} if names else {}
        least = estimate(case)
        seconds = {name: expected.get(name) or max(MIN_CALL_SECONDS, least.flops / _rate(plan, name)) for name in names}
        known, calls = known + len(seconds.keys() & expected.keys()), calls + len(seconds)
        costs.append(_cost(plan.settings, case, seconds, least.flops, least.memory))
    return Budget(costs, known, calls)


def alone(cases: Sequence[Case], settings: Settings) -> Budget:
    """Estimate cases on one backend at the assumed rate, without backends or stored results."""
    costs = []
    for case in cases:
        least = estimate(case)
        seconds = {"one": max(MIN_CALL_SECONDS, least.flops / RATE)}
        costs.append(_cost(settings, case, seconds, least.flops, least.memory))
    return Budget(costs, 0, len(costs))


def _rate(plan: Plan, name: str) -> float:
    return RATE if device_of(plan.run.backends[name]) == CPU else DEVICE_RATE


def _takes_part(plan: Plan, name: str, case: Case) -> bool:
    if case.threads > plan.run.environment["cores"]:
        return False
    capabilities = plan.capabilities[name]
    return not capabilities.failure and case not in capabilities.refusals


def _cost(settings: Settings, case: Case, seconds: Mapping[str, float], flops: int, memory: int) -> Cost:
    rounds, fastest = 0.0, min(seconds.values(), default=1.0)
    for call in seconds.values():
        loops = 2 ** max(0, math.ceil(math.log2(min(settings.shortest_sample / fastest, MAX_SAMPLE_SECONDS / call))))
        calls = CALLS_TO_CHECK + CALLS_TO_WARM_UP + settings.samples * (loops + min(1, loops - 1))
        rounds += calls * call + CASE_OVERHEAD
    once = sum(CALLS_FOR_MEMORY * call + CASE_OVERHEAD for call in seconds.values()) + flops / REFERENCE_RATE
    return Cost(case, tuple(seconds), rounds, once, memory)


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
    took = least if least == longest else f"{least} to {longest}"
    return f"time: about {took}, without compiling ({', '.join(sources)})"


def _memory_line(names: Sequence[str], costs: Sequence[Cost]) -> str:
    largest = max(costs, key=lambda cost: cost.memory)
    each = largest.memory / 2**20
    return (
        f"memory: at least {each:.3g} MiB in each of {len(names)} processes, plus their libraries "
        f"(the largest case: {largest.case.label()})"
    )
