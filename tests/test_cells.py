"""Promises of rnnbench.networks.cells: each backward is the derivative of its forward, and no operation widens float32."""

import math

import numba
import numpy as np
import pytest
from mpmath import mp, mpf

from rnnbench.networks.cells import CELLS, Activations

VARIANTS = [(name, nonlinearity) for name, cell in CELLS.items() for nonlinearity in cell.nonlinearities]
every_variant = pytest.mark.parametrize(("name", "nonlinearity"), VARIANTS)

ANALYTIC = Activations(
    tanh=np.tanh,
    sigmoid=lambda z: 1 / (1 + np.exp(-z)),
    relu=lambda z: np.where(z.real > 0, z, 0),
    relu_slope=lambda h: np.where(h.real > 0, 1.0, 0.0),
)
EXACT = Activations(
    tanh=mp.tanh,
    sigmoid=lambda z: 1 / (1 + mp.exp(-z)),
    relu=lambda z: max(z, mpf(0)),
    relu_slope=lambda h: mpf(h > 0),
)


def sizes(cell):
    """How many values a, b, carried, dnew and dinner have."""
    gates = len(cell.gates)
    read = int(cell.carries is not None) + len(cell.peepholes)
    return gates, gates, read, 2 if cell.carries == "c" else 1, int(cell.inner_gates > 0)


def drawn(cell, rng, count):
    """Pre-activations, carried values and cotangents in +-2, none within 1e-3 of relu's corner once a and b are added."""
    a, b, carried, dnew, dinner = (tuple(rng.uniform(-2, 2, (n, count))) for n in sizes(cell))
    a = tuple(np.where(abs(x + y) < 1e-3, x + 0.5, x) for x, y in zip(a, b, strict=True))
    return a, b, carried, dnew, dinner


def objective(equations, a, b, carried, dnew, dinner):
    """What backward differentiates: the results of the step, each times its cotangent.

    ``inner`` gives the operand of the second product, whose results come back as the last of b: two separate functions.
    """
    new, _ = equations.forward(a, b, carried)
    total = sum(d * n for d, n in zip(dnew, new, strict=True))
    return total + dinner[0] * equations.inner(a, b, carried) if equations.inner else total


def gradients(equations, a, b, carried, dnew, dinner):
    """The derivatives of ``objective`` by a, b and carried, as the cell's own equations give them."""
    _, saved = equations.forward(a, b, carried)
    return equations.backward(saved, carried, dnew, dinner)


@every_variant
def test_backward_is_the_complex_step_derivative_of_forward(name, nonlinearity):
    """f'(x) = Im f(x + ih) / h has no cancellation: with h = 1e-30 it is exact to rounding (Squire and Trapp 1998)."""
    equations = CELLS[name].equations(ANALYTIC, nonlinearity)
    point = drawn(CELLS[name], np.random.default_rng(0), 50)
    arguments, cotangents = point[:3], point[3:]
    for which, values in enumerate(gradients(equations, *point)):
        assert len(values) == len(arguments[which])
        for index, value in enumerate(values):
            moved = [list(map(np.asarray, part)) for part in arguments]
            moved[which][index] = moved[which][index] + 1e-30j
            exact = objective(equations, *moved, *cotangents).imag / 1e-30
            # 1e-12: some ten roundings of 1e-16, times at most 1e3 where the terms of a cotangent nearly cancel
            np.testing.assert_allclose(value, exact, rtol=1e-12, atol=0, err_msg=f"by {'abc'[which]}[{index}]")


@pytest.mark.parametrize("name", [name for name, cell in CELLS.items() if cell.inner_gates])
def test_inner_backward_gives_the_cotangents_of_the_inner_product_s_results(name):
    cell = CELLS[name]
    equations = cell.equations(ANALYTIC, "tanh")
    a, b, carried, dnew, dinner = drawn(cell, np.random.default_rng(1), 50)
    _, saved = equations.forward(a, b, carried)
    got = equations.inner_backward(saved, carried, dnew)
    assert len(got) == cell.inner_gates
    for value, index in zip(got, range(cell.outer_gates, len(cell.gates)), strict=True):
        moved = [x + 1e-30j if k == index else x for k, x in enumerate(b)]
        exact = objective(equations, a, moved, carried, dnew, dinner).imag / 1e-30
        np.testing.assert_allclose(value, exact, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", [name for name, cell in CELLS.items() if cell.inner_gates])
def test_the_inner_operand_needs_only_the_outer_gates(name):
    """The operand goes into the product that makes the last of b, so it cannot read them."""
    cell = CELLS[name]
    equations = cell.equations(ANALYTIC, "tanh")
    a, b, carried, *_ = drawn(cell, np.random.default_rng(2), 5)
    np.testing.assert_array_equal(
        equations.inner(a, b[: cell.outer_gates], carried),
        equations.inner(a, (*b[: cell.outer_gates], *[np.full(5, np.nan)] * cell.inner_gates), carried),
    )


@every_variant
def test_both_directions_agree_with_50_digits_at_a_point(name, nonlinearity):
    """The same functions run on mpmath's numbers, so a derivative that is right only to 1e-12 shows."""
    cell = CELLS[name]
    equations = cell.equations(EXACT, nonlinearity)
    doubles = [tuple(float(x[0]) for x in part) for part in drawn(cell, np.random.default_rng(3), 1)]
    with mp.workdps(50):
        point = [tuple(map(mpf, part)) for part in doubles]
        exact = gradients(equations, *point)
        for which, values in enumerate(exact):
            for index, value in enumerate(values):

                def moved(x, which=which, index=index):
                    parts = [list(part) for part in point]
                    parts[which][index] = x
                    return objective(equations, *parts)

                # mp.diff works with more digits than it returns; its step costs a few of the 50
                assert abs(value - mp.diff(moved, point[which][index])) < mpf("1e-40")
        new, saved = equations.forward(*point[:3])
    arrays = [tuple(map(np.float64, part)) for part in doubles]
    plain = cell.equations(ANALYTIC, nonlinearity)
    plain_new, plain_saved = plain.forward(*arrays[:3])
    assert len(plain_saved) == cell.saved
    pairs = [(plain_new, new), (plain_saved, saved), *zip(gradients(plain, *arrays), exact, strict=True)]
    for got, expected in pairs:
        # float64 at one point of order 1: some ten roundings of 1e-16, each grown at most tenfold
        np.testing.assert_allclose([float(x) for x in got], [float(x) for x in expected], rtol=1e-14, atol=1e-14)


@every_variant
def test_float32_scalars_stay_float32_in_numpy(name, nonlinearity):
    single = np.float32
    activations = Activations(
        np.tanh, lambda z: single(1) / (single(1) + np.exp(-z)), lambda z: np.maximum(z, single(0)), lambda h: np.sign(h)
    )
    cell = CELLS[name]
    equations = cell.equations(activations, nonlinearity)
    a, b, carried, dnew, dinner = (tuple(single(x[0]) for x in part) for part in drawn(cell, np.random.default_rng(4), 1))
    new, saved = equations.forward(a, b, carried)
    results = [new, saved, *equations.backward(saved, carried, dnew, dinner)]
    if equations.inner:
        results += [(equations.inner(a, b, carried),), equations.inner_backward(saved, carried, dnew)]
    assert {type(value) for part in results for value in part} == {single}


ONE, ZERO = np.float32(1), np.float32(0)


@numba.njit
def tanh_32(z):
    return math.tanh(z)


@numba.njit
def sigmoid_32(z):
    return ONE / (ONE + math.exp(-z))


@numba.njit
def relu_32(z):
    return max(z, ZERO)


@numba.njit
def relu_slope_32(h):
    return ONE if h > ZERO else ZERO


@every_variant
def test_float32_scalars_stay_float32_in_numba(name, nonlinearity):
    """NumPy 2 would forgive a literal, Numba would not: 1 - f is float64 there."""
    cell = CELLS[name]
    equations = cell.equations(Activations(tanh_32, sigmoid_32, relu_32, relu_slope_32), nonlinearity)
    a, b, carried, dnew, dinner = (numba.types.UniTuple(numba.float32, n) for n in sizes(cell))
    saved = numba.types.UniTuple(numba.float32, cell.saved)
    signatures = {"forward": (a, b, carried), "backward": (saved, carried, dnew, dinner)}
    if equations.inner:
        signatures |= {"inner": (a, b, carried), "inner_backward": (saved, carried, dnew)}
    for function, signature in signatures.items():
        compiled = numba.njit(getattr(equations, function))
        compiled.compile(signature)
        assert set(scalars(compiled.nopython_signatures[0].return_type)) == {numba.float32}, function


def scalars(kind):
    """The scalar types in a Numba type of nested tuples."""
    if isinstance(kind, numba.types.BaseTuple):
        return [scalar for part in kind for scalar in scalars(part)]
    return [kind]
