"""Converted weights make the same network on the other side.  Takes 2 s.

Each library's own evaluator is compared with numpy_ref on converted weights.  The tolerance is not chosen: it is twice
``rounding_bounds``, a running error analysis of the very computation at hand, in the dtype at hand.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from helpers.conversion_cases import KERAS, ONNX, assert_same_params, named, specs

from rnnbench import Spec, init_params
from rnnbench.impls import numpy_ref
from rnnbench.networks.cells import Activations
from rnnbench.networks.convert.keras import to_keras
from rnnbench.networks.convert.onnx import from_onnx, onnx_operator, to_onnx
from rnnbench.networks.convert.torch import from_torch, to_torch

# The same network on the other side: what the tolerance is


@dataclass
class Rounded:
    """An exact value, and how far a computation in arithmetic of relative precision ``eps`` may end from it.

    ``eps`` is the spacing of floats at 1, twice the unit roundoff: the spare factor and the magnitudes before
    cancellation, |a| + |b|, cover other orders of the same operations, such as (1 - z) n + z h for n + z (h - n).
    """

    value: Any
    error: Any
    eps: float

    def __add__(self, other):
        return self._sum(self.value + other.value, other)

    def __sub__(self, other):
        return self._sum(self.value - other.value, other)

    def _sum(self, value, other):
        rounding = self.eps * (abs(self.value) + abs(other.value) + self.error + other.error)
        return Rounded(value, self.error + other.error + rounding, self.eps)

    def __mul__(self, other):
        value = self.value * other.value
        carried = abs(self.value) * other.error + abs(other.value) * self.error + self.error * other.error
        return Rounded(value, carried * (1 + self.eps) + self.eps * abs(value), self.eps)

    def __getitem__(self, index):
        return Rounded(self.value[index], self.error[index], self.eps)

    def product(self, w, b, terms):
        """self @ w.T + b as part of a sum of ``terms`` terms in any order (Higham 2002, section 4.2)."""
        magnitude = (abs(self.value) + self.error) @ abs(w.T) + abs(b)
        return Rounded(self.value @ w.T + b, self.error @ abs(w.T) + terms * self.eps * magnitude, self.eps)

    def mapped(self, function, slope):
        """``function`` is odd or has an even slope that falls away from 0, and its library rounds to within 4 eps."""
        value = function(self.value)
        steepest = slope(np.maximum(abs(self.value) - self.error, 0))
        return Rounded(value, steepest * self.error + 4 * self.eps * abs(value), self.eps)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


ROUNDED = Activations(
    tanh=lambda z: z.mapped(np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    sigmoid=lambda z: z.mapped(sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x))),
    relu=lambda z: z.mapped(lambda x: np.maximum(x, 0), np.ones_like),
    relu_slope=np.sign,  # of no use to a forward pass
)


def rounding_bounds(spec, params, x, state):
    """How far y and each part of the final state, computed in spec.dtype, may be from the exact ones."""
    eps = float(np.finfo(spec.dtype).eps)
    params = {name: value.astype("float64") for name, value in params.items()}

    def exact(array):
        return Rounded(array.astype("float64"), np.zeros(array.shape), eps)

    y, finals = exact(x), []
    for layer in range(spec.num_layers):
        outputs = []
        for direction in range(spec.directions):
            index = layer * spec.directions + direction
            start = tuple(exact(part[index]) for part in state)
            hidden, final = _rounded_layer(spec, params, spec.suffixes()[index], y, start, direction == 1)
            outputs.append(hidden)
            finals.append([part.error for part in final])
        y = Rounded(*(np.concatenate([getattr(o, part) for o in outputs], 2) for part in ("value", "error")), eps)
    return y.error, [np.stack(part) for part in zip(*finals, strict=True)]


def _rounded_layer(spec, params, suffix, x, state, reverse):
    cell, equations = spec.kind, spec.kind.equations(ROUNDED, spec.nonlinearity)
    w, u = params["weight_ih" + suffix], params["weight_hh" + suffix]
    bias_ih, bias_hh = (params.get(name + suffix, np.zeros(len(w))) for name in ("bias_ih", "bias_hh"))
    outer, terms = cell.outer_gates * spec.hidden_size, w.shape[1] + u.shape[1] + 2

    of_c = np.split(params["weight_ch" + suffix], len(cell.peepholes)) if cell.peepholes else []
    peepholes = tuple(Rounded(p, np.zeros(p.shape), x.eps) for p in of_c)

    def gates(z):
        return tuple(z[:, k : k + spec.hidden_size] for k in range(0, z.value.shape[1], spec.hidden_size))

    steps = len(x.value)
    values, errors = (np.empty((*x.value.shape[:2], spec.hidden_size)) for _ in range(2))
    for t in reversed(range(steps)) if reverse else range(steps):
        a, b = gates(x[t].product(w, bias_ih, terms)), gates(state[0].product(u[:outer], bias_hh[:outer], terms))
        carried = {None: (), "h": state[:1], "c": state[1:]}[cell.carries] + peepholes
        if equations.inner:
            b += gates(equations.inner(a, b, carried).product(u[outer:], bias_hh[outer:], terms))
        state, _ = equations.forward(a, b, carried)
        values[t], errors[t] = state[0].value, state[0].error
    return Rounded(values, errors, x.eps), state


def assert_same_network(spec, params, x, state, their_y, their_state):
    """numpy_ref gives their y (T, B, D*H) and final state, as far as they give one; each side may be one bound away."""
    y, final = numpy_ref.load(spec, params).forward(x, state)
    y_bound, final_bounds = rounding_bounds(spec, params, x, state)
    assert y_bound.max() < 0.01 * abs(y).max()  # else the comparison would not see a permuted gate
    assert_within(y, their_y, 2 * y_bound)
    for ours, theirs, bound in zip(final, their_state, final_bounds, strict=True):
        assert_within(ours, theirs, 2 * bound)


def assert_within(ours, theirs, tolerance):
    if theirs is not None:
        assert (theirs.dtype, theirs.shape) == (ours.dtype, ours.shape)
        assert (abs(theirs - ours) <= tolerance).all()


def drawn(spec, steps=4, batch=3, seed=1):
    """Parameters, x and an initial state that leave no symmetry between gates, directions and steps."""
    rng = np.random.default_rng(seed)
    params = init_params(spec, seed)
    x = rng.standard_normal((steps, batch, spec.input_size)).astype(spec.dtype)
    state = tuple(rng.uniform(-1, 1, spec.state_shape(batch)).astype(spec.dtype) for _ in spec.kind.states)
    return params, x, state


# torch


@pytest.mark.parametrize(
    "spec", [*specs(("elman", "lstm", "gru"), layers=(1, 2)), Spec("elman", 3, 2, nonlinearity="relu")], ids=named
)
def test_torch_module_loads_the_converted_weights_and_computes_the_same(spec):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    kind = {"elman": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[spec.cell]
    options = {"nonlinearity": spec.nonlinearity} if spec.cell == "elman" else {}
    module = kind(
        spec.input_size,
        spec.hidden_size,
        spec.num_layers,
        bias=spec.bias,
        bidirectional=spec.bidirectional,
        dtype=getattr(torch, spec.dtype),
        **options,
    )
    params, x, state = drawn(spec)
    assert_same_params(from_torch(spec, module.state_dict()), {n: p.detach().numpy() for n, p in module.named_parameters()})
    module.load_state_dict(to_torch(spec, params), strict=True)
    assert_same_params(from_torch(spec, module.state_dict()), params)
    start = tuple(torch.from_numpy(part) for part in state)
    with torch.no_grad():
        y, final = module(torch.from_numpy(x), start if spec.cell == "lstm" else start[0])
    final = final if spec.cell == "lstm" else (final,)
    assert_same_network(spec, params, x, state, y.numpy(), [part.numpy() for part in final])


# ONNX

ONNX_CELLS = {"RNN": "elman", "LSTM": "lstm", "GRU": "gru_reset_before"}  # no case sets linear_before_reset
NODE_CASES = {
    *(f"test_simple_rnn_{n}" for n in ("defaults", "with_initial_bias", "batchwise", "reverse", "bidirectional")),
    *(f"test_lstm_{n}" for n in ("defaults", "with_initial_bias", "batchwise", "reverse", "bidirectional", "with_peepholes")),
    *(f"test_gru_{n}" for n in ("defaults", "with_initial_bias", "seq_length", "batchwise", "reverse", "bidirectional")),
    "test_rnn_seq_length",
}


@pytest.fixture(scope="module")
def node_cases():
    """ONNX's own test vectors for its recurrent operators: name -> (node, inputs by name, outputs by name)."""
    pytest.importorskip("onnx", reason="needs onnx")
    from onnx.backend.test.case import node
    from onnx.backend.test.case.node import gru, lstm, rnn  # noqa: F401  # importing them makes the cases

    cases = {}
    for case in node._NodeTestCases:
        operator = case.model.graph.node[0]
        if operator.op_type in ONNX_CELLS:
            (inputs, outputs) = case.data_sets[0]
            given = dict(zip([name for name in operator.input if name], inputs, strict=True))
            cases[case.name] = operator, given, dict(zip([name for name in operator.output if name], outputs, strict=True))
    return cases


def test_every_recurrent_case_of_onnx_is_listed(node_cases):
    assert set(node_cases) <= NODE_CASES


@pytest.mark.parametrize("name", sorted(NODE_CASES))
def test_onnx_test_vectors(node_cases, name):
    import onnx

    if name not in node_cases:
        pytest.skip(f"onnx {onnx.__version__} has no {name}")
    operator, given, expected = node_cases[name]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in operator.attribute}
    direction, layout = attributes.pop("direction", b"forward").decode(), attributes.pop("layout", 0)
    assert set(attributes) == {"hidden_size"}  # nothing that this test would leave out
    assert set(given) <= {"X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"}

    x = given["X"].swapaxes(0, 1) if layout else given["X"]
    assert set(given.get("sequence_lens", ())) <= {len(x)}  # as without
    cell, size = "lstm_peephole" if "P" in given else ONNX_CELLS[operator.op_type], attributes["hidden_size"]
    spec = Spec(cell, x.shape[2], size, bidirectional=direction == "bidirectional", bias="B" in given)
    params = from_onnx(spec, [tuple(given[n] for n in ("W", "R", "B", "P") if n in given)])
    backwards = slice(None, None, -1 if direction == "reverse" else 1)
    zeros = np.zeros(spec.state_shape(x.shape[1]), "float32")
    state = tuple(given.get(f"initial_{part}", zeros) for part in spec.kind.states)
    y = expected.get("Y")
    if y is not None:  # (T, D, B, H), or (B, T, D, H) with layout=1
        y = y.transpose((1, 0, 2, 3) if layout else (0, 2, 1, 3)).reshape(*x.shape[:2], spec.features)[backwards]
    final = [expected.get(f"Y_{part}") for part in spec.kind.states]
    if layout:
        final = [None if part is None else part.swapaxes(0, 1) for part in final]
    assert_same_network(spec, params, x[backwards], state, y, final)


@pytest.mark.parametrize("spec", specs(ONNX, layers=(2,), dtypes=("float64",)), ids=named)
def test_onnx_reference_evaluator_computes_the_same_layer_by_layer(spec):
    """The vectors above mostly have the same weight for all gates; these tell gates, directions and states apart."""
    onnx = pytest.importorskip("onnx", reason="needs onnx")
    from onnx.reference import ReferenceEvaluator

    params, x, state = drawn(spec)
    op_type, attributes = onnx_operator(spec)
    parts = spec.kind.states
    y, finals = x, []
    for layer in range(spec.num_layers):
        first = layer * spec.directions
        feeds = {"X": y, **{n: a for n, a in to_onnx(spec, params, layer)._asdict().items() if a is not None}}
        feeds |= {f"initial_{n}": part[first : first + spec.directions] for n, part in zip(parts, state, strict=True)}
        inputs = [n if n in feeds else "" for n in ("X", "W", "R", "B", "sequence_lens", *(f"initial_{n}" for n in parts))]
        inputs += ["P"] * ("P" in feeds)
        outputs = ["Y", *(f"Y_{n}" for n in parts)]
        node = onnx.helper.make_node(op_type, inputs, outputs, **attributes)
        double = onnx.TensorProto.DOUBLE
        ins = [onnx.helper.make_tensor_value_info(n, double, a.shape) for n, a in feeds.items()]
        outs = [onnx.helper.make_tensor_value_info(n, double, None) for n in outputs]
        model = onnx.helper.make_model(onnx.helper.make_graph([node], "layer", ins, outs))
        y, *final = ReferenceEvaluator(model).run(None, feeds)
        y = y.transpose(0, 2, 1, 3).reshape(*x.shape[:2], spec.features)
        finals.append(final)
    assert_same_network(spec, params, x, state, y, [np.concatenate(part) for part in zip(*finals, strict=True)])


# Keras, whose package is not needed: its documented equations, written out


def keras_layer(spec, arrays, x, state):
    """One direction of keras.layers.SimpleRNN, LSTM or GRU: y (T, B, H) and the final state."""
    kernel, recurrent, bias = (*arrays, 0)[:3]
    h, c, ys = state[0], state[-1], []
    size = spec.hidden_size
    activation = {"tanh": np.tanh, "relu": lambda z: np.maximum(z, 0), "sigmoid": sigmoid}[spec.nonlinearity]
    for x_t in x:
        if spec.cell == "elman":
            h = activation(x_t @ kernel + h @ recurrent + bias)
        elif spec.cell == "lstm":
            i, f, candidate, o = np.split(x_t @ kernel + h @ recurrent + bias, 4, 1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(candidate)
            h = sigmoid(o) * np.tanh(c)
        else:
            input_bias, recurrent_bias = bias if np.ndim(bias) == 2 else (bias, 0)
            x_z, x_r, x_h = np.split(x_t @ kernel + input_bias, 3, 1)
            h_z, h_r, h_h = np.split(h @ recurrent + recurrent_bias, 3, 1)
            z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
            reset_after = spec.cell == "gru"
            inner = r * h_h if reset_after else (r * h) @ recurrent[:, 2 * size :]
            h = z * h + (1 - z) * np.tanh(x_h + inner)
        ys.append(h)
    return np.stack(ys), (h, c)[: len(state)]


SIMPLE = [Spec("elman", 3, 2, nonlinearity=f, dtype="float64") for f in ("relu", "sigmoid")]


@pytest.mark.parametrize("spec", [*specs(KERAS, dtypes=("float64",), layers=(2,)), *SIMPLE], ids=named)
def test_keras_equations_compute_the_same_layer_by_layer(spec):
    params, x, state = drawn(spec)
    if spec.bias and spec.cell != "gru":
        params |= {name: np.zeros_like(value) for name, value in params.items() if name.startswith("bias_hh")}
    y, finals = x, []
    for layer in range(spec.num_layers):
        arrays, outputs = to_keras(spec, params, layer), []
        count = len(arrays) // spec.directions
        for d in range(spec.directions):
            start = tuple(part[layer * spec.directions + d] for part in state)
            order = slice(None, None, -1 if d else 1)
            hidden, final = keras_layer(spec, arrays[d * count : (d + 1) * count], y[order], start)
            outputs.append(hidden[order])
            finals.append(final)
        y = np.concatenate(outputs, 2)
    assert_same_network(spec, params, x, state, y, [np.stack(part) for part in zip(*finals, strict=True)])
