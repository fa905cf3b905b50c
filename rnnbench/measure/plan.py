"""What a run will do: its settings, the backends that can take part, and the rows that it starts from."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from rnnbench import store
from rnnbench.backend import backends as list_backends
from rnnbench.backend import choosers as list_choosers
from rnnbench.backend import load_backend
from rnnbench.backend import peers as list_peers
from rnnbench.check import Problem
from rnnbench.errors import ArgumentError, StoreError
from rnnbench.intervals import FEWEST, MOST
from rnnbench.measure.affinity import checked
from rnnbench.measure.events import MOST_VAIN
from rnnbench.measure.machine import environment
from rnnbench.store import Case
from rnnbench.suite import Suite


@dataclass(frozen=True)
class Settings:
    """How a run measures: ``time_limit`` is in seconds for one request to a worker, a gate or a handful of samples."""

    rounds: int = FEWEST
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
    vain_repeats: int = MOST_VAIN  # so many that were disturbed too end a round's repeats; with 0 there are none

    @property
    def most(self) -> int:
        """No case is measured in more rounds."""
        return self.rounds if self.most_rounds is None else self.most_rounds

    def problem(self, case: Case) -> Problem:
        return Problem(case, source=self.input, text_file=self.text_file, seed=self.seed)


def until_narrow(settings: Settings) -> Settings:
    """The same with up to 40 rounds for cases whose ratios are not known to 1.5%."""
    return replace(settings, most_rounds=MOST)


def rigorous(settings: Settings) -> Settings:
    """The same with 20 to 40 rounds, whatever a suite asks for."""
    return replace(settings, rounds=20, most_rounds=MOST)


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

    run: store.Run
    settings: Settings
    path: Path
    resumes: bool = False
    stored: Sequence[store.AnyRow] = ()
    problems: Sequence[str] = ()  # lines of the results file that did not read
    entries: Mapping[str, Entry] = field(default_factory=dict)  # names that are no backend's own

    def entry(self, name: str) -> Entry:
        return self.entries.get(name) or Entry(name)

    @property
    def names(self) -> list[str]:
        """The backends that can run here."""
        return [name for name, facts in self.run.backends.items() if "unavailable" not in facts]


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
    """Plan a run of ``names`` (default: all registered backends); raises UnknownBackend or ArgumentError."""
    return _new_plan(suite, settings, _chosen(names), folder, command)


def plan_of_entries(
    suite: Suite, settings: Settings, entries: Mapping[str, Entry], folder: Path, command: Sequence[str]
) -> Plan:
    """Plan a run under names that are no backend's own, which cannot be resumed; raises as ``new_plan`` does."""
    chosen = {name: {**entry.about, **_chosen([entry.backend])[entry.backend]} for name, entry in entries.items()}
    return replace(_new_plan(suite, settings, chosen, folder, command), entries=entries)


def _new_plan(
    suite: Suite, settings: Settings, chosen: dict[str, dict[str, Any]], folder: Path, command: Sequence[str]
) -> Plan:
    facts = environment(settings.affinity)
    now = datetime.datetime.now(datetime.UTC)
    identity = f"{now:%Y%m%dT%H%M%S-%f}-{suite.name}"  # microseconds: two runs may start in one second
    run = store.Run(
        run=identity,
        started=now.isoformat(timespec="seconds"),
        suite=suite.name,
        command=list(command),
        settings=msgspec.to_builtins(settings),
        environment=facts,
        backends=chosen,
        cases=suite.cases,
    )
    return Plan(run, settings, folder / facts["machine"] / f"{identity}.jsonl")


def resumed_plan(path: Path) -> Plan:
    """Plan to go on with a results file; raises StoreError where machine, versions or code have changed since.

    Raises ArgumentError where this process may not use the processors that the run was given.
    """
    contents = store.read(path)
    settings = msgspec.convert(contents.run.settings, Settings)  # of the right types, or it would not have been read
    if settings.affinity is not None:
        checked(settings.affinity)
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
    return Plan(contents.run, settings, path, True, contents.rows, contents.problems)


def with_suite_settings(settings: Settings, suite: Suite) -> Settings:
    """The settings with what the suite asks for in place of the defaults; its number of rounds is a fixed one."""
    asked = {name: value for name, value in msgspec.to_builtins(suite.settings).items() if value is not None}
    if "rounds" in asked:
        asked["most_rounds"] = None
    return replace(settings, **asked)


def _chosen(names: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """What each backend that takes part says of itself, or the reason why it cannot.

    Raises ArgumentError where an asked-for one cannot.
    """
    listing = {entry.name: entry.reason for entry in list_backends()}
    if names is not None and not set(names) <= set(listing):
        listing |= {entry.name: entry.reason for entry in (*list_peers(), *list_choosers())}
    if names is None:
        chosen = {name: {"unavailable": reason} if reason else _facts(name) for name, reason in listing.items()}
    else:
        chosen = {}
        for name in names:
            if not name.endswith(".py") and name not in listing:
                raise ArgumentError(f"unknown backend {name!r}; registered are {', '.join(listing)}")
            if listing.get(name):
                raise ArgumentError(f"backend {name!r} cannot run here: {listing[name]}")
            chosen[name] = _facts(name)
    if all("unavailable" in facts for facts in chosen.values()):
        raise ArgumentError("no backend can run here; `rnnbench backends` says why")
    return chosen


def _facts(name: str) -> dict[str, Any]:
    facts = load_backend(name).info()
    return {key: value for key, value in facts.items() if key != "threads"}  # each case sets its own
