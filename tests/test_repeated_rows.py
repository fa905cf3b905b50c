"""A few rows of a batch speak for the whole: they round as it does, and an error in any row is found.  2 s."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from helpers.small_case import case_of
from helpers.wrapped_reference import backend_file

import rnnbench
from rnnbench.check import Problem, compared, expected, gate, outputs
from rnnbench.check.problem import COTANGENT_BITS, DISTINCT_ROWS, INPUT_CHANGE, Rows
from rnnbench.networks.spec import DTYPES

CAUGHT = 10

NORMAL, SMALL = np.finfo("float16").tiny, np.float16(2.0**-15)
"""The smallest normal float16; and what makes cotangents of about 1 subnormal."""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_repeating_a_row_rounds_nothing(dtype):
    problem = Problem(case_of(B=200, dtype=dtype), seed=3)
    (index, weight), totals = problem.rows(), problem.rows().totals
    once = problem.in_float64().distinct_inputs().dy / totals[:, None]
    np.testing.assert_array_equal(problem.inputs().dy, once[:, index] * weight[:, None])


def test_rows_added_one_after_the_other_stay_within_the_tolerance():
    """The plainest right sum, whose rounding errors are the largest: a bias's gradient, row after row in float32."""
    ratios = []
    for seed in range(5):
        problem = Problem(case_of("elman", T=3, B=1000, H=5), seed=seed)
        wanted, inputs = expected(problem), problem.inputs()
        net = rnnbench.load_backend("numpy_ref").load(problem.case.spec(), problem.params())
        total = np.zeros(5, "float32")
        for row in range(1000):
            _, _, tape = net.record(inputs.x[:, row : row + 1], tuple(part[:, row : row + 1] for part in inputs.state))
            grads = net.backward(tape, inputs.dy[:, row : row + 1], tuple(part[:, row : row + 1] for part in inputs.dstate))
            total += grads.params["bias_ih_l0"]
        error = np.max(np.abs(total - wanted.values["d bias_ih_l0"]))
        ratios.append(error / wanted.tolerances["d bias_ih_l0"][0])
    assert 0.01 < max(ratios) < 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 2, 4, 5, 6, 64, 65])
def test_a_batch_repeats_a_few_rows_and_one_repetition_has_no_cotangent(batch, dtype):
    index, weight = rows = Rows.of(batch, 5, dtype)
    assert len(index) == len(weight) == batch
    distinct = min(batch, DISTINCT_ROWS)
    assert index[:distinct].tolist() == list(range(distinct))
    assert np.all(weight[:distinct] == 1)
    assert np.all((weight[distinct:] == 0) | ((weight[distinct:] >= 0.5) & (weight[distinct:] < 1.5)))
    assert np.sum(weight == 0) == (1 if batch > distinct else 0)
    assert rows.totals.sum() == weight.sum()
    assert len(rows.totals) == distinct
    for a, b in zip(rows, Rows.of(batch, 5, dtype), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("phase", ["forward", "step", "tbptt"])
@pytest.mark.parametrize("cell", ["gru", "jordan", "lstm"])
def test_what_few_rows_say_is_what_the_reference_gives_for_the_whole_batch(phase, cell):
    options = {"window": 5, "stride": 2} if phase == "tbptt" else {}
    problem = Problem(case_of(cell, phase, B=23, layers=2, dtype="float64", **options))
    wanted = expected(problem)
    assert all(value.shape[1] == DISTINCT_ROWS for name, value in wanted.values.items() if name in ("y", "dx"))
    findings = gate(rnnbench.load_backend("numpy_ref"), problem, wanted)
    assert all(finding.passed for finding in findings), findings[0]
    for name, value in outputs(rnnbench.load_backend("numpy_ref"), problem).items():
        if name in ("dx", "d initial h"):
            unweighted = problem.rows().weight == 0
            assert np.all(value[:, unweighted] == 0)
            assert np.all(np.any(value != 0, axis=(0, 2)) == ~unweighted)


@pytest.mark.parametrize("name", ["y", "final c", "dx", "d initial h"])
@pytest.mark.parametrize("row", [0, 11, 22])
def test_an_error_in_any_row_of_a_large_batch_is_found(name, row):
    problem = Problem(case_of(B=23))
    wanted, right = expected(problem), outputs(rnnbench.load_backend("numpy_ref"), problem)
    wrong = right[name].copy()
    wrong[0, row, 1] += 2 * CAUGHT * wanted.tolerances[name][0]
    found = {finding.tensor: finding for finding in compared(right | {name: wrong}, wanted, "float32")}
    assert found[name].ratio >= CAUGHT
    assert [finding.tensor for finding in found.values() if not finding.passed] == [name]


def test_a_gradient_that_leaks_into_a_row_without_cotangent_is_found_however_small():
    problem = Problem(case_of(B=23))
    wanted, right = expected(problem), outputs(rnnbench.load_backend("numpy_ref"), problem)
    wrong = right["dx"].copy()
    wrong[3, problem.rows().weight == 0, 0] = 1e-30
    worst = compared(right | {"dx": wrong}, wanted, "float32")[0]
    assert (worst.tensor, worst.tolerance, worst.ratio) == ("dx", 0.0, np.inf)


def test_swapped_rows_of_a_large_batch_are_found():
    problem = Problem(case_of(B=64))
    wanted, right = expected(problem), outputs(rnnbench.load_backend("numpy_ref"), problem)
    index = problem.rows().index
    for shift in (1, 2, 16, 32):
        assert np.any(np.roll(index, shift) != index)
        rolled = right | {"y": np.roll(right["y"], shift, 1)}
        assert compared(rolled, wanted, "float32")[0].tensor == "y"
        assert compared(rolled, wanted, "float32")[0].ratio >= CAUGHT


def test_the_reference_costs_the_same_for_every_batch():
    """Not a time but what it is made of: how many rows the reference is asked to compute."""
    shapes = [Problem(case_of(B=batch)).distinct_inputs().x.shape for batch in (4, 64, 1024)]
    assert shapes == [(12, DISTINCT_ROWS, 8)] * 3


def test_changing_the_weights_that_were_lent_is_found(tmp_path):
    module = """
        def load(spec, params, *, threads=None):
            net = Network(numpy_ref.load(spec, params, threads=threads))
            params["bias_hh_l0"][0] += 1
            return net
    """
    file = backend_file(tmp_path / "planted.py", module=module)
    problem = Problem(case_of())
    worst = gate(rnnbench.load_backend(file), problem, expected(problem))[0]
    assert (worst.tensor, worst.error, worst.tolerance) == (INPUT_CHANGE, 1.0, 0.0)


def test_the_same_seed_gives_the_same_problem_at_every_dtype():
    single = Problem(case_of(B=9))
    double = replace(single, case=msgspec.structs.replace(single.case, dtype="float64"))
    for a, b in zip(single.rows(), double.rows(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(single.inputs().dy, double.inputs().dy, rtol=2.0 ** (1 - COTANGENT_BITS["float32"]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_of_repeated_rows_round_no_cotangent(dtype):
    problem = Problem(case_of(B=65, dtype=dtype))
    exact = problem.in_float64().inputs()
    np.testing.assert_array_equal(problem.inputs().dy.astype("float64"), exact.dy)
    assert len(np.unique(problem.rows().weight)) > 3
