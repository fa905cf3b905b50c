"""Network of stacked layers on device arrays."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from rnnbench.errors import TapeError
from rnnbench.impls.numba_cuda import capture
from rnnbench.impls.numba_cuda.algebra import Algebra
from rnnbench.impls.numba_cuda.arrays import DeviceArrays, allocate, contiguous, flat, scratch
from rnnbench.impls.numba_cuda.choosing import choose
from rnnbench.impls.numba_cuda.current_device import device_limits
from rnnbench.impls.numba_cuda.kernels import Matrix, matrix
from rnnbench.impls.numba_cuda.launching import STREAM
from rnnbench.impls.numba_cuda.layer import Layer, Packed, Record
from rnnbench.impls.numba_cuda.memory import Pool
from rnnbench.impls.numba_cuda.per_step import PerStep
from rnnbench.impls.numba_cuda.persistent import Persistent
from rnnbench.impls.numba_cuda.products import fastest
from rnnbench.impls.numba_cuda.recurrence import Flow, Recurrence
from rnnbench.impls.numba_cuda.regimes import PER_STEP, computed_spec
from rnnbench.impls.numba_cuda.slots import Sizes
from rnnbench.networks.checked import CheckedNetwork, Tape
from rnnbench.networks.contract import Array, Gradients, State
from rnnbench.networks.params import Params
from rnnbench.networks.spec import Spec

ZEROS_KEPT = 8
"""Maximum number of zero states that a network keeps, by stream and batch."""


class Recorded(NamedTuple):
    """Content of a tape: the stream that owns its memory, the network's weights, and a record per layer and direction."""

    stream: int
    weights: list[Packed]
    records: list[Record]


class PooledArrays(DeviceArrays):
    """Array operations in the network's memory, for use outside its calls, as in truncated BPTT."""

    def __init__(self, dtype: np.dtype, pool: Pool) -> None:
        super().__init__(dtype)
        self._pool = pool

    def zeros(self, shape: tuple[int, ...]) -> Array:
        with self._pool.in_use():
            return super().zeros(shape)

    def concat(self, arrays: Sequence[Array], axis: int) -> Array:
        with self._pool.in_use():
            return super().concat(arrays, axis)

    def add(self, a: Array, b: Array) -> Array:
        with self._pool.in_use():
            return super().add(a, b)


class CudaNetwork(CheckedNetwork):
    """A network that accepts arguments in any memory order; arguments that are not in C order are copied first.

    bfloat16 and float16 networks compute in float32: kernels read arguments in their dtype and round each result once, when
    they write it.  On tensor cores, values that blocks exchange within a step are rounded too, when they are sent.
    ``regime`` names the kernels for one sequence, ``regime_of`` those for a batch (``regimes``); weights are packed for a
    regime on its first use.  Everything except weights is in the network's own memory pool.
    """

    def __init__(self, spec: Spec, params: Mapping[str, np.ndarray]) -> None:
        self._computed = computed_spec(spec)
        self._dtype, self._wide = spec.numpy_dtype, self._computed.numpy_dtype
        self._algebra, self._device = Algebra(DeviceArrays(self._wide), fastest()), device_limits()
        self._by_regime: dict[str, Recurrence] = {}
        self._by_batch: dict[int, Recurrence] = {}
        self._layer, self._pool = Layer(self._computed, self._algebra), Pool()
        self.arrays = PooledArrays(spec.numpy_dtype, self._pool)
        self.array_type = type(self.arrays.zeros((1,)))  # the simulator has a class of its own
        self._zero_states: dict[tuple[int, int], State] = {}
        super().__init__(spec, params)

    @property
    def regime(self) -> str:
        return self.regime_of(1)

    def regime_of(self, batch: int) -> str:
        """Name of the regime that runs ``batch`` sequences at once."""
        return self._recurrence(batch).name

    def _recurrence(self, batch: int) -> Recurrence:
        found = self._by_batch.get(batch)
        if found is None:
            regime = choose(self.spec, self._device, batch)
            if regime.name not in self._by_regime:
                self._by_regime[regime.name] = (
                    PerStep(self._computed, self._algebra)
                    if regime.name == PER_STEP
                    else Persistent(self._computed, self._algebra, regime, self._device)
                )
            found = self._by_batch[batch] = self._by_regime[regime.name]
        return found

    def forward(self, x: Array, state: State | None = None, lengths: Any = None) -> tuple[Array, State]:
        with self._running():
            return super().forward(x, state, lengths)

    def record(self, x: Array, state: State | None = None, lengths: Any = None) -> tuple[Array, State, Tape]:
        with self._running():
            return super().record(x, state, lengths)

    def backward(self, tape: Any, dy: Array, dstate: State | None = None) -> Gradients:
        recorded = getattr(tape, "content", None)
        if isinstance(recorded, Recorded) and recorded.stream != STREAM.get():
            raise TapeError(
                f"the tape was recorded on stream {recorded.stream:#x} and backward is called on {STREAM.get():#x}; "
                "expected the same stream"
            )
        with self._running():
            return super().backward(tape, dy, dstate)

    @contextmanager
    def _running(self) -> Iterator[None]:
        capture.refuse_others(STREAM.get())
        capture.keep(self, self._weights)
        with self._pool.in_use():
            yield

    def _set_params(self, params: Params) -> None:
        wide = {name: value.astype(self._wide) for name, value in params.items()}
        names = self.spec.layer_shapes(0)
        layers = [{n: wide[n + suffix] for n in names} for suffix in self.spec.suffixes()]
        self._weights = [self._layer.pack(layer, self._recurrence(1)) for layer in layers]

    def _check_state(self, name: str, state: State | None, batch: int) -> State:
        """A missing state is zero; the zeros are cached, in memory that nothing writes to and no caller sees."""
        if state is not None:
            return super()._check_state(name, state, batch)
        key = (STREAM.get(), batch)
        zeros = self._zero_states.get(key)
        if zeros is None:
            zeros = (self.arrays.zeros(self.spec.state_shape(batch)),) * len(self.spec.kind.states)
            if not capture.underway():  # in a capture nothing is cleared before the replay
                if len(self._zero_states) == ZEROS_KEPT:
                    self._zero_states.pop(next(iter(self._zero_states)), None)
                self._zero_states[key] = zeros
        capture.keep(zeros)
        return zeros

    def _forward(self, x: Array, state: State) -> tuple[Array, State]:
        y, final, _ = self._run(x, state, keeps=False)
        return y, final

    def _record(self, x: Array, state: State) -> tuple[Array, State, Any]:
        y, final, records = self._run(x, state, keeps=True)
        return y, final, Recorded(STREAM.get(), self._weights, records)

    def _run(self, x: Array, state: State, keeps: bool) -> tuple[Array, State, list[Record]]:
        spec, (steps, batch, inputs), recurrence = self.spec, x.shape, self._recurrence(x.shape[1])
        state = tuple(map(contiguous, state))
        final = tuple(allocate(spec.state_shape(batch), self._dtype) for _ in state)
        sequence, records, y = matrix(flat(contiguous(x)), steps * batch, inputs), [], x
        for layer in range(spec.num_layers):
            last = layer == spec.num_layers - 1
            y = allocate((steps, batch, spec.features), self._dtype if last else self._wide)
            outputs = matrix(flat(y), steps * batch, spec.features)
            for index, direction in self._directions(layer):
                flow = self._flow(steps, batch, direction, self._parts(state, index), outputs, self._parts(final, index))
                run = self._layer.record if keeps else self._layer.forward
                records.append(run(self._weights[index], recurrence, sequence, flow))
            sequence = outputs
        return y, final, records

    def _backward(self, content: Any, dy: Array, dstate: State) -> Gradients:
        spec, (steps, batch, _), (_, weights, records) = self.spec, dy.shape, content
        dstate = tuple(map(contiguous, dstate))
        dinitial = tuple(allocate(spec.state_shape(batch), self._dtype) for _ in dstate)
        params = {name: allocate(shape, self._dtype) for name, shape in spec.param_shapes().items()}
        flowing, dx = matrix(flat(contiguous(dy)), steps * batch, spec.features), dy
        for layer in reversed(range(spec.num_layers)):
            inputs = spec.features if layer else spec.input_size
            dx = allocate((steps, batch, inputs), self._wide if layer else self._dtype)
            directions, begun = self._directions(layer), None
            for index, direction in directions:
                last = index == directions[-1][0]
                # contributions of the directions to dx are summed before rounding
                whole = dx if last else scratch(self._wide, dx.size)[0]
                part = matrix(flat(whole), steps * batch, inputs)
                flow = self._flow(steps, batch, direction, self._parts(dinitial, index), flowing, self._parts(dstate, index))
                grads = self._gradients(params, index)
                self._layer.backward(weights[index], records[index], flow, part, begun, grads)
                records[index], begun = None, part
            flowing = matrix(flat(dx), steps * batch, inputs)
        return Gradients(params, dx, dinitial)

    def _flow(
        self, steps: int, batch: int, direction: int, initial: tuple[Matrix, ...], y: Matrix, final: tuple[Matrix, ...]
    ) -> Flow:
        size = self.spec.state_size
        return Flow(
            Sizes(steps, batch, direction), initial, y.part(columns=slice(direction * size, (direction + 1) * size)), final
        )

    def _directions(self, layer: int) -> list[tuple[int, int]]:
        """(index into states and weights, 1 where time runs backwards) of each direction of a layer."""
        return [(layer * self.spec.directions + direction, direction) for direction in range(self.spec.directions)]

    def _parts(self, state: State, index: int) -> tuple[Matrix, ...]:
        """The parts of a state (L*D, B, S) of one layer and direction."""
        _, batch, size = state[0].shape
        return tuple(matrix(flat(part), batch, size, index * batch * size) for part in state)

    def _gradients(self, params: dict[str, Array], index: int) -> dict[str, Matrix]:
        """The gradients of one layer and direction as matrices, by the parameters' names without suffix."""
        suffix = self.spec.suffixes()[index]
        arrays = {name: params[name + suffix] for name in self.spec.layer_shapes(0)}
        return {name: matrix(flat(array), *((1, *array.shape)[-2:])) for name, array in arrays.items()}
