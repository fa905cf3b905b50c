"""The sentences of a report: what is claimed of a run, and what is not.  About 5 s."""

from pathlib import Path

import pytest
from helpers import synthetic_results
from helpers.report_runs import CASE, END, Elements, said, times, written

from rnnbench.reports import page, summary_text, to_pandas
from rnnbench.reports.summary import summary
from rnnbench.results.rows import Failure, Gate, Startup, Time, Truncation
from rnnbench.suite.case import Case


def test_a_win_a_tie_and_a_loss_are_called_so(tmp_path: Path) -> None:
    cases = [Case("lstm", "step", T, 1, 1, 1) for T in (10, 20, 30)]
    wobble = [1.0, 1.01, 0.99, 1.0, 1.02, 0.98]
    rows = [
        *times("a", [1.0] * 6, cases[0]), *times("b", [3.0] * 6, cases[0]),
        *times("a", [1.0] * 6, cases[1]), *times("b", wobble, cases[1]),
        *times("a", [2.0] * 6, cases[2]), *times("b", [1.0] * 6, cases[2]),
        END,
    ]  # fmt: skip
    text = said(written(tmp_path, rows, cases=cases))
    assert (
        "For a training step (forward and BPTT), a is fastest in 1 of 3 cases, b in 1; 1 case is tied between a and b." in text
    )
    assert "lstm: a is fastest in 1 of 3 cases, b in 1 (T = 30); 1 case is tied between a and b (T = 20)." in text
    assert "b runs at 1× the speed of a (0.33× to 2×): faster in 1, slower in 1, the same in 1 of 3 cases." in text  # noqa: RUF001
    assert "Every backend completed every case." in text


def test_a_clear_lead_has_its_size_and_how_sure_it_is_against_what_people_would_use_instead(tmp_path: Path) -> None:
    cases = [Case("lstm", "step", T, 1, 1, 1) for T in (10, 20, 30)]
    rows = [row for case in cases for row in times("a", [1.0] * 6, case)]
    rows += [row for case in cases for row in times("b", [1.5] * 6, case)]
    for case, slower in zip(cases, (2.0, 4.0, 3.0), strict=True):
        rows += times("torch_nn", [slower, slower, 1.1 * slower, slower, slower / 1.1, slower], case)
    text = said(written(tmp_path, [*rows, END], cases=cases, backends=["a", "b", "torch_nn"]))
    assert "a is fastest in all 3 cases. a is 3 times as fast as torch_nn in the median of 3 cases (2 to 4 times)" in text
    assert ", known to within 10%.\n" in text


def test_without_it_the_lead_is_told_against_the_closest_rival(tmp_path: Path) -> None:
    rows = [*times("a", [1.0] * 6), *times("b", [1.5] * 6), *times("c", [4.0] * 6)]
    text = said(written(tmp_path, [*rows, END], backends=["a", "b", "c"]))
    assert "a is fastest in the only case. a is 1.5 times as fast as b, known to within 0%." in text


def test_where_most_comparisons_are_unclear_no_lead_is_told(tmp_path: Path) -> None:
    rows = [*times("a", [1.0] * 6), *times("b", NOISE)]
    assert "times as fast" not in said(written(tmp_path, [*rows, END]))


NOISE = [0.3, 2.0, 0.5, 0.4, 3.0, 0.5]  # median 0.5, interval from 0.3 to 3


def test_a_noisy_comparison_is_unclear_and_no_tie(tmp_path: Path) -> None:
    cases = [Case("lstm", "step", T, 1, 1, 1) for T in (10, 20, 30, 40)]
    rows = [row for case in cases for row in times("a", [1.0] * 6, case)]
    rows += [*times("b", [3.0] * 6, cases[0]), *times("b", [1.01] * 6, cases[1])]
    rows += [row for case in cases[2:] for row in times("b", NOISE, case)]
    text = said(written(tmp_path, [*rows, END], cases=cases))
    assert "a is fastest in 1 of 4 cases; 1 case is tied between a and b, 2 are unclear." in text
    assert "1 case is tied between a and b (T = 20), 2 are unclear (T = 30; T = 40)." in text
    assert "slower in 1, the same in 1, unclear in 2 of 4 cases." in text


def test_a_tie_with_one_rival_is_unclear_while_another_may_be_faster(tmp_path: Path) -> None:
    rows = [*times("a", [1.0] * 6), *times("b", [1.01] * 6), *times("c", [2.2 * x for x in NOISE])]
    text = said(written(tmp_path, [*rows, END], backends=["a", "b", "c"]))
    assert "no backend is clearly fastest in the only case; 1 case is unclear." in text


def test_backends_that_were_never_timed_in_one_round_are_unclear(tmp_path: Path) -> None:
    other = [Time(CASE, "b", 10 + i, 0, 1, [5.0]) for i in range(6)]
    assert "1 case is unclear" in said(written(tmp_path, [*times("a", [1.0] * 6), *other, END]))


def test_a_slow_starter_catches_up_only_where_it_is_clearly_faster(tmp_path: Path) -> None:
    clear, noisy = Case("lstm", "step", 10, 1, 1, 1), Case("lstm", "step", 20, 1, 1, 1)
    rows = [*times("a", [1.0] * 6, clear), *times("b", [0.5] * 6, clear)]
    rows += [*times("a", [1.0] * 6, noisy), *times("b", NOISE, noisy)]
    for case in (clear, noisy):
        rows += [Startup(case, "a", 0, True, 0.5, 0.25, 0.25), Startup(case, "b", 0, True, 5.0, 2.0, 3.0)]
    text = said(written(tmp_path, [*rows, END], cases=[clear, noisy]))
    # 1 + (n - 1) * 1.0 = 10 + (n - 1) * 0.5 at n = 19
    assert "b, started with an empty cache, has caught up with a after 19 calls, where it is the faster one (1 case)." in text


def test_too_few_rounds_are_unclear(tmp_path: Path) -> None:
    text = said(written(tmp_path, [*times("a", [1.0] * 3), *times("b", [3.0] * 3), END]))
    assert "1 case is unclear" in text
    assert "Below 5 rounds every comparison is unclear." in text
    assert "a is fastest" not in text
    assert "with care: 3 rounds at most." in text
    assert "holds the median with 75.0%" in text


def test_failures_are_called_failures(grid: Path) -> None:
    text = summary_text(grid)
    assert "numba_cuda could not run on this machine: numba_cuda needs an NVIDIA GPU: none was found" in text
    assert "torch_nn does not support 4 cases." in text
    assert "numpy_ref ran out of time on 2 cases." in text
    assert "torch_eager crashed on 1 case." in text
    assert "torch_eager gave wrong results on 1 case." in text
    assert "3 lines of the results file could not be used" in text


def claim(path: Path, topic: str) -> str:
    """The sentence about a topic, without what carries it out."""
    (found,) = [answer.text for answer in summary(to_pandas(path)) if answer.topic == topic]
    return found


def test_a_few_missing_results_are_told_with_their_reasons_and_many_are_counted(grid: Path, tmp_path: Path) -> None:
    rows = [Failure(CASE, "b", "load", "unsupported", "no such cell"), *times("a", [1.0] * 6), END]
    assert claim(written(tmp_path, rows), "Failures") == "b does not support 1 case."
    assert "; 9 of 545 results are missing or do not count: torch_nn, numpy_ref and torch_eager." in claim(grid, "Failures")


def test_the_comparisons_that_came_out_clearly_are_counted(tmp_path: Path) -> None:
    cases = [Case("lstm", "step", T, 1, 1, 1) for T in (10, 20, 30, 40)]
    against = ([2.0] * 6, [1.0] * 6, NOISE, [2.0] * 6)  # slower, a tie, unclear, slower
    rows = [
        row
        for case, of_b in zip(cases, against, strict=True)
        for row in (*times("a", [1.0] * 6, case), *times("b", of_b, case))
    ]
    said_of_trust = claim(written(tmp_path, [*rows, END], cases=cases), "Trust")
    assert said_of_trust.endswith(" Of 4 comparisons with a, 3 gave a clear result: faster, slower or the same.")


@pytest.mark.parametrize(
    ("noisy", "which"),
    [
        (1, "lstm step T1 B1 I1 H1"),
        (3, "lstm step T1 B1 I1 H1, lstm step T2 B1 I1 H1 and lstm step T3 B1 I1 H1"),
        (4, "4 of 5 cases"),
        (5, "every case"),
    ],
)
def test_a_few_noisy_cases_are_named_and_many_are_counted(noisy: int, which: str, tmp_path: Path) -> None:
    cases = [Case("lstm", "step", T, 1, 1, 1) for T in range(1, 6)]
    rows = [row for case in cases for row in (*times("a", [1.0] * 6, case), *times("b", [2.0] * 6, case))]
    disturbed = [Time(case, "a", i, 0, 1, [9.0], None, True) for case in cases[:noisy] for i in range(2)]
    said_of_trust = claim(written(tmp_path, [*disturbed, *rows, END], cases=cases), "Trust")
    assert f"with care: the machine disturbed more than 20% of the rounds of {which}. Of 5" in said_of_trust


def test_the_window_of_a_single_network_is_claimed_of_that_network(tmp_path: Path) -> None:
    cases = [Case("lstm", "tbptt", 8, 1, 1, 16, window=window) for window in (2, 4, 8)]
    errors = [Truncation(case, error, {}) for case, error in zip(cases, (0.5, 0.05, 0.0), strict=True)]
    rows = [*errors, *(row for case in cases for row in times("a", [1.0] * 6, case)), END]
    wanted = "Truncated BPTT keeps the gradient of lstm (T = 8, H = 16) within 10% of full BPTT from a window of 4 steps on."
    assert claim(written(tmp_path, rows, cases=cases, backends=["a"]), "Cost of truncation") == wanted


def test_a_wrong_backend_does_not_win(tmp_path: Path) -> None:
    gate = Gate(CASE, "a", False, {"y": (2.0, 1.0), "dx": (0.1, 1.0)}, 0.1)
    text = said(written(tmp_path, [gate, *times("a", [0.1] * 6), *times("b", [1.0] * 6), END]))
    assert "a is fastest" not in text
    assert "1 of 1 check against the reference failed: a." in text
    assert "a on lstm step T4 B2 I3 H5: y." in text


def test_what_truncation_buys_and_costs_is_said(grid: Path) -> None:
    text = summary_text(grid)
    # errors of the made-up file: 2 exp(-window / 40) = 8.2% at 128, above 10% at 32 and 8
    assert "Truncated BPTT keeps the gradient within 10% of full BPTT from a window of 128 steps on." in text
    # peak memory 2 MB + window * B * H * gates * 8: (2 + 8.39) / (2 + 67.1) for lstm
    assert (
        "lstm (T = 1024, H = 128): a window of 128 keeps the gradient within 8.2% of full BPTT; numba_cpu then needs 15% of"
        in text
    )


def test_a_run_that_was_cut_off_says_so(tmp_path: Path) -> None:
    path = written(tmp_path, times("a", [1.0] * 6))
    assert "with care: the run was interrupted." in said(path)


def test_a_run_without_times_says_so(tmp_path: Path) -> None:
    text = said(written(tmp_path, []))
    assert "Nothing was timed in this run" in text
    assert "Correctness was not checked" in text


def test_names_cannot_steer_a_terminal(tmp_path: Path) -> None:
    name = "red\x1b[31m\u202e"
    text = summary_text(written(tmp_path, times(name, [1.0] * 6), backends=[name]))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "red\\x1b[31m" in text


def test_a_quiet_run_says_what_its_numbers_rest_on(tmp_path: Path) -> None:
    case = Case("lstm", "step", 10, 1, 1, 1)
    # the ratios' interval is from 1.9 to 2.1: half of its width on logarithms is sqrt(2.1 / 1.9) - 1 = 5.1% ...
    rows = [*times("a", [1.0] * 12, case), *times("b", [1.9, 2.1] * 6, case)]
    assert "half of the speeds are known no better than to 5.1%" in said(written(tmp_path, [*rows, END], cases=[case]))
    # ... and from 1.98 to 2.02 it is 1.0%
    (tmp_path / "quiet").mkdir()
    rows = [*times("a", [1.0] * 12, case), *times("b", [1.98, 2.02] * 6, case)]
    text = said(written(tmp_path / "quiet", [*rows, END], cases=[case]))
    assert "This run has no caveats. These numbers rest on 12 rounds of fresh processes," in text
    assert "half of the speeds relative to a are known to within 1% and no round was disturbed." in text


def test_what_rnnbench_machine_found_wrong_is_told(grid: Path) -> None:
    assert "rnnbench machine found 1 problem for measuring" in summary_text(grid)


def test_the_part_of_the_peak_is_told_and_a_roof_that_is_too_low_is_called_so(tmp_path: Path) -> None:
    case = Case("lstm", "step", 10, 16, 64, 128)
    flops = 3 * 8 * 16 * 10 * 128 * (64 + 128)
    synthetic_results.write_roofs(tmp_path)  # 60 GFLOP/s with one thread in float32
    rows = [*times("a", [flops / 30e9] * 6, case), *times("b", [flops / 90e9] * 6, case), END]
    text = said(written(tmp_path, rows, cases=[case], machine="example"))
    assert "At best b reaches 150% of the machine's measured multiply-add peak (float32, 1 thread)." in text
    assert "the roof was measured too low (float32, 1 thread): measure it again." in text
    assert "float32, 1 thread, peak 60 GFLOP/s: b 150% (lstm step T10 B16 I64 H128) and a 50% (" in text


def test_the_roofs_of_another_machine_are_left_alone(tmp_path: Path) -> None:
    synthetic_results.write_roofs(tmp_path)
    frames = to_pandas(written(tmp_path, [*times("a", [1.0] * 6), END]))
    assert (frames.look, frames.roofs) == (None, None)
    assert "rnnbench machine measures and stores them" in Elements(page.render(frames)).whole()
