"""What a run will do: how many rounds, which cases, and what they take."""

import pytest
from helpers.runs import GOOD, NAMES, WIDE, measured, planned, planned_by, planned_without_backends
from helpers.stored_results import write

import rnnbench
from rnnbench.choose.choose import Measurements, stored
from rnnbench.cli.common import seconds
from rnnbench.cli.main import main
from rnnbench.compare.intervals import MAX_ROUNDS, MIN_ROUNDS
from rnnbench.measure import plan as plan_module
from rnnbench.measure.budget import budget, fitting
from rnnbench.measure.plan import Settings, quicker, rigorous, until_narrow
from rnnbench.results.merging import merge_contents
from rnnbench.suite.suite import load_suite

SUITE = """
name = "small"
description = "d"
source = "s"
{settings}
[[grid]]
cell = ["elman", "lstm"]
phase = "step"
T = [3, 30]
B = 2
I = 3
H = [4, 40]
threads = [1, 2]
"""


@pytest.fixture
def suite(tmp_path):
    """Writes a suite of 16 cases and gives its path."""

    def write(settings: str = "") -> str:
        path = tmp_path / "small.toml"
        path.write_text(SUITE.format(settings=settings))
        return str(path)

    return write


def test_the_rounds_of_a_run_are_those_of_the_stopping_rule():
    known = until_narrow(Settings())
    assert (known.rounds, known.most) == (MIN_ROUNDS, MAX_ROUNDS)
    assert (rigorous(known).rounds, rigorous(known).most) == (20, MAX_ROUNDS)
    assert quicker(known).rounds == quicker(known).most == 5


def test_the_rounds_that_a_suite_or_the_command_line_asks_for_are_fixed(suite):
    asked = {(): (12, 40), ("--rigorous",): (20, 40), ("--quick",): (5, None), ("--rounds", "7"): (7, None)}
    for given, rounds in asked.items():
        settings = planned_by(suite(), *given).settings
        assert (settings.rounds, settings.most_rounds) == rounds
    assert planned_by(suite("[settings]\nrounds = 3"), "--rigorous").settings.rounds == 20
    settings = planned_by(suite("[settings]\nrounds = 3")).settings
    assert (settings.rounds, settings.most) == (3, 3)


@pytest.mark.parametrize("other", ["--quick", "--rounds 3"])
def test_rigorous_beside_another_number_of_rounds_is_refused(capsys, suite, other):
    assert main(["run", suite(), "--rigorous", *other.split()]) == 2
    assert capsys.readouterr().err == f"rnnbench: {other.split()[0]} with --rigorous; expected one of both\n"


# which cases, and what they take


def test_filter_keeps_the_cases_whose_label_has_the_text(suite):
    plan = planned_by(suite(), "--filter", "lstm step T3 ")
    assert {(case.cell, case.T) for case in plan.run.cases} == {("lstm", 3)}
    assert len(plan.run.cases) == 4
    assert plan.run.settings["filter"] == "lstm step T3 "


def test_a_filter_that_no_case_has_is_refused_with_some_labels(capsys, suite):
    assert main(["run", suite(), "--filter", "gru"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("rnnbench: no case has 'gru' in its label; labels are 'elman step T3 B2 I3 H4', ")


def test_threads_replaces_the_threads_of_every_case_and_leaves_no_case_twice(suite):
    whole = planned_by(suite()).run.cases
    plan = planned_by(suite(), "--threads", "1")
    assert len(whole) == 16
    assert plan.run.cases == [case for case in whole if case.threads == 1]
    assert plan.run.settings["threads"] == 1


def test_more_threads_than_cores_are_refused(capsys, suite):
    assert main(["run", suite(), "--threads", "4096"]) == 2
    assert "--threads is 4096; expected at most " in capsys.readouterr().err


@pytest.mark.parametrize(("given", "expected"), [("90s", 90), ("10m", 600), ("1.5h", 5400)])
def test_a_time_to_fit_has_a_unit(given, expected):
    assert seconds(given) == expected


@pytest.mark.parametrize("given", ["10", "m", "-1m", "0s", "1d", "1m30s", ""])
def test_a_time_without_a_unit_is_refused(capsys, given):
    assert main(["run", f"--fit={given}"]) == 2
    assert "is no time; expected a number and s, m or h, as in 10m" in capsys.readouterr().err


NOTHING_STORED = Measurements([])


def test_fit_leaves_out_the_most_expensive_cases_and_no_more_than_it_must(suite):
    whole = budget(planned_by(suite()), NOTHING_STORED)
    limit = whole.seconds(12) * 0.9
    cases, dropped = fitting(whole, limit, 12)
    left = whole._replace(costs=[cost for cost in whole.costs if cost.case in cases])
    assert left.seconds(12) <= limit < whole._replace(costs=[*left.costs, dropped[-1]]).seconds(12)
    assert len(left.costs) + len(dropped) == len(whole.costs)
    assert min(cost.round for cost in dropped) >= max(cost.round for cost in left.costs)
    assert [cost.case for cost in left.costs] == cases  # in the suite's order


def test_fit_says_what_it_left_out_and_stores_the_cases_that_are_left(capsys, suite):
    whole = budget(planned_by(suite(), "--rounds", "3"), NOTHING_STORED)
    plan = planned_by(suite(), "--rounds", "3", "--fit", f"{whole.seconds(3) * 0.95}s")
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert len(plan.run.cases) + len(lines) == 16
    for case in whole.costs:
        named = any(line.startswith(f"rnnbench: left out to fit: {case.case.label()}, about ") for line in lines)
        assert named is (case.case not in plan.run.cases)


def test_a_time_that_no_case_fits_is_refused(capsys, suite):
    assert main(["run", suite(), "--backends", "numpy_ref", "--fit", "1s"]) == 2
    assert "--fit is 1 s; the cheapest case alone needs about " in capsys.readouterr().err


def test_the_estimate_takes_stored_results_where_they_serve_and_a_rate_elsewhere(suite, tmp_path):
    plan = planned_by(suite(), "--filter", "H40")
    case = plan.run.cases[0]
    path = write(tmp_path / "before.jsonl", {("numpy_ref", case): [2.0] * 3})
    found = budget(plan, stored([path], plan.run.environment["machine"]))
    served = [cost for cost in found.costs if (cost.case.cell, cost.case.threads) == (case.cell, case.threads)]
    assert (found.known, found.calls) == (len(served), len(plan.run.cases)) == (2, 8)
    assert served[0].round == pytest.approx(2.0 * (2 + 2 + plan.settings.samples), rel=0.01)
    assert max(cost.round for cost in found.costs if cost not in served) < 1


def test_a_dry_run_prints_cases_backends_rounds_time_and_memory_and_runs_nothing(capsys, suite, tmp_path, workers):
    folder = tmp_path / "none"
    assert main(["run", suite(), "--backends", "numpy_ref", "--threads", "1", "--dry-run", "-o", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "suite small: 8 cases, 12 to 40 rounds, 5 samples a round"
    assert lines[1] == "  numpy_ref"
    assert [line.split("  ")[1] for line in lines[2:10]] == [
        case.label() for case in planned_by(suite(), "--threads", "1").run.cases
    ]
    assert lines[10].startswith("time: about ")
    assert lines[11].startswith("memory: at least ")
    assert not folder.exists()
    assert {call for _, call, _ in workers.log} == {"code", "supports"}


def test_runs_of_other_cases_of_one_suite_can_be_merged(workers, tmp_path):
    """Which cases were chosen is no part of how they were measured."""
    both = [
        measured(planned(tmp_path, NAMES, [case], name, filter=name, rounds=1)) for name, case in {"a": GOOD, "b": WIDE}.items()
    ]
    assert merge_contents(both).run.cases == [GOOD, WIDE]


# who takes part

NO_CUDA = next(entry.reason for entry in rnnbench.peers() if entry.name == "torch_cuda")


@pytest.mark.skipif(NO_CUDA is None, reason="torch_cuda can run here")
def test_the_backends_of_a_suite_take_part_peers_too_unless_the_command_line_names_others(suite):
    given = suite('[settings]\nbackends = ["torch_cuda", "torch_nn_numpy", "numpy_ref"]')
    plan = planned_without_backends(given)
    assert list(plan.run.backends) == ["torch_cuda", "torch_nn_numpy", "numpy_ref"]
    assert plan.run.backends["torch_cuda"] == {"unavailable": NO_CUDA}
    assert "numpy_ref" in plan.names
    assert "backends" not in plan.run.settings
    assert planned_by(given).names == ["numpy_ref"]


def test_an_unknown_backend_of_a_suite_is_refused_by_its_name(suite, command):
    code, _, err = command("run", suite('[settings]\nbackends = ["numpy_ref", "nobody"]'))
    assert (code, err.splitlines()[0].split(";")[0]) == (2, "rnnbench: unknown backend 'nobody'")


def test_where_none_of_a_suites_backends_can_run_one_line_has_all_their_reasons(command):
    names = load_suite("gpu-quick").settings.backends or ()
    reasons = {entry.name: entry.reason for entry in rnnbench.backends() + rnnbench.peers()}
    if not all(reasons[name] for name in names):
        pytest.skip("a backend of gpu-quick can run here")
    for name in ("gpu-quick", "gpu-grid"):
        code, out, err = command("run", name)
        assert (code, out) == (4, "")
        (line,) = err.splitlines()
        assert line == f"rnnbench: no backend of suite {name} can run here: {'; '.join(str(reasons[one]) for one in names)}"


@pytest.mark.skipif(NO_CUDA is None, reason="torch_cuda can run here")
def test_where_no_backend_at_all_can_run_it_says_why_too(command, suite, monkeypatch):
    monkeypatch.setattr(plan_module, "registered", lambda *_: {"torch_cuda": None})
    code, _, err = command("run", suite())
    assert (code, err) == (4, f"rnnbench: no backend can run here: {NO_CUDA}\n")


def test_suites_lists_the_backends_that_a_suite_names(command):
    code, out, _ = command("suites")
    assert code == 0
    lines = out.splitlines()
    (place,) = (number for number, line in enumerate(lines) if line.startswith("gpu-quick "))
    assert lines[place + 1].split() == ["backends:", "numba_cuda,", "torch_cuda,", "jax_cuda"]
    assert "backends: numba_cuda, torch_cuda, jax_cuda" in command("suites", "gpu-quick")[1].splitlines()


def test_what_runs_on_another_device_is_not_expected_to_be_as_slow_as_a_core(suite, planted):
    name = planted(module="def info():\n    return {'device': 'a GPU'}")
    there = budget(planned_without_backends(suite(), "--backends", name), NOTHING_STORED)
    here = budget(planned_by(suite()), NOTHING_STORED)
    assert max(cost.round for cost in there.costs) < max(cost.round for cost in here.costs)
