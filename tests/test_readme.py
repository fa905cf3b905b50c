"""The README keeps its word: its example prints what it says, on every backend of the CPU that trains."""

import contextlib
import io
import re
from pathlib import Path

import pytest

import rnnbench

README = (Path(__file__).parents[1] / "README.md").read_text()
EXAMPLE, PRINTED = re.findall(r"```(?:python|text)\n(.*?)```", README, re.DOTALL)[:2]
TOLERANCE = 1e-5  # relative; the figures are shown with six digits


@pytest.mark.parametrize("name", ["numba_cpu", "numpy_ref", "torch_nn", "torch_eager", "torch_compile", "jax_scan"])
def test_the_example_prints_the_same_numbers_on_every_backend(name):
    try:
        rnnbench.load_backend(name)
    except rnnbench.BackendUnavailable as reason:
        pytest.skip(str(reason))
    assert "import numba_cpu as rnn" in EXAMPLE
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(EXAMPLE.replace("import numba_cpu as rnn", f"import {name} as rnn"), {})
    got, wanted = output.getvalue().split(), PRINTED.split()
    assert len(got) == len(wanted)
    for word, expected in zip(got, wanted, strict=True):
        if re.fullmatch(r"\d+\.\d+", expected):
            assert float(word) == pytest.approx(float(expected), rel=TOLERANCE)
        else:
            assert word == expected


def test_every_suite_and_backend_it_names_exists():
    from rnnbench.suite.suite import suite_names

    names = {entry.name for entry in rnnbench.backends() + rnnbench.peers() + rnnbench.choosers()}
    for line in re.findall(r"rnnbench run ([a-z][a-z-]*)(?=\s)", README):
        assert line in suite_names()
    assert names <= set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))
