"""What a run will do: its settings, the backends that can take part, and the rows that it starts from."""

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
from rnnbench.measure.capabilities import Answers, ask, kind_of, missing_file, words
from rnnbench.measure.disturbances import MAX_VAIN_REPEATS
from rnnbench.networks.registry import CHOOSERS, GROUP, PEERS, registered
from rnnbench.processes.environment import named
from rnnbench.results.reader import read
from rnnbench.results.rows import AnyRow, Run
from rnnbench.suite.case import Case
from rnnbench.suite.suite import Suite


@dataclass(frozen=True)
class Settings:
    """How a run measures: ``time_limit`` is in seconds for one request to a worker, a gate or a handful of samples."""

    rounds: int = MIN_ROUNDS
    most_rounds: int | None = None  # None: as many as ``rounds`` for every case; else more where ratios are not yet known
    samples: int = 5
    shortest_sample: float = 5e-3  # seconds that the fastest backend's sample lasts
    input: str = "text"
    text_file: str | None = None
    seed: int = 0
    time_limit: float = 120.0
    filter: str | None = None  # which cases of the suite: those with this in their label,
    threads: int | None = None  # all with so many threads,
    fit: float | None = None  # and no more than can be measured in so many seconds
    affinity: str | None = None  # the processors of workers, as in 0,2-3; None: those of this process
    env: list[str] = field(default_factory=list)  # variables that workers see besides the usual ones
    vain_repeats: int = MAX_VAIN_REPEATS  # so many that were disturbed too end a round's repeats; with 0 there are none

    @property
    def most(self) -> int:
        """No case is measured in more rounds."""
        return self.rounds if self.most_rounds is None else self.most_rounds

    def problem(self, case: Case) -> Problem:
        return Problem(case, source=self.input, text_file=self.text_file, seed=self.seed)


def until_narrow(settings: Settings) -> Settings:
    """The same with up to 40 rounds for cases whose ratios are not known to 1.5%."""
    return replace(settings, most_rounds=MAX_ROUNDS)


def rigorous(settings: Settings) -> Settings:
    """The same with 20 to 40 rounds, whatever a suite asks for."""
    return replace(settings, rounds=20, most_rounds=MAX_ROUNDS)


def quicker(settings: Settings) -> Settings:
    """The same with few rounds, short samples and no repeats, for a first look within minutes; reports say so."""
    return replace(settings, rounds=5, most_rounds=None, samples=3, shortest_sample=1e-3, vain_repeats=0)


@dataclass(frozen=True)
class Entry:
    """Who is measured under a name: ``backend`` as ``load_backend`` takes it, and what to store of it, ``runs`` at least.

    ``code`` is a folder whose package rnnbench its worker imports instead of this one.
    """

    backend: str
    about: Mapping[str, Any] = field(default_factory=dict)
    code: Path | None = None


@dataclass(frozen=True)
class Plan:
    """A run before it starts: its first row, its settings, and the results file with what it already holds."""

    run: Run
    settings: Settings
    path: Path
    resumes: bool = False
    stored: Sequence[AnyRow] = ()
    problems: Sequence[str] = ()  # lines of the results file that did not read, and backends that cannot take part
    answers: Mapping[str, Answers] = field(default_factory=dict)  # what backends said of the cases, by name
    entries: Mapping[str, Entry] = field(default_factory=dict)  # names that are no backend's own

    def entry(self, name: str) -> Entry:
        return self.entries.get(name) or Entry(name)

    @property
    def names(self) -> list[str]:
        """The backends that can run here."""
        return [name for name, facts in self.run.backends.items() if "unavailable" not in facts]

    def asked(self) -> "Plan":
        """The same with the answers of all that can run here."""
        missing = [name for name in self.names if name not in self.answers]
        backends = {name: self.entry(name).backend for name in missing}
        found = _asked(backends.values(), self.run.cases, self.settings)
        return replace(self, answers={**self.answers, **{name: found[backend] for name, backend in backends.items()}})


def chosen_cases(cases: Sequence[Case], settings: Settings) -> list[Case]:
    """The cases that ``filter`` and ``threads`` leave, each once; raises ArgumentError where that is none."""
    if settings.threads is not None:
        cases = [msgspec.structs.replace(case, threads=settings.threads) for case in cases]
    cases = list(dict.fromkeys(cases))
    found = [case for case in cases if settings.filter is None or settings.filter in case.label()]
    if not found:
        some = ", ".join(repr(case.label()) for case in cases[:3])
        raise ArgumentError(f"no case has {settings.filter!r} in its label; labels are {some} and so on")
    return found


def new_plan(suite: Suite, settings: Settings, names: Sequence[str] | None, folder: Path, command: Sequence[str]) -> Plan:
    """Plan a run of ``names`` (default: the suite's own, else all registered backends, as far as they can run here).

    Raises UnknownBackend or ArgumentError, and BackendUnavailable, with all reasons, where none of the default ones can run.
    """
    chosen = _usual(suite, settings) if names is None else _chosen(names, suite.cases, settings)
    return _new_plan(suite, settings, chosen, {name: _facts(said) for name, said in chosen.items()}, folder, command)


def plan_of_entries(
    suite: Suite, settings: Settings, entries: Mapping[str, Entry], folder: Path, command: Sequence[str]
) -> Plan:
    """Plan a run under names that are no backend's own, which cannot be resumed; raises as ``new_plan`` does."""
    chosen = _chosen([entry.backend for entry in entries.values()], suite.cases, settings)
    answers = {name: chosen[entry.backend] for name, entry in entries.items()}
    facts = {name: {**entry.about, **_facts(answers[name])} for name, entry in entries.items()}
    return replace(_new_plan(suite, settings, answers, facts, folder, command), entries=entries)


def _new_plan(
    suite: Suite,
    settings: Settings,
    answers: Mapping[str, Answers],
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
    broken = [f"{name} is not measured: {found['unavailable']}" for name, found in facts.items() if "reason" in found]
    return Plan(run, settings, folder / here["machine"] / f"{identity}.jsonl", problems=broken, answers=answers)


def resumed_plan(path: Path) -> Plan:
    """Plan to go on with a results file; raises StoreError where machine, versions or code have changed since.

    Raises ArgumentError where this process may not use the processors that the run was given, or has not its variables.
    """
    contents = read(path)
    settings = msgspec.convert(contents.run.settings, Settings)  # of the right types, or it would not have been read
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
    plan = Plan(contents.run, settings, path, True, contents.rows, contents.problems).asked()
    for name, said in plan.answers.items():
        if said.absent:
            raise StoreError(f"cannot go on with {path}: {name} cannot run here any more: {words(said.absent)}")
        before = contents.run.backends[name]
        changed = [key for key in ("code", "package") if key in before and before[key] != _facts(said).get(key)]
        if changed:
            was, now_is = before[changed[0]], _facts(said).get(changed[0])
            raise StoreError(
                f"cannot go on with {path}: the {changed[0]} of {name} was {was} and is {now_is}; start a new run instead"
            )
    return plan


def with_suite_settings(settings: Settings, suite: Suite) -> Settings:
    """The settings with what the suite asks for in place of the defaults; its number of rounds is a fixed one."""
    asked = {name: value for name, value in msgspec.structs.asdict(suite.settings).items() if value is not None}
    asked.pop("backends", None)  # who takes part is no setting of how to measure
    if "rounds" in asked:
        asked["most_rounds"] = None
    return replace(settings, **asked)


def _usual(suite: Suite, settings: Settings) -> dict[str, Answers]:
    """What each backend that takes part by default says of itself and of the cases, or the reason why it cannot.

    Raises ArgumentError and UnknownBackend for a name of nothing, and BackendUnavailable where none can.
    """
    own = suite.settings.backends
    _check_names(own or ())
    found = _asked(own or sorted(registered(GROUP)), suite.cases, settings)
    if all(said.absent for said in found.values()):
        which = f"of suite {suite.name} " if own else ""
        reasons = dict.fromkeys(_named(name, said) for name, said in found.items())
        raise BackendUnavailable(f"no backend {which}can run here: {'; '.join(reasons)}")
    return found


def _chosen(names: Sequence[str], cases: Sequence[Case], settings: Settings) -> dict[str, Answers]:
    """What each of the asked-for backends says of itself and of the cases, or the reason why it cannot.


    One whose library or device is not here is an error, and so are names of nothing; one that does harm when it is imported
    or asked is left out, and told.  Raises ArgumentError, UnknownBackend and BackendUnavailable.
    """
    _check_names(names)
    found = _asked(names, cases, settings)
    for name, said in found.items():
        kind, why = kind_of(said), words(said.absent)
        if kind == "UnknownBackend":
            raise UnknownBackend(why)
        if kind == "BackendUnavailable":
            raise ArgumentError(f"backend {name!r} cannot run here: {why}")
    if all(said.absent for said in found.values()):
        raise BackendUnavailable("; ".join(dict.fromkeys(_named(name, said) for name, said in found.items())))
    return found


def _check_names(names: Sequence[str]) -> None:
    known = sorted(registered(GROUP, PEERS, CHOOSERS))
    for name in names:
        if missing_file(name):
            raise UnknownBackend(f"no file {name!r}; expected a registered backend or the path of a module")
        if not name.endswith(".py") and name not in known:
            raise ArgumentError(f"unknown backend {name!r}; registered are {', '.join(known)}")


def _asked(backends: Iterable[str], cases: Sequence[Case], settings: Settings) -> dict[str, Answers]:
    return ask(backends, cases, env=settings.env, processors=settings.affinity)


def _facts(said: Answers) -> dict[str, Any]:
    """What a run stores of a backend; ``reason`` where it is left out because it does harm."""
    if said.absent:
        harm = {} if kind_of(said) == "BackendUnavailable" else {"reason": said.absent.reason}
        return {"unavailable": words(said.absent)} | harm
    return {key: value for key, value in said.info.items() if key != "threads"}  # each case sets its own


def _named(name: str, said: Answers) -> str:
    why = words(said.absent)
    return why if why.startswith(name) else f"{name} cannot run here: {why}"
