"""How a run was measured, for the end of the page: protocol, command, machine, versions and settings."""

import shlex
from collections.abc import Mapping
from typing import Any

from rnnbench.compare.verdicts import RANKING_BAND, RANKING_MIN_ROUNDS
from rnnbench.reports.frames import Frames
from rnnbench.reports.text import count

MAX_PROBLEMS = 50

PROTOCOL = (
    "A case is a network, a phase and sizes. In each round every backend runs in a fresh process. Within a case the backends "
    "take turns, one sample each, in an order that changes from turn to turn. Compiling and warming up are not timed. The time "
    "of a case is the median over rounds of the median of the samples in a round. A speed relative to the baseline is the "
    "median over rounds of the ratio within a round, which is the median of the ratios of its turns. Its interval is the exact "
    "one of the sign test: 95% from 6 rounds on, the whole range below. Two times are the same if the interval lies "
    f"within {RANKING_BAND:.0%} of 1. The result is unclear if the interval contains 1 and reaches further, or if there are "
    f"fewer than {RANKING_MIN_ROUNDS} rounds: the run was too noisy or too short to tell. Each interval holds on its own; over "
    "many cases about one in twenty misses. The initial baseline is the backend with the smallest median time in the most "
    "cases. "
)
CHECKED = "Results were checked against the reference; a result that failed the check counts as wrong and is not ranked."


def provenance(data: Frames) -> dict[str, Any]:
    """Template variables of the provenance section."""
    return {
        "protocol": PROTOCOL + (CHECKED if len(data.gates) else "No result was checked against the reference."),
        "band": f"{RANKING_BAND:.0%}",
        "command": shlex.join(data.run.command),
        "environment": flat(data.run.environment),
        "settings": flat(data.run.settings),
        "backends": {name: flat(info) for name, info in data.run.backends.items()},
        "commit": data.run.environment.get("commit"),
        "dirty": data.run.environment.get("dirty"),
        "version": (data.run.environment.get("versions") or {}).get("rnnbench"),
        "look": data.look,
        "roofs": _roofs(data),
        "problems": data.problems[:MAX_PROBLEMS],
        "more_problems": max(0, len(data.problems) - MAX_PROBLEMS),
        "end": data.end,
    }


def _roofs(data: Frames) -> dict[str, str]:
    """Measured roofs as text, by name and number of threads."""
    if data.roofs is None:
        return {}
    arithmetic = [(f"{roof.name} multiply-adds", roof, "GFLOP/s") for roof in data.roofs.multiply_adds]
    reads = [(f"read from {roof.name}", roof, "GB/s") for roof in data.roofs.reads]
    return {
        f"{name}, {count(roof.threads, 'thread')}": f"{roof.best / 1e9:.4g} {unit}" for name, roof, unit in arithmetic + reads
    }


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items())
    if value is None:
        return "none"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings flattened to dotted names with text values."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            parts = value if isinstance(value, list | tuple) else [value]
            found[prefix + name] = "; ".join(map(_text, parts)) if any(map(_nested, parts)) else ", ".join(map(_text, parts))
    return found
