"""What textbooks say, and whether it holds: the verdict follows from the intervals."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from helpers.report_runs import END, times, written

from rnnbench.reports import textbook_claims, to_markdown, to_pandas
from rnnbench.reports.claims import SERIAL
from rnnbench.reports.page import render
from rnnbench.results.rows import Memory, Row
from rnnbench.suite.case import Case

STEPS = [Case("lstm", "step", T, 8, 64, 64) for T in (32, 64, 128, 256)]


def judged(tmp_path: Path, cases: list[Case], seconds: Callable[[Case], float], rounds: int = 6, extra=()) -> pd.DataFrame:
    rows: list[Row] = [row for case in cases for row in times("a", [seconds(case)] * rounds, case)]
    return textbook_claims(to_pandas(written(tmp_path, [*rows, *extra, END], cases=cases, backends=["a"])))


@pytest.mark.parametrize(
    ("power", "rounds", "verdict"),
    [(1.0, 6, "holds"), (1.1, 6, "holds"), (1.3, 6, "does not hold"), (0.5, 6, "does not hold"), (1.0, 5, "unclear")],
)
def test_time_over_steps_holds_where_its_interval_is_near_one(tmp_path, power, rounds, verdict):
    found = judged(tmp_path, STEPS, lambda case: 1e-6 * case.T**power, rounds).iloc[0]
    assert found["sentence"] == "BPTT takes time proportional to the number of steps T."
    assert found["verdict"] == verdict
    assert found["measured"].startswith(f"T^{power:.2f}")
    assert found["fixed"] == "B = 8, H = 64"


def test_a_fit_whose_interval_is_wide_is_unclear(tmp_path):
    found = judged(tmp_path, STEPS, lambda case: 1e-6 * case.T * {32: 1, 64: 1.7, 128: 0.8, 256: 1.2}[case.T])
    assert list(found["verdict"]) == ["unclear"]


def test_two_points_make_no_line(tmp_path):
    assert judged(tmp_path, STEPS[:2], lambda case: 1e-6 * case.T).empty


def test_memory_is_judged_by_what_a_call_took(tmp_path):
    memory = [Memory(case, "a", 1000 * case.T) for case in STEPS]
    found = judged(tmp_path, STEPS, lambda case: 1e-6 * case.T, extra=memory)
    row = found[found["sentence"].str.contains("memory")].iloc[0]
    assert row["measured"] == "T^1.00 [1.00, 1.00]"
    assert row["verdict"] == "holds"


def test_time_over_the_hidden_size_is_of_cases_whose_input_size_follows(tmp_path):
    cases = [Case("gru", "step", 4, 2, H, H) for H in (32, 64, 128)]
    found = judged(tmp_path, cases, lambda case: 1e-9 * case.H**2)
    assert list(found["measured"]) == ["H^2.00 [2.00, 2.00]"]
    assert list(found["verdict"]) == ["holds"]


@pytest.mark.parametrize(("gain", "verdict"), [(1.0, "holds"), (1.5, "does not hold")])
def test_a_second_thread_gains_nothing_for_one_sequence_or_the_sentence_does_not_hold(tmp_path, gain, verdict):
    cases = [Case("lstm", "step", 64, 1, 32, 32, threads=threads) for threads in (1, 2)]
    found = judged(tmp_path, cases, lambda case: 1.0 if case.threads == 1 else 1 / gain)
    assert list(found["sentence"]) == [SERIAL]
    assert list(found["verdict"]) == [verdict]


def test_the_page_and_the_markdown_have_the_table_where_there_is_something_to_say(tmp_path):
    rows: list[Row] = [row for case in STEPS for row in times("a", [1e-6 * case.T] * 6, case)]
    (tmp_path / "one").mkdir()
    with_line = render(to_pandas(written(tmp_path, [*rows, END], cases=STEPS, backends=["a"])))
    without = render(to_pandas(written(tmp_path / "one", [*times("a", [1.0] * 6), END], backends=["a"])))
    assert "BPTT takes time proportional to the number of steps T." in with_line
    assert "| BPTT takes time proportional to the number of steps T. | a | lstm |" in to_markdown(
        to_pandas(tmp_path / "own.jsonl")
    )
    assert 'id="claims"' not in without
