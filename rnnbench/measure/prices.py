"""What the stages of a run take: a fixed part by stage and backend, and calls of the network."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rnnbench.measure.plan import Settings
from rnnbench.measure.sampling import MAX_SAMPLE_SECONDS
from rnnbench.results.rows import Spent
from rnnbench.suite.case import Case
from rnnbench.suite.estimate import estimate

START, REFERENCE, COMPILE, LOAD, PREPARE, GATE, TIME, MEMORY, REST = (
    "start",  # the processes of a round, with their imports
    "reference",
    "compile",  # the first case of a cell in a run
    "load",  # the first case of a cell in a later process
    "prepare",  # every other case: a network and its first call
    "gate",
    "time",  # warm-up and samples
    "memory",
    "rest",  # what no backend does: writing rows, stopping processes
)

FIXED = {START: 3.0, COMPILE: 1.0, LOAD: 0.1, PREPARE: 0.02, GATE: 0.02, TIME: 0.03, MEMORY: 0.1, REST: 0.02}
"""Assumed seconds of a stage without its calls."""

COMPILING = {"numba_cpu": 25.0, "jax_scan": 3.0, "torch_compile": 30.0}
"""Assumed seconds of the first call of a cell by backends that compile."""

CALLS = {COMPILE: 1, LOAD: 1, PREPARE: 1, GATE: 1, MEMORY: 2}
CALLS_TO_WARM_UP, CALLS_TO_CALIBRATE = 2, 3

REFERENCE_RATE, REFERENCE_STEP = 5e9, 5e-4
"""Assumed FLOP/s of the reference with its tolerances, and seconds of a time step of its forward pass."""


@dataclass(frozen=True)
class Prices:
    """Expected seconds of each stage of a run.

    ``calls``: seconds per call, of each case on each backend that takes part.  ``fixed``: by stage and backend, from finished
    runs; a missing one is assumed.
    """

    settings: Settings
    calls: Mapping[tuple[Case, str], float]
    fixed: Mapping[tuple[str, str], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        fastest: dict[Case, float] = {}
        for (case, _), seconds in self.calls.items():
            fastest[case] = min(seconds, fastest.get(case, math.inf))
        object.__setattr__(self, "_fastest", fastest)

    def of(self, stage: str, case: Case | None = None, backend: str = "") -> float:
        """Return the expected seconds of one request."""
        if stage == REFERENCE and case is not None:
            return self.fixed.get((REFERENCE, ""), 1.0) * reference_seconds(case)
        assumed = COMPILING.get(backend, FIXED[stage]) if stage == COMPILE else FIXED[stage]
        return self.fixed.get((stage, backend), assumed) + self.called(stage, case, backend)

    def called(self, stage: str, case: Case | None, backend: str) -> float:
        """Return the seconds of ``of`` that are calls of the network."""
        call = self.calls.get((case, backend)) if case is not None else None
        if case is None or call is None:
            return 0.0
        return call * (self._calls_to_time(case, call) if stage == TIME else CALLS.get(stage, 0))

    def _calls_to_time(self, case: Case, call: float) -> int:
        fastest: float = self._fastest[case]  # type: ignore[attr-defined]
        needed = min(self.settings.shortest_sample / fastest, MAX_SAMPLE_SECONDS / call)
        loops = 2 ** max(0, math.ceil(math.log2(needed)))
        return CALLS_TO_WARM_UP + self.settings.samples * loops + (self.settings.samples - 1) * min(1, loops - 1)


def reference_seconds(case: Case) -> float:
    """Return the assumed seconds of the reference on a case, on one core."""
    passes = 1 if case.phase == "forward" else 3
    steps = case.T * case.layers * (1 + case.bidirectional)
    return estimate(case).flops / REFERENCE_RATE + passes * steps * REFERENCE_STEP


def fixed_parts(spent: Iterable[Spent]) -> dict[tuple[str, str], float]:
    """Return the fixed part of each stage by backend; for the reference, the ratio to ``reference_seconds``."""
    return {
        (one.stage, one.backend): one.seconds / one.called
        if one.stage == REFERENCE
        else max(one.seconds - one.called, 0.0) / one.count
        for one in spent
        if one.count and (one.stage != REFERENCE or one.called > 0)
    }
