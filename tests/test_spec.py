"""Promises of rnnbench.Spec: it refuses what no network can have, and its shapes and counts are torch's and arithmetic's."""

import dataclasses

import numpy as np
import pytest

from rnnbench import Spec, SpecError
from rnnbench.networks.cells import CELLS
from rnnbench.networks.spec import DTYPES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cell": "rnn"}, f"cell is 'rnn'; expected one of {', '.join(CELLS)}"),
        ({"input_size": 0}, "input_size is 0; expected an integer >= 1"),
        ({"input_size": True}, "input_size is True; expected an integer >= 1"),
        ({"hidden_size": -3}, "hidden_size is -3; expected an integer >= 1"),
        ({"hidden_size": 2**40}, "hidden_size is 1099511627776; expected an integer from 1 to 16777216"),
        ({"num_layers": np.int64(2**31)}, "num_layers is np.int64(2147483648); expected an integer from 1 to 65536"),
        ({"cell": ["lstm"]}, f"cell is ['lstm']; expected one of {', '.join(CELLS)}"),
        ({"dtype": None}, "dtype is None; expected one of float32, float64, bfloat16, float16"),
        ({"dtype": np.dtype("int8")}, "dtype is 'int8'; expected one of float32, float64, bfloat16, float16"),
        ({"hidden_size": 2.0}, "hidden_size is 2.0; expected an integer >= 1"),
        ({"num_layers": 0}, "num_layers is 0; expected an integer >= 1"),
        ({"num_layers": "2"}, "num_layers is '2'; expected an integer >= 1"),
        ({"bidirectional": 1}, "bidirectional is 1; expected True or False"),
        ({"bias": None}, "bias is None; expected True or False"),
        ({"nonlinearity": "relu"}, "nonlinearity is 'relu'; expected tanh for lstm"),
        ({"cell": "elman", "nonlinearity": "gelu"}, "nonlinearity is 'gelu'; expected tanh or relu or sigmoid for elman"),
        ({"dtype": "half"}, "dtype is 'half'; expected one of float32, float64, bfloat16, float16"),
        ({"output_size": 4}, "output_size is 4; expected None: only jordan has an output layer"),
        ({"cell": "jordan", "output_size": 0}, "output_size is 0; expected an integer >= 1"),
    ],
)
def test_what_no_network_can_have_is_refused_with_what_was_given_and_what_is_allowed(arguments, message):
    with pytest.raises(SpecError) as caught:
        Spec(**{"cell": "lstm", "input_size": 3, "hidden_size": 2} | arguments)
    assert str(caught.value) == message


def test_options_are_given_by_name():
    with pytest.raises(TypeError):
        Spec("lstm", 3, 2, 1)  # type: ignore[misc]


def test_a_spec_is_a_value_frozen_equal_and_hashable():
    spec = Spec("jordan", 3, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.hidden_size = 5  # type: ignore[misc]
    assert spec == Spec("jordan", 3, 2, output_size=2)
    assert len({spec, Spec("jordan", 3, 2, output_size=2), Spec("jordan", 3, 2, output_size=1)}) == 2
    assert dataclasses.replace(spec, num_layers=2) == Spec("jordan", 3, 2, num_layers=2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_numpy_calls_the_same_is_kept_as_python_s_own(dtype):
    plain = Spec("jordan", 3, 2, num_layers=2, bidirectional=True, output_size=4, nonlinearity="relu", dtype=dtype)
    numpys = Spec(
        np.str_("jordan"),
        np.int64(3),
        np.uint8(2),
        num_layers=np.int32(2),  # type: ignore[arg-type]
        bidirectional=np.True_,  # type: ignore[arg-type]
        output_size=np.int16(4),  # type: ignore[arg-type]
        nonlinearity=np.str_("relu"),
        dtype=plain.numpy_dtype,  # type: ignore[arg-type]
    )
    assert numpys == plain
    assert hash(numpys) == hash(plain)
    assert repr(numpys) == repr(plain)
    assert Spec("lstm", 3, 2, dtype=plain.numpy_dtype.type) == Spec("lstm", 3, 2, dtype=dtype)  # type: ignore[arg-type]


def test_suffixes_are_in_the_order_of_torch():
    assert Spec("gru", 3, 2, num_layers=2).suffixes() == ["_l0", "_l1"]
    assert Spec("gru", 3, 2, num_layers=2, bidirectional=True).suffixes() == ["_l0", "_l0_reverse", "_l1", "_l1_reverse"]


def test_shapes_of_a_deep_bidirectional_lstm():
    spec = Spec("lstm", 3, 2, num_layers=2, bidirectional=True)  # G*H = 8; layer 1 reads D*H = 4
    first = [(8, 3), (8, 2), (8,), (8,)]
    second = [(8, 4), (8, 2), (8,), (8,)]
    assert list(spec.param_shapes().values()) == [*first, *first, *second, *second]
    names = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_ih_l0_reverse"]
    assert list(spec.param_shapes())[:5] == names
    assert spec.features == 4
    assert spec.state_shape(5) == (4, 5, 2)
    assert [spec.layer_input_size(layer) for layer in (0, 1)] == [3, 4]


def test_shapes_of_a_deep_bidirectional_jordan():
    spec = Spec("jordan", 3, 2, output_size=5, num_layers=2, bidirectional=True)  # layer 1 reads D*O = 10
    assert spec.layer_shapes(0) == {
        "weight_ih": (2, 3),
        "weight_hh": (2, 5),
        "bias_ih": (2,),
        "bias_hh": (2,),
        "weight_ho": (5, 2),
        "bias_ho": (5,),
    }
    assert spec.layer_shapes(1)["weight_ih"] == (2, 10)
    assert spec.features == 10
    assert spec.state_shape(7) == (4, 7, 5)
    assert Spec("jordan", 3, 2).output_size == 2
    assert list(Spec("jordan", 3, 2, bias=False).layer_shapes(0)) == ["weight_ih", "weight_hh", "weight_ho"]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("cell", "module"), [("elman", "RNN"), ("lstm", "LSTM"), ("gru", "GRU")])
def test_names_shapes_and_order_are_those_of_torch(cell, module, bidirectional, bias):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    module = getattr(torch.nn, module)(3, 2, 3, bidirectional=bidirectional, bias=bias)
    spec = Spec(cell, 3, 2, num_layers=3, bidirectional=bidirectional, bias=bias)
    assert list(spec.param_shapes().items()) == [(name, tuple(p.shape)) for name, p in module.named_parameters()]
    assert spec.parameter_count() == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("cell", "bias", "count"),
    [
        ("elman", True, 1 * 64 * (32 + 64 + 2)),
        ("lstm", True, 4 * 64 * (32 + 64 + 2)),
        ("lstm", False, 4 * 64 * (32 + 64)),
        ("lstm_peephole", True, 4 * 64 * (32 + 64 + 2) + 3 * 64),
        ("gru", True, 3 * 64 * (32 + 64 + 2)),
        ("gru_reset_before", True, 3 * 64 * (32 + 64 + 2)),
        ("jordan", True, 64 * (32 + 64 + 2) + 64 * (64 + 1)),
    ],
)
def test_parameter_counts_by_formula(cell, bias, count):
    spec = Spec(cell, 32, 64, bias=bias)
    assert spec.parameter_count() == count
    assert spec.parameter_bytes() == 4 * count
    assert dataclasses.replace(spec, dtype="float64").parameter_bytes() == 8 * count


@pytest.mark.parametrize("cell", CELLS)
def test_forward_flops_are_two_per_weight_step_and_row(cell):
    gates = {"elman": 1, "jordan": 1, "lstm": 4, "lstm_peephole": 4, "gru": 3, "gru_reset_before": 3}[cell]
    per_row = 2 * gates * 64 * (32 + 64) + (2 * 64 * 64 if cell == "jordan" else 0)
    spec = Spec(cell, 32, 64)
    assert spec.forward_flops(steps=10, batch=5) == 10 * 5 * per_row
    assert spec.step_flops(steps=10, batch=5) == 3 * 10 * 5 * per_row


def test_flops_of_an_lstm_by_hand():
    t, b, i, h = 100, 8, 32, 64
    assert Spec("lstm", i, h).forward_flops(t, b) == 8 * b * t * h * (i + h) == 39_321_600
    two_layers_both_ways = Spec("lstm", i, h, num_layers=2, bidirectional=True)
    assert two_layers_both_ways.forward_flops(t, b) == 2 * 8 * b * t * h * ((i + h) + (2 * h + h))


def test_bytes_by_hand():
    spec = Spec("lstm", 3, 2, bidirectional=True, dtype="float64")
    parameters = 2 * (8 * 3 + 8 * 2 + 8 + 8)  # 112 values
    assert spec.parameter_bytes() == 8 * parameters
    assert spec.state_bytes(batch=5) == 8 * 2 * (2 * 5 * 2)  # h and c, each (D, B, H)
    assert spec.forward_bytes(steps=7, batch=5) == 8 * (parameters + 7 * 5 * 3 + 7 * 5 * 4)
    assert spec.step_bytes(steps=7, batch=5) == 2 * 8 * (parameters + 7 * 5 * 3 + 7 * 5 * 4)
    assert Spec("gru", 3, 2).state_bytes(batch=5) == 4 * (5 * 2)
    assert Spec("jordan", 3, 2, output_size=4).state_bytes(batch=5) == 4 * (5 * 4)
