"""ONNX Runtime on the CPU: the operators RNN, LSTM and GRU, for inference.

Arrays are numpy.ndarray in host memory.  The model has one operator per layer, made by ``rnnbench.networks.convert``.  Weights
are constants, which ONNX Runtime packs when ``load`` or ``update`` creates a session.  The first call with lengths creates
another, whose operators read ``sequence_lens``.  It has no operator for BPTT, so ``supports_phase`` allows only the phase
forward, and ``record`` and ``backward`` raise ArgumentError.

``threads=None`` means OMP_NUM_THREADS, or else one thread per available processor: ONNX Runtime has no process-wide setting.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from rnnbench.errors import ArgumentError, BackendUnavailable
from rnnbench.impls._host import asarray, synchronize, to_numpy
from rnnbench.installing import how_to_install
from rnnbench.networks import convert
from rnnbench.networks.arrays import NumpyArrays
from rnnbench.networks.checked import CheckedNetwork, checked_load
from rnnbench.networks.contract import Gradients, Network, State
from rnnbench.networks.params import Params
from rnnbench.networks.spec import Spec
from rnnbench.networks.stream import Stream
from rnnbench.processes.environment import process_threads

try:
    import onnxruntime
    from onnx import ModelProto, TensorProto, helper, numpy_helper
except ModuleNotFoundError as error:
    raise BackendUnavailable(f"onnxruntime needs {error.name}: {how_to_install('peers')}") from error

__all__ = ["asarray", "info", "load", "supports", "supports_lengths", "supports_phase", "synchronize", "to_numpy"]

OPSET, IR_VERSION = 17, 8  # of ONNX 1.12, which every ONNX Runtime allowed by the extra reads

LENGTHS = "lengths"
"""The model's input that holds the lengths."""

_ONLY_INFERENCE = "ONNX Runtime's operators RNN, LSTM and GRU have no gradient; it runs only the phase forward."


class SessionNetwork(CheckedNetwork):
    """One ONNX Runtime session, and one for lengths on their first use; arrays that are not C-contiguous are copied."""

    array_type = np.ndarray
    takes_lengths = True

    def __init__(self, spec: Spec, params: Mapping[str, np.ndarray], threads: int) -> None:
        self.arrays = NumpyArrays(spec.numpy_dtype)
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads, self._options.inter_op_num_threads = threads, 1
        super().__init__(spec, params)

    def _set_params(self, params: Params) -> None:
        self._session = self._new_session(_model(self.spec, params))
        self._session_of_lengths: Any = None

    def _new_session(self, model: ModelProto) -> Any:
        return onnxruntime.InferenceSession(model.SerializeToString(), self._options, providers=["CPUExecutionProvider"])

    def _forward(self, x: np.ndarray, state: State, lengths: np.ndarray | None = None) -> tuple[np.ndarray, State]:
        inputs = {"x": x} | {f"initial {name}": part for name, part in zip(self.spec.kind.states, state, strict=True)}
        if lengths is None:
            return self._results(self._session, inputs)
        if self._session_of_lengths is None:
            self._session_of_lengths = self._new_session(_model(self.spec, self._params, LENGTHS))
        y, final = self._results(self._session_of_lengths, inputs | {LENGTHS: lengths.astype(np.int32)})
        empty = lengths == 0
        for part, initial in zip(final, state, strict=True):
            part[:, empty] = initial[:, empty]  # the operators return zeros
        return y, final

    def _results(self, session: Any, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, State]:
        results = session.run(None, {name: np.ascontiguousarray(array) for name, array in inputs.items()})
        y, *final = map(np.asarray, results)
        return y, tuple(final)

    def _stream(self, batch_size: int, state: State | None) -> Stream:
        return BoundStream(self, batch_size, state)

    def record(self, x: np.ndarray, state: State | None = None, lengths: Any = None) -> NoReturn:
        raise ArgumentError(f"onnxruntime cannot record: {_ONLY_INFERENCE}")

    def backward(self, tape: Any, dy: np.ndarray, dstate: State | None = None) -> NoReturn:
        raise ArgumentError(f"onnxruntime cannot run BPTT: {_ONLY_INFERENCE}")

    def _record(self, x: np.ndarray, state: State, lengths: np.ndarray | None = None) -> tuple[np.ndarray, State, Any]:
        return self.record(x, state)

    def _backward(self, content: Any, dy: np.ndarray, dstate: State) -> Gradients:
        return self.backward(content, dy, dstate)


class BoundStream(Stream):
    """A stream with two I/O bindings: steps in turn read the state that the last one wrote, and write the other."""

    def __init__(self, network: SessionNetwork, batch_size: int, state: State | None) -> None:
        spec, zeros = network.spec, network.arrays.zeros
        self._x, self._y = zeros((1, batch_size, spec.input_size)), zeros((1, batch_size, spec.features))
        self._states = [[zeros(shape) for shape in spec.state_shapes(batch_size)] for _ in range(2)]
        self._session: Any = None
        self._current = 0
        super().__init__(network, batch_size, state)

    def _step(self, x_t: np.ndarray) -> np.ndarray:
        if self._network._session is not self._session:
            self._session = self._network._session
            self._bindings = [self._binding(current) for current in range(2)]
        self._x[0] = x_t
        self._session.run_with_iobinding(self._bindings[self._current])
        self._current = 1 - self._current
        return self._y[0].copy()

    def _binding(self, current: int) -> Any:
        """A binding of the session to this stream's arrays, from the current state to the other."""
        binding = self._session.io_binding()
        inputs, outputs = {"x": self._x}, {"y": self._y}
        for name, before, after in zip(
            self._network.spec.kind.states, self._states[current], self._states[1 - current], strict=True
        ):
            inputs[f"initial {name}"], outputs[f"final {name}"] = before, after
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        for name, array in outputs.items():
            binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        return binding

    def _read(self) -> State:
        return tuple(part.copy() for part in self._states[self._current])

    def _write(self, state: State) -> None:
        for own, part in zip(self._states[self._current], state, strict=True):
            own[...] = part


def _model(spec: Spec, params: Params, lengths: str = "") -> ModelProto:
    """A graph from x (T, B, I) and the initial states to y (T, B, D*H) and the final states, each (L*D, B, H).

    ``lengths``: the name of a further input (B,), the ``sequence_lens`` of all operators; empty for a graph without it.
    """
    graph = _Graph(spec, lengths)
    y = "x"
    for layer in range(spec.num_layers):
        y = graph.layer(layer, y, convert.to_onnx(spec, params, layer))
    return graph.model(y)


class _Graph:
    """Nodes and constants of a model; tensors are represented by their names."""

    def __init__(self, spec: Spec, lengths: str) -> None:
        self._spec, self._operator, self._lengths = spec, convert.onnx_operator(spec), lengths
        self._nodes, self._constants = [], []
        self._finals: dict[str, list[str]] = {name: [] for name in spec.kind.states}
        self._initial = {name: self._split(f"initial {name}") for name in spec.kind.states}

    def layer(self, layer: int, x: str, weights: convert.OnnxWeights) -> str:
        """Add one operator; returns its y in rnnbench's layout."""
        *matrices, peepholes = ("" if array is None else self._constant(array) for array in weights)
        inputs = [x, *matrices, self._lengths, *(parts[layer] for parts in self._initial.values())]
        if peepholes:
            inputs.append(peepholes)
        finals = [f"final {name} {layer}" for name in self._finals]
        for names, final in zip(self._finals.values(), finals, strict=True):
            names.append(final)
        outputs = [f"operator y {layer}", *finals]
        self._add(self._operator.op_type, inputs, outputs, **self._operator.attributes)
        return self._merge_directions(outputs[0], f"y {layer}")

    def _merge_directions(self, y: str, joined: str) -> str:
        """(T, D, B, H) to (T, B, D*H)."""
        if self._spec.directions == 1:
            return self._add("Squeeze", [y, self._constant(np.array([1]))], [joined])
        self._add("Transpose", [y], [f"{y} transposed"], perm=[0, 2, 1, 3])
        return self._add("Reshape", [f"{y} transposed", self._constant(np.array([0, 0, -1]))], [joined])

    def _split(self, state: str) -> list[str]:
        """Split an initial state into parts (D, B, H), one per layer."""
        layers = self._spec.num_layers
        parts = [f"{state} {layer}" for layer in range(layers)] if layers > 1 else [state]
        if layers > 1:
            self._add("Split", [state, self._constant(np.full(layers, self._spec.directions))], parts, axis=0)
        return parts

    def _constant(self, array: np.ndarray) -> str:
        name = f"constant {len(self._constants)}"
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def _add(self, operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> str:
        self._nodes.append(helper.make_node(operator, inputs, outputs, **attributes))
        return outputs[0]

    def model(self, y: str) -> ModelProto:
        spec = self._spec
        self._add("Identity", [y], ["y"])
        for name, parts in self._finals.items():
            self._add("Concat", parts, [f"final {name}"], axis=0)
        state = [spec.num_layers * spec.directions, "B", spec.hidden_size]
        inputs = [_tensor("x", ["T", "B", spec.input_size]), *(_tensor(f"initial {name}", state) for name in self._finals)]
        if self._lengths:
            inputs.append(helper.make_tensor_value_info(self._lengths, TensorProto.INT32, ["B"]))
        outputs = [_tensor("y", ["T", "B", spec.features]), *(_tensor(f"final {name}", state) for name in self._finals)]
        graph = helper.make_graph(self._nodes, "rnnbench", inputs, outputs, self._constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _tensor(name: str, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


@checked_load
def load(spec: Spec, params: Mapping[str, np.ndarray], *, threads: int | None = None) -> Network:
    """Create a session with copies of ``params``; raises ArgumentError for networks that ``supports`` rejects."""
    reason = supports(spec)
    if reason:
        raise ArgumentError(f"onnxruntime cannot run this network: {reason}")
    return SessionNetwork(spec, params, threads or process_threads("OMP_NUM_THREADS"))


def supports(spec: Spec) -> str | None:
    if spec.projection_size is not None:
        return "ONNX's LSTM has no projection."
    if spec.kind.feeds_back_output:
        return "ONNX has no operator that feeds back its output, as jordan does."
    if spec.dtype != "float32":
        return "ONNX Runtime's kernels for RNN, LSTM and GRU on the CPU compute only in float32."
    return None


def supports_lengths(spec: Spec) -> str | None:
    return None


def supports_phase(spec: Spec, phase: str) -> str | None:
    return None if phase == "forward" else _ONLY_INFERENCE


def info() -> dict[str, Any]:
    """Version and device; ``threads`` is the number that ``load(threads=None)`` gives a session."""
    return {"onnxruntime": onnxruntime.__version__, "device": "cpu", "threads": process_threads("OMP_NUM_THREADS")}
