"""Validate the first row of a results file, so that readers can rely on the types of its facts."""

from collections.abc import Mapping
from typing import Any

import msgspec

from rnnbench.suite.limits import Number, Rounds, Seconds, Seed, Size

MAX_NESTING = 16
"""Deepest nesting of facts that is accepted; runs store facts three deep."""


class _Environment(msgspec.Struct):
    machine: str | None = None
    cpu: str | None = None
    architecture: str | None = None
    cores: Size | None = None
    affinity: str | None = None
    caches: list[dict[str, Any]] | None = None
    smt: bool | None = None
    vector_instructions: list[str] | None = None
    virtual_machine: bool | None = None
    memory_gib: float | None = None
    gpus: list[dict[str, str]] | None = None
    os: str | None = None
    python: str | None = None
    implementation: str | None = None
    versions: dict[str, str] = {}
    commit: str | None = None
    dirty: bool | None = None


class _Settings(msgspec.Struct):
    rounds: Rounds = 1
    most_rounds: Rounds | None = None
    samples: Rounds = 1
    shortest_sample: Seconds = 1.0
    input: str = ""
    text_file: str | None = None
    seed: Seed = 0
    time_limit: Seconds = 1.0
    filter: str | None = None
    threads: Size | None = None
    fit: Seconds | None = None
    affinity: str | None = None
    vain_repeats: Number = 0


class _About(msgspec.Struct):
    unavailable: str = ""
    runs: str = ""
    commit: str | None = None
    slowed_by_percent: float = 0.0


class _Facts(msgspec.Struct):
    environment: _Environment
    settings: _Settings
    backends: dict[str, _About]


def header_error(environment: Mapping[str, Any], settings: Mapping[str, Any], backends: Mapping[str, Any]) -> str | None:
    """Return why the facts are not those of a run, or None; unknown facts are accepted."""
    facts = {"environment": environment, "settings": settings, "backends": backends}
    if _nesting(facts) > MAX_NESTING + 1:
        return f"facts are nested more than {MAX_NESTING} deep"
    try:
        msgspec.convert(facts, _Facts)
    except msgspec.ValidationError as error:
        return str(error)
    return None


def _nesting(value: Any) -> int:
    """Count the nesting of lists and objects, without recursion."""
    depth, level = 0, [value]
    while level:
        level = [
            inner for one in level if isinstance(one, dict | list) for inner in (one.values() if isinstance(one, dict) else one)
        ]
        depth += 1
    return depth - 1
