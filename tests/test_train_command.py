"""Promises of ``rnnbench train`` and ``sample``: streams, exit codes, interrupts, full disks, and the same text by seed."""

import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_training import TEXT, losses, series_file, text_file, tiny

from rnnbench import load_backend
from rnnbench.training import read_checkpoint, sample, train
from rnnbench.training.lm import _draw

TOML = """
task = "lm"
backend = "numpy_ref"
threads = 1
[data]
name = "tiny.txt"
batch = 3
steps = 8
parts = [0.6, 0.2, 0.2]
[model]
cell = "elman"
hidden = 4
[training]
steps = 9
evaluate = 3
checkpoint = 4
"""

PATIENCE = 600.0
"""Seconds for a process to end that should."""


@pytest.fixture
def here(tmp_path) -> Path:
    """The folder of the fixture ``command``, with a config and its text."""
    folder = tmp_path / "here"
    folder.mkdir(exist_ok=True)
    (folder / "mine.toml").write_text(TOML)
    text_file(folder)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A language model of a few steps."""
    folder = tmp_path_factory.mktemp("trained")
    train(tiny(folder, training={"steps": 40}), folder / "run")
    return folder / "run"


def assert_refused(said: tuple[int, str, str], code: int, *words: str) -> None:
    """One line on standard error, nothing on standard output."""
    assert (said[0], said[1], said[2].count("\n")) == (code, "", 1), said
    for word in words:
        assert word in said[2]


# train


def test_results_go_to_standard_output_and_the_folder_and_the_rest_to_standard_error(command, here):
    code, out, err = command("train", "mine.toml")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].startswith("test part: ")
    assert lines[1].startswith("bits per character: ")
    assert lines[-1] == "results: training/mine-numpy_ref"
    assert "trained 9 steps in 0 s: all steps done" in err
    assert "tokens/s" in err
    folder = here / "training/mine-numpy_ref"
    assert {path.name for path in folder.iterdir()} == {"best.npz", "last.npz", "metrics.jsonl", "result.json"}
    result = json.loads((folder / "result.json").read_text())
    assert f"bits per character: {result['bits']:.3f} " in out


def test_options_stand_above_the_file(command, here):
    code, _, err = command("train", "mine.toml", "--steps", 2, "--seed", 5, "--out", "there", "--backend", "torch_nn")
    assert code in (0, 4), err  # without torch
    if code == 0:
        config = read_checkpoint(here / "there").facts["config"]
        assert (config["seed"], config["backend"], config["training"]["steps"]) == (5, "torch_nn", 2)


@pytest.mark.parametrize(
    ("task", "said"), [("lm", "perplexity: "), ("forecast", "RMSE of co2 by rows ahead"), ("classify", "accuracy: ")]
)
def test_each_task_runs_out_of_the_box(command, here, task, said):
    code, out, err = command("train", task, "--quick", "--steps", 2, "--backend", "numpy_ref")
    assert code == 0, err
    assert said in out
    assert (here / f"training/{task}-numpy_ref-quick/result.json").exists()


def test_a_full_run_does_not_meet_the_folder_of_a_quick_one(command, here):
    text_file(here, TEXT * 4)  # enough for the batches of a quick run
    for quick in (["--quick"], []):
        code, _, err = command("train", "mine.toml", *quick, "--steps", 1)
        assert code == 0, err
    assert {path.name for path in (here / "training").iterdir()} == {"mine-numpy_ref", "mine-numpy_ref-quick"}


def test_a_backend_with_a_fixed_pool_of_threads_starts_with_those_asked_for(here):
    """JAX reads their number once, when it is imported."""
    pytest.importorskip("jax")
    command = [sys.executable, "-m", "rnnbench", "train", "mine.toml", "--backend", "jax_scan", "--steps", "1"]
    bare = {name: value for name, value in os.environ.items() if name != "NPROC"}
    done = subprocess.run(command, cwd=here, env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "results: training/mine-jax_scan" in done.stdout


def test_a_folder_with_a_run_is_refused_without_resume_and_left_alone(command, here):
    assert command("train", "mine.toml", "--out", "run")[0] == 0
    before = {path: path.read_bytes() for path in (here / "run").iterdir()}
    again = command("train", "mine.toml", "--out", "run")
    assert_refused(again, 4, "run holds a run already; expected --resume to go on with it, or another folder by --out")
    assert {path: path.read_bytes() for path in (here / "run").iterdir()} == before
    code, _, err = command("train", "mine.toml", "--out", "run", "--resume", "--steps", 11)
    assert code == 0, err
    assert [step for step, split, _ in losses(here / "run") if split == "train"] == list(range(1, 12))


def test_a_resume_of_nothing_and_of_another_config_are_refused(command, here):
    assert_refused(command("train", "mine.toml", "--resume"), 4, "no checkpoint training/mine-numpy_ref/last.npz; expected ")
    assert command("train", "mine.toml", "--out", "run")[0] == 0
    other = command("train", "mine.toml", "--out", "run", "--resume", "--seed", 1)
    assert_refused(other, 2, "seed is 1; expected 0 as in the run to resume, run")


def test_a_run_that_diverges_is_one_line_and_exit_code_3(command, here):
    text = TOML.replace("[training]", '[optimiser]\nname = "sgd"\nrate = 1e30\n[training]')
    (here / "mine.toml").write_text(text)
    code, out, err = command("train", "mine.toml", "--out", "run")
    assert (code, out) == (3, "")
    said = [line for line in err.splitlines() if not line.startswith("training ")]
    assert len(said) == 1, err
    assert " is not finite; the last good checkpoint, run/last.npz, is of step 0" in said[0]


def test_names_of_a_file_cannot_steer_the_terminal(command, here):
    table = Path(series_file(here)).read_text().replace("level", "le\x1b[31mvel")
    (here / "tiny.csv").write_text(table)
    (here / "mine.toml").write_text(
        'task = "forecast"\nbackend = "numpy_ref"\n[data]\nname = "tiny.csv"\nsteps = 5\nhorizon = 2\n[model]\nhidden = 3\n'
    )
    code, out, err = command("train", "mine.toml", "--steps", 2)
    assert code == 0, err
    assert "le\\x1b[31mvel" in out
    assert "\x1b" not in out + err


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="this system does not limit the size of files")
def test_a_full_disk_is_one_line_and_keeps_the_last_checkpoint(command, here):
    assert command("train", "mine.toml", "--out", "run")[0] == 0
    kept = (here / "run/last.npz").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = len(kept) - 1
    assert (here / "run/metrics.jsonl").stat().st_size < room
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        code, out, err = command("train", "mine.toml", "--out", "run", "--resume", "--steps", 13)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (code, out) == (4, "")
    assert err.splitlines()[-1] in [f"rnnbench: cannot write run/{name}: File too large" for name in ("last.npz", "best.npz")]
    assert (here / "run/last.npz").read_bytes() == kept
    assert command("train", "mine.toml", "--out", "run", "--resume", "--steps", 13)[0] == 0
    assert [step for step, split, _ in losses(here / "run") if split == "train"] == list(range(1, 14))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_says_how_to_go_on_and_so_it_does(command, here, number):
    endless = [sys.executable, "-m", "rnnbench", "train", "mine.toml", "--steps", "1000000", "--out", "a folder"]
    metrics = here / "a folder/metrics.jsonl"
    with subprocess.Popen(endless, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            while not (metrics.exists() and metrics.read_bytes().count(b"\n") > 20):
                assert process.poll() is None, process.communicate()
                time.sleep(0.05)
            process.send_signal(number)
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    line = err.splitlines()[-1]
    assert (process.returncode, out) == (130, "")
    said, _, go_on = line.partition("Go on with: ")
    assert said == "rnnbench: interrupted; the last checkpoint is kept. "
    assert shlex.split(go_on) == ["rnnbench", *endless[3:], "--resume"]
    steps = read_checkpoint(here / "a folder").step + 3
    code, _, err = command(*shlex.split(go_on)[1:], "--steps", steps)
    assert code == 0, err
    assert [step for step, split, _ in losses(here / "a folder") if split == "train"] == list(range(1, steps + 1))


# sample


def test_the_same_seed_draws_the_same_text_and_another_seed_another(command, trained):
    texts = [command("sample", trained, "--length", 60, "--seed", seed)[1] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0] == sample(trained, 60, seed=1) + "\n"


def test_a_sample_is_the_same_on_every_backend(trained):
    found = set()
    for backend in ("numpy_ref", "numba_cpu", "torch_nn"):
        try:
            load_backend(backend)
        except ImportError:
            continue
        found.add(sample(trained, 50, seed=4, backend=backend))
    assert len(found) == 1


def test_a_prompt_begins_the_text(command, trained):
    code, out, _ = command("sample", trained, "--prompt", "to be", "--length", 9)
    assert (code, out[:5], len(out)) == (0, "to be", 5 + 9 + 1)


def test_only_the_k_likeliest_symbols_are_drawn(trained):
    stream, probabilities = np.random.default_rng(0), np.array([0.1, 0.3, 0.05, 0.35, 0.2])
    drawn = Counter(_draw(probabilities, 1.0, 2, stream) for _ in range(2000))
    assert drawn.keys() == {1, 3}
    assert drawn[3] / 2000 == pytest.approx(0.35 / 0.65, abs=0.05)
    everything = Counter(_draw(probabilities, 1.0, None, stream) for _ in range(2000))
    assert [everything[i] / 2000 for i in range(5)] == [pytest.approx(p, abs=0.05) for p in probabilities]
    greedy = {sample(trained, 40, seed=seed, top_k=1) for seed in range(3)}
    assert len(greedy) == 1


def test_a_low_temperature_draws_the_likeliest_symbols(trained):
    assert sample(trained, 40, temperature=1e-4) == sample(trained, 40, top_k=1)
    assert sample(trained, 40, temperature=3.0) != sample(trained, 40, temperature=0.5)


def test_what_cannot_be_drawn_from_is_one_line(command, trained, tmp_path):
    assert_refused(command("sample", trained, "--prompt", "XYZ"), 2, "prompt is 'XYZ', of which 3 characters are not in")
    for option in ("--length", "--temperature", "--top-k"):
        assert_refused(command("sample", trained, option, 0), 2, f"{option}: '0' is out of range; expected more than 0")
    train(tiny(tmp_path, "classify", training={"steps": 1}), tmp_path / "classes")
    assert_refused(command("sample", tmp_path / "classes"), 2, "is a checkpoint of the task 'classify'; expected one of 'lm'")
    assert_refused(command("sample", tmp_path / "nowhere"), 4, f"no checkpoint {tmp_path / 'nowhere'}; expected ")
    (tmp_path / "torn.npz").write_bytes((trained / "last.npz").read_bytes()[:500])
    assert_refused(command("sample", tmp_path / "torn.npz"), 4, "torn.npz is no checkpoint, or broken: ")


def test_a_text_of_control_characters_is_escaped(command, tmp_path):
    text_file(tmp_path, "ab\x1b[2Jc\x07 " * 60)
    config = tiny(tmp_path)
    text_file(tmp_path, "ab\x1b[2Jc\x07 " * 60)
    train(config, tmp_path / "run")
    code, out, err = command("sample", tmp_path / "run", "--length", 200)
    assert code == 0, err
    assert "\\x1b" in out
    assert not {"\x1b", "\x07"} & set(out)
