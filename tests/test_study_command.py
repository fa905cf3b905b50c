"""Studies as tables, sentences and pages: what they say follows from their runs, and the same seed gives the same."""

import json
import re
import time

import numpy as np
import pytest
from helpers.tiny_training import tiny

pd = pytest.importorskip("pandas")

from rnnbench.data import fill, read_series  # noqa: E402
from rnnbench.errors import ArgumentError  # noqa: E402
from rnnbench.models import Evaluation  # noqa: E402
from rnnbench.studies import (  # noqa: E402
    gaps,
    gradients,
    study_gradient_flow,
    study_missing_values,
    study_time_to_loss,
    study_truncation,
    targets,
    windows,
)
from rnnbench.studies.study import summarised  # noqa: E402
from rnnbench.training import cosine, fit  # noqa: E402
from rnnbench.training.forecast import Forecast  # noqa: E402
from rnnbench.training.lm import LanguageModel  # noqa: E402

SPEED = "tokens_per_second"


@pytest.fixture(scope="module")
def truncation(tmp_path_factory):
    config = tiny(tmp_path_factory.mktemp("truncation"), training={"steps": 20}, model={"hidden": 8})
    return config, study_truncation(config, seeds=2)


def test_truncation_runs_each_power_of_two_up_to_all_steps_with_one_and_two_passes_a_window(truncation):
    _, study = truncation
    assert windows.powers(8) == [1, 2, 4, 8]
    assert windows.powers(12) == [1, 2, 4, 8, 12]
    assert [tuple(row) for row in study.table[["window", "stride"]].to_numpy()] == [
        (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 8),
    ]  # fmt: skip
    assert list(study.runs["seed"]) == [3] * 6 + [4] * 6


def test_the_gradient_of_the_longest_window_is_the_full_one_and_errors_fall_with_the_window(truncation):
    table = truncation[1].table
    once = table[table["passes"] == "one a window"]
    assert once[["norm_ratio", "cosine"]].iloc[-1].tolist() == pytest.approx([1, 1], abs=1e-6)
    assert once["cosine"].is_monotonic_increasing
    assert once["cosine"].iloc[0] < 0.999


def test_a_tape_grows_with_its_window(tmp_path):
    """Of arrays too large for NumPy to keep their memory when they are gone."""
    config = tiny(tmp_path, data={"batch": 16}, model={"hidden": 64})
    task = LanguageModel(config)
    kept = {window: windows.tape_bytes(config, task, window) for window in (1, 2, 8)}
    assert kept[1] >= 16 * 64 * 4  # the outputs: B 16, H 64, float32
    assert kept[8] - kept[2] == pytest.approx(6 * (kept[2] - kept[1]), rel=0.1)


def test_a_truncation_without_truncation_has_the_loss_of_training_as_usual(truncation):
    config, study = truncation
    task = LanguageModel(config)
    model = windows.new_model(task.spec, config, config.seed)
    rate = config.optimiser.rate
    fit(model, windows.optimiser_of(config, model), task.batches(model), 20, seed=3, schedule=cosine(rate, 20))
    found = study.runs[(study.runs["window"] == 8) & (study.runs["seed"] == 3)]["loss"].item()
    assert found == task.validate(model).loss


def test_the_same_seed_gives_the_same_truncation_but_for_speed_and_memory(truncation):
    config, study = truncation
    again = study_truncation(config, windows=[2], seeds=1).runs
    before = study.runs[study.runs["window"].isin([2, 8]) & (study.runs["seed"] == 3)].reset_index(drop=True)
    pd.testing.assert_frame_equal(again.drop(columns=[SPEED, "tape_bytes"]), before.drop(columns=[SPEED, "tape_bytes"]))
    assert (again[SPEED] > 0).all()


def test_truncation_names_the_shortest_window_with_the_loss_of_full_bptt():
    rows = [(1, 2.5, 100.0), (4, 2.03, 400.0), (8, 2.0, 800.0)]
    table = pd.DataFrame(
        [{"window": w, "passes": "one a window", "loss": x, "cosine": 0.9, "tape_bytes": b, SPEED: w} for w, x, b in rows]
    )
    assert windows.conclusion(table) == (
        "A window of 4 of 8 steps ends at a loss of 2.030, within 2% of full BPTT's 2.000, although its gradient has a cosine "
        "of 0.90 with the full one; its tape takes 50.0% of the memory, and it trains at 0.50 times the speed."
    )
    table["loss"] = [2.5, 2.4, 2.0]
    assert windows.conclusion(table) == (
        "No window below 8 reaches the loss of full BPTT, 2.000, within 2%; that of 4 ends at 2.400."
    )


def test_time_to_loss_leaves_out_what_validation_takes(tmp_path, monkeypatch):
    told = iter([3.0, 3.0, 0.5])

    def slow(self, model):
        time.sleep(0.2)
        return Evaluation(next(told), 1, ())

    monkeypatch.setattr(LanguageModel, "validate", slow)
    monkeypatch.setattr(targets, "_first_step", lambda *_: 0.0)
    config = tiny(tmp_path, training={"steps": 4, "evaluate": 1})
    found = study_time_to_loss(config, 1.0, backends=["numpy_ref"], seeds=1).runs
    assert found["steps"].item() == 3
    assert 0 < found["seconds"].item() < 0.6


def test_time_to_loss_ends_at_the_target(tmp_path):
    config = tiny(tmp_path, training={"steps": 40, "evaluate": 2}, optimiser={"rate": 0.05, "schedule": "constant"})
    study = study_time_to_loss(config, 2.7, backends=["numpy_ref"], seeds=2)
    assert (study.runs["loss"] < 2.7).all()
    assert (study.runs["steps"] % 2 == 0).all()
    assert (study.runs["steps"] < 40).all()
    assert (study.runs["seconds"] > 0).all()
    missed = study_time_to_loss(config, 0.1, backends=["numpy_ref"], seeds=1)
    assert np.isnan(missed.runs["seconds"].item())
    assert missed.runs["steps"].item() == 40
    assert missed.conclusion == "No backend reached a validation loss below 0.1 on every seed."


def test_time_to_loss_compares_backends_seed_by_seed():
    seconds = {"fast": [1.0, 2.0, 3.0], "slow": [2.0, 5.0, 6.0], "never": [1.0, np.nan, 1.0]}
    runs = pd.DataFrame([{"backend": name, "seconds": value} for name, values in seconds.items() for value in values])
    assert targets.conclusion(runs, 2.5) == (
        "fast trains to a validation loss below 2.5 in 2 s (1 s to 3 s over 3 seeds); slow takes 2.00 times as long "
        "(2.00 to 2.50). never did not reach it on every seed."
    )
    runs.loc[3, "seconds"] = 0.5
    assert ", which is no clear difference." in targets.conclusion(runs, 2.5)


def test_the_same_values_are_removed_for_the_same_seed_and_about_the_share_asked_for(tmp_path):
    series = read_series("co2-sample")
    known = ~np.isnan(series.values)
    found = [np.isnan(gaps.without(series, 0.2, seed).values) for seed in (1, 1, 2)]
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    assert found[0][known].mean() == pytest.approx(0.2, abs=0.03)
    assert found[0][~known].all()


def test_a_model_that_repeats_what_it_saw_last_has_the_error_of_the_naive_forecast(tmp_path, monkeypatch):
    """So every method forecasts the same rows, from the same rows, also where rows are dropped."""

    def last(self, model, ends):
        return np.repeat(self.values[ends, None, : self.channels], self._data.horizon, axis=1)

    monkeypatch.setattr(Forecast, "forecast", last)
    config = tiny(tmp_path, "forecast", training={"steps": 1})
    study = study_missing_values(config, shares=(0.0, 0.3), methods=("drop", "last", "mask"), seeds=2)
    by = study.runs.set_index(["method", "share", "seed"])["rmse"]
    for method in ("drop", "last", "mask"):
        assert by[method].tolist() == by["naive"].tolist()


def test_missing_values_are_studied_with_every_method_and_the_same_seed_gives_the_same(tmp_path):
    config = tiny(tmp_path, "forecast", training={"steps": 5})
    first, second = (study_missing_values(config, shares=(0.0, 0.2), seeds=1) for _ in range(2))
    pd.testing.assert_frame_equal(first.runs, second.runs)
    assert list(first.table["method"].drop_duplicates()) == [*gaps.FILLS, "naive", "seasonal naive"]
    assert first.conclusion == second.conclusion
    assert re.fullmatch(
        r'With 20% of the values removed, "\w+" has the lowest error, [\d.]+(?: \(not clearly below [\w, ]+\))?, '
        r'and "\w+" the highest, \S+; with 0% removed the error is \S+ and \S+; the naive forecast has \S+\.',
        first.conclusion,
    )


def test_the_lowest_error_is_compared_with_the_others_seed_by_seed():
    errors = {"last": [1.0, 2.0, 3.0], "mask": [1.1, 2.1, 2.9], "mean": [5.0, 6.0, 7.0], "naive": [4.0, 4.0, 4.0]}
    runs = pd.DataFrame(
        [{"method": m, "share": 0.4, "seed": s, "rmse": e} for m, all_ in errors.items() for s, e in enumerate(all_)]
    )
    assert gaps.conclusion(runs, ("last", "mask", "mean")) == (
        'With 40% of the values removed, "last" has the lowest error, 2.000 (not clearly below mask), and "mean" the highest, '
        "6.000; the naive forecast has 4.000."
    )


def test_dropping_and_filling_read_the_damaged_series(tmp_path):
    damaged = gaps.without(read_series(tiny(tmp_path, "forecast").data.name, period=12), 0.3, 0)
    task = Forecast(tiny(tmp_path, "forecast", data={"missing": "last"}), damaged)
    np.testing.assert_array_equal(task.values, fill(damaged, "last").values)


def test_gradient_flow_is_relative_to_the_last_step_and_names_both_ends():
    study = study_gradient_flow("numpy_ref", cells=("elman", "lstm"), steps=5, hidden=4, batch=2, seeds=2)
    assert (study.table[study.table["lag"] == 0]["norm"] == 1).all()
    assert len(study.table) == 2 * 2 * 6
    runs = pd.DataFrame({"network": ["a", "a", "b", "b"], "lag": [0, 2, 0, 2], "norm": [1, 0.25, 1, 0.01]})
    assert gradients.conclusion(summarised(runs, ("network", "lag"), "norm")) == (
        "Over 2 steps back, the gradient of the last output comes down slowest in a to 2.5e-01 of its norm (0.50 times a step)"
        ", and fastest in b to 1.0e-02 of its norm (0.10 times a step)."
    )


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda of: study_truncation(of("forecast")), "task is 'forecast'; expected 'lm'"),
        (lambda of: study_truncation(of("lm"), windows=[9]), "windows are [9]; expected integers from 1 to data.steps, 8"),
        (lambda of: study_truncation(of("lm"), seeds=0), "seeds is 0; expected an integer from 1 on"),
        (lambda of: study_time_to_loss(of("lm"), np.nan, backends=["numpy_ref"]), "target is nan; expected a finite number"),
        (lambda of: study_time_to_loss(of("lm"), 1.0, backends=[]), "backends are []; expected at least one, all different"),
        (lambda of: study_missing_values(of("lm")), "task is 'lm'; expected 'forecast'"),
        (lambda of: study_missing_values(of("forecast"), shares=[1.0]), "shares are [1.0]; expected numbers from 0 to below 1"),
        (lambda of: study_missing_values(of("forecast"), methods=["zero"]), "method is 'zero'; expected one of drop, last"),
    ],
)
def test_studies_that_cannot_be_are_refused(tmp_path, call, said):
    with pytest.raises(ArgumentError) as caught:
        call(lambda task: tiny(tmp_path, task))
    assert str(caught.value).startswith(said)


# the page and the command


def test_every_curve_of_a_study_is_drawn_with_marks(tmp_path, truncation):
    vl_convert = pytest.importorskip("vl_convert")
    from rnnbench.reports import study as pages
    from rnnbench.reports.rows import records

    config = tiny(tmp_path, training={"steps": 4, "evaluate": 2})
    others = [study_time_to_loss(config, 5.0, backends=["numpy_ref"], seeds=2)]
    others.append(study_gradient_flow("numpy_ref", cells=("elman",), steps=3, hidden=2, batch=1, seeds=2))
    for study in (truncation[1], *others):
        for curve in study.curves:
            chart = pages._picture("one", curve, study).chart.to_dict()
            svg = vl_convert.vegalite_to_svg(chart | {"datasets": {"study": records(study.table)}})
            marks = len(re.findall(r'aria-roledescription="(?:point|circle)"', svg))
            assert marks == len(study.table), curve.title


def test_a_page_holds_conclusion_table_and_settings(tmp_path, truncation):
    pytest.importorskip("vl_convert")
    from rnnbench.reports import write_study

    config, study = truncation
    written = write_study(study, tmp_path)
    assert [path.name for path in written] == ["truncation.html", "truncation.csv", "truncation-runs.csv"]
    text = written[0].read_text("utf-8")
    assert study.conclusion.replace("'", "&#39;") in text
    assert f"<dt>config.data.steps</dt><dd>{config.data.steps}</dd>" in text
    assert "Intervals span 2 seeds and hold the median with a probability of 50%; 6 seeds would give 95%." in text
    payload = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert payload["rows"]["study"]["length"] == 6
    again = pd.read_csv(written[1])
    assert list(again["window"]) == list(study.table["window"])
    np.testing.assert_allclose(again["loss"], study.table["loss"])


def test_the_command_prints_the_conclusion_and_the_files(command, tmp_path):
    code, out, err = command("study", "gradient-flow", "--quick", "--backends", "numpy_ref", "--seeds", 1, "--out", tmp_path)
    assert code == 0, err
    first, *files = out.splitlines()
    assert first.startswith("Over 50 steps back, the gradient of the last output comes down slowest in ")
    assert files == [str(tmp_path / f"gradient-flow{end}") for end in (".html", ".csv", "-runs.csv")]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["flow"], "study is 'flow'; expected one of gradient-flow, truncation, time-to-loss, missing-values"),
        (["truncation", "--backends", "numpy_ref,numba_cpu"], "backends are numpy_ref, numba_cpu; expected one: only"),
        (["truncation", "--target", "2"], "target is 2 for truncation; expected none: only time-to-loss has one"),
    ],
)
def test_a_study_that_cannot_be_is_one_line(command, given, said):
    code, out, err = command("study", *given)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert said in err
