"""rnnbench compare: known differences are found, what is equal is not, and nothing is left out or compared in silence.

Takes 8 s.
"""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from helpers import stored_results

from rnnbench.compare.comparison import Comparisons, Times, aa_noise, compare_backends, compare_runs, times
from rnnbench.errors import ArgumentError
from rnnbench.results.reader import read
from rnnbench.results.rows import Failure, Gate, Run, Time
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case

CASES = [Case("lstm", "step", 16, 4, 8, H) for H in (8, 16, 32, 64)]
ENVIRONMENT = {
    "machine": "some-cpu-2c",
    "cpu": "Some CPU",
    "architecture": "x86_64",
    "cores": 2,
    "os": "Linux 6.1",
    "python": "3.11.9",
    "implementation": "cpython",
    "versions": {"rnnbench": "0.1", "numpy": "2.0", "numba": "0.61"},
    "commit": "0123456789abcdef",
    "dirty": False,
}
NOISE = 0.003
"""Standard deviation of a round's time, as a logarithm."""


@pytest.fixture
def results(tmp_path: Path):
    """Write a results file from the speed of each backend in each case, relative to 1 ms; gives its path."""
    written = 0

    def write(
        speeds: dict[str, list[float]], rows: tuple = (), rounds: int = 12, environment: dict | None = None, **settings: Any
    ) -> Path:
        nonlocal written
        written += 1
        rng = np.random.default_rng(written)
        path = tmp_path / f"{written}.jsonl"
        backends = {name: {"device": "cpu"} for name in speeds}
        whole = {"input": "text", "text_file": None} | settings
        with Writer(path) as writer:
            facts = ENVIRONMENT | (environment or {})
            writer.append(Run(path.stem, "2026-01-01T00:00:00+00:00", "own", [], whole, facts, backends, CASES))
            for number in range(rounds):
                machine = rng.lognormal(0, 0.1)  # shared by all that is measured in this round
                for backend, factors in speeds.items():
                    for case, factor in zip(CASES, factors, strict=False):
                        seconds = 1e-3 * factor * rng.lognormal(0, NOISE) * (machine if whole.get("wanders") else 1)
                        writer.append(Time(case, backend, number, 0, 1, [seconds * f for f in (0.99, 1.0, 1.5)]))
            for row in rows:
                writer.append(row)
        return path

    return write


def read_times(path: Path) -> Times:
    return times(read(path))


def compared(a: Path, b: Path, **options: Any) -> Comparisons:
    return compare_runs(read_times(a), read_times(b), **options)


def verdicts(outcome: Comparisons) -> dict[int, str]:
    return {row.case.H: row.verdict for row in outcome.rows}


# two runs


def test_a_known_difference_is_found_and_what_is_equal_is_the_same(results) -> None:
    outcome = compared(results({"a": [1, 1, 1, 1]}), results({"a": [1.1, 1.03, 1, 0.9]}))
    assert verdicts(outcome) == {8: "regression", 16: "regression", 32: "same", 64: "improvement"}
    assert [row.ratio for row in outcome.rows[:2]] == pytest.approx([1.1, 1.03], abs=4 * NOISE)
    assert outcome.counts() == {"regression": 2, "unclear": 0, "improvement": 1, "same": 1}
    for row in outcome.rows:
        assert row.low <= row.ratio <= row.high
        assert row.rounds == (12, 12)
        assert 0.95 <= row.coverage < 0.97


def test_a_difference_below_2_percent_is_no_regression_however_sure(results) -> None:
    outcome = compared(results({"a": [1]}, rounds=40), results({"a": [1.015]}, rounds=40))
    (row,) = outcome.rows
    assert row.low > 1
    assert row.verdict == "same"


def test_the_case_s_own_noise_is_allowed_where_it_is_more(results) -> None:
    a, b = results({"a": [1, 1]}), results({"a": [1.1, 1.1]})
    outcome = compared(a, b, noise={(CASES[0], "a"): np.log(1.2)})
    assert verdicts(outcome) == {8: "same", 16: "regression"}
    assert sorted(row.threshold for row in outcome.rows) == pytest.approx([1.02, 1.2])


def test_the_noise_of_a_case_is_read_from_a_comparison_with_itself(results, command) -> None:
    """Each round's ratio is 10% to one side or the other: the median of an A/A is that, in all but few comparisons."""
    noisy = results({"a": [1, 1], "a again": [1, 1]})
    contents = read(noisy)
    facts = contents.run.backends | {"a again": {"runs": "a", "slowed_by_percent": 0.0}}
    path = noisy.with_name("aa.jsonl")
    with Writer(path) as writer:
        writer.append(msgspec.structs.replace(contents.run, backends=facts))
        for number in range(12):
            for name, seconds in (("a", 1.0), ("a again", 1.1 if number % 2 else 1 / 1.1)):
                writer.append(Time(CASES[0], name, number, 0, 1, [seconds]))
    assert aa_noise(read_times(path)) == {(CASES[0], "a"): pytest.approx(np.log(1.1))}
    a, b = results({"a": [1, 1]}), results({"a": [1.05, 1.05]})
    assert "2 regressions" in command("compare", a, b)[1]
    out = command("compare", a, b, "--aa", path)[1]
    assert "1 regression, 0 unclear, 0 improvements, 1 same; a difference counts" in out
    assert "beyond 2%, in 1 noisier case beyond what A/A showed" in out
    code, _, err = command("compare", a, b, "--aa", a)
    assert (code, err) == (2, "rnnbench: 2.jsonl compares no backend with itself; expected a file of rnnbench self-test aa\n")


def test_a_planted_slowdown_is_no_noise(results) -> None:
    contents = read(results({"a": [1], "a again": [1.05]}))
    facts = contents.run.backends | {"a again": {"runs": "a", "slowed_by_percent": 5.0}}
    with pytest.raises(ArgumentError, match="compares no backend with itself"):
        aa_noise(times(contents._replace(run=msgspec.structs.replace(contents.run, backends=facts))))


def test_the_time_of_a_round_is_the_median_of_its_samples(results) -> None:
    one = read_times(results({"a": [1]}))
    assert one.seconds(CASES[0], "a")[0] == pytest.approx(1e-3, rel=5 * NOISE)  # the third sample took half as much again


def test_few_rounds_give_no_verdict(results) -> None:
    a, b = results({"a": [1]}, rounds=2), results({"a": [2]}, rounds=2)
    assert verdicts(compared(a, b)) == {8: "unclear"}
    assert verdicts(compared(results({"a": [1]}, rounds=5), results({"a": [2]}, rounds=5))) == {8: "regression"}


def test_each_backend_is_compared_with_itself_and_shares_the_5_percent_of_its_case(results) -> None:
    speeds = {name: [1, 1, 1, 1] for name in "abcde"}
    outcome = compared(results(speeds), results(speeds | {"c": [1, 1, 1.2, 1]}))
    assert [(row.backend, row.case.H) for row in outcome.rows if row.verdict == "regression"] == [("c", 32)]
    assert min(row.coverage for row in outcome.rows) >= 0.99


def test_what_one_backend_does_changes_no_p_value_of_another(results) -> None:
    """Cases are adjusted for within a backend: another's many regressions would make this one's look surer."""
    a = results({"a": [1, 1, 1, 1], "b": [1, 1, 1, 1]})
    b = results({"a": [1.05, 1.01, 1, 1], "b": [1, 1, 1, 1]})
    c = results({"a": [1.05, 1.01, 1, 1], "b": [2, 2, 2, 2]})
    alone, beside = ({row.case: row.p for row in compared(a, one).rows if row.backend == "a"} for one in (b, c))
    one = min(alone.values())
    assert one < 1e-5
    assert min(beside.values()) == pytest.approx(one)


def test_a_failure_is_told_and_its_times_do_not_count(results) -> None:
    crashed = Failure(CASES[0], "a", "time", "crashed", "killed", 3)
    wrong = Gate(CASES[1], "a", False, {"y": (1.0, 1e-6)}, 0.1)
    weighed = Failure(CASES[2], "a", "memory", "error", "no memory")
    a = results({"a": [1, 1, 1, 1]}, (Failure(CASES[3], "a", "time", "timeout", "too long"),))
    outcome = compared(a, results({"a": [5, 5, 1, 1]}, (crashed, wrong, weighed)))
    assert verdicts(outcome) == {32: "same"}
    assert sorted(outcome.newly_failed) == [
        f"{CASES[1].label()}, a: wrong in B",
        f"{CASES[0].label()}, a: crashed (killed) in B",
    ]
    assert outcome.left_out == [f"{CASES[3].label()}, a: timeout (too long) in A"]


def test_what_only_one_file_has_is_told(results) -> None:
    outcome = compared(results({"a": [1, 1, 1], "b": [1, 1]}), results({"a": [1, 1], "c": [1]}))
    assert outcome.left_out == ["only in A: 1 case of a, 2 cases of b", "only in B: 1 case of c"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cpu": "Other CPU"}, "cpu is 'Some CPU' in A and 'Other CPU' in B"),
        ({"machine": "other-2c"}, "machine is 'some-cpu-2c' in A and 'other-2c' in B"),
        ({"cores": 4}, "cores is 2 in A and 4 in B"),
        ({"affinity": "0"}, "affinity is None in A and '0' in B"),
        ({"python": "3.12.1"}, "python is '3.11.9' in A and '3.12.1' in B"),
        ({"versions": {"rnnbench": "0.1", "numpy": "2.0", "numba": "0.62"}}, "numba is '0.61' in A and '0.62' in B"),
        ({"versions": {"rnnbench": "0.1", "numpy": "2.0"}}, "numba is '0.61' in A and None in B"),
    ],
)
def test_other_machines_and_versions_are_refused_unless_asked_for(results, changed: dict, said: str) -> None:
    a, b = results({"a": [1]}), results({"a": [1]}, environment=changed)
    with pytest.raises(ArgumentError, match="were not measured alike") as caught:
        compared(a, b)
    assert said in str(caught.value)
    assert verdicts(compared(a, b, different_machines=True)) == {8: "same"}


def test_another_commit_or_version_of_rnnbench_is_what_compare_is_for(results) -> None:
    other = {"versions": ENVIRONMENT["versions"] | {"rnnbench": "0.2"}, "commit": "f" * 16, "dirty": True, "memory_gib": 7.7}
    assert verdicts(compared(results({"a": [1]}), results({"a": [1]}, environment=other))) == {8: "same"}


def test_other_work_and_nothing_in_common_are_refused(results) -> None:
    with pytest.raises(ArgumentError, match="A was run with input 'text' and B with 'noise'; expected the same"):
        compared(results({"a": [1]}), results({"a": [1]}, input="noise"), different_machines=True)
    with pytest.raises(ArgumentError, match="have no times of one case and backend in common"):
        compared(results({"a": [1]}), results({"b": [1]}))


# two backends of one run


def test_within_a_run_what_a_round_shares_cancels(results) -> None:
    """The machine wanders by 10% from round to round: the pairs do not see it, unpaired rounds do."""
    run = results({"a": [1, 1, 1], "b": [1.05, 1, 0.9]}, wanders=True)
    outcome = compare_backends(read_times(run), "a", "b")
    assert verdicts(outcome) == {8: "regression", 16: "same", 32: "improvement"}
    assert [(row.backend, row.other) for row in outcome.rows] == [("a", "b")] * 3
    assert outcome.rows[0].ratio == pytest.approx(1.05, abs=4 * NOISE)
    turned = compare_backends(read_times(run), "b", "a")
    assert verdicts(turned) == {8: "improvement", 16: "same", 32: "regression"}


def test_a_case_that_one_of_two_backends_failed_is_told(results) -> None:
    wrong = Gate(CASES[1], "b", False, {"y": (1.0, 1e-6)}, 0.1)
    crashed = Failure(CASES[0], "a", "time", "crashed", "killed", 3)
    outcome = compare_backends(read_times(results({"a": [1, 1, 1], "b": [1, 1, 1]}, (wrong, crashed))), "a", "b")
    assert verdicts(outcome) == {32: "same"}
    assert outcome.newly_failed == [f"{CASES[1].label()}: b wrong"]
    assert outcome.left_out == [f"{CASES[0].label()}: a crashed (killed)"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("a", "z"), "backend 'z' is not in 1.jsonl; expected two of a, b, c"),
        (("a", "a"), "the backends are both 'a'; expected two"),
        (("a", "c"), "a and c were never timed in one round of one case in 1.jsonl; c: unsupported (no)"),
    ],
)
def test_backends_that_cannot_be_compared_are_refused(results, names: tuple[str, str], said: str) -> None:
    run = results({"a": [1], "b": [1]}, (Failure(CASES[0], "c", "load", "unsupported", "no"),))
    with pytest.raises(ArgumentError) as caught:
        compare_backends(read_times(run), *names)
    assert str(caught.value) == said


# the command


def test_the_table_has_regressions_first_and_a_line_with_counts(results, command) -> None:
    a, b = results({"a": [1, 1, 1, 1]}), results({"a": [1, 0.9, 1.04, 1.1]})
    code, out, err = command("compare", a, b)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0] == f"A: {a}, commit 0123456789"
    assert lines[2].split() == ["case", "backend", "time", "B", "/", "A", "95%", "interval", "verdict"]
    assert [line.split()[-1] for line in lines[3:7]] == ["regression", "regression", "improvement", "same"]
    assert lines[3].startswith("lstm step T16 B4 I8 H64  a ")
    assert lines[7] == (
        "2 regressions, 0 unclear, 1 improvement, 1 same; a difference counts where its whole interval is beyond 2%"
    )
    assert lines[8].startswith("Two runs share no rounds")


def test_exit_codes_tell_of_regressions_and_of_cases_that_fail_only_where_asked(results, command) -> None:
    fine, slow = results({"a": [1, 1]}), results({"a": [1, 1.1]})
    failed = results({"a": [1, 1]}, (Failure(CASES[1], "a", "time", "crashed", "killed"),))
    assert command("compare", fine, slow)[0] == 0
    assert command("compare", fine, slow, "--fail-if", "regression")[0] == 1
    assert command("compare", slow, fine, "--fail-if", "regression")[0] == 0
    assert command("compare", fine, failed)[0] == 0
    code, out, _ = command("compare", fine, failed, "--fail-if", "regression")
    assert code == 3
    assert f"failed since: {CASES[1].label()}, a: crashed (killed) in B" in out
    assert command("compare", failed, fine, "--fail-if", "regression")[0] == 0


def test_json_holds_what_the_table_says(results, command) -> None:
    a, b = results({"a": [1, 1]}), results({"a": [1, 1.1]})
    code, out, _ = command("compare", a, b, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["counts"] == {"regression": 1, "unclear": 0, "improvement": 0, "same": 1}
    assert found["paired"] is False
    row = found["rows"][0]
    assert (row["label"], row["case"]["H"], row["backend"], row["verdict"]) == (CASES[1].label(), 16, "a", "regression")
    assert row["low"] < row["ratio"] < row["high"]
    paired = json.loads(command("compare", results({"a": [1], "b": [1]}), "--backends", "a", "b", "--json")[1])
    assert paired["paired"] is True


def test_a_folder_stands_for_its_newest_file_and_bad_lines_are_told(results, tmp_path: Path, command) -> None:
    first = results({"a": [1]})
    folder = tmp_path / "folder" / "machine"
    folder.mkdir(parents=True)
    results({"a": [1]}).rename(folder / "20260101.jsonl")
    newest = results({"a": [1.2]}).rename(folder / "20260102.jsonl")
    with newest.open("ab") as file:
        file.write(b"not json\n")
    code, out, err = command("compare", first, folder.parent)
    assert code == 0
    assert out.splitlines()[1].startswith(f"B: {newest}")
    assert "1 regression," in out
    assert err.startswith("rnnbench: 20260102.jsonl:")
    assert "not a row" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "0 results files given; expected two, A and B, or one with --backends X Y"),
        (("A",), "1 results file given; expected two, A and B, or one with --backends X Y"),
        (("A", "A", "A"), "3 results files given; expected two"),
        (("A", "A", "--backends", "a", "b"), "2 results files given; expected two, A and B, or one with"),
        (("A", "--backends", "a"), "requires 2 arguments"),
        (("A", "A", "--fail-if", "slow"), "invalid choice: 'slow'"),
        (("A", "--backends", "a", "b", "--different-machines"), "--different-machines with --backends; expected one of both"),
    ],
)
def test_a_wrong_call_is_one_line(results, command, arguments: tuple[str, ...], said: str) -> None:
    run = results({"a": [1], "b": [1]})
    code, out, err = command("compare", *(run if argument == "A" else argument for argument in arguments))
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_missing_file_is_one_line(results, command) -> None:
    code, _, err = command("compare", results({"a": [1]}), "absent")
    assert code == 4
    assert err == "rnnbench: no results at absent; expected a .jsonl file, or a folder that holds some\n"


def test_two_backends_on_two_devices_are_compared_under_their_names_and_devices(tmp_path, command):
    times = {("a", CASES[0]): [1e-3] * 6, ("b", CASES[0]): [2e-3] * 6}
    file = stored_results.write(tmp_path / "run.jsonl", times, about={"b": {"device": "a GPU"}})
    code, out, _ = command("compare", "--backends", "a", "b", str(file))
    assert (code, out.splitlines()[:2]) == (0, ["A: a on cpu", "B: b on a GPU"])
    file = stored_results.write(tmp_path / "same.jsonl", times)
    assert command("compare", "--backends", "a", "b", str(file))[1].splitlines()[:2] == ["A: a", "B: b"]
