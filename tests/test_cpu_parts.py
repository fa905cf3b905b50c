"""A model's parts in the Numba backend: equal to the reference's within rounding, and the same bits every time.

Half a minute, most of it to compile.
"""

import itertools
import threading
from typing import Any

import numpy as np
import pytest

import rnnbench
from rnnbench.impls import numba_cpu
from rnnbench.impls._parts import NumpyParts
from rnnbench.impls.numba_cpu import compile_parts
from rnnbench.jit.target import current_target
from rnnbench.models import Adam, ModelSpec, Rows, init_model_params, load_model
from rnnbench.models.equations import CONSTANTS, RULES

SIZES = [(5, 1, 1, 1), (3, 7, 33, 2), (7, 31, 16, 17), (13, 33, 33, 81), (2, 100, 5, 257), (3, 70, 33, 1100)]
"""(T, B, F, O): fewer rows than a block, several unequal blocks, several chunks of outputs, and work for two threads."""

PLACES = [("float32", 1), ("float32", 2), ("float64", 2)]

ACTIVATION = 8
"""Roundings of an activation or an exponential of this backend and of the reference, at most."""

CHAIN = 12
"""Operations that follow one another in the longest rule, Adam's, with the scaling of the gradient."""

EXAMPLES = {
    "sgd": (0.1, 0.0),
    "momentum": (0.1, 0.9),
    "nesterov": (0.1, 0.9),
    "adam": (0.9, 0.999, 0.1, 0.001, 0.01, 3.0, 1e-8, 0.999),
}


class Drawn:
    """Operands of an output layer of one size; every third row or so does not count."""

    def __init__(self, size: tuple[int, int, int, int], dtype: str, factor: float = 1.0) -> None:
        steps, batch, features, outputs = size
        rng = self.rng = np.random.default_rng(size)
        self.y = rng.standard_normal((steps, batch, features)).astype(dtype)
        self.weight = (factor * rng.standard_normal((outputs, features))).astype(dtype)
        self.bias = rng.standard_normal(outputs).astype(dtype)
        self.layer = self.y, self.weight, self.bias
        self.classes = rng.integers(0, outputs, (steps, batch))
        self.numbers = rng.standard_normal((steps, batch, outputs)).astype(dtype)
        self.mask = (rng.random((steps, batch)) * (rng.random((steps, batch)) < 0.7)).astype(dtype)
        self.masks = (rng.random(self.numbers.shape) * (rng.random(self.numbers.shape) < 0.7)).astype(dtype)
        self.unit = np.finfo(dtype).eps / 2
        wide = self.flat, self.wide, _ = [array.astype(np.float64) for array in (self.y.reshape(-1, features), *self.layer[1:])]
        self.z = wide[0] @ wide[1].T + wide[2]
        self.dz_of_z = (features + 2) * self.unit * (abs(wide[0]) @ abs(wide[1]).T + abs(wide[2]))

    def assert_close(self, got: Any, wanted: Any, loss: float, dz: np.ndarray, error: np.ndarray) -> None:
        """Compare results, each within a bound of its own, from the cotangent of z, its error and the error of the loss."""
        rows, outputs = dz.shape
        size, flat, weight = abs(dz), abs(self.flat), abs(self.wide)
        assert abs(got.loss - wanted.loss) <= 2 * loss
        dy = error @ weight + (outputs + 1) * self.unit * (size @ weight)
        of_weight = error.T @ flat + (rows + 1) * self.unit * (size.T @ flat)
        of_bias = error.sum(0) + (rows + 1) * self.unit * size.sum(0)
        assert got.y.shape == self.y.shape
        for found, expected, bound in zip(got[1:], wanted[1:], (dy.reshape(self.y.shape), of_weight, of_bias), strict=True):
            assert found.dtype == expected.dtype
            assert found.shape == expected.shape
            assert np.all(abs(found - expected) <= 2 * bound)


@pytest.mark.parametrize(("dtype", "threads"), PLACES)
def test_cross_entropy_is_the_references_within_rounding(dtype, threads):
    parts, reference = numba_cpu.parts(dtype, threads=threads), NumpyParts(dtype)
    for size in SIZES:
        drawn = Drawn(size, dtype)
        arguments = *drawn.layer, drawn.classes, drawn.mask
        shifted = drawn.z - drawn.z.max(1, keepdims=True)
        total = np.exp(shifted).sum(1, keepdims=True)
        p, counted = np.exp(shifted) / total, drawn.mask.astype(np.float64).reshape(-1, 1)
        of_z = 2 * drawn.dz_of_z.max(1, keepdims=True) + 2 * drawn.unit * abs(shifted)  # of a difference of two logits
        of_total = of_z.max(1, keepdims=True) + (ACTIVATION + size[3]) * drawn.unit
        rows, chosen = np.arange(len(p)), drawn.classes.reshape(-1)
        losses = of_z[rows, chosen] + of_total[:, 0] + 3 * drawn.unit * (np.log(total[:, 0]) - shifted[rows, chosen])
        dz = p.copy()
        dz[rows, chosen] -= 1
        error = counted * (p * (of_z + of_total + (ACTIVATION + 4) * drawn.unit) + 2 * drawn.unit * abs(dz))
        error[rows, chosen] += 2 * drawn.unit * counted[:, 0]
        got, wanted = parts.cross_entropy(*arguments), reference.cross_entropy(*arguments)
        drawn.assert_close(got, wanted, float(counted[:, 0] @ losses), counted * dz, error)


@pytest.mark.parametrize(
    ("dtype", "threads", "activation"),
    [("float32", 1, "identity"), ("float32", 2, "tanh"), ("float32", 1, "sigmoid"), ("float64", 2, "tanh")],
)
def test_squared_errors_are_the_references_within_rounding(dtype, threads, activation):
    parts, reference = numba_cpu.parts(dtype, threads=threads), NumpyParts(dtype)
    for size in SIZES:
        drawn = Drawn(size, dtype)
        arguments = *drawn.layer, activation, drawn.numbers, drawn.masks
        rows, unit = drawn.numbers.reshape(-1, size[3]).astype(np.float64), drawn.unit
        counted = drawn.masks.reshape(rows.shape).astype(np.float64)
        output = {"identity": lambda z: z, "tanh": np.tanh, "sigmoid": lambda z: 1 / (1 + np.exp(-z))}[activation](drawn.z)
        slope = {"identity": 1, "tanh": 1 - output**2, "sigmoid": output - output**2}[activation]
        of_output = drawn.dz_of_z + ACTIVATION * unit * abs(output)  # no activation is steeper than 1
        difference = output - rows
        of_difference = of_output + unit * abs(difference)
        losses = counted * (2 * abs(difference) * of_difference + of_difference**2 + 4 * unit * difference**2)
        cotangent = 2 * counted * difference
        error = 2 * counted * of_difference + 3 * unit * abs(cotangent)
        if activation != "identity":
            error += abs(cotangent) * (2 * of_output * (abs(output) + 1) + 4 * unit * (1 + output**2))
        got, wanted = parts.squared_errors(*arguments), reference.squared_errors(*arguments)
        drawn.assert_close(got, wanted, float(losses.sum()), cotangent * slope, error)


@pytest.mark.parametrize("activation", ["softmax", "tanh"])
def test_outputs_are_the_references_within_rounding(activation):
    parts, reference = numba_cpu.parts("float32", threads=2), NumpyParts("float32")
    for size in SIZES:
        drawn = Drawn(size, "float32")
        got, wanted = parts.outputs(*drawn.layer, activation), reference.outputs(*drawn.layer, activation)
        assert got.shape == wanted.shape
        of_z = drawn.dz_of_z.max(1, keepdims=True) + drawn.unit * abs(drawn.z).max(1, keepdims=True)
        relative = 4 * of_z + (size[3] + 2 * ACTIVATION) * drawn.unit if activation == "softmax" else 0
        bound = relative * wanted.reshape(drawn.z.shape) + (activation == "tanh") * (of_z + ACTIVATION * drawn.unit)
        assert np.all(abs(got - wanted).reshape(drawn.z.shape) <= 2 * bound)


@pytest.mark.parametrize(("dtype", "threads"), PLACES)
def test_a_loss_without_gradients_is_that_with_them_to_the_bit(dtype, threads):
    for parts in (numba_cpu.parts(dtype, threads=threads), NumpyParts(dtype, threads)):
        for size in SIZES:
            drawn = Drawn(size, dtype)
            words = *drawn.layer, drawn.classes, drawn.mask
            assert parts.cross_entropy_loss(*words) == parts.cross_entropy(*words).loss
            numbers = *drawn.layer, "tanh", drawn.numbers, drawn.masks
            assert parts.squared_errors_loss(*numbers) == parts.squared_errors(*numbers).loss


def test_large_logits_stay_finite():
    parts, drawn = numba_cpu.parts("float32", threads=1), Drawn((7, 31, 16, 17), "float32", factor=1e4)
    assert abs(drawn.z).max() > 1e4
    mask = np.ones_like(drawn.mask)
    found = parts.cross_entropy(*drawn.layer, drawn.classes, mask)
    assert np.isfinite(found.loss)
    assert all(np.isfinite(array).all() for array in found[1:])
    assert np.isfinite(parts.outputs(*drawn.layer, "softmax")).all()


def test_rows_that_do_not_count_add_nothing():
    parts, drawn = numba_cpu.parts("float32", threads=1), Drawn((7, 31, 16, 17), "float32")
    ignored = drawn.mask == 0
    found = parts.cross_entropy(*drawn.layer, drawn.classes, drawn.mask)
    assert ignored.any()
    assert not found.y[ignored].any()
    other = parts.cross_entropy(*drawn.layer, np.where(ignored, 0, drawn.classes), drawn.mask)
    assert found.loss == other.loss
    assert all(np.array_equal(a, b) for a, b in zip(found[1:], other[1:], strict=True))


def test_nan_of_a_logit_is_not_hidden():
    parts, drawn = numba_cpu.parts("float32", threads=1), Drawn((7, 31, 16, 17), "float32")
    drawn.bias[3] = np.nan
    found = parts.cross_entropy(*drawn.layer, drawn.classes, np.ones_like(drawn.mask))
    assert np.isnan(found.loss)
    assert all(np.isnan(array).all() for array in found[1:])


def gradients_of(shape: tuple[int, int], dtype: str) -> list[np.ndarray | Rows]:
    rng = np.random.default_rng(shape)
    indices = np.unique(rng.integers(0, shape[0], max(1, shape[0] // 3)))
    dense = rng.standard_normal(shape).astype(dtype)
    return [dense, Rows(indices, dense[indices])]


@pytest.mark.parametrize(("dtype", "name"), [*(("float32", name) for name in RULES), ("float64", "adam")])
def test_updates_are_the_references_within_rounding(dtype, name):
    rule, unit, scale, limit = RULES[name], np.finfo(dtype).eps / 2, 0.7, 1.1
    for shape, threads in itertools.product([(1, 1), (17, 33), (700, 129)], [1, 2]):
        for gradient in gradients_of(shape, dtype):
            parts, reference = numba_cpu.parts(dtype, threads=threads), NumpyParts(dtype)
            rng = np.random.default_rng(1)
            parameter = rng.standard_normal(shape).astype(dtype)
            slots = [abs(rng.standard_normal(shape)).astype(dtype) for _ in range(rule.slots)]
            sizes = [abs(array).astype(np.float64) for array in (parameter, *slots)]
            others = [parameter.copy(), *(slot.copy() for slot in slots)]
            whole = np.zeros(shape)
            whole[gradient.indices if isinstance(gradient, Rows) else ...] = (
                gradient.values if isinstance(gradient, Rows) else gradient
            )
            # the rule of magnitudes, with a rate that turns its differences into sums, is the sum of its terms' sizes
            constants = CONSTANTS[name](*EXAMPLES[name])
            constants = constants._replace(rate=-constants.rate)
            new, kept = rule.update(sizes[0], np.clip(abs(whole) * scale, 0, limit), sizes[1:], constants)
            parts.update(rule, parameter, gradient, slots, EXAMPLES[name], scale, limit)
            reference.update(rule, others[0], gradient, others[1:], EXAMPLES[name], scale, limit)
            for got, wanted, size in zip((parameter, *slots), others, (new, *kept), strict=True):
                assert np.all(abs(got - wanted) <= 2 * CHAIN * unit * size)


def test_only_a_sparse_rule_leaves_rows_without_gradient_alone():
    parts, shape = numba_cpu.parts("float32", threads=1), (17, 33)
    _, rows = gradients_of(shape, "float32")
    untouched = np.setdiff1d(np.arange(17), rows.indices)
    for name, rule in RULES.items():
        parameter, slots = np.ones(shape, "float32"), [np.ones(shape, "float32") for _ in range(rule.slots)]
        parts.update(rule, parameter, rows, slots, EXAMPLES[name], 1.0, np.inf)
        assert (parameter[rows.indices] != 1).any(1).all()
        for array in (parameter, *slots):
            assert (array[untouched] == 1).all() == rule.sparse, name


@pytest.mark.parametrize(("dtype", "threads"), PLACES)
def test_embeddings_and_norms_are_the_references_within_rounding(dtype, threads):
    parts, reference, unit = numba_cpu.parts(dtype, threads=threads), NumpyParts(dtype), np.finfo(dtype).eps / 2
    rng = np.random.default_rng(0)
    for steps, batch, rows, size in [(1, 1, 1, 1), (7, 5, 3, 33), (64, 32, 81, 40), (3, 2, 1000, 7)]:
        weight = rng.standard_normal((rows, size)).astype(dtype)
        indices, dx = rng.integers(0, rows, (steps, batch)), rng.standard_normal((steps, batch, size)).astype(dtype)
        assert np.array_equal(parts.embedded(weight, indices), weight[indices])
        got, wanted = parts.embedding_gradient(indices, dx), reference.embedding_gradient(indices, dx)
        assert np.array_equal(got.indices, wanted.indices)
        sizes = reference.embedding_gradient(indices, abs(dx)).values
        assert np.all(abs(got.values - wanted.values) <= 2 * np.bincount(indices.ravel()).max() * unit * sizes)
        norms = [p.squared_norm([weight, got, dx]) for p in (parts, reference)]
        count = weight.size + got.values.size + dx.size
        assert abs(norms[0] - norms[1]) <= 2 * count * np.finfo(np.float64).eps / 2 * norms[1]


def trained(threads: int) -> list[np.ndarray]:
    spec = ModelSpec(rnnbench.Spec("lstm", 16, 32), 300, vocabulary=300)
    model = load_model(spec, init_model_params(spec, 0), "numba_cpu", threads=threads)
    optimiser, rng = Adam(model, 0.01, clip_norm=1.0), np.random.default_rng(0)
    for _ in range(3):
        inputs, targets = rng.integers(0, 300, (2, 9, 64))
        optimiser.step(model.gradients(inputs, targets).gradients)
    assert model.parts.name == "numba_cpu"
    return list(model.params().values())


@pytest.mark.parametrize("threads", [1, 2])
def test_training_twice_gives_the_same_bits(threads):
    assert all(np.array_equal(a, b) for a, b in zip(trained(threads), trained(threads), strict=True))


@pytest.mark.parametrize("threads", [1, 2])
def test_tapes_keep_their_weights_after_an_update(threads):
    spec = rnnbench.Spec("lstm", 16, 32)
    params = rnnbench.init_params(spec, 0)
    x = np.random.default_rng(0).standard_normal((5, 8, 16)).astype("float32")
    for trained_before in (False, True):  # whether the weights are packed for BPTT before the update
        network = numba_cpu.load(spec, params, threads=threads)
        y, _, tape = network.record(x)
        wanted = network.backward(tape, y)
        if not trained_before:
            network = numba_cpu.load(spec, params, threads=threads)
        y, _, tape = network.record(x)
        network.update({name: 2 * value for name, value in params.items()})
        other, _, other_tape = network.record(x)
        assert not np.array_equal(other, y)
        network.backward(other_tape, y)
        found = network.backward(tape, y)
        assert np.array_equal(found.x, wanted.x)
        assert all(np.array_equal(found.params[name], wanted.params[name]) for name in params)


def test_calls_from_two_threads_share_no_memory():
    parts, drawn = numba_cpu.parts("float32", threads=1), [Drawn((13, 33, 33, 81), "float32", f) for f in (1.0, 2.0)]
    wanted = [parts.cross_entropy(*d.layer, d.classes, d.mask) for d in drawn]
    wrong: list[int] = []

    def call(place: int) -> None:
        one = drawn[place]
        for _ in range(50):
            found = parts.cross_entropy(*one.layer, one.classes, one.mask)
            if not all(np.array_equal(a, b) for a, b in zip(found, wanted[place], strict=True)):
                wrong.append(place)

    threads = [threading.Thread(target=call, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_results_are_new_arrays():
    parts, drawn = numba_cpu.parts("float32", threads=1), Drawn((7, 31, 16, 17), "float32")
    first = parts.cross_entropy(*drawn.layer, drawn.classes, drawn.mask)
    before = [array.copy() for array in first[1:]]
    parts.cross_entropy(2 * drawn.y, drawn.weight, drawn.bias, drawn.classes, drawn.mask)
    assert all(np.array_equal(a, b) for a, b in zip(first[1:], before, strict=True))


@pytest.mark.parametrize("order", [np.ascontiguousarray, np.asfortranarray])
def test_other_orders_and_read_only_arrays_compile_nothing_anew(order):
    parts, drawn = numba_cpu.parts("float32", threads=1), Drawn((7, 31, 16, 17), "float32")
    wanted = parts.cross_entropy(*drawn.layer, drawn.classes, drawn.mask)
    y, weight, bias, classes, mask = (order(a.copy()) for a in (*drawn.layer, drawn.classes, drawn.mask))
    for array in (y, weight, bias, classes, mask):
        array.flags.writeable = False
    found = parts.cross_entropy(y, weight, bias, classes, mask)
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
    place = np.dtype("float32"), current_target()
    kernels: list[Any] = [compile_parts.loss_gradients("cross_entropy", "softmax", *place), *compile_parts.packings(*place)[:1]]
    assert [len(kernel.signatures) for kernel in kernels] == [1, 1]
