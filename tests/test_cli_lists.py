"""What the command line lists: its version, backends and suites.  Takes 5 s."""

import functools
import re
import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points

import pytest
from helpers.command_lines import tiny_suite

import rnnbench
from rnnbench.networks import registry
from rnnbench.suite.suite import load_suite, suite_names


def test_version(command):
    assert command("--version") == (0, f"rnnbench {rnnbench.__version__}\n", "")


@functools.cache
def listing(*options: str) -> subprocess.CompletedProcess[str]:
    """``rnnbench backends`` in a process of its own, whose last line names what it has imported; facts take ten seconds."""
    source = f"import sys; from rnnbench.cli.main import main; code = main(['backends', *{options!r}])"
    source += "; print(*sys.modules); sys.exit(code)"
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)


def test_backends_lists_each_with_its_facts_or_the_reason_why_not():
    done = listing("--facts")
    assert (done.returncode, done.stderr) == (0, "")
    text = done.stdout[: done.stdout.rstrip("\n").rindex("\n") + 1]
    own, _, rest = text.partition("\npeers, to measure against:\n")
    peers, _, choosers = rest.partition("\nchoosers, which run one of the others:\n")
    lines = dict(line.split(maxsplit=1) for line in (own + peers + choosers).splitlines())
    assert [line.split()[0] for line in own.splitlines()] == [entry.name for entry in rnnbench.backends()]
    assert [line.split()[0] for line in peers.splitlines()] == [entry.name for entry in rnnbench.peers()]
    assert [line.split()[0] for line in choosers.splitlines()] == [entry.name for entry in rnnbench.choosers()]
    for entry in rnnbench.backends() + rnnbench.peers() + rnnbench.choosers():
        if entry.available:
            assert "device " in lines[entry.name]
        else:
            assert lines[entry.name] == f"unavailable: {entry.reason}"


def test_suites_lists_each_with_its_cases_its_time_and_its_source(command):
    code, text, stderr = command("suites")
    assert (code, stderr) == (0, "")
    listed = text.split("\n\n")[0]
    heads = re.findall(r"^(\S+) +(\d+) cases +(\S.*?)  (.*)$", listed, re.MULTILINE)
    assert [name for name, *_ in heads] == suite_names()
    for name, count, took, description in heads:
        suite = load_suite(name)
        assert (int(count), description) == (len(suite.cases), suite.description)
        known = r"[\d.]+ m?s|\d+ min|\d+ h \d+ min"
        assert re.fullmatch("not known" if suite.settings.backends else known, took)
        assert " ".join(f"source: {suite.source}".split()) in " ".join(listed.split())


def test_a_suite_is_shown_with_its_source_and_every_case(command, tmp_path):
    assert command("suites", tiny_suite(tmp_path)) == (
        0,
        "tiny: one small network\nsource: this test\n  elman step T3 B2 I3 H3\n  elman step T3 B2 I3 H4\n",
        "",
    )


@pytest.mark.parametrize("given", [[], ["--facts"]], ids=["lines", "facts"])
def test_a_listing_imports_no_backend_and_no_library_into_its_own_process(given):
    modules = listing(*given).stdout.splitlines()[-1].split()
    assert [name for name in modules if ".impls." in name or name in ("torch", "jax", "numba", "onnxruntime")] == []


def test_backends_are_listed_with_the_first_line_of_their_modules(command, monkeypatch):
    entries = entry_points(group="rnnbench.backends")
    theirs = EntryPoint("theirs", "their_package.backend", "rnnbench.backends")
    monkeypatch.setattr(registry, "entry_points", lambda group: [*entries, theirs] if group == "rnnbench.backends" else ())
    code, text, stderr = command("backends")
    assert (code, stderr) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in text.splitlines() if line)
    assert lines["torch_nn"] == "torch.nn.RNN, LSTM and GRU as shipped: what most people use."
    assert "not yet run on a GPU" in lines["numba_cuda"]
    assert lines["theirs"] == "from their_package.backend"  # which would run if it were looked for
    assert text.endswith("rnnbench backends --facts\n")
