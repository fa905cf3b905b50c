"""The tolerance: noisy runs and closed form say the same, gate by gate.  10 s."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from helpers.small_case import case_of
from helpers.wrapped_reference import backend_file

import rnnbench
from rnnbench.check import Expected, Problem, compared, expected, gate, window_cost
from rnnbench.check.noise import noisy
from rnnbench.check.probe import Probe, compare_with_reference, in_float64
from rnnbench.check.propagation import FirstOrder, _Derivatives, median_largest, with_variance
from rnnbench.check.tolerance import FACTOR, ROUNDINGS, closed_form, noisy_runs
from rnnbench.networks.bfloat16 import dtype_of
from rnnbench.networks.cells import CELLS
from rnnbench.networks.spec import NARROW
from rnnbench.suite.case import Case
from rnnbench.suite.inputs import Inputs

CAUGHT = 10

NORMAL, SMALL = np.finfo("float16").tiny, np.float16(2.0**-15)
"""The smallest normal float16; and what makes cotangents of about 1 subnormal."""


# the noisy runs


def test_the_tolerance_is_the_same_for_the_same_seed_and_another_for_another():
    problem = Problem(case_of(), source="noise")
    first, again, other = expected(problem), expected(problem), expected(replace(problem, seed=1))
    for name in first.values:
        np.testing.assert_array_equal(first.values[name], again.values[name])
        np.testing.assert_array_equal(first.tolerances[name], again.tolerances[name])
        assert np.all(first.tolerances[name] != other.tolerances[name])


@pytest.mark.parametrize("cell", CELLS)
def test_the_tolerance_scales_with_the_unit_roundoff(cell):
    """float32 rounds 2^29 times as coarsely as float64.  Noise and seed are the same, so the deviations are, to first
    order, with weights and inputs that differ by 2^-24; a tolerance off by more than the factor that it puts on top of
    the largest deviation would leave no margin in one of the two."""
    single = Problem(case_of(cell), source="noise")
    double = replace(single, case=msgspec.structs.replace(single.case, dtype="float64"))
    coarse, fine = expected(single).tolerances, expected(double).tolerances
    for name in coarse:
        ratios = coarse[name] / fine[name] * ROUNDINGS["float64"] / 2**29
        assert np.all((ratios > 1 / FACTOR) & (ratios < FACTOR)), name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_even_a_single_unit_is_given_room_to_round(dtype):
    """With one element per tensor nothing but the noise of that element makes the tolerance; half a unit in the last
    place, which any right implementation may be off, has to fit."""
    for seed in range(30):
        problem = Problem(case_of(T=1, B=1, I=1, H=1, dtype=dtype), source="noise", seed=seed)
        wanted = expected(problem)
        for name in wanted.values:
            assert np.max(wanted.tolerances[name]) >= np.spacing(np.abs(wanted.values[name]).max().astype(dtype)) / 2, (
                seed,
                name,
            )


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_tolerance_of_sums_over_time_grows_with_the_sequence(cell):
    """A weight's gradient is a sum over T steps: its rounding error grows at least as the root of T, so 16-fold steps
    make it at least four times as large but for the luck of eight draws, for which a half is allowed."""
    short, long = (expected(Problem(case_of(cell, T=T), source="noise")).tolerances for T in (8, 128))
    for name in ("d weight_ih_l0", "d weight_hh_l0", "d bias_ih_l0", "d bias_hh_l0"):
        assert np.max(long[name]) > 2 * np.max(short[name]), name


def test_no_tolerance_is_zero():
    assert all(np.all(tolerance > 0) for tolerance in expected(Problem(case_of())).tolerances.values())


@pytest.mark.parametrize("cell", CELLS)
def test_real_rounding_errors_lie_below_the_tolerance_and_not_far_below(cell):
    """The reference in float32 has nothing but rounding errors: above 1 the tolerance would refuse right backends, and
    below 0.01 it would be loose enough to hide wrong ones."""
    reference = rnnbench.load_backend("numpy_ref")
    for case in (case_of(cell, T=5, H=4), case_of(cell, T=64, H=24)):
        problem = Problem(case, source="noise")
        assert 0.01 < gate(reference, problem, expected(problem))[0].ratio < 1


# what a window costs


LONG_MEMORY = {"scheme": "orthogonal", "forget_bias": 3.0, "source": "noise"}


def windowed(window: int, **regime) -> Problem:
    return Problem(Case("lstm", "tbptt", 48, 2, 3, 8, window=window), **regime)


@pytest.mark.parametrize("window", [48, 49, 1000])
def test_a_window_that_covers_the_sequence_costs_nothing(window):
    cost = window_cost(windowed(window, **LONG_MEMORY))
    assert set(cost) == {"all", "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"}
    assert set(cost.values()) == {0.0}


def test_a_longer_window_costs_less_where_memory_is_long():
    costs = [window_cost(windowed(window, **LONG_MEMORY))["all"] for window in (4, 12, 24, 40, 48)]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > 0.1  # with default weights it would not show
    assert costs[-2] > 0
    assert costs[0] > window_cost(windowed(4, source="noise"))["all"]


# the closed form


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "fields",
    [
        {"T": 1, "B": 1, "H": 1, "I": 1},
        {"T": 64, "H": 24},
        {"layers": 2, "bidirectional": True},
        {"dtype": "float64", "B": 70},
        {"dtype": "float16", "B": 70},
        {"phase": "tbptt", "T": 20, "window": 7, "stride": 3},
        {"bias": False},
        {"phase": "forward"},
    ],
    ids=lambda fields: " ".join(f"{k}={v}" for k, v in fields.items()),
)
def test_the_closed_form_is_within_four_times_of_the_noisy_runs(cell, fields):
    """Errors in a row that is normalised depend on each other; taken for independent, some do not cancel as they should."""
    highest = np.inf if CELLS[cell].normalised else 4
    ratios: dict[str, list[np.ndarray]] = {}
    for seed in range(3):
        problem = Problem(case_of(cell, **fields), seed=seed)
        noisy, closed = noisy_runs(problem), closed_form(problem)
        assert set(noisy.values) == set(closed.values)
        for name, value in noisy.values.items():
            np.testing.assert_allclose(closed.values[name], value, rtol=1e-9, atol=1e-11, err_msg=name)
            assert closed.tolerances[name].shape == noisy.tolerances[name].shape
            ratios.setdefault(name, []).append(closed.tolerances[name] / noisy.tolerances[name])
    for name, found in ratios.items():  # the median, because all draws of a single element may be small
        assert np.all((np.median(found, 0) > 1 / 4) & (np.median(found, 0) < highest)), (name, found)


def test_the_larger_of_the_two_is_expected():
    """With this seed the eight draws of one element are all small."""
    problem = Problem(case_of("gru", T=1, B=1, H=1, I=1), seed=7)
    wanted, noisy, closed = expected(problem), noisy_runs(problem), closed_form(problem)
    assert np.any(closed.tolerances["d bias_ih_l0"] > 4 * noisy.tolerances["d bias_ih_l0"])
    for name, tolerance in wanted.tolerances.items():
        np.testing.assert_array_equal(tolerance, np.maximum(noisy.tolerances[name], closed.tolerances[name]))


@pytest.mark.parametrize("nonlinearity", ["relu", "sigmoid"])
def test_the_closed_form_knows_every_nonlinearity(nonlinearity):
    problem = Problem(case_of("elman", nonlinearity=nonlinearity, T=40))
    noisy, closed = noisy_runs(problem), closed_form(problem)
    for name in noisy.values:
        assert np.all(closed.tolerances[name] / noisy.tolerances[name] > 1 / 4), name
        assert np.all(closed.tolerances[name] / noisy.tolerances[name] < 4), name


def test_an_elementwise_function_passes_on_the_variances_of_its_operands_and_of_its_activations():
    """f(p, q) = p q + tanh(p): the variance is (q + 1 - tanh^2 p)^2 V_p + p^2 V_q + (2 tanh p)^2."""
    derivatives = _Derivatives()
    propagated = derivatives.propagating(lambda p, q: (p[0] * q[0] + derivatives.tanh(p[0]),))
    p, q = np.random.default_rng(0).standard_normal((2, 3, 5))
    (result,) = propagated((with_variance(p, 0.3),), (with_variance(q, 0.7),))
    t = np.tanh(p)
    np.testing.assert_allclose(result.real, p * q + t, rtol=1e-14)
    np.testing.assert_allclose(result.imag, 0.3 * (q + 1 - t * t) ** 2 + 0.7 * p**2 + 4 * t * t, rtol=1e-12)


@pytest.mark.parametrize(("size", "deviation"), [(4, 1.0), (8, 0.01), (32, 1.0)])
def test_a_normalisation_passes_on_the_variances_that_random_errors_have(size, deviation):
    rng, unit = np.random.default_rng(0), 2.0**-30
    v, gain, bias = 0.3 + deviation * rng.standard_normal((1, size)), rng.uniform(0.5, 1.5, size), rng.uniform(-0.5, 0.5, size)
    dy, of_v, of_dy = rng.standard_normal((1, size)), deviation * rng.uniform(0, 2, (1, size)), rng.uniform(0, 2, (1, size))
    form = FirstOrder()
    y, kept = form.normalised(with_variance(v, of_v), gain, bias)
    derived = (y, *form.normalised_backward(with_variance(dy, of_dy), kept, gain))
    arithmetic = noisy(rnnbench.load_backend("numpy_ref").Arithmetic, unit, rng)

    def drawn(value, variance):
        return value + unit * np.sqrt(variance) * rng.standard_normal(value.shape)

    draws = []
    for _ in range(1000):
        of_draw, standardised = arithmetic.normalised(drawn(v, of_v), gain, bias)
        draws.append((of_draw, *arithmetic.normalised_backward(drawn(dy, of_dy), standardised, gain)))
    for place, result in enumerate(derived):
        deviations = np.std([draw[place] for draw in draws], 0) / unit
        # errors of x and of its scale are taken for independent
        np.testing.assert_allclose(np.sqrt(result.imag), deviations, rtol=0.3)


def test_products_and_sums_add_the_variance_of_their_own_rounding():
    rng = np.random.default_rng(0)
    v, w, bias = rng.standard_normal((4, 3)), rng.standard_normal((2, 3)), rng.standard_normal(2)
    result = FirstOrder().product(with_variance(v, 0.5), w, bias)
    np.testing.assert_allclose(result.imag, 0.5 * (w**2).sum(1) + (abs(v) @ abs(w).T + abs(bias)) ** 2)
    a, b = with_variance(v, 0.5), with_variance(2 * v, 0.25)
    np.testing.assert_allclose(FirstOrder(repeats=6).accumulated(a, b).imag, 0.75 + 9 * v**2)
    np.testing.assert_allclose(FirstOrder(repeats=6).summed(a, b, 4, 2).imag, 0.75 + 8 * 9 * v**2)
    np.testing.assert_allclose(FirstOrder().outer(a, b).imag[0, 1], one_element(v[:, 0], 0.5, 2 * v[:, 1], 0.25))


def test_products_that_sum_more_finely_are_rounded_once_more_and_sums_step_by_step():
    rng = np.random.default_rng(0)
    v, w, bias = rng.standard_normal((4, 3)), rng.standard_normal((2, 3)), rng.standard_normal(2)
    narrow = FirstOrder(repeats=6, accumulation=0.25)
    noise = (0.25 * (abs(v) @ abs(w).T + abs(bias))) ** 2 + (v @ w.T + bias) ** 2
    np.testing.assert_allclose(narrow.product(with_variance(v, 0.0), w, bias).imag, noise)
    a, b = with_variance(v, 0.5), with_variance(2 * v, 0.25)
    np.testing.assert_allclose(narrow.summed(a, b, 12, 9).imag, 0.75 + (3 + 0.0625 * 24) * 9 * v**2)


@pytest.mark.parametrize("dtype", NARROW)
def test_the_reference_rounds_every_narrow_result_once(dtype):
    """What it gives differs from float64 by rounding alone, and is nowhere finer than the dtype."""
    arithmetic = rnnbench.load_backend("numpy_ref").Narrow(dtype_of(dtype))
    v, w = np.random.default_rng(0).standard_normal((2, 5, 7)).astype("float32")
    for got, exact in ((arithmetic.product(v, w), v @ w.T), (arithmetic.tanh(v), np.tanh(v))):
        np.testing.assert_array_equal(got, exact.astype(dtype_of(dtype)).astype("float32"))
        assert np.any(got != exact)


# where float16 ends


@pytest.fixture
def vanishing():
    """A problem whose gradients are subnormal in float16, its inputs, and what is expected of them."""

    def of(cell: str) -> tuple[Problem, Inputs, Expected]:
        problem = Problem(case_of(cell, T=24, dtype="float16"))
        given = problem.inputs()
        small = given._replace(dy=given.dy * SMALL, dstate=tuple(part * SMALL for part in given.dstate))
        return problem, small, expected(problem, in_float64(small))

    return of


@pytest.mark.parametrize("cell", CELLS)
def test_roundings_of_subnormal_gradients_are_within_the_tolerance(vanishing, cell):
    problem, given, wanted = vanishing(cell)
    right = compare_with_reference(Probe(rnnbench.load_backend("numpy_ref"), problem).step(given), wanted, "float16")
    assert all(0.01 < finding.ratio < 1 for finding in right), right


# a normalisation multiplies the roundings of subnormal numbers by its scale: there gradients below the smallest normal number
# are no larger than their error
@pytest.mark.parametrize("cell", [name for name, cell in CELLS.items() if not cell.normalised])
def test_zeros_in_the_place_of_subnormal_gradients_are_not_within_the_tolerance(vanishing, cell):
    """The smallest normal number would be a tolerance that lets all of them be zero."""
    problem, given, wanted = vanishing(cell)
    got = Probe(rnnbench.load_backend("numpy_ref"), problem).step(given)
    flushed = {name: np.where(np.abs(value) < NORMAL, np.float16(0), value) for name, value in got.items()}
    found = {finding.tensor: finding for finding in compare_with_reference(flushed, wanted, "float16") if not finding.passed}
    subnormal = [name for name, value in wanted.values.items() if np.abs(value).max() < NORMAL]
    assert subnormal
    assert set(subnormal) <= set(found)
    assert all(found[name].ratio >= CAUGHT for name in subnormal)


def test_the_closed_form_knows_subnormal_gradients(vanishing):
    problem, given, _ = vanishing("lstm")
    noisy, closed = (way(problem, in_float64(given)).tolerances for way in (noisy_runs, closed_form))
    for name, tolerance in noisy.items():
        assert np.all((closed[name] / tolerance > 1 / 4) & (closed[name] / tolerance < 4)), name


def test_a_repeated_row_underflows_sooner_than_all_its_repetitions_together():
    """Half the distance of subnormal numbers is what any row's gradient may be off, also that of a part of the cotangent."""
    problem = Problem(case_of("elman", B=70, dtype="float16"))
    (index, weight), totals = problem.rows(), problem.rows().totals
    least = np.min(weight[weight > 0] / totals[index[weight > 0]])
    tolerance = expected(problem, in_float64(problem.distinct_inputs().map(lambda a: a * 0))).tolerances["dx"][0]
    assert least < 0.1
    assert tolerance * least >= 2.0**-25


def test_what_is_beyond_the_largest_float16_is_said_to_be():
    problem = Problem(case_of("elman", dtype="float16"))
    wanted = expected(problem)
    scaled = wanted._replace(values=wanted.values | {"dx": 1e5 * wanted.values["dx"] / np.abs(wanted.values["dx"]).max()})
    with np.errstate(over="ignore"):
        got = {name: value.astype("float16") for name, value in scaled.values.items()}
    (failed,) = [finding for finding in compared(got, scaled, "float16") if not finding.passed]
    assert (failed.tensor, failed.error) == ("dx", None)
    assert failed.reason == "is not finite: the reference reaches 1e+05, but float16 ends at 65504"
    got["y"][0, 0, 0] = np.inf
    reasons = {finding.tensor: finding.reason for finding in compared(got, scaled, "float16")}
    assert reasons["y"] == "is not finite"


def one_element(c, c_variance, o, o_variance):
    return np.sum(c_variance * o**2 + o_variance * c**2) + np.sum(abs(c * o)) ** 2


@pytest.mark.parametrize("size", [1, 10, 1000])
def test_the_median_of_the_largest_is_that_of_simulated_draws(size):
    rng = np.random.default_rng(size)
    variances = rng.uniform(0.5, 2, size) ** 2
    draws = np.abs(rng.standard_normal((2000, 8, size)) * np.sqrt(variances)).max((1, 2))
    assert abs(np.mean(draws <= median_largest(variances, 8)) - 0.5) < 0.06  # five standard errors of a share of 2000
    assert median_largest(np.zeros(3), 8) == 0


# gate by gate


def test_an_error_in_a_gate_of_small_gradients_is_not_hidden_by_the_others(tmp_path):
    """With forget bias 3 the forget gate's gradients are the smallest; the largest of the tensor would hide 0.1% of them."""
    problem = Problem(case_of(T=30), "orthogonal", 3.0, seed=3)
    wanted = expected(problem)
    name = "d weight_ih_l0"
    file = backend_file(
        tmp_path / "planted.py",
        """
        def backward(self, tape, dy, dstate=None):
            grads = self.net.backward(tape, dy, dstate)
            grads.params["weight_ih_l0"][8:16] *= np.float32(1.001)
            return grads
        """,
    )
    found = {finding.tensor: finding for finding in gate(rnnbench.load_backend(file), problem, wanted)}[name]
    assert found.ratio > 1
    assert found.tolerance == wanted.tolerances[name][1]
    assert wanted.tolerances[name].shape == (4,)
