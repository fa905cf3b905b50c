"""LSTM with a projection: torch.nn.LSTM's ``proj_size`` in every backend that has one, and refusals of the others."""

import dataclasses

import numpy as np
import pytest
import torch

import rnnbench
from rnnbench.errors import ArgumentError, SpecError
from rnnbench.networks import convert

T, B, I, H, P = 9, 5, 4, 8, 3  # noqa: E741  # the field's names
BACKENDS = ["numpy_ref", "numba_cpu", "torch_nn", "torch_nn_numpy", "torch_eager", "jax_scan", "auto"]


def spec_of(**options) -> rnnbench.Spec:
    sizes = {"input_size": I, "hidden_size": H, "projection_size": P}
    return rnnbench.Spec(**{"cell": "lstm", "dtype": "float64"} | sizes | options)


@pytest.mark.parametrize("lengths", [None, [9, 0, 4, 4, 1]], ids=["full", "lengths"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_outputs_states_and_gradients_are_those_of_torch(backend, lengths):
    spec, rng = spec_of(num_layers=2, bidirectional=True), np.random.default_rng(1)
    params = rnnbench.init_params(spec, 0)
    x, dy = rng.standard_normal((T, B, I)), rng.standard_normal((T, B, spec.features))
    state, dstate = (tuple(rng.standard_normal(shape) for shape in spec.state_shapes(B)) for _ in range(2))
    module = rnnbench.load_backend(backend)
    net, to_numpy = module.load(spec, params), module.to_numpy
    given = () if lengths is None else (lengths,)
    y, final, tape = net.record(module.asarray(x), tuple(map(module.asarray, state)), *given)
    grads = net.backward(tape, module.asarray(dy), tuple(map(module.asarray, dstate)))
    found = [y, *final, grads.x, *grads.state, *(grads.params[name] for name in params)]
    wanted = of_torch(spec, params, (x, state, dy, dstate), lengths)
    for ours, theirs in zip(found, wanted, strict=True):
        # both round at float64's precision; sums have at most T B terms of size 10
        np.testing.assert_allclose(to_numpy(ours), theirs, rtol=0, atol=T * B * 10 * 2.0**-52)


def of_torch(spec, params, arrays, lengths) -> list[np.ndarray]:
    module = torch.nn.LSTM(I, H, 2, bidirectional=True, dtype=torch.float64, proj_size=P)
    module.load_state_dict(convert.to_torch(spec, params))
    x, state, dy, dstate = arrays
    rows = [row for row in range(B) if lengths is None or lengths[row]]
    leaf, initial = torch.tensor(x, requires_grad=True), [torch.tensor(part, requires_grad=True) for part in state]
    inputs, start = leaf[:, rows], tuple(part[:, rows] for part in initial)
    if lengths is not None:
        of_rows = torch.tensor([lengths[row] for row in rows])
        inputs = torch.nn.utils.rnn.pack_padded_sequence(inputs, of_rows, enforce_sorted=False)
    outputs, last = module(inputs, start)
    if lengths is not None:
        outputs, _ = torch.nn.utils.rnn.pad_packed_sequence(outputs, total_length=T)
    y = torch.zeros(T, B, 2 * P, dtype=torch.float64).index_copy(1, torch.tensor(rows), outputs)
    final = [part.index_copy(1, torch.tensor(rows), new) for part, new in zip(initial, last, strict=True)]
    leaves = [leaf, *initial, *dict(module.named_parameters()).values()]
    grads = torch.autograd.grad([y, *final], leaves, [torch.tensor(dy), *map(torch.tensor, dstate)])
    return [part.detach().numpy() for part in (y, *final, *grads)]


def test_threads_that_divide_rows_agree_with_one_thread():
    spec, rng = spec_of(hidden_size=40, projection_size=17), np.random.default_rng(2)
    params, x = rnnbench.init_params(spec, 0), rng.standard_normal((T, 11, I))
    module = rnnbench.load_backend("numba_cpu")
    one, two = (module.load(spec, params, threads=threads).forward(x) for threads in (1, 2))
    np.testing.assert_allclose(two[0], one[0], rtol=0, atol=1e-14)
    assert [part.shape for part in two[1]] == [(1, 11, 17), (1, 11, 40)] == list(spec.state_shapes(11))


def test_a_stream_of_a_projected_network_gives_what_forward_gives():
    spec, rng = spec_of(num_layers=2), np.random.default_rng(3)
    params, x = rnnbench.init_params(spec, 0), rng.standard_normal((T, 2, I))
    for backend in ("numpy_ref", "numba_cpu"):
        net = rnnbench.load_backend(backend).load(spec, params, threads=1)
        stream = net.stream(2)
        y = np.stack([stream.step(x_t) for x_t in x])
        np.testing.assert_allclose(y, net.forward(x)[0], rtol=0, atol=1e-14)


def test_a_wrong_projection_is_refused_with_what_is_allowed():
    with pytest.raises(SpecError, match=r"projection_size is 9; expected an integer from 1 to 8"):
        spec_of(projection_size=9)
    with pytest.raises(SpecError, match=r"projection_size is 0; expected an integer >= 1"):
        spec_of(projection_size=0)
    with pytest.raises(SpecError, match=r"projection_size is 3; expected None: gru has no projection"):
        dataclasses.replace(spec_of(), cell="gru")
    net = rnnbench.load_backend("numpy_ref").load(spec_of(), rnnbench.init_params(spec_of(), 0))
    zeros = np.zeros((1, B, H)), np.zeros((1, B, H))
    with pytest.raises(ArgumentError, match=r"state h has shape \(1, 5, 8\); expected .* = \(1, 5, 3\)"):
        net.forward(np.zeros((T, B, I)), zeros)


@pytest.mark.parametrize(("backend", "reason"), [("onnxruntime", "ONNX's LSTM has no projection")])
def test_backends_without_a_projection_say_why(backend, reason):
    assert reason in rnnbench.load_backend(backend).supports(spec_of(dtype="float32"))


def test_libraries_without_a_projection_refuse_the_conversion():
    spec = spec_of(dtype="float32")
    for convert_to in (convert.to_onnx, convert.to_keras):
        with pytest.raises(ArgumentError, match="projection_size is 3; expected None"):
            convert_to(spec, rnnbench.init_params(spec, 0))
