"""The trials of a conformance run at each level."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from rnnbench.check.problem import Problem
from rnnbench.check.promises import PROMISES
from rnnbench.check.widths import at_every_edge, wide
from rnnbench.errors import ArgumentError
from rnnbench.networks.cells import CELLS, PROJECTED
from rnnbench.networks.params import SCHEMES
from rnnbench.networks.spec import DTYPES
from rnnbench.suite.case import Case

LEVELS = ("smoke", "standard", "full")

LONG_MEMORY_BIAS = 3.0
"""Forget bias of long-memory problems.

With it and orthogonal recurrent weights, gradients reach far back; with default weights a wrong window hardly shows.
"""

SMOKE_PROMISES = ("second call", "inference", "two tapes", "update", "results kept", "chunked", "causal")
"""Promises tested at level smoke."""

RAGGED = (1, 2, 3, 5, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129)
"""Sizes at and around the widths of vector registers and of blocks in loops and kernels."""

STEPS = (1, 2, 3, 5, 8, 13, 33)
"""Sequence lengths combined with the sizes of RAGGED."""

MAX_RANDOM_SIZES = {"T": 512, "B": 100, "I": 100, "H": 160}
"""Largest sizes of random trials."""

FULL_RANDOM_TRIALS = 200
"""Number of random trials at level full."""

DEPTHS = (
    {"layers": 2, "bidirectional": True},
    {"layers": 2, "bidirectional": False},
    {"layers": 1, "bidirectional": True},
    {"layers": 1, "bidirectional": False},
)
"""Layers and directions, most complex first; some bugs show only in the upper layer or the backward direction."""


class Trial(NamedTuple):
    """A problem to compare with the reference, and the promises (names of ``PROMISES``) to test on it.

    ``fallbacks``: simpler problems; if a backend does not support the problem, the first supported fallback replaces it.
    """

    problem: Problem
    promises: tuple[str, ...] = ()
    fallbacks: tuple[Problem, ...] = ()

    def on(self, problem: Problem) -> "Trial":
        """Return this trial on a fallback, with the promises that apply to it."""
        return self._replace(problem=problem, promises=tuple(n for n in self.promises if PROMISES[n].concerns(problem.case)))


@dataclass(frozen=True)
class Sizes:
    """The sizes of a problem; the defaults differ from each other, so that swapped axes do not fit."""

    T: int = 7
    B: int = 3
    I: int = 4  # noqa: E741  # the field's name for the input size
    H: int = 5
    O: int = 6  # noqa: E741  # the field's name for the output size


SMALL = Sizes()
TINY = Sizes(T=3, B=2, I=3, H=4, O=5)
"""Sizes for the CUDA simulator, in which every launch takes milliseconds."""


class Network(NamedTuple):
    """A cell with its nonlinearity and dtype."""

    cell: str
    nonlinearity: str
    dtype: str

    def problem(self, phase: str, sizes: Sizes, *, long_memory: bool = True, **fields: Any) -> Problem:
        """Return a problem with long or default memory; ``fields`` are further fields of the case."""
        kind = CELLS[self.cell]
        options = {"output_size": sizes.O if kind.feeds_back_output else None, **self._asdict(), **fields}
        case = Case(phase=phase, T=sizes.T, B=sizes.B, I=sizes.I, H=sizes.H, **options)  # type: ignore[arg-type]
        bias = LONG_MEMORY_BIAS if kind.memory_gate and case.bias else 0.0
        return Problem(case, "orthogonal", bias) if long_memory else Problem(case)


def trials(
    level: str = "standard",
    cells: Iterable[str] | None = None,
    sizes: Sizes = SMALL,
    dtypes: Iterable[str] | None = None,
) -> list[Trial]:
    """Return the trials of a level; each has its own seed.

    ``level``: "smoke", "standard" or "full".
    ``cells``, ``dtypes``: None means all; at level smoke only float32, or the first dtype that the backend supports.
    ``sizes``: the sizes of most problems; the levels standard and full add larger ones.
    Promises are tested on the most complex network that a backend supports.
    Raises ArgumentError for an unknown level, cell or dtype.
    """
    if level not in LEVELS:
        raise ArgumentError(f"level is {level!r}; expected one of {', '.join(LEVELS)}")
    if level == "smoke":
        return _seeded([t for candidates in _smoke_networks(cells, dtypes) for t in _smoke(candidates, sizes)])
    every = networks(cells, dtypes)
    if level == "standard":
        found = [trial for network in every for trial in _with_distributed_promises(network, sizes)]
        found += [trial for network in every for trial in (*_with_lengths(network, sizes), *_projected(network, sizes))]
        found += [Trial(problem) for network in every for problem in _larger(network)]
        return _seeded(found + _around_widths(cells, dtypes))
    found = [_with_all_promises(problem) for network in every for problem in _problems(network, sizes)]
    found += [trial for network in every for trial in (*_with_lengths(network, sizes), *_projected(network, sizes))]
    by_size = (_larger, _ragged, _long, _wide)
    found += [Trial(problem) for kind in by_size for network in every for problem in kind(network)]
    return _seeded(found + _around_widths(cells, dtypes)) + random_trials(FULL_RANDOM_TRIALS, 0, cells, dtypes)


def problems(cells: Iterable[str] | None = None, sizes: Sizes = SMALL, dtypes: Iterable[str] | None = None) -> list[Problem]:
    """Return problems for every cell, nonlinearity, dtype and phase, 1 and 2 layers, 1 and 2 directions, both memories."""
    found = [Trial(problem) for network in networks(cells, dtypes) for problem in _problems(network, sizes)]
    return [trial.problem for trial in _seeded(found)]


def simulator_trials(level: str, cells: Iterable[str] | None = None, dtypes: Iterable[str] | None = None) -> list[Trial]:
    """Return the trials of a level for the CUDA simulator, with tiny sizes; raises ArgumentError."""
    if level not in ("smoke", "standard"):
        raise ArgumentError(f"level is {level!r} for the simulator; expected smoke or standard: full takes too long")
    if level == "smoke":
        return trials("smoke", cells, TINY, dtypes)
    return [Trial(problem) for problem in problems(cells, TINY, dtypes)]


def random_trials(
    count: int, seed: int, cells: Iterable[str] | None = None, dtypes: Iterable[str] | None = None
) -> list[Trial]:
    """Draw ``count`` random trials, each with one promise; a larger count only appends trials.

    Sizes are nearly log-uniform up to ``MAX_RANDOM_SIZES``, so most are small.
    Raises ArgumentError for an unknown cell or dtype.
    """
    of_cells, of_dtypes = _known("cell", cells, CELLS), _known("dtype", dtypes, DTYPES)
    return [_drawn(np.random.default_rng([seed, number]), of_cells, of_dtypes) for number in range(count)]


def numbers_only(todo: Iterable[Trial]) -> list[Trial]:
    """Remove the promises from trials."""
    return [trial._replace(promises=()) for trial in todo]


def networks(cells: Iterable[str] | None = None, dtypes: Iterable[str] | None = None) -> list[Network]:
    """Return all combinations of cell, nonlinearity and dtype; raises ArgumentError for an unknown cell or dtype."""
    of_dtypes = _known("dtype", dtypes, DTYPES)
    return [
        Network(cell, nonlinearity, dtype)
        for cell in _known("cell", cells, CELLS)
        for nonlinearity in CELLS[cell].nonlinearities
        for dtype in of_dtypes
    ]


def _known(what: str, given: Iterable[str] | None, allowed: Iterable[str]) -> list[str]:
    chosen = list(dict.fromkeys(allowed if given is None else given))
    unknown = [name for name in chosen if name not in allowed]
    if unknown:
        raise ArgumentError(f"unknown {what} {unknown[0]!r}; expected {', '.join(allowed)}")
    return chosen


def _seeded(found: Iterable[Trial]) -> list[Trial]:
    """Number the trials and use the numbers as seeds, also of their fallbacks."""
    return [
        trial._replace(
            problem=replace(trial.problem, seed=number),
            fallbacks=tuple(replace(problem, seed=number) for problem in trial.fallbacks),
        )
        for number, trial in enumerate(found)
    ]


def _smoke_networks(cells: Iterable[str] | None, dtypes: Iterable[str] | None) -> list[list[Network]]:
    """For each cell and named dtype the candidate networks, preferred one first; without names all dtypes are candidates."""
    by_dtype = [[dtype] for dtype in _known("dtype", dtypes, DTYPES)] if dtypes is not None else [list(DTYPES)]
    return [
        [Network(cell, nonlinearity, dtype) for dtype in of_dtypes for nonlinearity in CELLS[cell].nonlinearities]
        for cell in _known("cell", cells, CELLS)
        for of_dtypes in by_dtype
    ]


def _smoke(candidates: list[Network], sizes: Sizes) -> list[Trial]:
    """Return step trials that cover the smoke promises and, for a cell with a memory gate, trials of the other phases."""
    problems = [
        [network.problem("step", sizes, **depth) for network in candidates for depth in DEPTHS],
        [network.problem("step", sizes, **depth) for network in candidates for depth in DEPTHS if not depth["bidirectional"]],
    ]
    if CELLS[candidates[0].cell].memory_gate:
        problems.append([_truncated(network, sizes) for network in candidates])
        problems.append([network.problem("forward", sizes, long_memory=False) for network in candidates])
    left, found = list(SMOKE_PROMISES), []
    for problem, *fallbacks in problems:
        names = tuple(name for name in left if PROMISES[name].concerns(problem.case))
        left = [name for name in left if name not in names]
        found.append(Trial(problem, names, tuple(fallbacks)))
    return found


def _problems(network: Network, sizes: Sizes) -> list[Problem]:
    found = []
    for layers in (1, 2):
        for bidirectional in (False, True):
            depth = {"layers": layers, "bidirectional": bidirectional}
            found.append(network.problem("step", sizes, long_memory=False, **depth))
            found.append(network.problem("step", sizes, **depth))
            found.append(network.problem("forward", sizes, **depth))
        found.append(_truncated(network, sizes, layers=layers))
    return [*found, network.problem("step", sizes, bias=False)]


def _truncated(network: Network, sizes: Sizes, **fields: Any) -> Problem:
    return network.problem("tbptt", sizes, window=max(1, sizes.T // 2), stride=max(1, sizes.T // 3), **fields)


def _larger(network: Network) -> list[Problem]:
    """Problems with all sizes 1, and with sizes beyond a vector register or a block."""
    return [
        network.problem("step", Sizes(T=1, B=1, I=1, H=1, O=1)),
        network.problem("step", Sizes(T=5, B=65, I=40, H=33, O=18), bidirectional=True),
        network.problem("step", Sizes(T=7, B=2, I=3, H=17, O=33), layers=3),
        network.problem("tbptt", Sizes(T=70, B=1, I=5, H=33, O=3), window=32, stride=16),
    ]


def _around_widths(cells: Iterable[str] | None, dtypes: Iterable[str] | None) -> list[Trial]:
    """Trials of each cell at every edge, in the first dtype and nonlinearity that a backend supports.

    In the other dtypes only the largest widths are tested.
    """
    found = []
    of_dtypes = _known("dtype", dtypes, DTYPES)
    for cell in _known("cell", cells, CELLS):
        candidates = [Network(cell, nonlinearity, dtype) for dtype in of_dtypes for nonlinearity in CELLS[cell].nonlinearities]
        for edge in at_every_edge():
            first, *fallbacks = (network.problem("step", Sizes(*edge)) for network in candidates)
            found.append(Trial(first, (), tuple(fallbacks)))
        others = [network for network in candidates if network.nonlinearity == candidates[0].nonlinearity][1:]
        found += [Trial(network.problem("step", Sizes(*edge), long_memory=False)) for network in others for edge in wide()]
    return found


def _ragged(network: Network) -> list[Problem]:
    """Problems with each size of RAGGED once as H, once as I and once as B; float64 has other combinations."""
    shift, count = int(network.dtype == "float64"), len(RAGGED)

    def sizes(index: int) -> Sizes:
        batch, inputs, outputs = (RAGGED[(index * step + shift + step) % count] for step in (3, 5, 9))
        return Sizes(STEPS[index % len(STEPS)], batch, inputs, RAGGED[index], outputs)

    return [network.problem("step", sizes(index), long_memory=bool(index % 2)) for index in range(count)]


def _long(network: Network) -> list[Problem]:
    if network.dtype == "float32":
        return [network.problem("step", Sizes(T=4096, B=1, I=3, H=4))]
    return [
        network.problem("step", Sizes(T=1000, B=2, I=3, H=5), bidirectional=True),
        network.problem("tbptt", Sizes(T=2048, B=1, I=3, H=4), window=100, stride=77),
    ]


def _wide(network: Network) -> list[Problem]:
    sizes = Sizes(T=3, B=2, I=7, H=1024, O=5) if network.dtype == "float32" else Sizes(T=4, B=3, I=300, H=511, O=7)
    return [network.problem("step", sizes, long_memory=False)]


def _with_distributed_promises(network: Network, sizes: Sizes) -> list[Trial]:
    """Trials that test each promise twice: on the most complex problem that it applies to, and on another one in turn."""
    found = _problems(network, sizes)
    by_depth = [found.index(network.problem("step", sizes, **depth)) for depth in DEPTHS]
    promises: list[list[str]] = [[] for _ in found]
    for turn, (name, promise) in enumerate(PROMISES.items()):
        concerned = [index for index, problem in enumerate(found) if promise.concerns(problem.case)]
        if concerned:
            richest = next(index for index in by_depth if index in concerned)
            for index in {richest, concerned[turn % len(concerned)]}:
                promises[index].append(name)
    both, deep, wide, plain = by_depth
    fallbacks = {both: (deep, wide, plain), deep: (plain,)}
    return [
        Trial(problem, tuple(promises[index]), tuple(found[other] for other in fallbacks.get(index, ())))
        for index, problem in enumerate(found)
    ]


def _with_lengths(network: Network, sizes: Sizes) -> list[Trial]:
    """Sequences of different lengths: with both directions, truncated, and in a batch of many rows."""
    sizes = replace(sizes, B=2 * sizes.B)
    both, *simpler = (network.problem("step", sizes, lengths="corners", **depth) for depth in DEPTHS)
    found = [
        Trial(both, tuple(_concerning(both.case)), tuple(simpler)),
        Trial(_truncated(network, sizes, lengths="corners")),
    ]
    if network.dtype == "float32":
        found.append(Trial(network.problem("step", Sizes(T=9, B=17, I=5, H=19, O=6), lengths="uniform")))
    return found


def _projected(network: Network, sizes: Sizes) -> list[Trial]:
    """A network of cells that have a projection, with one: every promise in float32, the numbers alone in other dtypes."""
    if network.cell not in PROJECTED:
        return []
    size: dict[str, Any] = {"projection_size": max(1, sizes.H - 2)}
    both, *simpler = (network.problem("step", sizes, **depth, **size) for depth in DEPTHS)
    one_layer = network.problem("step", sizes, **size)
    promised = [name for name in _concerning(both.case) if network.dtype == "float32"]
    others = [name for name in _concerning(one_layer.case) if network.dtype == "float32" and name not in promised]
    return [
        Trial(both, tuple(promised), tuple(simpler)),
        Trial(one_layer, tuple(others)),
        Trial(network.problem("forward", sizes, long_memory=False, **size)),
        Trial(_truncated(network, sizes, **size)),
        Trial(network.problem("step", Sizes(T=5, B=65, I=40, H=33), bidirectional=True, projection_size=18)),
        Trial(network.problem("step", replace(sizes, B=2 * sizes.B), lengths="corners", **size)),
        Trial(network.problem("step", sizes, projection_size=sizes.H), fallbacks=(one_layer,)),
    ]


def _with_all_promises(problem: Problem) -> Trial:
    return Trial(problem, tuple(_concerning(problem.case)))


def _concerning(case: Case) -> list[str]:
    return [name for name, promise in PROMISES.items() if promise.concerns(case)]


def _drawn(rng: np.random.Generator, cells: list[str], dtypes: list[str]) -> Trial:
    def one_of(values: Iterable[Any]) -> Any:
        choices = list(values)
        return choices[rng.integers(len(choices))]

    def size(limit: int) -> int:
        return round(limit ** (rng.random() ** 1.5))

    cell, phase = one_of(cells), one_of(["forward", "step", "step", "step", "tbptt"])
    network = Network(cell, one_of(CELLS[cell].nonlinearities), one_of(dtypes))
    sizes = Sizes(**{name: size(limit) for name, limit in MAX_RANDOM_SIZES.items()}, O=size(MAX_RANDOM_SIZES["H"]))
    fields = {"layers": one_of([1, 1, 2, 3]), "bias": one_of([True, True, True, False])}
    if phase == "tbptt":
        window = size(sizes.T)
        fields |= {"window": window, "stride": int(rng.integers(max(1, window // 4), window + 1))}
    else:
        fields["bidirectional"] = one_of([False, True])
    fields["lengths"] = one_of([None, None, None, "corners"])
    drawn = network.problem(phase, sizes, long_memory=one_of([False, True]), **fields)
    if not drawn.forget_bias:
        drawn = replace(drawn, scheme=one_of(SCHEMES))
    names = _concerning(drawn.case)
    problem = replace(drawn, source=one_of(["noise", "text"]), seed=int(rng.integers(2**31)))
    return Trial(problem, (one_of(names),) if names else ())
