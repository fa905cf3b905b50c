"""Promises of training: a resume continues bit for bit, a kill loses nothing, NaN is named, the test part stays unseen."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import killed_training
from helpers.tiny_training import arrays, losses, series_file, text_file, tiny

from rnnbench import ArgumentError, Spec, StoreError, load_backend
from rnnbench.errors import Diverged
from rnnbench.models import SGD, Adam, Model, ModelSpec, init_model_params, load_model
from rnnbench.models.model import Evaluation
from rnnbench.training import cosine, fit, load_metrics, read_checkpoint, train
from rnnbench.training.classify import Classification
from rnnbench.training.forecast import Forecast
from rnnbench.training.lm import LanguageModel
from rnnbench.training.metrics import read_metrics
from rnnbench.training.names import TASKS

LOCAL = ("numba_cpu", "torch_nn", "torch_eager")
"""Backends on the CPU whose losses are compared with numpy_ref's."""


class Stopped(Exception):
    """Ends a run in its midst."""


def stop_at(step: int):
    def report(done: int, total: int, words: str) -> None:
        if done == step:
            raise Stopped

    return report


def assert_same_arrays(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].tobytes() == value.tobytes(), name


def assert_resumes(folder: Path, config) -> None:
    """After an end between two checkpoints, all arrays and losses are those of a run that nothing ended."""
    whole = train(config, folder / "whole")
    with pytest.raises(Stopped):
        train(config, folder / "ended", report=stop_at(8))
    assert read_checkpoint(folder / "ended").step == 6
    resumed = train(config, folder / "ended", resume=True)
    assert losses(folder / "ended") == losses(folder / "whole")
    for name in ("last.npz", "best.npz"):
        assert_same_arrays(arrays(folder / "ended", name), arrays(folder / "whole", name))
    assert resumed.result == whole.result


@pytest.mark.parametrize("backend", ["numpy_ref", "numba_cpu"])
@pytest.mark.parametrize("task", TASKS)
def test_a_resumed_run_continues_bit_for_bit(tmp_path, task, backend):
    assert_resumes(tmp_path, tiny(tmp_path, task, backend))


def test_a_resumed_run_draws_the_same_dropout_and_carries_the_same_state_over_windows(tmp_path):
    deep = tiny(tmp_path, model={"layers": 2, "dropout": 0.5})
    assert_resumes(tmp_path, deep)
    windows = tiny(tmp_path, truncation={"window": 4, "stride": 2}, optimiser={"name": "adamw"})
    assert_resumes(tmp_path / "windows", windows)


def test_runs_that_were_killed_have_the_losses_of_one_that_nothing_ended(tmp_path, pytestconfig):
    """At a twentieth of ``--kill-points`` lines drawn at random."""
    points = max(pytestconfig.getoption("--kill-points") // 20, 10)
    command = [sys.executable, "-m", killed_training.__name__, str(tmp_path), str(points), "20261201"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= points
    chains = list(tmp_path.glob("[0-9]*"))
    assert chains
    for chain in chains:
        assert losses(chain) == losses(tmp_path / "whole")
        assert_same_arrays(arrays(chain), arrays(tmp_path / "whole"))
        assert read_metrics(chain)[0]["kind"] == "training"


@pytest.mark.parametrize("task", TASKS)
def test_every_cpu_backend_begins_with_the_same_losses(tmp_path, task):
    found = {}
    for backend in ("numpy_ref", *LOCAL):
        try:
            load_backend(backend)
        except ImportError:
            continue
        train(tiny(tmp_path, task, backend), tmp_path / backend)
        found[backend] = losses(tmp_path / backend)
    assert {"numpy_ref", "numba_cpu"} <= found.keys()
    for rows in found.values():
        assert [row[:2] for row in rows] == [row[:2] for row in found["numpy_ref"]]
        np.testing.assert_allclose([row[2] for row in rows], [row[2] for row in found["numpy_ref"]], rtol=1e-4)


def model_of(inputs: int = 2, backend: str = "numpy_ref"):
    spec = ModelSpec(Spec("elman", inputs, 3), 1, loss="mse")
    return load_model(spec, init_model_params(spec, 0), backend)


def numbers(batches: int = 4, scale: float = 1.0) -> list[tuple[np.ndarray, np.ndarray]]:
    stream = np.random.default_rng(0)
    inputs = [stream.standard_normal((5, 2, 2), np.float32) for _ in range(batches)]
    return [(x, scale * x.sum(axis=2, keepdims=True)) for x in inputs]


def test_training_in_python_lowers_the_loss():
    model = model_of()
    fitted = fit(model, Adam(model, 0.03), numbers(), 80)
    assert (fitted.steps, fitted.reason, len(fitted.losses)) == (80, "all steps done", 80)
    assert np.mean(fitted.losses[-4:]) < np.mean(fitted.losses[:4]) / 4


def test_a_loss_that_is_not_finite_names_step_and_tensor_and_keeps_the_checkpoint(tmp_path):
    model, batches = model_of(), numbers(3)
    with pytest.raises(Diverged) as caught:
        fit(model, SGD(model, 1e25), batches, 9, folder=tmp_path, checkpoint=1)
    said = re.fullmatch(
        r"step (\d): the loss is \S+, and (parameter|state|the gradient of) \S+ is not finite; the last good checkpoint, "
        r"(\S+), is of step (\d); try a lower rate, or clip_norm",
        str(caught.value),
    )
    assert said, str(caught.value)
    assert said[3] == str(tmp_path / "last.npz")
    stored = read_checkpoint(tmp_path)
    assert int(said[4]) == stored.step < int(said[1])
    assert all(np.isfinite(value).all() for value in stored.params.values())


def test_a_gradient_that_is_not_finite_is_named_though_the_loss_is_finite(tmp_path, monkeypatch):
    model = model_of()
    really = model.gradients

    def spoilt(*arguments, **options):
        found = really(*arguments, **options)
        found.gradients["rnn.weight_hh_l0"] *= np.float32(np.nan)
        return found

    monkeypatch.setattr(model, "gradients", spoilt)
    with pytest.raises(Diverged, match=r"^step 1: the loss is \S+, and the gradient of rnn\.weight_hh_l0 is not finite; "):
        fit(model, SGD(model, 0.1), numbers(), 3, folder=tmp_path)
    assert read_checkpoint(tmp_path).step == 0


def test_a_loss_beyond_all_numbers_ends_training_though_its_gradient_is_finite(monkeypatch):
    model = model_of()
    really = model.gradients
    monkeypatch.setattr(model, "gradients", lambda *all_, **options: really(*all_, **options)._replace(loss=np.inf))
    with pytest.raises(Diverged, match=r"^step 1: the loss is inf, and the sum of losses or squares is not finite; no check"):
        fit(model, SGD(model, 0.1), numbers(), 3)


@pytest.mark.parametrize("ended", [11, 14, 19])
def test_a_resumed_run_waits_no_longer_for_a_lower_validation_loss(tmp_path, ended):
    """Nor does it take a higher one for the lowest."""
    told = {5: 3.0, 10: 2.0, 15: 2.5, 20: 2.0, 25: 1.0}

    def fitted(report=None, resume=False):
        model = model_of()
        optimiser, steps = SGD(model, 0.01), [0]

        def count(done, total, words):
            steps[0] = done
            if report is not None:
                report(done, total, words)

        steps[0] = read_checkpoint(tmp_path).step if resume else 0
        return fit(
            model,
            optimiser,
            numbers(),
            50,
            validate=lambda _: Evaluation(told[steps[0] + 1], 1, ()),
            evaluate=5,
            patience=2,
            folder=tmp_path,
            checkpoint=2,
            resume=resume,
            report=count,
        )

    with pytest.raises(Stopped):
        fitted(stop_at(ended))
    found = fitted(resume=True)
    assert (found.steps, found.best) == (20, 2.0)
    assert read_checkpoint(tmp_path / "best.npz").step == 10


def test_a_row_without_its_line_break_is_torn_and_spoils_no_later_row(tmp_path):
    config = tiny(tmp_path)
    train(config, tmp_path / "whole")
    with pytest.raises(Stopped):
        train(config, tmp_path / "run", report=stop_at(6))
    path = tmp_path / "run/metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    assert len(read_metrics(tmp_path / "run")) == 1 + 6 + 1 - 1
    train(config, tmp_path / "run", resume=True)
    assert losses(tmp_path / "run")[-6:] == losses(tmp_path / "whole")[-6:]


def test_training_ends_when_the_validation_loss_no_longer_falls(tmp_path):
    model, told = model_of(), iter([3.0, 2.0, 2.5, 2.0, 1.0])
    fitted = fit(
        model,
        SGD(model, 0.01),
        numbers(),
        50,
        validate=lambda _: Evaluation(next(told), 1, ()),
        evaluate=5,
        patience=2,
        folder=tmp_path,
    )
    assert (fitted.steps, fitted.best, fitted.reason) == (20, 2.0, "no lower validation loss in 2 evaluations")
    assert (read_checkpoint(tmp_path / "best.npz").step, read_checkpoint(tmp_path).step) == (10, 20)


def test_a_cosine_schedule_falls_from_the_rate_to_a_hundredth_of_it():
    rates = [cosine(2.0, 10)(step) for step in range(13)]
    assert rates[0] == 2.0
    assert rates[10:] == [pytest.approx(0.02)] * 3
    assert rates == sorted(rates, reverse=True)


def test_metrics_are_a_table_with_one_row_for_each_step_and_evaluation(tmp_path):
    pytest.importorskip("pandas")
    train(tiny(tmp_path), tmp_path / "run")
    table = load_metrics(tmp_path / "run")
    assert list(table.columns) == ["step", "split", "loss", "tokens", "seconds", "tokens_per_second", "rate"]
    assert list(table[table.split == "train"].step) == list(range(1, 13))
    assert list(table[table.split == "validation"].step) == [4, 8, 12]
    assert (table.tokens[table.split == "train"] == 24).all()
    assert table.seconds.is_monotonic_increasing
    first = read_metrics(tmp_path / "run")[0]
    assert (first["config"]["task"], first["backend"]["device"]) == ("lm", "cpu")
    assert first["environment"]["cpu"]


def test_a_folder_with_a_run_is_not_written_into(tmp_path):
    config = tiny(tmp_path)
    train(config, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(StoreError, match=r"run holds a run already; expected --resume to go on with it, or another folder"):
        train(config, tmp_path / "run")
    model = model_of()
    with pytest.raises(StoreError, match="holds a run already"):
        fit(model, SGD(model, 0.1), numbers(), 3, folder=tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_run_whose_first_step_fails_leaves_no_files_and_no_folder_of_its_own(tmp_path, monkeypatch):
    def fail(self, *arguments, **options):
        raise ArgumentError("cannot take it")

    monkeypatch.setattr(Model, "gradients", fail)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("kept")
    for name in ("run", "mine"):
        with pytest.raises(ArgumentError, match="cannot take it"):
            train(tiny(tmp_path), tmp_path / name)
    assert not (tmp_path / "run").exists()
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_later_step_that_fails_keeps_the_checkpoint(tmp_path):
    model, batches = model_of(), numbers()
    with pytest.raises(ArgumentError):
        fit(model, SGD(model, 0.01), [*batches[:2], (batches[2][0], batches[2][1][:1])], 9, folder=tmp_path, checkpoint=1)
    assert read_checkpoint(tmp_path).step == 2


def test_a_resume_with_another_config_is_refused_except_for_more_steps(tmp_path):
    config = tiny(tmp_path)
    train(config, tmp_path / "run")
    with pytest.raises(ArgumentError, match=r"^seed is 4; expected 3 as in the run to resume, "):
        train(replace(config, seed=4), tmp_path / "run", resume=True)
    longer = replace(config, training=replace(config.training, steps=15))
    assert train(longer, tmp_path / "run", resume=True).fitted.steps == 15
    assert [step for step, split, _ in losses(tmp_path / "run") if split == "train"] == list(range(1, 16))


# what may be known of the test part


@pytest.mark.parametrize("relative", [True, False])
def test_no_value_of_the_test_part_reaches_scaler_or_batches_of_a_forecast(tmp_path, relative):
    """The last 15% are replaced by huge numbers: nothing that trains or validates changes."""
    changes = {"data": {"relative": relative, "missing": "mean"}}
    calm = Forecast(tiny(tmp_path, "forecast", **changes))
    lines = Path(series_file(tmp_path)).read_text().splitlines()
    wild = [*lines[:103], *(f"{line.partition(',')[0]},1e9" for line in lines[103:])]  # the header and 102 of 120 rows
    (tmp_path / "tiny.csv").write_text("\n".join(wild) + "\n")
    config = tiny(tmp_path, "forecast", **changes)
    (tmp_path / "tiny.csv").write_text("\n".join(wild) + "\n")
    touched = Forecast(config)
    assert np.nanmax(touched.truth) == 1e9
    assert (touched.scaler.mean, touched.scaler.spread) == (calm.scaler.mean, calm.scaler.spread)
    model = load_model(calm.spec, init_model_params(calm.spec, 0), "numpy_ref")
    for step in range(30):
        for one, other in zip(calm.batches(model)(step)[:2], touched.batches(model)(step)[:2], strict=True):
            np.testing.assert_array_equal(one, other)
    assert calm.validate(model) == touched.validate(model)


def test_the_scaler_of_a_classification_is_that_of_the_training_part(tmp_path):
    task = Classification(tiny(tmp_path, "classify"))
    steps = np.concatenate(task._train.arrays)
    np.testing.assert_allclose([steps.mean(), steps.std()], [0, 1], atol=1e-6)


def test_the_loss_of_a_classification_counts_each_sequence_once_at_its_last_real_step(tmp_path):
    task = Classification(tiny(tmp_path, "classify"))
    model = load_model(task.spec, init_model_params(task.spec, 0), "numpy_ref")
    inputs, _, mask, fresh, lengths = task.batches(model)(0)
    assert fresh
    assert (mask.argmax(axis=0) + 1).tolist() == lengths.tolist()
    assert mask.sum(axis=0).tolist() == [1] * inputs.shape[1]
    for lane, last in enumerate(mask.argmax(axis=0)):
        assert not inputs[last + 1 :, lane].any()


def test_the_vocabulary_of_a_language_model_is_that_of_the_training_part(tmp_path):
    config = tiny(tmp_path)
    text_file(tmp_path, "abcde " * 90 + "xyz" * 20)
    task = LanguageModel(config)
    assert "".join(task.vocabulary.symbols) == " abcde"
    assert task.unknown > 0


def test_baselines_are_beaten_by_what_can_be_learnt(tmp_path):
    """A sine by its season, two classes by their direction; and the results say so."""
    classified = train(tiny(tmp_path, "classify", training={"steps": 60}, optimiser={"rate": 0.05}), tmp_path / "classes")
    assert classified.result["accuracy"] == 1.0
    assert np.sum(classified.result["confusion"]) == classified.result["test_sequences"]
    assert "true class by row, predicted by column:" in classified.summary
    forecast = train(tiny(tmp_path, "forecast"), tmp_path / "forecast").result
    assert forecast["rmse"].keys() - {"smoothing"} == {"model", "naive", "seasonal naive"}
    assert np.shape(forecast["rmse"]["model"]) == (1, 3)
    assert 0 <= np.min(forecast["coverage"]["80"]) <= np.max(forecast["coverage"]["95"]) <= 1
