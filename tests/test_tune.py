"""Tuning: folds keep time in order, halving spends its steps on the best, and the test part is never read."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rnnbench.cli.main import main
from rnnbench.data import read_sequences
from rnnbench.errors import ArgumentError
from rnnbench.training import tune
from rnnbench.training.config import Config
from rnnbench.training.cross_validation import candidates, folds_of, read_values, table, with_values

WHOLE = "".join(np.random.default_rng(0).choice(list("abcdef \n"), 2000))
"""A text each part of which has all of its symbols."""

TINY = {
    "task": "lm",
    "backend": "numpy_ref",
    "data": {"batch": 4, "steps": 8, "parts": [0.6, 0.2, 0.2]},
    "model": {"cell": "elman", "hidden": 4, "embedding": 3},
    "optimiser": {"rate": 0.01},
    "training": {"steps": 8, "evaluate": 2},
}


@pytest.fixture
def text(tmp_path: Path) -> Callable[[str], Config]:
    """A config for a text of 2,000 characters whose last fifth, the test part, ends in this."""

    def config(end: str) -> Config:
        path = tmp_path / "text.txt"
        path.write_text(WHOLE[: 2000 - len(end)] + end, encoding="utf-8")
        return Config.from_dict(TINY | {"data": {**TINY["data"], "name": str(path)}})

    return config


def test_a_fold_trains_on_what_comes_before_what_it_validates_on(text):
    ends = []
    for task in folds_of(text(""), 3):
        train = task.vocabulary.decode(task._train)
        validation = task.vocabulary.decode(task._validation)
        assert WHOLE.startswith(train)
        assert WHOLE[len(train) :].startswith(validation)
        ends.append((len(train), len(validation)))
    assert ends == [(400, 400), (800, 400), (1200, 400)]


def test_the_test_part_is_not_read(text):
    over = {"model.hidden": [2, 3]}
    first = [score.losses for score in tune(text("a" * 400), over, folds=2)]
    second = [score.losses for score in tune(text("e" * 400), over, folds=2)]
    assert first == second


def test_each_sequence_validates_in_one_fold():
    config = Config.from_dict({"task": "classify", "backend": "numpy_ref"})
    folds = folds_of(config, 4)

    def kinds(sequences):
        return [(len(array), int(label)) for array, label in zip(sequences.arrays, sequences.labels, strict=True)]

    validated = [kind for task in folds for kind in kinds(task._validation)]
    assert sorted(validated) == sorted(kinds(read_sequences("vowels-sample", "train")))
    assert {len(np.unique(task._validation.labels)) for task in folds} == {len(folds[0].classes)}


def test_half_of_the_candidates_goes_on_to_more_steps_until_one_has_all(text):
    told = []
    scores = tune(text(""), {"model.hidden": [1, 2, 3, 4]}, folds=2, report=lambda *said: told.append(said))
    assert [score.steps for score in scores] == [8, 4, 2, 2]
    assert len(told) == told[-1][0] == told[-1][1] == (4 + 2 + 1) * 2
    assert scores[2].mean <= scores[3].mean


def test_with_all_kept_each_candidate_has_all_steps_and_the_lowest_mean_comes_first(text):
    scores = tune(text(""), {"model.hidden": [1, 4], "optimiser.rate": [0.001, 0.05]}, folds=2, seeds=2, keep=1)
    assert [score.steps for score in scores] == [8] * 4
    assert [score.mean for score in scores] == sorted(score.mean for score in scores)
    assert all(len(score.losses) == 4 for score in scores)
    low, high = scores[0].interval
    assert low < scores[0].mean < high
    assert scores[0].label in table(scores).splitlines()[1]


def test_a_candidate_that_cannot_be_is_refused_before_any_training(text):
    for over, message in (
        ({"model.hidden": [4, 0]}, "model.hidden is 0; expected an integer from 1 on"),
        ({"model.sise": [4]}, "unknown key model.sise"),
        ({}, "nothing varies; expected a key with values"),
    ):
        with pytest.raises(ArgumentError, match=message):
            tune(text(""), over, report=lambda *_: pytest.fail("trained"))
    for options, message in (({"folds": 1}, "folds is 1"), ({"keep": 0}, "keep is 0"), ({"seeds": 0}, "seeds is 0")):
        with pytest.raises(ArgumentError, match=message):
            tune(text(""), {"model.hidden": [2]}, **options)


def test_values_are_read_as_toml_has_them_and_words_need_no_quotes():
    assert read_values("model.cell=lstm,gru") == ("model.cell", ["lstm", "gru"])
    assert read_values("optimiser.rate=1e-3, 2") == ("optimiser.rate", [0.001, 2])
    with pytest.raises(ArgumentError, match=r"'model\.cell' is no key with values"):
        read_values("model.cell")


def test_values_replace_those_of_the_config():
    config = Config.from_dict(TINY)
    assert with_values(config, {"model.hidden": 7, "seed": 3}) == replace(config, model=replace(config.model, hidden=7), seed=3)
    assert candidates(config, {"model.hidden": [1, 2], "seed": [0]}) == [
        {"model.hidden": 1, "seed": 0},
        {"model.hidden": 2, "seed": 0},
    ]


def test_the_command_prints_a_table_and_trains_the_best_where_it_is_asked_to(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = ["tune", "classify", "--quick", "--steps", "4", "--backend", "numpy_ref", "--folds", "2"]
    assert main([*common, "--over", "model.hidden=2,3", "--out", "best"]) == 0
    out = capsys.readouterr().out
    assert "model.hidden = " in out
    assert "accuracy: " in out
    assert {"scores.json", "best.npz", "result.json"} <= {path.name for path in (tmp_path / "best").iterdir()}
    assert main([*common, "--over", "model.hidden=0"]) == 2
    assert capsys.readouterr().err == "rnnbench: config: model.hidden is 0; expected an integer from 1 on\n"
