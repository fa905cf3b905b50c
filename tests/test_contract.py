"""The page of the contract says what the check examines, and the backend that users copy keeps all of it.  Takes 20 s."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.in_process_checks import here

from rnnbench.check import PROMISES, trials
from rnnbench.check.levels import SMOKE_PROMISES
from rnnbench.check.report import PAGE, anchor
from rnnbench.networks.contract import Backend, Network
from rnnbench.networks.registry import load_backend

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
SECTIONS = {
    title: " ".join(body.split()) for title, body in re.findall(r"^### (.*)\n\n((?:(?!^###).*\n)*)", TEXT, re.MULTILINE)
}
"""Of the promises, by name."""


def test_the_page_has_a_section_for_every_promise_and_no_other():
    assert list(SECTIONS) == list(PROMISES)
    anchors = [anchor(name) for name in PROMISES]
    assert len(set(anchors)) == len(anchors)
    assert all(re.fullmatch(r"[a-z-]+", text) for text in anchors)


@pytest.mark.parametrize("name", PROMISES)
def test_the_page_says_of_a_promise_what_the_check_says(name):
    promise = PROMISES[name]
    assert SECTIONS[name] == f"**{promise.says}** {promise.why} How to keep it: {promise.fix}"


def test_the_page_names_every_function_and_what_smoke_examines():
    for kind in (Backend, Network):
        for name in (name for name in vars(kind) if not name.startswith("_")):
            assert re.search(rf"^\| .*`{name}\(", TEXT, re.MULTILINE), name
    assert f"`smoke` examines {', '.join(SMOKE_PROMISES[:-1])} and {SMOKE_PROMISES[-1]}" in " ".join(TEXT.split())


def test_what_the_command_prints_is_a_file_that_keeps_every_promise(tmp_path):
    command = [sys.executable, "-m", "rnnbench", "template"]
    file = tmp_path / "mine.py"
    file.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    report = here(str(file), trials("standard", ["lstm", "gru"], dtypes=["float32", "float64"]))
    assert report.passed, report.table()
    of_lengths = ["beyond the lengths", "lengths of T", "lengths in any order", "lengths refused"]
    # it has one direction, and none of the others
    assert report.not_examined == ["reversed", *of_lengths, "states", "streamed"]
    assert {outcome.problem.case.cell for outcome in report.ran} == {"lstm", "gru"}


def test_it_needs_nothing_but_numpy():
    source = Path(load_backend(str(ROOT / "rnnbench/data/template.py")).__file__).read_text(encoding="utf-8")
    imports = re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE)
    assert set(imports) == {"typing", "numpy"}
