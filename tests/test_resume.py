"""What a run that goes on takes up: the same code alone, with nothing told twice."""

import itertools
import os
from collections import Counter

import pytest
from helpers.runs import GOOD, MANY, NAMES, interrupt_at, measured, of, planned
from helpers.wrapped_reference import backend_file

from rnnbench.errors import ArgumentError, StoreError
from rnnbench.measure.plan import Settings, new_plan, quicker, resumed_plan
from rnnbench.results.rows import Startup, Time
from rnnbench.suite.suite import Suite, SuiteSettings

SUITE = Suite("tiny", "d", "s", SuiteSettings(), [GOOD])
SETTINGS = Settings(rounds=2, samples=2, shortest_sample=1e-5, input="noise")


def begun(folder, name: str):
    """A run of a backend in a file that was interrupted; its results file."""
    plan = new_plan(SUITE, SETTINGS, [name], folder, ["rnnbench", "run"])
    with pytest.raises(KeyboardInterrupt):
        measured(plan, interrupt_at(1))
    return plan.path


def test_a_run_does_not_go_on_with_a_file_that_was_edited(tmp_path):
    name = backend_file(tmp_path / "mine.py")
    path = begun(tmp_path, name)
    assert resumed_plan(path).path == path
    backend_file(tmp_path / "mine.py", "\n# edited\npass")
    with pytest.raises(StoreError, match=r"cannot go on with .*: the code of .*mine\.py was \w{16} and is \w{16}; start a new"):
        resumed_plan(path)


def test_nor_with_one_whose_neighbour_was(tmp_path):
    """The file's folder is on the path of its worker, wherever the run was started."""
    (tmp_path / "neighbour_of_mine.py").write_text("FACTOR = 1\n")
    name = backend_file(tmp_path / "mine.py", module="from neighbour_of_mine import FACTOR\n")
    path = begun(tmp_path, name)
    assert len(of(Time, measured(resumed_plan(path)))) == 2
    (tmp_path / "neighbour_of_mine.py").write_text("FACTOR = 2\n")
    with pytest.raises(StoreError, match="the code of "):
        resumed_plan(path)


def installed(folder, version: str) -> None:
    for old in folder.glob("*.dist-info/METADATA"):
        old.write_text(f"Metadata-Version: 2.1\nName: theirs\nVersion: {version}\n")
        return
    facts = folder / "theirs-1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: theirs\nVersion: {version}\n")
    (facts / "entry_points.txt").write_text("[rnnbench.peers]\nof_theirs = of_theirs\n")
    backend_file(folder / "of_theirs.py")


def test_nor_with_a_package_of_another_version(tmp_path, monkeypatch):
    installed(tmp_path, "1.0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    path = begun(tmp_path, "of_theirs")
    resumed_plan(path)
    installed(tmp_path, "1.1")
    with pytest.raises(StoreError, match=r"the package of of_theirs was theirs 1\.0 and is theirs 1\.1; start a new run"):
        resumed_plan(path)


def test_a_run_goes_on_with_the_variables_that_it_was_given_and_not_without(tmp_path, monkeypatch):
    monkeypatch.setenv("A_BACKEND_S_OWN", "7")
    name = backend_file(tmp_path / "mine.py", module="import os\nSEEN = os.environ['A_BACKEND_S_OWN']\n")
    settings = Settings(rounds=1, samples=2, shortest_sample=1e-5, input="noise", env=["A_BACKEND_S_OWN"])
    plan = new_plan(SUITE, settings, [name], tmp_path, ["rnnbench", "run"])
    assert len(of(Time, measured(plan))) == 1
    assert resumed_plan(plan.path).settings.env == ["A_BACKEND_S_OWN"]
    monkeypatch.delenv("A_BACKEND_S_OWN")
    with pytest.raises(ArgumentError, match="--env is 'A_BACKEND_S_OWN'; expected the name of a variable that is set"):
        resumed_plan(plan.path)


def test_a_start_up_is_told_once_a_round_however_often_a_run_ends(workers, tmp_path):
    plan = planned(tmp_path, NAMES, MANY, rounds=2)
    with pytest.raises(KeyboardInterrupt):
        measured(plan, interrupt_at(2))
    for unit in itertools.count(3):
        try:
            contents = measured(resumed_plan(plan.path), interrupt_at(unit))
        except KeyboardInterrupt:
            continue
        break
    told = Counter((row.backend, row.case.cell, row.round) for row in of(Startup, contents))
    assert set(told.values()) == {1}
    assert set(told) == set(itertools.product(NAMES, ("elman", "lstm"), range(2)))


def test_a_quick_run_that_goes_on_repeats_nothing_either(workers, tmp_path, monkeypatch):
    answers = workers.ask

    def ask(self, call, time_limit, **arguments):
        answer = answers(self, call, time_limit, **arguments)
        return {**answer, "events": {"steal": 1.0}} if call == "sample" else answer

    monkeypatch.setattr(workers, "ask", ask)
    plan = planned(tmp_path, NAMES, [GOOD], rounds=2, vain_repeats=quicker(Settings()).vain_repeats)
    with pytest.raises(KeyboardInterrupt):
        measured(plan, interrupt_at(1))
    rows = of(Time, measured(resumed_plan(plan.path)))
    assert Counter((row.backend, row.round) for row in rows) == dict.fromkeys(itertools.product(NAMES, range(2)), 1)
