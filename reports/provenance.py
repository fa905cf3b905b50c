"""How a run was measured, for the end of the page: protocol, commands that repeat it, machine, versions and settings."""

import shlex
from collections.abc import Mapping
from typing import Any

from rnnbench.compare.verdicts import RANKING_BAND, RANKING_MIN_ROUNDS
from rnnbench.reports.frames import Frames
from rnnbench.reports.text import count

MAX_PROBLEMS = 50

PROTOCOL = (
    "A case is a network, a phase and sizes. In each round every backend gets a fresh process of its own, and the backends "
    "take turns within a case, a sample each, in an order that changes from turn to turn. Compiling and warming up lie outside "
    "the timed calls. The time of a case is the median over rounds of the median of a round's samples; a speed against the "
    "baseline is the median over rounds of the ratio within a round, the median of its turns' ratios, with the exact interval "
    "of the sign test: of 95% from 6 rounds on, below that the whole range. Two times are the same where that interval lies "
    f"within {RANKING_BAND:.0%} of 1; which is faster is unclear where it contains 1 but reaches further, or where there are "
    f"fewer than {RANKING_MIN_ROUNDS} rounds: the run was too noisy or too short to say. Each interval holds by itself: over "
    "many cases about one in twenty misses. The baseline is at first the backend with the least median time in the most "
    "cases. "
)
CHECKED = "Results were checked against the reference; what failed the check counts as wrong, not as fast."


def provenance(data: Frames) -> dict[str, Any]:
    """What the template needs to tell it."""
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
    """The measured roofs by name, with the number of threads."""
    if data.roofs is None:
        return {}
    arithmetic = [(f"{roof.name} multiply-adds", roof, "GFLOP/s") for roof in data.roofs.multiply_adds]
    reads = [(f"read from {roof.name}", roof, "GB/s") for roof in data.roofs.reads]
    return {
        f"{name}, {count(roof.threads, 'thread')}": f"{roof.best / 1e9:.4g} {unit}" for name, roof, unit in arithmetic + reads
    }


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping)


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_word(part)}" for name, part in value.items())
    if value is None:
        return "none"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names and text."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            parts = value if isinstance(value, list | tuple) else [value]
            found[prefix + name] = "; ".join(map(_word, parts)) if any(map(_nested, parts)) else ", ".join(map(_word, parts))
    return found
