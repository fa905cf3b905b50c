"""Plan a run: its settings, the backends that take part, and the rows already stored."""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from rnnbench.check import Problem
from rnnbench.compare.intervals import MAX_ROUNDS, MIN_ROUNDS
from rnnbench.errors import ArgumentError, BackendUnavailable, StoreError, UnknownBackend
from rnnbench.machine.facts import environment
from rnnbench.measure.affinity import checked
from rnnbench.measure.capabilities import Capabilities, ask, error_name, failure_text, missing_file
from rnnbench.measure.disturbances import MAX_VAIN_REPEATS
from rnnbench.networks.registry import CHOOSERS, GROUP, PEERS, registered
from rnnbench.processes.environment import named
from rnnbench.results.reader import read
from rnnbench.results.rows import AnyRow, Run
from rnnbench.suite.case import Case
from rnnbench.suite.suite import Suite


@dataclass(frozen=True)
class Settings:
    """How a run measures; ``time_limit`` is the limit for one request to a worker, in seconds."""

    rounds: int = MIN_ROUNDS
    most_rounds: int | None = None  # more for cases with imprecise ratios; None: ``rounds`` for every case
    samples: int = 5
    shortest_sample: float = 5e-3  # seconds; least duration of the fastest backend's sample
    input: str = "text"
    text_file: str | None = None
    seed: int = 0
    time_limit: float = 120.0
    filter: str | None = None  # only cases whose label contains this text
    threads: int | None = None  # run every case with this number of threads
    fit: float | None = None  # seconds; only as many cases as fit this duration
    affinity: str | None = None  # processors of the workers, such as 0,2-3; None: those of this process
    env: list[str] = field(default_factory=list)  # further environment variables passed to workers
    vain_repeats: int = MAX_VAIN_REPEATS  # disturbed repeats in a row that end a round's repeats; 0: no repeats

    @property
    def most(self) -> int:
        """The maximum number of rounds of a case."""
        return self.rounds if self.most_rounds is None else self.most_rounds

    def problem(self, case: Case) -> Problem:
        return Problem(case, source=self.input, text_file=self.text_file, seed=self.seed)


def until_narrow(settings: Settings) -> Settings:
    """Return settings with up to 40 rounds for cases whose ratios are less precise than 1.5%."""
    return replace(settings, most_rounds=MAX_ROUNDS)


def rigorous(settings: Settings) -> Settings:
    """Return settings with 20 to 40 rounds, whatever the suite asks for."""
    return replace(settings, rounds=20, most_rounds=MAX_ROUNDS)


def quicker(settings: Settings) -> Settings:
    """Return settings with few rounds, short samples and no repeats, for a first look within minutes."""
    return replace(settings, rounds=5, most_rounds=None, samples=3, shortest_sample=1e-3, vain_repeats=0)


@dataclass(frozen=True)
class Entry:
    """What is measured under a name.

    ``backend``: as ``load_backend`` takes it.  ``about``: facts to store, at least ``runs``.  ``code``: a folder from which
    the worker imports rnnbench instead of this package.
    """

    backend: str
    about: Mapping[str, Any] = field(default_factory=dict)
    code: Path | None = None


@dataclass(frozen=True)
class Plan:
    """A run before it starts: its first row, its settings, its results file and the rows already in it."""

    run: Run
    settings: Settings
    path: Path
    resumes: bool = False
    stored: Sequence[AnyRow] = ()
    problems: Sequence[str] = ()  # unreadable lines of the results file, and backends that cannot take part
    capabilities: Mapping[str, Capabilities] = field(default_factory=dict)  # by name
    entries: Mapping[str, Entry] = field(default_factory=dict)  # names other than backend names

    def entry(self, name: str) -> Entry:
        return self.entries.get(name) or Entry(name)

    @property
    def names(self) -> list[str]:
        """The names whose backends can run here."""
        return [name for name, facts in self.run.backends.items() if "unavailable" not in facts]

    def with_capabilities(self) -> "Plan":
        """Return this plan with the capabilities of every backend that can run here."""
        missing = [name for name in self.names if name not in self.capabilities]
        backends = {name: self.entry(name).backend for name in missing}
        found = _ask(backends.values(), self.run.cases, self.settings)
        new = {name: found[backend] for name, backend in backends.items()}
        return replace(self, capabilities={**self.capabilities, **new})


def chosen_cases(cases: Sequence[Case], settings: Settings) -> list[Case]:
    """Apply ``threads`` and ``filter`` to cases and drop duplicates; raises ArgumentError if no case is left."""
    if settings.threads is not None:
        cases = [msgspec.structs.replace(case, threads=settings.threads) for case in cases]
    cases = list(dict.fromkeys(cases))
    found = [case for case in cases if settings.filter is None or settings.filter in case.label()]
    if not found:
        some = ", ".join(repr(case.label()) for case in cases[:3])
        raise ArgumentError(f"no case has {settings.filter!r} in its label; labels are {some} and so on")
    return found


def new_plan(suite: Suite, settings: Settings, names: Sequence[str] | None, folder: Path, command: Sequence[str]) -> Plan:
    """Plan a run of ``names`` (default: the suite's backends, else all registered ones that can run here).

    Raises UnknownBackend or ArgumentError, and BackendUnavailable, with all reasons, if none of the default ones can run.
    """
    chosen = _default_backends(suite, settings) if names is None else requested_backends(names, suite.cases, settings)
    return _new_plan(suite, settings, chosen, {name: _facts(of_name) for name, of_name in chosen.items()}, folder, command)


def plan_of_entries(
    suite: Suite, settings: Settings, entries: Mapping[str, Entry], folder: Path, command: Sequence[str]
) -> Plan:
    """Plan a run under names other than backend names.  It cannot be resumed.  Raises as ``new_plan`` does."""
    chosen = requested_backends([entry.backend for entry in entries.values()], suite.cases, settings)
    capabilities = {name: chosen[entry.backend] for name, entry in entries.items()}
    facts = {name: {**entry.about, **_facts(capabilities[name])} for name, entry in entries.items()}
    return replace(_new_plan(suite, settings, capabilities, facts, folder, command), entries=entries)


def _new_plan(
    suite: Suite,
    settings: Settings,
    capabilities: Mapping[str, Capabilities],
    facts: dict[str, dict[str, Any]],
    folder: Path,
    command: Sequence[str],
) -> Plan:
    here = environment(settings.affinity)
    now = datetime.datetime.now(datetime.UTC)
    identity = f"{now:%Y%m%dT%H%M%S-%f}-{suite.name}"  # microseconds: two runs may start in one second
    run = Run(
        run=identity,
        started=now.isoformat(timespec="seconds"),
        suite=suite.name,
        command=list(command),
        settings=msgspec.to_builtins(settings),
        environment=here,
        backends=facts,
        cases=suite.cases,
    )
    path = folder / here["machine"] / f"{identity}.jsonl"
    broken = [f"{name} is not measured: {found['unavailable']}" for name, found in facts.items() if "reason" in found]
    return Plan(run, settings, path, problems=broken, capabilities=capabilities)


def resumed_plan(path: Path) -> Plan:
    """Plan to resume a results file.

    Raises StoreError if machine, versions or code have changed, and ArgumentError if this process lacks the run's
    processors or environment variables.
    """
    contents = read(path)
    settings = msgspec.convert(contents.run.settings, Settings)  # `read` has checked the types
    if settings.affinity is not None:
        checked(settings.affinity)
    named(settings.env)
    now, then = environment(settings.affinity), contents.run.environment
    changed = [name for name in now if now[name] != then.get(name)]
    if changed:
        name = changed[0]
        raise StoreError(
            f"cannot go on with {path}: {name} was {then.get(name)!r} and is {now[name]!r}; start a new run instead"
        )
    renamed = [name for name, facts in contents.run.backends.items() if "runs" in facts]
    if renamed:
        raise StoreError(f"cannot go on with {path}: {renamed[0]!r} was a name for that run alone; start a new run instead")
    plan = Plan(contents.run, settings, path, True, contents.rows, contents.problems).with_capabilities()
    for name, capabilities in plan.capabilities.items():
        if capabilities.failure:
            raise StoreError(f"cannot go on with {path}: {name} cannot run here any more: {failure_text(capabilities.failure)}")
        before, after = contents.run.backends[name], _facts(capabilities)
        changed = [key for key in ("code", "package") if key in before and before[key] != after.get(key)]
        if changed:
            was, now_is = before[changed[0]], after.get(changed[0])
            raise StoreError(
                f"cannot go on with {path}: the {changed[0]} of {name} was {was} and is {now_is}; start a new run instead"
            )
    return plan


def with_suite_settings(settings: Settings, suite: Suite) -> Settings:
    """Return the settings with those of the suite in place of the defaults; a suite fixes its number of rounds."""
    own = {name: value for name, value in msgspec.structs.asdict(suite.settings).items() if value is not None}
    own.pop("backends", None)  # `Settings` holds no backends
    if "rounds" in own:
        own["most_rounds"] = None
    return replace(settings, **own)


def _default_backends(suite: Suite, settings: Settings) -> dict[str, Capabilities]:
    """Return the capabilities of the backends that take part by default.

    Raises ArgumentError or UnknownBackend for an unknown name, and BackendUnavailable if none can run.
    """
    own = suite.settings.backends
    _check_names(own or ())
    found = _ask(own or sorted(registered(GROUP)), suite.cases, settings)
    if all(capabilities.failure for capabilities in found.values()):
        which = f"of suite {suite.name} " if own else ""
        reasons = dict.fromkeys(_failure_sentence(name, capabilities) for name, capabilities in found.items())
        raise BackendUnavailable(f"no backend {which}can run here: {'; '.join(reasons)}")
    return found


def requested_backends(names: Sequence[str], cases: Sequence[Case], settings: Settings) -> dict[str, Capabilities]:
    """Return the capabilities of the requested backends.

    Raises ArgumentError or UnknownBackend for an unknown name and for a backend whose library or device is missing.  A
    backend that crashes, hangs or raises another error stays with its failure; if all do, raises BackendUnavailable.
    """
    _check_names(names)
    found = _ask(names, cases, settings)
    for name, capabilities in found.items():
        error, why = error_name(capabilities), failure_text(capabilities.failure)
        if error == "UnknownBackend":
            raise UnknownBackend(why)
        if error == "BackendUnavailable":
            raise ArgumentError(f"backend {name!r} cannot run here: {why}")
    if all(capabilities.failure for capabilities in found.values()):
        reasons = dict.fromkeys(_failure_sentence(name, capabilities) for name, capabilities in found.items())
        raise BackendUnavailable("; ".join(reasons))
    return found


def _check_names(names: Sequence[str]) -> None:
    known = sorted(registered(GROUP, PEERS, CHOOSERS))
    for name in names:
        if missing_file(name):
            raise UnknownBackend(f"no file {name!r}; expected a registered backend or the path of a module")
        if not name.endswith(".py") and name not in known:
            raise ArgumentError(f"unknown backend {name!r}; registered are {', '.join(known)}")


def _ask(backends: Iterable[str], cases: Sequence[Case], settings: Settings) -> dict[str, Capabilities]:
    return ask(backends, cases, env=settings.env, processors=settings.affinity)


def _facts(capabilities: Capabilities) -> dict[str, Any]:
    """Return what a run stores about a backend; ``reason`` only for one that crashes, hangs or raises another error."""
    failure = capabilities.failure
    if failure:
        reason = {} if error_name(capabilities) == "BackendUnavailable" else {"reason": failure.reason}
        return {"unavailable": failure_text(failure)} | reason
    return {key: value for key, value in capabilities.info.items() if key != "threads"}  # each case sets its own


def _failure_sentence(name: str, capabilities: Capabilities) -> str:
    why = failure_text(capabilities.failure)
    return why if why.startswith(name) else f"{name} cannot run here: {why}"
