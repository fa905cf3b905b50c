"""A pytest plugin: ``pytest --rnnbench-backend=NAME_OR_FILE`` adds a test for each trial of a conformance run.

Without the option it imports nothing but pytest.
"""

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from rnnbench.check.isolation import Subprocess
    from rnnbench.check.levels import Trial
    from rnnbench.check.references import References

LEVELS = ("smoke", "standard", "full")  # those of rnnbench.check


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("rnnbench", "rnnbench: implementations of recurrent networks")
    group.addoption(
        "--rnnbench-backend",
        action="append",
        default=[],
        metavar="NAME_OR_FILE",
        help="check this backend, a registered name or the path of a module (.py); may be given several times",
    )
    group.addoption("--rnnbench-level", choices=LEVELS, default="standard", help="how much to test (default: standard)")
    group.addoption(
        "--rnnbench-time-limit", type=float, metavar="S", help="seconds for an import, a call or a promise (default: 60)"
    )


@pytest.hookimpl(tryfirst=True)  # so that -k and -m select among these tests too
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    names = list(dict.fromkeys(config.getoption("rnnbench_backend") or ()))
    if not names:
        return
    run = _Run(str(config.getoption("rnnbench_level")), config.getoption("rnnbench_time_limit"))
    config.add_cleanup(run.close)
    for name in names:
        collector = BackendTests.from_parent(session, name=name, nodeid=f"rnnbench/{name}", run=run)
        items.extend(session.genitems(collector))


class Wrong(Exception):
    """A failed trial; pytest shows only the message."""


class BackendTests(pytest.Collector):
    """The trials of one backend."""

    def __init__(self, run: "_Run", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._run = run

    def collect(self) -> "Iterable[TrialTest]":
        from rnnbench.check.snippet import described

        for number, trial in enumerate(self._run.trials):
            name = described(trial.problem)
            yield TrialTest.from_parent(self, name=name, nodeid=f"{self.nodeid}/{name}", run=self._run, number=number)


class TrialTest(pytest.Item):
    """One trial on one backend."""

    def __init__(self, run: "_Run", number: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._run, self.number = run, number

    def runtest(self) -> None:
        from rnnbench.check.conformance import supported_trial
        from rnnbench.check.outcome import Outcome
        from rnnbench.check.snippet import failure_text, loading_code
        from rnnbench.errors import RnnbenchError

        assert self.parent is not None
        backend, trial = self.parent.name, self._run.trials[self.number]
        self._run.want(item.number for item in self.session.items if isinstance(item, TrialTest))
        tested = self._run.subject(backend)
        try:
            outcome = supported_trial(tested, trial, {})
            if not isinstance(outcome, Outcome):
                outcome = tested.outcome(outcome, self._run.references.get(outcome.problem))
        except RnnbenchError as error:
            raise Wrong(str(error)) from None
        if outcome.skipped:
            pytest.skip(outcome.skipped)
        if not outcome.passed:
            raise Wrong(f"{backend}: {failure_text(outcome, loading_code(backend))}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        return str(excinfo.value) if isinstance(excinfo.value, Wrong) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        return self.path, None, self.nodeid


class _Run:
    """The state that the tests of a session share: the trials, their expected results and a process for each backend."""

    def __init__(self, level: str, time_limit: float | None) -> None:
        self._level, self._time_limit = level, time_limit
        self._subjects: dict[str, Subprocess] = {}
        self._wanted = False

    @cached_property
    def trials(self) -> "list[Trial]":
        from rnnbench.check.levels import trials

        return trials(self._level)

    @cached_property
    def references(self) -> "References":
        from rnnbench.check.references import References, referees

        return References(referees(len(self.trials)))

    def want(self, numbers: Iterable[int]) -> None:
        """Start computing the expected results of all selected tests, once."""
        if not self._wanted:
            self._wanted = True
            for number in numbers:
                self.references.want(self.trials[number].problem)

    def subject(self, name: str) -> "Subprocess":
        from rnnbench.check.isolation import TIME_LIMIT, Subprocess

        return self._subjects.setdefault(name, Subprocess(name, self._time_limit or TIME_LIMIT))

    def close(self) -> None:
        for tested in self._subjects.values():
            tested.end()
        if "references" in self.__dict__:
            self.references.close()
