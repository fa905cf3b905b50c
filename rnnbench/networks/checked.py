"""CheckedNetwork: argument checks, empty sequences and tape bookkeeping, shared by all implementations."""

import contextlib
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn, TypeVar, cast

import numpy as np

from rnnbench.errors import ArgumentError, TapeError
from rnnbench.networks.arrays import Arrays, check_plain
from rnnbench.networks.contract import Array, Gradients, Network, State
from rnnbench.networks.lengths import checked_lengths
from rnnbench.networks.params import Params, check_params
from rnnbench.networks.spec import Spec, check_spec
from rnnbench.networks.stream import ForwardStream, Stream, check_streamed
from rnnbench.networks.threads import Limits, check_threads


class Tape:
    """The tape of one ``record``; ``content`` belongs to the implementation and is released when the tape is used."""

    __slots__ = ("__weakref__", "batch", "content", "network", "steps")

    def __init__(self, network: object, steps: int, batch: int, content: Any) -> None:
        self.network, self.steps, self.batch, self.content = network, steps, batch, content

    def __reduce__(self) -> NoReturn:
        raise TypeError("a tape cannot be copied or pickled: it serves one backward of the network that recorded it")


class Unchecked(NamedTuple):
    """An implementation's functions for a caller that checks arguments itself, to be called inside ``limits()``.

    T and B are at least 1 and all parts of a state are given.  Lengths, int64 (B,), are given only where some row is shorter
    than T.  What ``record`` returns third serves one ``backward``.
    """

    forward: Callable[..., tuple[Array, State]]
    record: Callable[..., tuple[Array, State, Any]]
    backward: Callable[..., Gradients]
    limits: Limits


Load = TypeVar("Load", bound=Callable[..., Network])

_USED = object()
_EMPTY = object()


class CheckedNetwork(ABC):
    """Base class of networks that checks all arguments before it calls the implementation.

    A subclass implements ``_forward``, ``_record``, ``_backward`` and ``_set_params``; these always get T >= 1 and explicit
    states.  ``_check_place`` may refuse an array because of its device or memory order; ``_stream`` may return a faster stream.
    ``keeps_states``: whether ``_states`` is implemented, which reads the states of all steps from a tape.
    ``arrays``: the operations on the implementation's arrays.  ``array_type``: the class of these arrays.
    ``takes_lengths``: whether ``_forward`` and ``_record`` take lengths.  They get them as a third argument, int64 (B,), and
    only where some row is shorter than T.
    ``limits``: a context manager around every run, and around the array operations of truncated BPTT.
    """

    arrays: Arrays
    array_type: type
    takes_lengths: bool = False
    keeps_states: bool = False
    _load_again: Callable[..., Any] | None = None

    def __init__(self, spec: Spec, params: Mapping[str, np.ndarray], limits: Limits = contextlib.nullcontext) -> None:
        self.spec, self.limits = spec, limits
        self.update(params)

    def params(self) -> Params:
        return {name: value.copy() for name, value in self._params.items()}

    def held_params(self) -> Params:
        """The weights themselves, to be read only: ``update`` replaces these arrays and leaves their contents as they are."""
        return self._params

    def update(self, params: Mapping[str, np.ndarray]) -> None:
        self._params = check_params(self.spec, params)
        self._set_params(self._params)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Spec, Params]]:
        """Copy and pickle by loading again, with these weights and the same options; buffers and threads are not shared."""
        if self._load_again is None:
            kind = type(self)
            raise TypeError(
                f"a {kind.__module__}.{kind.__qualname__} cannot be copied or pickled; copy its spec and params() and load "
                "again, or decorate the backend's load with rnnbench.networks.checked_load"
            )
        return self._load_again, (self.spec, self.params())

    def unchecked(self) -> Unchecked:
        """The functions behind ``forward``, ``record`` and ``backward``: without checks, which take as long as a short call."""
        return Unchecked(self._forward, self._record, self._backward, self.limits)

    def forward(self, x: Array, state: State | None = None, lengths: Any = None) -> tuple[Array, State]:
        steps, batch, state = self._check_inputs(x, state)
        shorter = () if lengths is None else self._check_lengths(lengths, steps, batch)
        if steps == 0:
            return self._empty_output(batch), self._copied(state)
        with self.limits():
            return self._forward(x, state, *shorter)

    def record(self, x: Array, state: State | None = None, lengths: Any = None) -> tuple[Array, State, Tape]:
        steps, batch, state = self._check_inputs(x, state)
        shorter = () if lengths is None else self._check_lengths(lengths, steps, batch)
        if steps == 0:
            return self._empty_output(batch), self._copied(state), Tape(self, 0, batch, _EMPTY)
        with self.limits():
            y, final, content = self._record(x, state, *shorter)
        return y, final, Tape(self, steps, batch, content)

    def backward(self, tape: Tape, dy: Array, dstate: State | None = None) -> Gradients:
        self._check_tape(tape)
        self._check_array("dy", dy, ("T", "B", "D*H"), (tape.steps, tape.batch, self.spec.features))
        dstate = self._check_state("dstate", dstate, tape.batch)
        content, tape.content = tape.content, _USED
        if content is _EMPTY:
            zeros = {name: self.arrays.zeros(shape) for name, shape in self.spec.param_shapes().items()}
            return Gradients(zeros, self.arrays.zeros((0, tape.batch, self.spec.input_size)), self._copied(dstate))
        with self.limits():
            return self._backward(content, dy, dstate)

    def states(self, tape: Tape) -> State:
        """Return the states after every step, of every layer and direction, as new arrays (L*D, T, B, H); O for jordan.

        ``tape``: a tape that ``backward`` has not used.  A step that a row does not have, because of its length, has zeros.
        The first part is h or, with a projection, its projection.  Raises TapeError, and ArgumentError if this network does
        not keep its states.
        """
        if not self.keeps_states:
            raise ArgumentError(f"{type(self).__name__} does not keep the states of all steps; load the network on numba_cpu")
        self._check_tape(tape)
        if tape.content is _EMPTY:
            shapes = self.spec.state_shapes(tape.batch)
            return tuple(self.arrays.zeros((layers, 0, batch, size)) for layers, batch, size in shapes)
        with self.limits():
            return self._states(tape.content, tape.steps)

    def stream(self, batch_size: int = 1, state: State | None = None) -> Stream:
        """Begin to run the network one step at a time, from ``state`` or zeros; raises ArgumentError.

        Bidirectional networks are refused: their backward direction begins at the last step.
        """
        return self._stream(check_streamed(self.spec, batch_size), state)

    def _stream(self, batch_size: int, state: State | None) -> Stream:
        return ForwardStream(self, batch_size, state)

    @abstractmethod
    def _set_params(self, params: Params) -> None: ...

    @abstractmethod
    def _forward(self, x: Array, state: State, lengths: np.ndarray | None = None) -> tuple[Array, State]: ...

    @abstractmethod
    def _record(self, x: Array, state: State, lengths: np.ndarray | None = None) -> tuple[Array, State, Any]: ...

    @abstractmethod
    def _backward(self, content: Any, dy: Array, dstate: State) -> Gradients: ...

    def _states(self, content: Any, steps: int) -> State:
        raise NotImplementedError

    def _check_tape(self, tape: Any) -> None:
        if not isinstance(tape, Tape):
            raise TapeError(f"tape is a {type(tape).__name__}; expected the tape that this network's record returned")
        if tape.network is not self:
            raise TapeError("the tape was recorded by another network; expected a tape of this network")
        if tape.content is _USED:
            raise TapeError("the tape was already used; expected an unused one: record again")

    def _check_place(self, name: str, array: Array) -> None:  # noqa: B027  # most implementations have nothing to refuse
        """Refuse an array because of its device or memory order; most implementations copy instead."""

    def _empty_output(self, batch: int) -> Array:
        return self.arrays.zeros((0, batch, self.spec.features))

    def _copied(self, state: State) -> State:
        return tuple(self.arrays.concat([part], 0) for part in state)

    def _check_inputs(self, x: Array, state: State | None) -> tuple[int, int, State]:
        self._check_array("x", x, ("T", "B", "I"), (None, None, self.spec.input_size))
        steps, batch = x.shape[:2]
        if batch == 0:
            raise ArgumentError(f"x has shape {tuple(x.shape)}; expected a batch B >= 1")
        return steps, batch, self._check_state("state", state, batch)

    def _check_lengths(self, lengths: Any, steps: int, batch: int) -> tuple[np.ndarray, ...]:
        """A copy of the lengths as the only element, or nothing if no row is shorter than T; raises ArgumentError."""
        if not self.takes_lengths:
            raise ArgumentError("lengths are given, but this network takes none; expected None")
        array = checked_lengths(lengths, steps, batch)
        return () if (array == steps).all() else (array,)

    def _check_state(self, name: str, state: State | None, batch: int) -> State:
        shapes, parts = self.spec.state_shapes(batch), self.spec.kind.states
        if state is None:
            return tuple(self.arrays.zeros(shape) for shape in shapes)
        if not isinstance(state, tuple | list) or len(state) != len(parts):
            got = f"{len(state)} arrays" if isinstance(state, tuple | list) else f"a {type(state).__name__}"
            raise ArgumentError(f"{name} is {got}; expected a tuple of {len(parts)}: ({', '.join(parts)})")
        for part, array, shape in zip(parts, state, shapes, strict=True):
            self._check_array(f"{name} {part}", array, ("L*D", "B", "H"), shape)
        return tuple(state)

    def _check_array(self, name: str, array: Array, axes: tuple[str, ...], expected: tuple[int | None, ...]) -> None:
        if not isinstance(array, self.array_type):
            got, wanted = type(array), self.array_type
            raise ArgumentError(
                f"{name} is a {got.__module__}.{got.__name__}; expected a {wanted.__module__}.{wanted.__name__} "
                "(convert with the backend's asarray)"
            )
        if self.array_type is np.ndarray:
            check_plain(name, array)
        shape = tuple(array.shape)
        if len(shape) != len(expected) or any(e is not None and s != e for s, e in zip(shape, expected, strict=True)):
            sizes = ", ".join("_" if size is None else str(size) for size in expected)
            names, spec = ", ".join(axes), self.spec
            if spec.output_size is not None:
                names = names.replace("H", "O")
            elif spec.projection_size is not None and expected[-1] != spec.hidden_size:  # c has no projection
                names = names.replace("H", "P")
            raise ArgumentError(f"{name} has shape {shape}; expected ({names}) = ({sizes})")
        dtype = _name(array.dtype)
        if dtype != self.spec.dtype:
            raise ArgumentError(f"{name} has dtype {dtype}; expected {self.spec.dtype}")
        self._check_place(name, array)


def checked_load(load: Load) -> Load:
    """Decorate a backend's ``load`` to check its Spec and threads, and to make its networks copyable and picklable.

    Copying calls ``load`` again with the same options; to pickle a network, the options must be picklable too.
    """

    @functools.wraps(load)
    def checked(spec: Spec, params: Mapping[str, np.ndarray], *, threads: int | None = None, **options: Any) -> Any:
        check_spec(spec)
        options["threads"] = check_threads(threads)
        network: Any = load(spec, params, **options)
        network._load_again = functools.partial(checked, **options)
        return network

    return cast("Load", checked)


@functools.cache
def _name(dtype: Any) -> str:
    """The name of a NumPy, JAX or PyTorch dtype; cached, because NumPy takes longer for it than a small network for a step."""
    return str(dtype).removeprefix("torch.")
