"""Promises of rnnbench.networks.convert: there and back to the bit, and what does not fit is refused.  Takes 2 s."""

import sys
import warnings

import numpy as np
import pytest
from helpers.conversion_cases import KERAS, ONNX, assert_same_bits, assert_same_params, named, specs

from rnnbench import ArgumentError, BackendUnavailable, Spec, init_params
from rnnbench.networks.bfloat16 import dtype_of
from rnnbench.networks.convert.keras import from_keras, to_keras
from rnnbench.networks.convert.onnx import from_onnx, onnx_operator, to_onnx
from rnnbench.networks.convert.torch import from_torch, to_torch
from rnnbench.networks.spec import DTYPES

JORDAN = Spec("jordan", 3, 2)
PEEPHOLE = Spec("lstm_peephole", 3, 2)
LAYER_NORM = Spec("lstm_layer_norm", 3, 2)


def random_bits(shape, dtype, seed):
    """Any bit pattern: NaNs with payloads, infinities, subnormals and negative zeros among them."""
    kind = dtype_of(dtype)
    return np.frombuffer(np.random.default_rng(seed).bytes(int(np.prod(shape)) * kind.itemsize), kind).reshape(shape)


def bit_params(spec):
    return {name: random_bits(shape, spec.dtype, seed) for seed, (name, shape) in enumerate(spec.param_shapes().items())}


def assert_no_alias(results, inputs):
    assert not any(np.shares_memory(r, i) for r in results for i in inputs)


# There and back


@pytest.mark.parametrize("spec", specs(("elman", "lstm", "gru")), ids=named)
def test_torch_round_trip_is_bitwise_and_copies(spec):
    pytest.importorskip("torch", reason="needs PyTorch")
    params = bit_params(spec)
    state_dict = to_torch(spec, params, prefix="rnn.")
    assert list(state_dict) == ["rnn." + name for name in params]
    back = from_torch(spec, state_dict | {"head.weight": object()}, prefix="rnn.")
    assert_same_params(back, params)
    assert_no_alias([tensor.numpy() for tensor in state_dict.values()], [*params.values(), *back.values()])


@pytest.mark.parametrize("spec", specs(("lstm",)), ids=named)
def test_from_torch_reads_numpy_arrays_without_torch(spec, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    params = bit_params(spec)
    back = from_torch(spec, params)
    assert_same_params(back, params)
    assert_no_alias(back.values(), params.values())
    with pytest.raises(BackendUnavailable, match=r"pip install -e '\.\[torch\]' in the checkout of rnnbench"):
        to_torch(spec, params)


@pytest.mark.parametrize("spec", specs(ONNX), ids=named)
def test_onnx_round_trips_are_bitwise_and_copy(spec):
    params = bit_params(spec)
    layers = [to_onnx(spec, params, layer) for layer in range(spec.num_layers)]
    rows = len(spec.kind.gates) * 2
    for layer, (w, r, b, p) in enumerate(layers):
        assert w.shape == (spec.directions, rows, spec.layer_input_size(layer))
        assert r.shape == (spec.directions, rows, 2)
        assert (None if b is None else b.shape) == ((spec.directions, 2 * rows) if spec.bias else None)
        assert (None if p is None else p.shape) == ((spec.directions, 3 * 2) if spec.kind.peepholes else None)
    assert_same_params(from_onnx(spec, layers), params)
    foreign = [[random_bits(a.shape, a.dtype, 5 + i) for i, a in enumerate(w) if a is not None] for w in layers]
    ours = from_onnx(spec, foreign)
    again = [to_onnx(spec, ours, layer) for layer in range(spec.num_layers)]
    for given, got in zip(foreign, again, strict=True):
        assert_same_bits([a for a in got if a is not None], given)
        assert_no_alias(ours.values(), given)
        assert_no_alias([a for a in got if a is not None], ours.values())


@pytest.mark.parametrize("spec", specs(KERAS), ids=named)
def test_keras_round_trips_are_bitwise_and_copy(spec):
    params = bit_params(spec)
    if spec.bias and spec.cell != "gru":
        params |= {name: np.zeros_like(value) for name, value in params.items() if name.startswith("bias_hh")}
    layers = [to_keras(spec, params, layer) for layer in range(spec.num_layers)]
    assert_same_params(from_keras(spec, layers), params)
    foreign = [[random_bits(a.shape, a.dtype, 5 + i) for i, a in enumerate(arrays)] for arrays in layers]
    ours = from_keras(spec, foreign)
    for layer, given in enumerate(foreign):
        again = to_keras(spec, ours, layer)
        assert_same_bits(again, given)
        assert_no_alias(ours.values(), given)
        assert_no_alias(again, ours.values())


# Gate orders by hand: H = 1, so that each row is a gate


@pytest.mark.parametrize(
    ("cell", "onnx", "keras"),
    [("lstm", "iofg", "ifgo"), ("gru", "zrn", "zrn"), ("gru_reset_before", "zrn", "zrn"), ("elman", "h", "h")],
)
def test_gates_are_stored_in_the_documented_order(cell, onnx, keras):
    spec = Spec(cell, 1, 1)
    gates = spec.kind.gates
    params = {name: np.arange(np.prod(shape), dtype="float32").reshape(shape) for name, shape in spec.param_shapes().items()}
    params["bias_hh_l0"] = np.zeros(len(gates), "float32")
    weights = to_onnx(spec, params)
    assert "".join(gates[int(v)] for v in weights.W.ravel()) == onnx
    assert "".join(gates[int(v)] for v in weights.R.ravel()) == onnx
    assert "".join(gates[int(v)] for v in weights.B[0, : len(gates)]) == onnx
    kernel, recurrent, bias = to_keras(spec, params)
    assert kernel.shape == (1, len(gates))
    assert "".join(gates[int(v)] for v in kernel[0]) == keras
    assert "".join(gates[int(v)] for v in recurrent[0]) == keras
    assert "".join(gates[int(v)] for v in bias.ravel()[: len(gates)]) == keras


def test_peepholes_are_stored_in_onnx_s_order():
    spec = Spec("lstm_peephole", 1, 1)
    params = init_params(spec, 0) | {"weight_ch_l0": np.arange(3, dtype="float32")}
    (peepholes,) = to_onnx(spec, params).P
    assert "".join("ifo"[int(v)] for v in peepholes) == "iof"


# What else holds torch's weights


@pytest.mark.parametrize("spec", [Spec("lstm", 3, 2, num_layers=2, dtype=dtype) for dtype in DTYPES], ids=named)
def test_modules_of_every_dtype_are_read_and_written_to_the_bit(spec):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    params = init_params(spec, 0)
    module = torch.nn.LSTM(3, 2, num_layers=2, dtype=getattr(torch, spec.dtype))
    module.load_state_dict(to_torch(spec, params))
    for read in (from_torch(spec, module), from_torch(spec, torch.nn.ModuleDict({"rnn": module}), "rnn.")):
        for name, value in params.items():
            np.testing.assert_array_equal(read[name], value, strict=True, err_msg=name)


@pytest.mark.parametrize(("cell", "name"), [("elman", "RNNCell"), ("lstm", "LSTMCell"), ("gru", "GRUCell")])
def test_a_cell_module_is_a_layer_without_its_number(cell, name):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    module, spec = getattr(torch.nn, name)(3, 2), Spec(cell, 3, 2)
    for source in (module, module.state_dict()):
        for key, value in from_torch(spec, source).items():
            np.testing.assert_array_equal(value, getattr(module, key.removesuffix("_l0")).detach().numpy())


@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("kind", ["old", "new"])
def test_normed_weights_are_those_that_the_module_computes_with(kind, dim):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    module, spec = torch.nn.GRUCell(40, 30), Spec("gru", 40, 30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's word on the old form, which checkpoints hold
        norm = torch.nn.utils.weight_norm if kind == "old" else torch.nn.utils.parametrizations.weight_norm
        norm(module, "weight_hh", dim=dim)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.5)
    module(torch.zeros(1, 40))  # the old form computes the weight when the module is called
    expected = module.weight_hh.detach().numpy()
    for source in (module, module.state_dict()):
        # a norm of at most 2700 squares, each way to add them up within 2700 roundings of the other; half that relative error
        got = from_torch(spec, source)["weight_hh_l0"]
        np.testing.assert_allclose(got, expected, rtol=2700 * np.finfo("f4").eps)


def test_another_parametrization_is_read_from_the_module_and_not_from_its_state_dict():
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    model, spec = torch.nn.ModuleDict({"rnn": torch.nn.GRU(3, 2)}), Spec("gru", 3, 2)
    torch.nn.utils.parametrizations.orthogonal(model["rnn"], "weight_hh_l0")
    expected = model["rnn"].weight_hh_l0.detach().numpy()
    np.testing.assert_array_equal(from_torch(spec, model, "rnn.")["weight_hh_l0"], expected)
    np.testing.assert_array_equal(from_torch(spec, model["rnn"])["weight_hh_l0"], expected)
    with pytest.raises(ArgumentError, match=r"^parametrizations\.weight_hh_l0\..* belong to a parametrization; expected w"):
        from_torch(spec, model["rnn"].state_dict())


def test_a_lazily_negated_or_strided_tensor_is_its_values():
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    state_dict = to_torch(LSTM, GOOD)
    state_dict["bias_ih_l0"] = torch._neg_view(state_dict["bias_ih_l0"])
    state_dict["weight_ih_l0"] = state_dict["weight_ih_l0"].T.contiguous().T
    read = from_torch(LSTM, state_dict)
    np.testing.assert_array_equal(read["bias_ih_l0"], -GOOD["bias_ih_l0"])
    np.testing.assert_array_equal(read["weight_ih_l0"], GOOD["weight_ih_l0"])


def quantised(tensor):
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's word on its older way to quantise
        return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.to("meta"), "weight_ih_l0 is on device meta, which holds no values; expected any other device"),
        (lambda t: t.to_sparse(), "weight_ih_l0 has layout torch.sparse_coo; expected torch.strided, a dense tensor"),
        (quantised, "weight_ih_l0 has dtype qint8; expected float32"),
    ],
    ids=["meta", "sparse", "quantised"],
)
def test_a_tensor_that_holds_no_plain_values_is_refused_by_name(change, message):
    pytest.importorskip("torch", reason="needs PyTorch")
    state_dict = to_torch(LSTM, GOOD)
    with pytest.raises(ArgumentError) as caught:
        from_torch(LSTM, state_dict | {"weight_ih_l0": change(state_dict["weight_ih_l0"])})
    assert str(caught.value) == message


@pytest.mark.parametrize("spec", [Spec("lstm", 3, 2), Spec("elman", 3, 2), Spec("gru_reset_before", 3, 2)], ids=named)
def test_two_biases_can_be_folded_into_one_for_keras(spec):
    params = init_params(spec, 0)
    folded = from_keras(spec, [to_keras(spec, params, fold_bias=True)])
    np.testing.assert_array_equal(folded["bias_ih_l0"], params["bias_ih_l0"] + params["bias_hh_l0"])
    assert not np.any(folded["bias_hh_l0"])
    for name in ("weight_ih_l0", "weight_hh_l0"):
        np.testing.assert_array_equal(folded[name], params[name])


def test_gru_keeps_both_biases_where_they_are_folded_elsewhere():
    spec = Spec("gru", 3, 2)
    for a, b in zip(to_keras(spec, init_params(spec, 0), fold_bias=True), to_keras(spec, init_params(spec, 0)), strict=True):
        np.testing.assert_array_equal(a, b)


# Refusals


@pytest.mark.parametrize("spec", [Spec("lstm", 3, 2), Spec("elman", 3, 2), Spec("gru_reset_before", 3, 2)], ids=named)
@pytest.mark.parametrize("value", [1e-45, -0.0, np.nan])
def test_keras_refuses_a_second_bias_that_it_could_not_give_back(spec, value):
    params = init_params(spec, 0, "xavier")
    params["bias_hh_l0"][1] = value
    with pytest.raises(ArgumentError, match=r"^bias_hh_l0 has 1 values other than \+0.0; expected none: Keras has one bias"):
        to_keras(spec, params)


LSTM = Spec("lstm", 3, 2)
GOOD = init_params(LSTM, 0, "xavier")
W, R, B, _ = to_onnx(LSTM, GOOD)
KERAS = to_keras(LSTM, GOOD)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: to_torch(JORDAN, {}), "cell is 'jordan'; expected elman, lstm, gru: torch.nn has no other"),
        (lambda: from_torch(JORDAN, {}), "cell is 'jordan'; expected elman, lstm, gru: torch.nn has no other"),
        (
            lambda: from_torch(Spec("gru_reset_before", 3, 2), {}),
            "cell is 'gru_reset_before'; expected elman, lstm, gru: torch",
        ),
        (lambda: from_torch(Spec("elman", 3, 2, nonlinearity="sigmoid"), {}), "nonlinearity is 'sigmoid'; expected 'tanh' or"),
        (
            lambda: to_onnx(JORDAN, {}),
            "cell is 'jordan'; expected elman, lstm, lstm_peephole, gru, gru_reset_before: ONNX has no other",
        ),
        (
            lambda: from_onnx(JORDAN, []),
            "cell is 'jordan'; expected elman, lstm, lstm_peephole, gru, gru_reset_before: ONNX has no other",
        ),
        (
            lambda: onnx_operator(JORDAN),
            "cell is 'jordan'; expected elman, lstm, lstm_peephole, gru, gru_reset_before: ONNX has no other",
        ),
        (lambda: to_torch(LAYER_NORM, {}), "cell is 'lstm_layer_norm'; expected elman, lstm, gru: torch.nn has no other"),
        (lambda: to_onnx(LAYER_NORM, {}), "cell is 'lstm_layer_norm'; expected elman, lstm, lstm_peephole, gru, gru_reset"),
        (lambda: to_keras(LAYER_NORM, {}), "cell is 'lstm_layer_norm'; expected elman, lstm, gru, gru_reset_before: Keras"),
        (lambda: to_torch(PEEPHOLE, {}), "cell is 'lstm_peephole'; expected elman, lstm, gru: torch.nn has no other"),
        (
            lambda: to_keras(PEEPHOLE, {}),
            "cell is 'lstm_peephole'; expected elman, lstm, gru, gru_reset_before: Keras has no other",
        ),
        (lambda: to_keras(JORDAN, {}), "cell is 'jordan'; expected elman, lstm, gru, gru_reset_before: Keras has no other"),
        (lambda: from_keras(JORDAN, []), "cell is 'jordan'; expected elman, lstm, gru, gru_reset_before: Keras has no other"),
        (lambda: to_onnx(LSTM, GOOD, 1), "layer is 1; expected an integer from 0 to 0"),
        (lambda: to_keras(LSTM, GOOD, -1), "layer is -1; expected an integer from 0 to 0"),
        (lambda: to_onnx(LSTM, GOOD, True), "layer is True; expected an integer from 0 to 0"),
        (lambda: to_onnx(LSTM, {}), "parameters do not fit lstm: missing weight_ih_l0"),
        (lambda: from_torch(LSTM, GOOD | {"weight_hr_l0": W}), "parameters do not fit lstm: extra weight_hr_l0"),
        (lambda: from_torch(LSTM, 3), r"source is a int; expected a torch.nn.Module or its state_dict\(\)"),
        (
            lambda: from_torch(LSTM, GOOD | {"weight_hh_l0_g": W}),
            "weight_hh_l0 has g; expected arrays g and v of weight_n",
        ),
        (lambda: from_torch(LSTM, GOOD, "rnn."), "no name starts with the prefix 'rnn.'; the names are weight_ih_l0, weight"),
        (lambda: from_onnx(LSTM, []), r"there are 0 operators; expected 1: one \(W, R, B\) for each layer"),
        (lambda: from_onnx(LSTM, [(W, R)]), "there are 2 arrays in layer 0; expected 3: W, R, B of lstm with bias=True"),
        (lambda: from_onnx(LSTM, [(W, R, B, B)]), "there are 4 arrays in layer 0; expected 3: W, R, B of lstm with bias=True"),
        (lambda: from_onnx(PEEPHOLE, [(W, R, B)]), "there are 3 arrays in layer 0; expected 4: W, R, B, P of lstm_peephole"),
        (
            lambda: from_onnx(Spec("lstm", 3, 2, bias=False), [(W, R, B)]),
            "there are 3 arrays in layer 0; expected 2: W, R of lstm with",
        ),
        (lambda: from_onnx(LSTM, [(W[:, :6], R, B)]), r"W of layer 0 has shape \(1, 6, 3\); expected \(1, 8, 3\)"),
        (lambda: from_onnx(LSTM, [(W, R, B.astype("f8"))]), "B of layer 0 has dtype float64; expected float32"),
        (lambda: from_onnx(LSTM, [(W, R.tolist(), B)]), "R of layer 0 is a builtins.list; expected a numpy.ndarray"),
        (lambda: from_keras(LSTM, [KERAS, KERAS]), r"there are 2 layers; expected 1: one get_weights\(\) for each layer"),
        (
            lambda: from_keras(LSTM, [KERAS[:2]]),
            "there are 2 arrays in layer 0; expected 3: kernel, recurrent_kernel, bias for",
        ),
        (lambda: from_keras(LSTM, [[KERAS[0].T, *KERAS[1:]]]), r"kernel of layer 0 has shape \(8, 3\); expected \(3, 8\)"),
        (lambda: from_keras(Spec("gru", 3, 2), [[W[0, :6].T, R[0, :6].T, B[0, :6]]]), r"bias of layer 0 has shape \(6,\)"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_was_given_and_what_is_allowed(call, message):
    with pytest.raises(ArgumentError, match="^" + message):
        call()


def test_from_torch_names_a_tensor_of_another_dtype_even_one_that_numpy_lacks():
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    state_dict = to_torch(LSTM, GOOD, "rnn.")
    state_dict["rnn.bias_ih_l0"] = state_dict["rnn.bias_ih_l0"].to(torch.bfloat16)
    with pytest.raises(ArgumentError, match=r"^rnn\.bias_ih_l0 has dtype bfloat16; expected float32"):
        from_torch(LSTM, state_dict, "rnn.")
