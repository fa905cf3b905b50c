"""Picks the backend for each call by its shape: the one expected to be fastest from results stored on this machine.

Results are read once, when a network is loaded, from the folder in RNNBENCH_RESULTS or else from ./results; nothing is
measured here.  ``forward`` uses results of the phase forward, ``record`` and its ``backward`` those of step, both by (T, B).
Cell, layers, dtype and number of threads must match the network.  If there are results only for another number of threads,
the backend that is fastest with that number is picked, and a warning says once how to measure with the network's own.  If no
result applies, the default is numba_cpu.  Where rows differ in length, it also replaces a backend that takes no lengths.
``AutoNetwork.picked`` gives each choice with its reason.

Arrays are numpy.ndarray, and only backends that use numpy.ndarray are picked: the times of others leave out the conversion
at each call.  torch_nn_numpy is torch_nn with the conversion included.
"""

import functools
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import numba
import numpy as np

from rnnbench.choose.choose import Choice, Measurements, measuring_command, stored
from rnnbench.errors import BackendUnavailable, StoreError, UnknownBackend
from rnnbench.impls._host import asarray, supports, synchronize, to_numpy
from rnnbench.machine.facts import machine_name
from rnnbench.networks.arrays import NumpyArrays
from rnnbench.networks.checked import CheckedNetwork, checked_load
from rnnbench.networks.contract import Gradients, Network, State, unsupported, unsupported_lengths
from rnnbench.networks.params import Params
from rnnbench.networks.registry import load_backend, shipped
from rnnbench.networks.spec import Spec
from rnnbench.networks.stream import Stream
from rnnbench.results.reader import found_files
from rnnbench.suite.case import Case
from rnnbench.text import count

__all__ = ["asarray", "info", "load", "supports", "supports_lengths", "synchronize", "to_numpy"]

DEFAULT = "numba_cpu"
VARIABLE = "RNNBENCH_RESULTS"

_WARNED: set[tuple[int, int]] = set()
"""Pairs (threads of the results, threads of the network) already warned about."""


class Source(NamedTuple):
    """The folder of results and its ``measurements``; ``reason`` says why there are none, ``left_out`` names unusable files."""

    folder: str
    measurements: Measurements | None
    reason: str
    left_out: Sequence[str] = ()


class AutoNetwork(CheckedNetwork):
    """One network per picked backend; a tape belongs to the backend that recorded it."""

    array_type = np.ndarray
    takes_lengths = True

    def __init__(self, spec: Spec, params: Mapping[str, np.ndarray], threads: int | None) -> None:
        self.arrays = NumpyArrays(spec.numpy_dtype)
        self._threads = threads or numba.get_num_threads()
        self._source = _source()
        self._picked: dict[tuple[str, int, int], Choice] = {}
        self._networks: dict[str, Network] = {}
        super().__init__(spec, params)

    @property
    def picked(self) -> Mapping[tuple[str, int, int], Choice]:
        """Choices so far, by (phase, T, B).

        Phase is "forward" or "step", and "forward with lengths" or "step with lengths" where some row is shorter than T.
        """
        return MappingProxyType(self._picked)

    def info(self) -> dict[str, Any]:
        """The folder of results, the files that could not be read, and a sentence for each choice so far."""
        read = self._source.measurements.problems if self._source.measurements else []
        return {
            "results": self._source.folder,
            "problems": [*self._source.left_out, *read],
            "picked": {f"{phase} T{steps} B{batch}": choice.why for (phase, steps, batch), choice in self._picked.items()},
        }

    def _set_params(self, params: Params) -> None:
        for network in self._networks.values():
            network.update(params)

    def _forward(self, x: np.ndarray, state: State, *lengths: np.ndarray) -> tuple[np.ndarray, State]:
        return self._network("forward", x, *lengths).forward(x, state, *lengths)

    def _stream(self, batch_size: int, state: State | None) -> Stream:
        network: Any = self._network("forward", self.arrays.zeros((1, batch_size, self.spec.input_size)))
        return network.stream(batch_size, state)

    def _record(self, x: np.ndarray, state: State, *lengths: np.ndarray) -> tuple[np.ndarray, State, Any]:
        network = self._network("step", x, *lengths)
        y, final, tape = network.record(x, state, *lengths)
        return y, final, (network, tape)

    def _backward(self, content: tuple[Network, Any], dy: np.ndarray, dstate: State) -> Gradients:
        network, tape = content
        return network.backward(tape, dy, dstate)

    def _network(self, phase: str, x: np.ndarray, *lengths: np.ndarray) -> Network:
        steps, batch, _ = x.shape
        key = (f"{phase} with lengths" if lengths else phase, steps, batch)
        if key not in self._picked:
            choice = self._choice(phase, steps, batch)
            self._picked[key] = _that_takes_lengths(choice, self.spec) if lengths else choice
        name = self._picked[key].backend
        if name not in self._networks:
            self._networks[name] = load_backend(name).load(self.spec, self._params, threads=self._threads)
        return self._networks[name]

    def _choice(self, phase: Any, steps: int, batch: int) -> Choice:
        spec = self.spec
        case = Case(
            spec.cell,
            phase,
            steps,
            batch,
            spec.input_size,
            spec.hidden_size,
            layers=spec.num_layers,
            bidirectional=spec.bidirectional,
            nonlinearity=spec.nonlinearity,
            bias=spec.bias,
            output_size=spec.output_size,
            projection_size=spec.projection_size,
            dtype=spec.dtype,
            threads=self._threads,
        )
        if self._source.measurements is None:
            return Choice(case, DEFAULT, _default(self._source.reason))
        measured = self._source.measurements.threads(case)
        asked = case if measured is None else msgspec.structs.replace(case, threads=measured)
        try:
            choice = self._source.measurements.choose(asked, functools.partial(_refused, asked))
        except StoreError as error:
            return Choice(case, DEFAULT, _default(error))
        return choice if asked == case else _with_other_threads(choice, case)


def _default(reason: object) -> str:
    return f"{DEFAULT} is the default: {reason}."


def _with_other_threads(choice: Choice, case: Case) -> Choice:
    """A choice based on results with another number of threads, which predict no time for this case."""
    number = choice.case.threads
    reason = (
        f"{choice.backend} is fastest with {count(number, 'thread')}; "
        f"with {count(case.threads, 'thread')} nothing is measured: {measuring_command(case)}"
    )
    if (number, case.threads) not in _WARNED:
        _WARNED.add((number, case.threads))
        warnings.warn(f"auto: {reason}", stacklevel=2)
    return Choice(case, choice.backend, f"{reason}.", shapes=choice.shapes, excluded=choice.excluded)


def _that_takes_lengths(choice: Choice, spec: Spec) -> Choice:
    """The choice itself, or the default where its backend takes no lengths."""
    reason = choice.backend != DEFAULT and unsupported_lengths(load_backend(choice.backend), spec)
    if not reason:
        return choice
    why = f"{DEFAULT} replaces {choice.backend}, which cannot run rows of different lengths: {reason}"
    return Choice(choice.case, DEFAULT, why, excluded={**choice.excluded, choice.backend: reason})


def _refused(case: Case, name: str) -> str | None:
    """Why a backend cannot be picked for a case, or None.

    Backends from other packages are first imported and asked in a separate process, in case that ends the process.
    """
    ours, spec = shipped(name), case.spec()
    if not ours and (reason := _refusal_elsewhere(name, _without_sizes(case))):
        return reason
    try:
        module = load_backend(name)
    except (BackendUnavailable, UnknownBackend) as error:
        return " ".join(str(error).split())
    reason = unsupported(module, spec, case.phase) if ours else None
    kind = type(module.asarray(np.zeros(1, spec.dtype)))
    if reason is None and kind is not np.ndarray:
        return f"its arrays are {kind.__module__}.{kind.__name__}, not numpy.ndarray"
    return reason


def _without_sizes(case: Case) -> Case:
    """The same network and phase with the shortest input: what a backend supports does not depend on T and B."""
    return msgspec.structs.replace(case, T=1, B=1, window=case.window and 1, stride=case.stride and 1)


@functools.cache
def _refusal_elsewhere(name: str, case: Case) -> str | None:
    """Why a backend cannot be imported here or does not support a case, found out once in a separate process; or None."""
    from rnnbench.measure.capabilities import ask, error_name, failure_text

    found = ask([name], [case])[name]
    if found.failure is None:
        _, reason = found.refusals.get(case, ("", None))
        return reason
    return failure_text(found.failure) if error_name(found) else f"{name} cannot run here: {found.failure}"


def _source() -> Source:
    """Results of this machine; raises StoreError where RNNBENCH_RESULTS is set and holds none."""
    asked = os.environ.get(VARIABLE)
    folder = asked or "results"
    try:
        files, left_out = found_files(folder)
    except StoreError as error:
        if asked:
            raise StoreError(f"{VARIABLE} is {asked!r}: {error}") from error
        return Source(folder, None, str(error))
    states = [(file, file.stat()) for file in files]
    return Source(folder, _read(tuple((file, state.st_mtime_ns, state.st_size) for file, state in states)), "", left_out)


@functools.lru_cache(maxsize=4)
def _read(files: tuple[tuple[Path, int, int], ...]) -> Measurements:
    """Read results files; cached until one of them changes."""
    return stored([file for file, *_ in files], machine_name())


def supports_lengths(spec: Spec) -> str | None:
    return unsupported_lengths(load_backend(DEFAULT), spec)


@checked_load
def load(spec: Spec, params: Mapping[str, np.ndarray], *, threads: int | None = None) -> AutoNetwork:
    """Build the network; backends are picked and loaded on first use.  ``threads=None``: the number that numba_cpu uses.

    Raises StoreError where RNNBENCH_RESULTS is set and holds no results.
    """
    return AutoNetwork(spec, params, threads)


def info() -> dict[str, Any]:
    """The default and where results come from, without paths, because it is stored with results."""
    return {"default": DEFAULT, "results": VARIABLE if os.environ.get(VARIABLE) else "./results", "device": "cpu"} | {
        "threads": numba.get_num_threads()
    }
