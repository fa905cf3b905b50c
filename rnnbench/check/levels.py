"""What a conformance run examines at each level."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from rnnbench.check.problem import Problem
from rnnbench.check.promises import PROMISES
from rnnbench.check.widths import at_every_edge, wide
from rnnbench.errors import ArgumentError
from rnnbench.networks.cells import CELLS
from rnnbench.networks.params import SCHEMES
from rnnbench.networks.spec import DTYPES
from rnnbench.suite.case import Case

LEVELS = ("smoke", "standard", "full")

LONG_MEMORY_BIAS = 3.0
"""With it and orthogonal recurrent weights gradients reach far back; with default ones a wrong window hardly shows."""

CHEAP = ("second call", "inference", "two tapes", "update", "results kept", "chunked", "causal")
"""The promises of the level smoke."""

RAGGED = (1, 2, 3, 5, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129)
"""Sizes at and around those of vector registers and of blocks in loops and kernels."""

STEPS = (1, 2, 3, 5, 8, 13, 33)
"""Sequence lengths beside them."""

LARGEST = {"T": 512, "B": 100, "I": 100, "H": 160}
"""Of random trials."""

RANDOM_IN_FULL = 200
"""How many random trials the level full has."""

DEPTHS = (
    {"layers": 2, "bidirectional": True},
    {"layers": 2, "bidirectional": False},
    {"layers": 1, "bidirectional": True},
    {"layers": 1, "bidirectional": False},
)
"""From the richest network to the plainest: a fault of the outer layer or the other direction shows only in the former."""


class Trial(NamedTuple):
    """One problem, compared with the reference, and the promises (names of ``PROMISES``) examined on it besides.

    ``poorer``: what is examined instead, the first that a backend supports, where it does not support the problem.
    """

    problem: Problem
    promises: tuple[str, ...] = ()
    poorer: tuple[Problem, ...] = ()

    def on(self, problem: Problem) -> "Trial":
        """The same of one of the poorer problems, with those promises that can be examined on it."""
        return self._replace(problem=problem, promises=tuple(n for n in self.promises if PROMISES[n].concerns(problem.case)))


@dataclass(frozen=True)
class Sizes:
    """How large the problems are; odd sizes, so that a mixed-up axis does not fit."""

    T: int = 7
    B: int = 3
    I: int = 4  # noqa: E741  # the field's name for the input size
    H: int = 5
    O: int = 6  # noqa: E741  # the field's name for the output size


SMALL = Sizes()
TINY = Sizes(T=3, B=2, I=3, H=4, O=5)
"""For the CUDA simulator, which needs milliseconds for every launch."""


class Network(NamedTuple):
    """A cell with its nonlinearity and dtype."""

    cell: str
    nonlinearity: str
    dtype: str

    def problem(self, phase: str, sizes: Sizes, *, long_memory: bool = True, **fields: Any) -> Problem:
        """A problem in one of two memory regimes; ``fields`` are the case's others."""
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
    """The trials of a level for some cells and dtypes; each has a seed of its own.

    By default all cells, in all dtypes, but at the level smoke in float32, or what a backend has instead.  Promises are
    examined on the richest network that a backend supports.  ``sizes`` are those of most of its problems; the
    levels standard and full have larger ones besides.  Raises ArgumentError for an unknown level, cell or dtype.
    """
    if level not in LEVELS:
        raise ArgumentError(f"level is {level!r}; expected one of {', '.join(LEVELS)}")
    if level == "smoke":
        return _numbered([t for of_cell in _quick_networks(cells, dtypes) for t in _smoke(of_cell, sizes)])
    of_all = networks(cells, dtypes)
    if level == "standard":
        found = [trial for network in of_all for trial in _shared_out(network, sizes)]
        found += [Trial(problem) for network in of_all for problem in _larger(network)]
        return _numbered(found + _around_widths(cells, dtypes))
    found = [_with_all_promises(problem) for network in of_all for problem in _problems(network, sizes)]
    by_size = (_larger, _ragged, _long, _wide)
    found += [Trial(problem) for kind in by_size for network in of_all for problem in kind(network)]
    return _numbered(found + _around_widths(cells, dtypes)) + random_trials(RANDOM_IN_FULL, 0, cells, dtypes)


def problems(cells: Iterable[str] | None = None, sizes: Sizes = SMALL, dtypes: Iterable[str] | None = None) -> list[Problem]:
    """Every cell, nonlinearity and dtype, layers {1, 2}, both directions, all phases, default weights and long memory."""
    found = [Trial(problem) for network in networks(cells, dtypes) for problem in _problems(network, sizes)]
    return [trial.problem for trial in _numbered(found)]


def simulator_trials(level: str, cells: Iterable[str] | None = None, dtypes: Iterable[str] | None = None) -> list[Trial]:
    """What the levels smoke and standard leave where every launch of a kernel takes milliseconds; raises ArgumentError."""
    if level not in ("smoke", "standard"):
        raise ArgumentError(f"level is {level!r} for the simulator; expected smoke or standard: more takes too long")
    if level == "smoke":
        return trials("smoke", cells, TINY, dtypes)
    return [Trial(problem) for problem in problems(cells, TINY, dtypes)]


def random_trials(
    count: int, seed: int, cells: Iterable[str] | None = None, dtypes: Iterable[str] | None = None
) -> list[Trial]:
    """Trials drawn at random, each with one promise; the same seed gives the same ones, however many are asked for.

    Sizes are drawn nearly log-uniformly, so that most are small, up to those in ``LARGEST``.
    Raises ArgumentError for an unknown cell or dtype.
    """
    of_cells, of_dtypes = _known("cell", cells, CELLS), _known("dtype", dtypes, DTYPES)
    return [_drawn(np.random.default_rng([seed, number]), of_cells, of_dtypes) for number in range(count)]


def numbers_only(todo: Iterable[Trial]) -> list[Trial]:
    """The same trials without their promises."""
    return [trial._replace(promises=()) for trial in todo]


def networks(cells: Iterable[str] | None = None, dtypes: Iterable[str] | None = None) -> list[Network]:
    """The cells with each of their nonlinearities in each dtype; raises ArgumentError for an unknown cell or dtype."""
    of_dtypes = _known("dtype", dtypes, DTYPES)
    return [
        Network(cell, of_cell, dtype)
        for cell in _known("cell", cells, CELLS)
        for of_cell in CELLS[cell].nonlinearities
        for dtype in of_dtypes
    ]


def _known(what: str, given: Iterable[str] | None, allowed: Iterable[str]) -> list[str]:
    chosen = list(dict.fromkeys(allowed if given is None else given))
    unknown = [name for name in chosen if name not in allowed]
    if unknown:
        raise ArgumentError(f"unknown {what} {unknown[0]!r}; expected {', '.join(allowed)}")
    return chosen


def _numbered(found: Iterable[Trial]) -> list[Trial]:
    """With seeds: one for each trial, the same for all that may take a problem's place."""
    return [
        trial._replace(
            problem=replace(trial.problem, seed=number),
            poorer=tuple(replace(problem, seed=number) for problem in trial.poorer),
        )
        for number, trial in enumerate(found)
    ]


def _quick_networks(cells: Iterable[str] | None, dtypes: Iterable[str] | None) -> list[list[Network]]:
    """Of each cell and dtype its networks, the one to examine first; all dtypes are one's choice where none was named."""
    by_dtype = [[dtype] for dtype in _known("dtype", dtypes, DTYPES)] if dtypes is not None else [list(DTYPES)]
    return [
        [Network(cell, nonlinearity, dtype) for dtype in of_dtypes for nonlinearity in CELLS[cell].nonlinearities]
        for cell in _known("cell", cells, CELLS)
        for of_dtypes in by_dtype
    ]


def _smoke(of_cell: list[Network], sizes: Sizes) -> list[Trial]:
    """The promises, and of a cell with a memory gate the other phases."""
    made = [
        [network.problem("step", sizes, **depth) for network in of_cell for depth in DEPTHS],
        [network.problem("step", sizes, **depth) for network in of_cell for depth in DEPTHS if not depth["bidirectional"]],
    ]
    if CELLS[of_cell[0].cell].memory_gate:
        made.append([_truncated(network, sizes) for network in of_cell])
        made.append([network.problem("forward", sizes, long_memory=False) for network in of_cell])
    left, found = list(CHEAP), []
    for problem, *poorer in made:
        names = tuple(name for name in left if PROMISES[name].concerns(problem.case))
        left = [name for name in left if name not in names]
        found.append(Trial(problem, names, tuple(poorer)))
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
    """A few sizes at which something else happens than at small ones: one of everything, more than a register or a block."""
    return [
        network.problem("step", Sizes(T=1, B=1, I=1, H=1, O=1)),
        network.problem("step", Sizes(T=5, B=65, I=40, H=33, O=18), bidirectional=True),
        network.problem("step", Sizes(T=7, B=2, I=3, H=17, O=33), layers=3),
        network.problem("tbptt", Sizes(T=70, B=1, I=5, H=33, O=3), window=32, stride=16),
    ]


def _around_widths(cells: Iterable[str] | None, dtypes: Iterable[str] | None) -> list[Trial]:
    """Every cell at every edge in its first dtype and nonlinearity, or what a backend has instead; wide in the others."""
    found = []
    of_dtypes = _known("dtype", dtypes, DTYPES)
    for cell in _known("cell", cells, CELLS):
        of_cell = [Network(cell, nonlinearity, dtype) for dtype in of_dtypes for nonlinearity in CELLS[cell].nonlinearities]
        for edge in at_every_edge():
            first, *poorer = (network.problem("step", Sizes(*edge)) for network in of_cell)
            found.append(Trial(first, (), tuple(poorer)))
        others = [network for network in of_cell if network.nonlinearity == of_cell[0].nonlinearity][1:]
        found += [Trial(network.problem("step", Sizes(*edge), long_memory=False)) for network in others for edge in wide()]
    return found


def _ragged(network: Network) -> list[Problem]:
    """Every size of RAGGED once as H, once as I and once as B, in combinations that differ from network to network."""
    shift, count = int(network.dtype == "float64"), len(RAGGED)

    def sizes(place: int) -> Sizes:
        batch, inputs, outputs = (RAGGED[(place * step + shift + step) % count] for step in (3, 5, 9))
        return Sizes(STEPS[place % len(STEPS)], batch, inputs, RAGGED[place], outputs)

    return [network.problem("step", sizes(place), long_memory=bool(place % 2)) for place in range(count)]


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


def _shared_out(network: Network, sizes: Sizes) -> list[Trial]:
    """Each promise on the richest of the problems that it concerns, and on another, so that all kinds get some."""
    found = _problems(network, sizes)
    rich = [found.index(network.problem("step", sizes, **depth)) for depth in DEPTHS]
    promised: list[list[str]] = [[] for _ in found]
    for turn, (name, promise) in enumerate(PROMISES.items()):
        concerned = [place for place, problem in enumerate(found) if promise.concerns(problem.case)]
        if concerned:
            richest = next(place for place in rich if place in concerned)
            for place in {richest, concerned[turn % len(concerned)]}:
                promised[place].append(name)
    both, deep, wide, plain = rich
    poorer = {both: (deep, wide, plain), deep: (plain,)}
    return [
        Trial(problem, tuple(promised[place]), tuple(found[other] for other in poorer.get(place, ())))
        for place, problem in enumerate(found)
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
    sizes = Sizes(**{name: size(limit) for name, limit in LARGEST.items()}, O=size(LARGEST["H"]))
    fields = {"layers": one_of([1, 1, 2, 3]), "bias": one_of([True, True, True, False])}
    if phase == "tbptt":
        window = size(sizes.T)
        fields |= {"window": window, "stride": int(rng.integers(max(1, window // 4), window + 1))}
    else:
        fields["bidirectional"] = one_of([False, True])
    drawn = network.problem(phase, sizes, long_memory=one_of([False, True]), **fields)
    if not drawn.forget_bias:
        drawn = replace(drawn, scheme=one_of(SCHEMES))
    names = _concerning(drawn.case)
    problem = replace(drawn, source=one_of(["noise", "text"]), seed=int(rng.integers(2**31)))
    return Trial(problem, (one_of(names),) if names else ())
