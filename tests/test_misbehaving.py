"""Whatever a third-party backend does on import, when it is asked or called: every command says so once, and goes on.

Takes 40 s: every backend is a process, and two of them are waited for.  ``--misbehave-everywhere`` sends all of them through
``best``, ``check`` and ``auto`` too, one after the other, which takes minutes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.misbehaving_backends import IN_CALLS, IN_INFO, ON_IMPORT, SOURCES
from helpers.runs import of, own_lines
from helpers.wrapped_reference import backend_file

from rnnbench.results.reader import read
from rnnbench.results.rows import Failure, Time

pytestmark = pytest.mark.usefixtures("no_process_left_behind")

ABSENT = {**ON_IMPORT, **IN_INFO}
LIMIT = "10"
PATIENCE = 300

SUITE = """
name = "tiny"
description = "d"
source = "s"
[[grid]]
cell = "elman"
phase = "step"
T = 3
B = 2
I = 3
H = [3, 4]
"""

AMONG_THEMSELVES = """
import sys
from importlib.metadata import entry_points
from rnnbench.measure import capabilities
from rnnbench.networks import registry
capabilities.START_LIMIT = 10.0
comes_with_rnnbench = "rnnbench.impls."
registry.entry_points = lambda group: [
    entry for entry in entry_points(group=group) if entry.name == "numpy_ref" or not entry.value.startswith(comes_with_rnnbench)
]
from rnnbench.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
"""Of the backends that come with rnnbench it knows the reference: libraries take seconds to import, and behave."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder in which each of them is a module that a package registers, and a backend that is right another."""
    folder = tmp_path_factory.mktemp("installed")
    for name, source in SOURCES.items():
        (folder / f"{name}.py").write_text(source)
    backend_file(folder / "right.py")
    facts = folder / "misbehaving-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: misbehaving\nVersion: 1.0\n")
    entries = "\n".join(f"{name} = {name}" for name in [*SOURCES, "right"])
    (facts / "entry_points.txt").write_text(f"[rnnbench.peers]\n{entries}\n")
    (folder / "tiny.toml").write_text(SUITE)
    return folder


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", AMONG_THEMSELVES, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        timeout=PATIENCE,
        check=False,
    )


NAMES = ",".join([*SOURCES, "right", "numpy_ref"])

SAID = {
    "exits_0": "the worker ended with exit code 0 on import",
    "exits_3": "the worker ended with exit code 3 on import",
    "segfault": "the worker was killed by SIGSEGV on import",
    "aborts": "the worker was killed by SIGABRT on import",
    "kills_itself": "the worker was killed by SIGKILL on import",
    "raises": "raises cannot be imported: OSError: no such device",
    "raises_base": "ended with exit code 1 on import: BaseException: neither an error nor an exit",
    "interrupts": "on import",
    "syntax": "syntax cannot be imported: SyntaxError",
    "recursion": "recursion cannot be imported: RecursionError",
    "hangs": "no answer within 10 s on import",
    "closes_everything": "the worker",
    "floods": "the worker was ended: it sent 'xxxxx",
    "garbage": r"the worker was ended: it answered '\xff\x00garbage' to info",
    "another_shape": "the worker was ended: it answered '[1, 2, 3]' to info",
    "answers_itself": "the worker was ended: it answered",
    "info_raises": "info_raises cannot run here: info raised ValueError: no versions",
    "info_number": "info_number cannot run here: info returned 5; expected facts by name",
    "info_endless": "Recursion",
    "info_huge": "and more than 16 MiB after it",
    "info_exits": "the worker ended with exit code 0 on import",
    "unavailable_raises": "unavailable_raises cannot run here: unavailable raised ValueError: who knows",
}


def test_there_are_at_least_twenty():
    assert len(SOURCES) >= 20
    assert set(SAID) == set(ABSENT)


def test_a_listing_has_one_line_for_each(installed):
    done = command(installed, "backends", "--facts", "--time-limit", LIMIT)
    assert (done.returncode, done.stderr) == (0, "")
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    for name, said in SAID.items():
        assert "unavailable: " in lines[name]
        assert said in lines[name], lines[name]
    for name in {*SOURCES, "right", "numpy_ref"} - set(SAID):
        assert "device cpu" in lines[name]
    assert len([line for line in done.stdout.splitlines() if line.split() and line.split()[0] in SOURCES]) == len(SOURCES)


def assert_each_is_told_once_and_the_rest_is_measured(done: subprocess.CompletedProcess[str], path: Path, cases: int) -> None:
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    told = [line for line in own_lines(done.stderr) if " is not measured: " in line]
    assert sorted(line.split()[1] for line in told) == sorted(ABSENT)
    contents = read(path)
    assert contents.problems == []
    assert {name for name, facts in contents.run.backends.items() if "reason" in facts} == set(ABSENT)
    for name in ("right", "numpy_ref"):
        assert len({row.case for row in of(Time, contents, backend=name)}) == cases
        assert of(Failure, contents, backend=name) == []
    for name in set(SOURCES) - set(ABSENT):
        assert len(of(Failure, contents, backend=name)) == cases, name
        assert of(Time, contents, backend=name) == []


def test_a_run_tells_each_once_and_completes_the_rest(installed, tmp_path):
    options = ["--backends", NAMES, "--rounds", "1", "--input", "noise", "--time-limit", LIMIT, "-o", str(tmp_path)]
    done = command(installed, "run", "tiny.toml", *options)
    assert done.returncode == 3, done.stderr
    (path,) = tmp_path.rglob("*.jsonl")
    assert_each_is_told_once_and_the_rest_is_measured(done, path, 2)


def test_best_measures_with_those_that_are_left(installed, tmp_path):
    names = "exits_0,segfault,info_number,supports_number,call_garbage,right"
    shape = ["--cell", "elman", "-T", "3", "-B", "2", "-H", "3"]
    done = command(installed, "best", *shape, "--measure", "--backends", names, "--results", str(tmp_path))
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "best: right" in done.stdout.splitlines()
    for name in ("supports_number", "call_garbage"):
        assert len([line for line in done.stdout.splitlines() if line.startswith(name)]) == 1


@pytest.fixture
def everywhere(request):
    if not request.config.getoption("--misbehave-everywhere"):
        pytest.skip("takes minutes; pytest --misbehave-everywhere")


@pytest.mark.usefixtures("everywhere")
def test_best_says_of_all_of_them_why_and_goes_on(installed, tmp_path):
    shape = ["--cell", "elman", "-T", "3", "-B", "2", "-H", "3"]
    options = ["--measure", "--backends", NAMES, "--results", str(tmp_path)]
    done = command(installed, "best", *shape, *options)
    assert done.returncode in (0, 3), done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    best = next(line for line in done.stdout.splitlines() if line.startswith("best: "))
    assert best.removeprefix("best: ") in ("right", "numpy_ref")


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("name", SOURCES)
def test_a_check_of_each_is_one_report_or_one_line(installed, name):
    done = command(installed, "check", name, "--level", "smoke", "--cell", "elman", "--time-limit", LIMIT)
    assert done.returncode in (1, 4), done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    if done.returncode == 4:
        assert done.stdout == ""
        assert len(own_lines(done.stderr)) == 1
    else:
        assert name in done.stdout


EXAMINED = {
    "exits_0": "crashed: ended with exit code 0 on import",
    "garbage": "crashed: was ended: it answered",
    "supports_number": "raised TypeError: supports returned 5; expected None, or the reason why not",
    "supports_exits": "crashed: ended with exit code 0",
    "call_exits": "crashed: ended with exit code 0",
    "call_garbage": "crashed: was ended: it answered '[]' to examine",
    "call_unasked": "crashed: was ended: it",
}


def test_a_check_reports_on_each_and_completes_the_rest(installed):
    done = command(installed, "check", *EXAMINED, "right", "--level", "smoke", "--cell", "elman", "--json")
    assert done.returncode == 1, done.stderr
    reports = {report["name"]: report for report in json.loads(done.stdout)["reports"]}
    assert set(reports) == {*EXAMINED, "right"}
    for name, said in EXAMINED.items():
        assert said in json.dumps(reports[name]).replace("\\\\", "\\"), reports[name]
        assert reports[name]["passed"] is False
    assert reports["right"]["passed"] is True


def test_a_backend_that_does_not_even_load_is_one_line_of_a_check(installed):
    for name in ("raises", "info_number"):
        done = command(installed, "check", name, "--level", "smoke", "--cell", "elman")
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr.splitlines()[-1] == f"rnnbench: {SAID[name]}"


FASTEST = ["exits_0", "segfault", "raises", "info_number", "garbage", "kills_itself", "supports_number", "supports_exits"]


def test_auto_passes_over_those_that_are_broken_and_lives(installed, tmp_path):
    """Here each is the fastest that stored results know of."""
    assert picked_by_auto(installed, tmp_path, FASTEST) == ["numpy_ref", *sorted(FASTEST)]


@pytest.mark.usefixtures("everywhere")
def test_auto_lives_with_all_of_them(installed, tmp_path):
    names = [name for name in SOURCES if name not in IN_CALLS]  # whose calls are in this process
    assert picked_by_auto(installed, tmp_path, names) == ["numpy_ref", *sorted(names)]


def picked_by_auto(installed: Path, tmp_path: Path, names: list[str]) -> list[str]:
    asks = f"""
import os
from rnnbench.measure import capabilities
capabilities.START_LIMIT = 10.0
from pathlib import Path
import numpy as np, rnnbench
from helpers import stored_results
from rnnbench.impls import auto
from rnnbench.suite.case import Case
case = Case("elman", "forward", 3, 2, 3, 3)
names = [*{names!r}, "numpy_ref"]
Path("results").mkdir()
stored_results.write(Path("results/run.jsonl"), {{(name, case): 1.0 + n for n, name in enumerate(names)}})
spec = rnnbench.Spec("elman", 3, 3)
net = auto.load(spec, rnnbench.init_params(spec, 0), threads=1)
net.forward(np.zeros((3, 2, 3), "float32"))
(choice,) = net.picked.values()
print(choice.backend, *sorted(choice.excluded))
"""
    path = os.pathsep.join([str(installed), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", asks],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        cwd=tmp_path,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
