"""What all tests share."""

import signal

import pytest

from rnnbench.cli import main


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kill-points", type=int, default=200, metavar="N", help="points at which test_kills.py kills a run")


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Run a command in this process and an empty folder; gives its exit code, standard output and standard error."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    handler = signal.getsignal(signal.SIGTERM)  # a run sets its own

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(arguments)
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        assert isinstance(code, int)
        return code, captured.out, captured.err

    yield run
    signal.signal(signal.SIGTERM, handler)
