"""What a run would take, before anything is measured: seconds and bytes of each case, and which cases fit a time."""

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
"""Operations per second of a backend that no stored result tells about: a small network on one core."""

DEVICE_RATE = 1e12
"""The same of one on another device than the CPU: a recurrence leaves most of a GPU idle."""

REFERENCE_RATE = 1e9
"""Operations per second of the reference, a loop in float64."""

MIN_CALL_SECONDS = 2e-5  # seconds, however few the operations
HANDLING = 0.02  # seconds of a request for a case: weights, inputs, comparison with the reference
START = 2.0  # seconds in which the processes of a round start
CALLS_TO_CHECK, CALLS_TO_WARM_UP, CALLS_FOR_MEMORY = 2, 2, 2


class Cost(NamedTuple):
    """What one case takes on all its backends: seconds of a round and of what is done once, and bytes of one network."""

    case: Case
    backends: tuple[str, ...]
    round: float
    once: float
    memory: int


class Budget(NamedTuple):
    """What a run takes; ``known`` of ``calls`` (case, backend) pairs come from stored results, the others from a rate."""

    costs: list[Cost]
    known: int
    calls: int

    def seconds(self, rounds: int) -> float:
        groups = len({cost.case.threads for cost in self.costs})
        return sum(cost.once + rounds * cost.round for cost in self.costs) + (rounds + 1) * groups * START


def budget(plan: Plan, stored: Measurements) -> Budget:
    """Estimate every case of a plan from results of this machine where they serve, else from a stated rate."""
    plan = plan.asked()
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
    """What cases take on one backend that runs at the stated rate, without asking any backend or stored result."""
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
    said = plan.answers[name]
    return not said.absent and case not in said.refusals


def _cost(settings: Settings, case: Case, seconds: Mapping[str, float], flops: int, memory: int) -> Cost:
    rounds, fastest = 0.0, min(seconds.values(), default=1.0)
    for one in seconds.values():
        loops = 2 ** max(0, math.ceil(math.log2(min(settings.shortest_sample / fastest, MAX_SAMPLE_SECONDS / one))))
        calls = CALLS_TO_CHECK + CALLS_TO_WARM_UP + settings.samples * (loops + min(1, loops - 1))
        rounds += calls * one + HANDLING
    once = sum(CALLS_FOR_MEMORY * one + HANDLING for one in seconds.values()) + flops / REFERENCE_RATE
    return Cost(case, tuple(seconds), rounds, once, memory)


def fitting(whole: Budget, seconds: float, rounds: int) -> tuple[list[Case], list[Cost]]:
    """The cases that are left, and those that were dropped, the most expensive first; raises ArgumentError for none left."""
    by_cost = sorted(whole.costs, key=lambda cost: cost.once + rounds * cost.round, reverse=True)
    for number in range(len(by_cost)):
        left = whole._replace(costs=by_cost[number:])
        if left.seconds(rounds) <= seconds:
            dropped = by_cost[:number]
            gone = {cost.case for cost in dropped}
            return [cost.case for cost in whole.costs if cost.case not in gone], dropped
    least = whole._replace(costs=by_cost[-1:]).seconds(rounds)
    raise ArgumentError(f"--fit is {duration_of(seconds)}; the cheapest case alone needs about {duration_of(least)}")


def duration_of(seconds: float) -> str:
    """``3 h 20 min``, ``12 min``, ``40 s``."""
    if seconds < 120:
        return duration(round(seconds, 1))
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def described(plan: Plan, whole: Budget) -> list[str]:
    """The lines of a dry run."""
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
    how = f"{whole.known} of {whole.calls} calls as stored results have them, " if whole.known else ""
    how += (
        ""
        if whole.known == whole.calls
        else f"{'the others' if whole.known else 'calls'} at {' or '.join(f'{rate / 1e9:g}' for rate in rates)} GFLOP/s"
    )
    return f"time: about {least if least == longest else f'{least} to {longest}'}, without compiling ({how.rstrip(', ')})"


def _memory_line(names: Sequence[str], costs: Sequence[Cost]) -> str:
    largest = max(costs, key=lambda cost: cost.memory)
    each = largest.memory / 2**20
    return (
        f"memory: at least {each:.3g} MiB in each of {len(names)} processes, besides their libraries "
        f"(the largest case: {largest.case.label()})"
    )
