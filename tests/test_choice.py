"""Choosing from stored results: what counts, what is predicted and how surely, and what is not chosen."""

import math

import msgspec
import pytest
from helpers import stored_results, synthetic_results
from helpers.two_backends import CASE, GRID, QUICK_LATER, QUICK_START, measurements, shape, times_of, two_backends

from rnnbench.choose.choose import stored
from rnnbench.choose.regret import regret
from rnnbench.errors import StoreError
from rnnbench.machine.facts import machine_name
from rnnbench.results.rows import Failure, Gate, Time
from rnnbench.suite.case import Case
from rnnbench.suite.estimate import estimate

# measured shapes


def test_a_measured_shape_has_its_median_and_its_order_statistics(tmp_path):
    rounds = [3.0, 1.0, 2.0, 9.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    choice = measurements(tmp_path, {("a", CASE): rounds, ("b", CASE): 40.0}).choose(CASE)
    assert (choice.backend, choice.seconds, choice.runner_up, choice.shapes) == ("a", 5.0, "b", (CASE,))
    # of 9 values the second smallest and largest hold the median with 1 - 2 * 10 / 512 = 96%, the third with 82%
    assert (choice.low, choice.high) == (2.0, 8.0)
    assert choice.predictions[0].how == "measured"
    assert choice.why == "a takes 5 s (2 s to 8 s; measured, 9 rounds of run), 8.00 times as fast as b (measured)."


def test_overlapping_intervals_are_told(tmp_path):
    found = measurements(tmp_path, {("a", CASE): [1.0, 2.0, 3.0], ("b", CASE): [2.5, 2.6, 2.7]}).choose(CASE)
    assert found.backend == "a"
    assert found.why.endswith("1.30 times as fast as b (measured), though their intervals overlap.")


def test_the_newest_run_counts_whatever_its_commit_and_its_file_name(tmp_path):
    old = stored_results.write(tmp_path / "z.jsonl", {("a", CASE): 1.0, ("b", CASE): 2.0}, commit="old")
    late = "2026-03-01T00:00:00+00:00"
    new = stored_results.write(tmp_path / "a.jsonl", {("a", CASE): 3.0}, started=late, commit="new")
    for files in ([old, new], [new, old]):
        predicted = {p.backend: (p.seconds, p.run) for p in stored(files, machine_name()).choose(CASE).predictions}
        assert predicted == {"a": (3.0, "a"), "b": (2.0, "z")}


def test_a_failure_counts_as_a_result_newer_or_older(tmp_path):
    crash = Failure(CASE, "a", "time", "crashed", "killed by SIGSEGV", 0)
    worked = stored_results.write(tmp_path / "1.jsonl", {("a", CASE): 1.0, ("b", CASE): 2.0})
    later = {"started": "2026-03-01T00:00:00+00:00"}
    crashed = stored_results.write(tmp_path / "2.jsonl", {("b", CASE): 2.0}, (crash,), **later)
    found = stored([worked, crashed], machine_name()).choose(CASE)
    assert (found.backend, found.excluded) == ("b", {"a": "crashed: killed by SIGSEGV"})
    mended = stored_results.write(tmp_path / "3.jsonl", {("a", CASE): 1.0}, started="2026-04-01T00:00:00+00:00")
    assert stored([worked, crashed, mended], machine_name()).choose(CASE).backend == "a"


def test_results_of_another_machine_do_not_count(tmp_path):
    found = measurements(tmp_path, {("a", CASE): 1.0}, machine="another-64c")
    assert not found.serve(CASE)
    with pytest.raises(StoreError, match="no result serves lstm step T64 B8 I64 H64"):
        found.choose(CASE)


@pytest.mark.parametrize(
    "fields",
    [
        {"cell": "gru"},
        {"phase": "forward"},
        {"dtype": "float64"},
        {"threads": 2},
        {"layers": 2},
        {"bidirectional": True},
        {"bias": False},
        {"cell": "elman", "nonlinearity": "relu"},
    ],
    ids=str,
)
def test_only_shapes_may_differ(tmp_path, fields):
    other = msgspec.structs.replace(CASE, **fields)
    found = measurements(tmp_path, {("a", CASE): 1.0, ("b", CASE): 2.0, ("a", other): 2.0, ("b", other): 1.0})
    assert found.choose(shape(T=65)).backend == "a"
    assert found.choose(msgspec.structs.replace(other, T=65)).backend == "b"


def test_an_output_as_wide_as_the_hidden_state_is_the_usual_one(tmp_path):
    asked = Case("jordan", "step", 4, 2, 8, 8, output_size=8)
    usual = msgspec.structs.replace(asked, output_size=None)
    assert measurements(tmp_path, {("a", asked): 1.0}).choose(usual).predictions[0].how == "measured"


def test_lines_and_files_that_do_not_read_are_told(tmp_path):
    path = stored_results.write(tmp_path / "run.jsonl", {("a", CASE): 1.0})
    with path.open("a") as file:
        file.write("nonsense\n")
    (tmp_path / "none.jsonl").write_text("hello\n")
    found = stored([path, tmp_path / "none.jsonl"], machine_name())
    assert found.choose(CASE).backend == "a"
    assert len(found.problems) == 2
    assert any("run.jsonl:3: not a row" in problem for problem in found.problems)
    assert any("is no results file" in problem for problem in found.problems)


def test_a_time_that_is_none_does_not_count(tmp_path):
    broken = tuple(Time(CASE, "a", number, 0, 1, samples) for number, samples in enumerate([[], [math.inf], [0.0], [-1.0]]))
    found = measurements(tmp_path, {("b", CASE): 2.0}, broken).choose(CASE)
    assert [prediction.backend for prediction in found.predictions] == ["b"]


# predicted shapes


def test_the_faster_backend_is_predicted_on_both_sides_of_a_crossing(tmp_path):
    """Shapes between those of the grid, whose times differ by a factor of two or more, half of them each way."""
    found = measurements(tmp_path, two_backends())
    wanted = [shape(T, B, H) for T in (32, 100) for B in (2, 30) for H in (48, 300)]
    told = {case: times for case in wanted if max(times := times_of(case).values()) > 2 * min(times)}
    winners = set()
    for case in told:
        choice = found.choose(case)
        times = times_of(case)
        assert choice.backend == min(times, key=times.__getitem__)
        assert choice.predictions[0].how == "interpolated"
        winners.add(choice.backend)
    assert winners == {"small", "large"}


def test_predicted_intervals_hold_most_times(tmp_path):
    """They are meant to hold 95%; of 54 fewer than 46 would be one in 2000 (binomial)."""
    found = measurements(tmp_path, two_backends())
    held = total = 0
    for case in GRID:
        for prediction in found.without(case).predictions(case)[0]:
            held += prediction.low <= times_of(case)[prediction.backend] <= prediction.high
            total += 1
    assert total == 54
    assert held >= 46


def test_beyond_the_measured_shapes_no_rate_is_promised_that_none_reached(tmp_path):
    """A line in log space would: times over operations fall while a shape grows out of its overheads."""
    found = measurements(tmp_path, two_backends())
    case = shape(10_000, 64, 4096)
    for prediction in found.predictions(case)[0]:
        assert prediction.how == "extrapolated"
        assert prediction.low <= times_of(case)[prediction.backend] <= prediction.high
        rate = (QUICK_START if prediction.backend == "small" else QUICK_LATER)["rate"]
        assert estimate(case).flops / prediction.seconds < 1.1 * rate  # 1% of noise in each round


def test_intervals_grow_with_the_distance(tmp_path):
    found = measurements(tmp_path, two_backends())
    widths = []
    for H in (512, 600, 1024, 2048, 8192):  # noqa: N806  # the field's name
        (prediction,) = [p for p in found.predictions(shape(64, 8, H))[0] if p.backend == "large"]
        widths.append(prediction.high / prediction.low)
    assert widths == sorted(widths)
    assert widths[-1] > 2 * widths[0]


def test_a_shape_off_the_plane_of_all_measured_ones_is_extrapolated(tmp_path):
    """I follows H in the grid: with I = 300 and H = 64 each size lies in its range, and yet nothing like it was measured."""
    found = measurements(tmp_path, two_backends())
    assert {p.how for p in found.predictions(shape(64, 8, 64, 300))[0]} == {"extrapolated"}
    assert {p.how for p in found.predictions(shape(64, 8, 64, 64))[0]} == {"interpolated"}


def test_a_single_shape_serves_others_with_a_wide_interval(tmp_path):
    """Whether time grows with T or not at all cannot be known from one T: the interval holds both."""
    (prediction,) = measurements(tmp_path, {("a", CASE): [1.0] * 6}).predictions(shape(T=64 * 16))[0]
    assert prediction.how == "extrapolated"
    assert prediction.low < 1.0
    assert prediction.high > 16.0
    assert prediction.cases == (CASE,)


def test_a_prediction_names_the_nearest_shapes(tmp_path):
    choice = measurements(tmp_path, two_backends()).choose(shape(60, 8, 130))
    assert choice.shapes[0] == shape(64, 8, 128)
    assert "interpolated from 27 shapes, the nearest T64 B8 H128 I128" in choice.why


# what is not chosen


def failures(case: Case) -> dict[str, Failure | Gate]:
    return {
        "gate": Gate(case, "a", False, {"y": (0.3, 1e-6)}, 0.1),
        "wrong": Failure(case, "a", "gate", "wrong", "y: error 0.3", 0),
        "crashed": Failure(case, "a", "time", "crashed", "killed by SIGSEGV", 0),
        "timeout": Failure(case, "a", "time", "timeout", "no answer within 120 s", 0),
        "unsupported": Failure(case, "a", "load", "unsupported", "no such cell"),
    }


@pytest.mark.parametrize("kind", ["gate", "wrong", "crashed", "timeout", "unsupported"])
@pytest.mark.parametrize("wanted", [shape(), shape(T=60)], ids=["exact", "near"])
def test_a_backend_that_failed_on_a_nearest_shape_is_not_chosen(tmp_path, kind, wanted):
    """Also where it was timed there, in rounds before it failed."""
    times = {(name, shape(T=T)): seconds for T in (32, 64, 128) for name, seconds in (("a", 1.0), ("b", 2.0))}
    assert measurements(tmp_path, times).choose(wanted).backend == "a"
    found = measurements(tmp_path, times, (failures(CASE)[kind],), "failed").choose(wanted)
    assert found.backend == "b"
    assert list(found.excluded) == ["a"]
    assert kind in found.excluded["a"]
    assert ("(at T64 B8 H64 I64)" in found.excluded["a"]) == (wanted != CASE)


def test_a_failure_far_away_or_of_memory_alone_excludes_nothing(tmp_path):
    times = {(name, shape(T=T)): seconds for T in (32, 64, 128) for name, seconds in (("a", 1.0), ("b", 2.0))}
    far = Failure(shape(T=4096), "a", "time", "timeout", "no answer", 0)
    memory = Failure(CASE, "a", "memory", "error", "no number")
    found = measurements(tmp_path, times, (far, memory))
    assert found.choose(CASE).backend == "a"
    assert found.choose(shape(T=60)).backend == "a"
    assert found.choose(shape(T=4000)).excluded == {"a": "timeout: no answer (at T4096 B8 H64 I64)"}


def test_a_shape_that_was_measured_counts_whatever_happened_beside_it(tmp_path):
    beside = Failure(shape(T=65), "a", "time", "crashed", "killed", 0)
    assert measurements(tmp_path, {("a", CASE): 1.0, ("b", CASE): 2.0}, (beside,)).choose(CASE).backend == "a"


def test_backends_are_refused_from_the_fastest_on_until_one_is_not(tmp_path):
    found = measurements(tmp_path, {("a", CASE): 1.0, ("b", CASE): 2.0, ("c", CASE): 3.0, ("d", CASE): 4.0})
    asked = []

    def refuse(name: str) -> str | None:
        asked.append(name)
        return "not today" if name in ("a", "b", "d") else None

    choice = found.choose(CASE, refuse)
    assert (choice.backend, choice.runner_up, asked) == ("c", "d", ["a", "b", "c"])
    assert choice.excluded == {"a": "not today", "b": "not today"}
    with pytest.raises(
        StoreError, match="no backend can be chosen for lstm step T64 B8 I64 H64: a: never; b: never; c: never; d: never"
    ):
        found.choose(CASE, dict.fromkeys("abcd", "never").get)


def test_a_chooser_is_not_chosen(tmp_path):
    found = measurements(tmp_path, {("auto", CASE): 1.0, ("a", CASE): 2.0}).choose(CASE)
    assert (found.backend, found.runner_up, found.excluded) == ("a", None, {})


def test_the_made_up_results_of_the_reports_can_be_chosen_from(tmp_path):
    found = stored([synthetic_results.write(tmp_path / "grid.jsonl", hostile=False)], "example")
    assert found.choose(Case("lstm", "step", 64, 16, 64, 256)).backend == "torch_nn"
    choice = found.choose(Case("gru", "step", 64, 16, 64, 32))
    assert (choice.backend, choice.runner_up) == ("numba_cpu", "torch_nn")
    assert choice.excluded["torch_eager"].startswith("crashed: worker died of signal 11")


# regret


def test_the_regret_is_the_measured_time_of_the_chosen_over_that_of_the_best(tmp_path):
    """Four shapes on a line; b is four times as fast on one end, which the other three cannot tell."""
    cases = [shape(T=T) for T in (16, 32, 64, 128)]
    times = {("a", case): case.T * 1e-3 for case in cases} | {("b", case): case.T * 2e-3 for case in cases}
    times["b", cases[3]] = 32e-3  # a takes 128e-3
    found = regret(measurements(tmp_path, times))
    ratios = {trial.case.T: (trial.chosen, trial.best, trial.ratio) for trial in found.trials}
    assert ratios[128] == ("a", "b", pytest.approx(4))
    assert all(ratios[T] == ("a", "a", pytest.approx(1)) for T in (16, 32))
    assert found.mean == pytest.approx(math.prod(ratio for *_, ratio in ratios.values()) ** 0.25)
    assert found.close == sum(ratio <= 1.05 for *_, ratio in ratios.values()) / 4
    assert found.always == {"a": pytest.approx(4**0.25), "b": pytest.approx(8**0.25)}
    assert found.predicted == 8


def test_choosing_beats_any_single_backend_where_neither_is_best_everywhere(tmp_path):
    found = regret(measurements(tmp_path, two_backends()))
    assert len(found.trials) == len(GRID)
    assert found.mean < 1.05 < 1.5 < min(found.always.values())


def test_without_two_backends_or_a_second_shape_there_is_no_regret(tmp_path):
    with pytest.raises(StoreError, match="no regret can be told"):
        regret(measurements(tmp_path, {("a", CASE): 1.0, ("a", shape(T=3)): 1.0}, name="one"))
    with pytest.raises(StoreError, match="no regret can be told"):
        regret(measurements(tmp_path, {("a", CASE): 1.0, ("b", CASE): 1.0}, name="two"))
