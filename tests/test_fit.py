"""A run with a time to fit ends within it, whatever calls take; what was measured is complete.  Time is made up."""

import dataclasses
import itertools
from collections import Counter

import pytest
from helpers.runs import NAMES, measured, of, planned
from helpers.stored_results import write

from rnnbench.choose.choose import Measurements, stored
from rnnbench.measure import expectations, fit
from rnnbench.measure import round as round_module
from rnnbench.measure import run as run_module
from rnnbench.measure.budget import budget
from rnnbench.measure.forecast import Forecast, TimeLeft
from rnnbench.measure.ledger import Ledger
from rnnbench.measure.plan import Plan
from rnnbench.measure.prices import COMPILE, GATE, PREPARE, REFERENCE, START, TIME, Prices
from rnnbench.results.reader import read
from rnnbench.results.rows import End, Failure, Memory, Spent, Time
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case

pytestmark = pytest.mark.usefixtures("machine_at_rest")

CASES = [Case("lstm", "step", T, 32, 128, 128) for T in (10, 20, 40, 80, 160)]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    for module in (expectations, fit, round_module, run_module):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def slow(workers, clock, monkeypatch):
    """Make each request take ``factor`` times what the plan expects of it; gives what the plan expects of the whole."""
    answers = workers.ask

    def set_up(plan: Plan, factor: float) -> float:
        found = budget(plan, Measurements(()))
        stages = {"prepare": PREPARE, "gate": GATE, "expect": REFERENCE, "memory": "memory"}

        def ask(self, call, time_limit, **arguments):
            given = arguments.get("problem", {}).get("case")
            if given:
                self.case = Case(**{key: value for key, value in given.items() if key in Case.__struct_fields__})
            case = getattr(self, "case", None)
            if call in stages and case:
                clock.now += factor * found.prices.of(stages[call], case, self.backend)
            elif call == "sample":
                clock.now += factor * found.prices.of(TIME, case, self.backend) / plan.settings.samples
            return answers(self, call, time_limit, **arguments)

        def greeting(self, time_limit):
            clock.now += found.prices.of(START) / len(NAMES)
            return {}

        monkeypatch.setattr(workers, "ask", ask)
        monkeypatch.setattr(workers, "greeting", greeting)
        return found.seconds(plan.settings.rounds)

    return set_up


def within(plan: Plan, limit: float) -> Plan:
    """The plan with a time to fit, after its backends were asked what they can run."""
    return dataclasses.replace(plan, settings=dataclasses.replace(plan.settings, fit=limit)).with_capabilities()


def assert_whole(contents) -> Counter:
    """Each case has all backends in each of its rounds; return the number of rounds by case."""
    found = {(row.case, row.round): set() for row in of(Time, contents)}
    for row in of(Time, contents):
        found[row.case, row.round].add(row.backend)
    assert all(names == set(NAMES) for names in found.values())
    assert of(Failure, contents) == []
    assert contents.rows[-1].interrupted is False
    return Counter(case for case, _ in found)


@pytest.mark.parametrize("factor", [0.5, 1, 2, 5, 20])
def test_a_run_ends_within_its_time_whatever_calls_take_and_its_cases_are_complete(slow, clock, tmp_path, factor):
    plan = planned(tmp_path, NAMES, CASES, rounds=6)
    limit = 1.2 * slow(plan, factor)
    plan = within(plan, limit)
    began = clock.now
    rounds = assert_whole(measured(plan))
    assert clock.now - began <= 1.1 * limit
    if factor <= 1:
        assert rounds == dict.fromkeys(CASES, 6)
    elif factor <= 5:
        assert 0 < rounds.total() < 6 * len(CASES)
        assert clock.now - began >= 0.6 * limit  # and most of it is used


def test_what_did_not_fit_is_named(slow, tmp_path):
    plan = planned(tmp_path, NAMES, CASES, rounds=6)
    limit = slow(plan, 5)
    plan = within(plan, limit)
    with Writer(plan.path) as writer:
        writer.append(plan.run)
        sentences = run_module.run(plan, writer, lambda *_: None)
    rounds = assert_whole(read(plan.path))
    for case in CASES:
        assert (f"left out to fit: {case.label()}" in sentences) is (case not in rounds)
    assert any("rounds" in sentence for sentence in sentences) is (min(rounds.values()) < 6)


def test_a_run_without_a_limit_leaves_nothing_out_however_long_it_takes(slow, tmp_path):
    plan = planned(tmp_path, NAMES, CASES, rounds=3)
    slow(plan, 50)
    contents = measured(plan)
    assert assert_whole(contents) == dict.fromkeys(CASES, 3)
    assert {(row.case, row.backend) for row in of(Memory, contents)} == set(itertools.product(CASES, NAMES))


def test_the_time_left_follows_what_the_run_has_taken(slow, clock, tmp_path):
    """Calls take five times as long as expected; from a third of the run on, its end is told within a quarter."""
    plan = planned(tmp_path, NAMES, CASES, rounds=12)
    slow(plan, 5)
    began, told = clock.now, []
    measured(plan, lambda *progress: told.append((clock.now, progress[3])))
    whole = clock.now - began
    late = [(now, left) for now, left in told if now - began > whole / 3]
    assert late
    for now, left in late:
        assert now + left - began == pytest.approx(whole, rel=0.25)


def test_the_shown_time_left_does_not_jump(clock):
    shown, ends = TimeLeft(clock.monotonic), []
    for second in range(60):
        ends.append(clock.now + shown.seconds(lambda second=second: (300 if second % 2 else 100) - second))
        clock.now += 1
    assert max(abs(b - a) for a, b in itertools.pairwise(ends)) < 25


# what an estimate rests on


def test_start_up_and_checks_are_those_of_the_newest_run_of_this_machine(tmp_path):
    spent = (Spent(COMPILE, "numba_cpu", 2, 90.0, 10.0), Spent(REFERENCE, "", 4, 6.0, 2.0))
    case = CASES[0]
    for year, end in ((2025, (Spent(COMPILE, "numba_cpu", 1, 1.0, 0.0),)), (2026, spent)):
        path = tmp_path / f"{year}.jsonl"
        others = (End("", 1.0, 0.0, spent=end),)
        write(path, {("numba_cpu", case): 1e-3}, others, started=f"{year}-01-01T00:00:00+00:00")
    plan = planned(tmp_path, NAMES, [case])
    found = stored(sorted(tmp_path.glob("*.jsonl")), plan.run.environment["machine"])
    prices, assumed = (budget(plan, measurements).prices for measurements in (found, Measurements(())))
    assert prices.of(COMPILE, case, "numba_cpu") == pytest.approx(40.0, rel=0.01)
    assert prices.of(REFERENCE, case) == pytest.approx(3 * assumed.of(REFERENCE, case))
    assert prices.of(GATE, case, "numpy_ref") == assumed.of(GATE, case, "numpy_ref")


def test_what_a_run_took_is_stored_and_makes_the_next_estimate(slow, clock, tmp_path):
    """Requests take five times what is expected; by its results the next run of the same cases is estimated well."""
    plan = planned(tmp_path, NAMES, CASES, rounds=3)
    slow(plan, 5)
    plan, began = plan.with_capabilities(), clock.now
    contents = measured(plan)
    taken = clock.now - began
    found = stored([contents.path], plan.run.environment["machine"])
    again = budget(planned(tmp_path, NAMES, CASES, "again", rounds=3), found)
    assert again.known == again.calls
    assert again.seconds(3) == pytest.approx(taken, rel=0.25)


def test_what_one_case_took_counts_more_for_it_than_for_others(tmp_path):
    plan = planned(tmp_path, NAMES, CASES, rounds=3)
    prices = Prices(plan.settings, {(case, name): 1.0 for case in CASES for name in NAMES})
    with Writer(plan.path) as writer:
        writer.append(plan.run)
        found = Forecast(plan, Ledger(plan, writer), prices)
    before = found.expected(TIME, CASES[0], "numpy_ref")
    found.add(TIME, CASES[0], "numpy_ref", 10 * before)
    found.add(TIME, CASES[1], "numpy_ref", before)
    own, others, another = (
        found.expected(TIME, case, name) for case, name in [(CASES[0], NAMES[0]), (CASES[2], NAMES[0]), (CASES[0], NAMES[1])]
    )
    assert own > 8 * before
    assert before < others < own
    assert another == before
