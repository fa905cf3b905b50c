"""The reference is itself proved: its gradients are those of its own forward, and its forward is that of the formulas.

Three witnesses: the same loops run in complex arithmetic (complex-step derivatives), differences of the forward at two
step sizes, and the formulas of lstm and gru in scalars of 50 digits.  Takes 2 s.
"""

import numpy as np
import pytest
from mpmath import mp, mpf

import rnnbench
from rnnbench import Spec
from rnnbench.impls import numpy_ref
from rnnbench.networks.arrays import NumpyArrays
from rnnbench.networks.cells import CELLS
from rnnbench.networks.stacked import StackedNetwork

T, B, I, H, O = 6, 3, 4, 5, 2  # noqa: E741  # the field's names
DIRECTIONS = 8

VARIANTS = [(name, nonlinearity) for name, cell in CELLS.items() for nonlinearity in cell.nonlinearities]
SMOOTH = [(name, nonlinearity) for name, nonlinearity in VARIANTS if nonlinearity != "relu"]

Tensors = dict[str, np.ndarray]


def spec_of(cell: str, nonlinearity: str = "tanh", **options) -> Spec:
    output = O if CELLS[cell].feeds_back_output else None
    deep = {"num_layers": 2, "bidirectional": True, "dtype": "float64"}
    return Spec(cell, I, H, nonlinearity=nonlinearity, output_size=output, **deep | options)


class Problem:
    """A spec with random parameters, input, state and cotangents of y and of the final state."""

    def __init__(self, spec: Spec, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)

        def drawn(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape).astype(spec.dtype)

        self.spec, self.rng = spec, rng
        self.params = rnnbench.init_params(spec, seed)
        self.x, self.dy = drawn(T, B, I), drawn(T, B, spec.features)
        self.state, self.dstate = (tuple(drawn(*spec.state_shape(B)) for _ in spec.kind.states) for _ in range(2))

    def variables(self) -> Tensors:
        """Everything that the loss is differentiated by."""
        return self.params | {"x": self.x} | numbered(self.state)

    def split(self, values: Tensors):
        """Values named as ``variables``, as parameters, x and state."""
        params = {name: values[name] for name in self.params}
        return params, values["x"], tuple(values[name] for name in numbered(self.state))

    def loss(self, y, final):
        return np.sum(self.dy * y) + sum(np.sum(d * part) for d, part in zip(self.dstate, final, strict=True))

    def gradients(self) -> Tensors:
        net = numpy_ref.load(self.spec, self.params)
        _, _, tape = net.record(self.x, self.state)
        grads = net.backward(tape, self.dy, self.dstate)
        return grads.params | {"x": grads.x} | numbered(grads.state)


def numbered(state) -> Tensors:
    return {f"state {index}": part for index, part in enumerate(state)}


class ComplexArithmetic(numpy_ref.Arithmetic):
    """The rounding operations continued analytically, which comparisons and absolute values are not."""

    def sigmoid(self, z: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-z))

    def relu(self, z: np.ndarray) -> np.ndarray:
        return np.where(np.real(z) > 0, z, 0)


class ComplexNetwork(StackedNetwork):
    """The reference's own layers and the package's stack, run below the checks, which allow no complex dtype."""

    def __init__(self, problem: Problem) -> None:
        layer = numpy_ref.Layer(problem.spec, ComplexArithmetic())
        super().__init__(problem.spec, problem.params, layer, NumpyArrays(np.dtype(complex)), np.ndarray)

    def run(self, params, x, state):
        self._set_params(params)
        return self._forward(x, state)


def directional_derivative(problem: Problem, network: ComplexNetwork, direction: Tensors) -> float:
    """The loss's derivative along ``direction``, without any subtraction: Im loss(v + i h d) / h."""
    h = 1e-30
    shifted = {name: value + 1j * h * direction.get(name, 0) for name, value in problem.variables().items()}
    return float(problem.loss(*network.run(*problem.split(shifted))).imag / h)


@pytest.mark.parametrize(("cell", "nonlinearity"), VARIANTS)
def test_gradients_are_complex_step_derivatives_of_the_forward(cell, nonlinearity):
    problem = Problem(spec_of(cell, nonlinearity))
    network, grads, variables = ComplexNetwork(problem), problem.gradients(), problem.variables()
    assert grads.keys() == variables.keys()
    for names in (list(variables), *([name] for name in variables)):
        for _ in range(DIRECTIONS):
            direction = {name: problem.rng.standard_normal(variables[name].shape) for name in names}
            derivative = directional_derivative(problem, network, direction)
            terms = np.concatenate([(grads[name] * direction[name]).ravel() for name in names])
            # relative to the derivative, or to the length of its terms where by chance they cancel in their sum
            assert abs(np.sum(terms) - derivative) <= 1e-12 * max(abs(derivative), np.linalg.norm(terms)), names


def test_the_complex_network_is_the_reference_on_real_numbers():
    for cell, nonlinearity in VARIANTS:
        problem = Problem(spec_of(cell, nonlinearity))
        y, final = ComplexNetwork(problem).run(*problem.split({k: v + 0j for k, v in problem.variables().items()}))
        expected, expected_final = numpy_ref.load(problem.spec, problem.params).forward(problem.x, problem.state)
        # a handful of roundings differ in a sigmoid and in complex products; 2 layers x 6 steps x about 20 of them
        for got, wanted in zip((y, *final), (expected, *expected_final), strict=True):
            np.testing.assert_allclose(got.real, wanted, rtol=0, atol=240 * np.finfo("float64").eps)
            assert not got.imag.any()


@pytest.mark.parametrize(("cell", "nonlinearity"), SMOOTH)
def test_central_differences_converge_to_the_gradient_with_the_square_of_the_step(cell, nonlinearity):
    # relu is left out: over a finite step its corners spoil the order; complex steps cover it
    problem = Problem(spec_of(cell, nonlinearity))
    grads, variables = problem.gradients(), problem.variables()
    direction = {name: problem.rng.standard_normal(value.shape) for name, value in variables.items()}
    exact = sum(np.sum(grads[name] * direction[name]) for name in variables)

    def error(h: float) -> float:
        losses = []
        for sign in (1, -1):
            params, x, state = problem.split({name: value + sign * h * direction[name] for name, value in variables.items()})
            losses.append(problem.loss(*numpy_ref.load(problem.spec, params).forward(x, state)))
        return abs((losses[0] - losses[1]) / (2 * h) - exact)

    # the step is small enough for the next term of the series, of order h^2 relative to this one, to stay below a tenth,
    # and large enough for rounding, about 1e-15 / h, to stay far below the error of about h^2
    assert error(5e-4) / error(2.5e-4) == pytest.approx(4, abs=0.4)
    assert error(2.5e-4) < 1e-3 * abs(exact)


class Watching(numpy_ref.Arithmetic):
    """Notes the dtype of every value that passes through an operation."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def _noted(self, *arrays):
        self.seen |= {str(array.dtype) for array in arrays if array is not None}
        return arrays[-1]

    def tanh(self, z):
        return self._noted(z, super().tanh(z))

    def sigmoid(self, z):
        return self._noted(z, super().sigmoid(z))

    def relu(self, z):
        return self._noted(z, super().relu(z))

    def relu_slope(self, h):
        return self._noted(h, super().relu_slope(h))

    def product(self, v, w, bias=None):
        return self._noted(v, w, bias, super().product(v, w, bias))

    def outer(self, cotangents, operands):
        return self._noted(cotangents, operands, super().outer(cotangents, operands))

    def accumulated(self, total, term):
        return self._noted(total, term, super().accumulated(total, term))

    def summed(self, total, term, rows, steps):
        return self._noted(total, term, super().summed(total, term, rows, steps))

    def rounded(self, values):
        self._noted(*values)
        return values


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("cell", "nonlinearity"), VARIANTS)
def test_every_value_on_the_way_has_the_dtype_of_the_spec(cell, nonlinearity, dtype):
    watching = Watching()
    problem = Problem(spec_of(cell, nonlinearity, dtype=dtype))
    net = numpy_ref.load(problem.spec, problem.params, arithmetic=watching)
    y, final, tape = net.record(problem.x, problem.state)
    grads = net.backward(tape, problem.dy, problem.dstate)
    inferred, inferred_final = net.forward(problem.x)
    results = [y, *final, inferred, *inferred_final, grads.x, *grads.state, *grads.params.values()]
    assert {str(array.dtype) for array in results} == {dtype}
    assert watching.seen == {dtype}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_sigmoid_is_accurate_in_both_tails_and_never_overflows(dtype):
    sigmoid = numpy_ref.Arithmetic().sigmoid
    largest = np.finfo(dtype).max
    z = np.array([-largest, -80, -30, -1, 0, 1, 30, 80, largest], dtype)
    exact = np.array([float(1 / (1 + mp.exp(-mpf(float(v))))) for v in z])
    # an exponential, a sum and a quotient of 1 ulp or less each: 3 eps
    np.testing.assert_allclose(sigmoid(z), exact, rtol=3 * float(np.finfo(dtype).eps), atol=0)
    assert np.isnan(sigmoid(np.array([np.nan], dtype)))
    np.testing.assert_array_equal(sigmoid(np.array([-np.inf, np.inf], dtype)), [0, 1])


# Formulas in scalars of 50 digits, as Hochreiter and Schmidhuber with Gers's forget gate, and Cho with the reset gate after
# the product, are printed; lists of mpf, nothing from the package.
STEPS, BATCH, INPUTS, UNITS = 4, 2, 2, 3


def sigma(z):
    return 1 / (1 + mp.exp(-z))


def affine(weight, v, bias):
    return [mp.fdot(row, v) + b for row, b in zip(weight, bias, strict=True)]


def lstm_row(w, x, h, c):
    a, b = affine(w["weight_ih_l0"], x, w["bias_ih_l0"]), affine(w["weight_hh_l0"], h, w["bias_hh_l0"])
    z = [p + q for p, q in zip(a, b, strict=True)]
    i, f, g, o = (z[k * UNITS : (k + 1) * UNITS] for k in range(4))
    c = [sigma(f[u]) * c[u] + sigma(i[u]) * mp.tanh(g[u]) for u in range(UNITS)]
    return [sigma(o[u]) * mp.tanh(c[u]) for u in range(UNITS)], c


def gru_row(w, x, h):
    a, b = affine(w["weight_ih_l0"], x, w["bias_ih_l0"]), affine(w["weight_hh_l0"], h, w["bias_hh_l0"])
    r = [sigma(a[u] + b[u]) for u in range(UNITS)]
    z = [sigma(a[UNITS + u] + b[UNITS + u]) for u in range(UNITS)]
    n = [mp.tanh(a[2 * UNITS + u] + r[u] * b[2 * UNITS + u]) for u in range(UNITS)]
    return ([(1 - z[u]) * n[u] + z[u] * h[u] for u in range(UNITS)],)


ROWS = {"lstm": lstm_row, "gru": gru_row}


def exact(values: np.ndarray) -> list:
    """Nested lists of mpf with the same values."""
    return [exact(v) for v in values] if np.ndim(values) else mpf(float(values))  # type: ignore[return-value]


def exact_forward(cell: str, w, x, state):
    """y [T][B][H] and the final state [part][B][H] from nested lists."""
    rows = [tuple(part[b] for part in state) for b in range(BATCH)]
    y = []
    for step in x:
        rows = [ROWS[cell](w, step[b], *rows[b]) for b in range(BATCH)]
        y.append([row[0] for row in rows])
    return y, [[row[k] for row in rows] for k in range(len(state))]


@pytest.fixture
def fifty_digits():
    with mp.workdps(50):
        yield


@pytest.mark.parametrize("cell", ROWS)
def test_forward_and_a_gradient_agree_with_50_digits(cell, fifty_digits):
    spec = Spec(cell, INPUTS, UNITS, dtype="float64")
    rng = np.random.default_rng(8)
    params = rnnbench.init_params(spec, 8)
    x, dy = rng.standard_normal((STEPS, BATCH, INPUTS)), rng.standard_normal((STEPS, BATCH, UNITS))
    state, dstate = (tuple(rng.standard_normal((1, BATCH, UNITS)) for _ in spec.kind.states) for _ in range(2))
    net = numpy_ref.load(spec, params)
    y, final, tape = net.record(x, state)
    grads = net.backward(tape, dy, dstate)

    def run(w):
        return exact_forward(cell, w, exact(x), [exact(part[0]) for part in state])

    def as_float(values) -> np.ndarray:
        return np.array(values, dtype=object).astype("float64")

    w = {name: exact(value) for name, value in params.items()}
    exact_y, exact_final = run(w)
    # a value passes 4 steps of some 15 rounding operations (sums of 2 and 3 terms, biases, activations of 2 ulp), and
    # weights within 1/sqrt(3) do not amplify: 60 units of roundoff of values up to 2 forward, as many again backward
    roundings = 60 * np.finfo("float64").eps
    np.testing.assert_allclose(y, as_float(exact_y), rtol=0, atol=roundings)
    for got, wanted in zip(final, exact_final, strict=True):
        np.testing.assert_allclose(got[0], as_float(wanted), rtol=0, atol=2 * roundings)

    def loss(y, final):
        weighted = mp.fdot(as_mpf(dy), flattened(y))
        return weighted + sum(mp.fdot(as_mpf(d[0]), flattened(part)) for d, part in zip(dstate, final, strict=True))

    for name, row, column in (("weight_hh_l0", 1, 2), ("weight_ih_l0", 2 * UNITS, 1), ("bias_hh_l0", 2 * UNITS + 1, None)):
        # difference of 50-digit losses over h = 1e-15: its truncation error, of order h^2 = 1e-30, is out of sight
        h = mpf(10) ** -15
        losses = []
        for sign in (1, -1):
            shifted = {key: exact(value) for key, value in params.items()}
            if column is None:
                shifted[name][row] += sign * h
            else:
                shifted[name][row][column] += sign * h
            losses.append(loss(*run(shifted)))
        derivative = float((losses[0] - losses[1]) / (2 * h))
        got = grads.params[name][row] if column is None else grads.params[name][row, column]
        assert got == pytest.approx(derivative, rel=0, abs=2 * roundings * max(1, np.max(np.abs(grads.params[name]))))


def flattened(values) -> list:
    return [leaf for value in values for leaf in flattened(value)] if isinstance(values, list) else [values]


def as_mpf(array: np.ndarray) -> list:
    return [mpf(float(value)) for value in array.ravel()]
