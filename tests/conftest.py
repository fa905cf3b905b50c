"""What several files of tests use, and how files are shared out among processes."""

import functools
import signal
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
import threadpoolctl

from rnnbench.check import conformance, references
from rnnbench.cli.main import main
from rnnbench.measure import capabilities, expectations
from rnnbench.measure import round as round_module
from rnnbench.measure import worker_pool as workers_module
from rnnbench.networks import registry

pytest.register_assert_rewrite("helpers")  # before they are imported, so that what they assert is shown with its values

from helpers import schedule  # noqa: E402
from helpers.browser import launched  # noqa: E402
from helpers.in_process_checks import expected_once  # noqa: E402
from helpers.runs import Scripted  # noqa: E402
from helpers.wrapped_reference import backend_file  # noqa: E402


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kill-points", type=int, default=200, metavar="N", help="points at which test_kills.py kills a run")
    parser.addoption("--misbehave-everywhere", action="store_true", help="all backends of test_misbehaving.py, each command")
    parser.addoption("--audit-everything", action="store_true", help="each kernel that ships, in test_cuda_audit.py")
    parser.addoption("--fuzz-files", type=int, default=100, metavar="N", help="mutated results files of test_fuzz.py")
    parser.addoption("--fuzz-commands", type=int, default=100, metavar="N", help="command lines of test_fuzz.py")


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread():
    """Matrices of tests are small: more threads take turns on a busy machine, and a QR of theirs has taken minutes."""
    with threadpoolctl.threadpool_limits(1, "blas"):
        yield


@functools.cache
def _entry_points(group: str, path: tuple[str, ...]) -> Any:
    return entry_points(group=group)


@pytest.fixture(scope="session", autouse=True)
def packages_are_searched_once():
    """For backends, on each search path: loading one searches all installed packages, a third of the time of a small check."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(registry, "entry_points", lambda group: _entry_points(group, tuple(sys.path)))
        yield


@pytest.fixture(scope="session", autouse=True)
def interrupts():
    """Shells start what they put into the background with interrupts ignored, and commands inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results file of a made-up run on a grid of shapes."""
    from helpers import synthetic_results

    folder = tmp_path_factory.mktemp("results")
    synthetic_results.write_roofs(folder)
    return synthetic_results.write(folder / "grid.jsonl")


@pytest.fixture(scope="session")
def data(grid: Path) -> Any:
    """Its frames."""
    from rnnbench.reports import to_pandas

    return to_pandas(grid)


@pytest.fixture(scope="session")
def html(grid: Path) -> str:
    """Its page."""
    from rnnbench.reports import write_html

    return write_html(grid, grid.with_suffix(".html")).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as browser:
        yield browser


@pytest.fixture
def planted(tmp_path):
    """Write a backend with methods or functions of its own to a file; gives the file's name."""
    return lambda methods="pass", module="": backend_file(tmp_path / "planted.py", methods, module)


@pytest.fixture
def references_at_hand(monkeypatch):
    """What a check in this process expects is computed here, once for each problem, and not in processes of its own."""
    monkeypatch.setattr(conformance, "referees", lambda _: 0)
    monkeypatch.setattr(references, "expected", expected_once)


@pytest.fixture
def command(capsys, monkeypatch, tmp_path, references_at_hand):
    """Run a command in this process and an empty folder; gives its exit code, standard output and standard error.

    What goes to a folder of its own comes after it in a test's arguments.
    """
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    handler = signal.getsignal(signal.SIGTERM)  # a run sets its own

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        assert isinstance(code, int)
        return code, captured.out, captured.err

    yield run
    signal.signal(signal.SIGTERM, handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: schedule.order(item.path.name))


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return schedule.scheduler(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="module")
def machine_at_rest():
    """What else this machine does must not make a run measure once more."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(round_module, "is_disturbed", lambda *_: False)
        yield


@pytest.fixture
def no_process_left_behind():
    before = set(psutil.Process().children(recursive=True))
    yield
    left = set(psutil.Process().children(recursive=True)) - before
    assert [process.cmdline() for process in left] == []


@pytest.fixture
def workers(monkeypatch):
    """Workers that answer at once; gives their class."""

    class Here(Scripted):
        log: ClassVar[list] = []  # one per test

    monkeypatch.setattr(workers_module, "WorkerProcess", Here)
    monkeypatch.setattr(expectations, "WorkerProcess", Here)
    monkeypatch.setattr(capabilities, "WorkerProcess", Here)
    return Here


@pytest.fixture
def simulated_gpu(monkeypatch):
    """The simulator is this process's GPU; no kernel stays from one test to another, which may have planted a fault."""
    from rnnbench.impls.numba_cuda import current_device, device, persistent, simulator  # with numba.cuda, which few tests need

    def forget() -> None:
        for cached in (device.require, device.simulated, current_device.device_limits, persistent.kernel, simulator.simulated):
            cached.cache_clear()

    monkeypatch.setenv(device.SIMULATION, "1")
    forget()
    yield
    forget()
