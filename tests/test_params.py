"""Promises of rnnbench.networks.params: what each scheme draws, and that only parameters which fit are let in, as copies."""

import numpy as np
import pytest

from rnnbench import ArgumentError, Spec, init_params
from rnnbench.networks.cells import CELLS
from rnnbench.networks.params import SCHEMES, check_params

every_cell = pytest.mark.parametrize("cell", CELLS)
every_scheme = pytest.mark.parametrize("scheme", SCHEMES)


def gates(spec, name, value):
    """The matrices of a parameter that are drawn one by one: one for each gate, or jordan's whole output layer.

    Peephole weights are the diagonals of matrices.
    """
    if "_ch_" in name:
        return list(map(np.diag, np.split(value, len(spec.kind.peepholes))))
    return [value] if "_ho_" in name else np.split(value, len(spec.kind.gates))


@every_scheme
@every_cell
def test_names_shapes_and_memory_order_are_the_spec_s(cell, scheme):
    spec = Spec(cell, 5, 3, num_layers=2, bidirectional=True)
    params = init_params(spec, 0, scheme)
    assert {name: value.shape for name, value in params.items()} == spec.param_shapes()
    assert list(params) == list(spec.param_shapes())
    assert all(value.flags.c_contiguous and value.dtype == "float32" for value in params.values())
    check_params(spec, params)


@every_scheme
@every_cell
def test_a_seed_gives_the_same_values_in_every_dtype_and_another_seed_others(cell, scheme):
    single, double = Spec(cell, 5, 3), Spec(cell, 5, 3, dtype="float64")
    rounded, again, exact, other = (
        init_params(s, seed, scheme) for s, seed in ((single, 7), (single, 7), (double, 7), (double, 8))
    )
    for name, value in exact.items():
        assert value.dtype == "float64"
        np.testing.assert_array_equal(rounded[name], value.astype("float32"))
        np.testing.assert_array_equal(rounded[name], again[name])
    assert any((exact[name] != other[name]).any() for name in exact)


@every_cell
def test_torch_default_fills_the_interval_of_one_over_root_h(cell):
    bound = 1 / np.sqrt(16)
    for name, value in init_params(Spec(cell, 8, 16, dtype="float64"), 0).items():
        assert abs(value).max() <= bound, name
        # The largest of n uniform magnitudes is below 2/3 of the bound with probability (2/3)**n: 0.0015 for the 16 values
        # of the smallest parameter, a bias of elman; the seed is fixed.
        assert abs(value).max() > bound * 2 / 3, name


@every_cell
def test_xavier_bounds_each_gate_by_its_own_fans(cell):
    spec = Spec(cell, 8, 16, dtype="float64")
    for name, value in init_params(spec, 0, "xavier").items():
        if name.startswith("bias"):
            assert not value.any(), name
            continue
        for gate in gates(spec, name, value):
            bound = np.sqrt(6 / sum(gate.shape))
            assert bound * 2 / 3 < abs(gate).max() <= bound, name  # as above: at least 128 values


@every_cell
@pytest.mark.parametrize("output_size", [4, 6, 9])
def test_orthogonal_recurrent_matrices_are_orthogonal_gate_by_gate(cell, output_size):
    jordan = cell == "jordan"
    spec = Spec(cell, 5, 6, num_layers=2, bidirectional=True, dtype="float64", output_size=output_size if jordan else None)
    params = init_params(spec, 3, "orthogonal")
    assert {name: value.shape for name, value in params.items()} == spec.param_shapes()
    for name, value in params.items():
        if name.startswith("bias"):
            assert not value.any(), name
        elif name.startswith("weight_hh"):
            for gate in gates(spec, name, value):
                gram = gate @ gate.T if gate.shape[0] <= gate.shape[1] else gate.T @ gate
                # Householder QR of an n x n matrix leaves Q orthogonal to a modest multiple of n u (Higham 2002, 19.4)
                np.testing.assert_allclose(gram, np.eye(len(gram)), atol=10 * 9 * np.finfo("float64").eps, rtol=0)
        else:
            assert abs(value).max() <= np.sqrt(6 / sum(gates(spec, name, value)[0].shape)), name


def test_orthogonal_gates_are_drawn_independently():
    first, second, *_ = np.split(init_params(Spec("lstm", 5, 6), 3, "orthogonal")["weight_hh_l0"], 4)
    assert abs(first - second).max() > 0.1


@pytest.mark.parametrize(("cell", "rows"), [("lstm", slice(3, 6)), ("gru", slice(3, 6)), ("gru_reset_before", slice(3, 6))])
def test_forget_bias_lands_on_the_gate_that_keeps_memory_and_nowhere_else(cell, rows):
    spec = Spec(cell, 5, 3, num_layers=2, bidirectional=True, dtype="float64")
    assert spec.kind.gates[1] == {"lstm": "f"}.get(cell, "z")
    plain, biased = init_params(spec, 0), init_params(spec, 0, forget_bias=1.5)
    for name, value in plain.items():
        expected = value.copy()
        if name.startswith("bias_ih"):
            expected[rows] += 1.5
        np.testing.assert_array_equal(biased[name], expected)


@pytest.mark.parametrize("spec", [Spec("elman", 3, 2), Spec("jordan", 3, 2), Spec("lstm", 3, 2, bias=False)])
def test_forget_bias_without_a_gate_for_it_is_refused(spec):
    with pytest.raises(ArgumentError, match=f"^forget_bias is 1.0; expected 0: {spec.cell} has no memory gate with"):
        init_params(spec, 0, forget_bias=1.0)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(ArgumentError, match=r"^scheme is 'he'; expected one of torch-default, xavier, orthogonal$"):
        init_params(Spec("lstm", 3, 2), 0, "he")


LSTM = Spec("lstm", 3, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"bias_hh_l0": None},
            "parameters do not fit lstm: missing bias_hh_l0; expected weight_ih_l0, weight_hh_l0",
        ),
        ({"bias": np.zeros(8, "f4")}, "parameters do not fit lstm: extra bias; expected weight_ih_l0"),
        ({"bias_hh_l0": None, "b": 1}, "parameters do not fit lstm: missing bias_hh_l0; extra b; expected weight_ih_l0"),
        ({"weight_ih_l0": np.zeros((3, 8), "f4")}, r"weight_ih_l0 has shape \(3, 8\); expected \(8, 3\)"),
        ({"bias_ih_l0": np.zeros((8, 1), "f4")}, r"bias_ih_l0 has shape \(8, 1\); expected \(8,\)"),
        ({"weight_hh_l0": np.zeros((8, 2))}, "weight_hh_l0 has dtype float64; expected float32"),
        ({"weight_hh_l0": np.zeros((8, 2), ">f4")}, "weight_hh_l0 has dtype >f4; expected float32"),
        ({"weight_hh_l0": [[0.0] * 2] * 8}, "weight_hh_l0 is a builtins.list; expected a numpy.ndarray"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(change, message):
    params = {name: value for name, value in (init_params(LSTM, 0) | change).items() if value is not None}
    with pytest.raises(ArgumentError, match="^" + message):
        check_params(LSTM, params)


def test_checked_parameters_are_contiguous_copies_in_the_order_of_the_spec():
    params = init_params(LSTM, 0)
    given = {name: np.asfortranarray(params[name]) for name in reversed(params)}
    checked = check_params(LSTM, given)
    assert list(checked) == list(params)
    for name, value in checked.items():
        assert value.flags.c_contiguous
        assert value.flags.writeable
        assert not np.shares_memory(value, given[name])
        np.testing.assert_array_equal(value, params[name])
